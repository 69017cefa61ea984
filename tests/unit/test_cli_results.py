"""What a run names at its end as written."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from crista.cli.jobs import _iter_results
from crista.cli.progress import LineListener
from crista.cli.screen import Screen
from crista.inference.record import ImageRecord
from crista.plan.events import FileWritten, StageStarted
from crista.results.outcome import labels_folder
from crista.results.run_folder import RunFolder
from crista.results.run_pictures import _label_file
from crista.workflow.api import Outcome


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return RunFolder(tmp_path, "job")


def records(*folders: Path) -> list[ImageRecord]:
    """Of two images that each have a file in all `folders`."""
    return [ImageRecord(name, "", {}, files=tuple(str(path / f"{name}.tif") for path in folders)) for name in "ab"]


def test_the_label_images_of_the_last_stage_are_named(folder: RunFolder) -> None:
    raw = (folder.per_image, folder.per_image_binarized)
    assert labels_folder(folder, records(*raw)) == folder.per_image_binarized
    assert labels_folder(folder, records(*raw, folder.full_image_binarized)) == folder.full_image_binarized
    assert labels_folder(folder, records(*raw, folder.full_post_processing)) == folder.full_post_processing
    stack = ImageRecord("stack", "", {}, files=(str(folder.as_3d_stack / "stack.tif"),))
    assert labels_folder(folder, [*records(*raw), stack]) == folder.as_3d_stack


def test_a_folder_may_be_named_in_two_ways(folder: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that goes on may be given its results folder by another path."""
    monkeypatch.chdir(folder.result_dir)
    nearby = RunFolder(Path(), "job")
    assert labels_folder(folder, records(nearby.full_post_processing)) == folder.full_post_processing


def test_the_pictures_show_labels_however_the_folder_is_named(folder: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    """With saved probabilities a record names those too, and last; the label image of the last stage is what counts."""
    monkeypatch.chdir(folder.result_dir)
    nearby = RunFolder(Path(), "job")
    written = (nearby.per_image_binarized, nearby.per_image, nearby.full_image_binarized, nearby.full_image)
    for now in (folder, nearby):
        assert _label_file(now, records(*written)[0]) == nearby.full_image_binarized / "a.tif"
        filtered = records(*written, nearby.full_post_processing)[0]
        assert _label_file(now, filtered) == nearby.full_post_processing / "a.tif"


def test_filtered_labels_of_an_earlier_run_are_not_named(folder: RunFolder) -> None:
    """Not even where they look newer: folders are copied, and other programs leave files in them."""
    for second, path in enumerate((folder.per_image_binarized, folder.full_post_processing)):
        path.mkdir(parents=True)
        os.utime(path, (second, second))
    show = LineListener(Screen(silent=True))
    show(StageStarted("predict", 2))
    show(FileWritten(labels_folder(folder, records(folder.per_image_binarized)), "label images"))
    assert list(_iter_results(Outcome(folder), show)) == [("label images", folder.per_image_binarized)]


def test_tables_and_report_of_an_earlier_run_are_not_named(folder: RunFolder) -> None:
    """The same job once more, without label images, or a shard of it."""
    for path in (folder.test_results_metrics, folder.report_html, folder.per_image_binarized / "a.tif"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("of an earlier run")
    show = LineListener(Screen(silent=True))
    show(StageStarted("predict", 2))
    assert list(_iter_results(Outcome(folder), show)) == []
    show(FileWritten(folder.report_html, "report"))
    show(FileWritten(folder.per_image_binarized, "label images"))
    assert [what for what, _ in _iter_results(Outcome(folder), show)] == ["report", "label images"]
    show(FileWritten(folder.test_results_metrics, "metrics of each image"))
    assert [what for what, _ in _iter_results(Outcome(folder), show)] == ["report", "label images", "metrics of each image"]
