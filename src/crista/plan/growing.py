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
from crista.plan.plan import Plan
from crista.plan.topology import input_multiple

GROWTH = "TRAIN.GROW_PATCHES"
FIRST_SHARE = 0.4
"""Share of the epochs of a training by the clock in which patches are small."""
SMALLEST_SIDE = 32
"""Voxels that a small patch keeps along a side that is halved; shorter sides stay as they are."""
ENOUGH_STEPS = 650
"""Steps of whole patches from which on small ones add nothing. Validation IoU of mitochondria in volumes, without and with them:
0.84 and 0.82, 0.83 and 0.80, 0.76 and 0.76 where 700 to 780 steps fit; 0.76 and 0.73, 0.68 and 0.75, 0.72 and 0.74 where 300 to
390 do. In 2D small patches gained up to a point where 300 to 640 fit."""


def decide_first_patch(
    config: Config, patch: Sequence[int], model: Model, length: Epochs, ledger: Ledger
) -> tuple[int, ...] | None:
    """(Z)YX voxels of the patches in the first part of the training; None: of all patches the same."""
    asked, small = config.train.grow_patches, small_patch(patch, input_multiple(model, len(patch)))
    if (obstacle := _obstacle(config, patch, small, length)) is not None:
        if asked:
            ledger.refuse(GROWTH, *obstacle)
        return None
    if asked is None and config.data.patch_size is None:
        when = f"if fewer than {ENOUGH_STEPS} steps of whole ones fit into it"
        ledger.note(GROWTH, "by the steps", f"decided when the training starts: {_begins_with(small)} {when}")
        return small
    reason = "patches are as large as DATA.PATCH_SIZE says from the first step on"
    return small if ledger.settle(GROWTH, asked, False, reason) else None


def leaves_growth_open(plan: Plan) -> bool:
    """Whether it depends on the number of steps if patches are small at first."""
    return plan.first_patch is not None and plan.config.train.grow_patches is None


def growth_in(steps: int, small: Sequence[int]) -> tuple[bool, str]:
    """Whether a training of about so many steps of whole patches begins with `small` ones, and the reason."""
    if steps >= ENOUGH_STEPS:
        return False, f"about {steps} steps of whole patches fit into the time; from {ENOUGH_STEPS} on small ones add nothing"
    return True, f"{_begins_with(small)}, for only about {steps} steps of whole ones fit into it"


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


def _begins_with(small: Sequence[int]) -> str:
    return f"patches of {_shown(small)} in the first {FIRST_SHARE:.0%} of the time"


def _shown(patch: Sequence[int]) -> str:
    return " × ".join(map(str, patch))
