"""Boundary agreement: how well the edges of each class lie, within a tolerance; counts of parts of an image add up."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crista.geometry.axes import Region
from crista.geometry.tiles import whole
from crista.metrics.overlap import foreground_mean

TOLERANCE = 2
"""Distance, in voxels of the finest axis, up to which edges count as the same."""

SLACK = 1.01
"""Voxel sizes that differ by rounding in a file's header give the same neighbourhood."""

FEW_EDGES = 16
"""Where fewer than one voxel in so many is an edge, looking at them one by one is quicker than comparing whole arrays."""

BoundaryCounts = NDArray[np.int64]
"""(K, 4) voxels per class: edge of the label, those of them that are near the prediction's edge, edge of the prediction,
those of them that are near the label's."""

BOUNDARY_RULE = (
    "The edge of a class are its pixels with a neighbour (along an axis) of another class; the border of the image is no edge. A "
    "class without an edge in label and prediction has no NSD; one with an edge in only one of them has 0. Edge pixels with an "
    "unlabelled pixel within the tolerance are left out."
)


def near_offsets(spacing: Sequence[float] | None, ndim: int, tolerance: float = TOLERANCE) -> NDArray[np.int64]:
    """Steps (M, ndim) to all voxels within the tolerance, the nearest first; the first one is no step.

    Distances are those between voxel centres, in units of the finest axis; without `spacing` voxels are taken for cubes. Along
    an axis that is coarser than the tolerance there is no step.
    """
    sizes = np.asarray(spacing if spacing is not None else [1.0] * ndim, float)
    scaled = sizes / sizes.min()
    reach = np.floor(tolerance * SLACK / scaled).astype(int)
    steps = np.array(list(product(*(range(-r, r + 1) for r in reach))), np.int64).reshape(-1, ndim)
    distances = np.sqrt(((steps * scaled) ** 2).sum(axis=1))
    inside = distances <= tolerance * SLACK
    order = np.argsort(distances[inside], kind="stable")
    nearest: NDArray[np.int64] = steps[inside][order]
    return nearest


def boundary_reach(offsets: NDArray[np.int64]) -> tuple[int, ...]:
    """Voxels around a region, along each axis, that its counts depend on: the tolerance, and one more to tell an edge."""
    return tuple(int(step) + 1 for step in np.abs(offsets).max(axis=0))


def compute_boundary(
    label: NDArray[Any],
    prediction: NDArray[Any],
    offsets: NDArray[np.int64],
    *,
    num_classes: int,
    ignore_index: int | None = None,
    inside: Region | None = None,
) -> BoundaryCounts:
    """Edge voxels per class, and how many of them have an edge voxel of the same class of the other image nearby.

    Parameters
    ----------
    label, prediction : (Z)YX integer classes of equal shape
    offsets : of `near_offsets`
    ignore_index : label value of voxels that are not measured (see BOUNDARY_RULE)
    inside :
        Only edge voxels in this region of the arrays are counted. Give `boundary_reach` voxels around it, as far as there are
        any, and blocks that partition an image add up to its own counts.
    """
    ignored = label == ignore_index if ignore_index is not None else None
    if ignored is not None and not ignored.any():
        ignored = None
    pad = np.abs(offsets).max(axis=0)
    own = inside if inside is not None else whole(label.shape)
    truth, guess = (
        _find_edges(classes, known, own, pad, num_classes) for classes, known in ((label, ignored), (prediction, None))
    )
    unknown = np.pad(ignored, [(int(p), int(p)) for p in pad]).ravel() if ignored is not None else None
    padded = [int(n + 2 * p) for n, p in zip(label.shape, pad, strict=True)]
    steps = offsets @ np.array([int(np.prod(padded[axis + 1 :])) for axis in range(label.ndim)], np.int64)
    columns = [
        counts
        for one, other in ((truth, guess), (guess, truth))
        for counts in _matched(one, other, _known(one.positions, unknown, steps), steps, num_classes)
    ]
    return np.stack(columns, axis=1)


def nsd(counts: BoundaryCounts) -> NDArray[np.float64]:
    """Normalised surface Dice of each class, (…, K): the share of the edges of label and prediction that lie within the
    tolerance of each other (Nikolov et al. 2021, doi:10.2196/26151, with edge voxels for surface elements); NaN for a class
    without any edge."""
    counted = np.asarray(counts, np.float64)
    edges = counted[..., 0] + counted[..., 2]
    scores = np.full(edges.shape, np.nan)
    np.divide(counted[..., 1] + counted[..., 3], edges, out=scores, where=edges > 0)
    return scores


