"""Writing label images and probabilities as TIFF that Fiji and napari open with the right axes and voxel size."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import product
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from tifffile import TIFF, TiffWriter

from crista.geometry.axes import LETTERS, Array
from crista.geometry.spacing import Spacing
from crista.images.atomic import aside

MAX_IMAGEJ_BYTES = 2**32 - 2**25
"""Pixels above this (4 GB less room for metadata) do not fit the 32-bit offsets of ImageJ's TIFF: OME BigTIFF is written."""

MAX_IMAGEJ_PLANE_BYTES = 2**31 - 2**25
"""ImageJ holds one plane in a Java array of less than 2 GB."""

SLAB_BYTES = 64 * 2**20
"""Planes of a chunked array that are read together take at most so many bytes; a plane that takes more is read in bands."""

STRIP_BYTES = 2**18
"""Of a strip of such a plane, before it is compressed; what tifffile takes as well."""

COMPRESSED_TOGETHER = 8 * 2**20
"""Pixels that wait for the threads that compress; tifffile would let 512 MB wait."""

MAX_THREADS = 8

_IMAGEJ_DTYPES = (np.uint8, np.uint16, np.float32)
_OME_DTYPES = (*_IMAGEJ_DTYPES, np.int8, np.int16, np.int32, np.uint32, np.float64)
_IMAGEJ_AXES = "TZCYX"


def write_image(path: Path, array: Any, axes: str, *, spacing: Spacing | None = None) -> None:
    """Write pixels as TIFF, aside and renamed: under `path` there is a whole file or none.

    Up to 4 GB of uint8, uint16 or float32 become an ImageJ hyperstack; anything else, and names that end in
    ``.ome.tif``, an OME-TIFF, as BigTIFF where needed. Planes are compressed with zlib and streamed; in memory are
    a few planes, or as many as share the chunks of a Zarr array, up to 64 MB; of a larger plane as many rows.

    Parameters
    ----------
    path : where to; the folder is made
    array : array, memory map or Zarr array; bool is written as uint8 0/1 and float16 as float32
    axes : one letter of T, C, Z, Y, X per axis, Y and X among them
    spacing : micrometres along (Z)YX

    Raises
    ------
    ValueError
        If `axes` do not fit the array, or its dtype cannot be stored in a TIFF that Fiji reads.
    """
    path = Path(path)
    _check_axes(axes, array)
    dtype = _written_dtype(array.dtype)
    with aside(path) as part:
        if _fits_imagej(path, array.shape, axes, dtype):
            _write_imagej(part, array, axes, dtype, spacing)
        else:
            _write_ome(part, array, axes, dtype, spacing)


def _check_axes(axes: str, array: Any) -> None:
    if len(axes) != len(array.shape):
        raise ValueError(f"axes {axes!r} name {len(axes)} axes, the array has {len(array.shape)}: shape {array.shape}")
    if not set("YX") <= set(axes) <= set(LETTERS) or len(set(axes)) != len(axes):
        raise ValueError(f"axes {axes!r}: allowed are T C Z Y X, each at most once, Y and X always")
    if 0 in array.shape:
        raise ValueError(f"an empty image cannot be written: shape {array.shape}")


def _written_dtype(dtype: np.dtype) -> np.dtype:
    dtype = np.dtype(dtype).newbyteorder("=")
    dtype = np.dtype({"bool": np.uint8, "float16": np.float32}.get(dtype.name, dtype))
    if dtype not in _OME_DTYPES:
        allowed = ", ".join(np.dtype(known).name for known in _OME_DTYPES)
        raise ValueError(f"{dtype} cannot be written as TIFF for Fiji; convert to one of {allowed}")
    return dtype


def _fits_imagej(path: Path, shape: tuple[int, ...], axes: str, dtype: np.dtype) -> bool:
    plane = prod(shape[axes.index(letter)] for letter in "YX") * dtype.itemsize
    return (
        dtype in _IMAGEJ_DTYPES
        and prod(shape) * dtype.itemsize <= MAX_IMAGEJ_BYTES
        and plane <= MAX_IMAGEJ_PLANE_BYTES
        and not path.name.lower().endswith((".ome.tif", ".ome.tiff"))
    )


def _iter_planes(array: Any, axes: str, order: str, dtype: np.dtype) -> Iterator[Array]:
    """Y × X planes of `array`, the axes before them counted up in the order of `order`; read when they are needed."""
    outer = [letter for letter in order if letter in axes and letter not in "YX"]
    placed = [axes.index(letter) for letter in (*outer, "Y", "X")]
    for slab in product(*_cut_slabs(array, axes, outer, dtype)):
        along = dict(zip(outer, slab, strict=True))
        planes = np.asarray(array[tuple(along.get(letter, slice(None)) for letter in axes)]).transpose(placed)
        for position in np.ndindex(planes.shape[:-2]):
            yield np.ascontiguousarray(planes[position], dtype=dtype)


