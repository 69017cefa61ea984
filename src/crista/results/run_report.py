"""The report of a run: gathers what lies in its folder and in its records, and writes report.html and what goes with it."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from math import isfinite
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crista.geometry.spacing import common_spacing
from crista.images.image import ImagePair
from crista.images.wording import command_line, plural
from crista.inference.record import ImageRecord
from crista.metrics import (
    ABSENT_CLASS_RULE,
    FOREGROUND,
    INTERVAL_RULE,
    describe_tolerance,
    find_estimate,
    precision,
    recall,
    show_score,
)
from crista.plan.events import Event, FileWritten
from crista.plan.plan import Plan
from crista.results.log import read_warnings
from crista.results.outcome import STAGES, Measurement, image_stage, main_stage
from crista.results.overlays import ERRORS, GREY, WRONG_CLASS, class_colour
from crista.results.provenance import installed_versions, peak_memory
from crista.results.ranking import label_next_rows
from crista.results.report import (
    ClassResult,
    Column,
    Figure,
    ImageResult,
    ReportContent,
    describe_left_out,
    format_bytes,
    format_duration,
    main_classes,
    write_report,
)
from crista.results.run_folder import RunFolder
from crista.results.run_pictures import build_examples, draw_overlays, how_labelled, rank_images, suggest, suggestion_pictures
from crista.results.style import CLASS_COLOURS
from crista.results.tables import write_rows
from crista.results.train_log import read_train_log
from crista.training.selection import best_epoch, scores

VALIDATION_RULE = (
    "These images were not trained on, but they chose the epoch that is kept, so the figures are a little too good. Images that "
    "nothing was chosen by (DATA.TEST.PATH) give independent ones."
)

FINE_TUNED_RULE = (
    "The training started from another network: whether that one had learnt from them before is not meant by this. Where it is "
    "known that it had, a warning of the training said so."
)

SHARED_RULE = (
    "These images were trained on too, elsewhere in them or as a whole, and they chose the epoch that is kept: the figures "
    "say little about new images. Images that nothing was learnt from (DATA.TEST.PATH) give independent ones."
)

TIMES_RULE = (
    "Prediction: the time of the network, of the filters (post processing), and of writing and measuring, summed over "
    "the images, those that an earlier run predicted included. Several workers spend it side by side."
)

CERTAINTY = "certainty"
"""1 - uncertainty: what a long table of images without labels is cut by."""


@dataclass(frozen=True)
class Circumstances:
    """What neither the folder of a run nor its records tell."""

    device: str
    is_own_network: bool = True
    """Whether the network is the one that was trained in the folder: whether the training log there is its own."""
    was_trained_on: bool = False
    """Whether images that are measured were trained on, in other parts of them or as a whole."""


def write_run_report(
    folder: RunFolder,
    plan: Plan,
    pairs: Mapping[str, ImagePair],
    records: Sequence[ImageRecord],
    measurement: Measurement,
    run: Circumstances,
) -> Iterator[Event]:
    """Draw the worst, median and best image (without labels: by uncertainty), rank what to label next, write report.html."""
    stage = main_stage(measurement) if measurement.pooled else "per_image"
    chosen = rank_images([record for record in records if record.name in pairs], stage, measurement)
    yield from draw_overlays(folder, plan, pairs, [record for _, record, _ in chosen])
    regions = suggest(folder, plan, pairs, records)
    labelled = [how_labelled(pairs[region.name], region.region, plan) for region in regions]
    if regions:
        write_rows(folder.label_next, label_next_rows(regions, labelled))
        yield FileWritten(folder.label_next, "what to label next")
    else:
        folder.label_next.unlink(missing_ok=True)
    rows = read_train_log(folder.train_log) if run.is_own_network and folder.train_log.is_file() else []
    seconds, memory = _timings(records, rows), peak_memory()
    colours, colours_note = class_colours(plan.classes.names, measurement.pooled.get(stage))
    content = ReportContent(
        title=folder.job,
        headline=_headline(measurement, stage, seconds, [record for record in records if record.name in pairs]),
        config_text=folder.config_file.read_text(encoding="utf-8"),
        decisions=plan.decisions,
        notices=read_warnings(folder.log_txt),
        rows=rows,
        best_epoch=best_epoch(scores(rows)) if rows and all("val_loss" in row for row in rows) else None,
        model_plot=folder.model_plot if run.is_own_network and folder.model_plot.is_file() else None,
        examples=build_examples(folder, plan, pairs, chosen),
        class_colours=colours,
        colours_note=colours_note,
        error_colours=_error_colours(plan) if any(pair.label is not None for pair in pairs.values()) else (),
        timings=seconds,
        timings_note=TIMES_RULE if any(record.seconds for record in records) else "",
        memory=format_bytes(memory) if memory else "",
        versions=installed_versions(),
        facts=_facts(plan, run),
        suggestions=suggestion_pictures(pairs, regions, labelled),
        **_numbers(plan, pairs, records, measurement, stage),
        rules=_rules(plan, pairs, records, stage, was_trained_on=run.was_trained_on) if measurement.pooled else (),
    )
    yield FileWritten(write_report(folder, content), "report")


def class_colours(names: Sequence[str], confusion: NDArray[np.int64] | None) -> tuple[list[tuple[str, str]], str]:
    """(name, colour) of the classes but the background, and in words what that does not tell: of many classes some."""
    voxels = [int(count) for count in confusion.sum(axis=1)] if confusion is not None else []
    shown = [k for k in main_classes(voxels, len(names)) if k]
    left_out = describe_left_out(voxels, len(names))
    notes = [f"Named here: of {len(names)} classes {left_out}."] if left_out else []
    if len(names) - 1 > len(CLASS_COLOURS):
        notes.append(f"There are {len(CLASS_COLOURS)} colours: some classes share one.")
    return [(names[k], class_colour(k)) for k in shown], " ".join(notes)


def _facts(plan: Plan, run: Circumstances) -> dict[str, str]:
    return {
        "finished": f"{datetime.now().astimezone():%Y-%m-%d %H:%M}",
        "command": command_line(sys.argv),
        "seed": str(plan.config.system.seed),
        "device": run.device,
    }


def _numbers(
    plan: Plan, pairs: Mapping[str, ImagePair], records: Sequence[ImageRecord], measurement: Measurement, stage: str
) -> dict[str, Any]:
    """The parts of the report with figures of images and classes. A stack of the images is none of them."""
    metrics = {str(row["file"]): {k: float(v) for k, v in row.items() if k != "file"} for row in measurement.rows}
    unsure = {r.name: {"uncertainty": r.uncertainty, CERTAINTY: 1 - r.uncertainty} for r in records if r.uncertainty is not None}
    single = [record for record in records if record.name in pairs]
    images = [ImageResult(r.name, metrics.get(r.name, {}) | unsure.get(r.name, {})) for r in single]
    mean = dict(measurement.mean)
    if unsure:
        mean["uncertainty"] = sum(value["uncertainty"] for value in unsure.values()) / len(unsure)
    counts = measurement.pooled.get(stage)
    if counts is None:
        return {
            "images": images,
            "mean": mean,
            "columns": [Column("uncertainty", "uncertainty", "uncertainty")] if unsure else [],
            "rank_by": CERTAINTY,
            "rank_word": "least sure",
        }
    rates = zip(plan.classes.names, precision(counts), recall(counts), counts.sum(axis=1), strict=True)
    own = image_stage(single, stage)
    return {
        "images": images,
        "mean": mean,
        "columns": _columns(plan, own, counts, has_uncertainty=bool(unsure)),
        "rank_by": f"{own}_iou",
        "classes": [ClassResult(name, float(p), float(r), int(voxels)) for name, p, r, voxels in rates],
        "estimates": measurement.estimates[stage],
        "confusion": counts,
        "measured_on": "validation images" if plan.config.data.test.use_val_as_test else "test images",
    }


def _rules(
    plan: Plan, pairs: Mapping[str, ImagePair], records: Sequence[ImageRecord], stage: str, *, was_trained_on: bool
) -> list[str]:
    """How the figures are to be read."""
    measured = [pairs[record.name].image.spacing for record in records if record.name in pairs and stage in record.confusions]
    of_stack = "" if measured else "; the table of images has those of each slice by itself"
    rules = [f"What is measured: {STAGES[stage][0]}{of_stack}.", *(_measured_parts(plan) if measured else ())]
    if plan.config.data.test.use_val_as_test:
        rules.append(SHARED_RULE if was_trained_on else VALIDATION_RULE)
        rules.extend([FINE_TUNED_RULE] if plan.config.model.load_checkpoint and not was_trained_on else ())
    # A stack has no voxel size.
    by_size = ", by the voxel size of each image" if any(measured) else ""
    rules.append(f"Tolerance of NSD: {describe_tolerance(common_spacing(measured))}{by_size}.")
    return [*rules, INTERVAL_RULE, ABSENT_CLASS_RULE, _threshold_rule(plan)]


def _measured_parts(plan: Plan) -> Iterator[str]:
    """Which part of the images the figures are of, where that is not all; `crista evaluate` measures all."""
    test = plan.config.test
    if test.eval_border_crop:
        widths = ", ".join(map(str, test.eval_border_crop))
        yield f"Left out of the measurement: {widths} pixels at each border of an image (TEST.EVAL_BORDER_CROP)."
    chunks = test.by_chunks
    if chunks.enable and plan.ndim == 3 and (chunks.z_start > 0 or chunks.z_end >= 0):
        end = f"before {chunks.z_end}" if chunks.z_end >= 0 else "to the last"
        yield f"Predicted and measured: the slices from {max(0, chunks.z_start)} {end} (TEST.BY_CHUNKS.Z_START, Z_END)."


def _columns(plan: Plan, stage: str, counts: NDArray[np.int64], *, has_uncertainty: bool) -> list[Column]:
    shown = [
        Column("IoU", f"{stage}_iou", "iou"),
        Column("Dice", f"{stage}_dice", "dice"),
        Column("NSD", f"{stage}_nsd", "nsd"),
    ]
    if plan.classes.num_classes > 2:
        names = [plan.classes.names[k] for k in main_classes(counts.sum(axis=1).tolist(), len(counts)) if k]
        shown += [Column(f"IoU {name}", f"{stage}_iou_{name}", "iou") for name in names]
    if has_uncertainty:
        shown.append(Column("uncertainty", "uncertainty", "uncertainty"))
    return shown


def _headline(measurement: Measurement, stage: str, seconds: Mapping[str, float], records: Sequence[ImageRecord]) -> list[Figure]:
    found = measurement.estimates.get(stage, ())
    cards = []
    for measure, title in (("iou", "IoU"), ("dice", "Dice"), ("nsd", "NSD")):
        figure = find_estimate(found, measure, FOREGROUND, "images")
        if figure is not None and isfinite(figure.value):
            note = f"95 % {figure.interval}" if figure.has_interval else figure.interval
            cards.append(Figure(show_score(figure.value), f"foreground {title}, mean over images", note, measure))
    count, _, predicted = plural(len(records), "image").partition(" ")
    cards.append(Figure(count, f"{predicted} predicted"))
    if seconds.get("training"):
        cards.append(Figure(format_duration(seconds["training"]), "training"))
    unsure = [record.uncertainty for record in records if record.uncertainty is not None]
    if not found and unsure:
        cards.append(Figure(f"{sum(unsure) / len(unsure):.3f}", "mean uncertainty", term="uncertainty"))
    return cards


def _timings(records: Sequence[ImageRecord], rows: Sequence[Mapping[str, float]]) -> dict[str, float]:
    seconds = {"training": float(sum(row.get("seconds", 0.0) for row in rows))} if rows else {}
    for record in records:
        for stage, value in record.seconds.items():
            name = f"prediction ({stage.replace('_', ' ')})"
            seconds[name] = seconds.get(name, 0.0) + value
    return seconds


def _error_colours(plan: Plan) -> list[tuple[str, str]]:
    kinds = [kind for kind in ERRORS if plan.classes.num_classes > 2 or kind[0] != WRONG_CLASS]
    return [*kinds, *([("not measured", GREY)] if plan.classes.ignore_index is not None else [])]


def _threshold_rule(plan: Plan) -> str:
    if plan.classes.num_classes > 2:
        return "The class of a pixel is the one with the highest probability."
    threshold = plan.config.test.threshold
    return f"A pixel is foreground where its probability is above {threshold:g}; the label images and the metrics use the same."
