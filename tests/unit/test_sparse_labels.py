"""Labels that leave pixels open: how they are read, where patches are drawn, and what is kept for validation."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.unit.test_images_labels import decide, image_of, only_problem, warnings_of
from tests.unit.test_plan import facts, plan

from crista.config.data import ValidationData
from crista.config.load import config_from_dict
from crista.config.loss import Loss
from crista.errors import ConfigError, DataError
from crista.geometry.axes import Region
from crista.images.coding import CodingDecision
from crista.images.image import ImagePair
from crista.images.labels import LabelCoding, class_counts, make_coding, read_label
from crista.images.open import open_image
from crista.images.write import write_image
from crista.patches.annotated import BalancedPlacer, Redrawn, annotated_only, group_pixels
from crista.patches.blocks import choose_block, profile_classes
from crista.patches.blocks import class_counts as block_counts
from crista.patches.cutting import PixelCache, placed
from crista.patches.pixel_group import GatheredPixels, PixelGroup
from crista.patches.placing import GridPlacer, RandomPlacer
from crista.patches.prepare import make_split, prepare_samples
from crista.patches.preview import write_mark_images
from crista.patches.split import Source, Split, split_pairs, whole_sources


def scribbles(*values: int, far: int, shape: tuple[int, int] = (40, 40)) -> np.ndarray:
    """A label image of `far` with a short stroke of each value."""
    label = np.full(shape, far, np.uint8)
    for index, value in enumerate(values):
        label[4 * index + 2 : 4 * index + 4, 5:15] = value
    return label


def write_pair(folder: Path, name: str, label: np.ndarray) -> ImagePair:
    axes = "ZYX"[-label.ndim :]
    rng = np.random.default_rng(len(name))
    write_image(folder / "x" / f"{name}.tif", rng.integers(0, 255, label.shape).astype(np.uint8), axes)
    write_image(folder / "y" / f"{name}.tif", label, axes)
    image, mask = (open_image(folder / kind / f"{name}.tif", ndim=label.ndim, is_label=kind == "y") for kind in "xy")
    return ImagePair(image, mask)


# --- the key -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "values"),
    [(-1, ()), (255, (255,)), ([255, 254], (254, 255)), ("[7, 9]", (7, 9)), ([], ()), ([-1], ()), (65535, (65535,))],
)
def test_one_value_or_several(given: Any, values: tuple[int, ...]) -> None:
    assert config_from_dict({"LOSS": {"IGNORE_INDEX": given}}).config.loss.ignored_values == values
    assert Loss(ignore_index=given).ignored_values == values


def test_a_class_cannot_be_ignored_and_scribbles_that_start_at_1_get_advice() -> None:
    with pytest.raises(ConfigError, match=r"(?s)0 is also a class.*leave DATA\.N_CLASSES out"):
        config_from_dict({"DATA": {"N_CLASSES": 2}, "LOSS": {"IGNORE_INDEX": [0, 255]}})


# --- reading -----------------------------------------------------------------------------------------------------------


def test_all_open_pixels_become_one_value() -> None:
    coding = make_coding(2, (254, 200))
    assert coding == LabelCoding(2, 255, None, (200, 254))
    found = read_label(image_of([[0, 1, 200], [254, 1, 0]]), coding)
    np.testing.assert_array_equal(found, [[0, 1, 255], [255, 1, 0]])
    assert class_counts([{0: 5, 1: 3, 200: 7, 254: 9}], coding) == (5, 3)
    assert make_coding(3, (255,)) == LabelCoding(3, 255)
    assert make_coding(3, ()) == LabelCoding(3)


def test_zero_can_be_the_open_value_and_the_others_become_classes_in_order() -> None:
    """The convention of painting tools: 0 is not painted, 1 is background, 2 an object."""
    decision = decide(scribbles(1, 2, far=0), scribbles(1, far=0), ignore_index=0)
    assert decision.coding == LabelCoding(2, 255, ((1, 0), (2, 1)), (0,))
    assert "1 -> 0, 2 -> 1" in warnings_of(decision)
    found = read_label(image_of([[0, 1, 2]]), decision.coding)
    np.testing.assert_array_equal(found, [[255, 0, 1]])


def test_several_values_are_left_out_of_classes_and_counts() -> None:
    label = scribbles(0, 1, far=255)
    label[30:] = 254
    decision = decide(label, ignore_index=[254, 255])
    assert decision == CodingDecision(LabelCoding(2, 255, None, (254, 255)))
    told = warnings_of(decide(label, ignore_index=[9, 254, 255]))
    assert "9 occurs in no label image of y; their values are {0, 1}\n    -> correct it, or leave it out" in told


@pytest.mark.parametrize("values", [(0, 1), (0, 1, 2), (1, 2)])
@pytest.mark.parametrize("far", [255, 100])
def test_a_far_value_in_most_pixels_is_suspected(values: tuple[int, ...], far: int) -> None:
    text = only_problem(decide(scribbles(*values, far=far)))
    assert f"set LOSS.IGNORE_INDEX: {far} to leave these pixels out" in text
    assert f"fills {1 - 20 * len(values) / 1600:.1%} of the pixels" in text
    assert decide(scribbles(*values, far=far), num_classes=len(values) + 1).problems == ()
    assert decide(scribbles(*values, far=far), ignore_index=far).problems == ()


def test_a_class_of_many_pixels_is_not_suspected() -> None:
    assert decide(scribbles(0, 1, far=2)).coding == LabelCoding(3)
    assert decide(scribbles(0, far=255)).coding == LabelCoding(2, None, ((0, 0), (255, 1)))


# --- the plan ----------------------------------------------------------------------------------------------------------


def test_sparse_labels_are_seen_and_said() -> None:
    made = plan(facts(counts=(9000, 1000)), LOSS__IGNORE_INDEX=255)  # of 8 · 256² pixels
    said = [decision for decision in made.decisions if decision.key == "DATA.TRAIN.PROBABILITY_MAP"]
    assert made.sparse_labels
    assert len(said) == 1
    assert said[0].reason.startswith("1.91% of the pixels are annotated")


@pytest.mark.parametrize(
    "keys",
    [
        {},
        {"LOSS__IGNORE_INDEX": 255, "DATA__TRAIN__EXTRACT_RANDOM_PATCH": True},
        {"LOSS__IGNORE_INDEX": 255, "DATA__TRAIN__EXTRACT_RANDOM_PATCH": False},
        {"LOSS__IGNORE_INDEX": 255, "DATA__TRAIN__EXTRACT_RANDOM_PATCH": True, "DATA__TRAIN__PROBABILITY_MAP": True},
        {"LOSS__IGNORE_INDEX": 255, "DATA__TRAIN__CLASS_SHARE": 0.5},
    ],
)
def test_keys_that_choose_patches_win(keys: dict[str, Any]) -> None:
    assert not plan(facts(counts=(9000, 1000)), **keys).sparse_labels


def test_labels_that_are_mostly_annotated_are_not_sparse() -> None:
    half = 8 * 256**2 // 2
    assert not plan(facts(counts=(half - 9, 9)), LOSS__IGNORE_INDEX=255).sparse_labels
    assert plan(facts(counts=(half - 10, 9)), LOSS__IGNORE_INDEX=255).sparse_labels
    assert not plan(facts(counts=None), LOSS__IGNORE_INDEX=255).sparse_labels


# --- patches -----------------------------------------------------------------------------------------------------------


def test_classes_are_drawn_equally_and_the_drawn_pixel_is_in_the_patch(tmp_path: Path) -> None:
    """A class of 3 pixels is drawn as often as one of 1000, over two images of which one lacks it; each pixel equally."""
    first, second = np.full((60, 80), 255, np.uint8), np.full((60, 80), 255, np.uint8)
    first[10:20, :] = 0
    first[40, 30:33] = 1
    second[5:15, 10:30] = 0
    pairs = [write_pair(tmp_path, name, label) for name, label in (("a", first), ("b", second))]
    sources, labels = whole_sources(pairs), [first, second]
    pixels = group_pixels(sources, PixelCache(LabelCoding(3, 255), limit_bytes=0), range(3))
    placer = BalancedPlacer(sources, (16, 16), pixels, count=7)
    assert len(placer) == 7
    drawn: Counter[int] = Counter()
    where: Counter[int] = Counter()
    offsets = []
    rng = np.random.default_rng(0)
    for _ in range(4000):
        number, placement = placer.place(0, rng)
        pixel = placement.centre
        assert pixel is not None
        for start, size, position, length in zip(placement.start, placement.size, pixel, (60, 80), strict=True):
            assert 0 <= start <= length - size
            assert start <= position < start + size
        drawn[int(labels[number][pixel])] += 1
        where[number] += labels[number][pixel] == 0
        offsets.append(pixel[1] - placement.start[1] if labels[number][pixel] == 1 else 8)
    assert drawn[0] == pytest.approx(2000, abs=150)
    assert drawn[1] == pytest.approx(2000, abs=150)
    assert where[0] / where[1] == pytest.approx(800 / 200, rel=0.2)  # each pixel of a class is as likely
    assert (min(offsets), max(offsets)) == (4, 11)  # the middle half of the patch


def test_nothing_annotated_cannot_be_drawn_from(tmp_path: Path) -> None:
    pair = write_pair(tmp_path, "a", np.full((20, 20), 255, np.uint8))
    pixels = group_pixels(whole_sources([pair]), PixelCache(LabelCoding(2, 255), limit_bytes=0), range(2))
    assert pixels == []
    with pytest.raises(ValueError, match="no pixel of these labels is annotated"):
        BalancedPlacer(whole_sources([pair]), (8, 8), pixels, count=1)


@pytest.mark.parametrize("large", [0, 2**28], ids=["large", "small"])
def test_pixels_are_gathered_in_blocks_whatever_the_size_of_the_label(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, large: int
) -> None:
    """Classes of 2 % and of a third of the pixels, in a part of a volume: no more than a block is read, and the same drawn."""
    label = np.random.default_rng(0).choice([0, 1, 2], size=(7, 33, 41), p=[0.63, 0.02, 0.35]).astype(np.uint8)
    pair = write_pair(tmp_path, "a", label)
    sources = (Source(pair, (slice(1, 7), slice(0, 33), slice(3, 41))),)
    monkeypatch.setattr("crista.patches.annotated.BLOCK_VALUES", 300)
    monkeypatch.setattr("crista.patches.pixel_group.LARGE", large)
    asked: list[int] = []
    read = PixelCache.read_label

    def note(self: PixelCache, source: Source, region: Region) -> np.ndarray:
        found = read(self, source, region)
        asked.append(found.size)
        return found

    monkeypatch.setattr(PixelCache, "read_label", note)
    gathered = group_pixels(sources, PixelCache(LabelCoding(3), limit_bytes=0), (1, 2))
    assert max(asked) <= 300
    assert sum(asked) == 6 * 33 * 38
    for value, [(number, group)] in zip((1, 2), gathered, strict=True):
        mask = label[sources[0].region] == value
        expected = PixelGroup.of(mask)
        assert (number, group.count) == (0, expected.count) == (0, mask.sum())
        assert (group.bits is None) is (expected.bits is None) is (value == 1 and large > 0)
        one, other = np.random.default_rng(1), np.random.default_rng(1)
        drawn = [group.draw(one) for _ in range(20 * group.count)]
        assert drawn == [expected.draw(other) for _ in range(20 * group.count)]
        assert set(drawn) == set(np.flatnonzero(mask).tolist())


def test_blocks_that_begin_anywhere_give_the_same_group() -> None:
    """Bits of a row begin at a whole byte; a block need not."""
    mask = np.random.default_rng(0).random((5, 30)) < 0.6
    gathered = GatheredPixels(mask.shape)
    for columns in (slice(13, 30), slice(0, 13)):
        for rows in (slice(0, 2), slice(2, 5)):
            gathered.add((rows, columns), mask[rows, columns])
    group, expected = gathered.group(), PixelGroup.of(mask)
    assert group.bits is not None
    np.testing.assert_array_equal(group.bits, expected.bits)
    np.testing.assert_array_equal(group.bits, np.packbits(mask, axis=-1))
    assert group.count == expected.count == mask.sum()


def test_of_a_large_image_the_surroundings_of_the_patch_are_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pictures of patches around scribbles: the same square and point, and no picture of the whole image."""
    label = np.full((300, 400), 255, np.uint8)
    label[200:210, 340:350], label[20:25, 30:40] = 0, 1
    sources = whole_sources([write_pair(tmp_path, "a", label)])
    made = plan(facts([(300, 400)] * 2), LOSS__IGNORE_INDEX=255, DATA__PATCH_SIZE="(64, 64, 1)")
    samples = prepare_samples(made, Split(sources, sources, ""), map_folder=tmp_path, cache_bytes=0).train
    whole = [open_image(path).read() for path in write_mark_images(samples, tmp_path / "whole", count=3)]
    monkeypatch.setattr("crista.patches.preview.SHOWN_VOXELS", 100)
    parts = [open_image(path).read() for path in write_mark_images(samples, tmp_path / "parts", count=3)]
    assert len(parts) == len(whole) == 6
    for picture, part in zip(whole, parts, strict=True):
        assert picture.shape == (3, 300, 400)
        assert max(part.shape[1:]) <= 3 * 64
        masks = [(image[2] == 255) & (image[0] == 0) for image in (picture, part)]
        assert masks[0].sum() == masks[1].sum() > 200
        reds = [(image[0] == 255) & (image[2] == 0) for image in (picture, part)]
        (y, x), (top, left) = (np.argwhere(mask).mean(axis=0) for mask in (reds[0], masks[0]))
        (v, u), (above, before) = (np.argwhere(mask).mean(axis=0) for mask in (reds[1], masks[1]))
        assert (y - top, x - left) == pytest.approx((v - above, u - before))


