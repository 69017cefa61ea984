"""Images as of a fluorescence microscope: stained nuclei, many touching; classes background, outline and nucleus."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from crista.samples.texture import Field, coordinates, shade, smooth_noise, soft_step

NUCLEUS_RADIUS = 13.0
"""Mean radius in pixels."""

REACH = 36
"""Pixels from the centre beyond which no nucleus extends."""

OUTLINE_WIDTH = 2
"""Pixels of a nucleus next to its border, or to another nucleus, that are class 1."""


def draw_nuclei(rng: np.random.Generator, shape: Sequence[int]) -> tuple[NDArray[np.uint16], NDArray[np.uint8]]:
    """Image (12 bit in uint16) and label of `shape` YX."""
    grid = coordinates(shape, [1.0, 1.0])
    number, depth = _place_nuclei(rng, grid)
    return _expose(rng, number, depth), _label(number)


def _place_nuclei(rng: np.random.Generator, grid: Sequence[Field]) -> tuple[NDArray[np.int64], Field]:
    """Number of the nucleus of each pixel (0: none) and depth below its surface in pixels."""
    shape = grid[0].shape
    number = np.zeros(shape, np.int64)
    depth = np.full(shape, -100.0)
    wanted = max(2, round(0.55 * shape[0] * shape[1] / (np.pi * NUCLEUS_RADIUS**2)))
    placed: list[NDArray[np.float64]] = []
    for index in range(1, 2 * wanted + 1):
        if placed and rng.random() < 0.4:  # next to another one, so that nuclei touch
            angle = rng.uniform(0, 2 * np.pi)
            step = NUCLEUS_RADIUS * rng.uniform(1.7, 2.1) * np.array([np.sin(angle), np.cos(angle)])
            centre = placed[int(rng.integers(len(placed)))] + step
        else:
            centre = rng.uniform(0, shape, 2)
        box = tuple(slice(max(0, int(c) - REACH), max(0, int(c) + REACH)) for c in centre)
        own = _depth_of_nucleus(rng, [axis[box] for axis in grid], centre)
        body = own > 0
        taken = np.count_nonzero(body & (number[box] > 0))
        if not body.any() or taken > 0.12 * np.count_nonzero(body):
            continue
        number[box][body & (number[box] == 0)] = index
        depth[box] = np.maximum(depth[box], own)
        placed.append(centre)
        if len(placed) == wanted:
            break
    return number, depth


def _depth_of_nucleus(rng: np.random.Generator, grid: Sequence[Field], centre: NDArray[np.float64]) -> Field:
    """An ellipse whose radius varies smoothly with the direction."""
    radius = NUCLEUS_RADIUS * float(np.clip(rng.normal(1, 0.18), 0.6, 1.5))
    stretch, turn = rng.uniform(1.0, 1.25), rng.uniform(0, np.pi)
    y, x = grid[0] - centre[0], grid[1] - centre[1]
    u, v = (x * np.cos(turn) + y * np.sin(turn)) / stretch, (y * np.cos(turn) - x * np.sin(turn)) * stretch
    angle = np.arctan2(v, u)
    outline = np.full_like(u, radius)
    for order, strength in ((2, 0.05), (3, 0.035), (4, 0.02)):
        outline += radius * strength * rng.normal() * np.cos(order * angle + rng.uniform(0, 2 * np.pi))
    return np.asarray(outline - np.hypot(u, v))


def _label(number: NDArray[np.int64]) -> NDArray[np.uint8]:
    """0 background, 1 outline, 2 inside."""
    inside = number > 0
    width = 2 * OUTLINE_WIDTH + 1
    same = ndimage.minimum_filter(number, width) == ndimage.maximum_filter(number, width)
    return np.where(inside, np.where(same, 2, 1), 0).astype(np.uint8)


def _expose(rng: np.random.Generator, number: NDArray[np.int64], depth: Field) -> NDArray[np.uint16]:
    """Chromatin texture, out-of-focus haze, uneven illumination, photon and read noise; 12 bit."""
    shape = number.shape
    stain = np.clip(rng.lognormal(0.0, 0.28, int(number.max()) + 1), 0.45, 2.0)
    stain[0] = 0.0
    chromatin = 1 + 0.16 * smooth_noise(rng, shape, [1.6, 1.6]) + 0.1 * smooth_noise(rng, shape, [4.0, 4.0])
    nucleoli = 1 - 0.45 * soft_step(smooth_noise(rng, shape, [2.4, 2.4]) - 1.9, 0.5)
    # Thinner towards the rim, and a dark seam where two nuclei touch.
    same = ndimage.minimum_filter(number, 3) == ndimage.maximum_filter(number, 3)
    thickness = np.where(same, np.clip(0.6 + 0.4 * np.clip(depth, 0, None) / 5, 0, 1), 0.5)
    body = ndimage.gaussian_filter(stain[number] * chromatin * nucleoli * thickness, 1.1)
    haze = ndimage.gaussian_filter(stain[number], 14.0)
    cytoplasm = 0.03 * np.clip(1 + 0.5 * smooth_noise(rng, shape, [9.0, 9.0]), 0, None)
    light = (body + 0.1 * haze + cytoplasm) * shade(rng, shape, 0.15)
    photons = rng.uniform(140, 260)
    counts = photons * np.clip(light, 0, None)
    # The normal approximation of a Poisson count: the same on every platform.
    counts = counts + np.sqrt(counts + 4.0) * rng.standard_normal(shape)
    return np.asarray(np.clip(np.round(counts * 6.5 + 110), 0, 4095).astype(np.uint16))
