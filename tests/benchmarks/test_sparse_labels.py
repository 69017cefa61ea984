"""The scribbles of the benchmark: of the right size, inside their class, the same again."""

from __future__ import annotations

import numpy as np
from sparse_labels import OPEN, scribble


def test_scribbles_keep_their_share_and_their_class() -> None:
    label = np.zeros((200, 200), np.uint8)
    label[50:150, 50:150] = 1
    label[100:103, :] = 2  # thin
    painted = scribble(label, share=0.02, seed=3)
    annotated = painted != OPEN
    assert 0.02 <= annotated.mean() < 0.03
    np.testing.assert_array_equal(painted[annotated], label[annotated])
    counts = np.bincount(painted[annotated])
    assert counts.min() >= 0.02 * label.size / 3
    np.testing.assert_array_equal(painted, scribble(label, share=0.02, seed=3))
    assert (painted != scribble(label, share=0.02, seed=4)).any()


def test_a_class_of_few_pixels_is_not_painted_out() -> None:
    label = np.zeros((100, 100), np.uint8)
    label[10:12, 10:30] = 1
    painted = scribble(label, share=0.02, seed=0)
    assert 20 <= (painted == 1).sum() < 40
