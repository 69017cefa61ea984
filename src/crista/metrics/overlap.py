"""Overlap measures of a confusion matrix (rows truth, columns prediction), per class and in one number."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Confusion = NDArray[np.integer[Any]]
Counts = NDArray[np.int64]
Scores = NDArray[np.float64]

ABSENT_CLASS_RULE = (
    "A class that is neither in the label nor in the prediction has no score and is left out of means over classes; an "
    "image without any foreground, predicted as such, has a foreground IoU and Dice of 1."
)


def iou(confusion: Confusion) -> Scores:
    """Intersection over union of each class: TP / (TP + FP + FN), (K,); NaN for a class that is in neither (Jaccard
    1912)."""
    return iou_of(*_totals(confusion))


def dice(confusion: Confusion) -> Scores:
    """2·TP / (2·TP + FP + FN) of each class, (K,); NaN for a class that is in neither (Dice 1945,
    doi:10.2307/1932409)."""
    return dice_of(*_totals(confusion))


def iou_of(hits: Counts, label: Counts, prediction: Counts) -> Scores:
    """IoU from voxels that are right, in the label, and in the prediction, of any equal shapes; NaN where there are none."""
    return _ratio(hits, label + prediction - hits, label + prediction > 0)


def dice_of(hits: Counts, label: Counts, prediction: Counts) -> Scores:
    """Dice from the same counts."""
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
    return _foreground_of(confusion, iou(confusion))


def foreground_dice(confusion: Confusion) -> float:
    """Mean Dice of the classes but the background, by the rules of `foreground_iou`."""
    return _foreground_of(confusion, dice(confusion))


def foreground_mean(scores: Scores, *, empty: float) -> Scores:
    """Mean of scores (…, K) over the classes but the background that have one, (…); `empty` where none has."""
    known = np.isfinite(scores[..., 1:])
    total = np.where(known, scores[..., 1:], 0.0).sum(axis=-1)
    number = known.sum(axis=-1)
    mean: Scores = np.divide(total, number, out=np.full(total.shape, empty), where=number > 0)
    return mean


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


def _totals(confusion: Confusion) -> tuple[Counts, Counts, Counts]:
    """Voxels per class: right, in the label, in the prediction."""
    counts = np.asarray(confusion, dtype=np.int64)
    return counts.diagonal(), counts.sum(axis=1), counts.sum(axis=0)


def _ratio(part: Counts, whole: Counts, defined: NDArray[np.bool_]) -> Scores:
    """part / whole; 0 where the whole is 0, NaN where it is not defined."""
    scores = np.where(defined, 0.0, np.nan)
    np.divide(part, whole, out=scores, where=whole > 0)
    return scores


def _foreground_of(confusion: Confusion, scores: Scores) -> float:
    return float(foreground_mean(scores, empty=1.0)) if confusion.any() else float("nan")
