"""Warps of the y-x plane, composed on coordinates: an image is interpolated once, however many are applied.

A warp says where each pixel of the output comes from. Affine parts of warps with the same border multiply;
between warps with different borders the coordinates are folded back into the image, each by its own rule.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from crista.augmentations.base import AnySample, FloatArray, LabelArray
from crista.config.augmentor import Border


@dataclass(frozen=True)
class Warp:
    """From the output pixel p to its position in the input: matrix·(p + displacement(p)) + offset.

    Both are (y, x) in pixels, relative to the centre.
    """

    border: Border
    matrix: NDArray[np.float64] = field(default_factory=lambda: np.eye(2))
    offset: NDArray[np.float64] = field(default_factory=lambda: np.zeros(2))
    """Pixels, (y, x)."""
    displacement: FloatArray | None = None
    """(2, Y, X), pixels along y and x. Laid on the grid of the final output, also where other warps follow."""
    z_step: float = 1.0
    """Distance in the input between two slices of the output."""

    def after(self, first: Warp) -> Warp:
        """This warp applied to the result of `first`, which has the same border, as one warp."""
        both = [warp.displacement for warp in (first, self) if warp.displacement is not None]
        return Warp(
            border=self.border,
            matrix=first.matrix @ self.matrix,
            offset=first.matrix @ self.offset + first.offset,
            displacement=sum(both[1:], both[0]) if both else None,
            z_step=first.z_step * self.z_step,
        )


@dataclass(frozen=True)
class Positions:
    """Where the output comes from along some axes, in pixels of the input, and what of it lies inside."""

    coordinates: tuple[FloatArray, ...]
    inside: NDArray[np.bool_] | None = None
    """False where a border `constant` leaves nothing to copy; None: all inside."""


def resample(sample: AnySample, warps: Sequence[Warp], ignore_index: int | None) -> AnySample:
    """`sample` after `warps` in their order: image linear, label nearest, both at the same positions.

    With the border `constant` the image is 0 outside, and the label `ignore_index`, or 0 (background) without
    one.
    In 3D every slice gets the same warp in the plane; z and the plane are independent, so that interpolating
    along z and then in the plane is the trilinear interpolation of the full grid.
    """
    shape = sample.label.shape
    stages = merge(warps)
    outside = 0 if ignore_index is None else ignore_index
    image, label = sample.image, sample.label
    if any(warp.z_step != 1 for warp in stages):
        image, label = resample_depth(image, label, depth_positions(shape[0], stages), outside)
    if any(changes_plane(warp) for warp in stages):
        image, label = resample_plane(image, label, plane_positions((shape[-2], shape[-1]), stages), outside)
    return sample.with_arrays(image=np.ascontiguousarray(image), label=np.ascontiguousarray(label))


def merge(warps: Sequence[Warp]) -> list[Warp]:
    """Neighbours with the same border as one warp."""
    merged: list[Warp] = []
    for warp in warps:
        if merged and merged[-1].border == warp.border:
            merged[-1] = warp.after(merged[-1])
        else:
            merged.append(warp)
    return merged


def changes_plane(warp: Warp) -> bool:
    """Whether anything moves within the y-x plane."""
    moved = bool(warp.offset.any()) or not np.array_equal(warp.matrix, np.eye(2))
    return moved or warp.displacement is not None


def plane_positions(shape: tuple[int, int], warps: Sequence[Warp]) -> Positions:
    """Positions (y, x), each (Y, X), for warps applied in their order."""
    height, width = shape
    centre_y, centre_x = (height - 1) / 2, (width - 1) / 2
    y: FloatArray = (np.arange(height, dtype=np.float32) - np.float32(centre_y))[:, None]
    x: FloatArray = (np.arange(width, dtype=np.float32) - np.float32(centre_x))[None, :]
    inside = None
    # The last warp is the first on the way from the output back to the input.
    for warp in reversed(warps):
        if warp.displacement is not None:
            y, x = y + warp.displacement[0], x + warp.displacement[1]
        matrix, offset = warp.matrix.astype(np.float32), warp.offset + np.array([centre_y, centre_x])
        moved_y = matrix[0, 0] * y + (matrix[0, 1] * x + np.float32(offset[0]))
        moved_x = matrix[1, 0] * y + (matrix[1, 1] * x + np.float32(offset[1]))
        if warp.border == "constant":
            within = is_within(moved_y, height) & is_within(moved_x, width)
            inside = within if inside is None else inside & within
        y = fold(moved_y, height, warp.border) - np.float32(centre_y)
        x = fold(moved_x, width, warp.border) - np.float32(centre_x)
    return Positions((y + np.float32(centre_y), x + np.float32(centre_x)), inside)


def depth_positions(depth: int, warps: Sequence[Warp]) -> Positions:
    """Positions (z,), each (Z,), for warps applied in their order."""
    centre = np.float32((depth - 1) / 2)
    z: FloatArray = np.arange(depth, dtype=np.float32)
    inside = None
    for warp in reversed(warps):
        z = (z - centre) * np.float32(warp.z_step) + centre
        if warp.border == "constant":
            inside = is_within(z, depth) if inside is None else inside & is_within(z, depth)
        z = fold(z, depth, warp.border)
    return Positions((z,), inside)


def is_within(coordinate: FloatArray, length: int) -> NDArray[np.bool_]:
    """Whether positions lie on the pixels of an axis: within half a pixel of a centre."""
    return (coordinate >= -0.5) & (coordinate <= length - 0.5)


def fold(coordinate: FloatArray, length: int, border: Border) -> FloatArray:
    """Positions brought back to [-0.5, length - 0.5] as the border says.

    `reflect` mirrors about the centre of the last pixel, `symmetric` about its outer edge, `wrap` starts
    again at the other side (without interpolating across that seam), `constant` stays on the border.
    """
    if border == "constant" or length == 1:
        return np.clip(coordinate, np.float32(0), np.float32(length - 1))
    if coordinate.min() >= 0 and coordinate.max() <= length - 1:
        return coordinate
    if border == "reflect":
        return mirror(coordinate, np.float32(length - 1))
    half = np.float32(0.5)
    if border == "symmetric":
        return mirror(coordinate + half, np.float32(length)) - half
    return remainder(coordinate + half, np.float32(length)) - half


def mirror(coordinate: FloatArray, last: np.float32) -> FloatArray:
    """Positions mirrored at 0 and `last` until they lie between."""
    mirrored: FloatArray = last - np.abs(remainder(coordinate, np.float32(2 * last)) - last)
    return mirrored


def remainder(coordinate: FloatArray, period: np.float32) -> FloatArray:
    """Floored remainder; several times faster than `np.mod`."""
    rest: FloatArray = coordinate - period * np.floor(coordinate / period)
    return rest


def resample_plane(image: FloatArray, label: LabelArray, positions: Positions, outside: int) -> tuple[FloatArray, LabelArray]:
    """Image and label read at one grid of (y, x) positions, the same for every channel and slice."""
    y, x = positions.coordinates
    height, width = y.shape
    grid = np.stack([(2 * x + 1) / np.float32(width) - 1, (2 * y + 1) / np.float32(height) - 1], axis=-1)
    planes = torch.from_numpy(np.require(image, np.float32, ["C", "W"]).reshape(1, -1, height, width))
    where = torch.from_numpy(grid[np.newaxis])
    sampled = F.grid_sample(planes, where, mode="bilinear", padding_mode="border", align_corners=False)
    new_image: FloatArray = sampled.numpy().reshape(image.shape)
    row = np.clip(np.rint(y), 0, height - 1).astype(np.intp)
    column = np.clip(np.rint(x), 0, width - 1).astype(np.intp)
    flat = np.take(label.reshape(-1, height * width), (row * width + column).ravel(), axis=1)
    new_label: LabelArray = flat.reshape(label.shape)
    if positions.inside is not None:
        new_image *= positions.inside
        new_label = np.where(positions.inside, new_label, new_label.dtype.type(outside))
    return new_image, new_label


def resample_depth(image: FloatArray, label: LabelArray, positions: Positions, outside: int) -> tuple[FloatArray, LabelArray]:
    """Image (C, Z, Y, X) and label (Z, Y, X) read at positions along z."""
    (z,) = positions.coordinates
    last = label.shape[0] - 1
    below = np.clip(np.floor(z), 0, last).astype(np.intp)
    above = np.minimum(below + 1, last)
    weight = np.clip(z - below.astype(np.float32), 0, 1)[:, None, None]
    new_image: FloatArray = image[:, below] * (1 - weight) + image[:, above] * weight
    new_label: LabelArray = label[np.clip(np.rint(z), 0, last).astype(np.intp)]
    if positions.inside is not None:
        new_image[:, ~positions.inside] = 0
        new_label[~positions.inside] = outside
    return new_image, new_label
