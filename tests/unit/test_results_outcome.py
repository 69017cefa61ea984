"""The figures of a test set: the same rules as everywhere else."""

from __future__ import annotations

from math import isnan
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest

from crista.inference.record import ImageRecord
from crista.metrics import show_score, summarise
from crista.plan.plan import Plan
from crista.results.outcome import measure

PLAN = cast("Plan", SimpleNamespace(classes=SimpleNamespace(names=("background", "foreground"))))
IGNORED = np.zeros((2, 2), np.int64)


def records(*confusions: np.ndarray) -> list[ImageRecord]:
    return [
        ImageRecord(f"{index}", "", {}, {"per_image": counts}, boundaries={"per_image": np.zeros((2, 4), np.int64)})
        for index, counts in enumerate(confusions)
    ]


def test_an_image_without_annotation_counts_nowhere() -> None:
    """As in `crista evaluate`, in BiaPy's number too."""
    confusions = [np.array([[8, 1], [0, 1]]), IGNORED, np.array([[4, 0], [3, 3]])]
    found, expected = measure(records(*confusions), PLAN), summarise(confusions)
    assert found.mean["per_image_biapy_iou"] == expected["biapy_iou"] == pytest.approx(0.5)
    assert found.mean["per_image_iou"] == expected["foreground_iou"]
    assert found.summary["BiaPy's Test Foreground IoU (merge patches)"] == expected["biapy_iou"]
    assert found.rows[1] == {"file": "1"}
    assert found.estimates["per_image"][0].num_images == 2


def test_without_any_annotation_nothing_is_measured() -> None:
    found = measure(records(IGNORED, IGNORED), PLAN)
    assert found.mean == {}
    assert found.summary
    assert all(isnan(value) for value in found.summary.values())
    assert show_score(found.summary["BiaPy's Test Foreground IoU (merge patches)"]) == "–"
