"""PNG, JPEG and BMP: pixels as stored, palettes expanded, alpha dropped; each with a note."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import imagecodecs
import numpy as np
from PIL import BmpImagePlugin, ImageFile, JpegImagePlugin, PngImagePlugin

from crista.geometry.axes import Array
from crista.images.stored import Stored, WholePixels, check_claimed_size, decoding_errors, note_on_pieces, num_bytes, read_error

MAX_PIXELS = 2**28
"""Largest picture that is opened (268 megapixels): these formats can only be decoded as a whole."""

BEST_COMPRESSION = 1100.0
"""Most bytes of pixels per byte of file: deflate reaches 1032."""

# Pillow would refuse a sound PNG with more than 1 MB of compressed notes: the metadata of a microscope, a colour profile.
PngImagePlugin.MAX_TEXT_CHUNK = 2**26

_PLUGINS: dict[str, Callable[[BinaryIO], ImageFile.ImageFile]] = {
    "PNG": PngImagePlugin.PngImageFile,
    "JPEG": JpegImagePlugin.JpegImageFile,
    "BMP": BmpImagePlugin.BmpImageFile,
}
_EXIF_ORIENTATION = 0x0112


@dataclass(frozen=True)
class _Layout:
    """What the header of a picture says."""

    width: int
    height: int
    mode: str
    """Mode of Pillow."""
    bits: int = 8
    """Bits per sample."""
    samples: int = 1
    """Samples per pixel as stored, alpha included."""
    orientation: int = 1
    """Of EXIF: 1 as stored, others mirrored or turned."""


def read_raster_header(path: Path, kind: str, is_label: bool) -> Stored:
    """Describe a PNG, JPEG or BMP.

    Raises
    ------
    ImageReadError
        If the file is truncated, or larger than `MAX_PIXELS`.
    """
    with path.open("rb") as file:
        layout = _read_layout(path, kind, file)
    _check_pixels(path, layout)
    keeps_indices = layout.mode == "P" and is_label
    is_grey = layout.samples < 3 if layout.bits == 16 else keeps_indices or layout.mode in ("1", "L", "LA", "I;16", "I")
    channels = 1 if is_grey else 3
    shape = (layout.height, layout.width) if is_grey else (layout.height, layout.width, 3)
    dtype = np.dtype(np.uint16 if layout.bits == 16 else np.uint8)
    source = WholePixels(path, _decode, (kind, layout, channels))
    notes = (*_iter_notes(layout, keeps_indices), *note_on_pieces("one piece", num_bytes(shape, dtype)))
    return Stored(shape, dtype, "YX" if is_grey else "YXC", source, notes=notes)


def _iter_notes(layout: _Layout, keeps_indices: bool) -> Iterator[str]:
    if layout.orientation != 1:
        yield f"EXIF orientation {layout.orientation} is ignored: pixels are used as stored"
    if layout.mode in ("LA", "RGBA", "PA", "La", "RGBa"):
        yield "the alpha channel is dropped"
    if layout.mode == "P":
        yield "palette indices are used as classes" if keeps_indices else "the palette is expanded to RGB"
    if layout.mode in ("CMYK", "YCCK"):
        yield "CMYK is converted to RGB"


def _read_layout(path: Path, kind: str, file: BinaryIO) -> _Layout:
    if kind == "PNG":
        width, height, bits, samples = _walk_png(path, file)
        file.seek(0)
        return _Layout(width, height, PngImagePlugin.PngImageFile(file).mode, bits, samples)
    picture = _PLUGINS[kind](file)
    orientation = picture.getexif().get(_EXIF_ORIENTATION, 1) if kind == "JPEG" else 1
    return _Layout(picture.width, picture.height, picture.mode, orientation=orientation)


def _walk_png(path: Path, file: BinaryIO) -> tuple[int, int, int, int]:
    """Width, height, bits and samples of a PNG, after a walk over its chunks that finds a truncation.

    Chunk layout: PNG specification, https://www.w3.org/TR/png/#5Chunk-layout
    """
    size = path.stat().st_size
    header = file.read(33)
    if len(header) < 33 or header[12:16] != b"IHDR":
        raise read_error(path, "truncated or damaged PNG header", "copy or export it again")
    width, height = int.from_bytes(header[16:20], "big"), int.from_bytes(header[20:24], "big")
    samples = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}.get(header[25], 1)
    position = 8
    while True:
        file.seek(position)
        start = file.read(8)
        position += 12 + int.from_bytes(start[:4], "big")
        if len(start) < 8 or position > size:
            raise read_error(path, f"truncated PNG ({size:,} bytes, its end is missing)", "copy or export it again")
        if start[4:] == b"IEND":
            return width, height, header[24], samples


def _check_pixels(path: Path, layout: _Layout) -> None:
    pixels = layout.width * layout.height
    if pixels > MAX_PIXELS:
        what = (
            f"size: {layout.width} × {layout.height} is {pixels / 1e6:.0f} megapixels, more than the limit of "
            f"{MAX_PIXELS / 1e6:.0f} for a format that can only be decoded as a whole"
        )
        raise read_error(path, what, "convert it to a tiled TIFF or OME-Zarr, or cut it into parts")
    bits = {"1": 1, "P": 1}.get(layout.mode, 1 if layout.bits < 8 else 8)
    check_claimed_size(path, pixels * bits // 8, path.stat().st_size, BEST_COMPRESSION)


def _decode(path: Path, kind: str, layout: _Layout, channels: int) -> Array:
    with decoding_errors(path, "its pixels"), path.open("rb") as file:
        if layout.bits == 16:
            # Pillow would cut 16-bit colour down to 8 bits.
            pixels: Array = imagecodecs.png_decode(file.read())
            pixels = pixels if pixels.ndim == 2 else pixels[..., :channels]
            return pixels[..., 0] if channels == 1 and pixels.ndim == 3 else pixels
        return _to_array(_PLUGINS[kind](file), layout, channels)


def _to_array(picture: ImageFile.ImageFile, layout: _Layout, channels: int) -> Array:
    if channels == 3:
        return np.asarray(picture if picture.mode == "RGB" else picture.convert("RGB"))
    pixels = np.asarray(picture)
    pixels = pixels[..., 0] if pixels.ndim == 3 else pixels
    if layout.mode == "L" and layout.bits in (2, 4):
        # Pillow stretches 2 and 4 bits over 0-255; here are the values as stored.
        pixels = pixels // np.uint8(255 // (2**layout.bits - 1))
    return pixels.astype(np.uint8)
