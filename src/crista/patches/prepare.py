"""Prepare: from a plan and image pairs to the samples of training and validation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from crista.augmentations import build_pipeline
from crista.errors import DataError, Problem
from crista.images.image import ImagePair, short_name
from crista.images.labels import LabelCoding
from crista.images.look_cache import look_at_label
from crista.images.wording import list_names, place_of, plural
from crista.patches.annotated import BalancedPlacer, Keep, Redrawn, annotated_only, group_pixels
from crista.patches.blocks import ClassProfile, profile_classes
from crista.patches.class_sampling import AnywherePlacer, MixedPlacer
from crista.patches.cutting import PixelCache
from crista.patches.dataset import PatchSamples
from crista.patches.normalization import ImageStatistics, clipped_to_nothing, compute_statistics
from crista.patches.placing import GridPlacer, MappedPlacer, Placer, RandomPlacer, Replicated
from crista.patches.probability_map import ProbabilityMaps
from crista.patches.split import Source, Split, missing_classes, split_pairs, whole_sources
from crista.plan.plan import Plan
from crista.plan.topology import input_multiple


@dataclass(frozen=True)
class PreparedSamples:
    """Samples of training and validation, and how they came about."""

    train: PatchSamples
    validation: PatchSamples
    split: Split
    first: PatchSamples | None = None
    """The smaller training patches of the first epochs, if the plan has such."""
    warning: str = ""
    """Of images that clipping leaves nothing of; empty if there are none."""


def coding_of(plan: Plan) -> LabelCoding:
    """How stored label values become classes."""
    classes = plan.classes
    return LabelCoding(classes.num_classes, classes.ignore_index, classes.mapping, classes.ignored)


def make_split(plan: Plan, train: Sequence[ImagePair], validation: Sequence[ImagePair]) -> Split:
    """Training and validation sources; `validation` holds the images of DATA.VAL.PATH, if validation is not from training.

    Images without an annotated pixel are in neither.

    Raises
    ------
    DataError
        If no pixel of the training or of the validation labels is annotated.
    """
    coding = coding_of(plan)
    train, profiles, unused = _annotated(train, coding, key="DATA.TRAIN.GT_PATH", least=3)
    if not plan.config.data.val.from_train:
        validation, _, more = _annotated(validation, coding, key="DATA.VAL.GT_PATH", least=0)
        missing = _said_of_classes(train, validation, coding) if plan.config.data.train.check_data else ""
        notice = f"validation: the {len(validation)} images of DATA.VAL.PATH{missing}{_said(unused + more)}"
        return Split(whole_sources(train), whole_sources(validation), notice)
    gap = [max(1, size // 4) for size in plan.patch_size]
    totals = _class_totals(train, coding) if profiles is None else None
    split = split_pairs(train, plan.config.data.val, gap=gap, seed=plan.config.system.seed, profiles=profiles, totals=totals)
    return replace(split, notice=split.notice + _said(unused))


def _annotated(
    pairs: Sequence[ImagePair], coding: LabelCoding, *, key: str, least: int
) -> tuple[Sequence[ImagePair], list[ClassProfile] | None, list[str]]:
    """The pairs with annotated pixels, where each class is annotated, and the names of the others.

    Of labels without open pixels that is only asked for fewer than `least` pairs.
    """
    if (coding.ignore_index is None and len(pairs) >= least) or any(pair.label is None for pair in pairs):
        return pairs, None, []
    profiles = [profile_classes(pair.label, coding) for pair in pairs if pair.label is not None]
    kept = [index for index, profile in enumerate(profiles) if profile[0].any()]
    if not kept:
        ignored, where = ", ".join(map(str, coding.ignored_values)), place_of([pair.label.path for pair in pairs if pair.label])
        what = f"no pixel of {plural(len(pairs), 'label image')} is annotated: all are {ignored} (LOSS.IGNORE_INDEX)"
        next_step = "annotate some pixels of each class, or correct LOSS.IGNORE_INDEX"
        raise DataError("with the data", [Problem(f"{key} {where}", what, next_step)])
    names = [pair.name for index, pair in enumerate(pairs) if index not in kept]
    return [pairs[index] for index in kept], [profiles[index] for index in kept], names


def _class_totals(pairs: Sequence[ImagePair], coding: LabelCoding) -> NDArray[np.int64] | None:
    """Pixels of each class in each label image, (pairs, K), which the check has counted; None where one is missing."""
    totals = np.zeros((len(pairs), coding.num_classes), np.int64)
    for row, pair in zip(totals, pairs, strict=True):
        if pair.label is None:
            return None
        counts = look_at_label(pair.label).counts
        for value, number in coding.class_of.items():
            if number != coding.ignore_index:
                row[number] += counts.get(value, 0)
    return totals


def _said_of_classes(train: Sequence[ImagePair], validation: Sequence[ImagePair], coding: LabelCoding) -> str:
    """Classes that only training or only validation images hold; empty if there are none."""
    learnt, measured = _class_totals(train, coding), _class_totals(validation, coding)
    return "" if learnt is None or measured is None else missing_classes(learnt.sum(axis=0), measured.sum(axis=0))


def _said(unused: Sequence[str]) -> str:
    return f". {len(unused)} images without an annotated pixel are not used: {list_names(unused)}" if unused else ""


def prepare_samples(plan: Plan, split: Split, *, map_folder: Path, cache_bytes: int) -> PreparedSamples:
    """Read statistics, make probability maps, and put samples together.

    Parameters
    ----------
    map_folder : where probability maps are kept
    cache_bytes : images up to this many bytes in all stay in memory
    """
    data = plan.config.data
    coding = coding_of(plan)
    pipeline = build_pipeline(plan.augmentations, ndim=plan.ndim, ignore_index=plan.classes.ignore_index)
    train_cache = PixelCache(coding, limit_bytes=cache_bytes if data.train.in_memory else 0)
    same = data.val.in_memory == data.train.in_memory  # of one cache, so that both together keep to the limit
    validation_cache = train_cache if same else PixelCache(coding, limit_bytes=cache_bytes if data.val.in_memory else 0)
    statistics = _statistics(plan, [*split.train, *split.validation])
    train, *first = (
        PatchSamples(
            split.train,
            statistics[: len(split.train)],
            placer,
            train_cache,
            augment=pipeline,
            seed=plan.config.system.seed,
            repeat_to_rgb=data.force_rgb,
        )
        for placer in _train_placers(plan, split.train, map_folder, train_cache)
    )
    validation = PatchSamples(
        split.validation,
        statistics[len(split.train) :],
        GridPlacer(
            split.validation,
            plan.patch_size,
            overlap=_per_axis(data.val.overlap, plan.ndim),
            padding=[int(value) for value in _per_axis(data.val.padding, plan.ndim)],
            multiple=input_multiple(plan.model, plan.ndim),
            keep=_keep(plan, split.validation, validation_cache),
        ),
        validation_cache,
        repeat_to_rgb=data.force_rgb,
    )
    warning = _warning_of_clipping([*split.train, *split.validation], statistics)
    return PreparedSamples(train, validation, split, first[0] if first else None, warning)


def _statistics(plan: Plan, sources: Sequence[Source]) -> list[ImageStatistics]:
    """Statistics of each source's whole image, computed once per image: just what prediction would use for it."""
    known: dict[int, ImageStatistics] = {}
    for source in sources:
        key = id(source.pair)
        if key not in known:
            known[key] = compute_statistics(source.pair.image, plan.config.data.normalization)
    return [known[id(source.pair)] for source in sources]