@pytest.mark.parametrize("limit", [0, 10**9])
def test_grid_and_random_patches_hold_annotation(tmp_path: Path, limit: int) -> None:
    label = np.full((64, 64), 255, np.uint8)
    label[2, 3] = 1
    label[40:44, 40:44] = 0
    sources = whole_sources([write_pair(tmp_path, "a", label)])
    cache = PixelCache(LabelCoding(2, 255), limit_bytes=limit)
    keep = annotated_only(sources, cache, 255)
    grid = GridPlacer(sources, (16, 16), overlap=(0, 0), padding=(0, 0), keep=keep)
    rng = np.random.default_rng(0)
    assert [grid.place(i, rng)[1].start for i in range(len(grid))] == [(0, 0), (32, 32)]
    random = Redrawn(RandomPlacer(sources, (16, 16)), keep)
    for _ in range(50):
        number, placement = random.place(0, rng)
        assert (label[placed(sources[number], placement)] != 255).any()


def test_samples_of_sparse_labels_all_hold_annotation(tmp_path: Path) -> None:
    """Training and validation patches of a plan, as many as the grid has for training."""
    pairs = []
    for index in range(4):
        label = np.full((64, 64), 255, np.uint8)
        label[8 * index : 8 * index + 3, 10:30] = 0
        label[40, 40:44] = 1
        pairs.append(write_pair(tmp_path, f"{index}", label))
    made = plan(
        facts(shapes=((64, 64),) * 4, counts=(240, 16)),
        LOSS__IGNORE_INDEX=255,
        DATA__PATCH_SIZE="(32,32,1)",
        **{"DATA__VAL__SPLIT_TRAIN": 0.25},
    )
    samples = prepare_samples(made, make_split(made, pairs, []), map_folder=tmp_path, cache_bytes=10**8)
    assert len(samples.train) == 3 * 4
    assert len(samples.validation) == 2
    for part in (samples.train, samples.validation):
        for index in range(len(part)):
            assert (part.cut(index, part.rng(index, 1))[0].label != 255).any()


