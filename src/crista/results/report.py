"""report.html: one self-contained page that says what was asked, decided, learnt and measured."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from importlib.resources import files
from math import isnan
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crista.images.atomic import atomic_write
from crista.plan.plan import Decision
from crista.results.run_folder import RunFolder


@dataclass(frozen=True)
class ImageResult:
    """One test image."""

    name: str
    metrics: Mapping[str, float] = field(default_factory=dict)
    overlay: Path | None = None
    """PNG of `draw_overlay`."""


@dataclass(frozen=True)
class ClassResult:
    """Figures of one class, pooled over all voxels of the test set; NaN where there is nothing to measure."""

    name: str
    iou: float
    dice: float
    precision: float
    recall: float
    voxels: int
    """Voxels of this class in the labels."""


@dataclass(frozen=True)
class ReportContent:
    """All that the page shows, as plain data. A part that is empty is left out of the page."""

    title: str
    headline: Mapping[str, str] = field(default_factory=dict)
    """The few figures on top, written out: {"foreground IoU": "0.91", "training": "96 s"}."""
    config_text: str = ""
    """The YAML as given; empty: nothing was asked, all was decided."""
    decisions: Sequence[Decision] = ()
    notices: Sequence[str] = ()
    """Warnings of the run."""
    charts: Sequence[Path] = ()
    """PNGs of `draw_charts`, the first ones first."""
    model_plot: Path | None = None
    num_epochs: int = 0
    """Epochs of the training log."""
    images: Sequence[ImageResult] = ()
    mean: Mapping[str, float] = field(default_factory=dict)
    """Mean of each metric over the images."""
    rank_by: str = "iou"
    """The metric that chooses worst, median and best."""
    classes: Sequence[ClassResult] = ()
    confusion: NDArray[np.int64] | None = None
    """(K, K) voxels, truth by prediction; rows and columns in the order of `classes`."""
    rules: Sequence[str] = ()
    """How the numbers are to be read: the absent-class rule, the threshold…"""
    timings: Mapping[str, float] = field(default_factory=dict)
    """Seconds of each stage."""
    versions: Mapping[str, str] = field(default_factory=dict)
    facts: Mapping[str, str] = field(default_factory=dict)
    """Device, seed, command, start, end…"""


def write_report(folder: RunFolder, content: ReportContent) -> Path:
    """Write ``report.html`` of the run and return its path. Pictures are inside; the page needs no network."""
    atomic_write(folder.report_html, render_report(content))
    return folder.report_html


def render_report(content: ReportContent) -> str:
    """The page as text."""
    import jinja2

    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["number"] = format_score
    environment.filters["duration"] = format_duration
    environment.filters["picture"] = data_uri
    source = files("crista.results").joinpath("templates/report.html").read_text(encoding="utf-8")
    return environment.from_string(source).render(
        content=content,
        examples=choose_examples(content.images, content.rank_by),
        metrics=list(dict.fromkeys(key for image in content.images for key in image.metrics)),
        confusion=_shade_confusion(content),
        crista_version=version("crista"),
    )


def choose_examples(images: Sequence[ImageResult], rank_by: str) -> list[tuple[str, ImageResult]]:
    """(caption, image) of the worst, median and best image that has an overlay; each image once.

    Without measurement, the first three images.
    """
    shown = [image for image in images if image.overlay is not None]
    measured = [image for image in shown if not isnan(image.metrics.get(rank_by, float("nan")))]
    if not measured:
        return [("", image) for image in shown[:3]]
    ranked = sorted(measured, key=lambda image: image.metrics[rank_by])
    places = {"worst": 0, "median": (len(ranked) - 1) // 2, "best": len(ranked) - 1}
    chosen: dict[int, str] = {}
    for word, place in places.items():
        chosen.setdefault(place, word)
    return [(word, ranked[place]) for place, word in sorted(chosen.items())]


def _shade_confusion(content: ReportContent) -> list[dict[str, Any]]:
    """Rows of the confusion matrix: name, and per cell the count, its share of the row and a background colour."""
    if content.confusion is None:
        return []
    rows = []
    for index, counts in enumerate(content.confusion):
        total = max(1, int(counts.sum()))
        cells = []
        for column, count in enumerate(counts):
            share = int(count) / total
            hue = "0,114,178" if column == index else "213,94,0"
            cells.append({"count": int(count), "share": share, "colour": f"rgba({hue},{0.06 + 0.5 * share:.3f})"})
        rows.append({"name": content.classes[index].name, "cells": cells})
    return rows


def format_score(value: float | None) -> str:
    """Four decimals; a dash where there is nothing to measure."""
    return "–" if value is None or isnan(value) else f"{value:.4f}"


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


def data_uri(picture: Path) -> str:
    """A PNG as text for the `src` of an image."""
    return "data:image/png;base64," + b64encode(picture.read_bytes()).decode("ascii")
