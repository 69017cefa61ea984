"""Examples: an image beside its label, prediction, errors and uncertainty, for the report; of volumes slice by slice."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from crista.geometry.axes import Array, Region
from crista.inference.uncertainty import choose_cells
from crista.results.overlays import Picture, colour_classes, colour_errors, count_foreground, to_picture
from crista.results.pictures import colour_uncertainty, encode_picture

LONGEST_SIDE = {2: 560, 3: 320}
"""Pixels of a picture of an image, and of a slice; larger ones are thinned out."""

MAX_SLICES = 24


@dataclass(frozen=True)
class Panel:
    """One picture."""

    name: str
    """``image``, ``label``, ``prediction``, ``errors``, ``uncertainty``."""
    picture: str
    """Data URI."""
    is_small: bool
    """Whether it is shown enlarged, and its pixels should be seen."""


@dataclass(frozen=True)
class Slice:
    """The panels of a 2D image or of a slice."""

    number: int | None
    """In the whole volume, from 0; None in 2D."""
    panels: tuple[Panel, ...]

    @property
    def size(self) -> int:
        """Characters of its pictures."""
        return sum(len(panel.picture) for panel in self.panels)


@dataclass(frozen=True)
class Example:
    """One image of the report."""

    caption: str
    """``worst``, ``median``, ``best``…"""
    name: str
    slices: tuple[Slice, ...] = ()
    score: str = ""
    """Its figure, in words."""
    shown: int = 0
    """Index in `slices` of the one to show first."""


@dataclass(frozen=True)
class Pixels:
    """What there is of an image, or of the region of it that is shown."""

    image: Array
    """C(Z)YX."""
    prediction: Array
    """(Z)YX classes."""
    label: Array | None
    uncertainty: NDArray[np.float32] | None
    """(Z)YX cells of the region."""
    first_slice: int = 0
    """Number of the first slice in the whole volume."""
    ignore_index: int | None = None
    is_picture: bool = False
    """Whether `image` is red, green and blue in [0, 1] already."""


def crop_cells(cells: NDArray[np.float32], region: Region, shape: Sequence[int]) -> NDArray[np.float32]:
    """The cells of a region of an image of `shape`, in z one for each slice."""
    grid = choose_cells(shape)
    own = cells[grid.cells_of(region)]
    if len(region) == 2:
        return own
    z = np.arange(region[0].start, region[0].stop) // grid.cell[0] - region[0].start // grid.cell[0]
    picked: NDArray[np.float32] = own[z]
    return picked


def build_slices(pixels: Pixels, budget: int) -> tuple[tuple[Slice, ...], int]:
    """The slices (one in 2D) in at most `budget` characters, fewer of them where needed, and which one to show first.

    That is the one with the most foreground in the label, without one in the prediction.
    """
    if pixels.prediction.ndim == 2:
        return (Slice(None, _panels(pixels)),), 0
    depth = len(pixels.prediction)
    chosen = sorted({round(i) for i in np.linspace(0, depth - 1, min(depth, MAX_SLICES))})
    thin = _picked(pixels, chosen)
    slices = [Slice(pixels.first_slice + number, _panels(_plane(thin, index))) for index, number in enumerate(chosen)]
    counted = thin.label if thin.label is not None else thin.prediction
    filled = [count_foreground(plane, pixels.ignore_index) for plane in counted]
    while sum(entry.size for entry in slices) > budget and len(slices) > 1:
        slices, filled = slices[::2], filled[::2]
    return tuple(slices), int(np.argmax(filled))


def _picked(pixels: Pixels, chosen: Sequence[int]) -> Pixels:
    """The slices that are shown, thinned out, the contrast stretched over all of them."""
    step = _step(pixels.prediction.shape)
    thin = (list(chosen), slice(None, None, step), slice(None, None, step))
    stack = np.asarray(pixels.image)[(slice(None), *thin)]
    channels, depth, height, width = stack.shape
    picture = to_picture(stack.reshape(channels, depth * height, width)).reshape(depth, height, width, 3)
    return replace(
        pixels,
        image=np.moveaxis(picture, -1, 0),
        is_picture=True,
        prediction=pixels.prediction[thin],
        label=pixels.label[thin] if pixels.label is not None else None,
        uncertainty=pixels.uncertainty[list(chosen)] if pixels.uncertainty is not None else None,
    )


def _plane(pixels: Pixels, index: int) -> Pixels:
    return replace(
        pixels,
        image=pixels.image[:, index],
        prediction=pixels.prediction[index],
        label=pixels.label[index] if pixels.label is not None else None,
        uncertainty=pixels.uncertainty[index] if pixels.uncertainty is not None else None,
    )


def _step(shape: Sequence[int]) -> int:
    return max(1, -(-max(shape[-2:]) // LONGEST_SIDE[len(shape)]))


def _panels(pixels: Pixels) -> tuple[Panel, ...]:
    """The panels of a plane CYX."""
    step = _step(pixels.prediction.shape)
    thin = (slice(None, None, step), slice(None, None, step))
    image = np.asarray(pixels.image)[(slice(None), *thin)]
    picture = np.moveaxis(image, 0, -1) if pixels.is_picture else to_picture(image)
    prediction = np.asarray(pixels.prediction[thin])
    pictures: dict[str, Picture] = {"image": picture}
    if pixels.label is not None:
        label = np.asarray(pixels.label[thin])
        pictures["label"] = colour_classes(picture, label, pixels.ignore_index)
    pictures["prediction"] = colour_classes(picture, prediction, None)
    if pixels.label is not None:
        pictures["errors"] = colour_errors(picture, prediction, label, pixels.ignore_index)
    if pixels.uncertainty is not None:
        pictures["uncertainty"] = colour_uncertainty(pixels.uncertainty, prediction.shape)
    small = max(prediction.shape) < 200
    return tuple(Panel(name, encode_picture(shown), small) for name, shown in pictures.items())
