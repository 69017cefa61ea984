"""Axis letters and the one canonical order, C(Z)YX.

A file may store its axes in any order; they are written as a string of the letters T, C, Z, Y, X. Inside crista every
image is C(Z)YX and every label (Z)YX. Only this module moves axes.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Region = tuple[slice, ...]
"""A box of voxels: one slice with explicit start and stop per spatial axis, in (Z)YX order."""

Array = NDArray[Any]

LETTERS = "TCZYX"


def spatial_axes(ndim: int) -> str:
    """``YX`` or ``ZYX``."""
    return "ZYX"[-ndim:]


def canonical_axes(ndim: int) -> str:
    """``CYX`` or ``CZYX``."""
    return "C" + spatial_axes(ndim)


def to_canonical(array: Array, axes: str, ndim: int) -> Array:
    """A view of `array` (stored as `axes`) as C(Z)YX; a missing C becomes an axis of length 1.

    Axes that are not in the target must have length 1 and are dropped.
    """
    if len(axes) != array.ndim:
        raise ValueError(f"axes {axes!r} name {len(axes)} axes, the array has {array.ndim}")
    target = canonical_axes(ndim)
    for position in reversed(range(array.ndim)):
        if axes[position] not in target:
            array = np.take(array, 0, axis=position) if array.shape[position] == 1 else _refuse(axes, position, array)
            axes = axes[:position] + axes[position + 1 :]
    if "C" not in axes:
        array, axes = array[np.newaxis], "C" + axes
    return array.transpose([axes.index(letter) for letter in target])


def from_canonical(array: Array, axes: str, ndim: int) -> Array:
    """The inverse of `to_canonical`: C(Z)YX back to the stored order `axes`.

    Letters of `axes` outside C(Z)YX come back with length 1; without C in `axes` the channel axis must have length 1.
    """
    current = canonical_axes(ndim)
    if "C" not in axes:
        if array.shape[0] != 1:
            raise ValueError(f"{array.shape[0]} channels do not fit axes {axes!r}")
        array, current = array[0], current[1:]
    order = [current.index(letter) for letter in axes if letter in current]
    array = array.transpose(order)
    for position, letter in enumerate(axes):
        if letter not in current:
            array = np.expand_dims(array, position)
    return array


def _refuse(axes: str, position: int, array: Array) -> Array:
    raise ValueError(f"axis {axes[position]} of {axes} has length {array.shape[position]} and cannot be dropped")
