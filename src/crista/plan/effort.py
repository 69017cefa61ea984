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
    """What is decided where keys are left out, by the number of spatial axes."""

    name: str
    features: Mapping[int, tuple[int, ...]]
    """Channels of each level."""
    patch_voxels: Mapping[int, int]
    """Voxels of a patch, at most."""
    batch_voxels: Mapping[int, int]
    """Voxels of a batch, about."""


_WIDE, _NARROW = (16, 32, 64, 128, 256), (8, 16, 32, 64, 128)
FULL = Effort("full", {2: _WIDE, 3: _WIDE}, {2: 256**2, 3: 64**3}, {2: 6 * 256**2, 3: 2 * 64**3})
LIGHT = Effort("light", {2: (16, 32, 64, 128), 3: _NARROW}, {2: 192**2, 3: 40**3}, {2: 6 * 192**2, 3: 4 * 40**3})
LEAST = Effort("least", {2: _NARROW, 3: _NARROW}, {2: 128**2, 3: 40**3}, {2: 8 * 128**2, 3: 4 * 40**3})
EFFORTS = (FULL, LIGHT, LEAST)
"""From the most work to the least; of volumes the last two are one. Five minutes of float32, mitochondria in two volumes,
validation IoU: 0.57 and 0.48 with 16 to 128 channels in four levels, of which 340 steps fit, 0.61 and 0.55 with 8 to 128 in
five, 690 and 830."""
