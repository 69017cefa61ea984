"""Measure: confusion matrices of tiles and of images, counted block by block."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crista.geometry.axes import Region
from crista.geometry.tiles import Tile, iter_tiles, whole
from crista.images.image import Image
from crista.images.labels import read_label
from crista.inference.engine import Scores, labels_of
from crista.metrics.confusion import compute_confusion
from crista.metrics.overlap import foreground_iou
from crista.patches.prepare import coding_of
from crista.plan.plan import Plan

Counts = NDArray[np.int64]
ReadLabel = Callable[[Region], NDArray[np.uint8]]
BLOCK_VOXELS = 2**24


def label_reader(label: Image, plan: Plan) -> ReadLabel:
    """Classes of a region of a label image."""
    coding = coding_of(plan)
    return lambda region: read_label(label, coding, region)


def iter_blocks(shape: Sequence[int]) -> Iterator[Region]:
    """Slabs along the first axis that partition an image, each of about `BLOCK_VOXELS` voxels."""
    rows = max(1, BLOCK_VOXELS // max(1, int(np.prod(shape[1:]))))
    size = (min(rows, shape[0]), *shape[1:])
    for tile in iter_tiles(shape, size, [0] * len(shape)):
        yield tile.write


def evaluated(shape: Sequence[int], crop: Sequence[int]) -> Region:
    """The region that is measured: all but TEST.EVAL_BORDER_CROP pixels at each border, one value per axis or one for all."""
    if not crop:
        return whole(shape)
    widths = tuple(crop) * (len(shape) // len(crop))
    return tuple(slice(min(c, n // 2), max(n - c, n // 2)) for n, c in zip(shape, widths, strict=True))


def image_confusion(labels: NDArray[Any], read: ReadLabel, plan: Plan) -> Counts:
    """(K, K) counts of a predicted label image (Z)YX against the true one, rows truth."""
    inside = evaluated(labels.shape, plan.config.test.eval_border_crop)
    counts = np.zeros((plan.classes.num_classes,) * 2, np.int64)
    for block in iter_blocks(labels.shape):
        region = tuple(slice(max(b.start, i.start), min(b.stop, i.stop)) for b, i in zip(block, inside, strict=True))
        if all(axis.stop > axis.start for axis in region):
            counts += compute_confusion(
                read(region),
                np.asarray(labels[region]),
                num_classes=plan.classes.num_classes,
                ignore_index=plan.classes.ignore_index,
            )
    return counts


class PatchScores:
    """Foreground IoU of each tile by itself, before tiles are put together."""

    def __init__(self, plan: Plan, shape: Sequence[int], read: ReadLabel) -> None:
        self._plan = plan
        self._shape = tuple(shape)
        self._read = read
        self.values: list[float] = []

    def __call__(self, tile: Tile, scores: Scores) -> None:
        """Measure one tile (the part of it that lies inside the image)."""
        region = tuple(slice(r.start, min(r.stop, n)) for r, n in zip(tile.read, self._shape, strict=True))
        inside = tuple(slice(0, r.stop - r.start) for r in region)
        predicted = labels_of(scores, self._plan.config.test.threshold)[inside]
        counts = compute_confusion(
            self._read(region),
            predicted,
            num_classes=self._plan.classes.num_classes,
            ignore_index=self._plan.classes.ignore_index,
        )
        self.values.append(foreground_iou(counts))

    @property
    def mean(self) -> float | None:
        """Mean over the tiles; tiles without a counted voxel are left out. None if that leaves none."""
        counted = [value for value in self.values if np.isfinite(value)]
        return float(np.mean(counted)) if counted else None
