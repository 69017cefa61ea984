"""Confusion matrices and overlap measures against hand-computed numbers, and a voxel-by-voxel oracle."""

from __future__ import annotations

from math import isnan

import numpy as np
import pytest

from crista.metrics import (
    ABSENT_CLASS_RULE,
    DEFINITIONS,
    SUMMARY_KEYS,
    accuracy,
    biapy_iou,
    compute_confusion,
    compute_image_scores,
    confusion,
    dice,
    foreground_dice,
    foreground_iou,
    iou,
    precision,
    recall,
    summarise,
)

LABEL = np.array([[0, 0, 1, 1], [2, 2, 1, 255]], dtype=np.uint8)
PREDICTION = np.array([[0, 1, 1, 1], [2, 0, 0, 1]], dtype=np.uint8)
MATRIX = np.array([[1, 1, 0], [1, 2, 0], [1, 0, 1]])

nan = float("nan")


def test_confusion_by_hand():
    counted = compute_confusion(LABEL, PREDICTION, num_classes=3, ignore_index=255)
    assert counted.dtype == np.int64
    np.testing.assert_array_equal(counted, MATRIX)


@pytest.mark.parametrize("shape", [(7, 9), (5, 6, 7), (1, 40), (40, 1)])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int64])
def test_confusion_equals_counting_one_by_one(shape, dtype, monkeypatch):
    monkeypatch.setattr(confusion, "CHUNK", 16)
    rng = np.random.default_rng(3)
    label, prediction = (rng.integers(0, 4, shape).astype(dtype) for _ in range(2))
    label[rng.random(shape) < 0.2] = 9
    expected = np.zeros((4, 4), dtype=np.int64)
    for truth, guess in zip(label.flat, prediction.flat, strict=True):
        if truth != 9:
            expected[truth, guess] += 1
    np.testing.assert_array_equal(compute_confusion(label, prediction, num_classes=4, ignore_index=9), expected)


def test_confusion_takes_views_masks_and_memory_maps(tmp_path):
    rng = np.random.default_rng(0)
    volume = np.lib.format.open_memmap(tmp_path / "label.npy", mode="w+", dtype=np.uint8, shape=(6, 8, 10))
    volume[:] = rng.integers(0, 2, volume.shape)
    view = volume.transpose(2, 0, 1)[::2]
    expected = compute_confusion(np.array(view), 1 - np.array(view), num_classes=2)
    np.testing.assert_array_equal(compute_confusion(view, view == 0, num_classes=2), expected)
    assert expected[0, 0] == expected[1, 1] == 0
    assert compute_confusion(np.zeros((0, 4), int), np.zeros((0, 4), int), num_classes=2).sum() == 0


@pytest.mark.parametrize("num_classes", [2, 3, 4, 5, 17])
@pytest.mark.parametrize("dtype", [np.uint8, np.int64, np.uint16])
def test_confusion_of_few_and_of_many_classes_counts_every_pair(num_classes: int, dtype: type) -> None:
    rng = np.random.default_rng(num_classes)
    label, prediction = rng.integers(0, num_classes, (2, 40, 50)).astype(dtype)
    expected = np.zeros((num_classes, num_classes), np.int64)
    np.add.at(expected, (label.ravel().astype(int), prediction.ravel().astype(int)), 1)
    np.testing.assert_array_equal(compute_confusion(label, prediction, num_classes=num_classes), expected)


def test_an_ignore_index_within_the_classes_of_the_prediction_only_concerns_the_label():
    counted = compute_confusion(np.array([2, 1, 0]), np.array([0, 2, 2]), num_classes=3, ignore_index=2)
    np.testing.assert_array_equal(counted, [[0, 0, 1], [0, 0, 1], [0, 0, 0]])


@pytest.mark.parametrize(
    ("label", "prediction", "message"),
    [
        (np.zeros((2, 3), int), np.zeros((3, 2), int), r"label has shape \(2, 3\), the prediction \(3, 2\)"),
        (np.zeros(3, int), np.zeros(3, np.float32), "prediction must hold integer classes, got float32; make labels"),
        (np.zeros(3), np.zeros(3, int), "label must hold integer classes, got float64"),
        (np.array([0, 255]), np.zeros(2, int), "label holds the value 255; classes are 0 to 2"),
        (np.array([0, -1]), np.zeros(2, int), "label holds the value -1"),
        (np.zeros(2, int), np.array([0, 3]), "prediction holds the value 3; classes are 0 to 2"),
    ],
)
def test_what_cannot_be_counted_is_refused(label, prediction, message):
    with pytest.raises(ValueError, match=message):
        compute_confusion(label, prediction, num_classes=3)


