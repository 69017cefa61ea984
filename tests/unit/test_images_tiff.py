"""TIFF files that lie, break off or need a word of explanation."""

from __future__ import annotations

import os
import struct
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import PIL.Image
import pytest
import tifffile

from crista.errors import ImageReadError
from crista.geometry.spacing import Spacing
from crista.images import tiff_pages
from crista.images.look_cache import look_at_image
from crista.images.open import open_image
from crista.images.open_files import DECODED
from crista.images.stored import SEVERAL_FILES
from crista.images.tiff_spacing import read_tiff_spacing

STACK = np.random.default_rng(0).integers(0, 200, (12, 40, 50), dtype=np.uint8)


def _overwrite_tag(path: Path, code: int, value: int) -> None:
    with tifffile.TiffFile(path, mode="r+") as tif:
        tif.pages.first.tags[code].overwrite(value)


@pytest.mark.parametrize("compression", [None, "lzw", "zlib", "packbits", "zstd"])
def test_a_size_that_does_not_fit_the_file_is_refused(compression: str | None, tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, STACK[0], compression=compression, metadata=None)
    for code in (256, 257):
        _overwrite_tag(path, code, 60000)
    if compression is not None:
        _overwrite_tag(path, 278, 60000)

    with pytest.raises(ImageReadError, match=r"a\.tif: size does not fit the file"):
        open_image(path)


@pytest.mark.parametrize("options", [{}, {"compression": "zlib"}, {"tile": (16, 16)}, {"tile": (16, 16), "compression": "lzw"}])
@pytest.mark.parametrize("kind", ["plain", "imagej", "ome"])
@pytest.mark.parametrize("kept", [0.3, 0.6, 0.95])
def test_a_truncated_file_is_never_read_short(options: dict[str, object], kind: str, kept: float, tmp_path: Path) -> None:
    if kind == "imagej" and "tile" in options:
        options = {key: value for key, value in options.items() if key != "tile"}
    path = tmp_path / "a.tif"
    extra = {"imagej": True} if kind == "imagej" else {"ome": kind == "ome"}
    tifffile.imwrite(path, STACK, metadata={"axes": "ZYX"}, photometric="minisblack", **extra, **options)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * kept)])

    with pytest.raises(ImageReadError, match=r"(?s)a\.tif.*(truncated|fit)"):
        open_image(path, ndim=3).read()


def test_a_description_for_imagej_beside_that_of_ome(tmp_path: Path) -> None:
    """As Micro-Manager writes it: the file is whole, although it was not read by what it says to ImageJ."""
    path, for_imagej = tmp_path / "a.ome.tif", "ImageJ=1.11a\nimages=12\nslices=12\nhyperstack=true\n"
    tag = (65000, 2, 0, for_imagej, True)
    tifffile.imwrite(path, STACK, ome=True, metadata={"axes": "ZYX"}, photometric="minisblack", extratags=[tag])
    with tifffile.TiffFile(path, mode="r+") as tif:
        tif.filehandle.seek(tif.pages.first.tags[65000].offset)
        tif.filehandle.write(struct.pack("<H", 270))  # tifffile itself writes one description only
    with tifffile.TiffFile(path) as tif:
        assert tif.is_ome
        assert tif.is_imagej
    image = open_image(path, ndim=3)
    assert image.axes == "ZYX"
    np.testing.assert_array_equal(image.read()[0], STACK)
    path.write_bytes(path.read_bytes()[:-5000])
    with pytest.raises(ImageReadError, match=r"a\.ome\.tif.*(truncated|fit)"):
        open_image(path, ndim=3)


def test_planes_in_files_that_are_not_here(tmp_path: Path) -> None:
    xml = (
        '<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06"><Image ID="Image:0"><Pixels ID="Pixels:0" '
        'DimensionOrder="XYZCT" Type="uint8" SizeX="50" SizeY="40" SizeZ="2" SizeC="1" SizeT="1">'
        '<TiffData FirstZ="0" IFD="0" PlaneCount="1"><UUID FileName="a.ome.tif">urn:uuid:1</UUID></TiffData>'
        '<TiffData FirstZ="1" IFD="0" PlaneCount="1"><UUID FileName="b.ome.tif">urn:uuid:2</UUID></TiffData>'
        "</Pixels></Image></OME>"
    ).replace("<OME ", '<OME UUID="urn:uuid:1" ')
    path = tmp_path / "a.ome.tif"
    tifffile.imwrite(path, STACK[0], description=xml, metadata=None)

    with pytest.raises(ImageReadError, match="1 of 2 planes are missing"):
        open_image(path)


