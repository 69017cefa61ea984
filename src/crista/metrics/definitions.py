"""What each number means, in words: shown by the report and `crista evaluate` beside the number."""

from __future__ import annotations

from dataclasses import dataclass

from crista.metrics.boundary import BOUNDARY_RULE
from crista.metrics.estimates import INTERVAL_RULE
from crista.metrics.overlap import ABSENT_CLASS_RULE


@dataclass(frozen=True)
class Definition:
    """One number that people meet."""

    title: str
    text: str
    formula: str = ""


DEFINITIONS: dict[str, Definition] = {
    "iou": Definition(
        "IoU",
        "Intersection over union (Jaccard): of the pixels that label or prediction give to the class, the share that both do. "
        "0 to 1, 1 is perfect.",
        "TP / (TP + FP + FN)",
    ),
    "dice": Definition(
        "Dice",
        "Like IoU with the shared pixels counted twice; always at least as high. 0 to 1.",
        "2·TP / (2·TP + FP + FN)",
    ),
    "precision": Definition(
        "precision",
        "Of the pixels predicted as the class, the share that is right; 0 where it is in the label and was never predicted.",
        "TP / (TP + FP)",
    ),
    "recall": Definition(
        "recall",
        "Of the pixels labelled as the class, the share that was found; 0 where it was predicted and is not in the label.",
        "TP / (TP + FN)",
    ),
    "nsd": Definition(
        "NSD",
        "Normalised surface Dice, a measure of boundaries: of all edge pixels of the class in label and prediction, the share "
        "that has an edge pixel of the other within the tolerance (Nikolov et al. 2021, doi:10.2196/26151). " + BOUNDARY_RULE,
        "(label edge near prediction's + prediction's near label's) / (both edges)",
    ),
    "accuracy": Definition(
        "accuracy", "Of all pixels that are measured, the share whose class is right; high wherever most is background. 0 to 1."
    ),
    "foreground": Definition(
        "all foreground", "Mean over the classes but the background. " + ABSENT_CLASS_RULE, "with two classes: class 1"
    ),
    "images": Definition(
        "mean over images",
        "Measured in each image by itself, then averaged: each image has the same say. A class is averaged over the images in "
        "which it can be measured.",
    ),
    "pixels": Definition(
        "all pixels pooled", "The counts of all images are added first, then measured once: each pixel has the same say."
    ),
    "interval": Definition("95 % interval", INTERVAL_RULE),
    "voxels": Definition(
        "labelled pixels", "Pixels of the class in the label images; pixels without annotation are not counted."
    ),
    "confusion": Definition(
        "confusion matrix",
        "Rows: what the label says. Columns: what was predicted. Each cell has the pixels, and their share of the row.",
    ),
    "patch_iou": Definition(
        "IoU per patch", "Foreground IoU of each patch of the training's size by itself, averaged over the patches of an image."
    ),
    "biapy_iou": Definition(
        "BiaPy's IoU",
        "The number that BiaPy 3 prints as Test Foreground IoU, for comparison: with two classes the IoU of class 1, but 0 for "
        "an image without foreground; with more, the mean over the classes present, background included.",
    ),
    "uncertainty": Definition(
        "uncertainty",
        "Entropy of the class probabilities, divided by its largest value: 0 where the network is sure, 1 where all classes are "
        "equally likely. It is high at every edge, and says nothing about mistakes the network is sure of. It comes from the "
        "prediction itself, on a grid of pixels (at most one in four), averaged over small cells.",
        "-Σ p·log p / log K",
    ),
    "label_next": Definition(
        "Label these next",
        "The regions in which the network is least sure on average, of about the size it learns from. A label there teaches it "
        "more than one where it is sure. Regions of one image do not overlap.",
    ),
    "errors": Definition(
        "errors",
        "Pixel by pixel, prediction against label: right foreground, missed foreground, foreground that is not there, and "
        "foreground of the wrong class. Grey pixels have no label and are not measured.",
    ),
    "memory": Definition(
        "peak memory",
        "The most memory that the system has on record for this process at the end of the run. crista sets the record back where "
        "it measures what a tile takes, so it can be that of the prediction alone. Worker processes have their own.",
    ),
    "best_epoch": Definition("best epoch", "The epoch whose network is kept: the highest moving average of the validation IoU."),
}
"""Short name -> definition."""
