"""Fingerprint: the facts about a data set from which the plan decides."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from math import prod
from statistics import median
from typing import Any

from crista.geometry.spacing import Spacing
from crista.images.class_names import NamedClasses
from crista.images.image import Image, ImagePair
from crista.images.labels import LabelCoding
from crista.images.scan import ImageScan, Intensity


@dataclass(frozen=True)
class ImageFacts:
    """One training image."""

    name: str
    shape: tuple[int, ...]
    """Voxels along (Z)YX."""
    num_channels: int
    """As stored, before DATA.FORCE_RGB."""
    spacing: tuple[float, ...] | None
    """Micrometres along (Z)YX; None if unknown."""
    dtype: str


@dataclass(frozen=True)
class Fingerprint:
    """What the training set is like. `to_json` gives plain lists and numbers."""

    ndim: int
    num_channels: int
    """Channels the network gets (DATA.FORCE_RGB counted)."""
    images: tuple[ImageFacts, ...]
    spacing: tuple[float, ...] | None
    """Median voxel size along (Z)YX in micrometres, over the images that say; None if none says."""
    coding: LabelCoding
    """What the label values mean."""
    class_counts: tuple[int, ...] | None
    """Pixels of each class over all training labels, ignored ones left out; None if labels were not read."""
    intensity: tuple[Intensity, ...]
    """Per channel that the network gets, over all training images."""
    object_diameter: float | None = None
    """Diameter of the objects in the training labels, voxels: half of the foreground lies in smaller ones.
    None where there are none, or not read."""
    named: NamedClasses | None = None
    """What a file beside the training labels calls the classes."""

    @property
    def shapes(self) -> tuple[tuple[int, ...], ...]:
        """(Z)YX shape of each training image."""
        return tuple(image.shape for image in self.images)

    @property
    def class_frequencies(self) -> tuple[float, ...] | None:
        """Share of each class among the pixels that count, sum 1."""
        if self.class_counts is None or not sum(self.class_counts):
            return None
        return tuple(count / sum(self.class_counts) for count in self.class_counts)

    @property
    def annotated_share(self) -> float | None:
        """Share of the pixels of the training labels that are annotated; None if the labels were not read."""
        if self.class_counts is None:
            return None
        return sum(self.class_counts) / max(1, sum(prod(shape) for shape in self.shapes))

    def to_json(self) -> dict[str, Any]:
        """Plain dictionaries, lists, numbers and text."""
        return asdict(self)


def build_fingerprint(
    pairs: Sequence[ImagePair],
    scans: Sequence[ImageScan],
    *,
    num_channels: int,
    coding: LabelCoding,
    class_counts: tuple[int, ...] | None,
    object_diameter: float | None = None,
    named: NamedClasses | None = None,
) -> Fingerprint:
    """Gather the facts about `pairs` (at least one), whose images were scanned in the same order."""
    images = [pair.image for pair in pairs]
    # DATA.FORCE_RGB repeats single channels, so that grey and RGB images stand side by side.
    channels = [scan.channels * (num_channels // len(scan.channels)) for scan in scans]
    return Fingerprint(
        ndim=images[0].ndim,
        num_channels=num_channels,
        images=tuple(_facts(image) for image in images),
        spacing=median_spacing([image.spacing for image in images]),
        coding=coding,
        class_counts=class_counts,
        object_diameter=object_diameter,
        named=named,
        intensity=tuple(Intensity.merge(list(parts)) for parts in zip(*channels, strict=True)),
    )


def median_spacing(spacings: Sequence[Spacing | None]) -> tuple[float, ...] | None:
    """Median per axis, micrometres, of those that are known."""
    known = [spacing.values for spacing in spacings if spacing is not None]
    return tuple(median(axis) for axis in zip(*known, strict=True)) if known else None


def _facts(image: Image) -> ImageFacts:
    return ImageFacts(
        name=image.name,
        shape=image.spatial_shape,
        num_channels=image.num_channels,
        spacing=image.spacing.values if image.spacing is not None else None,
        dtype=image.dtype.name,
    )
