"""A synthetic volume of any size whose every voxel is a function of its place: blobs on a shaded background, with noise."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from itertools import product
from math import pi
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

CHUNK = 128
PERIODS = ((37.0, 41.0, 53.0), (29.0, 61.0, 47.0))
"""Voxels per wave along (z, y, x); blobs lie where the two fields of waves are high."""
FIRST_BLOB, BACKGROUND, SHADE, NOISE = 1400, 300, 200, 8

Region = tuple[slice, ...]
Fill = Callable[[Region], NDArray[Any]]
"""Voxels of a region."""


def field(region: Region) -> NDArray[np.float32]:
    """The field of waves in a region (z, y, x); a voxel belongs to a blob where it is above 1."""
    total: NDArray[np.float32] = np.zeros([axis.stop - axis.start for axis in region], np.float32)
    for periods in PERIODS:
        for index, (axis, period) in enumerate(zip(region, periods, strict=True)):
            wave = np.cos(2 * pi / period * np.arange(axis.start, axis.stop)).astype(np.float32)
            total += wave.reshape([-1 if i == index else 1 for i in range(3)])
    return total


def true_labels(region: Region) -> NDArray[np.uint8]:
    """1 in blobs, 0 elsewhere."""
    return (field(region) > 1).astype(np.uint8)


def voxels(region: Region) -> NDArray[np.uint16]:
    """Intensities in a region (z, y, x); the same whatever the region is cut from."""
    places = [np.arange(axis.start, axis.stop, dtype=np.uint32) for axis in region]
    factors = np.array([2654435761, 2246822519, 3266489917], np.uint32)
    z, y, x = (place * factor for place, factor in zip(places, factors, strict=True))
    noise = z[:, None, None] ^ y[None, :, None] ^ x[None, None, :]
    noise *= np.uint32(668265263)
    noise >>= np.uint32(29)  # the three upper bits
    shade = (SHADE * (1 + np.cos(2 * pi / 1024 * places[0]))).astype(np.uint16)
    image: NDArray[np.uint16] = noise.astype(np.uint16) * np.uint16(NOISE) + shade[:, None, None] + np.uint16(BACKGROUND)
    image += true_labels(region).astype(np.uint16) * np.uint16(FIRST_BLOB)
    return image


def iter_chunks(shape: Sequence[int], chunk: int = CHUNK) -> Iterator[Region]:
    """The chunks of a volume, in order."""
    for starts in product(*(range(0, n, chunk) for n in shape)):
        yield tuple(slice(start, min(start + chunk, n)) for start, n in zip(starts, shape, strict=True))


def write_volume(path: Path, shape: Sequence[int], fill: Fill = voxels, *, dtype: str = "uint16", chunk: int = CHUNK) -> Path:
    """Write `fill` of every chunk of `shape` (z, y, x) as OME-Zarr 0.5; a volume that is complete already is kept."""
    import zarr
    from zarr.codecs import BloscCodec

    mark = path.with_name(path.name + ".complete")
    if mark.is_file():
        return path
    shutil.rmtree(path, ignore_errors=True)
    group = zarr.create_group(path, zarr_format=3, attributes={"ome": ome_attributes(path.name)})
    array = group.create_array(
        "0",
        shape=tuple(shape),
        dtype=dtype,
        chunks=(chunk,) * 3,
        compressors=BloscCodec(cname="lz4", clevel=1, shuffle="bitshuffle"),
        dimension_names=("z", "y", "x"),
    )
    for region in iter_chunks(shape, chunk):
        array[region] = fill(region)
    mark.touch()
    return path


def ome_attributes(name: str) -> dict[str, Any]:
    """OME-Zarr 0.5 metadata of one volume of voxels of 0.1 x 0.05 x 0.05 micrometres."""
    axes = [{"name": axis, "type": "space", "unit": "micrometer"} for axis in "zyx"]
    scale = [{"type": "scale", "scale": [0.1, 0.05, 0.05]}]
    return {
        "version": "0.5",
        "multiscales": [{"name": name, "axes": axes, "datasets": [{"path": "0", "coordinateTransformations": scale}]}],
    }


def write_training_set(folder: Path, shape: tuple[int, int, int], count: int) -> Path:
    """`count` pieces of the volume from different places with their labels, as TIFF in train/x and train/y."""
    import tifffile

    for index in range(count):
        offset = 1000 * (index + 1)
        region = tuple(slice(offset, offset + n) for n in shape)
        for name, pixels in (("x", voxels(region)), ("y", true_labels(region))):
            (folder / "train" / name).mkdir(parents=True, exist_ok=True)
            tifffile.imwrite(folder / "train" / name / f"{index}.tif", pixels, metadata={"axes": "ZYX"})
    return folder