# --- the split ---------------------------------------------------------------------------------------------------------


def test_profiles_count_classes_along_each_axis(tmp_path: Path) -> None:
    label = np.full((2, 3, 4), 255, np.uint8)
    label[0, 1, 2:] = 1
    label[1, 1, 3] = 0
    pair = write_pair(tmp_path, "a", label)
    assert pair.label is not None
    z, y, x = profile_classes(pair.label, LabelCoding(2, 255))
    np.testing.assert_array_equal(z, [[0, 1], [2, 0]])
    np.testing.assert_array_equal(y, [[0, 1, 0], [0, 3 - 1, 0]])
    np.testing.assert_array_equal(x, [[0, 0, 0, 1], [0, 0, 1, 1]])


@pytest.mark.parametrize("seed", [0, 1, 2, 3])
@pytest.mark.parametrize("rare", [(0, 8), (92, 100), (44, 56)])
def test_one_image_keeps_every_class_in_both_parts_where_it_can(tmp_path: Path, rare: tuple[int, int], seed: int) -> None:
    """A rare class at an end or in the middle, wherever chance would have put the validation block."""
    label = np.zeros((60, 100), np.uint8)
    label[:30, slice(*rare)] = 1
    pair = write_pair(tmp_path, "a", label)
    assert pair.label is not None
    profile = profile_classes(pair.label, LabelCoding(2))
    block = choose_block((60, 100), ValidationData(split_train=0.1), gap=(8, 8), seed=seed, profile=profile)
    training, validation = block_counts(block, profile)
    assert (training > 0).all()
    assert (validation > 0).all()
    assert "says nothing" not in split_pairs([pair], ValidationData(), gap=(8, 8), seed=seed, profiles=[profile]).notice


