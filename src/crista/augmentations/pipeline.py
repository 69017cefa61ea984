"""The pipeline: augmentations in order, each with its probability, deformations interpolated together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

# The registry is filled when these modules are imported.
from crista.augmentations import flips, intensity  # noqa: F401
from crista.augmentations.base import AUGMENTATIONS, AnySample, Augment
from crista.augmentations.spatial import Deformation
from crista.augmentations.warp import Warp, resample
from crista.config.augmentor import Augmentation


class Pipeline:
    """Augmentations in their order. The same sample and generator state always give the same result."""

    def __init__(self, augments: Sequence[Augment[Any]], *, ignore_index: int | None = None) -> None:
        self.augments = tuple(augments)
        self.ignore_index = ignore_index

    def __call__(self, sample: AnySample, rng: np.random.Generator) -> AnySample:
        """An augmented copy of `sample`; the input is not modified."""
        return self.trace(sample, rng)[0]

    def trace(self, sample: AnySample, rng: np.random.Generator) -> tuple[AnySample, tuple[str, ...]]:
        """The augmented sample and the names of what was applied, in order."""
        applied = []
        waiting: list[Warp] = []
        for augment in self.augments:
            if rng.random() >= augment.config.probability:
                continue
            applied.append(augment.name)
            if isinstance(augment, Deformation):
                waiting.append(augment.draw(sample.label.shape, rng))
                continue
            sample = self._flush(sample, waiting)
            sample = augment(sample, rng)
        return self._flush(sample, waiting), tuple(applied)

    def _flush(self, sample: AnySample, waiting: list[Warp]) -> AnySample:
        """`sample` after the warps that wait, which are then done."""
        if not waiting:
            return sample
        warps = tuple(waiting)
        waiting.clear()
        return resample(sample, warps, self.ignore_index)


def build_pipeline(transforms: Sequence[Augmentation], *, ndim: int, ignore_index: int | None) -> Pipeline:
    """The pipeline of `transforms` (as `Augmentor.transforms` gives them) for samples of `ndim` spatial axes.

    `ignore_index` marks label pixels without annotation; what a deformation with border `constant` brings
    in from outside is such a pixel too (background where there is no ignore index).

    Raises ValueError for an augmentation of z in 2D, and ConfigError for parameters out of range.
    """
    augments = [AUGMENTATIONS.build(config, ndim=ndim, ignore_index=ignore_index) for config in transforms]
    return Pipeline(augments, ignore_index=ignore_index)
