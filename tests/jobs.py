"""Jobs of a second for tests: folders of tiny images, their configurations, and readers of what a run leaves behind."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from crista.geometry.spacing import Spacing
from crista.images.open import open_image
from crista.images.write import write_image
from crista.plan.events import Event, Said, Warned
from crista.training.checkpoint import load_checkpoint
from crista.workflow.api import Outcome, run
from tests.conftest import draw_blobs, merge, tiny_config

Shape = tuple[int, ...]


def write_pairs(
    folder: Path,
    shapes: Sequence[Shape],
    *,
    num_classes: int = 2,
    channels: int = 1,
    spacing: Sequence[float] | None = None,
    seed: int = 0,
    extension: str = ".tif",
) -> Path:
    """Images in `folder`/x and label images in `folder`/y, one per shape; returns `folder`."""
    rng = np.random.default_rng(seed)
    given = Spacing(tuple(spacing)) if spacing is not None else None
    for index, shape in enumerate(shapes):
        image, label = draw_blobs(shape, num_classes, rng)
        axes = "ZYX"[-len(shape) :]
        if channels > 1:
            image = np.stack([image // (c + 1) for c in range(channels)], axis=-1)
        write_image(folder / "x" / f"{index:02d}{extension}", image, axes + ("C" if channels > 1 else ""), spacing=given)
        write_image(folder / "y" / f"{index:02d}{extension}", label, axes, spacing=given)
    return folder


def write_data(folder: Path, *, shape: Shape = (48, 48), train: int = 4, test: int = 2, **settings: Any) -> Path:
    """`train` and `test` pairs of one shape in `folder`; returns `folder`."""
    write_pairs(folder / "train", [shape] * train, seed=settings.pop("seed", 0), **settings)
    write_pairs(folder / "test", [shape] * test, seed=99, **settings)
    return folder


def job(data: Path, *changes: dict[str, Any], ndim: int = 2, num_classes: int = 2) -> dict[str, Any]:
    """The tiny configuration on `data`, with `changes` merged in one after the other."""
    tree = tiny_config(data, ndim=ndim, num_classes=num_classes)
    for change in changes:
        merge(tree, change)
    return tree


def predict_only(checkpoint: Path) -> dict[str, Any]:
    """The change that turns a job into one that only predicts with `checkpoint`."""
    return {
        "TRAIN": {"ENABLE": False},
        "MODEL": {"LOAD_CHECKPOINT": True},
        "PATHS": {"CHECKPOINT_FILE": str(checkpoint)},
    }


def run_and_listen(config: Any, where: Path, **settings: Any) -> tuple[Outcome, list[str]]:
    """Run a job; returns its outcome and the lines that it said."""
    heard: list[Event] = []
    outcome = run(config, result_dir=where, name=settings.pop("name", "job"), on_event=heard.append, **settings)
    return outcome, [event.text for event in heard if isinstance(event, Said | Warned)]


def table(path: Path) -> dict[str, dict[str, str]]:
    """Rows of a CSV file by their first cell."""
    with path.open(newline="") as file:
        return {next(iter(row.values())): row for row in csv.DictReader(file)}


def pixels(path: Path, ndim: int) -> NDArray[Any]:
    """C(Z)YX of a file."""
    return open_image(path, ndim=ndim).read()


def labels(path: Path, ndim: int) -> NDArray[Any]:
    """(Z)YX of a label image."""
    return open_image(path, ndim=ndim, is_label=True).read()[0]


def foreground_iou(truth: NDArray[Any], predicted: NDArray[Any]) -> float:
    """By counting sets: mean over the classes from 1 that occur; 1 where none does."""
    scores = []
    for number in sorted((set(np.unique(truth)) | set(np.unique(predicted))) - {0}):
        a, b = truth == number, predicted == number
        scores.append((a & b).sum() / (a | b).sum())
    return float(np.mean(scores)) if scores else 1.0


def weights_of(path: Path) -> dict[str, torch.Tensor]:
    """Tensors of a checkpoint."""
    return dict(load_checkpoint(path).weights)


def same_weights(one: Path, other: Path) -> bool:
    """Whether two checkpoints hold equal tensors, bit for bit."""
    a, b = weights_of(one), weights_of(other)
    return a.keys() == b.keys() and all(torch.equal(value, b[name]) for name, value in a.items())


def plan_of(outcome: Outcome) -> dict[str, Any]:
    """plan.json of a run."""
    loaded: dict[str, Any] = json.loads(outcome.folder.plan_json.read_text())
    return loaded


def log_rows(outcome: Outcome) -> list[dict[str, float]]:
    """The training log of a run."""
    with outcome.folder.train_log.open(newline="") as file:
        return [{key: float(value) for key, value in row.items()} for row in csv.DictReader(file)]