def test_a_class_in_one_place_only_is_said_to_be_unmeasured(tmp_path: Path) -> None:
    label = np.zeros((60, 100), np.uint8)
    label[30, 50] = 1
    pair = write_pair(tmp_path, "a", label)
    assert pair.label is not None
    split = split_pairs([pair], ValidationData(), gap=(8, 8), seed=0, profiles=[profile_classes(pair.label, LabelCoding(2))])
    assert split.notice.endswith("Validation holds no annotated pixel of class 1 and says nothing about it")
    used = np.zeros((60, 100), bool)
    for source in split.train:
        used[source.region] = True
    assert used[30, 50]


def test_annotation_in_one_spot_trains_and_validates_and_says_so(tmp_path: Path) -> None:
    label = np.full((60, 100), 255, np.uint8)
    label[30, 50] = 1
    pair = write_pair(tmp_path, "a", label)
    assert pair.label is not None
    profile = profile_classes(pair.label, LabelCoding(2, 255))
    split = split_pairs([pair], ValidationData(), gap=(8, 8), seed=0, profiles=[profile])
    assert split.train == split.validation == whole_sources([pair])
    assert "a is annotated in too small an area to keep a part for validation" in split.notice


@pytest.mark.parametrize("seed", range(5))
def test_images_are_chosen_so_that_every_class_is_in_both_parts(tmp_path: Path, seed: int) -> None:
    pairs = [write_pair(tmp_path, f"{index}", scribbles(0, *([1] if index < 2 else []), far=255)) for index in range(8)]
    profiles = [profile_classes(pair.label, LabelCoding(2, 255)) for pair in pairs if pair.label is not None]
    split = split_pairs(pairs, ValidationData(split_train=0.25), gap=(8, 8), seed=seed, profiles=profiles)
    parts = [{source.pair.name for source in part} for part in (split.train, split.validation)]
    assert [len(part) for part in parts] == [6, 2]
    assert all(part & {"0", "1"} for part in parts)


