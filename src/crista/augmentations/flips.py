"""Exact rearrangements of pixels: flips and rotations by multiples of 90 degrees."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass

import numpy as np

from crista.augmentations.base import AUGMENTATIONS, AnySample, Augment, ConfigT
from crista.config import augmentor
from crista.geometry.orientation import Orientation


class Rearrangement(Augment[ConfigT]):
    """Pixels change place and nothing else: one of its orientations, each as likely."""

    @abstractmethod
    def orientations(self, shape: tuple[int, ...]) -> tuple[Orientation, ...]:
        """Those to draw from, for arrays whose last axes are `shape`, (Z)YX."""

    def __call__(self, sample: AnySample, rng: np.random.Generator) -> AnySample:
        """`sample` with image and label rearranged alike."""
        choices = self.orientations(sample.label.shape)
        drawn = choices[int(rng.integers(len(choices)))] if len(choices) > 1 else choices[0]
        return sample.with_arrays(
            image=np.ascontiguousarray(drawn(sample.image)), label=np.ascontiguousarray(drawn(sample.label))
        )


@AUGMENTATIONS.register(augmentor.VerticalFlip)
class FlipY(Rearrangement[augmentor.VerticalFlip]):
    """Reverse y."""

    def orientations(self, shape: tuple[int, ...]) -> tuple[Orientation, ...]:  # noqa: ARG002
        """y reversed."""
        return (Orientation(reverse=(-2,)),)


@AUGMENTATIONS.register(augmentor.HorizontalFlip)
class FlipX(Rearrangement[augmentor.HorizontalFlip]):
    """Reverse x."""

    def orientations(self, shape: tuple[int, ...]) -> tuple[Orientation, ...]:  # noqa: ARG002
        """x reversed."""
        return (Orientation(reverse=(-1,)),)


@AUGMENTATIONS.register(augmentor.DepthFlip)
@dataclass(frozen=True)
class FlipZ(Rearrangement[augmentor.DepthFlip]):
    """Reverse z."""

    def __post_init__(self) -> None:
        if self.ndim != 3:
            raise ValueError("DepthFlip (ZFLIP) reverses z, and 2D samples have none: leave it out")

    def orientations(self, shape: tuple[int, ...]) -> tuple[Orientation, ...]:  # noqa: ARG002
        """z reversed."""
        return (Orientation(reverse=(-3,)),)


@AUGMENTATIONS.register(augmentor.Rotation90)
class QuarterTurns(Rearrangement[augmentor.Rotation90]):
    """Turn the y-x plane by 0, 90, 180 or 270 degrees, each as likely.

    A quarter turn of a plane that is not square would change its shape: such samples turn by 0 or 180
    degrees.
    """

    def orientations(self, shape: tuple[int, ...]) -> tuple[Orientation, ...]:
        """Turns that keep the shape."""
        return tuple(Orientation(quarter_turns=turns) for turns in (range(4) if shape[-2] == shape[-1] else (0, 2)))
