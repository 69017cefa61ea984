"""Overlap measures of a confusion matrix (rows truth, columns prediction), per class and in one number."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Confusion = NDArray[np.integer[Any]]
Scores = NDArray[np.float64]

ABSENT_CLASS_RULE = (
    "A class that is neither in the label nor in the prediction has no score and is left out of means over classes; an "
    "image without any foreground, predicted as such, has a foreground IoU and Dice of 1."
)


def iou(confusion: Confusion) -> Scores:
    """Intersection over union of each class: TP / (TP + FP + FN), (K,); NaN for a class that is in neither (Jaccard
    1912)."""
    hits, label, prediction = _totals(confusion)
    return _ratio(hits, label + prediction - hits, label + prediction > 0)


def dice(confusion: Confusion) -> Scores:
    """2·TP / (2·TP + FP + FN) of each class, (K,); NaN for a class that is in neither (Dice 1945,
    doi:10.2307/1932409)."""
    hits, label, prediction = _totals(confusion)
    return _ratio(2 * hits, label + prediction, label + prediction > 0)


def precision(confusion: Confusion) -> Scores:
    """TP / (TP + FP) of each class, (K,); 0 for a class that is in the label but never predicted, NaN if it is in
    neither."""
    hits, label, prediction = _totals(confusion)
    return _ratio(hits, prediction, label + prediction > 0)


def recall(confusion: Confusion) -> Scores:
    """TP / (TP + FN) of each class, (K,); 0 for a class that is predicted but not in the label, NaN if it is in
    neither."""
    hits, label, prediction = _totals(confusion)
    return _ratio(hits, label, label + prediction > 0)


def accuracy(confusion: Confusion) -> float:
    """Fraction of the voxels whose class is right; NaN if no voxel was counted."""
    total = int(confusion.sum())
    return float(np.trace(confusion)) / total if total else float("nan")


def foreground_iou(confusion: Confusion) -> float:
    """Mean IoU of the classes but the background, over those in the label or the prediction; for two classes the IoU
    of class 1.

    1 where both are all background (see ABSENT_CLASS_RULE); NaN if no voxel was counted.
    """
    return _foreground_mean(confusion, iou(confusion))


def foreground_dice(confusion: Confusion) -> float:
    """Mean Dice of the classes but the background, by the rules of `foreground_iou`."""
    return _foreground_mean(confusion, dice(confusion))


def biapy_iou(confusion: Confusion) -> float:
    """The number that BiaPy 3 calls "Foreground IoU", for comparison with its results.

    Two classes: IoU of class 1, and 0 where label and prediction are both all background. More classes: mean over the
    classes in the label or the prediction, *background included*. 0 if no voxel was counted.
    """
    scores = iou(confusion)
    if len(scores) == 2:
        scores = scores[1:]
    present = scores[~np.isnan(scores)]
    return float(present.mean()) if present.size else 0.0


@dataclass(frozen=True)
class ClassScores:
    """All measures of one class; NaN (not a number) where the class is in neither label nor prediction."""

    name: str
    iou: float
    dice: float
    precision: float
    recall: float
    voxels: int
    """Voxels of the class in the label."""


def compute_class_scores(confusion: Confusion, names: tuple[str, ...]) -> tuple[ClassScores, ...]:
    """One row per class, background first; `names` has one entry per class."""
    scores = np.stack([iou(confusion), dice(confusion), precision(confusion), recall(confusion)], axis=1).tolist()
    voxels = confusion.sum(axis=1).tolist()
    return tuple(
        ClassScores(name, iou=a, dice=b, precision=c, recall=d, voxels=count)
        for name, (a, b, c, d), count in zip(names, scores, voxels, strict=True)
    )


def _totals(confusion: Confusion) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Voxels per class: right, in the label, in the prediction."""
    counts = np.asarray(confusion, dtype=np.int64)
    return counts.diagonal(), counts.sum(axis=1), counts.sum(axis=0)


def _ratio(part: NDArray[np.int64], whole: NDArray[np.int64], defined: NDArray[np.bool_]) -> Scores:
    """part / whole; 0 where the whole is 0, NaN where it is not defined."""
    scores = np.where(defined, 0.0, np.nan)
    np.divide(part, whole, out=scores, where=whole > 0)
    return scores


def _foreground_mean(confusion: Confusion, scores: Scores) -> float:
    if not confusion.any():
        return float("nan")
    present = scores[1:][~np.isnan(scores[1:])]
    return float(present.mean()) if present.size else 1.0
