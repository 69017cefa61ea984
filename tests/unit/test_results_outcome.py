"""The figures of a test set: the same rules as everywhere else."""

from __future__ import annotations

from dataclasses import replace
from math import isnan, nan
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest

from crista.config.load import config_from_dict
from crista.images.image import ImagePair
from crista.images.open import open_image
from crista.inference.record import ImageRecord
from crista.metrics import show_score, summarise
from crista.plan.events import FileWritten, Said
from crista.plan.plan import Classes, Plan
from crista.results.outcome import Measurement, image_stage, main_stage, measure, write_tables
from crista.results.overlays import to_picture
from crista.results.pictures import encode_picture
from crista.results.ranking import UncertainRegion
from crista.results.run_folder import RunFolder
from crista.results.run_pictures import Chosen, how_labelled, rank_images, suggestion_pictures
from crista.results.run_report import _measured_parts, _timings, class_colours
from crista.results.style import CLASS_COLOURS
from crista.results.tables import read_mean

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


def scored(**scores: float) -> tuple[list[ImageRecord], Measurement]:
    """Records of images with these IoU, and what is measured of them; NaN: all of it without annotation."""
    counts = {
        name: np.array([[0, 0], [100 - round(100 * s), round(100 * s)]]) if s == s else IGNORED for name, s in scores.items()
    }
    made = [ImageRecord(name, "", {}, {"per_image": matrix}, uncertainty=0.5) for name, matrix in counts.items()]
    return made, measure(made, PLAN)


def captions(found: list[Chosen]) -> list[tuple[str, str, str]]:
    return [(word, record.name, score) for word, record, score in found]


def test_the_worst_the_median_and_the_best_image_are_shown() -> None:
    made, measurement = scored(a=0.7, b=0.2, unknown=nan, c=0.9, d=0.4)
    assert captions(rank_images(made, "per_image", measurement)) == [
        ("worst", "b", "foreground IoU 0.2000"),
        ("median", "d", "foreground IoU 0.4000"),
        ("best", "c", "foreground IoU 0.9000"),
    ]
    made, measurement = scored(a=0.7, b=0.2)
    assert [(word, name) for word, name, _ in captions(rank_images(made, "per_image", measurement))] == [
        ("worst", "b"),
        ("best", "a"),
    ]
    made, measurement = scored(a=0.7, unknown=nan)
    assert captions(rank_images(made, "per_image", measurement)) == [("", "a", "foreground IoU 0.7000")]


def test_without_a_score_the_least_sure_image_comes_first() -> None:
    made, measurement = scored(a=nan, b=nan, c=nan)
    unsure = [replace(record, uncertainty=u) for record, u in zip(made, (0.2, 0.6, None), strict=True)]
    assert captions(rank_images(unsure, "per_image", measurement)) == [
        ("least sure", "b", "uncertainty 0.600"),
        ("surest", "a", "uncertainty 0.200"),
    ]
    bare = [replace(record, uncertainty=None) for record in made]
    assert captions(rank_images(bare, "per_image", measurement)) == [("", "a", ""), ("", "b", ""), ("", "c", "")]


def test_slices_of_a_stack_are_ranked_by_their_own_last_stage() -> None:
    made, _ = scored(a=0.7, b=0.2)
    made = [replace(record, confusions=record.confusions | {"full_image": record.confusions["per_image"]}) for record in made]
    stack = ImageRecord("stack", "", {}, {"stack": np.eye(2, dtype=np.int64)})
    assert [image_stage(made, stage) for stage in ("post_processing", "stack", "per_image")] == ["full_image"] * 2 + ["per_image"]
    found = rank_images(made, "stack", measure([*made, stack], PLAN))
    assert [name for _, name, _ in captions(found)] == ["b", "a"]


def test_times_are_those_of_all_epochs_and_images() -> None:
    made = [replace(record, seconds={"per_image": 1.5, "post_processing": 0.25}) for record in scored(a=0.5, b=0.5)[0]]
    times = _timings(made, [{"epoch": 1, "seconds": 2.0}, {"epoch": 2, "seconds": 3.0}])
    assert times == {"training": 5.0, "prediction (per image)": 3.0, "prediction (post processing)": 0.5}
    assert "training" not in _timings(made, [])


@pytest.mark.parametrize("ndim", [2, 3])
def test_pictures_of_what_to_label_next_are_of_that_region(tmp_path: Path, ndim: int) -> None:
    """Of a volume of the middle slice of the region."""
    pixels = np.random.default_rng(0).integers(0, 255, (9, 40, 50)[-ndim:]).astype(np.uint8)
    np.save(tmp_path / "a.npy", pixels)
    pair = ImagePair(open_image(tmp_path / "a.npy", axes="ZYX"[-ndim:], ndim=ndim))
    region = (slice(4, 8), slice(8, 24), slice(20, 50))[-ndim:]
    [found] = suggestion_pictures({"a": pair}, [UncertainRegion("a", region, False, 0.5)], ["no"])
    plane = pixels[region] if ndim == 2 else pixels[6][region[1:]]
    assert found.picture == encode_picture(to_picture(plane[np.newaxis]))
    assert found.labelled == "no"


