"""What every augmentation is: an object built from its configuration, called with a sample and a generator."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, Generic, Protocol, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from crista.config.augmentor import Augmentation
from crista.geometry.orientation import Orientation
from crista.registry import Registry

FloatArray = NDArray[np.float32]
LabelArray = NDArray[np.uint8]


class SampleLike(Protocol):
    """What augmentations need of a sample: aligned pixels, and a copy with other pixels."""

    @property
    def image(self) -> FloatArray:
        """C(Z)YX, normalised."""
        ...

    @property
    def label(self) -> LabelArray:
        """(Z)YX classes."""
        ...

    def with_arrays(self, **arrays: Any) -> Self:
        """A copy with other pixels."""
        ...


AnySample = TypeVar("AnySample", bound=SampleLike)
ConfigT = TypeVar("ConfigT", bound=Augmentation)

AUGMENTATIONS: Registry[Augment[Any]] = Registry("augmentation")


@dataclass(frozen=True)
class Augment(ABC, Generic[ConfigT]):
    """One augmentation. Calling it always applies it; the pipeline decides by its probability whether to call.

    The input arrays are never modified, shapes and dtypes are kept, and the arrays returned are contiguous.
    """

    config: ConfigT
    ndim: int
    """Spatial axes of the samples, 2 or 3."""
    ignore_index: int | None = None
    """Label value of pixels without annotation."""

    @property
    def name(self) -> str:
        """Name for traces and file names: that of the configuration class."""
        return type(self.config).__name__

    def orientations(self, shape: tuple[int, ...]) -> tuple[Orientation, ...]:  # noqa: ARG002
        """Those that it may bring a sample of `shape`, (Z)YX, into; none where it leaves the sample upright."""
        return ()

    @abstractmethod
    def __call__(self, sample: AnySample, rng: np.random.Generator) -> AnySample:
        """A changed copy of `sample`; everything random is drawn from `rng`."""
