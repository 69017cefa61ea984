"""Growing: small patches in the first part of a training by the clock, of which more steps fit into its time.

The progressive growing of patch size of Fischer et al. 2024 (doi:10.1007/978-3-031-72114-4_49), in two stages.
"""

from __future__ import annotations

from collections.abc import Sequence

from crista.config.model import Model
from crista.config.root import Config
from crista.plan.budget import Epochs
from crista.plan.ledger import Ledger
from crista.plan.network import MIN_BOTTLENECK
from crista.plan.topology import input_multiple

FIRST_SHARE = 0.4
"""Share of the epochs of a training by the clock in which patches are small."""
SMALLEST_SIDE = 32
"""Voxels that a small patch keeps along a side that is halved; shorter sides stay as they are."""


def decide_first_patch(
    config: Config, patch: Sequence[int], model: Model, length: Epochs, ledger: Ledger
) -> tuple[int, ...] | None:
    """(Z)YX voxels of the patches in the first part of the training; None: of all patches the same."""
    asked, small = config.train.grow_patches, small_patch(patch, input_multiple(model, len(patch)))
    if (obstacle := _obstacle(config, patch, small, length)) is not None:
        if asked:
            ledger.refuse("TRAIN.GROW_PATCHES", *obstacle)
        return None
    decided = config.data.patch_size is None
    reason = (
        f"patches of {_shown(small)} in the first {FIRST_SHARE:.0%} of the time: more steps fit into it; whole ones after it"
        if decided
        else "patches are as large as DATA.PATCH_SIZE says from the first step on"
    )
    return small if ledger.settle("TRAIN.GROW_PATCHES", asked, decided, reason) else None


def _obstacle(config: Config, patch: Sequence[int], small: tuple[int, ...], length: Epochs) -> tuple[str, str] | None:
    """Why the patches of this training cannot grow, and what to do; None if they can."""
    if length.minutes is None or config.train.epochs is not None:
        return "patches grow by the clock", "give TRAIN.MAX_MINUTES and leave TRAIN.EPOCHS out, or leave it out"
    if not length.draws_anywhere:
        what = "only patches grow that are drawn anywhere and around classes, not those of a grid, of a map or one per image"
        return what, "give DATA.TRAIN.CLASS_SHARE above 0 and leave EXTRACT_RANDOM_PATCH out, or leave it out"
    if small == tuple(patch):
        what = (
            f"no side of {_shown(patch)} can be halved: {SMALLEST_SIDE} voxels must be left, {MIN_BOTTLENECK} at the last level"
        )
        return what, "give a larger DATA.PATCH_SIZE, or leave it out"
    return None


def small_patch(patch: Sequence[int], multiple: Sequence[int]) -> tuple[int, ...]:
    """Half of each side of a patch that leaves enough voxels, also at the last level; `multiple` is the stride of the network."""
    return tuple(_half(side, stride) for side, stride in zip(patch, multiple, strict=True))


def _half(side: int, stride: int) -> int:
    half = side // 2
    return half if half >= max(SMALLEST_SIDE, MIN_BOTTLENECK * stride) and half % stride == 0 else side


def count_first_epochs(epochs: int) -> int:
    """Of `epochs` that divide the time, those with small patches; at least the last is left."""
    return min(epochs - 1, max(1, round(FIRST_SHARE * epochs)))


def _shown(patch: Sequence[int]) -> str:
    return " × ".join(map(str, patch))
