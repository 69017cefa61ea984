"""A worker that does a block which another has done meanwhile, and comes when the image is finished and put away."""

from __future__ import annotations

import errno
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tests.integration.test_biapy_weaknesses import finish, oracle_job
from tests.integration.test_stacks import small_blocks
from tests.jobs import labels

from crista.inference.stage import PredictionJob, predict_images
from crista.inference.task import TaskReport, keep_report, plan_tasks
from crista.plan.events import TileFinished

TRUTH = np.random.default_rng(0).integers(1, 3, (90, 100)).astype(np.uint8)
"""No background: a block that was not predicted shows."""


@pytest.fixture
def job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> PredictionJob:
    """An image of several blocks, finished."""
    small_blocks(monkeypatch)
    made = oracle_job(tmp_path, [TRUTH], num_classes=3)
    finish(made)
    return made


def predicted_again(job: PredictionJob) -> np.ndarray:
    """What a run gives after somebody has removed the label images."""
    shutil.rmtree(job.folders.per_image_binarized)
    finish(job)
    return labels(job.folders.per_image_binarized / "0.tif", 2)


def test_its_report_does_not_vouch_for_a_block_of_a_store_that_is_made_anew(job: PredictionJob) -> None:
    late = plan_tasks(job.plan, job.pairs[0], "0", job.keys[0], full_image=False)[2]
    keep_report(late, TaskReport(late.key), job.folders)
    np.testing.assert_array_equal(predicted_again(job), TRUTH)


def test_what_it_wrote_is_not_taken_for_a_store(job: PredictionJob) -> None:
    left = job.folders.work("0", job.keys[0]) / "labels.zarr" / "0" / "c" / "1"
    left.mkdir(parents=True)
    (left / "0").write_bytes(b"a chunk")
    np.testing.assert_array_equal(predicted_again(job), TRUTH)


def test_neither_does_its_report_when_its_block_has_made_the_folder_again(job: PredictionJob) -> None:
    """The image was finished and put away while it wrote."""
    late = plan_tasks(job.plan, job.pairs[0], "0", job.keys[0], full_image=False)[2]
    (job.folders.work("0", job.keys[0]) / "labels.zarr" / "0" / "c" / "1").mkdir(parents=True)
    keep_report(late, TaskReport(late.key), job.folders)
    np.testing.assert_array_equal(predicted_again(job), TRUTH)


def test_it_does_not_keep_an_image_from_being_finished(job: PredictionJob, monkeypatch: pytest.MonkeyPatch) -> None:
    """It writes where the main process is removing what is done with."""

    def busy(path: Path) -> None:
        raise OSError(errno.ENOTEMPTY, "Directory not empty", str(path))

    with monkeypatch.context() as patch:
        patch.setattr("crista.inference.finish.remove_at_once", busy)
        np.testing.assert_array_equal(predicted_again(job), TRUTH)
    work = job.folders.work("0", job.keys[0])
    assert work.is_dir()
    finish(job)
    assert not work.is_dir()


def killed_at_removing(folder: Path) -> None:
    """As a kill when the label image of the work is gone, and the reports on its blocks are not yet."""
    for store in folder.glob("*.zarr"):
        shutil.rmtree(store)
    raise KeyboardInterrupt


@pytest.mark.parametrize("removed_by", ["another network", "itself"])
def test_reports_do_not_outlive_the_blocks_that_they_are_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, removed_by: str
) -> None:
    """Work is removed by a run with other settings, or once its image is finished; killed meanwhile, half of it is left."""
    small_blocks(monkeypatch)
    made = oracle_job(tmp_path, [TRUTH], num_classes=3)
    events = predict_images(made)
    assert any(isinstance(event, TileFinished) for event in events)
    events.close()
    work = made.folders.work("0", made.keys[0])
    assert list(work.glob("per_image-*.json"))
    with monkeypatch.context() as patch:
        patch.setattr("crista.images.atomic.remove_folder", killed_at_removing)
        with pytest.raises(KeyboardInterrupt):
            finish(replace(made, digest="another") if removed_by == "another network" else made)
    shutil.rmtree(made.folders.per_image_binarized, ignore_errors=True)  # by hand, to have it made anew
    finish(made)
    np.testing.assert_array_equal(labels(made.folders.per_image_binarized / "0.tif", 2), TRUTH)