def foreground_nsd(counts: BoundaryCounts) -> float:
    """Mean NSD of the classes but the background that have an edge; NaN where none has."""
    return float(foreground_mean(nsd(counts), empty=np.nan))


def describe_tolerance(spacing: Sequence[float] | None, tolerance: float = TOLERANCE) -> str:
    """The tolerance in words, in micrometres too where the voxel size is known."""
    pixels = f"{tolerance:g} pixels"
    return pixels if spacing is None else f"{pixels} of the finest axis ({tolerance * min(spacing):.3g} µm)"


@dataclass(frozen=True)
class _Edges:
    """The edges of an image, padded so that steps from them stay inside."""

    codes: NDArray[Any]
    """Class + 1 at edge voxels, else 0; flat."""
    positions: NDArray[np.int64]
    """Indices in `codes` of the edge voxels that are in the region to count."""


def _find_edges(
    classes: NDArray[Any], ignored: NDArray[np.bool_] | None, own: Region, pad: NDArray[np.int64], num_classes: int
) -> _Edges:
    inner = tuple(slice(int(p), int(p) + n) for n, p in zip(classes.shape, pad, strict=True))
    shape = [int(n + 2 * p) for n, p in zip(classes.shape, pad, strict=True)]
    edge = np.zeros(shape, bool)
    _mark_edges(classes, ignored, edge[inner])
    padded = np.zeros(shape, np.uint8 if num_classes < 255 else np.uint32)
    padded[inner] = classes
    found = np.flatnonzero(edge)
    codes = np.zeros(edge.size, padded.dtype)
    codes[found] = padded.ravel()[found] + 1
    if own == whole(classes.shape):
        return _Edges(codes, found)
    box = tuple(slice(o.start + i.start, o.stop + i.start) for o, i in zip(own, inner, strict=True))
    counted = np.zeros(shape, bool)
    counted[box] = edge[box]
    return _Edges(codes, np.flatnonzero(counted))


def _mark_edges(classes: NDArray[Any], ignored: NDArray[np.bool_] | None, edge: NDArray[np.bool_]) -> None:
    """Mark the voxels with a neighbour of another class. A step to an ignored voxel is no edge."""
    for axis in range(classes.ndim):
        low = tuple(slice(None, -1) if a == axis else slice(None) for a in range(classes.ndim))
        high = tuple(slice(1, None) if a == axis else slice(None) for a in range(classes.ndim))
        differs = classes[low] != classes[high]
        if ignored is not None:
            differs &= ~(ignored[low] | ignored[high])
        edge[low] |= differs
        edge[high] |= differs


def _known(positions: NDArray[np.int64], unknown: NDArray[np.bool_] | None, steps: NDArray[np.int64]) -> NDArray[np.int64]:
    """The positions with no unknown voxel nearby."""
    for step in steps if unknown is not None else ():
        positions = positions[~unknown[positions + step]]  # type: ignore[index]
    return positions


def _matched(
    edges: _Edges, other: _Edges, positions: NDArray[np.int64], steps: NDArray[np.int64], num_classes: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Voxels at `positions` per class, and those with a voxel of the same code in `other` within the steps."""
    values = edges.codes[positions]
    total = np.bincount(values, minlength=num_classes + 1)[1:]
    if positions.size * FEW_EDGES >= edges.codes.size:
        missed = values[_is_missed(edges, other, positions, steps)]
    else:
        missed = _missed_one_by_one(values, other, positions, steps)
    return total, total - np.bincount(missed, minlength=num_classes + 1)[1:]


def _missed_one_by_one(
    values: NDArray[Any], other: _Edges, positions: NDArray[np.int64], steps: NDArray[np.int64]
) -> NDArray[Any]:
    """Those of the codes `values` at `positions` without the same code nearby: each step looks at those that are left."""
    for step in steps:  # most are matched by the first few
        missed = other.codes[positions + step] != values
        positions, values = positions[missed], values[missed]
    return values


def _is_missed(edges: _Edges, other: _Edges, positions: NDArray[np.int64], steps: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Which of the voxels at `positions` have no voxel of the same code nearby.

    Each step compares all voxels with those that lie that step away, which is quick however many are edges.
    """
    reach = int(np.abs(steps).max())  # the arrays are padded by as much around every position
    inner = edges.codes[reach : edges.codes.size - reach]
    near, equal = np.zeros(inner.size, bool), np.empty(inner.size, bool)
    for step in steps:
        np.equal(inner, other.codes[reach + step : reach + step + inner.size], out=equal)
        near |= equal
    missed: NDArray[np.bool_] = ~near[positions - reach]
    return missed
