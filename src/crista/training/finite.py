"""No update with a loss or a gradient that is not finite, and no waiting for the device to see it."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite

import torch
from torch import Tensor

from crista.errors import UnstableTrainingError
from crista.patches.loader import Batch

STEPS_BEHIND = 2
"""Steps that a GPU is allowed to be ahead of the look at its figures."""


EXPLOSION = 10.0
"""Times the best training loss so far that a loss may rise to."""
LEAST_LOSS = 0.05
"""Best losses below this count as this: an epoch is never refused for a loss below half, about that of an untrained network."""

MOST_SKIPPED = 20
"""Steps in a row that loss scaling may skip. Each halves the scale, which begins at 65536; after so many it is below 1/10, so the
gradient is broken, not too large for half precision."""

REMEDY = (
    "Look at these images (crista check), lower TRAIN.LR, or set TRAIN.GRADIENT_CLIP_NORM: 1.0, and run the same command again "
    "to resume"
)


@dataclass
class SkippedSteps:
    """Steps in a row that loss scaling skipped, as their gradient was not finite; over all epochs, which may have few steps."""

    count: int = 0

    def are_usual(self, norm: float) -> bool:
        """Count a step with this `norm` of the gradient; whether a lower scale may still help."""
        self.count = 0 if isfinite(norm) else self.count + 1
        if self.count < MOST_SKIPPED:
            return True
        self.count = 0  # a training that goes back an epoch has as many again
        return False


@dataclass(frozen=True)
class WorstBatch:
    """The batch with the highest loss, and the images that it was cut from."""

    loss: float
    images: tuple[str, ...]


@dataclass(frozen=True)
class _Figures:
    """Losses of the batches of one step and, last, the norm of the gradient, on their way from the device."""

    values: Tensor
    arrived: torch.cuda.Event | None
    batches: Sequence[Batch]


class FiniteWatch:
    """Looks at the losses and the gradient norm of each step before its update.

    On a GPU a look would make the step wait. There the figures arrive `behind` steps later, and until then the fused optimizer
    itself makes no update: it reads `found_inf` on the device, which stays 1 from the first bad figure on.

    Parameters
    ----------
    optimizer : a fused one where `behind` is above 0
    behind : steps after which figures are looked at; 0: at once, before the update
    skipped : the steps that loss scaling skips itself, as a gradient too large for half precision is no fault; None: without one
    """

    def __init__(self, optimizer: torch.optim.Optimizer, *, behind: int, skipped: SkippedSteps | None = None) -> None:
        self._optimizer = optimizer
        self._behind = behind
        self._skipped = skipped
        self._waiting: deque[_Figures] = deque()
        self._found: Tensor | None = None
        self.worst: WorstBatch | None = None
        """Of the figures that were looked at."""

    def look(self, losses: Sequence[Tensor], norm: Tensor, batches: Sequence[Batch]) -> None:
        """Take the figures of a step: the loss of each of its `batches`, and the `norm` of the gradient.

        Raises
        ------
        UnstableTrainingError
            If a loss or norm is not finite: of this step, or with `behind` of one up to so many steps ago. With loss scaling:
            if the norms of `MOST_SKIPPED` steps in a row are not.
        """
        values = torch.stack([*losses, norm]).detach()
        if self._behind:
            self._hold_updates(values)
        self._waiting.append(_sent(values, batches))
        self._read(self._behind)

    def finish(self) -> None:
        """Look at all that is still on its way; raises as `look` does."""
        self._read(0)

    def _hold_updates(self, values: Tensor) -> None:
        if self._skipped is not None:
            return
        found = 1 - torch.isfinite(values).all().float()
        self._found = found if self._found is None else torch.maximum(self._found, found)
        self._optimizer.found_inf = self._found  # type: ignore[attr-defined]

    def _read(self, left: int) -> None:
        while len(self._waiting) > left:
            figures = self._waiting.popleft()
            if figures.arrived is not None:
                figures.arrived.synchronize()
            *losses, norm = figures.values.tolist()
            for loss, batch in zip(losses, figures.batches, strict=True):
                _refuse_non_finite(loss, "loss", batch)
                if self.worst is None or loss > self.worst.loss:
                    self.worst = WorstBatch(loss, tuple(sorted(set(batch.names))))
            if self._skipped is None:
                _refuse_non_finite(norm, "norm of the gradient", *figures.batches)
            elif not self._skipped.are_usual(norm):
                what = f"norm of the gradient, {MOST_SKIPPED} steps in a row,"
                _refuse_non_finite(norm, what, *figures.batches, remedy=f"Train in float32 (TRAIN.AMP: False). {REMEDY}")


def updates_to_watch(device: torch.device) -> int:
    """Steps that the watch may be behind on `device`."""
    return STEPS_BEHIND if device.type == "cuda" else 0


def _sent(values: Tensor, batches: Sequence[Batch]) -> _Figures:
    if values.device.type != "cuda":
        return _Figures(values, None, batches)
    copy = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
    copy.copy_(values, non_blocking=True)
    arrived = torch.cuda.Event()  # type: ignore[no-untyped-call]
    arrived.record(torch.cuda.current_stream(values.device))  # without it: of the first GPU, whichever trains
    return _Figures(copy, arrived, batches)


def _refuse_non_finite(value: float, what: str, *batches: Batch, remedy: str = REMEDY) -> None:
    if isfinite(value):
        return
    names = sorted({name for batch in batches for name in batch.names})
    listed = f"{', '.join(names[:8])}{' …' if len(names) > 8 else ''}"
    raise UnstableTrainingError(
        f"the {what} became {value}; training stopped before the update, the last checkpoint is good. The batch held patches "
        f"of: {listed}. {remedy}",
        what=f"the {what} became {value}",
        images=names,
    )


def refuse_explosion(loss: float, earlier: Sequence[float], worst: WorstBatch | None) -> None:
    """Refuse the mean training `loss` of an epoch that is far above the best of the `earlier` ones.

    Far is `EXPLOSION` times, where a best loss below `LEAST_LOSS` counts as that: a jump from 0.001 to 0.02 is noise.

    Raises
    ------
    UnstableTrainingError
        Naming the images of the batch with the highest loss.
    """
    if not earlier or loss <= EXPLOSION * max(LEAST_LOSS, min(earlier)):
        return
    images = worst.images if worst is not None else ()
    seen = f" The highest loss was {worst.loss:.3g}, in a batch with patches of: {', '.join(images[:8])}." if worst else ""
    raise UnstableTrainingError(
        f"the training loss exploded: {loss:.3g}, after {min(earlier):.3g} in an earlier epoch; the last checkpoint is good."
        f"{seen} {REMEDY}",
        what=f"the training loss exploded to {loss:.3g} (it was {min(earlier):.3g})",
        images=images,
    )
