"""Adding float64 numbers without any rounding, in fixed memory and in any order."""

from __future__ import annotations

from collections import defaultdict
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

MANTISSA_BITS = 53
HALF_BITS = 26


class ExactSum:
    """The sum of all finite numbers added so far, kept as one integer for each exponent that occurs (at most about 2100)."""

    def __init__(self) -> None:
        self._sums: defaultdict[int, int] = defaultdict(int)

    def add(self, numbers: NDArray[np.float64]) -> None:
        """Take in flat, finite numbers, at most 2³⁶ at a time."""
        mantissas, exponents = np.frexp(numbers)
        integers = np.ldexp(mantissas, MANTISSA_BITS).astype(np.int64)
        # Halves, so that the sums of many stay far from 64 bits.
        high, low = integers >> HALF_BITS, integers & ((1 << HALF_BITS) - 1)
        for exponent in np.unique(exponents).tolist():
            chosen = exponents == exponent
            self._sums[exponent] += (int(high[chosen].sum()) << HALF_BITS) + int(low[chosen].sum())

    @property
    def value(self) -> Fraction:
        """The sum, exact."""
        return sum((Fraction(2) ** (e - MANTISSA_BITS) * n for e, n in self._sums.items()), Fraction(0))

    def __float__(self) -> float:
        """The sum, rounded once."""
        return float(self.value)
