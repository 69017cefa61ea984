"""Probability maps: hand-computed masses, the distribution of drawn centres, the store, and the marks."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from crista.patches.probability_map import (
    ProbabilityMap,
    ProbabilityMaps,
    compute_probability_map,
    draw_mark,
    patch_around,
)

WEIGHTS = {"w_foreground": 0.94, "w_background": 0.06}
LABEL = np.array([[0, 0, 0, 1], [0, 2, 255, 255]], dtype=np.uint8)


def test_groups_share_their_weights_equally_and_ignored_pixels_get_none() -> None:
    result = compute_probability_map(LABEL, **WEIGHTS, ignore_index=255)
    assert result.dtype == np.float32
    fg, bg = 0.94 / 2, 0.06 / 4
    np.testing.assert_allclose(result, [[bg, bg, bg, fg], [bg, fg, 0, 0]], rtol=1e-6)
    without = compute_probability_map(LABEL, **WEIGHTS, ignore_index=None)
    fg = 0.94 / 4
    np.testing.assert_allclose(without, [[bg, bg, bg, fg], [bg, fg, fg, fg]], rtol=1e-6)


def test_weights_are_normalised_to_sum_1() -> None:
    result = compute_probability_map(LABEL, w_foreground=1, w_background=1, ignore_index=255)
    assert result.sum() == pytest.approx(1)
    assert result[0, 3] == pytest.approx(0.25)


@pytest.mark.parametrize("weights", [WEIGHTS, {"w_foreground": 1, "w_background": 0}])
def test_a_group_that_is_missing_leaves_all_to_the_other(weights: dict[str, float]) -> None:
    for value in (0, 3):
        label = np.full((2, 5), value, np.uint8)
        np.testing.assert_allclose(compute_probability_map(label, **weights, ignore_index=255), 0.1, rtol=1e-6)


def test_nothing_annotated_is_uniform() -> None:
    result = compute_probability_map(np.full((2, 5), 255, np.uint8), **WEIGHTS, ignore_index=255)
    np.testing.assert_allclose(result, 0.1, rtol=1e-6)


def test_objects_at_the_border_count() -> None:
    label = np.zeros((8, 8), np.uint8)
    label[0] = 1
    assert compute_probability_map(label, **WEIGHTS, ignore_index=None)[0].sum() == pytest.approx(0.94)


@pytest.mark.parametrize("share", [0.02, 0.5, 0.97])
@pytest.mark.parametrize("shape", [(9, 11), (3, 5, 7)])
def test_centres_are_distributed_as_the_map(share: float, shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(11)
    label = (rng.random(shape) < share).astype(np.uint8)
    label.flat[0], label.flat[1], label.flat[2:6] = 0, 1, 255
    expected = compute_probability_map(label, w_foreground=0.7, w_background=0.3, ignore_index=255)
    sampler = pickle.loads(pickle.dumps(ProbabilityMap(expected)))
    seen = np.zeros(shape, int)
    number = 20000
    for _ in range(number):
        seen[sampler.draw_centre(rng)] += 1
    assert (seen[expected == 0] == 0).all()
    possible = expected > 0
    frequencies = expected[possible].astype(np.float64)
    result = stats.chisquare(seen[possible], frequencies / frequencies.sum() * number)
    assert result.pvalue > 0.001


def test_the_same_generator_state_draws_the_same_centres() -> None:
    sampler = ProbabilityMap(compute_probability_map(LABEL, **WEIGHTS, ignore_index=255))
    once, again = ([sampler.draw_centre(rng) for _ in range(20)] for rng in (np.random.default_rng(1), np.random.default_rng(1)))
    assert once == again
    assert all(isinstance(i, int) for centre in once for i in centre)


def test_one_probability_for_both_groups_is_drawn_too() -> None:
    sampler = ProbabilityMap(np.full((2, 2), 0.25, np.float32))
    rng = np.random.default_rng(0)
    assert {sampler.draw_centre(rng) for _ in range(60)} == {(0, 0), (0, 1), (1, 0), (1, 1)}


@pytest.mark.parametrize("array", [np.zeros((2, 2)), np.array([[0.1, 0.2, 0.7]])])
def test_an_array_that_is_no_such_map_is_refused(array: np.ndarray) -> None:
    with pytest.raises(ValueError, match="one or two probabilities above 0"):
        ProbabilityMap(array.astype(np.float32))


def store(folder: Path, w_foreground: float = 0.94) -> ProbabilityMaps:
    return ProbabilityMaps(folder / "prob_map", w_foreground=w_foreground, w_background=0.06)


def test_a_map_is_saved_and_loaded_as_long_as_label_and_weights_stay(tmp_path: Path) -> None:
    first = store(tmp_path).load_or_compute("a", LABEL, 255)
    path = tmp_path / "prob_map" / "prob_map_a.npy"
    assert store(tmp_path).path("a") == path
    expected = compute_probability_map(LABEL, **WEIGHTS, ignore_index=255)
    np.testing.assert_array_equal(np.load(path, allow_pickle=False), expected)
    assert sorted(p.name for p in path.parent.iterdir()) == ["prob_map_a.json", "prob_map_a.npy"]
    written = path.stat().st_mtime_ns
    second = store(tmp_path).load_or_compute("a", LABEL.copy(), 255)
    assert path.stat().st_mtime_ns == written
    rngs = (np.random.default_rng(0), np.random.default_rng(0))
    assert first.draw_centre(rngs[0]) == second.draw_centre(rngs[1])


@pytest.mark.parametrize("change", ["label", "weights", "ignore", "shape", "damage", "no key", "bad key"])
def test_a_map_is_computed_again_when_it_does_not_fit(tmp_path: Path, change: str) -> None:
    store(tmp_path).load_or_compute("a", LABEL, 255)
    path = store(tmp_path).path("a")
    label, ignore_index, weight = LABEL, 255, 0.94
    if change == "label":
        label = LABEL.copy()
        label[0, 0] = 1
    elif change == "weights":
        weight = 0.5
    elif change == "ignore":
        ignore_index = 2
    elif change == "shape":
        label = LABEL.reshape(4, 2)
    elif change == "damage":
        path.write_bytes(path.read_bytes()[:-9])
    elif change == "no key":
        path.with_suffix(".json").unlink()
    else:
        path.with_suffix(".json").write_text("{")
    store(tmp_path, weight).load_or_compute("a", label, ignore_index)
    expected = compute_probability_map(label, w_foreground=weight, w_background=0.06, ignore_index=ignore_index)
    np.testing.assert_array_equal(np.load(path), expected)
    assert json.loads(path.with_suffix(".json").read_text())["w_foreground"] == weight
    assert len(list(path.parent.iterdir())) == 2


@pytest.mark.parametrize(("centre", "start"), [((50, 60), (34, 52)), ((0, 0), (0, 0)), ((99, 79), (68, 64)), ((16, 8), (0, 0))])
def test_a_patch_lies_around_its_centre_inside_the_image(centre: tuple[int, int], start: tuple[int, int]) -> None:
    assert patch_around(centre, (32, 16), (100, 80)) == start


def test_a_patch_larger_than_the_image_starts_at_0() -> None:
    assert patch_around((5, 5, 5), (32, 4, 4), (10, 100, 100)) == (0, 3, 3)


GREY, BLUE, RED = [128] * 3, [0, 0, 255], [255, 0, 0]


def test_marks_in_2d() -> None:
    image = np.full((1, 100, 120), 128, np.uint8)
    image[0, 0, 0], image[0, 0, 1] = 0, 255
    before = image.copy()
    picture = draw_mark(image, (20, 30), (40, 50), (40, 55))
    assert picture.shape == (100, 120, 3)
    assert picture.dtype == np.uint8
    np.testing.assert_array_equal(image, before)
    assert picture[0, 1].tolist() == [255] * 3
    for y, x in [(20, 30), (21, 31), (20, 79), (59, 30), (59, 79), (58, 50), (40, 31), (40, 78)]:
        assert picture[y, x].tolist() == BLUE, (y, x)
    for y, x in [(19, 30), (22, 32), (60, 79), (57, 77), (40, 80), (40, 29), (30, 55)]:
        assert picture[y, x].tolist() == GREY, (y, x)
    for y, x in [(40, 55), (43, 55), (37, 55), (40, 58), (42, 57)]:
        assert picture[y, x].tolist() == RED, (y, x)
    assert picture[44, 55].tolist() == GREY


def test_marks_in_3d_lie_in_the_slices_of_the_patch_and_of_the_centre() -> None:
    volume = np.zeros((1, 6, 60, 60), np.float32)
    volume[0, 0, 59, 59], volume[0, 1, 59, 59] = -1, 1
    picture = draw_mark(volume, (1, 10, 10), (3, 20, 20), (2, 20, 20))
    assert picture.shape == (6, 60, 60, 3)
    assert [picture[z, 10, 15].tolist() for z in range(6)] == [GREY, BLUE, BLUE, BLUE, GREY, GREY]
    assert [picture[z, 20, 20].tolist() for z in range(6)] == [GREY, GREY, RED, GREY, GREY, GREY]


def test_a_patch_beyond_the_image_is_marked_as_far_as_it_lies_inside() -> None:
    picture = draw_mark(np.zeros((1, 20, 30), np.uint8), (0, 5), (32, 16), (10, 13))
    assert picture[19, 5].tolist() == BLUE
    assert picture[19, 13].tolist() == BLUE
    assert picture[10, 21].tolist() == [0, 0, 0]


def test_pictures_show_colours_and_stretch_what_is_finite() -> None:
    colours = np.zeros((3, 40, 40), np.float32)
    colours[0, 0, 0], colours[1, 0, 1], colours[2, 0, 2] = 1, 100, -7
    corner = draw_mark(colours, (20, 20), (8, 8), (24, 24))[0, :3]
    np.testing.assert_array_equal(corner, [[255, 0, 255], [0, 255, 255], [0, 0, 0]])
    holes = np.zeros((2, 40, 40), np.float32)
    holes[:, 0, 0], holes[:, 0, 1] = np.nan, 1
    holes[0, 0, 2] = np.inf
    corner = draw_mark(holes, (20, 20), (8, 8), (24, 24))[0, :3]
    np.testing.assert_array_equal(corner, [[0] * 3, [255] * 3, [0] * 3])
    empty = draw_mark(np.full((1, 40, 40), np.nan, np.float32), (20, 20), (8, 8), (24, 24))
    assert empty[0, 0].tolist() == [0, 0, 0]
