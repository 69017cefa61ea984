"""Split: which images, or which blocks of the only image, train and which validate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from crista.config.data import ValidationData
from crista.geometry.axes import Region
from crista.geometry.tiles import whole
from crista.images.image import ImagePair, crop_image


@dataclass(frozen=True)
class Source:
    """A region of an image pair from which samples are cut; nothing outside it is ever read for them."""

    pair: ImagePair
    region: Region
    """(Z)YX box; the whole image unless one image is split into blocks."""

    @property
    def cropped(self) -> ImagePair:
        """The region as a pair of its own."""
        label = crop_image(self.pair.label, self.region) if self.pair.label is not None else None
        return ImagePair(crop_image(self.pair.image, self.region), label)

    @property
    def shape(self) -> tuple[int, ...]:
        """Voxels of the region along (Z)YX."""
        return tuple(axis.stop - axis.start for axis in self.region)


@dataclass(frozen=True)
class Split:
    """Sources of training and of validation samples, disjoint."""

    train: tuple[Source, ...]
    validation: tuple[Source, ...]
    notice: str
    """One line that says how the split was made."""


def whole_sources(pairs: Sequence[ImagePair]) -> tuple[Source, ...]:
    """Each pair as one source."""
    return tuple(Source(pair, whole(pair.image.spatial_shape)) for pair in pairs)


def split_pairs(pairs: Sequence[ImagePair], config: ValidationData, *, gap: Sequence[int], seed: int) -> Split:
    """Split the training images by DATA.VAL: by image, or by blocks with a gap if there is only one.

    Parameters
    ----------
    gap : (Z)YX voxels
        Width of the strip between training and validation blocks of one image that belongs to neither.
    """
    if len(pairs) == 1:
        return _split_blocks(pairs[0], config, gap, seed)
    if config.cross_val and config.cross_val_nfold > len(pairs):
        config = config.model_copy(update={"cross_val_nfold": len(pairs)})
    order = np.arange(len(pairs))
    if config.random:
        order = np.random.default_rng(seed).permutation(len(pairs))
    if config.cross_val:
        folds = np.array_split(order, config.cross_val_nfold)
        chosen = set(folds[min(config.cross_val_fold, len(folds)) - 1].tolist())
        how = f"fold {config.cross_val_fold} of {config.cross_val_nfold}"
    else:
        count = min(max(1, round(len(pairs) * config.split_train)), len(pairs) - 1)
        chosen = set(order[-count:].tolist())
        how = f"{config.split_train:.0%} of the images" + (" chosen at random" if config.random else " from the end")
    sources = whole_sources(pairs)
    return Split(
        train=tuple(source for i, source in enumerate(sources) if i not in chosen),
        validation=tuple(source for i, source in enumerate(sources) if i in chosen),
        notice=f"validation: {len(chosen)} of {len(pairs)} images ({how}); they are not trained on",
    )


def _split_blocks(pair: ImagePair, config: ValidationData, gap: Sequence[int], seed: int) -> Split:
    """One image: a block across its longest in-plane axis validates, the rest beyond the gap trains."""
    shape = pair.image.spatial_shape
    ndim = len(shape)
    axis = max(range(ndim - 2, ndim), key=lambda i: shape[i])
    length = shape[axis]
    strip = min(gap[axis], max(1, length // 20)) if length >= 8 else 0
    if config.cross_val:
        edges = np.linspace(0, length, config.cross_val_nfold + 1).round().astype(int)
        start, stop = int(edges[config.cross_val_fold - 1]), int(edges[config.cross_val_fold])
    else:
        size = min(max(1, round(length * config.split_train)), max(1, length - 1))
        at_start = config.random and bool(np.random.default_rng(seed).integers(2))
        start, stop = (0, size) if at_start else (length - size, length)

    def block(low: int, high: int) -> Region:
        return tuple(slice(low, high) if i == axis else slice(0, n) for i, n in enumerate(shape))

    sides = [(0, start - strip), (stop + strip, length)]
    train = tuple(Source(pair, block(low, high)) for low, high in sides if high - low > 0)
    letter = "ZYX"[-ndim:][axis].lower()
    if not train:
        train = (Source(pair, block(0, length)),)
        notice = f"{pair.name} is too small to keep a part for validation: the whole image trains and validates"
    else:
        notice = (
            f"only one image: {letter} = {start} to {stop - 1} of {pair.name} validates, {strip} pixels beside it are left "
            "out, the rest trains. More images would give a more honest validation"
        )
    return Split(train, (Source(pair, block(start, stop)),), notice)
