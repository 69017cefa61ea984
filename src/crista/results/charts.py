"""Curves of a training run: one PNG for the loss and one per metric."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING

from crista.results.style import AMBER, BLUE, FAINT, INK, ORANGE, dress, in_own_style, new_figure, plain, save_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

NAMES = {
    "loss": ("Loss", "loss"),
    "iou": ("Intersection over union of the foreground", "IoU (0 to 1)"),
    "dice": ("Dice of the foreground", "Dice (0 to 1)"),
    "accuracy": ("Accuracy", "share of right pixels (0 to 1)"),
    "lr": ("Learning rate", "learning rate"),
    "seconds": ("Time per epoch", "time (s)"),
    "steps_per_second": ("Training steps", "steps per second"),
    "data_wait_percent": ("Waiting for data", "share of the training time (%)"),
}
"""Title and axis label of the metrics that have their own; others are called by their key."""

LEFT = 0.135
"""Where the axes begin, as a fraction of the width."""

FILE_NAMES = {"iou": "IoU", "dice": "Dice"}
"""File name of a metric where it is not its key."""


@in_own_style
def draw_charts(rows: Sequence[Mapping[str, float]], folder: Path, job: str, *, best_epoch: int | None = None) -> list[Path]:
    """Draw ``<job>_loss.png`` and ``<job>_<metric>.png`` for every metric of the training log; returns the files.

    A metric and its validation twin (``iou``, ``val_iou``) share a chart. `best_epoch` is marked. Values that are not finite
    leave a gap.
    """
    written = []
    for metric in metrics_of(rows):
        path = folder / f"{job}_{FILE_NAMES.get(metric, metric)}.png"
        _draw_chart(rows, metric, best_epoch, path, job)
        written.append(path)
    return written


def metrics_of(rows: Sequence[Mapping[str, float]]) -> list[str]:
    """Metrics of a training log, in the order in which they first occur."""
    return list(dict.fromkeys(key.removeprefix("val_") for row in rows for key in row if key != "epoch"))


def _draw_chart(rows: Sequence[Mapping[str, float]], metric: str, best: int | None, path: Path, job: str) -> None:
    figure = new_figure(6.4, 3.8)
    axes = figure.add_axes((LEFT, 0.145, 0.75, 0.70))
    dress(axes)
    train = _draw_curve(axes, rows, metric, "training" if _has(rows, f"val_{metric}") else "", BLUE)
    validation = _draw_curve(axes, rows, f"val_{metric}", "validation", ORANGE)
    shown = validation or train
    if best in shown and (validation or metric == "loss"):
        axes.axvline(best, color=FAINT, linewidth=1, linestyle=(0, (4, 3)), zorder=1)
        axes.plot([best], [shown[best]], "o", markersize=8, markerfacecolor=AMBER, markeredgecolor=INK, zorder=4)
        axes.plot([], [], "o", markersize=7, markerfacecolor=AMBER, markeredgecolor=INK, label=_best_text(best, shown))
    title, label = NAMES.get(metric, (metric, metric))
    figure.text(LEFT, 0.93, title, fontsize=12, fontweight="bold", color=INK)
    figure.text(LEFT, 0.875, plain(job), fontsize=9, color=FAINT)
    axes.set_xlabel("epoch", color=INK)
    axes.set_ylabel(label, color=INK)
    _set_limits(axes, rows, metric, [*train.values(), *validation.values()])
    _write_last_values(axes, [(train, BLUE), (validation, ORANGE)])
    if axes.get_legend_handles_labels()[0]:
        axes.legend(frameon=True, framealpha=0.85, edgecolor="none", fontsize=9, loc="best")
    save_figure(figure, path)


def _best_text(best: int, values: Mapping[int, float]) -> str:
    return f"best epoch {best}: {values[best]:.4g}"


def _has(rows: Sequence[Mapping[str, float]], key: str) -> bool:
    return any(key in row for row in rows)


def _draw_curve(axes: Axes, rows: Sequence[Mapping[str, float]], key: str, label: str, colour: str) -> dict[int, float]:
    """The curve of `key`; returns its finite values by epoch."""
    points = [(int(row["epoch"]), row[key]) for row in rows if key in row]
    if not points:
        return {}
    epochs, values = [epoch for epoch, _ in points], [value for _, value in points]
    marker = "o" if len(points) < 25 else ""
    axes.plot(epochs, values, color=colour, linewidth=1.8, marker=marker, markersize=3.5, label=label or "_", zorder=3)
    return {epoch: value for epoch, value in points if isfinite(value)}


def _write_last_values(axes: Axes, curves: Sequence[tuple[Mapping[int, float], str]]) -> None:
    """The last value beside the end of each curve, pushed apart where they would cover each other."""
    ends = []
    for values, colour in curves:
        if values:
            last = max(values)
            ends.append((float(axes.transData.transform((last, values[last]))[1]), last, values[last], colour))
    ends.sort()
    overlap = max(0.0, 16 - (ends[1][0] - ends[0][0])) if len(ends) == 2 else 0.0
    for (_, epoch, value, colour), side in zip(ends, (-0.5, 0.5), strict=False):
        axes.annotate(
            f"{value:.4g}",
            (epoch, value),
            xytext=(7, side * overlap * 0.72),
            textcoords="offset points",
            va="center",
            fontsize=9,
            color=colour,
            annotation_clip=False,
        )


def _set_limits(axes: Axes, rows: Sequence[Mapping[str, float]], metric: str, values: Sequence[float]) -> None:
    """Epochs as whole numbers; a score that is high shows its range, a loss over decades is logarithmic."""
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8, min_n_ticks=1))
    last = max((int(row["epoch"]) for row in rows), default=1)
    first = min((int(row["epoch"]) for row in rows), default=1)
    margin = max(0.5, 0.02 * (last - first))
    axes.set_xlim(first - margin, last + margin)
    positive = [value for value in values if value > 0]
    if metric in ("loss", "lr") and len(positive) == len(values) > 0 and max(positive) / min(positive) > 50:
        axes.set_yscale("log")
    elif metric in ("iou", "dice", "accuracy"):
        axes.set_ylim(-0.02, 1.02)
    elif metric == "data_wait_percent":
        axes.set_ylim(-2, 102)
    elif metric in ("seconds", "steps_per_second") and positive:
        axes.set_ylim(0, max(positive) * 1.15)
    if axes.get_yscale() == "linear":
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:.4g}")
