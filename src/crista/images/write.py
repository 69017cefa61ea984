"""Writing label images and probabilities as TIFF that Fiji and napari open with the right axes and voxel size."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from tifffile import TiffWriter

from crista.geometry.axes import LETTERS, Array
from crista.geometry.spacing import Spacing
from crista.images.atomic import aside

MAX_IMAGEJ_BYTES = 2**32 - 2**25
"""Pixels above this (4 GB less room for metadata) do not fit the 32-bit offsets of ImageJ's TIFF: OME BigTIFF is written."""

MAX_IMAGEJ_PLANE_BYTES = 2**31 - 2**25
"""ImageJ holds one plane in a Java array of less than 2 GB."""

_IMAGEJ_DTYPES = (np.uint8, np.uint16, np.float32)
_OME_DTYPES = (*_IMAGEJ_DTYPES, np.int8, np.int16, np.int32, np.uint32, np.float64)
_IMAGEJ_AXES = "TZCYX"


def write_image(path: Path, array: Any, axes: str, *, spacing: Spacing | None = None) -> None:
    """Write pixels as TIFF, aside and renamed: under `path` there is a whole file or none.

    Up to 4 GB of uint8, uint16 or float32 become an ImageJ hyperstack; anything else, and names that end in
    ``.ome.tif``, an OME-TIFF, as BigTIFF where needed. Planes are compressed with zlib and streamed one by one.

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
    """Y × X planes of `array`, the axes before them counted up in the order of `order`; each is read when needed."""
    outer = [letter for letter in order if letter in axes and letter not in "YX"]
    for position in product(*(range(array.shape[axes.index(letter)]) for letter in outer)):
        index = tuple(position[outer.index(letter)] if letter in outer else slice(None) for letter in axes)
        plane = np.asarray(array[index])
        plane = plane if axes.index("Y") < axes.index("X") else plane.T
        yield np.ascontiguousarray(plane, dtype=dtype)


def _write_imagej(path: Path, array: Any, axes: str, dtype: np.dtype, spacing: Spacing | None) -> None:
    lengths = dict(zip(axes, array.shape, strict=True))
    metadata: dict[str, Any] = {"axes": _IMAGEJ_AXES, "mode": "grayscale"}
    options: dict[str, Any] = {}
    if spacing is not None:
        metadata |= {"unit": "um"} | ({"spacing": spacing.values[0]} if len(spacing.values) == 3 else {})
        options["resolution"] = (1 / spacing.values[-1], 1 / spacing.values[-2])
    with TiffWriter(path, imagej=True) as tif:
        tif.write(
            _iter_planes(array, axes, _IMAGEJ_AXES, dtype),
            shape=tuple(lengths.get(letter, 1) for letter in _IMAGEJ_AXES),
            dtype=dtype,
            photometric="minisblack",
            compression="zlib",
            metadata=metadata,
            **options,
        )


def _write_ome(path: Path, array: Any, axes: str, dtype: np.dtype, spacing: Spacing | None) -> None:
    order = "".join(letter for letter in "TCZYX" if letter in axes)
    metadata: dict[str, Any] = {"axes": order}
    if spacing is not None:
        for letter, value in zip("ZYX"[-len(spacing.values) :], spacing.values, strict=True):
            metadata |= {f"PhysicalSize{letter}": value, f"PhysicalSize{letter}Unit": "µm"}
    shape = tuple(array.shape[axes.index(letter)] for letter in order)
    with TiffWriter(path, ome=True, bigtiff=prod(shape) * dtype.itemsize > MAX_IMAGEJ_BYTES) as tif:
        tif.write(
            _iter_planes(array, axes, order, dtype),
            shape=shape,
            dtype=dtype,
            photometric="minisblack",
            compression="zlib",
            metadata=metadata,
        )