def _cut_slabs(array: Any, axes: str, outer: Sequence[str], dtype: np.dtype) -> list[list[slice]]:
    """Ranges along the outer axes: planes that share chunks are read together, as far as `SLAB_BYTES` go."""
    lengths, chunks = dict(zip(axes, array.shape, strict=True)), getattr(array, "chunks", None)
    room = max(1, SLAB_BYTES // (lengths["Y"] * lengths["X"] * dtype.itemsize)) if chunks is not None else 1
    ranges: list[list[slice]] = []
    for letter in reversed(outer):
        length, chunk = lengths[letter], chunks[axes.index(letter)] if chunks is not None else 1
        step = length if length <= room else room // chunk * chunk or room
        ranges.insert(0, [slice(start, min(start + step, length)) for start in range(0, length, step)])
        room = room // length if length <= room else 1
    return ranges


def _pixels_of(array: Any, axes: str, order: str, dtype: np.dtype) -> tuple[Iterator[Any], dict[str, Any]]:
    """What tifffile writes, and how: planes, or the compressed strips of planes that are too large to be held."""
    length, width = (array.shape[axes.index(letter)] for letter in "YX")
    row_bytes = width * dtype.itemsize
    if length * row_bytes <= SLAB_BYTES:
        return _iter_planes(array, axes, order, dtype), {}
    rows = 2 ** max(0, (STRIP_BYTES // row_bytes).bit_length() - 1)  # as chunks, whose sides are powers of two
    fits, chunks = max(rows, SLAB_BYTES // row_bytes), getattr(array, "chunks", None)
    step = max(rows, chunks[axes.index("Y")]) if chunks is not None else rows
    bands = (fits // step * step or fits) // rows * rows
    return _iter_strips(array, axes, order, dtype, (bands, rows)), {"rowsperstrip": rows}


def _iter_strips(array: Any, axes: str, order: str, dtype: np.dtype, heights: tuple[int, int]) -> Iterator[bytes]:
    """The strips of `array`, compressed, in the order of `_iter_planes`; `heights`: rows read at a time, and of a strip."""
    outer = [letter for letter in order if letter in axes and letter not in "YX"]
    placed = [axes.index(letter) for letter in (*outer, "Y", "X")]
    lengths, (band, rows) = dict(zip(axes, array.shape, strict=True)), heights
    settings = _compression(dtype)
    encode = partial(TIFF.COMPRESSORS[8], **settings["compressionargs"])
    with ThreadPoolExecutor(settings["maxworkers"]) as pool:
        for *position, start in product(*(range(lengths[letter]) for letter in outer), range(0, lengths["Y"], band)):
            along = {letter: slice(place, place + 1) for letter, place in zip(outer, position, strict=True)}
            along["Y"] = slice(start, min(start + band, lengths["Y"]))
            read = np.asarray(array[tuple(along.get(letter, slice(None)) for letter in axes)]).transpose(placed)
            pixels = np.ascontiguousarray(read, dtype=dtype).reshape(-1, lengths["X"])
            yield from pool.map(encode, (pixels[row : row + rows] for row in range(0, len(pixels), rows)))


def _compression(dtype: np.dtype) -> dict[str, Any]:
    """How planes are compressed. Deflate is what every version of Fiji and libtiff reads."""
    # Measured with libdeflate, per core. Labels: level 6 at 130 to 230 MB/s to 1/23 to 1/44, level 1 at 240 to 300 MB/s
    # to 1/16 to 1/22. Probabilities: level 6 at 70 MB/s, level 1 at 135 MB/s, both to 1/1.4; predictors do not help.
    level = 1 if dtype.kind == "f" else 6
    threads = min(MAX_THREADS, os.cpu_count() or 1)
    return {
        "compression": "zlib",
        "compressionargs": {"level": level},
        "maxworkers": threads,
        "buffersize": COMPRESSED_TOGETHER,
    }


def _write_imagej(path: Path, array: Any, axes: str, dtype: np.dtype, spacing: Spacing | None) -> None:
    lengths = dict(zip(axes, array.shape, strict=True))
    metadata: dict[str, Any] = {"axes": f"{_IMAGEJ_AXES}S", "mode": "grayscale"}  # without S tifffile takes an X of 1 for it
    options: dict[str, Any] = {}
    if spacing is not None:
        metadata |= {"unit": "um"} | ({"spacing": spacing.values[0]} if len(spacing.values) == 3 else {})
        options["resolution"] = (1 / spacing.values[-1], 1 / spacing.values[-2])
    pixels, strips = _pixels_of(array, axes, _IMAGEJ_AXES, dtype)
    with TiffWriter(path, imagej=True) as tif:
        tif.write(
            pixels,
            shape=(*(lengths.get(letter, 1) for letter in _IMAGEJ_AXES), 1),
            dtype=dtype,
            photometric="minisblack",
            metadata=metadata,
            **_compression(dtype),
            **strips,
            **options,
        )


def _write_ome(path: Path, array: Any, axes: str, dtype: np.dtype, spacing: Spacing | None) -> None:
    order = "".join(letter for letter in LETTERS if letter in axes)
    metadata: dict[str, Any] = {"axes": order}
    if spacing is not None:
        for letter, value in zip("ZYX"[-len(spacing.values) :], spacing.values, strict=True):
            metadata |= {f"PhysicalSize{letter}": value, f"PhysicalSize{letter}Unit": "µm"}
    shape = tuple(array.shape[axes.index(letter)] for letter in order)
    pixels, strips = _pixels_of(array, axes, order, dtype)
    with TiffWriter(path, ome=True, bigtiff=prod(shape) * dtype.itemsize > MAX_IMAGEJ_BYTES) as tif:
        tif.write(
            pixels,
            shape=shape,
            dtype=dtype,
            photometric="minisblack",
            metadata=metadata,
            **_compression(dtype),
            **strips,
        )