def _warning_of_clipping(sources: Sequence[Source], statistics: Sequence[ImageStatistics]) -> str:
    empty = [source.pair for source, found in zip(sources, statistics, strict=True) if found.leaves_nothing]
    names = list(dict.fromkeys(pair.name for pair in empty))
    return f"{clipped_to_nothing(names)}: move UPPER_PERC towards 100, or set PERC_CLIP.ENABLE: False" if names else ""


def _train_placers(plan: Plan, sources: Sequence[Source], map_folder: Path, cache: PixelCache) -> list[Placer]:
    """That of the patches, and after it that of the smaller ones of the first epochs, if the plan has such."""
    train, placers = plan.config.data.train, list[Placer]()
    if plan.sparse_labels or plan.class_share:
        placers = _class_placers(plan, sources, cache)
    elif train.probability_map:
        placers = [_mapped_placer(plan, sources, map_folder, cache)]
    elif train.extract_random_patch:
        placers = [_kept(RandomPlacer(sources, plan.patch_size), _keep(plan, sources, cache))]
    else:
        placers = [_grid_placer(plan, sources, _keep(plan, sources, cache))]
    return [Replicated(placer, train.replicate) if train.replicate > 1 else placer for placer in placers]


def _class_placers(plan: Plan, sources: Sequence[Source], cache: PixelCache) -> list[Placer]:
    """Patches around annotated pixels of sparse labels; else so large a share of them around the foreground as the plan says."""
    classes, keep = range(plan.classes.num_classes), _keep(plan, sources, cache)
    pixels = group_pixels(sources, cache, classes if plan.sparse_labels else classes[1:])
    count = len(_grid_placer(plan, sources, keep=None))

    def of(patch: Sequence[int]) -> Placer:
        if plan.sparse_labels:
            return BalancedPlacer(sources, patch, pixels, count=count)
        anywhere = _kept(AnywherePlacer(sources, patch, count), keep)
        return (
            MixedPlacer(BalancedPlacer(sources, patch, pixels, count=count), anywhere, plan.class_share) if pixels else anywhere
        )

    return [of(patch) for patch in (plan.patch_size, plan.first_patch) if patch is not None]