def _write_ome_set(folder: Path, num_planes: int) -> Path:
    """One image of several files, a plane in each; the first file."""
    uuid = [f"urn:uuid:00000000-0000-0000-0000-00000000000{z}" for z in range(num_planes)]
    planes = "".join(
        f'<TiffData FirstZ="{z}" IFD="0" PlaneCount="1"><UUID FileName="{z}.ome.tif">{uuid[z]}</UUID></TiffData>'
        for z in range(num_planes)
    )
    for z in range(num_planes):
        xml = (
            f'<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06" UUID="{uuid[z]}"><Image ID="Image:0">'
            f'<Pixels ID="Pixels:0" DimensionOrder="XYZCT" Type="uint8" SizeX="50" SizeY="40" SizeZ="{num_planes}" SizeC="1" '
            f'SizeT="1">{planes}</Pixels></Image></OME>'
        )
        tifffile.imwrite(folder / f"{z}.ome.tif", STACK[z], description=xml, metadata=None)
    return folder / "0.ome.tif"


def test_an_ome_image_of_several_files_is_one_image(tmp_path: Path) -> None:
    image = open_image(_write_ome_set(tmp_path, 2))

    assert image.notes == (SEVERAL_FILES,)
    np.testing.assert_array_equal(image.read()[0], STACK[:2])


