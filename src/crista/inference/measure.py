"""Measure: confusion matrices and boundaries of regions of a prediction, and the score of each patch by itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crista.geometry.axes import Region
from crista.geometry.spacing import Spacing
from crista.geometry.tiles import grid_blocks, grid_starts, shape_of, whole
from crista.images.blocks import choose_block
from crista.images.image import Image
from crista.images.labels import read_label
from crista.metrics.boundary import BoundaryCounts, boundary_reach, compute_boundary, near_offsets
from crista.metrics.confusion import compute_confusion
from crista.metrics.overlap import foreground_iou
from crista.patches.prepare import coding_of
from crista.plan.plan import Plan

Counts = NDArray[np.int64]
ReadLabel = Callable[[Region], NDArray[np.uint8]]
BLOCK_VOXELS = 2**24
BOX_VOXELS = 2**23


def label_reader(label: Image, plan: Plan) -> ReadLabel:
    """Classes of a region of a label image."""
    coding = coding_of(plan)
    return lambda region: read_label(label, coding, region)


def iter_slabs(shape: Sequence[int]) -> Iterator[Region]:
    """Whole slices, or whole rows of large ones, that partition an image, about `BLOCK_VOXELS` voxels at a time."""
    yield from grid_blocks(shape, choose_block(shape, None, BLOCK_VOXELS))


def predicted_region(shape: Sequence[int], plan: Plan) -> Region:
    """All of an image, or the slices of TEST.BY_CHUNKS.Z_START and Z_END."""
    chunks = plan.config.test.by_chunks
    region = whole(shape)
    if not chunks.enable or len(shape) < 3:
        return region
    start = max(0, chunks.z_start)
    stop = chunks.z_end if chunks.z_end >= 0 else shape[0]
    return slice(min(start, shape[0] - 1), min(max(stop, start + 1), shape[0])), *region[1:]


def evaluated(shape: Sequence[int], plan: Plan) -> Region:
    """The region that is measured: what is predicted, less TEST.EVAL_BORDER_CROP pixels at each border of the image.

    The crop has one value per axis, or one for all.
    """
    crop = plan.config.test.eval_border_crop
    widths = tuple(crop) * (len(shape) // len(crop)) if crop else (0,) * len(shape)
    inside = tuple(slice(min(c, n // 2), max(n - c, n // 2)) for n, c in zip(shape, widths, strict=True))
    return intersection(inside, predicted_region(shape, plan))


def intersection(one: Region, other: Region) -> Region:
    """What two regions share; axes with nothing in common have length 0."""
    starts = [max(a.start, b.start) for a, b in zip(one, other, strict=True)]
    stops = [min(a.stop, b.stop) for a, b in zip(one, other, strict=True)]
    return tuple(slice(start, max(start, stop)) for start, stop in zip(starts, stops, strict=True))


def region_confusion(labels: NDArray[Any], region: Region, shape: Sequence[int], read: ReadLabel, plan: Plan) -> Counts:
    """(K, K) counts of the part of `labels` (the prediction of `region` of an image of `shape`) that is measured."""
    inside = intersection(region, evaluated(shape, plan))
    counts = np.zeros((plan.classes.num_classes,) * 2, np.int64)
    if any(axis.stop <= axis.start for axis in inside):
        return counts
    own = tuple(slice(i.start - r.start, i.stop - r.start) for i, r in zip(inside, region, strict=True))
    return counts + compute_confusion(
        read(inside), labels[own], num_classes=plan.classes.num_classes, ignore_index=plan.classes.ignore_index
    )


def image_confusion(labels: Any, read: ReadLabel, plan: Plan) -> Counts:
    """(K, K) counts of a predicted label image (Z)YX against the true one, rows truth; slab by slab."""
    counts = np.zeros((plan.classes.num_classes,) * 2, np.int64)
    for slab in iter_slabs(labels.shape):
        counts += region_confusion(np.asarray(labels[slab]), slab, labels.shape, read, plan)
    return counts


def image_boundary(labels: Any, read: ReadLabel, plan: Plan, spacing: Spacing | None) -> BoundaryCounts:
    """(K, 4) edge counts of a predicted label image (Z)YX against the true one, of the region that is measured; block by block.

    `labels` is all of the image, in memory or on disk: an edge is judged by what lies around it.
    """
    offsets = near_offsets(spacing.values if spacing is not None else None, len(labels.shape))
    return boundary_in(
        evaluated(labels.shape, plan),
        (read, lambda region: np.asarray(labels[region])),
        offsets,
        num_classes=plan.classes.num_classes,
        ignore_index=plan.classes.ignore_index,
    )


def boundary_in(
    region: Region,
    readers: tuple[ReadLabel, ReadLabel],
    offsets: NDArray[np.int64],
    *,
    num_classes: int,
    ignore_index: int | None,
) -> BoundaryCounts:
    """(K, 4) edge counts of a region; `readers` give the classes of true and predicted images. What lies outside is not read."""
    counts = np.zeros((num_classes, 4), np.int64)
    for block in iter_boxes(shape_of(region)):
        own = tuple(slice(b.start + r.start, b.stop + r.start) for b, r in zip(block, region, strict=True))
        outer = tuple(slice(o.start - reach, o.stop + reach) for o, reach in zip(own, boundary_reach(offsets), strict=True))
        outer = intersection(outer, region)
        inside = tuple(slice(i.start - o.start, i.stop - o.start) for i, o in zip(own, outer, strict=True))
        label, prediction = (read(outer) for read in readers)
        counts += compute_boundary(label, prediction, offsets, num_classes=num_classes, ignore_index=ignore_index, inside=inside)
    return counts


def iter_boxes(shape: Sequence[int]) -> Iterator[Region]:
    """Boxes of at most `BOX_VOXELS` that partition an image, with little surface: what lies around each is read too."""
    size = list(shape)
    while np.prod(size) > BOX_VOXELS:
        longest = size.index(max(size))
        size[longest] = -(-size[longest] // 2)
    yield from grid_blocks(shape, [max(1, n) for n in size])


def patch_score(labels: Any, read: ReadLabel, plan: Plan) -> float | None:
    """Mean foreground IoU over the patches of an image, each measured by itself.

    Patches of the size that the network was trained on, with DATA.TEST.OVERLAP, over what is measured of the image; those without
    a counted voxel are left out. None if that leaves none.
    """
    shape = labels.shape
    inside = evaluated(shape, plan)
    if any(axis.stop <= axis.start for axis in inside):
        return None
    size = tuple(min(p, i.stop - i.start) for p, i in zip(plan.patch_size, inside, strict=True))
    overlap = plan.inference.overlap
    axes = [
        [slice(i.start + start, i.start + start + p) for start in grid_starts(i.stop - i.start, p, o)]
        for i, p, o in zip(inside, size, overlap, strict=True)
    ]
    scores = [_region_score(labels, region, read, plan) for region in product(*axes)]
    counted = [score for score in scores if np.isfinite(score)]
    return float(np.mean(counted)) if counted else None


def _region_score(labels: Any, region: Region, read: ReadLabel, plan: Plan) -> float:
    counts = compute_confusion(
        read(region),
        np.asarray(labels[region]),
        num_classes=plan.classes.num_classes,
        ignore_index=plan.classes.ignore_index,
    )
    return foreground_iou(counts)
