"""MEASURE: label images -> confusion matrix -> numbers. NumPy only."""

from crista.metrics.boundary import (
    BOUNDARY_RULE,
    TOLERANCE,
    boundary_reach,
    compute_boundary,
    describe_tolerance,
    foreground_nsd,
    near_offsets,
    nsd,
)
from crista.metrics.confusion import compute_confusion
from crista.metrics.definitions import DEFINITIONS, Definition
from crista.metrics.estimates import FOREGROUND, INTERVAL_RULE, Estimate, ImageCounts, estimate, find_estimate, show_score
from crista.metrics.overlap import (
    ABSENT_CLASS_RULE,
    accuracy,
    biapy_iou,
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
    "BOUNDARY_RULE",
    "DEFINITIONS",
    "FOREGROUND",
    "INTERVAL_RULE",
    "SUMMARY_KEYS",
    "TOLERANCE",
    "Definition",
    "Estimate",
    "ImageCounts",
    "accuracy",
    "biapy_iou",
    "boundary_reach",
    "compute_boundary",
    "compute_confusion",
    "compute_image_scores",
    "describe_tolerance",
    "dice",
    "estimate",
    "find_estimate",
    "foreground_dice",
    "foreground_iou",
    "foreground_nsd",
    "iou",
    "near_offsets",
    "nsd",
    "precision",
    "recall",
    "show_score",
    "summarise",
]
