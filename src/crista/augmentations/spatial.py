"""Augmentations that bend space: zoom, rotation, shear, shift, elastic deformation, each drawn as a warp."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from math import cos, pi, radians, sin, sqrt, tan

import numpy as np
from numpy.typing import NDArray

from crista.augmentations.base import AUGMENTATIONS, AnySample, Augment, ConfigT, FloatArray
from crista.augmentations.warp import Warp, resample
from crista.config import augmentor
from crista.errors import ConfigError, Problem
from crista.geometry.orientation import Orientation

MAX_SHEAR_DEGREES = 80.0
"""Beyond this a shear moves the border by more than five patches, and at 90 degrees to infinity."""


class Deformation(Augment[ConfigT]):
    """An augmentation that is a warp. Neighbours in a pipeline are composed and interpolated once."""

    @abstractmethod
    def draw(self, shape: tuple[int, ...], rng: np.random.Generator) -> Warp:
        """A random warp for samples of `shape`, (Z)YX pixels."""

    def __call__(self, sample: AnySample, rng: np.random.Generator) -> AnySample:
        """`sample` resampled by one random warp."""
        return resample(sample, [self.draw(sample.label.shape, rng)], self.ignore_index)


@AUGMENTATIONS.register(augmentor.Zoom)
@dataclass(frozen=True)
class ScaleAboutCentre(Deformation[augmentor.Zoom]):
    """Scale y and x, and z with `in_z`, by one factor; above 1 enlarges."""

    def __post_init__(self) -> None:
        if self.config.in_z and self.ndim != 3:
            raise ValueError("Zoom with in_z (ZOOM_IN_Z) scales z, and 2D samples have none: set it to False")

    def draw(self, shape: tuple[int, ...], rng: np.random.Generator) -> Warp:  # noqa: ARG002
        """A factor, uniform on a logarithmic scale so that enlarging and shrinking are alike."""
        low, high = np.log(self.config.factors)
        step = float(np.exp(-rng.uniform(low, high)))
        return Warp(self.config.border, matrix=np.eye(2) * step, z_step=step if self.config.in_z else 1.0)


@AUGMENTATIONS.register(augmentor.Rotation)
class RotatePlane(Deformation[augmentor.Rotation]):
    """Rotate the y-x plane about its centre."""

    def orientations(self, shape: tuple[int, ...]) -> tuple[Orientation, ...]:  # noqa: ARG002
        """The quarter turns among its angles."""
        low, high = sorted(self.config.degrees)
        return tuple(Orientation(quarter_turns=turns % 4) for turns in range(-4, 5) if low <= 90 * turns <= high)

    def draw(self, shape: tuple[int, ...], rng: np.random.Generator) -> Warp:  # noqa: ARG002
        """A uniform angle."""
        angle = radians(rng.uniform(*self.config.degrees))
        matrix = np.array([[cos(angle), sin(angle)], [-sin(angle), cos(angle)]])
        return Warp(self.config.border, matrix=matrix)


@AUGMENTATIONS.register(augmentor.Shear)
@dataclass(frozen=True)
class ShearPlane(Deformation[augmentor.Shear]):
    """Shear the y-x plane: rows slide along x, or columns along y."""

    def __post_init__(self) -> None:
        if max(map(abs, self.config.degrees)) > MAX_SHEAR_DEGREES:
            limit = f"{MAX_SHEAR_DEGREES:g}"
            what = f"{self.config.degrees} reaches beyond ±{limit} degrees, where nothing is left to see"
            advice = f"Give a range within (-{limit}, {limit}); (-20, 20) is usual."
            raise ConfigError("in the augmentations", [Problem("AUGMENTOR.SHEAR_RANGE", what, advice)])

    def draw(self, shape: tuple[int, ...], rng: np.random.Generator) -> Warp:  # noqa: ARG002
        """A uniform angle, and which of the two axes slides."""
        slope = tan(radians(rng.uniform(*self.config.degrees)))
        matrix = np.eye(2)
        axis = int(rng.integers(2))
        matrix[axis, 1 - axis] = slope
        return Warp(self.config.border, matrix=matrix)


@AUGMENTATIONS.register(augmentor.Shift)
class ShiftPlane(Deformation[augmentor.Shift]):
    """Shift along y and x, independently, by fractions of the patch."""

    def draw(self, shape: tuple[int, ...], rng: np.random.Generator) -> Warp:
        """A uniform fraction and a direction for each axis, in whole pixels: a shift alone blurs nothing."""
        fractions = rng.uniform(*self.config.fractions, size=2) * rng.choice([-1.0, 1.0], size=2)
        return Warp(self.config.border, offset=np.round(fractions * np.array(shape[-2:])))


@AUGMENTATIONS.register(augmentor.Elastic)
class ElasticPlane(Deformation[augmentor.Elastic]):
    """Smooth random displacement in the y-x plane (Simard et al. 2003, doi:10.1109/ICDAR.2003.1227801)."""

    def draw(self, shape: tuple[int, ...], rng: np.random.Generator) -> Warp:
        """A field as strong as Simard's: uniform noise on [-1, 1], smoothed by a Gaussian, times alpha."""
        smoothed_std = min(1.0, 1 / (2 * sqrt(pi) * self.config.sigma)) / sqrt(3)
        strength = rng.uniform(*self.config.alpha) * smoothed_std
        plane = (shape[-2], shape[-1])
        field = np.stack([draw_smooth_field(plane, self.config.sigma, rng) for _ in range(2)])
        return Warp(self.config.border, displacement=np.float32(strength) * field)


def draw_smooth_field(shape: tuple[int, int], sigma: float, rng: np.random.Generator) -> FloatArray:
    """A Gaussian random field (Y, X) of mean 0 and variance 1, as smooth as white noise blurred by `sigma` pixels.

    White noise is drawn at nodes `sigma` apart (1 pixel at least) and spread by Gaussian weights, one matrix
    per axis: with nodes that near each other the field is as good as that of dense noise, at 1/sigma² of the
    work.
    """
    rows, columns = (compute_spreading_weights(length, sigma) for length in shape)
    noise = rng.standard_normal((rows.shape[1], columns.shape[1]), dtype=np.float32)
    return np.asarray(rows @ noise @ columns.T, dtype=np.float32)


def compute_spreading_weights(length: int, sigma: float) -> NDArray[np.float32]:
    """Weight of each node at each pixel of an axis, (pixels, nodes); the squares of a row sum to 1."""
    spacing = max(1.0, sigma)
    nodes = np.arange(-4 * spacing, length + 4 * spacing, spacing)
    weights = np.exp(-0.5 * ((np.arange(length)[:, None] - nodes) / sigma) ** 2)
    weights /= np.sqrt((weights**2).sum(axis=1, keepdims=True))
    return np.asarray(weights, dtype=np.float32)
