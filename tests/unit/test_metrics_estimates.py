"""Intervals: against an independent bootstrap, and where there is none."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from crista.metrics import ImageCounts, estimate, find_estimate, foreground_dice, foreground_iou, summarise
from crista.metrics.estimates import INTERVAL_RULE, RESAMPLES
from crista.metrics.overlap import dice, iou

NAMES = ("background", "cell")


def image(hits: int, missed: int = 0, invented: int = 0, edges: tuple[int, int, int, int] = (10, 5, 10, 5)) -> ImageCounts:
    return ImageCounts(np.array([[100, invented], [missed, hits]]), np.array([[0] * 4, edges]))


IMAGES = [image(8, 2), image(5, 5), image(9, 0, 1), image(1, 9)]


def test_values_are_those_of_the_measures() -> None:
    found = estimate(IMAGES, NAMES)
    summary = summarise([i.confusion for i in IMAGES])
    for measure, of, over, value in (
        ("iou", "all foreground", "images", (0.8 + 0.5 + 0.9 + 0.1) / 4),
        ("iou", "all foreground", "pixels", 23 / 40),
        ("dice", "cell", "pixels", 46 / 63),
        ("nsd", "all foreground", "images", 0.5),
    ):
        one = find_estimate(found, measure, of, over)
        assert one is not None
        assert one.value == pytest.approx(value)
        assert one.num_images == 4
    assert find_estimate(found, "iou", "all foreground", "images").value == summary["foreground_iou"]
    assert find_estimate(found, "iou", "all foreground", "pixels").value == summary["pooled_foreground_iou"]
    assert find_estimate(found, "iou", "nothing", "pixels") is None


def test_the_interval_is_that_of_all_resamples_of_four_images() -> None:
    """4 ** 4 equally likely resamples, one by one: the percentiles of 2000 drawn ones are near theirs."""
    all_means = [np.mean([foreground_iou(IMAGES[i].confusion) for i in picked]) for picked in product(range(4), repeat=4)]
    all_pooled = [foreground_iou(sum(IMAGES[i].confusion for i in picked)) for picked in product(range(4), repeat=4)]
    found = estimate(IMAGES, NAMES)
    for over, every in (("images", all_means), ("pixels", all_pooled)):
        one = find_estimate(found, "iou", "all foreground", over)
        low, high = np.percentile(every, [2.5, 97.5])
        assert one.low == pytest.approx(low, abs=0.03)
        assert one.high == pytest.approx(high, abs=0.03)
        assert one.low < one.value < one.high
        assert str(one) == f"{one.value:.4f} [{one.low:.4f}, {one.high:.4f}]"


def test_the_interval_is_always_the_same_in_any_order() -> None:
    assert repr(estimate(IMAGES, NAMES)) == repr(estimate(IMAGES[::-1], NAMES))
    assert RESAMPLES == 2000


HITS = (0, 1, 2, 4, 5, 7, 8, 11, 13, 14, 16, 19)
MANY = [image(hits, 20 - hits) for hits in HITS]
"""So many different ones that the ends of an interval hang on each resample."""


def test_the_interval_does_not_depend_on_how_many_resamples_are_held(monkeypatch: pytest.MonkeyPatch) -> None:
    """2000 in parts of 300 are 2000."""
    at_once = repr(estimate(MANY, NAMES))
    monkeypatch.setattr("crista.metrics.estimates.CHUNK_VALUES", 300 * 14)
    assert repr(estimate(MANY, NAMES)) == at_once


def test_the_interval_is_that_of_the_seed_that_is_told() -> None:
    """2000 times as many images as there are, drawn by NumPy from seed 0."""
    assert "2000 resamples of the images, seed 0" in INTERVAL_RULE
    times = np.random.default_rng(0).multinomial(12, [1 / 12] * 12, size=2000)
    low, high = np.percentile(times @ np.array(HITS) / 20 / 12, [2.5, 97.5])
    one = find_estimate(estimate(MANY[::-1], NAMES), "iou", "cell", "images")
    assert (one.low, one.high) == pytest.approx((low, high), abs=1e-12)


def test_vectorised_measures_equal_those_of_one_matrix() -> None:
    rng = np.random.default_rng(0)
    names = ("a", "b", "c", "d")
    for _ in range(20):
        matrix = rng.integers(0, 5, (4, 4)) * rng.integers(0, 2, (4, 4))
        found = estimate([ImageCounts(matrix)], names)
        if not matrix.any():
            assert found == ()
            continue
        values = [e.value for e in found if e.over == "pixels"]
        expected = [foreground_iou(matrix), *iou(matrix), foreground_dice(matrix), *dice(matrix)]
        np.testing.assert_allclose(values, expected)


def test_fewer_than_three_images_have_no_interval() -> None:
    two = find_estimate(estimate(IMAGES[:2], NAMES), "iou", "all foreground", "images")
    assert not two.has_interval
    assert str(two) == "0.6500 (no interval: 2 images)"
    assert find_estimate(estimate(IMAGES[:3], NAMES), "iou", "all foreground", "images").has_interval


def test_a_class_in_two_of_many_images_has_no_interval() -> None:
    """The background and class 1 are in all five, class 2 is in two of them, class 3 nowhere."""
    rare = np.zeros((4, 4), int)
    rare[0, 0] = rare[1, 1] = 50
    with_it = rare.copy()
    with_it[2, 2], with_it[2, 1] = 6, 4
    found = estimate([ImageCounts(m) for m in (rare, rare, with_it, rare, with_it)], ("bg", "one", "two", "three"))
    two = find_estimate(found, "iou", "two", "pixels")
    assert (two.value, two.num_images, two.has_interval) == (pytest.approx(12 / 20), 2, False)
    assert find_estimate(found, "iou", "one", "pixels").has_interval
    assert str(find_estimate(found, "iou", "three", "images")) == "–"
    assert all(e.measure != "nsd" for e in found)


def test_images_without_a_counted_pixel_are_left_out() -> None:
    ignored = ImageCounts(np.zeros((2, 2), int), np.zeros((2, 4), int))
    assert repr(estimate([*IMAGES, ignored], NAMES)) == repr(estimate(IMAGES, NAMES))
    assert estimate([ignored], NAMES) == ()


def test_perfect_images_have_an_interval_of_no_width() -> None:
    one = find_estimate(estimate([image(10)] * 5, NAMES), "dice", "cell", "images")
    assert (one.value, one.low, one.high) == (1, 1, 1)


def test_a_class_called_foreground_is_not_the_mean() -> None:
    """An image without foreground, predicted as such, has a foreground IoU of 1 and none of the class."""
    empty = ImageCounts(np.array([[100, 0], [0, 0]]))
    found = estimate([ImageCounts(image(8, 2).confusion), empty], ("background", "foreground"))
    assert find_estimate(found, "iou", "all foreground", "images").value == pytest.approx(0.9)
    assert find_estimate(found, "iou", "foreground", "images").value == pytest.approx(0.8)
