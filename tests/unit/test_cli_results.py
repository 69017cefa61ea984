"""What a run names at its end as written."""

import os
from pathlib import Path

import pytest

from crista.cli.jobs import _last_labels
from crista.results.run_folder import RunFolder


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return RunFolder(tmp_path, "job")


def touch(path: Path, second: int) -> None:
    path.mkdir(parents=True, exist_ok=True)
    os.utime(path, (second, second))


def test_filtered_labels_are_named_where_they_were_written_last(folder: RunFolder) -> None:
    touch(folder.per_image_binarized, 1)
    touch(folder.full_post_processing, 2)
    assert _last_labels(folder) == folder.full_post_processing


def test_filtered_labels_of_an_earlier_run_are_not(folder: RunFolder) -> None:
    touch(folder.full_post_processing, 1)
    touch(folder.per_image_binarized, 2)
    assert _last_labels(folder) == folder.per_image_binarized


def test_of_folders_of_the_same_moment_the_filtered_one_is_named(folder: RunFolder) -> None:
    touch(folder.per_image_binarized, 1)
    touch(folder.full_post_processing, 1)
    assert _last_labels(folder) == folder.full_post_processing


def test_without_any_folder_that_of_images_is_named(folder: RunFolder) -> None:
    assert _last_labels(folder) == folder.per_image_binarized
