"""Every format keeps the promise of `open_image`: whole == read by regions, axes and voxel size as stored."""

from __future__ import annotations

import json
import os
import pickle
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import h5py
import imagecodecs
import nibabel
import numpy as np
import pytest
import tensorstore
import tifffile
import zarr
from numpy.typing import NDArray
from PIL import Image as Picture

from crista.errors import ImageReadError
from crista.geometry.axes import to_canonical
from crista.geometry.spacing import Spacing
from crista.images.open import open_image
from crista.images.write import write_image

Array = NDArray[np.generic]
SPACING = (0.05, 0.0092, 0.0093)


@dataclass(frozen=True)
class Format:
    """How to write a test file, and what must come back."""

    name: str
    axes: str
    shape: tuple[int, ...]
    dtype: str
    write: Callable[[Path, Array], object]
    spacing: tuple[float, ...] | None = None
    axes_given: str | None = None


def _tiff(**options: object) -> Callable[[Path, Array], object]:
    return lambda path, array: tifffile.imwrite(path, array, **{"photometric": "minisblack", **options})


def _imagej(path: Path, array: Array) -> None:
    metadata = {"axes": "ZCYX", "spacing": SPACING[0], "unit": "um"}
    resolution = (1 / SPACING[2], 1 / SPACING[1])
    tifffile.imwrite(path, array, imagej=True, metadata=metadata, resolution=resolution, compression="zlib")


def _ome(path: Path, array: Array) -> None:
    sizes = {f"PhysicalSize{letter}": value * 1000 for letter, value in zip("ZYX", SPACING, strict=True)}
    units = {f"PhysicalSize{letter}Unit": "nm" for letter in "ZYX"}
    metadata = {"axes": "CZYX", **sizes, **units}
    tifffile.imwrite(path, array, ome=True, tile=(16, 16), compression="zstd", metadata=metadata)


def _planar(path: Path, array: Array) -> None:
    tifffile.imwrite(path, array, photometric="rgb", planarconfig="separate", compression="lzw")


def _picture(path: Path, array: Array) -> None:
    Picture.fromarray(array).save(path)


def _png16(path: Path, array: Array) -> None:
    path.write_bytes(imagecodecs.png_encode(array))


def _ome_zarr(version: str) -> Callable[[Path, Array], object]:
    def write(path: Path, array: Array) -> None:
        group = zarr.create_group(str(path), zarr_format=2 if version == "0.4" else 3)
        level = group.create_array("s0", shape=array.shape, chunks=(1, 3, 8, 8), dtype=array.dtype)
        level[:] = array
        axes = [{"name": "c", "type": "channel"}] + [{"name": name, "type": "space", "unit": "nanometer"} for name in "zyx"]
        scale = [1.0] + [value * 1000 for value in SPACING]
        transforms = [{"type": "scale", "scale": scale}]
        multiscale = {"axes": axes, "datasets": [{"path": "s0", "coordinateTransformations": transforms}]}
        if version == "0.4":
            group.attrs["multiscales"] = [multiscale]
        else:
            group.attrs["ome"] = {"version": "0.5", "multiscales": [multiscale]}

    return write


def _zarr(zarr_format: int, **options: object) -> Callable[[Path, Array], object]:
    def write(path: Path, array: Array) -> None:
        made = zarr.create_array(
            str(path), shape=array.shape, dtype=array.dtype, zarr_format=zarr_format, **{"chunks": (3, 8, 8), **options}
        )
        made[:] = array

    return write


def _n5(path: Path, array: Array) -> None:
    spec = {
        "driver": "n5",
        "kvstore": {"driver": "file", "path": str(path / "volumes" / "s0")},
        "metadata": {"dimensions": array.shape[::-1], "blockSize": [8, 8, 3, 1], "dataType": str(array.dtype)},
    }
    tensorstore.open(spec, create=True).result()[...] = array.T
    sizes = {"pixelResolution": {"dimensions": SPACING[::-1], "unit": "um"}, "axes": ["x", "y", "z", "c"]}
    (path / "attributes.json").write_text(json.dumps({"n5": "4.0.0"}))
    (path / "volumes" / "attributes.json").write_text(json.dumps(sizes))


def _hdf5(path: Path, array: Array) -> None:
    with h5py.File(path, "w") as file:
        dataset = file.create_dataset("volumes/raw", data=array, chunks=(3, 8, 8, 1), compression="gzip")
        dataset.attrs["axes"] = "zyxc"
        dataset.attrs["element_size_um"] = SPACING


