"""TRAIN: how the network learns."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from crista.config.base import Section

Positive = Annotated[float, Field(gt=0)]
Beta = Annotated[float, Field(ge=0, lt=1)]


class SGD(Section):
    """Stochastic gradient descent with Nesterov momentum."""

    name: Literal["sgd"] = "sgd"
    lr: Positive
    momentum: Beta = 0.9
    weight_decay: Annotated[float, Field(ge=0)]


class Adam(Section):
    """Adam with weight decay as an L2 penalty (Kingma and Ba 2015, arXiv:1412.6980)."""

    name: Literal["adam"] = "adam"
    lr: Positive
    betas: tuple[Beta, Beta] = (0.9, 0.999)
    weight_decay: Annotated[float, Field(ge=0)]


class AdamW(Section):
    """Adam with decoupled weight decay (Loshchilov and Hutter 2019, arXiv:1711.05101)."""

    name: Literal["adamw"] = "adamw"
    lr: Positive
    betas: tuple[Beta, Beta] = (0.9, 0.999)
    weight_decay: Annotated[float, Field(ge=0)]


Optimizer = Annotated[SGD | Adam | AdamW, Field(discriminator="name")]


class ConstantRate(Section):
    """The learning rate stays as it is."""

    name: Literal["constant"] = "constant"


class OneCycle(Section):
    """Up and down once over the whole training (Smith and Topin 2018, arXiv:1708.07120); LR is the peak."""

    name: Literal["onecycle"] = "onecycle"

    warmup_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.3
    """Share of the steps in which the rate rises."""


class ReduceOnPlateau(Section):
    """Multiply the rate by `factor` when the validation loss has not fallen for `patience` epochs."""

    name: Literal["reduceonplateau"] = "reduceonplateau"

    factor: Annotated[float, Field(gt=0, lt=1)] = 0.5
    patience: Annotated[int, Field(ge=0)]
    min_lr: Annotated[float, Field(ge=0)] = 0.0


class WarmupCosine(Section):
    """Linear rise over the first epochs, then half a cosine down to `min_lr` (Loshchilov and Hutter 2017, arXiv:1608.03983)."""

    name: Literal["warmupcosine"] = "warmupcosine"

    warmup_epochs: Annotated[int, Field(ge=0)]
    min_lr: Annotated[float, Field(ge=0)] = 0.0
    decay_fraction: Annotated[float, Field(gt=0, le=1)] = 1.0
    """The cosine takes this last share of the training; before it the rate is constant."""


ScheduleShape = Annotated[ConstantRate | OneCycle | ReduceOnPlateau | WarmupCosine, Field(discriminator="name")]


class Schedule(Section):
    """TRAIN.LR_SCHEDULER: the learning rate over time."""

    name: Literal["", "reduceonplateau", "warmupcosine", "onecycle"] | None = None
    """Empty text: constant. Left out: decided."""

    min_lr: Annotated[float, Field(ge=-1)] = -1.0
    """Lowest rate of reduceonplateau and warmupcosine. -1: not set (0)."""

    reduceonplateau_factor: Annotated[float, Field(gt=0, lt=1)] = 0.5
    """What reduceonplateau multiplies the rate by."""

    reduceonplateau_patience: Annotated[int, Field(ge=-1)] = -1
    """Epochs without improvement before the rate falls. -1: a third of TRAIN.PATIENCE, at least 1; 5 without one."""

    warmup_cosine_decay_epochs: Annotated[int, Field(ge=-1)] = -1
    """Epochs in which warmupcosine rises. -1: a tenth of TRAIN.EPOCHS, at least 1."""

    cosine_decay_fraction: Annotated[float, Field(ge=-1, le=1)] = -1.0
    """Last share of the training in which the cosine falls. -1: all after the rise."""


class Train(Section):
    """TRAIN: training."""

    enable: bool = False
    """Train."""

    optimizer: Literal["SGD", "ADAM", "ADAMW"] | None = None
    """Optimizer. Left out: ADAMW."""

    lr: Positive | None = None
    """Learning rate (the peak of onecycle). Left out: 0.001 for ADAM and ADAMW, with MAX_MINUTES 0.005; 0.01 for SGD."""

    opt_betas: tuple[Beta, Beta] = (0.9, 0.999)
    """Momentum terms of ADAM and ADAMW."""

    w_decay: Annotated[float, Field(ge=0)] = 0.02
    """Weight decay; not applied to biases and normalisation layers."""

    batch_size: Annotated[int, Field(ge=1)] | None = None
    """Patches per step and process. Left out: decided from the size of the patch."""

    epochs: Annotated[int, Field(ge=1)] | None = None
    """Passes over the training samples. Left out: decided."""

    max_minutes: Annotated[float, Field(gt=0)] | None = None
    """Minutes from the start of the run to the trained network, reading and planning included. The number of epochs and the
    learning rate follow the clock, so that the schedule ends when the time does. With EPOCHS given too, whichever comes first.
    Left out: EPOCHS decide."""

    quality: Literal["fast", "standard", "best"] = "standard"
    """How long a training may take where EPOCHS and MAX_MINUTES are left out: about 500, 1500 or 6000 steps; of `crista train` on
    two folders 5, 20 or 120 minutes."""

    ema: bool | None = None
    """Validate and keep a moving average of the weights over the last twentieth of the steps. Left out: decided."""

    grow_patches: bool | None = None
    """Patches of half the length in the first two fifths of a training with MAX_MINUTES, so that it takes more steps. Left out:
    where few steps of whole ones fit into the time; patches stay as DATA.PATCH_SIZE says where that is given."""

    patience: Annotated[int, Field(ge=-1)] = -1
    """Stop when the validation loss (a moving average over epochs) has not fallen for so many epochs. -1: train all epochs.
    0 is refused. With MAX_MINUTES an epoch can be a part of the time (5 to 25 in all): then the log says what is counted."""

    accum_iter: Annotated[int, Field(ge=1)] = 1
    """Steps whose gradients are summed before one update; the batch is that many times larger."""

    gradient_clip_norm: Annotated[float, Field(ge=0)] = 0.0
    """Largest norm of the gradient; 0: no clipping."""

    metrics: tuple[Literal["iou", "jaccard_index"], ...] = ("iou",)
    """Measured on the validation patches at each epoch; both names mean intersection over union."""

    amp: bool | None = None
    """Mixed precision. Left out: on a GPU with tensor cores, and on a processor with bfloat16 (AVX512-BF16, AMX)."""

    verbose: bool = False
    """Accepted; log.txt always holds every line."""

    lr_scheduler: Schedule = Schedule()
    """The learning rate over time."""

    @model_validator(mode="after")
    def _check_patience(self) -> Train:
        if self.patience == 0:
            raise ValueError(
                "PATIENCE 0 would end the training after its first epoch; -1 trains all epochs, and 1 ends it with the first "
                "epoch that is no better than the best"
            )
        return self

    @model_validator(mode="after")
    def _check_schedule(self) -> Train:
        warmup = self.lr_scheduler.warmup_cosine_decay_epochs
        if self.epochs is not None and warmup > self.epochs:
            raise ValueError(f"LR_SCHEDULER.WARMUP_COSINE_DECAY_EPOCHS {warmup} is beyond EPOCHS {self.epochs}")
        return self
