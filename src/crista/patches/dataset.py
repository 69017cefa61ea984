"""PatchSamples: the samples of an epoch, each a function of (seed, epoch, index): any order or restart gives the same."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from crista.patches.cutting import PixelCache, normalized, placed
from crista.patches.normalization import ImageStatistics
from crista.patches.placing import Placer
from crista.patches.sample import Sample
from crista.patches.split import Source


class Augment(Protocol):
    """A random change of a sample."""

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        """The changed sample."""
        ...


def unchanged(sample: Sample, rng: np.random.Generator) -> Sample:  # noqa: ARG001 - the protocol's
    """No augmentation."""
    return sample


class PatchSamples:
    """Normalised, augmented samples of some sources.

    Parameters
    ----------
    sources : images (or blocks of one) to cut from
    statistics : normalisation of each source's image
    placer : chooses the patch of each sample
    augment : random change of each sample
    seed : with the epoch and the index of a sample it decides everything random about it
    """

    def __init__(
        self,
        sources: Sequence[Source],
        statistics: Sequence[ImageStatistics],
        placer: Placer,
        cache: PixelCache,
        *,
        augment: Augment = unchanged,
        seed: int = 0,
        repeat_to_rgb: bool = False,
    ) -> None:
        self.sources = tuple(sources)
        self._statistics = tuple(statistics)
        self.placer = placer
        self.cache = cache
        self.augment = augment
        self._seed = seed
        self._repeat_to_rgb = repeat_to_rgb

    def placed_by(self, placer: Placer) -> PatchSamples:
        """The same sources as they are, without augmentation, in patches that another placer chooses."""
        return PatchSamples(self.sources, self._statistics, placer, self.cache, repeat_to_rgb=self._repeat_to_rgb)

    def __len__(self) -> int:
        return len(self.placer)

    def rng(self, index: int, epoch: int) -> np.random.Generator:
        """The random generator of one sample of one epoch."""
        return np.random.default_rng((self._seed, epoch, index))

    def sample(self, index: int, epoch: int) -> tuple[Sample, str]:
        """Sample `index` of `epoch`, and the name of the image it is cut from.

        Beyond the last sample the first ones come again, with other random numbers.
        """
        rng = self.rng(index, epoch)
        cut, name = self.cut(index, rng)
        return self.augment(cut, rng), name

    def cut(self, index: int, rng: np.random.Generator) -> tuple[Sample, str]:
        """The sample before augmentation, and the name of its image."""
        number, placement = self.placer.place(index % len(self.placer), rng)
        source = self.sources[number]
        pixels, label = self.cache.read(source, placed(source, placement))
        image = normalized(pixels, self._statistics[number], repeat_to_rgb=self._repeat_to_rgb)
        return Sample(image, np.ascontiguousarray(label)), source.pair.name