def _nifti(path: Path, array: Array) -> None:
    image = nibabel.Nifti1Image(array, np.eye(4))
    image.header.set_xyzt_units("micron")
    image.header.set_zooms((*SPACING[::-1], *(1.0,) * (array.ndim - 3)))
    nibabel.save(image, path)


FORMATS = [
    Format("plain.tif", "ZYX", (7, 21, 30), "uint8", _tiff()),
    Format("big_endian.tif", "ZYX", (7, 21, 30), "uint16", _tiff(byteorder=">")),
    Format("bigtiff.btf", "YX", (21, 30), "float32", _tiff(bigtiff=True)),
    Format("strips.tif", "YX", (61, 30), "int16", _tiff(compression="lzw", predictor=True, rowsperstrip=7)),
    Format("float_predictor.tif", "ZYX", (5, 21, 30), "float32", _tiff(compression="zlib", predictor=3)),
    Format("big_endian_lzma.tif", "ZYX", (5, 21, 30), "uint16", _tiff(compression="lzma", byteorder=">")),
    Format("jpeg2000.tif", "YX", (64, 40), "uint16", _tiff(compression="jpeg2000", tile=(32, 32))),
    Format("tiled.tif", "ZYX", (5, 45, 50), "uint8", _tiff(compression="zstd", tile=(16, 32))),
    Format("tiled_plain.tif", "ZYX", (5, 45, 50), "float16", _tiff(tile=(16, 16))),
    Format("volumetric.tif", "ZYX", (20, 45, 50), "uint8", _tiff(volumetric=True, tile=(16, 16, 16))),
    Format("rgb.tif", "YXC", (40, 30, 3), "uint16", _tiff(photometric="rgb", compression="zlib", rowsperstrip=8)),
    Format("planar.tif", "CYX", (3, 40, 30), "uint8", _planar),
    Format("bilevel.tif", "YX", (40, 30), "bool", _tiff()),
    Format("bilevel_packed.tif", "ZYX", (4, 40, 30), "bool", _tiff(compression="zlib")),
    Format("imagej.tif", "ZCYX", (5, 2, 21, 30), "uint16", _imagej, SPACING),
    Format("a.ome.tif", "CZYX", (2, 5, 45, 50), "uint8", _ome, SPACING),
    Format(
        "ours.tif",
        "ZCYX",
        (5, 2, 21, 30),
        "float32",
        lambda path, array: write_image(path, array, "ZCYX", spacing=Spacing(SPACING)),
        SPACING,
    ),
    Format("grey.png", "YX", (21, 30), "uint8", _picture),
    Format("grey16.png", "YX", (21, 30), "uint16", _picture),
    Format("rgb.png", "YXC", (21, 30, 3), "uint8", _picture),
    Format("rgb16.png", "YXC", (21, 30, 3), "uint16", _png16),
    Format("bilevel.png", "YX", (21, 30), "bool", _picture),
    Format("grey.bmp", "YX", (21, 30), "uint8", _picture),
    Format("rgb.bmp", "YXC", (21, 30, 3), "uint8", _picture),
    Format("c_order.npy", "ZYX", (5, 21, 30), "float64", np.save),
    Format("fortran.npy", "ZYX", (5, 21, 30), ">i4", lambda path, array: np.save(path, np.asfortranarray(array))),
    Format("bool.npy", "YX", (21, 30), "bool", np.save),
    Format("a.n5", "CZYX", (2, 5, 21, 30), "uint16", _n5, SPACING),
    Format("v2.zarr", "ZYX", (7, 21, 30), "uint16", _zarr(2)),
    Format("v3.zarr", "ZYX", (7, 21, 30), "float32", _zarr(3)),
    Format("named.zarr", "YXZ", (7, 21, 30), "uint8", _zarr(3, dimension_names=("y", "x", "z"))),
    Format("sharded.zarr", "ZYX", (9, 24, 32), "int32", _zarr(3, shards=(9, 24, 16))),
    Format("a.ome.zarr", "CZYX", (2, 7, 21, 30), "uint8", _ome_zarr("0.4"), SPACING),
    Format("b.ome.zarr", "CZYX", (2, 7, 21, 30), "uint16", _ome_zarr("0.5"), SPACING),
    Format("a.h5", "ZYXC", (7, 21, 30, 2), "uint16", _hdf5, SPACING),
    Format("a.nii", "XYZ", (30, 21, 7), "int16", _nifti, SPACING),
    Format("a.nii.gz", "XYZC", (30, 21, 7, 2), "float32", _nifti, SPACING),
    Format("given.npy", "ZXCY", (5, 30, 2, 21), "uint8", np.save, axes_given="ZXCY"),
]


