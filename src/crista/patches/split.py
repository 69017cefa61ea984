"""Split: which images, or which blocks of one or two images, train and which validate."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from crista.config.data import ValidationData
from crista.errors import PlanError, Problem
from crista.geometry.axes import Region
from crista.geometry.tiles import whole
from crista.images.image import ImagePair, crop_image
from crista.images.wording import list_names
from crista.patches.blocks import Block, ClassProfile, choose_block, class_counts

OTHER_ORDERS = 50
"""Random choices of validation images that are tried if the first leaves a class out of training or validation."""


@dataclass(frozen=True)
class Source:
    """A region of an image pair from which samples are cut; nothing outside it is ever read for them."""

    pair: ImagePair
    region: Region
    """(Z)YX box; the whole image unless an image is split into blocks."""

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

    @property
    def shares_images(self) -> bool:
        """Whether an image trains and validates: with a block each, or all of it with both."""
        trained = {(source.pair.image.path, source.pair.image.inner) for source in self.train}
        return any((source.pair.image.path, source.pair.image.inner) in trained for source in self.validation)


def whole_sources(pairs: Sequence[ImagePair]) -> tuple[Source, ...]:
    """Each pair as one source."""
    return tuple(Source(pair, whole(pair.image.spatial_shape)) for pair in pairs)


def split_pairs(
    pairs: Sequence[ImagePair],
    config: ValidationData,
    *,
    gap: Sequence[int],
    seed: int,
    profiles: Sequence[ClassProfile] | None = None,
    totals: NDArray[np.int64] | None = None,
) -> Split:
    """Split the training images by DATA.VAL: by image, or by blocks with a gap if there is only one.

    Two images are split by blocks too, unless DATA.VAL.SPLIT_TRAIN asks for one of them: half of the data is too much to keep
    back (nnU-Net keeps a fifth), and a network that has seen both images is the better one.

    Parameters
    ----------
    gap : (Z)YX voxels
        Width of the strip between training and validation blocks of one image that belongs to neither.
    profiles : where each class is annotated, one per pair
    totals : (pairs, K) pixels of each class; those of the profiles, if they are left out
        With one of them the split leaves every class in both parts, where that can be.

    Raises
    ------
    PlanError
        If there are too few images for the fold that is asked for.
    """
    by_blocks = len(pairs) == 1 or (len(pairs) == 2 and not config.cross_val and round(2 * config.split_train) == 0)
    if by_blocks:
        return _split_blocks(pairs, config, gap, seed, profiles)
    if config.cross_val and config.cross_val_nfold > len(pairs):
        _require_fold(config, len(pairs))
        config = config.model_copy(update={"cross_val_nfold": len(pairs)})
    if totals is None and profiles is not None:
        totals = np.stack([profile[0].sum(axis=1) for profile in profiles])
    choices = list(_choices(len(pairs), config, seed, tries=0 if totals is None else OTHER_ORDERS))
    chosen = choices[0] if totals is None else max(choices, key=lambda choice: _classes_in_both(totals, choice))
    sources = whole_sources(pairs)
    notice = f"validation: {len(chosen)} of {len(pairs)} images ({_how(config)}); they are not trained on"
    if totals is not None:
        inside = np.isin(np.arange(len(pairs)), list(chosen))
        notice += missing_classes(totals[~inside].sum(axis=0), totals[inside].sum(axis=0))
    return Split(
        train=tuple(source for i, source in enumerate(sources) if i not in chosen),
        validation=tuple(source for i, source in enumerate(sources) if i in chosen),
        notice=notice,
    )


def _require_fold(config: ValidationData, count: int) -> None:
    """Refuse a fold beyond those that `count` images make: it would be another one again, and count twice in their mean."""
    if config.cross_val_fold > count:
        what = f"{config.cross_val_fold} of {config.cross_val_nfold}: {count} images make {count} folds"
        problem = Problem("DATA.VAL.CROSS_VAL_FOLD", what, f"use 1 to {count}; they are all there are")
        raise PlanError("in how the configuration and the data fit together", [problem])


def _choices(count: int, config: ValidationData, seed: int, *, tries: int) -> Iterator[frozenset[int]]:
    """Images that may validate: first those that DATA.VAL means, then up to `tries` others where chance may choose."""
    order = np.random.default_rng(seed).permutation(count) if config.random else np.arange(count)
    if config.cross_val:
        folds = np.array_split(order, config.cross_val_nfold)
        yield frozenset(folds[config.cross_val_fold - 1].tolist())
        return
    kept = min(max(1, round(count * config.split_train)), count - 1)
    yield frozenset(order[-kept:].tolist())
    for other in range(1, tries + 1 if config.random else 1):
        yield frozenset(np.random.default_rng((seed, other)).permutation(count)[-kept:].tolist())


def _how(config: ValidationData) -> str:
    if config.cross_val:
        return f"fold {config.cross_val_fold} of {config.cross_val_nfold}"
    return f"{config.split_train:.0%} of the images" + (" chosen at random" if config.random else " from the end")


def _classes_in_both(totals: NDArray[np.int64], chosen: frozenset[int]) -> tuple[int, int]:
    """Classes annotated in training and in validation, then those in training; `totals` are (images, K) pixels."""
    inside = np.isin(np.arange(len(totals)), list(chosen))
    training, validation = (totals[rows].sum(axis=0) > 0 for rows in (~inside, inside))
    return int((training & validation).sum()), int(training.sum())


def missing_classes(training: NDArray[np.int64], validation: NDArray[np.int64]) -> str:
    """What to say of classes that are annotated somewhere but not in both parts; empty if there are none."""
    unlearnt = [str(k) for k in np.flatnonzero((validation > 0) & (training == 0))]
    unmeasured = [str(k) for k in np.flatnonzero((training > 0) & (validation == 0))]
    said = f". No annotated pixel of class {list_names(unlearnt)} is left for training" if unlearnt else ""
    if unmeasured:
        said += f". Validation holds no annotated pixel of class {list_names(unmeasured)} and says nothing about it"
    return said


def _split_blocks(
    pairs: Sequence[ImagePair],
    config: ValidationData,
    gap: Sequence[int],
    seed: int,
    profiles: Sequence[ClassProfile] | None,
) -> Split:
    """One or two images: a block of each validates, the rest beyond the gap trains."""
    train: list[Source] = []
    validation: list[Source] = []
    said, small, counts = [], [], []
    for index, pair in enumerate(pairs):
        shape, profile = pair.image.spatial_shape, profiles[index] if profiles is not None else None
        block = choose_block(shape, config, gap=gap, seed=seed, profile=profile)
        sides = block.sides(shape[block.axis])
        parts = class_counts(block, profile) if profile is not None else None
        # A part without any annotated pixel could not be validated (or trained) on.
        if not sides or (parts is not None and not all(part.any() for part in parts)):
            small.append(f"{pair.name} is {'annotated in too small an area' if sides else 'too small'}")
            train.append(Source(pair, whole(shape)))
            validation.append(Source(pair, whole(shape) if sides else block.region(shape, block.start, block.stop)))
            continue
        train.extend(Source(pair, block.region(shape, *side)) for side in sides)
        validation.append(Source(pair, block.region(shape, block.start, block.stop)))
        said.append(_place(block, pair.name, len(shape)))
        counts.extend([parts] if parts is not None else [])
    missing = missing_classes(*(sum(part) for part in zip(*counts, strict=True))) if counts else ""
    return Split(tuple(train), tuple(validation), _block_notice(len(pairs), said, small) + missing)


def _place(block: Block, name: str, ndim: int) -> str:
    return f"{'zyx'[-ndim:][block.axis]} = {block.start} to {block.stop - 1} of {name} ({block.strip} pixels beside it left out)"


def _block_notice(count: int, said: Sequence[str], small: Sequence[str]) -> str:
    """How one or two images were split, and what the validation is worth."""
    parts = []
    if said:
        few = "only one image" if count == 1 else "only two images"
        parts.append(
            f"{few}: {' and '.join(said)} validates, the rest trains. Validation sees images that are trained on: it "
            "chooses the network, and new images may come out worse. More images would give a more honest validation"
        )
    if small:
        parts.append(
            f"{' and '.join(small)} to keep a part for validation: the whole image trains and validates, so the validation "
            "figures are too good"
        )
    return "; ".join(parts)
