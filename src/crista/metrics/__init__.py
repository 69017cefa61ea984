"""MEASURE: label images -> confusion matrix -> numbers. NumPy only."""

from crista.metrics.confusion import compute_confusion
from crista.metrics.overlap import (
    ABSENT_CLASS_RULE,
    ClassScores,
    accuracy,
    biapy_iou,
    compute_class_scores,
    dice,
    foreground_dice,
    foreground_iou,
    iou,
    precision,
    recall,
)
from crista.metrics.summary import SUMMARY_KEYS, compute_image_scores, summarise

__all__ = [
    "ABSENT_CLASS_RULE",
    "SUMMARY_KEYS",
    "ClassScores",
    "accuracy",
    "biapy_iou",
    "compute_class_scores",
    "compute_confusion",
    "compute_image_scores",
    "dice",
    "foreground_dice",
    "foreground_iou",
    "iou",
    "precision",
    "recall",
    "summarise",
]