def test_a_region_between_scribbles_has_no_label_yet(tmp_path: Path) -> None:
    """Though its image has a label image."""
    scribbled = np.full((40, 50), 255, np.uint8)
    scribbled[:10], scribbled[20, 5] = 0, 1
    np.save(tmp_path / "a.npy", scribbled)
    label = open_image(tmp_path / "a.npy", axes="YX", ndim=2, is_label=True)
    names = ("background", "foreground")
    sparse, dense = (cast("Plan", SimpleNamespace(classes=Classes(names=names, ignore_index=k))) for k in (255, None))
    rows = [slice(0, 10), slice(10, 30), slice(30, 40)]
    pair = ImagePair(label, label)
    assert [how_labelled(pair, (row, slice(0, 50)), sparse) for row in rows] == ["yes", "partly", "no"]
    full = np.where(scribbled == 255, 0, scribbled).astype(np.uint8)
    np.save(tmp_path / "b.npy", full)
    pair = ImagePair(label, open_image(tmp_path / "b.npy", axes="YX", ndim=2, is_label=True))
    assert how_labelled(pair, (rows[2], slice(0, 50)), dense) == "yes"
    assert how_labelled(ImagePair(label), (rows[2], slice(0, 50)), sparse) == "no"


def test_pooled_counts_are_those_of_all_images() -> None:
    one, other = np.array([[8, 1], [0, 1]]), np.array([[4, 0], [3, 3]])
    found = measure(records(one, other), PLAN)
    np.testing.assert_array_equal(found.pooled["per_image"], one + other)


def test_the_last_stage_that_was_measured_stands_for_the_run() -> None:
    order = ("post_processing", "full_image", "stack", "per_image")
    for number, stage in enumerate(order):
        made = [ImageRecord("a", "", {}, dict.fromkeys(reversed(order[number:]), np.eye(2, dtype=np.int64)))]
        assert main_stage(measure(made, PLAN)) == stage


def test_the_tables_of_an_earlier_run_do_not_stand_beside_predictions_that_were_not_measured(tmp_path: Path) -> None:
    """With label images, then by another network without: those figures are of label images that are gone."""
    runs = [RunFolder(tmp_path, "job", number) for number in (1, 2)]
    measured, nothing = (measure(found, PLAN) for found in (records(np.array([[8, 1], [0, 1]])), [ImageRecord("0", "", {})]))
    for folder in runs:
        list(write_tables(folder, PLAN, measured))
    assert any("earlier run" in event.text for event in write_tables(runs[0], PLAN, nothing) if isinstance(event, Said))
    assert not list(runs[0].results.glob("*.csv"))
    assert read_mean(runs[1].test_results_metrics)
    rows = runs[0].runs_summary.read_text().splitlines()
    assert [row.split(",")[0] for row in rows] == ["run_id", "2", "mean", "sd"]
    list(write_tables(runs[1], PLAN, nothing))
    assert not list(tmp_path.rglob("*.csv"))
    [only] = write_tables(runs[1], PLAN, nothing)
    assert "no metrics" in str(only)
    assert not isinstance(only, FileWritten)


def test_colours_of_many_classes() -> None:
    """Nine colours: that classes share one is said, and which of them are named."""
    few = tuple(f"c{k}" for k in range(len(CLASS_COLOURS) + 1))
    assert class_colours(few, None) == (list(zip(few[1:], CLASS_COLOURS, strict=True)), "")
    shown, note = class_colours((*few, "one more"), None)
    assert note == "There are 9 colours: some classes share one."
    assert shown[-1] == ("one more", CLASS_COLOURS[0])
    many = tuple(f"c{k}" for k in range(255))
    shown, note = class_colours(many, None)
    assert note.startswith("Named here: of 255 classes the first 40. ")
    assert len(shown) == 39
    shown, note = class_colours(many, np.diag(np.arange(255)))
    assert note.startswith("Named here: of 255 classes the 40 with the most labelled pixels. ")
    assert [name for name, _ in shown] == list(many[-40:])


def test_what_is_left_out_of_the_measurement_is_said() -> None:
    def told(*overrides: str, ndim: int = 3) -> str:
        return " ".join(_measured_parts(cast("Plan", SimpleNamespace(ndim=ndim, config=config_from_dict({}, overrides).config))))

    chunks = ("TEST.BY_CHUNKS.ENABLE=True", "TEST.BY_CHUNKS.Z_START=3")
    assert told() == told("TEST.BY_CHUNKS.ENABLE=True") == told(*chunks, ndim=2) == ""
    assert "10, 6 pixels at each border" in told("TEST.EVAL_BORDER_CROP=(10,6)")
    assert "the slices from 3 to the last (TEST.BY_CHUNKS" in told(*chunks)
    assert "the slices from 3 before 6 (TEST.BY_CHUNKS" in told(*chunks, "TEST.BY_CHUNKS.Z_END=6")
    assert "the slices from 0 before 6 (TEST.BY_CHUNKS" in told(chunks[0], "TEST.BY_CHUNKS.Z_END=6")
