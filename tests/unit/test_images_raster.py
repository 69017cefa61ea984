"""PNG, JPEG and BMP: palettes, alpha, bit depths, orientation, size and truncation."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
from PIL import Image as Picture
from PIL.PngImagePlugin import PngInfo

from crista.errors import ImageReadError
from crista.images import raster
from crista.images.open import open_image

GREY = np.random.default_rng(0).integers(0, 200, (21, 30), dtype=np.uint8)
RGB = np.random.default_rng(1).integers(0, 200, (21, 30, 3), dtype=np.uint8)


def _palette(path: Path) -> None:
    picture = Picture.fromarray(GREY % 3).convert("P")
    picture.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90])
    picture.save(path)


def _mend_checksum(content: bytearray) -> None:
    """The checksum of the first chunk of a PNG, so that its size is a credible lie."""
    if content.startswith(b"\x89PNG"):
        content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))


def test_a_palette_is_expanded_for_images(tmp_path: Path) -> None:
    _palette(tmp_path / "a.png")

    image = open_image(tmp_path / "a.png")

    assert "the palette is expanded to RGB" in image.notes
    colours = np.array([[10, 20, 30], [40, 50, 60], [70, 80, 90]])
    np.testing.assert_array_equal(image.read(), colours[GREY % 3].transpose(2, 0, 1))


def test_palette_indices_are_the_classes_of_a_label_image(tmp_path: Path) -> None:
    _palette(tmp_path / "a.png")

    image = open_image(tmp_path / "a.png", is_label=True)

    assert "palette indices are used as classes" in image.notes
    np.testing.assert_array_equal(image.read()[0], GREY % 3)


@pytest.mark.parametrize("mode", ["LA", "RGBA"])
def test_alpha_is_dropped_with_a_note(mode: str, tmp_path: Path) -> None:
    picture = Picture.fromarray(GREY if mode == "LA" else RGB).convert(mode)
    picture.putalpha(77)
    picture.save(tmp_path / "a.png")

    image = open_image(tmp_path / "a.png")

    assert image.notes == ("the alpha channel is dropped",)
    np.testing.assert_array_equal(image.read(), GREY[None] if mode == "LA" else RGB.transpose(2, 0, 1))


def test_alpha_of_16_bit_pictures_is_dropped_and_16_bits_stay(tmp_path: Path) -> None:
    pixels = np.random.default_rng(2).integers(0, 65535, (21, 30, 4), dtype=np.uint16)
    (tmp_path / "a.png").write_bytes(imagecodecs.png_encode(pixels))

    image = open_image(tmp_path / "a.png")

    assert image.notes == ("the alpha channel is dropped",)
    np.testing.assert_array_equal(image.read(), pixels[..., :3].transpose(2, 0, 1))


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_few_bits_are_read_as_stored(bits: int, tmp_path: Path) -> None:
    levels = GREY % 2**bits
    rows = np.zeros((21, 30 * bits), np.uint8)
    for bit in range(bits):
        rows[:, bit::bits] = levels >> (bits - 1 - bit) & 1
    packed = np.packbits(rows, axis=1)
    raw = b"".join(b"\0" + row.tobytes() for row in packed)

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 30, 21, bits, 0, 0, 0, 0)
    content = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(raw)) + chunk(b"IEND", b"")
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + content)

    np.testing.assert_array_equal(open_image(tmp_path / "a.png").read()[0], levels)


def test_exif_orientation_is_ignored_and_said(tmp_path: Path) -> None:
    exif = Picture.Exif()
    exif[0x0112] = 6
    Picture.fromarray(RGB).save(tmp_path / "a.jpg", exif=exif, quality=100)

    image = open_image(tmp_path / "a.jpg")

    assert image.shape == (21, 30, 3)
    assert image.notes == ("EXIF orientation 6 is ignored: pixels are used as stored",)


def test_cmyk_is_converted_and_said(tmp_path: Path) -> None:
    Picture.fromarray(RGB).convert("CMYK").save(tmp_path / "a.jpg")

    image = open_image(tmp_path / "a.jpg")

    assert image.notes == ("CMYK is converted to RGB",)
    assert image.read().shape == (3, 21, 30)


@pytest.mark.parametrize(("name", "kept"), [("a.png", 0.5), ("a.png", 0.99), ("a.jpg", 0.5), ("a.bmp", 0.5)])
def test_a_truncated_picture_is_never_padded(name: str, kept: float, tmp_path: Path) -> None:
    path = tmp_path / name
    Picture.fromarray(np.tile(RGB, (4, 4, 1))).save(path)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * kept)])

    with pytest.raises(ImageReadError, match=rf"(?s){name}.*truncated"):
        open_image(path).read()


def test_a_damaged_png_names_the_file(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Picture.fromarray(RGB).save(path)
    content = bytearray(path.read_bytes())
    content[200:260] = b"\xff" * 60
    path.write_bytes(content)

    with pytest.raises(ImageReadError, match=r"a\.png: its pixels cannot be decoded"):
        open_image(path).read()


@pytest.mark.parametrize("name", ["a.png", "a.bmp", "a.jpg"])
def test_a_claimed_size_beyond_the_limit_is_refused_before_decoding(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    Picture.fromarray(GREY).save(path)
    content = bytearray(path.read_bytes())
    if name == "a.png":
        content[16:24] = struct.pack(">II", 50000, 50000)
    elif name == "a.bmp":
        content[18:26] = struct.pack("<ii", 50000, 50000)
    else:
        start = content.index(b"\xff\xc0") + 5
        content[start : start + 4] = struct.pack(">HH", 50000, 50000)
    _mend_checksum(content)
    path.write_bytes(content)

    with pytest.raises(ImageReadError, match=rf"(?s){name}: size: 50000 × 50000 is 2500 megapixels.*tiled TIFF or OME-Zarr"):
        open_image(path)


def test_a_claimed_size_that_cannot_be_in_the_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Picture.fromarray(GREY).save(path)
    content = bytearray(path.read_bytes())
    content[16:24] = struct.pack(">II", 10000, 10000)
    _mend_checksum(content)
    path.write_bytes(content)

    with pytest.raises(ImageReadError, match="size does not fit the file"):
        open_image(path)


def test_a_large_picture_is_told_by_its_number_of_pixels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(raster, "MAX_PIXELS", 600)
    Picture.fromarray(GREY).save(tmp_path / "a.png")

    with pytest.raises(ImageReadError, match="size: 30 × 21"):
        open_image(tmp_path / "a.png")


@pytest.mark.parametrize("kind", ["text", "international text", "profile"])
def test_long_notes_do_not_make_a_png_unreadable(kind: str, tmp_path: Path) -> None:
    notes, options = PngInfo(), {}
    if kind == "text":
        notes.add_text("xml", "<a>" * 700_000, zip=True)
    elif kind == "international text":
        notes.add_itxt("xml", "<µ>" * 700_000, zip=True)
    else:
        options = {"icc_profile": bytes(3_000_000)}
    Picture.fromarray(GREY).save(tmp_path / "a.png", pnginfo=notes, **options)

    np.testing.assert_array_equal(open_image(tmp_path / "a.png").read()[0], GREY)
