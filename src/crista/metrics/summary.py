"""Many images in a few numbers: the mean over images, and the measures of all their voxels pooled."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import fsum

import numpy as np

from crista.metrics.overlap import Confusion, accuracy, biapy_iou, foreground_dice, foreground_iou

IMAGE_SCORES: dict[str, Callable[[Confusion], float]] = {
    "foreground_iou": foreground_iou,
    "foreground_dice": foreground_dice,
    "accuracy": accuracy,
    "biapy_iou": biapy_iou,
}

SUMMARY_KEYS = (*IMAGE_SCORES, *(f"pooled_{key}" for key in IMAGE_SCORES))
"""Keys of `summarise`: each measure as a mean over images, and ``pooled_…`` from the sum of their confusion
matrices."""


def compute_image_scores(confusion: Confusion) -> dict[str, float]:
    """The measures of one image: ``foreground_iou``, ``foreground_dice``, ``accuracy``, ``biapy_iou``, each in [0,
    1]."""
    return {key: score(confusion) for key, score in IMAGE_SCORES.items()}


def summarise(confusions: Sequence[Confusion]) -> dict[str, float]:
    """Measures over images, under SUMMARY_KEYS.

    Means over images give each image the same say, pooled values each voxel. Images without a counted voxel
    (everything ignored) are left out of the means. NaN where there is no image to measure.
    """
    counted = [confusion for confusion in confusions if confusion.any()]
    if not counted:
        return dict.fromkeys(SUMMARY_KEYS, float("nan"))
    per_image = [compute_image_scores(confusion) for confusion in counted]
    means = {key: fsum(scores[key] for scores in per_image) / len(per_image) for key in IMAGE_SCORES}
    pooled = compute_image_scores(np.sum(counted, axis=0))
    return means | {f"pooled_{key}": value for key, value in pooled.items()}
