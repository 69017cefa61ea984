"""Boxes of voxels held against each other."""

from __future__ import annotations

from crista.geometry.axes import Region


def overlap(one: Region, other: Region) -> tuple[Region, Region]:
    """What two boxes share, counted from the corner of the one and of the other; empty where they do not meet."""
    inside_one, inside_other = [], []
    for a, b in zip(one, other, strict=True):
        low = max(a.start, b.start)
        high = max(low, min(a.stop, b.stop))
        inside_one.append(slice(low - a.start, high - a.start))
        inside_other.append(slice(low - b.start, high - b.start))
    return tuple(inside_one), tuple(inside_other)
