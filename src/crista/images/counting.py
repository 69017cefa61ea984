"""Counting values of small integers at memory speed: what histograms, label counts and percentiles are made of."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from crista.geometry.axes import Array

PIECE = 2**18
"""Values counted at a time: numpy widens them to 8 bytes, which then stay in the processor's cache."""


def count_patterns(values: Array) -> NDArray[np.int64]:
    """How often each bit pattern of flat 8- or 16-bit `values` occurs: 256 or 65536 counts, read as unsigned numbers."""
    values = np.ascontiguousarray(values.reshape(-1))
    if values.dtype.itemsize == 2:
        return _count(values.view(np.uint16))
    patterns = values.view(np.uint8)
    even = len(patterns) // 2 * 2
    # Two bytes at a time, counted as one number of 16 bits.
    pairs = _count(patterns[:even].view(np.uint16)).reshape(256, 256)
    return np.asarray(pairs.sum(axis=0) + pairs.sum(axis=1) + np.bincount(patterns[even:], minlength=256))


def _count(values: NDArray[np.uint16]) -> NDArray[np.int64]:
    counts = np.zeros(2**16, np.int64)
    for start in range(0, len(values), PIECE):
        counts += np.bincount(values[start : start + PIECE], minlength=2**16)
    return counts


def count_integers(values: Array) -> tuple[int, NDArray[np.int64]]:
    """Counts of 8- or 16-bit integers in increasing order, and the value that the first count belongs to.

    Booleans count as 0 and 1; any byte order.
    """
    native = values.astype(values.dtype.newbyteorder("="), copy=False)
    counts = count_patterns(native)
    if values.dtype.kind != "i":
        return 0, counts
    # Negative numbers come after the positive ones when their bits are read as unsigned.
    return -(len(counts) // 2), np.roll(counts, len(counts) // 2)
