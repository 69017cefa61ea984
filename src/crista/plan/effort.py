"""Effort: how much work a step is, in networks and patches of decreasing size; a short training takes a lighter one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

FEWEST_STEPS = 250
"""Steps below which a training learns more with a lighter network and smaller patches. 150 s on two busy cores, mitochondria in a
volume, validation IoU: 0.04 after 24 steps of 16 to 256 channels on patches of 16 x 128 x 128; 0.58 after 80 steps of 8 to 64
channels; 0.47 after 48 steps of 16 to 256 channels on 16 x 64 x 64; 0.68 after 204 steps with both, four patches a step."""


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
LIGHT = Effort("light", (16, 32, 64, 128), {2: 192**2, 3: 40**3}, {2: 6 * 192**2, 3: 4 * 40**3})
LEAST = Effort("least", (8, 16, 32, 64, 128), {2: 128**2, 3: 40**3}, {2: 8 * 128**2, 3: 4 * 40**3})
EFFORTS = (FULL, LIGHT, LEAST)
"""From the most work to the least."""
