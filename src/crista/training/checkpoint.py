"""Checkpoints: plain tensors and JSON, written aside and renamed, loaded without pickle."""

from __future__ import annotations

import os
import pickle
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO, cast
from zipfile import BadZipFile

import torch
from pydantic import ValidationError
from torch import nn

from crista.errors import CheckpointError
from crista.images.atomic import aside
from crista.plan.plan import Plan

FORMAT = "crista checkpoint"
VERSION = 1


@dataclass(frozen=True)
class GuardRecord:
    """What the guards of a training have done and seen (`crista.training.guards`)."""

    rollbacks: tuple[int, ...] = ()
    """Epochs that were begun again, each time with half the learning rate from there on."""
    only_class: tuple[int, ...] = ()
    """Per finished epoch the one class that all validation pixels were predicted as; -1 where there were several."""

    @property
    def rate_factor(self) -> float:
        """What the learning rates of the schedule are multiplied by."""
        return float(0.5 ** len(self.rollbacks))


@dataclass(frozen=True)
class Checkpoint:
    """A network and how far its training is."""

    plan: Plan
    """Everything needed to build the network and to prepare its input."""
    weights: Mapping[str, torch.Tensor]
    epoch: int
    """Finished epochs."""
    history: tuple[Mapping[str, float], ...] = ()
    """One row of the training log per finished epoch."""
    optimizer: Mapping[str, Any] | None = None
    """State of the optimizer; only in the checkpoint to resume from."""
    scaler: Mapping[str, Any] | None = None
    """State of the loss scaling of mixed precision."""
    average: Mapping[str, torch.Tensor] | None = None
    """Moving average of the weights; only in the checkpoint to resume from (`weights` of the best one are the average)."""
    finished: bool = False
    """Whether training ended by itself (not killed)."""
    data_key: str = ""
    """Identifies the training data and the weights that it started from."""
    guards: GuardRecord = GuardRecord()
    """Of the epochs so far."""
    class_shares: tuple[float, ...] | None = None
    """How frequent the network was told that the classes are (`crista.training.class_shares`); None if it was not."""
    class_shift: tuple[float, ...] | None = None
    """What was added to the logit of each class for that; who trains on from here on sparse labels takes it back."""


def save_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Write `checkpoint`; a kill at any moment leaves the old file or the new one, never half of one."""
    content = {
        "format": FORMAT,
        "version": VERSION,
        "plan": checkpoint.plan.model_dump_json(by_alias=True),
        "weights": dict(checkpoint.weights),
        "epoch": checkpoint.epoch,
        "history": [dict(row) for row in checkpoint.history],
        "optimizer": checkpoint.optimizer,
        "scaler": checkpoint.scaler,
        "average": None if checkpoint.average is None else dict(checkpoint.average),
        "finished": checkpoint.finished,
        "data_key": checkpoint.data_key,
        "guards": {name: list(values) for name, values in vars(checkpoint.guards).items()},
        "class_shares": None if checkpoint.class_shares is None else list(checkpoint.class_shares),
        "class_shift": None if checkpoint.class_shift is None else list(checkpoint.class_shift),
    }
    with aside(path) as part, part.open("wb") as file:
        _save(content, file, path)
        file.flush()
        os.fsync(file.fileno())


def _save(content: dict[str, Any], file: BinaryIO, path: Path) -> None:
    """`torch.save`; of a full disk PyTorch says something about positions in a file, and keeps the reason behind it."""
    try:
        torch.save(content, file)
    except RuntimeError as error:
        reason: BaseException | None = error
        while reason is not None and not isinstance(reason, OSError):
            reason = reason.__context__
        if reason is None:
            raise
        raise OSError(reason.errno, reason.strerror, str(path)) from error


def load_checkpoint(path: Path, *, device: torch.device | str = "cpu") -> Checkpoint:
    """Read a checkpoint of crista; nothing in the file is executed.

    Raises
    ------
    CheckpointError
        If the file is missing, damaged, of another program, or of a newer format.
    """
    if not path.is_file():
        raise CheckpointError(f"{path}: no such checkpoint. Train first, or set PATHS.CHECKPOINT_FILE to an existing file")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of odd pickles, which are refused below
            content = torch.load(path, map_location=device, weights_only=True)
    except (RuntimeError, EOFError, BadZipFile, OSError, KeyError, pickle.UnpicklingError) as error:
        reason = str(error).splitlines()[0] if len(str(error)) > 4 else type(error).__name__
        raise CheckpointError(
            f"{path}: not a readable checkpoint ({reason}). It may be damaged, or hold Python objects, which crista "
            "never unpickles; use another checkpoint or train again"
        ) from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise CheckpointError(f"{path}: not a checkpoint written by crista")
    if content.get("version", 0) > VERSION:
        raise CheckpointError(f"{path}: format version {content['version']} is newer than this crista; update crista")
    try:
        return _checkpoint_of(content)
    except ValidationError as error:
        raise CheckpointError(f"{path}: its plan cannot be read by this version of crista: {error}") from error
    except KeyError as error:
        raise CheckpointError(f"{path}: the part {error} is missing; use another checkpoint or train again") from error


def load_network(path: Path, *, device: torch.device | str = "cpu") -> Checkpoint:
    """`load_checkpoint` for whoever predicts with a network or starts from it: its weights are those that were validated.

    The checkpoint to resume from holds the weights of the last step, and their average, which was validated, apart.
    """
    checkpoint = load_checkpoint(path, device=device)
    if checkpoint.average is None:
        return checkpoint
    return replace(checkpoint, weights={**checkpoint.weights, **checkpoint.average}, average=None)


def _checkpoint_of(content: Mapping[str, Any]) -> Checkpoint:
    return Checkpoint(
        plan=Plan.model_validate_json(content["plan"]),
        weights=cast("Mapping[str, torch.Tensor]", content["weights"]),
        epoch=content["epoch"],
        history=tuple(content["history"]),
        optimizer=content["optimizer"],
        scaler=content["scaler"],
        average=content.get("average"),
        finished=content["finished"],
        data_key=content.get("data_key", ""),
        guards=GuardRecord(**{name: tuple(values) for name, values in content.get("guards", {}).items()}),
        class_shares=None if content.get("class_shares") is None else tuple(content["class_shares"]),
        class_shift=None if content.get("class_shift") is None else tuple(content["class_shift"]),
    )


def load_weights(model: nn.Module, weights: Mapping[str, torch.Tensor], *, skip_unmatched: bool, where: str) -> list[str]:
    """Put `weights` into `model`; returns the names of those left out.

    With `skip_unmatched` layers whose name or shape does not fit keep their initial values; otherwise they are an error
    that lists them.
    """
    own = model.state_dict()
    fits = {name: value for name, value in weights.items() if name in own and own[name].shape == value.shape}
    left_out = [name for name in own if name not in fits] + [name for name in weights if name not in own]
    if left_out and not skip_unmatched:
        shown = ", ".join(left_out[:5]) + (f" and {len(left_out) - 5} more" if len(left_out) > 5 else "")
        raise CheckpointError(
            f"{where}: {len(left_out)} layers do not fit this network ({shown}). Use the MODEL and DATA settings that the "
            "checkpoint was trained with, or set MODEL.SKIP_UNMATCHED_LAYERS: True to load the layers that fit"
        )
    model.load_state_dict({**own, **fits})
    return left_out
