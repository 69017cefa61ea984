"""Splits keep training and validation apart; grids and loaders give what they promise."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest
import torch

from crista.config.data import Normalization, ValidationData
from crista.errors import PlanError
from crista.images.image import ImagePair
from crista.images.labels import LabelCoding
from crista.images.open import open_image
from crista.images.write import write_image
from crista.patches.cutting import PixelCache, Placement
from crista.patches.dataset import PatchSamples
from crista.patches.grid import fitted_patch, grid_placements
from crista.patches.loader import Batch, epoch_order, full_batches, iter_batches, rank_share, shuffled_order, uniform_batches
from crista.patches.normalization import compute_statistics
from crista.patches.placing import GridPlacer, RandomPlacer, Replicated
from crista.patches.split import Source, split_pairs, whole_sources


def make_pairs(folder: Path, count: int, shape: tuple[int, ...] = (20, 30)) -> list[ImagePair]:
    """Images whose pixel values are their own index, labels all zero but one."""
    pairs = []
    for index in range(count):
        image = np.arange(np.prod(shape), dtype=np.float32).reshape(shape) + 1000 * index
        label = np.zeros(shape, np.uint8)
        label[(0,) * len(shape)] = 1
        axes = "ZYX"[-len(shape) :]
        write_image(folder / f"{index}.tif", image, axes)
        write_image(folder / f"{index}_label.tif", label, axes)
        opened = [open_image(folder / name, ndim=len(shape)) for name in (f"{index}.tif", f"{index}_label.tif")]
        pairs.append(ImagePair(opened[0], opened[1]))
    return pairs


def names(sources: tuple[Source, ...]) -> set[str]:
    return {source.pair.name for source in sources}


@pytest.mark.parametrize("random", [True, False])
def test_images_are_split_without_overlap(tmp_path: Path, random: bool) -> None:
    pairs = make_pairs(tmp_path, 10)
    split = split_pairs(pairs, ValidationData(split_train=0.3, random=random), gap=(4, 4), seed=1)
    assert len(split.validation) == 3
    assert names(split.train) | names(split.validation) == {pair.name for pair in pairs}
    assert not names(split.train) & names(split.validation)
    if not random:
        assert names(split.validation) == {"7", "8", "9"}
    assert "3 of 10 images" in split.notice


def test_the_last_images_validate_where_chance_may_not_choose(tmp_path: Path) -> None:
    """Even if a class is in none but them: it is said, and nothing else is tried."""
    pairs = make_pairs(tmp_path, 4)
    profiles = [(np.array([[100], [int(index == 3)]]),) for index in range(4)]
    splits = {
        random: split_pairs(pairs, ValidationData(split_train=0.25, random=random), gap=(4, 4), seed=1, profiles=profiles)
        for random in (False, True)
    }
    assert names(splits[False].validation) == {"3"}
    assert "No annotated pixel of class 1 is left for training" in splits[False].notice
    assert "3" in names(splits[True].train)


def test_folds_partition_the_images(tmp_path: Path) -> None:
    pairs = make_pairs(tmp_path, 7)
    folds = [
        names(
            split_pairs(pairs, ValidationData(cross_val=True, cross_val_nfold=3, cross_val_fold=k), gap=(4, 4), seed=0).validation
        )
        for k in (1, 2, 3)
    ]
    assert set.union(*folds) == {str(i) for i in range(7)}
    assert sum(map(len, folds)) == 7


def test_fewer_images_than_folds_are_that_many_folds(tmp_path: Path) -> None:
    """No image validates twice: the fourth of five folds over three images is refused, not the third once more."""
    pairs = make_pairs(tmp_path, 3)
    configs = [ValidationData(cross_val=True, cross_val_fold=fold) for fold in (1, 2, 3, 4)]
    splits = [split_pairs(pairs, config, gap=(4, 4), seed=0) for config in configs[:3]]
    assert sorted(name for split in splits for name in names(split.validation)) == ["0", "1", "2"]
    assert "fold 3 of 3" in splits[2].notice
    with pytest.raises(PlanError, match=r"CROSS_VAL_FOLD: 4 of 5: 3 images make 3 folds\n.*use 1 to 3"):
        split_pairs(pairs, configs[3], gap=(4, 4), seed=0)


@pytest.mark.parametrize("shape", [(200, 40), (40, 200), (6, 40, 200)])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_one_image_is_split_into_blocks_with_a_gap(tmp_path: Path, shape: tuple[int, ...], seed: int) -> None:
    split = split_pairs(make_pairs(tmp_path, 1, shape), ValidationData(split_train=0.2), gap=(8,) * len(shape), seed=seed)
    use = np.zeros(shape, int)
    for source in split.train:
        use[source.region] += 1
    for source in split.validation:
        use[source.region] += 10
    assert set(np.unique(use)) == {0, 1, 10}  # gap, training, validation: never both
    assert (use == 10).mean() == pytest.approx(0.2)
    assert (use == 0).mean() == pytest.approx(8 / 200)
    assert "only one image" in split.notice
    assert split.shares_images


def test_folds_of_one_image_train_on_both_sides(tmp_path: Path) -> None:
    config = ValidationData(cross_val=True, cross_val_nfold=4, cross_val_fold=2)
    split = split_pairs(make_pairs(tmp_path, 1, (40, 200)), config, gap=(8, 8), seed=0)
    assert [source.region[1] for source in split.train] == [slice(0, 42), slice(108, 200)]
    assert split.validation[0].region[1] == slice(50, 100)


def test_one_pixel_trains_and_validates_and_says_so(tmp_path: Path) -> None:
    split = split_pairs(make_pairs(tmp_path, 1, (1, 1)), ValidationData(), gap=(8, 8), seed=0)
    assert "too small to keep a part for validation" in split.notice
    assert split.shares_images


def test_a_patch_never_holds_pixels_beyond_its_source(tmp_path: Path) -> None:
    """Block split: patches reach past the border of the block, and get reflected pixels, not the neighbour's."""
    pair = make_pairs(tmp_path, 1, (20, 200))[0]
    source = Source(pair, (slice(0, 20), slice(50, 70)))
    coding = LabelCoding(2)
    inside = set(pair.image.read((slice(0, 20), slice(50, 70))).ravel().tolist())
    for limit in (0, 10**9):
        pixels, label = PixelCache(coding, limit_bytes=limit).read(source, (slice(-6, 26), slice(44, 78)))
        assert pixels.shape == (1, 32, 34)
        assert label.shape == (32, 34)
        assert set(pixels.ravel().tolist()) <= inside


