"""Evaluate: label images against label images, without any network."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from crista.errors import DataError, Problem
from crista.images.coding import decide_coding
from crista.images.labels import LabelCoding, read_label, summarise_label
from crista.images.listing import list_images
from crista.images.open import open_image
from crista.images.pairing import pair_files
from crista.inference.measure import iter_blocks
from crista.metrics import compute_confusion, iou, summarise
from crista.plan.events import Event, ImageFinished, Said, StageStarted, Warned


@dataclass(frozen=True)
class Evaluation:
    """How well some label images agree with the true ones."""

    names: tuple[str, ...]
    """One per image."""
    confusions: tuple[NDArray[np.int64], ...]
    """(K, K) counts per image, rows truth."""
    summary: Mapping[str, float]
    """Means over images and pooled values, see `crista.metrics.summarise`."""

    @property
    def pooled(self) -> NDArray[np.int64]:
        """Counts over all images."""
        total: NDArray[np.int64] = np.sum(self.confusions, axis=0)
        return total

    @property
    def class_iou(self) -> tuple[float, ...]:
        """IoU of each class over all pixels; NaN for a class that is nowhere."""
        return tuple(float(value) for value in iou(self.pooled))


def evaluate_folders(
    labels: Path, predictions: Path, *, num_classes: int | None = None, ignore_index: int | None = None
) -> Generator[Event, None, Evaluation]:
    """Compare two folders (or files) of label images, paired by name.

    Parameters
    ----------
    labels, predictions : true and predicted label images
    num_classes : background included; None: counted in both folders
    ignore_index : value of true pixels that are not measured

    Raises
    ------
    DataError
        If the files do not pair, differ in shape, or hold no classes.
    """
    pairs, notices = pair_files(list_images(predictions), list_images(labels))
    for notice in notices:
        yield Said(notice)
    opened = [(open_image(p, is_label=True), open_image(t, is_label=True)) for p, t in pairs]
    problems = [
        Problem(str(predicted.path), f"has shape {predicted.spatial_shape}, the label image {true.path} {true.spatial_shape}")
        for predicted, true in opened
        if predicted.spatial_shape != true.spatial_shape
    ]
    summaries = [(image.path, summarise_label(image)) for pair in opened for image in pair]
    decision = decide_coding(summaries, num_classes=num_classes, ignore_index=ignore_index, where=str(labels))
    problems.extend(decision.problems)
    if problems:
        raise DataError("with the label images", problems)
    assert decision.coding is not None
    for warning in decision.warnings:
        yield Warned(str(warning))
    yield StageStarted("evaluate", len(opened))
    confusions = []
    for index, (predicted, true) in enumerate(opened, 1):
        counts = np.zeros((decision.coding.num_classes,) * 2, np.int64)
        for block in iter_blocks(true.spatial_shape):
            counts += compute_confusion(
                read_label(true, decision.coding, block),
                read_label(predicted, _without_ignore(decision.coding), block),
                num_classes=decision.coding.num_classes,
                ignore_index=ignore_index,
            )
        confusions.append(counts)
        yield ImageFinished(true.name, index, len(opened), summarise([counts]))
    names = tuple(true.name for _, true in opened)
    return Evaluation(names, tuple(confusions), summarise(confusions))


def _without_ignore(coding: LabelCoding) -> LabelCoding:
    """A prediction has no ignored pixels."""
    return LabelCoding(coding.num_classes, None, coding.mapping)
