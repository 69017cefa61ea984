"""report.html: one self-contained page that says what was asked, decided, learnt and measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from importlib.resources import files
from math import isnan, nan
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crista.images.atomic import atomic_write
from crista.metrics import DEFINITIONS, FOREGROUND, Estimate, find_estimate, show_score
from crista.plan.plan import Decision
from crista.results.curves import curve_names, curve_title, draw_curve
from crista.results.examples import Example
from crista.results.pictures import encode_file
from crista.results.ranking import Labelled, UncertainRegion
from crista.results.run_folder import RunFolder

MAX_ROWS = 200
"""Images in the table; the table of metrics has them all."""

MAX_CLASSES = 40
"""Classes in the confusion matrix, in the columns of the table of images, and in the legend of colours: 255 in each would be
five of the 15 MB that the page may have, and more than a phone can show."""

CLASS_COLUMNS = (
    ("iou", "images"),
    ("iou", "pixels"),
    ("dice", "images"),
    ("dice", "pixels"),
    ("nsd", "images"),
)
"""(measure, over) of the columns of the table of classes."""


@dataclass(frozen=True)
class Figure:
    """One figure on top of the page."""

    value: str
    name: str
    note: str = ""
    """Smaller, below the value: its interval."""
    term: str = ""
    """Key of its definition."""


@dataclass(frozen=True)
class Column:
    """One column of the table of images."""

    title: str
    key: str
    """In the metrics of an image."""
    term: str = ""
    """Key of its definition."""


@dataclass(frozen=True)
class ImageResult:
    """One test image."""

    name: str
    metrics: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class ClassResult:
    """What the confusion matrix alone tells of one class, pooled over all voxels of the test set; NaN: nothing to measure."""

    name: str
    precision: float
    recall: float
    voxels: int
    """Voxels of this class in the labels."""


@dataclass(frozen=True)
class Suggestion:
    """One entry of the list of what to label next."""

    region: UncertainRegion
    labelled: Labelled
    picture: str = ""
    """Data URI; empty: none."""


@dataclass(frozen=True)
class ReportContent:
    """All that the page shows, as plain data. A part that is empty is left out of the page."""

    title: str
    headline: Sequence[Figure] = ()
    config_text: str = ""
    """The YAML as given; empty: nothing was asked, all was decided."""
    decisions: Sequence[Decision] = ()
    notices: Sequence[str] = ()
    """Warnings of the run."""
    rows: Sequence[Mapping[str, float]] = ()
    """The training log."""
    best_epoch: int | None = None
    model_plot: Path | None = None
    examples: Sequence[Example] = ()
    class_colours: Sequence[tuple[str, str]] = ()
    """(name, colour) of the classes in the pictures."""
    colours_note: str = ""
    """What they do not tell."""
    error_colours: Sequence[tuple[str, str]] = ()
    images: Sequence[ImageResult] = ()
    columns: Sequence[Column] = ()
    mean: Mapping[str, float] = field(default_factory=dict)
    """Mean of each metric over the images."""
    rank_by: str = ""
    """The metric by which a long table of images is cut: the lowest stay."""
    rank_word: str = "worst"
    """What those with the lowest are called."""
    classes: Sequence[ClassResult] = ()
    estimates: Sequence[Estimate] = ()
    """Figures of the foreground and each class with their intervals."""
    confusion: NDArray[np.int64] | None = None
    """(K, K) voxels, truth by prediction; rows and columns in the order of `classes`."""
    measured_on: str = "test images"
    """Which images the figures are of."""
    rules: Sequence[str] = ()
    """How the numbers are to be read: the absent-class rule, the threshold…"""
    suggestions: Sequence[Suggestion] = ()
    timings: Mapping[str, float] = field(default_factory=dict)
    """Seconds of each stage."""
    timings_note: str = ""
    """What they are the sum of."""
    memory: str = ""
    versions: Mapping[str, str] = field(default_factory=dict)
    facts: Mapping[str, str] = field(default_factory=dict)
    """Device, seed, command…"""


def write_report(folder: RunFolder, content: ReportContent) -> Path:
    """Write ``report.html`` of the run and return its path. Pictures are inside; the page needs no network."""
    atomic_write(folder.report_html, render_report(content))
    return folder.report_html


def render_report(content: ReportContent) -> str:
    """The page as text."""
    import jinja2

    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {"number": format_score, "duration": format_duration, "picture": encode_file, "title": curve_title}
    folder = files("crista.results").joinpath("templates")
    environment.loader = jinja2.FunctionLoader(lambda name: folder.joinpath(name).read_text(encoding="utf-8"))
    main, others = curve_names(content.rows)
    return environment.get_template("report.html").render(
        content=content,
        definitions=DEFINITIONS,
        class_columns=CLASS_COLUMNS,
        all_foreground=FOREGROUND,
        figure=lambda measure, of, over: find_estimate(content.estimates, measure, of, over),
        image_rows=_shown_rows(content),
        confusion=_shade_confusion(content),
        classes_left_out=describe_left_out([row.voxels for row in content.classes], len(content.classes)),
        curves={"main": main, "others": others},
        draw=lambda metric: draw_curve(content.rows, metric, content.best_epoch),
        crista_version=version("crista"),
    )


def _shown_rows(content: ReportContent) -> Sequence[ImageResult]:
    """The rows of the table of images, of many the worst ones; none without columns."""
    if not content.columns or len(content.images) <= MAX_ROWS:
        return content.images if content.columns else ()
    known = {image.name: image.metrics.get(content.rank_by, nan) for image in content.images}
    worst = sorted(content.images, key=lambda image: (isnan(known[image.name]), known[image.name]))
    return worst[:MAX_ROWS]


def main_classes(voxels: Sequence[int], num_classes: int) -> list[int]:
    """The classes that are shown where a part of the page has no room for all of them, in order: those with the most labelled
    `voxels`, the first ones where nothing is labelled."""
    most = sorted(range(num_classes), key=lambda k: (-voxels[k] if voxels else 0, k))
    return sorted(most[:MAX_CLASSES])


def describe_left_out(voxels: Sequence[int], num_classes: int) -> str:
    """Which of the classes are shown, in words; empty where all are."""
    if num_classes <= MAX_CLASSES:
        return ""
    return f"the {MAX_CLASSES} with the most labelled pixels" if any(voxels) else f"the first {MAX_CLASSES}"


def _shade_confusion(content: ReportContent) -> list[dict[str, Any]]:
    """Rows of the confusion matrix: name, and per cell the count, its share of the row and a background colour."""
    if content.confusion is None:
        return []
    rows = []
    shown = main_classes([row.voxels for row in content.classes], len(content.classes))
    for index in shown:
        counts = content.confusion[index]
        total = max(1, int(counts.sum()))
        cells = []
        for column in shown:
            count = counts[column]
            share = int(count) / total
            hue = "0,114,178" if column == index else "213,94,0"
            cells.append({"count": int(count), "share": share, "colour": f"rgba({hue},{0.06 + 0.5 * share:.3f})"})
        rows.append({"name": content.classes[index].name, "cells": cells})
    return rows


def format_score(value: float | None) -> str:
    """Four decimals; a dash where there is nothing to measure, or no such figure."""
    return show_score(nan if value is None else value)


def format_duration(seconds: float) -> str:
    """``0.42 s``, ``38 s``, ``4 min 5 s``, ``2 h 3 min``."""
    if seconds < 10:
        return f"{seconds:.2g} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def format_bytes(count: float) -> str:
    """``312 MB``, ``1.4 GB`` (powers of ten)."""
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"
