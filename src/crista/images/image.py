"""Image: one file or volume as axes, voxel size and lazily read pixels."""

from __future__ import annotations

import os
from dataclasses import dataclass, field, replace
from hashlib import sha256
from math import prod
from pathlib import Path
from typing import Protocol

import numpy as np

from crista.geometry.axes import Array, Region, to_canonical
from crista.geometry.spacing import Spacing


class PixelSource(Protocol):
    """What a reader hands over: pixels in the stored order, read by region."""

    def read(self, region: Region) -> Array:
        """The pixels of `region`, one slice per stored axis, in the stored dtype and order."""
        ...


@dataclass(frozen=True)
class Image:
    """One image or volume. Pixels stay in the file until `read`."""

    path: Path
    """The file (or Zarr folder)."""
    axes: str
    """Letters of the stored axes, e.g. ``YXC``; one per axis of `shape`."""
    shape: tuple[int, ...]
    """Stored shape."""
    dtype: np.dtype
    """Stored dtype."""
    ndim: int
    """Number of spatial axes that the task uses, 2 or 3."""
    spacing: Spacing | None
    """Voxel size along (Z)YX; None where the file does not say."""
    source: PixelSource = field(repr=False, compare=False)
    axes_reason: str = "metadata"
    """Where `axes` come from: ``metadata``, ``given``, or the reason of the guess."""
    notes: tuple[str, ...] = ()
    """What the user has to be told about how this file was read (alpha dropped, first of several series…)."""
    inner: str | None = None
    """Path inside a Zarr, N5 or HDF5 file."""
    chunks: tuple[int, ...] | None = None
    """Voxels along (Z)YX that are decoded as one; None where any region costs what it holds."""
    orientation: str = ""
    """Of a NIfTI, where its header says: which way x, y and z run in the body, e.g. ``RAS``. Pixels stay as they are stored."""
    cut_from: Image | None = field(default=None, repr=False, compare=False)
    """The whole image, where this is a part of one."""
    cut_at: tuple[int, ...] | None = field(default=None, repr=False, compare=False)
    """Where in the whole image the part begins, (Z)YX voxels."""
    recoded: tuple[int, int] | None = None
    """(stored value, what it is read as), where a label image writes the foreground otherwise than those of the training."""

    @property
    def name(self) -> str:
        """File name without its extension, also without the double ones (`.ome.tif`, `.nii.gz`, `.ome.zarr`)."""
        return stem(self.path)

    @property
    def num_channels(self) -> int:
        """Length of the channel axis; 1 where there is none."""
        return self.shape[self.axes.index("C")] if "C" in self.axes else 1

    @property
    def spatial_shape(self) -> tuple[int, ...]:
        """Voxels along (Z)YX; an axis that is not stored has length 1."""
        letters = "ZYX"[-self.ndim :]
        return tuple(self.shape[self.axes.index(letter)] if letter in self.axes else 1 for letter in letters)

    @property
    def nbytes(self) -> int:
        """Size of all pixels in memory, in bytes."""
        return prod(self.shape) * self.dtype.itemsize

    def read(self, region: Region | None = None) -> Array:
        """Pixels as C(Z)YX in the stored dtype; `region` limits the spatial axes and must lie inside the image."""
        box = dict(zip("ZYX"[-self.ndim :], region, strict=True)) if region is not None else {}
        stored = tuple(box.get(letter, slice(0, n)) for letter, n in zip(self.axes, self.shape, strict=True))
        return to_canonical(self.source.read(stored), self.axes, self.ndim)


DOUBLE_EXTENSIONS = (".ome.tiff", ".ome.tif", ".ome.btf", ".ome.tf8", ".ome.tf2", ".ome.zarr", ".nii.gz")


def stem(path: Path) -> str:
    """File name without its extension; double extensions count as one, and a number is none (slice.001, slice.002)."""
    name = path.name
    for extension in DOUBLE_EXTENSIONS:
        if name.lower().endswith(extension):
            return name[: -len(extension)]
    return name if path.suffix[1:].isdecimal() else path.stem


@dataclass(frozen=True)
class CroppedSource:
    """The pixels of a box of another source."""

    source: PixelSource
    offsets: tuple[int, ...]
    """Start of the box along each stored axis."""

    def read(self, region: Region) -> Array:
        """The pixels of `region`, counted from the corner of the box."""
        moved = (slice(part.start + offset, part.stop + offset) for part, offset in zip(region, self.offsets, strict=True))
        return self.source.read(tuple(moved))


def crop_image(image: Image, region: Region) -> Image:
    """The part of `image` inside `region`, (Z)YX, as an image of its own; the pixels stay in the file."""
    box = dict(zip("ZYX"[-image.ndim :], region, strict=True))
    whole = [(box.get(letter, slice(0, n)), n) for letter, n in zip(image.axes, image.shape, strict=True)]
    starts, stops = zip(*(part.indices(n)[:2] for part, n in whole), strict=True)
    shape = tuple(stop - start for start, stop in zip(starts, stops, strict=True))
    if shape == image.shape:
        return image
    at = dict(zip(image.axes, starts, strict=True))
    before = image.cut_at or (0,) * image.ndim
    cut_at = tuple(first + at.get(letter, 0) for letter, first in zip("ZYX"[-image.ndim :], before, strict=True))
    source = CroppedSource(image.source, starts)
    return replace(image, shape=shape, source=source, cut_from=image.cut_from or image, cut_at=cut_at)


LONGEST_NAME = 200
"""Bytes of the name of an image in that of a file that is made of it."""


def short_name(name: str, most: int = LONGEST_NAME) -> str:
    """`name`, of which files can be called that have more in their names; of more than `most` bytes its beginning and a digest.

    File systems allow 255 bytes.
    """
    content = os.fsencode(name)
    if len(content) <= most:
        return name
    digest = "_" + sha256(content).hexdigest()[:8]
    return content[: most - len(digest)].decode(errors="ignore") + digest


@dataclass(frozen=True)
class ImagePair:
    """An image and its label image (None where there is none)."""

    image: Image
    label: Image | None = None

    @property
    def name(self) -> str:
        """Name of the image."""
        return self.image.name
