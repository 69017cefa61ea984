"""How large objects are: the equivalent diameters of the connected pieces of each class, in the middle of a label image."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from math import pi

import numpy as np
from numpy.typing import NDArray

from crista.geometry.axes import Array, Region
from crista.images.regions import overlap

SAMPLED = 2**19
"""Voxels of the middle of an image that are looked at."""
MOST_VALUES = 9
"""Label images of more values are not looked at."""
MOST_DIAMETERS = 64
"""Diameters kept for each value, spread evenly over the sorted ones."""
LEAST_VOXELS = 4
"""Smaller pieces are noise."""

Diameters = tuple[tuple[int, tuple[float, ...]], ...]
"""(value, diameters in voxels) of each value."""


def measure_diameters(label: Array) -> Diameters:
    """Equivalent diameters (of a disc or ball of the same size) of the pieces of each value of (Z)YX but 0, background; voxels.

    Pieces that touch the border are left out: they are cut, or they are background. A value of which these hold more than half
    is none of objects, but of a network, and has no diameters.
    """
    values = np.unique(label)
    if len(values) > MOST_VALUES or not (np.isfinite(values) & (values == np.trunc(values))).all():
        return ()
    return tuple((int(value), kept) for value in values if value and (kept := _diameters(label == value)))


def _diameters(where: NDArray[np.bool_]) -> tuple[float, ...]:
    from scipy.ndimage import label as find_pieces  # slow to import

    pieces, _ = find_pieces(where)
    sizes = np.bincount(pieces.reshape(-1))
    sizes[0] = 0
    total = sizes.sum()
    for axis in range(pieces.ndim):
        if pieces.shape[axis] > 1:
            sizes[np.take(pieces, [0, -1], axis=axis).reshape(-1)] = 0
    if 2 * sizes.sum() < total:
        return ()  # a network, such as membranes: what does not hang together with it is where it is broken
    sizes = np.sort(sizes[sizes >= LEAST_VOXELS])
    flat = sum(length > 1 for length in where.shape) < 3
    found = 2 * np.sqrt(sizes / pi) if flat else np.cbrt(6 * sizes / pi)
    chosen = np.linspace(0, len(found) - 1, min(len(found), MOST_DIAMETERS)).round().astype(int)
    return tuple(round(float(diameter), 2) for diameter in found[chosen])


def middle_region(shape: tuple[int, ...], most: int = SAMPLED) -> Region:
    """The middle of an image, `most` voxels at most: a volume is cut along z last."""
    lengths = list(shape)
    while np.prod(lengths) > most:
        longest = len(lengths) - 2 + int(np.argmax(lengths[-2:]))
        lengths[longest if lengths[longest] > 64 else int(np.argmax(lengths))] //= 2
    starts = [(n - length) // 2 for n, length in zip(shape, lengths, strict=True)]
    return tuple(slice(start, start + length) for start, length in zip(starts, lengths, strict=True))


def fill_middle(sample: Array, wanted: Region, region: Region, block: Array) -> None:
    """Copy what the block C(Z)YX at `region` holds of the region `wanted` to `sample`, the C(Z)YX pixels of `wanted`."""
    source, target = overlap(region, wanted)
    sample[:, *target] = block[:, *source]


def median_diameter(
    measured: Iterable[Diameters], class_of: Mapping[int, int], ndim: int, ignore_index: int | None = None
) -> float | None:
    """The diameter below which half of the foreground lies, voxels; None where there are no objects.

    Objects count by their size in `ndim` dimensions, so that specks in a prediction weigh nothing.
    """
    found = np.sort(
        [
            diameter
            for diameters in measured
            for value, of_value in diameters
            if class_of.get(value, 0) not in (0, ignore_index)
            for diameter in of_value
        ]
    )
    if not len(found):
        return None
    filled = np.cumsum(found**ndim)
    return float(found[np.searchsorted(filled, filled[-1] / 2)])
