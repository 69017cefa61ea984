"""A coarse grid of pixels of an image: enough to recognise a copy that was saved anew, brightened, mirrored or turned."""

from __future__ import annotations

from base64 import b64decode, b64encode

import numpy as np
from numpy.typing import NDArray

from crista.geometry.axes import Array, Region

GRID = 48
"""Points along y and along x."""


class PixelSample:
    """The mean of the channels at `GRID` × `GRID` points of a plane (the middle one of a volume), gathered block by block."""

    def __init__(self, spatial_shape: tuple[int, ...]) -> None:
        self._places = [_middle(length) for length in spatial_shape[:-2]] + [_spread(length) for length in spatial_shape[-2:]]
        self._grid = np.zeros((GRID, GRID))

    def add(self, region: Region, block: Array) -> None:
        """Take the points that lie in a block C(Z)YX of the image."""
        inside = [(axis >= part.start) & (axis < part.stop) for axis, part in zip(self._places, region, strict=True)]
        if not all(found.any() for found in inside):
            return
        local = [axis[found] - part.start for axis, found, part in zip(self._places, inside, region, strict=True)]
        points = block[np.ix_(range(len(block)), *local)].astype(np.float64).mean(axis=0)
        self._grid[np.ix_(inside[-2], inside[-1])] = points.reshape(points.shape[-2:])

    def as_text(self) -> str:
        """The points, stretched to a byte each, in base64; empty where all are the same or none is finite."""
        finite = np.isfinite(self._grid)
        if not finite.any():
            return ""
        # Scaled first, so that differences of huge float64 intensities do not overflow.
        grid = self._grid / (np.abs(self._grid[finite]).max() or 1.0)
        low, high = grid[finite].min(), grid[finite].max()
        if high <= low:
            return ""
        stretched = (np.where(finite, grid, low) - low) / (high - low) * 255
        return b64encode(np.round(stretched).astype(np.uint8).tobytes()).decode()


def read_sample(text: str) -> NDArray[np.float64]:
    """The points of a `PixelSample`, (GRID, GRID)."""
    return np.frombuffer(b64decode(text), np.uint8).reshape(GRID, GRID).astype(np.float64)


def _spread(length: int) -> NDArray[np.int64]:
    """`GRID` places along an axis that are their own mirror image."""
    half = ((np.arange(GRID // 2) + 0.5) * length / GRID).astype(np.int64)
    return np.concatenate([half, length - 1 - half[::-1]])


def _middle(length: int) -> NDArray[np.int64]:
    return np.array([length // 2])