def test_cached_and_uncached_patches_are_equal(tmp_path: Path) -> None:
    source = whole_sources(make_pairs(tmp_path, 1))[0]
    region = (slice(3, 25), slice(-4, 12))
    cached = PixelCache(LabelCoding(2), limit_bytes=10**9).read(source, region)
    uncached = PixelCache(LabelCoding(2), limit_bytes=0).read(source, region)
    for a, b in zip(cached, uncached, strict=True):
        np.testing.assert_array_equal(a, b)


def test_grid_with_padding_covers_and_overlaps() -> None:
    places = grid_placements((50, 20), (24, 16), overlap=(0, 0), padding=(4, 2))
    covered = np.zeros((50, 20), bool)
    for place in places:
        covered[tuple(slice(max(0, s + p), s + n - p) for s, n, p in zip(place.start, place.size, (4, 2), strict=True))] = True
    assert covered.all()
    assert places[0] == Placement((-4, -2), (24, 16))


def test_padding_that_leaves_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="no inside"):
        grid_placements((50,), (8,), overlap=(0,), padding=(4,))


def test_validation_patches_of_small_sources_are_small() -> None:
    assert fitted_patch((37, 300), (96, 96), (8, 8)) == (40, 96)


def samples_of(folder: Path, count: int = 3) -> PatchSamples:
    sources = whole_sources(make_pairs(folder, count))
    statistics = [compute_statistics(source.pair.image, Normalization()) for source in sources]
    placer = Replicated(RandomPlacer(sources, (8, 8)), 4)
    return PatchSamples(sources, statistics, placer, PixelCache(LabelCoding(2), limit_bytes=10**9), seed=3)


def test_batches_do_not_depend_on_threads(tmp_path: Path) -> None:
    samples = samples_of(tmp_path)
    order = full_batches(shuffled_order(len(samples), epoch=2, seed=0), 5)
    runs = [list(iter_batches(samples, order, epoch=2, num_threads=threads)) for threads in (1, 4)]
    assert len(runs[0]) == 3
    for one, four in zip(*runs, strict=True):
        assert (one.images == four.images).all()
        assert one.names == four.names
        assert one.images.shape == (5, 1, 8, 8)


def test_batches_are_channels_last_even_of_one_channel(tmp_path: Path) -> None:
    """Strides of one channel are ambiguous; where they do not say channels last, the first layer computes contiguously."""
    (batch,) = iter_batches(samples_of(tmp_path), [[0, 1]], epoch=0, num_threads=1)
    assert batch.images.stride() == (64, 1, 8, 1)
    assert batch.targets.dtype == torch.uint8
    out = torch.nn.Conv2d(1, 4, 3, padding=1)(batch.images)
    assert out.is_contiguous(memory_format=torch.channels_last)