def _mapped_placer(plan: Plan, sources: Sequence[Source], map_folder: Path, cache: PixelCache) -> Placer:
    train = plan.config.data.train
    store = ProbabilityMaps(map_folder, w_foreground=train.w_foreground, w_background=train.w_background)
    maps = [
        store.load_or_compute(_map_name(source), cache.read_label(source, source.region), plan.classes.ignore_index)
        for source in sources
    ]
    return MappedPlacer(sources, plan.patch_size, maps)


def _grid_placer(plan: Plan, sources: Sequence[Source], keep: Keep | None) -> Placer:
    train = plan.config.data.train
    overlap, padding = _per_axis(train.overlap, plan.ndim), [int(value) for value in _per_axis(train.padding, plan.ndim)]
    return GridPlacer(sources, plan.patch_size, overlap=overlap, padding=padding, keep=keep)


def _kept(placer: Placer, keep: Keep | None) -> Placer:
    """Random patches, drawn again while they are not kept."""
    return placer if keep is None else Redrawn(placer, keep)


def _keep(plan: Plan, sources: Sequence[Source], cache: PixelCache) -> Keep | None:
    """Patches without an annotated pixel are left out, where labels may have such pixels."""
    ignore_index = plan.classes.ignore_index
    return None if ignore_index is None else annotated_only(sources, cache, ignore_index)


def _map_name(source: Source) -> str:
    """The image's name; a block of an image carries its corner too."""
    corner, name = [axis.start for axis in source.region], short_name(source.pair.name)
    if not any(corner):
        return name
    return f"{name}_{'_'.join(map(str, corner))}"


def _per_axis(values: Sequence[float] | None, ndim: int) -> list[float]:
    """One value per axis; a single value, or equal ones, serve all."""
    if values is None:
        return [0.0] * ndim
    return list(values) if len(values) == ndim else [values[0]] * ndim