def test_measures_by_hand():
    np.testing.assert_allclose(iou(MATRIX), [1 / 4, 2 / 4, 1 / 2])
    np.testing.assert_allclose(dice(MATRIX), [2 / 5, 4 / 6, 2 / 3])
    np.testing.assert_allclose(precision(MATRIX), [1 / 3, 2 / 3, 1 / 1])
    np.testing.assert_allclose(recall(MATRIX), [1 / 2, 2 / 3, 1 / 2])
    assert accuracy(MATRIX) == pytest.approx(4 / 7)
    assert foreground_iou(MATRIX) == pytest.approx(0.5)
    assert foreground_dice(MATRIX) == pytest.approx(2 / 3)
    assert biapy_iou(MATRIX) == pytest.approx((0.25 + 0.5 + 0.5) / 3)


def test_counts_beyond_int32_do_not_overflow():
    huge = np.array([[3_000_000_000, 0], [0, 5_000_000_000]])
    assert dice(huge).tolist() == [1.0, 1.0]
    assert accuracy(huge) == 1.0


@pytest.mark.parametrize(
    ("matrix", "ours", "biapy"),
    [
        ([[10, 0], [0, 0]], 1.0, 0.0),
        ([[9, 1], [0, 0]], 0.0, 0.0),
        ([[9, 0], [1, 0]], 0.0, 0.0),
        ([[8, 1], [0, 1]], 0.5, 0.5),
        ([[0, 0], [0, 0]], nan, 0.0),
        # Three classes, the third in neither: left out.
        ([[4, 0, 0], [1, 3, 0], [0, 0, 0]], 3 / 4, (4 / 5 + 3 / 4) / 2),
        # Foreground-free and right; and one wrong voxel.
        ([[100, 0, 0], [0, 0, 0], [0, 0, 0]], 1.0, 1.0),
        ([[99, 0, 0], [1, 0, 0], [0, 0, 0]], 0.0, 0.495),
    ],
)
def test_absent_classes(matrix, ours, biapy):
    assert foreground_iou(np.array(matrix)) == pytest.approx(ours, nan_ok=True)
    assert biapy_iou(np.array(matrix)) == pytest.approx(biapy)
    assert "left out" in ABSENT_CLASS_RULE


def test_scores_of_a_class_that_is_on_one_side_only():
    missed = np.array([[5, 0], [2, 0]])
    assert [f(missed)[1] for f in (iou, dice, precision, recall)] == [0, 0, 0, 0]
    invented = np.array([[5, 2], [0, 0]])
    assert [f(invented)[1] for f in (iou, dice, precision, recall)] == [0, 0, 0, 0]
    assert all("; 0 where it " in DEFINITIONS[name].text for name in ("precision", "recall")), "a share of nothing is defined"
    absent = np.array([[5, 0], [0, 0]])
    assert all(isnan(f(absent)[1]) for f in (iou, dice, precision, recall))


def test_summary_has_image_means_and_pooled_values():
    small, large, ignored = np.array([[8, 1], [0, 1]]), np.array([[0, 0], [0, 90]]), np.zeros((2, 2), int)
    summary = summarise([small, large, ignored])
    assert tuple(summary) == SUMMARY_KEYS
    assert summary["foreground_iou"] == pytest.approx((0.5 + 1) / 2)
    assert summary["pooled_foreground_iou"] == pytest.approx(91 / 92)
    assert summary["accuracy"] == pytest.approx((0.9 + 1) / 2)
    assert summary["pooled_accuracy"] == pytest.approx(0.99)
    assert summary["biapy_iou"] == pytest.approx(0.75)
    assert compute_image_scores(small)["foreground_dice"] == pytest.approx(2 / 3)


@pytest.mark.parametrize("confusions", [[], [np.zeros((3, 3), int)]])
def test_nothing_to_measure_is_not_a_number(confusions):
    assert all(isnan(value) for value in summarise(confusions).values())