def test_the_loader_prepares_batches_in_its_threads(tmp_path: Path) -> None:
    names: list[str] = []

    def note(batch: Batch) -> Batch:
        names.append(threading.current_thread().name)
        return batch

    list(iter_batches(samples_of(tmp_path), [[0], [1]], epoch=0, num_threads=1, prepare=note))
    assert [name.startswith("crista-loader") for name in names] == [True, True]


def test_epochs_differ_and_repeat(tmp_path: Path) -> None:
    samples = samples_of(tmp_path)
    first, again, other = (samples.sample(1, epoch)[0].image for epoch in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_closing_the_loader_stops_it(tmp_path: Path) -> None:
    samples = samples_of(tmp_path)
    batches = iter_batches(samples, [[0]] * 100, epoch=0, num_threads=2)
    next(batches)
    assert any(thread.name.startswith("crista-loader") for thread in threading.enumerate())
    batches.close()  # type: ignore[attr-defined]
    assert not any(thread.name.startswith("crista-loader") for thread in threading.enumerate())


def test_batches_are_full_and_shared() -> None:
    batches = full_batches(list(range(10)), 4)
    assert batches == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]]  # 10 and 11 are 0 and 1 again, with other random numbers
    shares = [rank_share(batches[0], rank=rank, world_size=2) for rank in (0, 1)]
    assert shares == [[0, 1], [2, 3]]
    assert sorted(shuffled_order(10, epoch=1, seed=0)) == list(range(10))
    assert shuffled_order(10, epoch=1, seed=0) != shuffled_order(10, epoch=2, seed=0)


def test_a_batch_of_one_image_holds_different_patches(tmp_path: Path) -> None:
    """EXTRACT_RANDOM_PATCH draws one patch per image and epoch, and a batch takes more than there are images."""
    sources = whole_sources(make_pairs(tmp_path, 1))
    statistics = [compute_statistics(source.pair.image, Normalization()) for source in sources]
    cache = PixelCache(LabelCoding(2), limit_bytes=10**9)
    samples = PatchSamples(sources, statistics, RandomPlacer(sources, (8, 8)), cache, seed=3)
    order = epoch_order(len(samples), None, epoch=1, seed=0)
    (batch,) = iter_batches(samples, full_batches(order, 4), epoch=1, num_threads=1)
    assert len({image.numpy().tobytes() for image in batch.images}) == 4


def test_validation_batches_keep_shapes_together() -> None:
    shapes = [(8, 8), (8, 8), (8, 8), (4, 8), (8, 8)]
    assert uniform_batches(shapes, 2) == [[0, 1], [2], [3], [4]]


def test_replicated_grid(tmp_path: Path) -> None:
    sources = whole_sources(make_pairs(tmp_path, 1))
    grid = GridPlacer(sources, (10, 10), overlap=(0, 0), padding=(0, 0))
    repeated = Replicated(grid, 3)
    rng = np.random.default_rng(0)
    assert len(repeated) == 3 * len(grid) == 18
    assert repeated.place(7, rng) == grid.place(1, rng)


@pytest.mark.parametrize("shape", [(40, 200), (6, 40, 200)])
def test_two_images_are_both_split_into_blocks(tmp_path: Path, shape: tuple[int, ...]) -> None:
    """A tenth of each validates, and both train; only a share above a quarter keeps one image back."""
    pairs = make_pairs(tmp_path, 2, shape)
    split = split_pairs(pairs, ValidationData(), gap=(8,) * len(shape), seed=0)
    assert names(split.train) == names(split.validation) == {"0", "1"}
    for pair in pairs:
        use = np.zeros(shape, int)
        for part, number in ((split.train, 1), (split.validation, 10)):
            for source in part:
                if source.pair is pair:
                    use[source.region] += number
        assert set(np.unique(use)) == {0, 1, 10}
        assert (use == 10).mean() == pytest.approx(0.1)
    assert split.notice.startswith("only two images: x = ")
    assert "Validation sees images that are trained on" in split.notice
    kept = split_pairs(pairs, ValidationData(split_train=0.3), gap=(8,) * len(shape), seed=0)
    assert (len(kept.train), len(kept.validation)) == (1, 1)
    assert names(kept.train) != names(kept.validation)
    assert "1 of 2 images" in kept.notice
    folds = split_pairs(pairs, ValidationData(cross_val=True), gap=(8,) * len(shape), seed=0)
    assert (len(folds.train), len(folds.validation)) == (1, 1)
