"""Opening any supported file as an `Image`: format by content, axes named, pixels left in the file."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from crista.geometry.axes import Array, Region, spatial_axes
from crista.geometry.spacing import Spacing
from crista.images.axes_choice import AxesChoice, AxesError, choose_axes
from crista.images.content import CONTAINERS, identify_content, note_on_extension
from crista.images.image import Image, PixelSource
from crista.images.stored import Stored, decoding_errors, read_error

LEAST_VOXEL, LARGEST_VOXEL = 1e-6, 1e9
"""Micrometres: a picometre and a kilometre. What files say beyond is a wrong unit, and no TIFF could hold it."""


def open_image(
    path: Path,
    *,
    ndim: int | None = None,
    axes: str | None = None,
    inner: str | None = None,
    is_label: bool = False,
    to_predict: bool = False,
) -> Image:
    """Open one image, volume or label image; only headers are read.

    Parameters
    ----------
    path : a file, or the folder of a Zarr store
    ndim : spatial axes of the task, 2 or 3. None keeps what the file has: 2 for YX(C), 3 for ZYX(C)
    axes : letters of T, C, Z, Y, X that override what the file says, one per stored axis
    inner : path of the array inside a Zarr or HDF5 file, with ``/`` or ``.``
    is_label : pixels are classes: the indices of a palette PNG are kept, and messages name the keys of labels
    to_predict : it is for a network that is trained: what messages advise can still be done then

    Raises
    ------
    ImageReadError
        If the file is missing, damaged, of no supported format, or does not fit the task. The message names the file and
        says what was seen and what to do next.
    """
    path = Path(path)
    kind = identify_content(path)
    with decoding_errors(path, f"{kind} header"):
        stored = _read_header(kind, path, inner, is_label)
    dtype = _presented_dtype(path, stored.dtype)
    try:
        key = axes_key(is_label, to_predict)
        choice = choose_axes(stored.axes, stored.shape, ndim=ndim, given=axes, key=key, to_predict=to_predict)
    except AxesError as error:
        raise read_error(path, error.what, error.next_step) from None
    notes = note_on_extension(path, kind) + stored.notes + choice.notes
    if inner and kind not in CONTAINERS:
        notes += (f"the inner path {inner!r} has no meaning for a {kind} file and is ignored",)
    spacing, remark = _spacing_of(stored, choice)
    return Image(
        path=path,
        axes=choice.axes,
        shape=tuple(stored.shape[position] for position in choice.kept),
        dtype=dtype,
        ndim=choice.ndim,
        spacing=spacing,
        source=_PresentedPixels(stored.source, stored.shape, choice.kept, dtype),
        axes_reason=choice.reason,
        notes=notes + remark,
        inner=stored.inner,
        chunks=_chunks_of(stored, choice),
        orientation=stored.orientation,
    )


def open_written(path: Path, ndim: int) -> Image:
    """Open a label image that crista has written, of 2 or 3 axes; a TIFF does not keep the z axis of a volume of one slice."""
    image = open_image(path, is_label=True)
    if image.ndim == ndim:
        return image
    if "Z" in image.axes:
        return open_image(path, ndim=ndim, is_label=True)
    one_slice = _OneSlice(image.source)
    return replace(image, axes=f"Z{image.axes}", shape=(1, *image.shape), ndim=3, spacing=None, source=one_slice, chunks=None)


def axes_key(is_label: bool, to_predict: bool = False) -> str:
    """The configuration key that names the stored axes."""
    name = f"INPUT_{'MASK' if is_label else 'IMG'}_AXES_ORDER"
    return f"DATA.TEST.{name}" if to_predict else f"DATA.TRAIN.{name} (DATA.VAL…, DATA.TEST… alike)"


def _read_header(kind: str, path: Path, inner: str | None, is_label: bool) -> Stored:
    """Hand over to the reader of `kind`; each is imported when it is first needed, which keeps start-up short."""
    if kind == "TIFF":
        from crista.images.tiff import read_tiff_header

        return read_tiff_header(path)
    if kind == "NPY":
        from crista.images.npy import read_npy_header

        return read_npy_header(path)
    if kind == "HDF5":
        from crista.images.hdf5 import read_hdf5_header

        return read_hdf5_header(path, inner, is_label)
    if kind == "NIfTI":
        from crista.images.nifti import read_nifti_header

        return read_nifti_header(path)
    if kind == "Zarr":
        from crista.images.zarr_store import read_zarr_header

        return read_zarr_header(path, inner, is_label)
    if kind == "N5":
        from crista.images.n5 import read_n5_header

        return read_n5_header(path, inner, is_label)
    from crista.images.raster import read_raster_header

    return read_raster_header(path, kind, is_label)


def _presented_dtype(path: Path, dtype: np.dtype) -> np.dtype:
    """Native byte order; booleans become uint8 0/1."""
    if dtype.kind == "b":
        return np.dtype(np.uint8)
    if dtype.kind not in "uif" or dtype.itemsize > 8:
        what = f"pixels of type {dtype} are not supported; allowed are integers and real numbers of at most 64 bits"
        steps = {"c": "save the magnitude", "V": f"save {' and '.join(dtype.names or ('its parts',))} as channels"}
        raise read_error(path, what, steps.get(dtype.kind, "convert the pixels"))
    return dtype.newbyteorder("=")


def _spacing_of(stored: Stored, choice: AxesChoice) -> tuple[Spacing | None, tuple[str, ...]]:
    """Voxel size along (Z)YX if the file gives it for every spatial axis, and what there is to say about it."""
    values = [stored.spacing.get(letter) for letter in spatial_axes(choice.ndim)]
    positive = tuple(float(value) for value in values if value is not None and np.isfinite(value) and value > 0)
    if len(positive) < len(values):
        return None, ()
    if not all(LEAST_VOXEL <= value <= LARGEST_VOXEL for value in positive):
        return None, (f"its voxel size, {Spacing(positive)}, cannot be (a wrong unit?) and is ignored",)
    return Spacing(positive), ()


def _chunks_of(stored: Stored, choice: AxesChoice) -> tuple[int, ...] | None:
    if stored.chunks is None:
        return None
    along = {letter: stored.chunks[position] for letter, position in zip(choice.axes, choice.kept, strict=True)}
    return tuple(along.get(letter, 1) for letter in spatial_axes(choice.ndim))


@dataclass(frozen=True)
class _PresentedPixels:
    """Stored pixels without the dropped axes, in native byte order, booleans as uint8."""

    source: PixelSource
    shape: tuple[int, ...]
    kept: tuple[int, ...]
    dtype: np.dtype

    def read(self, region: Region) -> Array:
        box = [slice(0, 1)] * len(self.shape)
        for position, part in zip(self.kept, region, strict=True):
            if part.step not in (None, 1) or not 0 <= part.start <= part.stop <= self.shape[position]:
                raise ValueError(f"region {region} does not lie inside the axes {self.kept} of {self.shape}")
            box[position] = slice(int(part.start), int(part.stop))
        pixels = self.source.read(tuple(box))
        dropped = tuple(position for position in range(len(self.shape)) if position not in self.kept)
        return np.squeeze(pixels, axis=dropped).astype(self.dtype, copy=False)


@dataclass(frozen=True)
class _OneSlice:
    """An image as a volume of one slice."""

    source: PixelSource

    def read(self, region: Region) -> Array:
        return self.source.read(region[1:])[np.newaxis][region[0]]
