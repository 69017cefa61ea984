"""Effort: how much work a step is, in networks and patches of decreasing size; a short training takes a lighter one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

FEWEST_STEPS = 200
"""Steps below which a training learns more with a lighter network or smaller patches: on the 3D sets 24 steps of the full
network, which is all that fits into 150 s on two cores, find nothing at all."""


@dataclass(frozen=True)
class Effort:
    """What is decided where keys are left out; the voxels by the number of spatial axes."""

    name: str
    features: tuple[int, ...]
    """Channels of each level."""
    patch_voxels: Mapping[int, int]
    """Voxels of a patch, at most."""
    batch_voxels: Mapping[int, int]
    """Voxels of a batch, about."""


FULL = Effort("full", (16, 32, 64, 128, 256), {2: 256**2, 3: 64**3}, {2: 6 * 256**2, 3: 2 * 64**3})
LIGHT = Effort("light", (16, 32, 64, 128), {2: 192**2, 3: 40**3}, {2: 6 * 192**2, 3: 2 * 40**3})
LEAST = Effort("least", (8, 16, 32, 64), {2: 128**2, 3: 40**3}, {2: 8 * 128**2, 3: 2 * 40**3})
EFFORTS = (FULL, LIGHT, LEAST)
"""From the most work to the least."""
