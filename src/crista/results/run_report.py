"""The report of a run: overlays of its images, and everything that report.html shows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from math import isfinite, prod
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from crista.geometry.axes import Region
from crista.images.image import ImagePair
from crista.images.labels import read_label
from crista.images.open import open_image
from crista.inference.record import ImageRecord
from crista.metrics import ABSENT_CLASS_RULE, dice, iou, precision, recall
from crista.patches.prepare import coding_of
from crista.plan.events import Event, FileWritten
from crista.plan.plan import Plan
from crista.results.outcome import Measurement, main_stage
from crista.results.overlays import OverlayText, draw_overlay
from crista.results.provenance import installed_versions
from crista.results.report import ClassResult, ImageResult, ReportContent, write_report
from crista.results.run_folder import RunFolder
from crista.results.train_log import read_train_log

MAX_OVERLAY_VOXELS = 2**23
"""Of a larger image the middle is drawn, so that it need not be read whole."""


def write_run_report(
    folder: RunFolder,
    plan: Plan,
    pairs: Mapping[str, ImagePair],
    records: Sequence[ImageRecord],
    measurement: Measurement,
) -> Iterator[Event]:
    """Draw the worst, median and best image (the first ones without labels) and write report.html."""
    stage = main_stage(measurement) if measurement.pooled else "per_image"
    rank = f"{stage}_iou"
    overlays = {}
    for record in choose_records(records, stage, measurement):
        pair = pairs.get(record.name)
        if pair is not None:
            overlays[record.name] = _draw(folder, plan, pair, record)
            yield FileWritten(overlays[record.name], "overlay")
    metrics = {str(row["file"]): {k: float(v) for k, v in row.items() if k != "file"} for row in measurement.rows}
    rows = read_train_log(folder.train_log) if folder.train_log.is_file() else []
    counts = measurement.pooled.get(stage)
    seconds = _timings(records, rows)
    content = ReportContent(
        title=folder.job,
        headline=_headline(measurement, stage, seconds, len(records)),
        config_text=folder.config_file.read_text(encoding="utf-8"),
        decisions=plan.decisions,
        charts=sorted(folder.charts.glob(f"{folder.job}_*.png"), key=lambda path: ("loss" not in path.name, path.name)),
        model_plot=folder.model_plot if folder.model_plot.is_file() else None,
        num_epochs=len(rows),
        images=[ImageResult(r.name, metrics.get(r.name, {}), overlays.get(r.name)) for r in records],
        mean=measurement.mean,
        rank_by=rank,
        classes=_classes(plan, counts),
        confusion=counts,
        rules=[ABSENT_CLASS_RULE, _threshold_rule(plan)] if counts is not None else [],
        timings=seconds,
        versions=installed_versions(),
        facts={"seed": str(plan.config.system.seed)},
    )
    yield FileWritten(write_report(folder, content), "report")


def choose_records(records: Sequence[ImageRecord], stage: str, measurement: Measurement, *, count: int = 3) -> list[ImageRecord]:
    """Worst, median and best image by foreground IoU; the first ones where nothing was measured."""
    scores = {str(row["file"]): float(row.get(f"{stage}_iou", float("nan"))) for row in measurement.rows}
    measured = [record for record in records if isfinite(scores.get(record.name, float("nan")))]
    if not measured:
        return list(records[:count])
    ranked = sorted(measured, key=lambda record: scores[record.name])
    places = dict.fromkeys([0, (len(ranked) - 1) // 2, len(ranked) - 1])
    return [ranked[place] for place in places]


def _draw(folder: RunFolder, plan: Plan, pair: ImagePair, record: ImageRecord) -> Path:
    """The overlay of one image, with the label image that stands for it (the last stage that was written)."""
    written = [
        Path(file) for file in record.files if Path(file).parent.name != folder.per_image.name or not plan.save_probabilities
    ]
    shown = [file for file in written if file.parent not in (folder.per_image, folder.full_image)] or written
    region = middle_of(pair.image.spatial_shape, MAX_OVERLAY_VOXELS)
    prediction = open_image(shown[-1], ndim=plan.ndim, is_label=True).read(region)[0]
    label = read_label(pair.label, coding_of(plan), region) if pair.label is not None else None
    path = folder.overlays / f"{record.name}.png"
    text = OverlayText(record.name, plan.classes.names, plan.classes.ignore_index, region[0].start)
    draw_overlay(pair.image.read(region), prediction, label, path, text=text)
    return path


def middle_of(shape: Sequence[int], max_voxels: int) -> Region:
    """All of an image of up to `max_voxels`; else the middle of it: fewer slices first, then less of each."""
    size = list(shape)
    for axis in range(len(size)):
        rest = prod(size) // size[axis]
        size[axis] = max(1, min(size[axis], max_voxels // rest)) if axis < len(size) - 2 else size[axis]
    while prod(size) > max_voxels:
        size[size.index(max(size))] //= 2
    starts = [(n - s) // 2 for n, s in zip(shape, size, strict=True)]
    return tuple(slice(start, start + s) for start, s in zip(starts, size, strict=True))


def _headline(measurement: Measurement, stage: str, seconds: Mapping[str, float], num_images: int) -> dict[str, str]:
    headline = {"images predicted": str(num_images)}
    if measurement.pooled:
        headline = {"foreground IoU (mean over images)": f"{measurement.mean.get(f'{stage}_iou', float('nan')):.4f}", **headline}
    if seconds.get("training"):
        headline["training"] = f"{seconds['training']:.0f} s"
    return headline


def _timings(records: Sequence[ImageRecord], rows: Sequence[Mapping[str, float]]) -> dict[str, float]:
    seconds = {"training": float(sum(row.get("seconds", 0.0) for row in rows))} if rows else {}
    for record in records:
        for stage, value in record.seconds.items():
            name = f"prediction ({stage.replace('_', ' ')})"
            seconds[name] = seconds.get(name, 0.0) + value
    return seconds


def _classes(plan: Plan, counts: NDArray[np.int64] | None) -> list[ClassResult]:
    if counts is None:
        return []
    columns = zip(iou(counts), dice(counts), precision(counts), recall(counts), counts.sum(axis=1), strict=True)
    return [
        ClassResult(name, float(i), float(d), float(p), float(r), int(voxels))
        for name, (i, d, p, r, voxels) in zip(plan.classes.names, columns, strict=True)
    ]


def _threshold_rule(plan: Plan) -> str:
    if plan.classes.num_classes > 2:
        return "The class of a pixel is the one with the highest probability."
    threshold = plan.config.test.threshold
    return f"A pixel is foreground where its probability is above {threshold:g}; the label images and the metrics use the same."
