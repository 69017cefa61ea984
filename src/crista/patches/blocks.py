"""Blocks: which part of an image validates where there are too few images to keep one back."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from crista.config.data import ValidationData
from crista.geometry.axes import Region
from crista.images.blocks import iter_blocks
from crista.images.image import Image
from crista.images.labels import LabelCoding, read_label

INNER_POSITIONS = 7
"""Places of a block between the two ends of an axis that are tried if neither end holds every class."""

ClassProfile = tuple[NDArray[np.int64], ...]
"""Annotated pixels of each class at each position along each axis: one (K, length) array per axis (Z)YX."""


@dataclass(frozen=True)
class Block:
    """A part of an image along one axis that validates, with a strip on each side that belongs to neither."""

    axis: int
    """Index into (Z)YX."""
    start: int
    stop: int
    strip: int
    """Pixels left out on each side."""

    def sides(self, length: int) -> list[tuple[int, int]]:
        """What trains along the axis, (start, stop); empty if nothing is left."""
        parts = [(0, self.start - self.strip), (self.stop + self.strip, length)]
        return [(low, high) for low, high in parts if high > low]

    def region(self, shape: Sequence[int], low: int, high: int) -> Region:
        """The whole image of `shape`, cut to `low` to `high` along the axis."""
        return tuple(slice(low, high) if i == self.axis else slice(0, n) for i, n in enumerate(shape))


def profile_classes(label: Image, coding: LabelCoding) -> ClassProfile:
    """Count the annotated pixels of each class along each axis, block by block; the whole volume is never in memory."""
    profile = tuple(np.zeros((coding.num_classes, length), np.int64) for length in label.spatial_shape)
    for region in iter_blocks(label):
        classes = read_label(label, coding, region)
        for axis, counts in enumerate(profile):
            for position, plane in enumerate(np.moveaxis(classes, axis, 0), region[axis].start):
                counts[:, position] += np.bincount(plane.ravel(), minlength=256)[: coding.num_classes]
    return profile


def choose_block(
    shape: Sequence[int], config: ValidationData, *, gap: Sequence[int], seed: int, profile: ClassProfile | None
) -> Block:
    """The block of an image of `shape` that validates.

    It lies at an end of the longest in-plane axis. With a `profile`, another place is taken if it leaves annotated pixels of
    more classes in both parts: the other end, places in between, and the same along the other axes.
    """
    candidates = list(_candidates(shape, config, gap, seed))
    if profile is None:
        return candidates[0]
    return max(candidates, key=lambda block: _score(*class_counts(block, profile)))


def _score(training: NDArray[np.int64], validation: NDArray[np.int64]) -> tuple[int, int]:
    """Classes in both parts, then classes that can be learnt."""
    return int(((training > 0) & (validation > 0)).sum()), int((training > 0).sum())


def class_counts(block: Block, profile: ClassProfile) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Annotated pixels of each class in the training part and in the validation part."""
    along = profile[block.axis]
    training = sum((along[:, low:high].sum(axis=1) for low, high in block.sides(along.shape[1])), np.zeros(len(along), np.int64))
    return training, along[:, block.start : block.stop].sum(axis=1)


def _candidates(shape: Sequence[int], config: ValidationData, gap: Sequence[int], seed: int) -> Iterator[Block]:
    ndim = len(shape)
    axes = sorted(range(ndim), key=lambda axis: (axis < ndim - 2, -shape[axis]))  # z last: neighbouring slices are alike
    for axis in axes:
        length = shape[axis]
        strip = min(gap[axis], max(1, length // 20)) if length >= 8 else 0
        if config.cross_val:
            edges = np.linspace(0, length, config.cross_val_nfold + 1).round().astype(int)
            yield Block(axis, int(edges[config.cross_val_fold - 1]), int(edges[config.cross_val_fold]), strip)
            return
        size = min(max(1, round(length * config.split_train)), max(1, length - 1))
        at_start = config.random and bool(np.random.default_rng(seed).integers(2))
        ends = [0, length - size] if at_start else [length - size, 0]
        inner = [round((length - size) * k / (INNER_POSITIONS + 1)) for k in range(1, INNER_POSITIONS + 1)]
        for start in dict.fromkeys([*ends, *inner]):
            yield Block(axis, start, start + size, strip)