def _pixels(case: Format) -> Array:
    random = np.random.default_rng(0)
    if case.dtype == "bool":
        return random.random(case.shape) < 0.5
    return (random.random(case.shape) * 200).astype(case.dtype)


@pytest.mark.parametrize("case", FORMATS, ids=lambda case: case.name)
def test_reading_by_regions_equals_reading_the_whole(case: Format, tmp_path: Path) -> None:
    path, array = tmp_path / case.name, _pixels(case)
    case.write(path, array)
    ndim = 3 if "Z" in case.axes else 2

    image = open_image(path, ndim=ndim, axes=case.axes_given)

    expected = to_canonical(array, case.axes, ndim)
    assert image.axes == case.axes
    assert image.shape == case.shape
    assert image.dtype == (np.uint8 if case.dtype == "bool" else np.dtype(case.dtype).newbyteorder("="))
    whole = image.read()
    assert whole.dtype == image.dtype
    np.testing.assert_array_equal(whole, expected)
    random = np.random.default_rng(1)
    for _ in range(12):
        region = []
        for length in image.spatial_shape:
            start, stop = sorted(random.choice(length + 1, 2, replace=False))
            region.append(slice(int(start), int(stop)))
        np.testing.assert_array_equal(image.read(tuple(region)), expected[(slice(None), *region)])


@pytest.mark.parametrize("case", [case for case in FORMATS if case.spacing], ids=lambda case: case.name)
def test_voxel_size_is_read_in_micrometres(case: Format, tmp_path: Path) -> None:
    path = tmp_path / case.name
    case.write(path, _pixels(case))

    image = open_image(path)

    assert image.spacing is not None
    assert image.spacing.values == pytest.approx(case.spacing, rel=1e-6)


@pytest.mark.parametrize("case", FORMATS, ids=lambda case: case.name)
def test_pixels_read_are_ours_to_change(case: Format, tmp_path: Path) -> None:
    path = tmp_path / case.name
    case.write(path, _pixels(case))
    image = open_image(path, axes=case.axes_given)
    first = image.read()
    kept = first.copy()

    first[...] = 0

    np.testing.assert_array_equal(image.read(), kept)


@pytest.mark.parametrize("case", FORMATS, ids=lambda case: case.name)
def test_an_image_travels_to_another_process(case: Format, tmp_path: Path) -> None:
    path = tmp_path / case.name
    case.write(path, _pixels(case))
    image = open_image(path, axes=case.axes_given)
    expected = image.read()

    copy = pickle.loads(pickle.dumps(image))

    np.testing.assert_array_equal(copy.read(), expected)


def _damage(content: bytes, random: np.random.Generator) -> bytes:
    """A copy that ends early, or with a few bytes changed, mostly near its start where the headers are."""
    if random.random() < 0.2:
        return content[: int(random.integers(len(content)))]
    damaged = bytearray(content)
    for _ in range(int(random.integers(1, 6))):
        place = int(random.integers(min(len(content), int(random.choice([64, 512, len(content)])))))
        rubbish = [random.bytes(1), b"\xff\xff\xff\xff", b"\0\0\0\0", b"\xff\xff\xff\x7f"][int(random.integers(4))]
        damaged[place : place + len(rubbish)] = rubbish
    return bytes(damaged)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("case", FORMATS, ids=lambda case: case.name)
def test_a_damaged_file_gives_pixels_or_an_error_that_names_it(case: Format, tmp_path: Path) -> None:
    path = tmp_path / case.name
    case.write(path, _pixels(case))
    headers = [file for file in path.rglob("*") if file.name in ("zarr.json", ".zarray", "attributes.json")] or [path]
    part = max(headers, key=lambda file: len(file.parts))
    content, random = part.read_bytes(), np.random.default_rng(2)

    messages = []
    for attempt in range(20):
        part.write_bytes(_damage(content, random))
        os.utime(part, ns=(attempt, attempt))
        try:
            assert open_image(path).read().size > 0
        except ImageReadError as error:
            messages.append(str(error))

    assert messages
    assert all(case.name in message for message in messages)


@pytest.mark.parametrize("case", FORMATS, ids=lambda case: case.name)
def test_a_region_outside_the_image_is_refused(case: Format, tmp_path: Path) -> None:
    path = tmp_path / case.name
    case.write(path, _pixels(case))
    image = open_image(path, axes=case.axes_given)
    inside = [slice(0, length) for length in image.spatial_shape]

    with pytest.raises(ValueError, match="does not lie inside"):
        image.read((*inside[:-1], slice(0, image.spatial_shape[-1] + 1)))
