"""Outcome: the measurement of a test set, as tables and as figures over all images."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import fsum, nan
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from crista.images.listing import is_hidden
from crista.images.wording import list_files
from crista.inference.record import ImageRecord
from crista.metrics import (
    ABSENT_CLASS_RULE,
    DEFINITIONS,
    FOREGROUND,
    INTERVAL_RULE,
    Estimate,
    ImageCounts,
    biapy_iou,
    dice,
    estimate,
    find_estimate,
    foreground_dice,
    foreground_iou,
    foreground_nsd,
    iou,
    nsd,
    precision,
    recall,
)
from crista.metrics.estimates import Over
from crista.plan.events import Event, FileWritten, Said, Warned
from crista.plan.plan import Plan
from crista.results.run_folder import RunFolder
from crista.results.tables import write_confusion, write_estimates, write_runs_table, write_test_metrics

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
    estimates: Mapping[str, tuple[Estimate, ...]] = field(default_factory=dict)
    """Figures over all images with their intervals, per stage."""


def measure(records: Sequence[ImageRecord], plan: Plan) -> Measurement:
    """Figures of each image and over all of them; all empty where there are no label images."""
    rows = tuple(_row(record, plan) for record in records)
    columns = list(dict.fromkeys(key for row in rows for key in row if key != "file"))
    mean = {}
    for column in columns:
        values = [float(row[column]) for row in rows if column in row and np.isfinite(float(row[column]))]
        if values:
            mean[column] = fsum(values) / len(values)
    pooled: dict[str, NDArray[np.int64]] = {}
    for record in records:
        for stage, counts in record.confusions.items():
            pooled[stage] = pooled.get(stage, 0) + counts
    estimates = {stage: estimate(counts_of(records, stage), plan.classes.names) for stage in pooled}
    return Measurement(rows, mean, pooled, _summary(mean, estimates, plan), estimates)


def counts_of(records: Sequence[ImageRecord], stage: str) -> list[ImageCounts]:
    """What each image that has the stage contributes to its figures."""
    return [
        ImageCounts(record.confusions[stage], record.boundaries.get(stage)) for record in records if stage in record.confusions
    ]


def _row(record: ImageRecord, plan: Plan) -> dict[str, str | float]:
    row: dict[str, str | float] = {"file": record.name}
    if record.patch_iou is not None:
        row["patch_iou"] = record.patch_iou
    for stage, counts in record.confusions.items():
        if not counts.any():
            continue  # all of it without annotation: left out of every mean, as in `summarise` and `estimate`
        row[f"{stage}_iou"] = foreground_iou(counts)
        row[f"{stage}_dice"] = foreground_dice(counts)
        for measure_name, scores in CLASS_SCORES.items():
            for name, value in zip(plan.classes.names, scores(counts), strict=True):
                row[f"{stage}_{measure_name}_{name}"] = float(value)
        if stage in record.boundaries:
            row[f"{stage}_nsd"] = foreground_nsd(record.boundaries[stage])
            for name, value in zip(plan.classes.names, nsd(record.boundaries[stage]), strict=True):
                row[f"{stage}_nsd_{name}"] = float(value)
        row[f"{stage}_biapy_iou"] = biapy_iou(counts)
    return row


def _summary(mean: Mapping[str, float], estimates: Mapping[str, Sequence[Estimate]], plan: Plan) -> dict[str, float]:
    summary: dict[str, float] = {}
    if "patch_iou" in mean:
        summary["Foreground IoU per patch (mean)"] = mean["patch_iou"]
    for stage, found in estimates.items():
        ours, theirs = STAGES[stage]
        summary[f"Foreground IoU, {ours} (mean over images)"] = _value(found, "iou", FOREGROUND, "images")
        summary[f"Foreground IoU, {ours} (all pixels pooled)"] = _value(found, "iou", FOREGROUND, "pixels")
        for name in plan.classes.names:
            summary[f"IoU of {name}, {ours} (all pixels pooled)"] = _value(found, "iou", name, "pixels")
        if any(figure.measure == "nsd" for figure in found):
            summary[f"Foreground NSD, {ours} (mean over images)"] = _value(found, "nsd", FOREGROUND, "images")
        summary[f"BiaPy's Test Foreground IoU ({theirs})"] = mean.get(f"{stage}_biapy_iou", nan)
    return summary


def _value(estimates: Sequence[Estimate], measure: str, of: str, over: Over) -> float:
    found = find_estimate(estimates, measure, of, over)
    return found.value if found is not None else nan


def write_tables(folder: RunFolder, plan: Plan, measurement: Measurement) -> Iterator[Event]:
    """Write the tables, if there was anything to measure; else those of an earlier run go, which measured other predictions."""
    if not measurement.pooled:
        tables = (folder.test_results_metrics, folder.test_results_summary, folder.confusion)
        if any(table.is_file() for table in tables):
            for table in tables:
                table.unlink(missing_ok=True)
            if not write_runs_table(folder):
                folder.runs_summary.unlink(missing_ok=True)
            yield Said("the tables of metrics of an earlier run in this folder are removed: they are of other predictions")
        yield Said("no label images to measure against (DATA.TEST.LOAD_GT is False): no metrics")
        return
    write_test_metrics(folder.test_results_metrics, measurement.rows, measurement.mean)
    yield FileWritten(folder.test_results_metrics, "metrics of each image")
    write_estimates(folder.test_results_summary, measurement.estimates)
    yield FileWritten(folder.test_results_summary, "figures over all images, with intervals")
    write_confusion(folder.confusion, measurement.pooled[main_stage(measurement)], plan.classes.names)
    yield FileWritten(folder.confusion, "confusion matrix")
    for line in describe_intervals(measurement.estimates[main_stage(measurement)]):
        yield Said(line)
    yield Said(INTERVAL_RULE)
    yield Said(ABSENT_CLASS_RULE)
    if write_runs_table(folder):
        yield FileWritten(folder.runs_summary, "table over the runs of this job")


def labels_folder(folder: RunFolder, records: Sequence[ImageRecord]) -> Path:
    """Where the label images of the last stage lie; what an earlier run left in other folders is in none of the records."""
    written = {Path(file).parent.resolve() for record in records for file in record.files}
    stages = (folder.full_post_processing, folder.as_3d_stack, folder.full_image_binarized, folder.per_image_binarized)
    return next((path for path in stages if path.resolve() in written), folder.per_image_binarized)


def warn_of_others(folder: RunFolder, records: Sequence[ImageRecord]) -> Iterator[Warned]:
    """Warn of predictions that an earlier run left beside those of `records`: of other images, or of stages that are not asked
    for any more."""
    written = {(path.parent.resolve(), path.name) for record in records for path in map(Path, record.files)}
    predictions = (
        folder.per_image_binarized,
        folder.per_image,
        folder.full_image_binarized,
        folder.full_image,
        folder.full_post_processing,
        folder.as_3d_stack,
    )
    others: dict[str, list[Path]] = {}
    for place in predictions:
        for path in sorted(place.iterdir()) if place.is_dir() else ():
            is_one = path.suffix in (".tif", ".zarr") and not is_hidden(path)
            if is_one and (place.resolve(), path.name) not in written:
                others.setdefault(place.relative_to(folder.results).as_posix(), []).append(path)
    if others:
        listed = "; ".join(f"{list_files(paths, 3)} in {place}" for place, paths in others.items())
        yield Warned(
            f"{folder.results}: of an earlier run, and perhaps of another network, there still are {listed} -> remove what is "
            "not wanted; predictions of other images are kept apart by their --name or --run_id"
        )


def main_stage(measurement: Measurement) -> str:
    """The stage that stands for the run: the last that was measured (after post-processing, else the full image…)."""
    return next(stage for stage in ("post_processing", "full_image", "stack", "per_image") if stage in measurement.pooled)


def image_stage(records: Sequence[ImageRecord], stage: str) -> str:
    """The stage that stands for each image by itself: `stage`, or their own last one where only the stack of them has that."""
    own = (name for name in (stage, "full_image", "per_image") if any(name in record.confusions for record in records))
    return next(own, stage)


def describe_intervals(estimates: Sequence[Estimate]) -> Iterator[str]:
    """A line for each of the figures that people look at: value and interval, as mean over images and pooled."""
    titles = {measure: DEFINITIONS[measure].title for measure in ("iou", "dice", "nsd")}
    for figure in estimates:
        other = find_estimate(estimates, figure.measure, figure.of, "pixels")
        if figure.over == "images" and other is not None:
            yield f"{titles[figure.measure]} of {figure.of}: {figure} as mean over images, {other} of all pixels pooled"
