"""One IoU and one count of differences for all tools."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile
from measuring.labels import differing_percent, foreground_iou, read_labels

TRUE = np.array([[1, 1, 0, 0]], np.uint8)
PREDICTED = np.array([[1, 0, 1, 0]], np.uint8)


def test_iou_is_pooled() -> None:
    """One of three, and two of two: (1 + 2) / (3 + 2); nothing at all is right."""
    assert foreground_iou([(TRUE, PREDICTED)]) == pytest.approx(1 / 3)
    assert foreground_iou([(TRUE, PREDICTED), (TRUE, TRUE)]) == pytest.approx(3 / 5)
    assert foreground_iou([(TRUE * 0, TRUE * 0)]) == 1.0


def test_differences_are_a_share_of_all_pixels() -> None:
    """2 of 8."""
    assert differing_percent([(TRUE, PREDICTED), (TRUE, TRUE)]) == 25.0


def test_labels_and_probabilities_are_read_alike(tmp_path: Path) -> None:
    """Foreground is above 0, or above 0.5; an axis of length 1 does not matter, another shape does."""
    tifffile.imwrite(tmp_path / "labels.tif", TRUE * 255)
    tifffile.imwrite(tmp_path / "scores.tif", np.array([[0.9, 0.6, 0.5, 0.1]], np.float32))
    for name, probabilities in (("labels", False), ("scores", True)):
        np.testing.assert_array_equal(read_labels(tmp_path / f"{name}.tif", (1, 4), probabilities=probabilities), TRUE)
    with pytest.raises(ValueError, match=r"shape \(4,\), its true label image has \(2, 2\)"):
        read_labels(tmp_path / "labels.tif", (2, 2))
