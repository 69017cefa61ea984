"""Building blocks of the procedural images: smooth noise, warped coordinates, shading and detector noise."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Field = NDArray[np.float64]


def smooth_noise(rng: np.random.Generator, shape: Sequence[int], sigma: Sequence[float]) -> Field:
    """Gaussian noise smoothed by `sigma` voxels along each axis, rescaled to mean 0 and standard deviation 1.

    Wide noise is drawn on a coarse grid and interpolated, so that the time does not grow with `sigma`.
    """
    steps = [max(1, int(width / 3)) for width in sigma]
    coarse = [n // step + 3 for n, step in zip(shape, steps, strict=True)]
    noise = rng.standard_normal(coarse)
    noise = ndimage.gaussian_filter(noise, [width / step for width, step in zip(sigma, steps, strict=True)], mode="wrap")
    if any(step > 1 for step in steps):
        noise = ndimage.zoom(noise, steps, order=1, grid_mode=True, mode="grid-wrap")
    noise = noise[tuple(slice(0, n) for n in shape)]
    return np.asarray((noise - noise.mean()) / max(float(noise.std()), 1e-12))


def coordinates(shape: Sequence[int], step: Sequence[float]) -> list[Field]:
    """Position of every voxel along each axis, in units of one x pixel; `step` is the voxel size in that unit."""
    return [
        np.asarray(axis)
        for axis in np.meshgrid(*(np.arange(n) * size for n, size in zip(shape, step, strict=True)), indexing="ij")
    ]


def warp(rng: np.random.Generator, grid: Sequence[Field], step: Sequence[float], width: float, reach: float) -> list[Field]:
    """`grid` displaced by a smooth random field: `width` is its smoothness, `reach` its standard deviation (x pixels)."""
    sigma = [width / size for size in step]
    return [axis + reach * smooth_noise(rng, axis.shape, sigma) for axis in grid]


def shade(rng: np.random.Generator, shape: Sequence[int], strength: float) -> Field:
    """Uneven illumination: a factor around 1 that varies slowly in y and x and is the same for all slices."""
    y, x = (np.linspace(-1, 1, n) for n in shape[-2:])
    slope_y, slope_x, bowl = rng.uniform(-strength, strength, 3)
    return np.asarray(1 + slope_y * y[:, None] + slope_x * x[None, :] + bowl * (y[:, None] ** 2 + x[None, :] ** 2) / 2)


def soft_step(distance: Field, width: float) -> Field:
    """0 far below `distance` 0, 1 far above, with a smooth edge of about `width`."""
    return np.asarray(1 / (1 + np.exp(-np.clip(4 * distance / width, -30, 30))))
