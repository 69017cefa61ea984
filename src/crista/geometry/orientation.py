"""Orientation: a flip and turn of the image, which exchanges pixels and changes none."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from crista.geometry.axes import Array


@dataclass(frozen=True)
class Orientation:
    """Reverse some of the last axes, then turn the y-x plane."""

    reverse: tuple[int, ...] = ()
    """Axes, from the end: -1 is x."""
    quarter_turns: int = 0

    def __call__(self, array: Array) -> Array:
        """A view of `array`, whose last axes are (Z)YX."""
        return np.rot90(np.flip(array, self.reverse), self.quarter_turns, axes=(-2, -1))