def test_what_was_seen_in_an_image_of_several_files_is_not_remembered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its other files may change."""
    monkeypatch.setenv("CRISTA_CACHE", str(tmp_path / "cache"))
    path = _write_ome_set(tmp_path, 2)
    for file in tmp_path.glob("*.tif"):
        os.utime(file, (1, 1))
    before = look_at_image(open_image(path)).digest
    content = bytearray((tmp_path / "1.ome.tif").read_bytes())
    content[-1] ^= 1
    (tmp_path / "1.ome.tif").write_bytes(content)
    DECODED.clear()

    assert look_at_image(open_image(path)).digest != before


def test_a_missing_file_of_several_is_no_black_plane(tmp_path: Path) -> None:
    path = _write_ome_set(tmp_path, 3)
    (tmp_path / "1.ome.tif").unlink()

    with pytest.raises(ImageReadError, match="1 of 3 planes are missing"):
        open_image(path)


def test_a_damaged_strip_names_file_and_page(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, STACK, compression="zlib", metadata={"axes": "ZYX"})
    with tifffile.TiffFile(path) as tif:
        offset = tif.pages[4].dataoffsets[0]
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(b"\xff" * 200)
    image = open_image(path, ndim=3)

    image.read((slice(0, 4), slice(0, 40), slice(0, 50)))
    with pytest.raises(ImageReadError, match=r"a\.tif: page 5 of 12 cannot be decoded"):
        image.read()


def test_an_unknown_compression_is_no_damage(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, STACK[0], compression="zlib")
    _overwrite_tag(path, 259, 34676)

    with pytest.raises(ImageReadError, match=r"SGILOG.* not supported\)\n    -> it is stored in a way that is not known here"):
        open_image(path).read()


def test_an_unknown_pixel_type_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, STACK[0], metadata=None)
    _overwrite_tag(path, 258, 0)

    with pytest.raises(ImageReadError, match=r"a\.tif: pixels of 0 bits in sample format 1 are not supported"):
        open_image(path)


def test_an_absent_tile_reads_as_the_fill_value(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, np.full((32, 32), 7, np.uint8), tile=(16, 16), compression="zlib", metadata=None)
    with tifffile.TiffFile(path, mode="r+") as tif:
        counts = list(tif.pages.first.databytecounts)
        tif.pages.first.tags[325].overwrite([0, *counts[1:]])

    pixels = open_image(path).read()[0]

    expected = np.full((32, 32), 7)
    expected[:16, :16] = 0
    np.testing.assert_array_equal(pixels, expected)


def test_only_the_tiles_of_the_region_are_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.tif"
    pixels = np.random.default_rng(0).integers(0, 200, (4, 64, 64), dtype=np.uint8)
    tifffile.imwrite(path, pixels, tile=(16, 16), compression="zlib", photometric="minisblack", metadata={"axes": "ZYX"})
    decoded = []
    original = tiff_pages.decode_segment
    monkeypatch.setattr(
        tiff_pages, "decode_segment", lambda page, index, data: decoded.append(index) or original(page, index, data)
    )

    part = open_image(path, ndim=3).read((slice(1, 3), slice(10, 20), slice(50, 60)))

    np.testing.assert_array_equal(part[0], pixels[1:3, 10:20, 50:60])
    assert decoded == [3, 7, 3, 7]


def test_the_first_of_several_series_is_used_with_a_note(tmp_path: Path) -> None:
    with tifffile.TiffWriter(tmp_path / "a.tif") as tif:
        tif.write(STACK[0])
        tif.write(STACK[0, ::4, ::4])

    image = open_image(tmp_path / "a.tif")

    assert image.shape == (40, 50)
    assert image.notes == ("2 series: the first is used",)


def test_min_is_white_is_not_inverted_and_said(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", STACK[0], photometric="miniswhite")

    image = open_image(tmp_path / "a.tif")

    assert image.notes == ("photometric MinIsWhite: pixels are used as stored, not inverted",)
    np.testing.assert_array_equal(image.read()[0], STACK[0])


def test_alpha_is_dropped_as_in_a_png(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 200, (40, 50, 4), dtype=np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", pixels, photometric="rgb", extrasamples=["unassalpha"])

    image = open_image(tmp_path / "a.tif")

    assert image.notes == ("the alpha channel is dropped",)
    np.testing.assert_array_equal(image.read(), pixels[..., :3].transpose(2, 0, 1))


def test_four_planes_are_channels_not_a_picture_with_alpha(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, STACK[:4], photometric="rgb", planarconfig="separate", extrasamples=["unassalpha"])

    np.testing.assert_array_equal(open_image(path, ndim=2).read(), STACK[:4])


def test_four_channels_that_are_no_picture_stay_four(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", STACK[:4], photometric="minisblack", metadata={"axes": "CYX"})

    assert open_image(tmp_path / "a.tif").num_channels == 4


def test_a_stack_of_pages_without_metadata_is_a_volume(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", STACK, photometric="minisblack", metadata=None)

    image = open_image(tmp_path / "a.tif")

    assert (image.axes, image.ndim) == ("ZYX", 3)
    assert image.axes_reason == "guessed (z, y, x): no axis metadata, 3 axes"


def test_an_array_saved_without_axes_is_guessed_by_its_shape(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((20, 48, 64, 2), np.uint8), photometric="minisblack")

    assert open_image(tmp_path / "a.tif", ndim=3).axes == "ZYXC"


def test_colours_within_channels_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.ome.tif"
    tifffile.imwrite(path, np.zeros((2, 40, 50, 3), np.uint8), photometric="rgb", metadata={"axes": "CYXS"})

    with pytest.raises(ImageReadError, match="2 channels of 3 colour samples"):
        open_image(path)


@pytest.mark.parametrize(
    ("resolution", "unit", "expected"),
    [
        ((20000.0, 20000.0), "CENTIMETER", Spacing((0.5, 0.5))),
        ((254000.0, 127000.0), "INCH", Spacing((0.2, 0.1))),
        ((72.0, 72.0), "INCH", None),
        ((300 / 2.54, 300 / 2.54), "CENTIMETER", None),
        ((5.0, 5.0), "NONE", None),
    ],
)
def test_voxel_size_from_resolution_tags(
    resolution: tuple[float, float], unit: str, expected: Spacing | None, tmp_path: Path
) -> None:
    tifffile.imwrite(tmp_path / "a.tif", STACK[0], resolution=resolution, resolutionunit=unit)

    spacing = open_image(tmp_path / "a.tif").spacing

    assert (spacing is None) == (expected is None)
    if spacing is not None and expected is not None:
        assert spacing.values == pytest.approx(expected.values)


@pytest.mark.parametrize(
    ("unit", "expected"),
    [
        *[("um", 0.5), ("\\u00B5m", 0.5), ("micron", 0.5), ("Microns", 0.5), ("micrometers", 0.5), ("nm", 0.0005)],
        *[("nanometres", 0.0005), ("millimetres", 500.0), ("inches", 12700.0), ("pixel", None), ("ms", None), ("", None)],
    ],
)
def test_units_of_imagej(unit: str, expected: float | None, tmp_path: Path) -> None:
    metadata = {"axes": "ZYX", "spacing": 0.5, "unit": unit}
    tifffile.imwrite(tmp_path / "a.tif", STACK, imagej=True, resolution=(2, 2), metadata=metadata)

    spacing = open_image(tmp_path / "a.tif").spacing

    assert (spacing.values if spacing else None) == (pytest.approx((expected,) * 3) if expected else None)


@pytest.mark.parametrize(
    ("size", "unit", "expected"),
    [("0,5", "µm", 0.5), ("500000", "pm", 0.5), ("0.5", "in", 12700.0), ("", "µm", None), ("unknown", "µm", None)],
)
def test_a_voxel_size_that_is_oddly_written_does_not_make_a_file_unreadable(
    size: str, unit: str, expected: float | None, tmp_path: Path
) -> None:
    xml = (
        '<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06"><Image ID="Image:0"><Pixels ID="Pixels:0" '
        'DimensionOrder="XYZCT" Type="uint8" SizeX="50" SizeY="40" SizeZ="1" SizeC="1" SizeT="1" '
        f'PhysicalSizeX="{size}" PhysicalSizeXUnit="{unit}" PhysicalSizeY="{size}" PhysicalSizeYUnit="{unit}">'
        '<TiffData IFD="0" PlaneCount="1"/></Pixels></Image></OME>'
    )
    tifffile.imwrite(tmp_path / "a.ome.tif", STACK[0], description=xml.encode(), metadata=None)

    image = open_image(tmp_path / "a.ome.tif")

    assert (image.spacing.values if image.spacing else None) == (pytest.approx((expected,) * 2) if expected else None)
    np.testing.assert_array_equal(image.read()[0], STACK[0])


@pytest.mark.parametrize(("unit", "dots"), [("inch", 72), ("cm", 72 / 2.54)])
def test_the_resolution_of_a_screen_says_nothing_to_imagej_either(unit: str, dots: float, tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", STACK[0], imagej=True, resolution=(dots, dots), metadata={"axes": "YX", "unit": unit})

    assert open_image(tmp_path / "a.tif").spacing is None


def test_voxel_size_that_is_not_known_for_every_axis_is_none(tmp_path: Path) -> None:
    metadata = {"axes": "ZYX", "PhysicalSizeX": 0.5, "PhysicalSizeY": 0.5}
    tifffile.imwrite(tmp_path / "a.ome.tif", STACK, metadata=metadata, photometric="minisblack")

    assert open_image(tmp_path / "a.ome.tif", ndim=3).spacing is None


def test_voxel_size_of_an_lsm(tmp_path: Path) -> None:
    """Zeiss: metres in a tag of its own, and after each page its thumbnail."""
    info = np.zeros((), [(name or "reserved", form) for name, form in tifffile.TIFF.CZ_LSMINFO])
    sizes = {"DimensionX": 50, "DimensionY": 40, "DimensionZ": 12, "DimensionChannels": 1, "DimensionTime": 1}
    for name, value in {
        **sizes,
        "MagicNumber": 0x0400494C,
        "StructureSize": info.nbytes,
        "DataType": 1,
        "VoxelSizeX": 2e-7,
        "VoxelSizeY": 2e-7,
        "VoxelSizeZ": 1e-6,
    }.items():
        info[name] = value
    tag = (34412, "B", info.nbytes, info.tobytes(), True)
    with tifffile.TiffWriter(tmp_path / "a.lsm") as tif:
        for number, plane in enumerate(STACK):
            tif.write(plane, photometric="minisblack", metadata=None, extratags=[] if number else [tag])
            tif.write(plane[::4, ::4], photometric="minisblack", metadata=None, subfiletype=1)

    image = open_image(tmp_path / "a.lsm", ndim=3)

    assert image.spacing is not None
    assert image.spacing.values == pytest.approx((1.0, 0.2, 0.2))
    assert image.notes == ()
    np.testing.assert_array_equal(image.read()[0], STACK)


@pytest.mark.parametrize(("description", "expected"), [("AppMag = 40|MPP = 0.25", 0.25), ("AppMag = 40", 0.5)])
def test_voxel_size_of_a_slide_scanner(description: str, expected: float, tmp_path: Path) -> None:
    """Aperio writes it into the description; where it does not, the resolution tags count."""
    text, half = f"Aperio Image Library v1.0\n50x40 |{description}", (20000, 20000)
    tags: dict[str, Any] = {"tile": (16, 16), "resolution": half, "resolutionunit": "CENTIMETER"}
    tifffile.imwrite(tmp_path / "a.svs", STACK[0], description=text, metadata=None, **tags)

    spacing = open_image(tmp_path / "a.svs").spacing

    assert spacing is not None
    assert spacing.values == pytest.approx((expected, expected))


@pytest.mark.parametrize(
    ("kind", "written", "expected"),
    [
        (
            "stk",
            {"XCalibration": 0.2, "YCalibration": 0.1, "CalibrationUnits": "um", "ZDistance": np.array([-2.0, -2.0])},
            {"Z": 2.0, "Y": 0.1, "X": 0.2},
        ),
        ("stk", {"XCalibration": 1.0, "YCalibration": 1.0, "CalibrationUnits": "pixel", "ZDistance": np.array([0.0])}, {}),
        ("stk", {"XCalibration": 1.0, "YCalibration": 1.0, "CalibrationUnits": "um", "SpatialCalibration": False}, {}),
        ("mmstack", {"Summary": {"PixelSize_um": 0.65, "z-step_um": -3}}, {"Z": 3.0, "Y": 0.65, "X": 0.65}),
        ("mmstack", {"Summary": {"PixelSize_um": 0, "z-step_um": 0}}, {}),
        ("stk", {"ZDistance": np.array([])}, {}),
        ("mmstack", {"Summary": None}, {}),
    ],
)
def test_voxel_size_by_the_programs_of_microscopes(kind: str, written: dict[str, Any], expected: dict[str, float]) -> None:
    """As tifffile reads MetaMorph's and Micro-Manager's metadata."""
    page = SimpleNamespace(resolutionunit=1, get_resolution=lambda: (1.0, 1.0))
    tif: Any = SimpleNamespace(stk_metadata=written, micromanager_metadata=written)

    assert read_tiff_spacing(tif, SimpleNamespace(kind=kind, keyframe=page)) == pytest.approx(expected)


def test_a_page_that_points_to_itself_ends(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, STACK[0], metadata=None, byteorder="<")
    content = bytearray(path.read_bytes())
    first = struct.unpack("<I", content[4:8])[0]
    count = struct.unpack("<H", content[first : first + 2])[0]
    content[first + 2 + 12 * count : first + 6 + 12 * count] = struct.pack("<I", first)
    path.write_bytes(content)

    np.testing.assert_array_equal(open_image(path, ndim=2).read()[0], STACK[0])


@pytest.mark.parametrize(
    ("orientation", "notes"), [(1, ()), (6, ("orientation 6 (TIFF tag 274) is ignored: pixels are used as stored",))]
)
def test_an_orientation_that_is_not_followed_is_said(orientation: int, notes: tuple[str, ...], tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", STACK[0], metadata=None, extratags=[(274, "H", 1, orientation, True)])

    image = open_image(tmp_path / "a.tif", ndim=2)
    assert image.notes == notes
    np.testing.assert_array_equal(image.read()[0], STACK[0])


def test_pages_in_a_circle_are_refused(tmp_path: Path) -> None:
    """In an OME-TIFF with an empty page in the circle tifffile would look for its end for ever."""
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, STACK, metadata=None, byteorder="<", photometric="minisblack")
    content = bytearray(path.read_bytes())
    first = offset = struct.unpack("<I", content[4:8])[0]
    while offset:
        link = offset + 2 + 12 * struct.unpack("<H", content[offset : offset + 2])[0]
        offset = struct.unpack("<I", content[link : link + 4])[0]
    content[link : link + 4] = struct.pack("<I", first)
    path.write_bytes(content)

    with pytest.raises(ImageReadError, match=rf"after page {len(STACK)} comes page 1 again(?s:.)*copy or export it again"):
        open_image(path, ndim=3)


def test_alpha_beside_grey_is_dropped_as_in_a_png(tmp_path: Path) -> None:
    pixels = np.stack([STACK[0], STACK[1]], axis=-1)
    for name in ("a.tif", "a.png"):
        PIL.Image.fromarray(pixels, mode="LA").save(tmp_path / name)
    tiff, png = open_image(tmp_path / "a.tif"), open_image(tmp_path / "a.png")

    assert tiff.notes == png.notes == ("the alpha channel is dropped",)
    np.testing.assert_array_equal(tiff.read(), STACK[:1])
    np.testing.assert_array_equal(png.read(), STACK[:1])


def test_two_channels_are_not_taken_for_grey_and_alpha(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", np.stack([STACK[0], STACK[1]], axis=-1), photometric="minisblack", planarconfig="contig")

    np.testing.assert_array_equal(open_image(tmp_path / "a.tif", ndim=2).read(), STACK[:2])


@pytest.mark.parametrize(("resolution", "unit", "expected"), [(72, "inch", None), (4, "micron", 0.25), (25400, "inch", 1.0)])
def test_the_resolution_of_a_screen_is_no_voxel_size_of_imagej(
    resolution: int, unit: str, expected: float | None, tmp_path: Path
) -> None:
    tifffile.imwrite(tmp_path / "a.tif", STACK[0], imagej=True, resolution=(resolution, resolution), metadata={"unit": unit})

    spacing = open_image(tmp_path / "a.tif").spacing

    assert (None if spacing is None else spacing.values) == (None if expected is None else pytest.approx((expected, expected)))
