"""The drawing of the network: a U of blocks with their output shapes and parameter counts."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crista.results.style import AMBER, BLUE, FAINT, GREEN, INK, MUTED, PURPLE, in_own_style, new_figure, plain, save_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from crista.models.summary import LayerSummary

WIDTH, HEIGHT, GAP = 3.75, 0.86, 0.62
"""Size of a box and vertical space between boxes, in inches."""

INDENT = 0.42
"""How far each level moves inwards, in inches."""

COLOURS = {"encoder": BLUE, "bottleneck": PURPLE, "decoder": GREEN, "head": AMBER}

Spot = tuple[float, float]
"""Centre of a box in inches."""


@in_own_style
def draw_model(layers: Sequence[LayerSummary], path: Path, title: str) -> None:
    """Draw `layers` (in forward order) as a U and write the PNG `path`.

    The encoder goes down on the left, the decoder up on the right, the head stands above it; dashed arrows are the skip
    connections between the two sides of a level.
    """
    spots, size = _arrange(layers)
    figure = new_figure(size[0], size[1])
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_xlim(0, size[0])
    axes.set_ylim(0, size[1])
    axes.axis("off")
    _draw_connections(axes, layers, spots)
    for layer, spot in zip(layers, spots, strict=True):
        _draw_box(axes, layer, spot)
    total = sum(layer.parameters for layer in layers)
    axes.text(0.3, size[1] - 0.36, plain(title), fontsize=14, fontweight="bold", color=INK, va="center")
    axes.text(0.3, size[1] - 0.68, f"{total:,} parameters", fontsize=11, color=INK, va="center")
    letters = "channels × z × y × x" if layers and len(layers[0].shape) == 4 else "channels × y × x"
    note = f"each box: output shape ({letters}) and parameters;  dashed: skip connection"
    axes.text(0.3, size[1] - 0.96, note, fontsize=9, color=MUTED, va="center")
    save_figure(figure, path, dpi=110)


def _arrange(layers: Sequence[LayerSummary]) -> tuple[list[Spot], Spot]:
    """Centre of every box, and width and height of the figure. Blocks of one side and level stand below each other."""
    rows: dict[int, dict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
    base = min((layer.level for layer in layers), default=0)
    for index, layer in enumerate(layers):
        level = -1 if layer.side == "head" else layer.level - base
        rows[level][layer.side].append(index)
    deepest = max(rows, default=0)
    middle = INDENT * deepest + WIDTH + 0.9
    spots: list[Spot] = [(0.0, 0.0)] * len(layers)
    y = 0.0
    for level in sorted(rows):
        for side, indices in rows[level].items():
            inward = INDENT * max(level, 0)
            x = {"encoder": WIDTH / 2 + inward, "bottleneck": middle}.get(side, 2 * middle - WIDTH / 2 - inward)
            order = indices if side != "decoder" else indices[::-1]
            for place, index in enumerate(order):
                spots[index] = (x, y - place * (HEIGHT + GAP * 0.6))
        depth = max(len(indices) for indices in rows[level].values())
        y -= depth * (HEIGHT + GAP * 0.6) + GAP * 0.4
    height = -y + 1.45
    return [(x + 0.3, spot_y + height - 1.35 - HEIGHT / 2) for x, spot_y in spots], (2 * middle + 0.6, height)


def _draw_connections(axes: Axes, layers: Sequence[LayerSummary], spots: Sequence[Spot]) -> None:
    """Arrows from each block to the next, and between the last encoder and first decoder block of a level."""
    for index in range(len(layers) - 1):
        _draw_arrow(axes, spots[index], spots[index + 1], dashed=False)
    last = {layer.level: index for index, layer in enumerate(layers) if layer.side == "encoder"}
    first: dict[int, int] = {}
    for index, layer in enumerate(layers):
        if layer.side == "decoder":
            first.setdefault(layer.level, index)
    for level, index in last.items():
        if level in first:
            _draw_arrow(axes, spots[index], spots[first[level]], dashed=True)


def _draw_arrow(axes: Axes, start: Spot, end: Spot, *, dashed: bool) -> None:
    """From border to border: sideways in one row, else up or down."""
    (x0, y0), (x1, y1) = start, end
    if abs(y0 - y1) < 0.1:
        side = 1 if x1 > x0 else -1
        tail, head = (x0 + side * WIDTH / 2, y0), (x1 - side * WIDTH / 2, y1)
    else:
        down = 1 if y1 < y0 else -1
        lean = min(abs(x1 - x0), WIDTH / 2 - 0.3) * (1 if x1 > x0 else -1)
        tail, head = (x0 + lean / 2, y0 - down * HEIGHT / 2), (x1 - lean / 2, y1 + down * HEIGHT / 2)
    style = {"linestyle": (0, (4, 3)), "color": FAINT} if dashed else {"linestyle": "solid", "color": INK}
    arrow = {"arrowstyle": "-|>", "linewidth": 1.3, "shrinkA": 1, "shrinkB": 1, "mutation_scale": 13, **style}
    axes.annotate("", xy=head, xytext=tail, arrowprops=arrow)


def _draw_box(axes: Axes, layer: LayerSummary, spot: Spot) -> None:
    from matplotlib.patches import FancyBboxPatch

    x, y = spot
    colour = COLOURS.get(layer.side, FAINT)
    corner = (x - WIDTH / 2, y - HEIGHT / 2)
    rounded = "round,pad=0,rounding_size=0.09"
    box: dict[str, Any] = {"boxstyle": rounded, "linewidth": 1.4, "zorder": 3}
    axes.add_patch(FancyBboxPatch(corner, WIDTH, HEIGHT, facecolor="white", edgecolor=colour, **box))
    axes.add_patch(FancyBboxPatch(corner, WIDTH, HEIGHT, facecolor=colour, edgecolor="none", alpha=0.10, **box))
    left, right = x - WIDTH / 2 + 0.14, x + WIDTH / 2 - 0.14
    shape = " × ".join(str(n) for n in layer.shape)
    count = f"{layer.parameters:,} parameters"
    axes.text(left, y + 0.24, layer.name, fontsize=10.5, fontweight="bold", color=INK, va="center", zorder=4)
    axes.text(right, y + 0.24, count, fontsize=9, color=INK, va="center", ha="right", zorder=4)
    axes.text(left, y - 0.01, shape, fontsize=10.5, color=INK, va="center", zorder=4)
    axes.text(left, y - 0.26, shorten(layer.kind, 60), fontsize=8, color=MUTED, va="center", zorder=4)


def shorten(text: str, length: int) -> str:
    """`text`, cut with an ellipsis if it is longer than `length`."""
    return text if len(text) <= length else text[: length - 1].rstrip() + "…"
