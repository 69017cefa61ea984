"""Events: what happens in a run, as frozen values.

Training, inference and the workflow yield them. Progress bars, logs, tables, charts and windows are consumers; nobody who
computes knows who listens.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Event:
    """Base of all events."""


@dataclass(frozen=True)
class Said(Event):
    """One line for the log: a decision, a device, a notice."""

    text: str


@dataclass(frozen=True)
class Warned(Event):
    """Something the user should know but that does not stop the run."""

    text: str


@dataclass(frozen=True)
class StageStarted(Event):
    """A stage of the run begins: ``check``, ``plan``, ``train``, ``predict``, ``evaluate``."""

    stage: str
    total: int = 0
    """Number of steps, epochs or images that follow; 0 if unknown."""


@dataclass(frozen=True)
class TrainingStarted(Event):
    """Training starts or goes on."""

    history: tuple[Mapping[str, float], ...]
    """Rows of the epochs that are already done; empty for a new training."""
    num_epochs: int


@dataclass(frozen=True)
class StepFinished(Event):
    """One optimizer step."""

    epoch: int
    step: int
    num_steps: int
    """Steps of this epoch."""


@dataclass(frozen=True)
class EpochFinished(Event):
    """One pass over the training samples and the validation after it."""

    epoch: int
    """From 1."""
    num_epochs: int
    metrics: Mapping[str, float] = field(default_factory=dict)
    """One row of the training log: ``loss``, ``val_loss``, ``val_iou``, ``lr``, ``seconds``,
    ``steps_per_second``, ``data_wait_percent`` (of the time of the steps)…"""
    is_best: bool = False


@dataclass(frozen=True)
class CheckpointSaved(Event):
    """A checkpoint was written and renamed to its final name."""

    path: Path


@dataclass(frozen=True)
class TrainingFinished(Event):
    """Training has ended."""

    reason: str
    """In words: ``all epochs are done``, ``already trained``, ``stopped after epoch 3 of 9; …``."""
    best_checkpoint: Path


@dataclass(frozen=True)
class TileFinished(Event):
    """One tile of an image was predicted."""

    name: str
    tile: int
    num_tiles: int


@dataclass(frozen=True)
class ImageFinished(Event):
    """One image was predicted, written and measured."""

    name: str
    index: int
    num_images: int
    metrics: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class FileWritten(Event):
    """A result is complete under its final name."""

    path: Path
    what: str


@dataclass(frozen=True)
class Measured(Event):
    """Figures over the whole test set."""

    metrics: Mapping[str, float]
