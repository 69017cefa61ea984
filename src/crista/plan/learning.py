"""The part of the plan about learning: loss, optimizer, schedule, batch, epochs."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

from crista.config.loss import LOSS_TERMS
from crista.config.root import Config
from crista.config.train import (
    SGD,
    Adam,
    AdamW,
    ConstantRate,
    OneCycle,
    Optimizer,
    ReduceOnPlateau,
    ScheduleShape,
    Train,
    WarmupCosine,
)
from crista.images.fingerprint import Fingerprint
from crista.plan.budget import Epochs
from crista.plan.effort import Effort
from crista.plan.ledger import Ledger
from crista.plan.plan import LossTerm

SHORT_RATE = 5e-3
"""Peak rate of Adam and AdamW in a training by the clock. After 110 steps, validation IoU on ssTEM membranes, five classes of
organelles, nuclei with outline: 0.644, 0.354, 0.593 with 1e-3; 0.662, 0.578, 0.616 with 3e-3; 0.667, 0.623 with 6e-3."""

RAREST = 1e-6
"""Frequency of a class below which its weight rises no further."""

FEWEST_PATCHES, MOST_PATCHES = 2, 32
"""Of a step."""


def decide_loss(config: Config, ledger: Ledger) -> tuple[LossTerm, ...]:
    """The terms and their weights."""
    names = ledger.settle(
        "LOSS.TYPE",
        config.loss.type,
        ("DICE", "CE"),
        "Dice looks at the overlap that is measured, cross-entropy at each pixel; together they learn rare classes too",
    )
    weights = config.loss.weights or (1.0,) * len(names)
    if len(weights) != len(names):
        ledger.refuse("LOSS.WEIGHTS", f"has {len(weights)} values for {len(names)} terms", "give one weight per term of TYPE")
        weights = (1.0,) * len(names)
    return tuple(LossTerm(term=LOSS_TERMS[name](), weight=weight) for name, weight in zip(names, weights, strict=True))


def decide_class_weights(config: Config, fingerprint: Fingerprint, ledger: Ledger) -> tuple[float, ...] | None:
    """Weights of the classes in the cross-entropy: none, typed in, or by the inverse square root of the frequency."""
    is_idle = config.loss.type is not None and "CE" not in config.loss.type  # then `crista.config.effects` says so
    if config.loss.class_rebalance == "none" or is_idle:
        return None
    if config.loss.class_rebalance == "manual":
        given = tuple(config.loss.class_weights)
        if len(given) != fingerprint.coding.num_classes:
            ledger.refuse(
                "LOSS.CLASS_WEIGHTS",
                f"{len(given)} weights for {fingerprint.coding.num_classes} classes",
                "give one weight per class, background first",
            )
        return given
    frequencies = fingerprint.class_frequencies
    if frequencies is None:
        ledger.refuse(
            "LOSS.CLASS_REBALANCE",
            "the class frequencies are not known because the label images were not read",
            "set DATA.TRAIN.CHECK_DATA: True, or give LOSS.CLASS_WEIGHTS",
        )
        return None
    # A class that is nowhere counts as often as the rarest: else it would outweigh all others where a validation image has it.
    least = max(RAREST, min((frequency for frequency in frequencies if frequency > 0), default=1.0))
    raw = [max(frequency, least) ** -0.5 for frequency in frequencies]
    weights = tuple(round(weight * len(raw) / sum(raw), 4) for weight in raw)
    shown = ", ".join(f"{frequency:.2%}" for frequency in frequencies)
    floor = f"; rarer than {least:.4%} counts as that" if min(frequencies) < least else ""
    ledger.note("LOSS.CLASS_WEIGHTS", weights, f"inverse square root of the class frequencies ({shown}), mean 1{floor}")
    return weights


def decide_optimizer(train: Train, ledger: Ledger) -> Optimizer:
    """Optimizer and learning rate."""
    name = ledger.settle("TRAIN.OPTIMIZER", train.optimizer, "ADAMW", "the fastest reliable start in few steps")
    default, reason = (1e-2 if name == "SGD" else 1e-3), f"the usual rate of {name} for U-Nets"
    if train.max_minutes is not None and name != "SGD":
        default, reason = (
            SHORT_RATE,
            "of about a hundred steps, as a training by the clock may have, more is learnt than with the usual 0.001; of "
            "thousands, as on a GPU, the two were not compared",
        )
    rate = ledger.settle("TRAIN.LR", train.lr, default, reason)
    optimizers: dict[str, Optimizer] = {
        "SGD": SGD(lr=rate, weight_decay=train.w_decay),
        "ADAM": Adam(lr=rate, betas=train.opt_betas, weight_decay=train.w_decay),
        "ADAMW": AdamW(lr=rate, betas=train.opt_betas, weight_decay=train.w_decay),
    }
    return optimizers[name]


def decide_schedule(train: Train, epochs: int, peak: float, ledger: Ledger) -> ScheduleShape:
    """The learning rate over time; `peak` is the highest one."""
    asked = train.lr_scheduler
    name = ledger.settle(
        "TRAIN.LR_SCHEDULER.NAME", asked.name, "onecycle", "up and down once: ends with a small rate when the epochs end"
    )
    low = max(0.0, asked.min_lr)
    if low > peak and name in ("reduceonplateau", "warmupcosine"):
        ledger.refuse(
            "TRAIN.LR_SCHEDULER.MIN_LR",
            f"{low:g} is above the learning rate {peak:g} (TRAIN.LR): {name} would raise the rate where it is to fall",
            "give less than TRAIN.LR, or leave it out",
        )
    patience = asked.reduceonplateau_patience
    if patience < 0:
        patience = max(1, (train.patience if train.patience > 0 else 15) // 3)
    warmup = asked.warmup_cosine_decay_epochs
    if name == "warmupcosine" and warmup > epochs:  # of EPOCHS that are given it was compared when they were read
        ledger.refuse(
            "TRAIN.LR_SCHEDULER.WARMUP_COSINE_DECAY_EPOCHS",
            f"{warmup} is beyond the {epochs} epochs that {'a time is divided into' if train.max_minutes else 'are decided'}: "
            "the rate would only rise",
            "leave it out (a tenth of them), or give fewer" + ("" if train.max_minutes else ", or give TRAIN.EPOCHS"),
        )
    shapes: dict[str, ScheduleShape] = {
        "": ConstantRate(),
        "onecycle": OneCycle(),
        "reduceonplateau": ReduceOnPlateau(factor=asked.reduceonplateau_factor, patience=patience, min_lr=low),
        "warmupcosine": WarmupCosine(
            warmup_epochs=warmup if warmup >= 0 else max(1, epochs // 10),
            min_lr=low,
            decay_fraction=asked.cosine_decay_fraction if asked.cosine_decay_fraction > 0 else 1.0,
        ),
    }
    return shapes[name]


def decide_patience(train: Train, schedule: ScheduleShape, length: Epochs, ledger: Ledger) -> int | None:
    """Epochs without improvement that end the training, None: any number; that they cannot, or lower no rate, is noted."""
    patience = train.patience if train.patience >= 0 else None
    if length.minutes is None:  # by the clock epochs are parts of the time, which are counted once a step has been timed
        for key, (epochs, why) in idle_patience(patience, schedule, length.epochs).items():
            ledger.note(key, epochs, why)
    return patience


def idle_patience(patience: int | None, schedule: ScheduleShape, epochs: int) -> dict[str, tuple[int, str]]:
    """Keys that wait for epochs without improvement and do nothing in a training of so many `epochs`: (value, why).

    The first epoch is the best so far in any case, and what ends a training, or lowers its rate, after the last one does nothing.
    """
    idle: dict[str, tuple[int, str]] = {}
    if patience is not None and patience >= epochs - 1:
        why = f"has no effect: of {epochs} epochs the last comes before {patience} without improvement could end the training"
        idle["TRAIN.PATIENCE"] = patience, why
    if isinstance(schedule, ReduceOnPlateau) and schedule.patience >= epochs - 2:
        why = f"the rate never falls: of {epochs} epochs none comes after more than {schedule.patience} without improvement"
        idle["TRAIN.LR_SCHEDULER.REDUCEONPLATEAU_PATIENCE"] = schedule.patience, why
    return idle


def decide_batch_size(train: Train, patch: Sequence[int], effort: Effort, ledger: Ledger) -> int:
    """Patches per step."""
    voxels = effort.batch_voxels[len(patch)]
    decided = max(FEWEST_PATCHES, min(MOST_PATCHES, voxels // prod(patch)))
    reason = f"about {voxels:,} voxels per step, at least {FEWEST_PATCHES} and at most {MOST_PATCHES} patches"
    return ledger.settle("TRAIN.BATCH_SIZE", train.batch_size, decided, reason)