@pytest.mark.parametrize("seed", range(6))
def test_a_class_of_a_single_image_is_trained_on_and_said_to_be_unmeasured(tmp_path: Path, seed: int) -> None:
    """Labels without open pixels, of many images: whichever of them chance would have kept for validation."""
    pairs = [write_pair(tmp_path, f"{index}", scribbles(1, *([2] if index == 3 else []), far=0)) for index in range(5)]
    made = plan(facts(num_classes=3, counts=(90, 9, 1)), SYSTEM__SEED=seed)
    split = make_split(made, pairs, [])
    assert "3" in {source.pair.name for source in split.train}
    assert split.notice.endswith("Validation holds no annotated pixel of class 2 and says nothing about it")
    last = plan(facts(num_classes=3, counts=(90, 9, 1)), DATA__VAL__RANDOM=False)
    told = make_split(last, [*pairs[:3], pairs[4], pairs[3]], []).notice
    assert told.endswith("No annotated pixel of class 2 is left for training")


def test_images_without_annotation_are_left_out_and_named(tmp_path: Path) -> None:
    empty = np.full((40, 40), 255, np.uint8)
    pairs = [write_pair(tmp_path, f"{index}", empty if index == 2 else scribbles(0, 1, far=255)) for index in range(5)]
    made = plan(facts(), LOSS__IGNORE_INDEX=255)
    split = make_split(made, pairs, [])
    assert {source.pair.name for source in (*split.train, *split.validation)} == {"0", "1", "3", "4"}
    assert split.notice.endswith("1 images without an annotated pixel are not used: 2")
    file = re.escape(str(tmp_path / "y" / "2.tif"))
    none = r"no pixel of 1 label image is annotated: all are 255 \(LOSS.IGNORE_INDEX\)"
    with pytest.raises(DataError, match=rf"DATA\.TRAIN\.GT_PATH {file}: {none}"):
        make_split(made, [pairs[2]], [])
    own_validation = plan(facts(), LOSS__IGNORE_INDEX=255, DATA__VAL__FROM_TRAIN=False)
    with pytest.raises(DataError, match=rf"DATA\.VAL\.GT_PATH {file}: {none}"):
        make_split(own_validation, pairs[:2], [pairs[2]])
