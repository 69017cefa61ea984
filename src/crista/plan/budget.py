"""The part of the plan about time: minutes or epochs, steps between validations, what a short training does differently."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, prod

from crista.config.data import TrainData
from crista.config.root import Config
from crista.config.train import Train
from crista.geometry.tiles import grid_starts
from crista.images.fingerprint import Fingerprint
from crista.plan.ledger import Ledger
from crista.plan.sparse_labels import is_drawn_around_annotation, without_grid

STEPS = {"fast": 500, "standard": 1500, "best": 6000}
"""Optimizer steps of a training whose epochs are left out, by TRAIN.QUALITY."""
MINUTES = {"fast": 5.0, "standard": 20.0, "best": 120.0}
"""Minutes of a training that is asked for without a configuration, by TRAIN.QUALITY."""
EPOCHS_OF_BUDGET = 25
"""Validations of a training with a time budget, as far as they are cheap."""
VALIDATION_SHARE = 0.1
"""Share of the time budget that validation may take."""
FEWEST_EPOCHS = 5
CLASS_SHARE = 1 / 3
AVERAGE_SHARE = 0.05


@dataclass(frozen=True)
class Epochs:
    """How a training is divided."""

    minutes: float | None
    epochs: int
    average_share: float | None
    class_share: float
    most_steps: int | None
    """Steps of these epochs; None where they are parts of a time."""
    draws_anywhere: bool
    """Whether patches are drawn around pixels of classes and anywhere, on no grid and by no map."""


def decide_epochs(config: Config, fingerprint: Fingerprint, patch: Sequence[int], batch: int, ledger: Ledger) -> Epochs:
    """By the clock with MAX_MINUTES, otherwise passes over the samples: given, or about as many steps as QUALITY says."""
    minutes = config.train.max_minutes
    if minutes is not None:
        ledger.note("TRAIN.MAX_MINUTES", minutes, "given")
        epochs = config.train.epochs or EPOCHS_OF_BUDGET
        if config.train.epochs is not None:
            ledger.note("TRAIN.EPOCHS", epochs, "given; the time may end before")
    else:
        epochs = _decide_passes(config, fingerprint, patch, batch, ledger)
    sparse = is_drawn_around_annotation(config, fingerprint)  # which takes each class as often anyway
    share = 0.0 if sparse else _decide_class_share(config, minutes, ledger)
    is_open = minutes is not None and config.train.epochs is None
    most_steps = None if is_open else epochs * count_steps(config, fingerprint, patch, batch)[1]
    return Epochs(minutes, epochs, _decide_average(config.train, minutes, ledger), share, most_steps, sparse or share > 0)


def _decide_passes(config: Config, fingerprint: Fingerprint, patch: Sequence[int], batch: int, ledger: Ledger) -> int:
    samples, steps = count_steps(config, fingerprint, patch, batch)
    aim = STEPS[config.train.quality]
    decided = max(10, min(aim // 5, ceil(aim / steps)))
    also = ", with those that validate" if config.data.val.from_train else ""
    train = config.data.train
    drawn = train.extract_random_patch or train.class_share or is_drawn_around_annotation(config, fingerprint)
    also += ", less those without annotation" if config.loss.ignored_values and not drawn else ""
    reason = (
        f"about {decided * steps} steps, {steps} per epoch ({samples} patches{also}); {aim} are aimed at "
        f"(TRAIN.QUALITY: {config.train.quality}), in 10 to {aim // 5} epochs"
    )
    return ledger.settle("TRAIN.EPOCHS", config.train.epochs, decided, reason)


def count_steps(config: Config, fingerprint: Fingerprint, patch: Sequence[int], batch: int) -> tuple[int, int]:
    """(samples, optimizer steps) of a pass over all training images, those that validate included."""
    train = config.data.train
    if train.extract_random_patch:
        samples = len(fingerprint.shapes)
    else:
        samples = sum(_count_patches(shape, patch, train) for shape in fingerprint.shapes)
    samples *= max(1, train.replicate)
    return samples, ceil(samples / (batch * config.train.accum_iter))


def _count_patches(shape: Sequence[int], patch: Sequence[int], train: TrainData) -> int:
    """Patches of the grid over one image, by OVERLAP and PADDING."""
    overlaps, paddings = (_per_axis(values, len(shape)) for values in (train.overlap, train.padding))
    inner = (max(1, side - 2 * int(context)) for side, context in zip(patch, paddings, strict=True))
    return prod(len(grid_starts(*axis)) for axis in zip(shape, inner, overlaps, strict=True))


def _per_axis(values: Sequence[float] | None, ndim: int) -> tuple[float, ...]:
    """One value serves all axes; another number than there are axes has been refused."""
    given = values or (0,)
    return tuple(given) if len(given) == ndim else tuple(given[:1]) * ndim


def _decide_average(train: Train, minutes: float | None, ledger: Ledger) -> float | None:
    reason = (
        "the weights are averaged over the last twentieth of the steps: a network that can be used whenever the time is over"
        if minutes is not None
        else "with a number of epochs the learning rate is lowered towards the end, which does the same"
        if train.lr_scheduler.name in (None, "onecycle", "warmupcosine")
        else "only a training by the clock averages its weights unless it is told to"
    )
    return AVERAGE_SHARE if ledger.settle("TRAIN.EMA", train.ema, minutes is not None, reason) else None


def _decide_class_share(config: Config, minutes: float | None, ledger: Ledger) -> float:
    train = config.data.train
    if minutes is None or train.extract_random_patch:
        return train.class_share or 0.0
    reason = (
        "so many patches lie around a pixel of the foreground, each of its classes in turn, however rare; the others lie anywhere"
        f"{without_grid(config)}"
    )
    return ledger.settle("DATA.TRAIN.CLASS_SHARE", train.class_share, CLASS_SHARE, reason)


def divide_time(seconds: float, step: float, validation: float, patches: int) -> tuple[int, int, int]:
    """(epochs, steps per epoch, validation patches) that fill a time budget; each epoch has a step at least.

    Parameters
    ----------
    seconds : of the whole training
    step : seconds of one optimizer step
    validation : seconds per validation patch
    patches : validation patches that there are
    """
    affordable = seconds * VALIDATION_SHARE / max(validation * patches, 1e-9)
    steps = int((1 - VALIDATION_SHARE) * seconds / max(step, 1e-9))
    epochs = min(round(min(max(affordable, FEWEST_EPOCHS), EPOCHS_OF_BUDGET)), max(1, steps))
    length = seconds / epochs
    validated = min(patches, max(1, round(2 * VALIDATION_SHARE * length / validation))) if validation > 0 else patches
    return epochs, max(1, int((length - validated * validation) / max(step, 1e-9))), validated
