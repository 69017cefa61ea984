"""Overlays: image, label, prediction and errors side by side, as one PNG per test image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from crista.geometry.axes import Array
from crista.results.style import BLUE, CLASS_COLOURS, GREEN, INK, ORANGE, PURPLE, in_own_style, new_figure, plain, save_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LONGEST_SIDE = 640
"""Pixels of a panel; larger images are thinned out."""

Picture = NDArray[np.float64]
"""YX3, in [0, 1]."""

MOST_NAMED = 6
"""Classes in the legend: more of them would run into that of the errors."""

GREY = "#9aa5ad"
WRONG_CLASS = "wrong class"

ERRORS = (
    ("right foreground", GREEN),
    ("missed (false negative)", BLUE),
    ("not there (false positive)", ORANGE),
    (WRONG_CLASS, PURPLE),
)
"""What the last panel shows, in other colours than the classes."""


@dataclass(frozen=True)
class OverlayText:
    """What is written on an overlay."""

    title: str = ""
    class_names: Sequence[str] = ()
    """Background first."""
    ignore_index: int | None = None
    """Label value of pixels that are not measured; shown grey."""
    first_slice: int = 0
    """Number of the first slice that is handed over, in the whole volume."""


@in_own_style
def draw_overlay(image: Array, prediction: Array, label: Array | None, path: Path, *, text: OverlayText | None = None) -> None:
    """Write the panel image | label | prediction | errors; without a label, image | prediction.

    Of a volume the middle slice and the one with the most foreground are shown. Contrast is stretched between the 0.5 and
    99.5 percentiles of what is shown. The colours can be told apart with any colour vision.

    Parameters
    ----------
    image : C(Z)YX
        One channel is shown grey, two green and magenta, three or more red, green and blue.
    prediction, label : (Z)YX classes
    """
    notes = text or OverlayText()
    slices = _choose_slices(prediction, label, notes.ignore_index)
    panels = [_draw_row(image, prediction, label, index, notes.ignore_index) for index in slices]
    titles = ["image", "label", "prediction", "errors"] if label is not None else ["image", "prediction"]
    height, width = panels[0][0].shape[:2]
    side = 2.6 if label is not None else 3.6
    tall = min(2.2, max(0.25, height / width)) * side
    figure = new_figure(side * len(titles) + 0.2, (tall + 0.28) * len(panels) + 0.75)
    for row, (index, pictures) in enumerate(zip(slices, panels, strict=True)):
        for column, picture in enumerate(pictures):
            axes = figure.add_subplot(len(panels), len(titles), row * len(titles) + column + 1)
            axes.imshow(picture, interpolation="nearest")
            axes.axis("off")
            name = titles[column] if index is None or column else f"{titles[column]}, slice {notes.first_slice + index}"
            axes.set_title(name, fontsize=9, color=INK, pad=3)
    _add_legend(figure, notes, classes=_classes_shown(prediction, label, notes.ignore_index), errors=label is not None)
    total = figure.get_size_inches()[1]
    figure.suptitle(
        plain(notes.title), x=0.012, y=1 - 0.1 / total, ha="left", va="top", fontsize=10, fontweight="bold", color=INK
    )
    figure.subplots_adjust(0.01, 0.36 / total, 0.99, 1 - 0.55 / total, 0.03, 0.28 / tall)
    save_figure(figure, path, dpi=110)


def _choose_slices(prediction: Array, label: Array | None, ignore_index: int | None) -> list[int | None]:
    """[None] in 2D; in 3D the middle slice and the fullest one (once, if they are the same)."""
    if prediction.ndim == 2:
        return [None]
    counted = label if label is not None else prediction
    step = max(1, max(counted.shape[1:]) // LONGEST_SIDE)
    filled = [count_foreground(plane[::step, ::step], ignore_index) for plane in counted]
    chosen: list[int | None] = [len(filled) // 2]
    fullest = int(np.argmax(filled))
    return chosen if fullest == chosen[0] else [*chosen, fullest]


def count_foreground(classes: Array, ignore_index: int | None) -> int:
    """Pixels of a class but the background; those without annotation are none."""
    real = classes > 0 if ignore_index is None else (classes > 0) & (classes != ignore_index)
    return int(np.count_nonzero(real))


def _draw_row(image: Array, prediction: Array, label: Array | None, index: int | None, ignore_index: int | None) -> list[Picture]:
    step = max(1, -(-max(prediction.shape[-2:]) // LONGEST_SIDE))
    thin = (slice(None, None, step), slice(None, None, step))
    where = thin if index is None else (index, *thin)
    picture = to_picture(np.asarray(image[(slice(None), *where)]))
    predicted = np.asarray(prediction[where])
    if label is None:
        return [picture, colour_classes(picture, predicted, ignore_index)]
    truth = np.asarray(label[where])
    return [
        picture,
        colour_classes(picture, truth, ignore_index),
        colour_classes(picture, predicted, None),
        colour_errors(picture, predicted, truth, ignore_index),
    ]


def to_picture(image: Array) -> Picture:
    """Pixels CYX of any type as a picture, contrast stretched per channel; pixels that are not finite are black."""
    channels = [_stretch(channel) for channel in image[:3]]
    if len(channels) == 1:
        channels = channels * 3
    elif len(channels) == 2:
        channels = [channels[1], channels[0], channels[1]]
    return np.stack(channels, axis=-1)


def _stretch(channel: Array) -> Picture:
    values = channel.astype(np.float64)
    finite = np.isfinite(values)
    if not finite.any():
        return np.zeros_like(values)
    low, high = np.percentile(values[finite], (0.5, 99.5))
    if high <= low:
        low, high = float(values[finite].min()), float(values[finite].max())
    stretched = (np.where(finite, values, low) - low) / (high - low if high > low else 1.0)
    return np.asarray(np.clip(stretched, 0, 1))


def colour_classes(picture: Picture, classes: Array, ignore_index: int | None) -> Picture:
    """The picture with every class but the background in its colour."""
    ignored = classes == ignore_index if ignore_index is not None else np.zeros(classes.shape, bool)
    shown = (classes > 0) & ~ignored
    result = _tint(0.9 * picture, ignored, _rgb(GREY), 0.75)
    palette = np.stack([_rgb(colour) for colour in CLASS_COLOURS])
    return _tint(result, shown, palette[(classes[shown].astype(np.int64) - 1) % len(palette)], 0.6)


def colour_errors(picture: Picture, prediction: Array, label: Array, ignore_index: int | None) -> Picture:
    """The picture, dimmed, with right foreground, false negatives, false positives and wrong classes in the colours of ERRORS."""
    valid = np.ones(label.shape, bool) if ignore_index is None else label != ignore_index
    found, real = (prediction > 0) & valid, (label > 0) & valid
    same = prediction == label
    kinds = (found & real & same, real & ~found, found & ~real, found & real & ~same)
    result = 0.2 + 0.55 * picture
    for where, (_, colour) in zip(kinds, ERRORS, strict=True):
        result = _tint(result, where, _rgb(colour), 0.45 if colour == GREEN else 0.9)
    return _tint(result, ~valid, _rgb(GREY), 0.75)


def _tint(picture: Picture, where: Array, colours: NDArray[np.float64], strength: float) -> Picture:
    """The picture with one colour (3,), or one for each pixel (N, 3), laid over the N pixels `where`."""
    result = picture.copy()
    result[where] = (1 - strength) * result[where] + strength * colours
    return result


def _rgb(colour: str) -> NDArray[np.float64]:
    return np.array([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)])


def class_colour(value: int) -> str:
    """Colour of class 1, 2, …"""
    return CLASS_COLOURS[(value - 1) % len(CLASS_COLOURS)]


def _classes_shown(prediction: Array, label: Array | None, ignore_index: int | None) -> list[int]:
    step = max(1, max(prediction.shape) // LONGEST_SIDE)
    thin = (slice(None, None, step),) * prediction.ndim
    values = {int(value) for array in (prediction, label) if array is not None for value in np.unique(array[thin])}
    return sorted(value for value in values if value > 0 and value != ignore_index)


def _add_legend(figure: Figure, notes: OverlayText, *, classes: Sequence[int], errors: bool) -> None:
    from matplotlib.patches import Patch

    names = notes.class_names
    seen = [(names[value] if value < len(names) else f"class {value}", class_colour(value)) for value in classes[:MOST_NAMED]]
    if len(classes) > MOST_NAMED:
        seen.append((f"and {len(classes) - MOST_NAMED} more", "none"))
    groups: list[tuple[Literal["lower left", "lower right"], list[tuple[str, str]]]] = [("lower left", seen)]
    if errors:
        kinds = [entry for entry in ERRORS if len(classes) > 1 or entry[0] != WRONG_CLASS]
        groups.append(("lower right", kinds + ([("not measured", GREY)] if notes.ignore_index is not None else [])))
    for place, entries in groups:
        patches = [Patch(facecolor=colour, label=plain(name)) for name, colour in entries]
        if patches:
            style: dict[str, Any] = {"fontsize": 7.5, "frameon": False, "handlelength": 1.1, "columnspacing": 1.4}
            figure.legend(handles=patches, loc=place, ncols=len(patches), **style)
