"""Outcome: the measurement of a test set, as tables and as figures over all images."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from crista.inference.record import ImageRecord
from crista.metrics import ABSENT_CLASS_RULE, biapy_iou, dice, foreground_dice, foreground_iou, iou, precision, recall
from crista.plan.events import Event, FileWritten, Said
from crista.plan.plan import Plan
from crista.results.run_folder import RunFolder
from crista.results.tables import write_confusion, write_runs_table, write_test_metrics

STAGES = {
    "per_image": ("reconstructed image", "merge patches"),
    "full_image": ("full image", "per image"),
    "stack": ("as 3D stack", "as 3D stack"),
    "post_processing": ("after post-processing", "post-processing"),
}
"""What each stage is called, by us and by BiaPy."""

CLASS_SCORES = {"iou": iou, "dice": dice, "precision": precision, "recall": recall}
"""Measured for each class."""


@dataclass(frozen=True)
class Measurement:
    """All figures of a test set."""

    rows: tuple[Mapping[str, str | float], ...]
    """One per image."""
    mean: Mapping[str, float]
    """Mean over the images of each column of the rows."""
    pooled: Mapping[str, NDArray[np.int64]]
    """Confusion matrix over all images, per stage."""
    summary: Mapping[str, float]
    """The figures that are printed, each under a name that says what it is."""


def measure(records: Sequence[ImageRecord], plan: Plan) -> Measurement:
    """Figures of each image and over all of them; all empty where there are no label images."""
    rows = tuple(_row(record, plan) for record in records)
    columns = list(dict.fromkeys(key for row in rows for key in row if key != "file"))
    mean = {}
    for column in columns:
        values = [float(row[column]) for row in rows if column in row and np.isfinite(float(row[column]))]
        if values:
            mean[column] = float(np.mean(values))
    pooled: dict[str, NDArray[np.int64]] = {}
    for record in records:
        for stage, counts in record.confusions.items():
            pooled[stage] = pooled.get(stage, 0) + counts
    return Measurement(rows, mean, pooled, _summary(mean, pooled, plan))


def _row(record: ImageRecord, plan: Plan) -> dict[str, str | float]:
    row: dict[str, str | float] = {"file": record.name}
    if record.patch_iou is not None:
        row["patch_iou"] = record.patch_iou
    for stage, counts in record.confusions.items():
        row[f"{stage}_iou"] = foreground_iou(counts)
        row[f"{stage}_dice"] = foreground_dice(counts)
        for measure_name, scores in CLASS_SCORES.items():
            for name, value in zip(plan.classes.names, scores(counts), strict=True):
                row[f"{stage}_{measure_name}_{name}"] = float(value)
        row[f"{stage}_biapy_iou"] = biapy_iou(counts)
    return row


def _summary(mean: Mapping[str, float], pooled: Mapping[str, NDArray[np.int64]], plan: Plan) -> dict[str, float]:
    summary: dict[str, float] = {}
    if "patch_iou" in mean:
        summary["Foreground IoU per patch (mean)"] = mean["patch_iou"]
    for stage, counts in pooled.items():
        ours, theirs = STAGES[stage]
        summary[f"Foreground IoU, {ours} (mean over images)"] = mean.get(f"{stage}_iou", float("nan"))
        summary[f"Foreground IoU, {ours} (all pixels pooled)"] = foreground_iou(counts)
        for name, value in zip(plan.classes.names, iou(counts), strict=True):
            summary[f"IoU of {name}, {ours} (all pixels pooled)"] = float(value)
        summary[f"BiaPy's Test Foreground IoU ({theirs})"] = mean[f"{stage}_biapy_iou"]
    return summary


def write_tables(folder: RunFolder, plan: Plan, measurement: Measurement) -> Iterator[Event]:
    """Write the tables, if there was anything to measure."""
    if not measurement.pooled:
        yield Said("no label images to measure against (DATA.TEST.LOAD_GT is False): no metrics")
        return
    write_test_metrics(folder.test_results_metrics, measurement.rows, measurement.mean)
    yield FileWritten(folder.test_results_metrics, "metrics of each image")
    write_confusion(folder.confusion, measurement.pooled[main_stage(measurement)], plan.classes.names)
    yield FileWritten(folder.confusion, "confusion matrix")
    yield Said(ABSENT_CLASS_RULE)
    if write_runs_table(folder):
        yield FileWritten(folder.runs_summary, "table over the runs of this job")


def main_stage(measurement: Measurement) -> str:
    """The stage that stands for the run: the last that was measured (after post-processing, else the full image…)."""
    return next(stage for stage in ("post_processing", "full_image", "stack", "per_image") if stage in measurement.pooled)
