"""Clean: the median filters of TEST.POST_PROCESSING over a prediction, region by region."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crista.geometry.axes import Region
from crista.geometry.tiles import shape_of, whole
from crista.inference.measure import intersection
from crista.plan.plan import Plan
from crista.postprocessing.median import median_filter

Filters = Sequence[tuple[str, int]]
"""(axes, odd size) of each filter, in order."""


def filter_source(labels: Any, probabilities: Any | None, plan: Plan) -> Any:
    """What is filtered: the label image for two classes, the probabilities for more.

    With two classes filtering labels equals filtering the probabilities and then applying the threshold (the median keeps the
    order of values). With more a median of class numbers would invent classes, so each probability is filtered and the largest
    chosen.
    """
    return labels if plan.classes.num_classes == 2 else probabilities


def reach_of(filters: Filters, ndim: int) -> list[int]:
    """Pixels along (Z)YX that the filters look beyond what they filter."""
    return [sum(size // 2 for axes, size in filters if letter in axes) for letter in "zyx"[-ndim:]]


def filter_block(source: Any, block: Region, filters: Filters, predicted: Region) -> NDArray[np.uint8]:
    """Labels of `block` after the filters; outside the `predicted` part of the image they are 0, as before."""
    labels = np.zeros(shape_of(block), np.uint8)
    inside = intersection(block, predicted)
    if all(axis.stop > axis.start for axis in inside):
        own = tuple(slice(i.start - b.start, i.stop - b.start) for i, b in zip(inside, block, strict=True))
        labels[own] = filter_region(source, inside, filters, limits=predicted)
    return labels


def filter_region(source: Any, region: Region, filters: Filters, *, limits: Region | None = None) -> NDArray[np.uint8]:
    """Labels of `region` after the filters.

    `source` is an array (Z)YX of labels or K(Z)YX of probabilities; the region is read with as much around it as the filters
    reach, so that any cut of an image gives the same as the whole. What lies beyond `limits` (the image, where they are left
    out) is not looked at: there the region is reflected.
    """
    ndim = len(region)
    ends = limits if limits is not None else whole(source.shape[-ndim:])
    margins = reach_of(filters, ndim)
    around = tuple(
        slice(max(end.start, r.start - m), min(end.stop, r.stop + m)) for r, m, end in zip(region, margins, ends, strict=True)
    )
    leading = (slice(None),) * (len(source.shape) - ndim)
    pixels = np.asarray(source[(*leading, *around)])
    for axes, size in filters:
        pixels = median_filter(pixels, axes, size)
    own = tuple(slice(r.start - a.start, r.stop - a.start) for r, a in zip(region, around, strict=True))
    kept = pixels[(*leading, *own)]
    return kept if not leading else np.asarray(kept.argmax(axis=0), np.uint8)
