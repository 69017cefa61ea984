"""Curves: the training log as drawings inside the page, sharp at any width and in light and dark."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from math import ceil, floor, isfinite, log10

from crista.results.charts import NAMES, metrics_of

WIDTH, HEIGHT = 360, 214
LEFT, RIGHT, TOP, BOTTOM = 44, 12, 10, 26
MAIN = ("loss", "iou", "dice", "accuracy")
"""Shown first; the others are about speed and schedule."""

Rows = Sequence[Mapping[str, float]]


def curve_names(rows: Rows) -> tuple[list[str], list[str]]:
    """Metrics of a training log: those of quality, and the others."""
    keys = metrics_of(rows)
    return [key for key in keys if key in MAIN], [key for key in keys if key not in MAIN]


def curve_title(metric: str) -> str:
    """What a curve is called."""
    return NAMES.get(metric, (metric.replace("_", " "), ""))[0]


def draw_curve(rows: Rows, metric: str, best_epoch: int | None) -> str:
    """An SVG of a metric in training and validation by epoch; the best epoch is marked. Only finite values are drawn."""
    curves = {kind: _points(rows, key) for kind, key in (("train", metric), ("val", f"val_{metric}"))}
    values = [value for points in curves.values() for _, value in points]
    if not values:
        return ""
    epochs = [epoch for points in curves.values() for epoch, _ in points]
    low, high, ticks = _scale(values)
    first, last = min(epochs), max(epochs)

    def at(epoch: float, value: float) -> tuple[float, float]:
        x = LEFT + (WIDTH - LEFT - RIGHT) * ((epoch - first) / (last - first) if last > first else 0.5)
        return x, TOP + (HEIGHT - TOP - BOTTOM) * (1 - (value - low) / (high - low))

    parts = [_grid(at(first, tick)[1], f"{tick:.4g}") for tick in ticks]
    parts += [_epoch_tick(at(epoch, low)[0], epoch) for epoch in _epoch_ticks(first, last)]
    parts += [_line(kind, [at(*point) for point in points]) for kind, points in curves.items() if points]
    marked = [at(*point) for point in curves["val"] if point[0] == best_epoch]
    parts += [f'<circle class="best" cx="{x:.1f}" cy="{y:.1f}" r="4.5"/>' for x, y in marked]
    return f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(curve_title(metric))}">{"".join(parts)}</svg>'


def _points(rows: Rows, key: str) -> list[tuple[float, float]]:
    return [(row["epoch"], row[key]) for row in rows if key in row and isfinite(row[key])]


def _scale(values: Sequence[float]) -> tuple[float, float, list[float]]:
    """Lower and upper end of the axis and its ticks, all round numbers."""
    low, high = min(values), max(values)
    if high <= low:
        low, high = low - (abs(low) or 1) * 0.1, high + (abs(high) or 1) * 0.1
    rough = (high - low) / 4
    power = 10.0 ** floor(log10(rough))
    step = next(power * factor for factor in (1, 2, 2.5, 5, 10) if power * factor >= rough * 0.999)
    bottom, top = floor(low / step), ceil(high / step)
    return bottom * step, top * step, [number * step for number in range(bottom, top + 1)]


def _epoch_ticks(first: float, last: float) -> list[int]:
    span = int(last - first)
    step = max(1, ceil(span / 5))
    return list(range(int(first), int(last) + 1, step))


def _grid(y: float, text: str) -> str:
    line = f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
    return f'{line}<text x="{LEFT - 6}" y="{y + 3.5:.1f}" text-anchor="end">{text}</text>'


def _epoch_tick(x: float, epoch: int) -> str:
    return f'<text x="{x:.1f}" y="{HEIGHT - 8}" text-anchor="middle">{epoch}</text>'


def _line(kind: str, points: Sequence[tuple[float, float]]) -> str:
    if len(points) == 1:
        return f'<circle class="{kind} dot" cx="{points[0][0]:.1f}" cy="{points[0][1]:.1f}" r="3"/>'
    return f'<polyline class="{kind}" points="{" ".join(f"{x:.1f},{y:.1f}" for x, y in points)}"/>'
