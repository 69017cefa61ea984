"""What holds for the measures of any pair of label images."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from crista.metrics import (
    accuracy,
    biapy_iou,
    compute_confusion,
    dice,
    foreground_dice,
    foreground_iou,
    iou,
    precision,
    recall,
)

NUM_CLASSES = 4
label_images = hnp.array_shapes(min_dims=2, max_dims=3, max_side=6).flatmap(
    lambda shape: st.tuples(*(hnp.arrays(np.uint8, shape, elements=st.integers(0, NUM_CLASSES - 1)) for _ in range(2)))
)
matrices = hnp.arrays(np.int64, (NUM_CLASSES, NUM_CLASSES), elements=st.integers(0, 10**12))


@settings(deadline=None)
@given(label_images)
def test_counts_sum_to_the_voxels_and_swap_with_the_arguments(pair):
    label, prediction = pair
    counted = compute_confusion(label, prediction, num_classes=NUM_CLASSES)
    assert counted.sum() == label.size
    np.testing.assert_array_equal(counted.sum(axis=1), np.bincount(label.ravel(), minlength=NUM_CLASSES))
    np.testing.assert_array_equal(counted.sum(axis=0), np.bincount(prediction.ravel(), minlength=NUM_CLASSES))
    np.testing.assert_array_equal(compute_confusion(prediction, label, num_classes=NUM_CLASSES), counted.T)


@settings(deadline=None)
@given(label_images, st.integers(0, NUM_CLASSES - 1))
def test_matrices_of_parts_add_up_and_ignored_voxels_are_not_counted(pair, ignored):
    label, prediction = pair
    keys = {"num_classes": NUM_CLASSES, "ignore_index": ignored}
    whole = compute_confusion(label, prediction, **keys)
    parts = [compute_confusion(a, b, **keys) for a, b in zip(label, prediction, strict=True)]
    np.testing.assert_array_equal(sum(parts), whole)
    assert whole.sum() == (label != ignored).sum()


@settings(deadline=None)
@given(label_images)
def test_an_image_agrees_with_itself(pair):
    label, _ = pair
    counted = compute_confusion(label, label, num_classes=NUM_CLASSES)
    assert accuracy(counted) == foreground_iou(counted) == foreground_dice(counted) == biapy_iou(counted) == 1


@settings(deadline=None)
@given(matrices)
def test_bounds_and_relations(matrix):
    overlap, similarity = iou(matrix), dice(matrix)
    for scores in (overlap, similarity, precision(matrix), recall(matrix)):
        known = scores[~np.isnan(scores)]
        assert ((known >= 0) & (known <= 1)).all()
    np.testing.assert_allclose(similarity, 2 * overlap / (1 + overlap), rtol=1e-9)
    np.testing.assert_array_equal(iou(matrix.T), overlap)
    np.testing.assert_array_equal(precision(matrix.T), recall(matrix))
    if matrix.any():
        assert 0 <= foreground_iou(matrix) <= foreground_dice(matrix) <= 1
