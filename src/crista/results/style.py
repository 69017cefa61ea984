"""Colours and the figure that all drawings share."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, ParamSpec, TypeVar

from crista.images.atomic import aside

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Given = ParamSpec("Given")
Result = TypeVar("Result")

INK = "#22303c"
MUTED = "#5b6a77"
FAINT = "#8a97a3"
BLUE = "#0072b2"
ORANGE = "#d55e00"
GREEN = "#009e73"
SKY = "#56b4e9"
AMBER = "#e69f00"
PURPLE = "#cc79a7"
YELLOW = "#f0e442"
"""Colours of Okabe and Ito, told apart with any kind of colour vision (Wong 2011, doi:10.1038/nmeth.1618)."""

CLASS_COLOURS = (AMBER, SKY, YELLOW, "#b2df8a", "#e31a1c", "#80cdc1", "#bf812d", "#c2a5cf", "#fddbc7")
"""Colours of the classes 1, 2, …; they repeat after the last."""


def in_own_style(draw: Callable[Given, Result]) -> Callable[Given, Result]:
    """`draw` with the settings that Matplotlib comes with, whatever those of the process are.

    A notebook may have LaTeX set its text, which fails on the `_` of a name and would end the run, or a dark style.
    """

    @wraps(draw)
    def drawn(*given: Given.args, **named: Given.kwargs) -> Result:
        import matplotlib

        with matplotlib.rc_context():
            matplotlib.rcdefaults()
            return draw(*given, **named)

    return drawn


def new_figure(width: float, height: float) -> Figure:
    """An empty figure of that size in inches, without pyplot's global state."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def plain(text: str) -> str:
    """A name for a figure: between its dollar signs is no formula, and what is no text (as names of files may be) is a number."""
    return text.encode(errors="backslashreplace").decode().replace("$", r"\$")


def dress(axes: Axes) -> None:
    """Light grid, no box."""
    axes.grid(color="#dfe4e8", linewidth=0.8)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(FAINT)
    axes.tick_params(colors=INK, labelsize=9)


def save_figure(figure: Figure, path: Path, *, dpi: int = 120) -> None:
    """Write a PNG, complete or not at all. No date inside: the same figure gives the same bytes.

    Names may be in any script; a sign that the font lacks is drawn as a box, and is not worth a line on the screen.
    """
    with aside(path) as part, warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"(?s)\s*Glyph .* missing from", UserWarning)
        figure.savefig(part, dpi=dpi, format="png", metadata={"Software": None})
