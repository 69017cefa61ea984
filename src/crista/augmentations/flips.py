"""Exact rearrangements of pixels: flips and rotations by multiples of 90 degrees."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass

import numpy as np

from crista.augmentations.base import AUGMENTATIONS, AnySample, Augment, ConfigT
from crista.config import augmentor
from crista.geometry.axes import Array


class Rearrangement(Augment[ConfigT]):
    """Pixels change place and nothing else."""

    @abstractmethod
    def draw_view(self, shape: tuple[int, ...], rng: np.random.Generator) -> View:
        """The drawn rearrangement, for arrays whose last axes are `shape`, (Z)YX."""

    def __call__(self, sample: AnySample, rng: np.random.Generator) -> AnySample:
        """`sample` with image and label rearranged alike."""
        view = self.draw_view(sample.label.shape, rng)
        return sample.with_arrays(image=view(sample.image), label=view(sample.label))


class View:
    """A rearrangement of the last axes: reverse some, or turn the y-x plane."""

    def __init__(self, *, reverse: tuple[int, ...] = (), quarter_turns: int = 0) -> None:
        self.reverse = reverse
        self.quarter_turns = quarter_turns

    def __call__(self, array: Array) -> Array:
        """A contiguous copy of `array`, rearranged."""
        flipped = np.flip(array, self.reverse) if self.reverse else array
        return np.ascontiguousarray(np.rot90(flipped, self.quarter_turns, axes=(-2, -1)))


@AUGMENTATIONS.register(augmentor.VerticalFlip)
class FlipY(Rearrangement[augmentor.VerticalFlip]):
    """Reverse y."""

    def draw_view(self, shape: tuple[int, ...], rng: np.random.Generator) -> View:  # noqa: ARG002
        """y reversed; nothing is drawn."""
        return View(reverse=(-2,))


@AUGMENTATIONS.register(augmentor.HorizontalFlip)
class FlipX(Rearrangement[augmentor.HorizontalFlip]):
    """Reverse x."""

    def draw_view(self, shape: tuple[int, ...], rng: np.random.Generator) -> View:  # noqa: ARG002
        """x reversed; nothing is drawn."""
        return View(reverse=(-1,))


@AUGMENTATIONS.register(augmentor.DepthFlip)
@dataclass(frozen=True)
class FlipZ(Rearrangement[augmentor.DepthFlip]):
    """Reverse z."""

    def __post_init__(self) -> None:
        if self.ndim != 3:
            raise ValueError("DepthFlip (ZFLIP) reverses z, and 2D samples have none: leave it out")

    def draw_view(self, shape: tuple[int, ...], rng: np.random.Generator) -> View:  # noqa: ARG002
        """z reversed; nothing is drawn."""
        return View(reverse=(-3,))


@AUGMENTATIONS.register(augmentor.Rotation90)
class QuarterTurns(Rearrangement[augmentor.Rotation90]):
    """Turn the y-x plane by 0, 90, 180 or 270 degrees, each as likely.

    A quarter turn of a plane that is not square would change its shape: such samples turn by 0 or 180
    degrees.
    """

    def draw_view(self, shape: tuple[int, ...], rng: np.random.Generator) -> View:
        """A number of quarter turns that keeps the shape."""
        square = shape[-2] == shape[-1]
        return View(quarter_turns=int(rng.integers(4)) if square else 2 * int(rng.integers(2)))
