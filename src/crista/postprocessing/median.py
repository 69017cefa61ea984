"""Median filter along chosen axes, block by block: for what one slice shows and its neighbours do not."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crista.geometry.axes import Array, Region

LARGEST_NETWORK = 81
"""Windows of up to so many voxels are sorted by exchanges of whole blocks (6 to 50 times the speed of SciPy's
filter)."""

BLOCK = {2: (256, 256), 3: (16, 32, 128)}
"""Voxels filtered at a time along (Z)YX; the planes of one window then stay in the cache."""


def median_filter(array: Array, axes: str, size: int, *, out: Array | None = None) -> Array:
    """The median over a window of `size` voxels along each of `axes`; borders are reflected (``d c b a | a b c d | d
    c b a``).

    Parameters
    ----------
    array : (Z)YX or K(Z)YX, uint8 classes, float32 probabilities, or any real type without NaN
        The last axes are the spatial ones. May be a memory map; only one block at a time is in memory.
    axes : letters of ``zyx``, e.g. ``z``, ``zy``
        Several letters: one window over all of them, not one filter after the other.
    size : odd
        1 copies.
    out : like `array`
        Where to put the result (a memory map for volumes larger than memory); may not share memory with `array`.

    Returns
    -------
    `out`, or a new array; same shape and dtype as `array`, the same numbers as ``scipy.ndimage.median_filter``.

    Raises
    ------
    ValueError
        If `axes` or `size` cannot be, or `out` does not fit.

    Notes
    -----
    For two classes, filtering the label image equals filtering the probabilities and then applying the threshold: a median of an
    odd number of values is above the threshold exactly if most of the values are. For more classes only the probabilities can be
    filtered in a meaningful way, since the middle one of three class numbers means nothing.
    """
    window = _window(array, axes, size)
    if out is None:
        out = np.empty(array.shape, dtype=array.dtype)
    elif out.shape != array.shape or out.dtype != array.dtype:
        raise ValueError(f"out is {out.dtype} {out.shape}; it must be {array.dtype} {array.shape} like the array")
    elif np.may_share_memory(out, array):
        raise ValueError("out shares memory with the array; the filter reads neighbours that it would have overwritten")
    for block in _iter_blocks(array.shape, min(3, array.ndim)):
        padded = _read_reflected(array, block, [side // 2 for side in window])
        out[block] = _filter_block(padded, window)
    return out


def _window(array: Array, axes: str, size: int) -> tuple[int, ...]:
    """Window along every axis of `array`, 1 along those that are not filtered."""
    if array.ndim not in (2, 3, 4):
        raise ValueError(f"a median filter takes (Z)YX or K(Z)YX, got {array.ndim} axes")
    spatial = "zyx"[-min(3, array.ndim) :]
    wrong = [letter for letter in axes if letter not in spatial]
    if wrong or not axes or len(set(axes)) != len(axes):
        raise ValueError(f"axes {axes!r} of a median filter over {array.ndim} axes must be different letters of {spatial!r}")
    if size < 1 or size % 2 == 0:
        raise ValueError(f"the size of a median filter must be odd, got {size}; use {max(1, size + 1)}")
    sides = tuple(size if letter in axes else 1 for letter in spatial)
    return (1,) * (array.ndim - len(sides)) + sides


def _iter_blocks(shape: Sequence[int], ndim: int) -> Iterator[Region]:
    """Cover an array by blocks of its last `ndim` axes."""
    sides = (1,) * (len(shape) - ndim) + BLOCK[ndim]
    axes = [
        [slice(start, min(start + side, length)) for start in range(0, length, side)]
        for length, side in zip(shape, sides, strict=True)
    ]
    yield from product(*axes)


def _read_reflected(array: Array, block: Region, margins: Sequence[int]) -> Array:
    """The voxels of `block` and `margins` more on either side, reflected at the borders of `array`."""
    region, indices = [], []
    for part, margin, length in zip(block, margins, array.shape, strict=True):
        wanted = np.arange(part.start - margin, part.stop + margin) % (2 * length)
        wanted = np.minimum(wanted, 2 * length - 1 - wanted)
        first = int(wanted.min())
        region.append(slice(first, int(wanted.max()) + 1))
        indices.append(wanted - first)
    voxels: Array = np.asarray(array[tuple(region)])
    for axis, wanted in enumerate(indices):
        if len(wanted) != voxels.shape[axis] or np.any(np.diff(wanted) != 1):
            voxels = voxels.take(wanted, axis=axis)
    return voxels


def _filter_block(padded: Array, window: Sequence[int]) -> Array:
    """Medians of a block that was read with a margin of half a window."""
    if np.prod(window) > LARGEST_NETWORK:
        from scipy import ndimage  # slow to import

        inner = tuple(slice(side // 2, length - side // 2) for side, length in zip(window, padded.shape, strict=True))
        filtered: Array = ndimage.median_filter(padded, size=tuple(window))
        return filtered[inner]
    shape = [length - side + 1 for side, length in zip(window, padded.shape, strict=True)]
    shifts = product(*(range(side) for side in window))
    return _median([padded[tuple(slice(s, s + n) for s, n in zip(shift, shape, strict=True))] for shift in shifts])


def _median(planes: list[NDArray[Any]]) -> Array:
    """Voxelwise median of an odd number of arrays, by forgetful selection.

    Of n/2 + 2 values the smallest and the largest cannot be the median of n; they are dropped, the next value is
    added, and so on (Paeth 1990, Graphics Gems, "Median finding on a 3×3 grid"). Each exchange runs over whole
    arrays.
    """
    kept, waiting = planes[: len(planes) // 2 + 2], planes[len(planes) // 2 + 2 :]
    while len(kept) > 1:
        for i in range(len(kept) - 1):
            kept[i], kept[i + 1] = np.minimum(kept[i], kept[i + 1]), np.maximum(kept[i], kept[i + 1])
        for i in reversed(range(len(kept) - 2)):
            kept[i], kept[i + 1] = np.minimum(kept[i], kept[i + 1]), np.maximum(kept[i], kept[i + 1])
        kept = kept[1:-1]
        if waiting:
            kept.append(waiting.pop(0))
    return kept[0]
