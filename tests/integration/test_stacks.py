"""What filters along z see: the probabilities of the slices of a stack, and only slices that were predicted."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import ndimage
from tests.integration.test_biapy_weaknesses import finish, oracle_job
from tests.jobs import labels

from crista.inference import clean, stack, stage
from crista.inference import finish as finish_module
from crista.inference.perform import perform
from crista.inference.stage import PredictionJob
from crista.inference.task import is_exact

TRUTH = np.random.default_rng(0).integers(0, 4, (5, 40, 48)).astype(np.uint8)
Z_FILTER = ("TEST.POST_PROCESSING.Z_FILTERING=True",)
YZ_FILTER = ("TEST.POST_PROCESSING.YZ_FILTERING=True", "TEST.POST_PROCESSING.YZ_FILTERING_SIZE=3")
FILTERED = (*Z_FILTER, "TEST.POST_PROCESSING.Z_FILTERING_SIZE=3", "TEST.ANALIZE_2D_IMGS_AS_3D_STACK=True")


def stack_job(folder: Path) -> PredictionJob:
    return oracle_job(folder, tuple(TRUTH), *FILTERED, num_classes=4)


def filtered(job: PredictionJob) -> np.ndarray:
    """The filtered stack of a finished job."""
    return labels(job.folders.full_post_processing / "stack.tif", 3)


def expected(slices: np.ndarray) -> np.ndarray:
    """The median along z of the probability of each class (0 or 1), then the largest."""
    padded = np.pad(slices, ((1, 1), (0, 0), (0, 0)), mode="edge")
    one_hot = np.eye(4)[padded]
    middle: np.ndarray = np.median([one_hot[:-2], one_hot[1:-1], one_hot[2:]], axis=0).argmax(axis=-1)
    return middle


def names_predicted(job: PredictionJob, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The images that go through the network while the job is finished."""
    predicted: list[str] = []

    def watched(predictor: Any, folders: Any, tasks: Any, conclude: Any) -> Any:
        predicted.extend(task.name for task in tasks)
        return perform(predictor, folders, tasks, conclude)

    with monkeypatch.context() as patch:
        patch.setattr(stage, "perform", watched)
        finish(job)
    return predicted


def test_a_slice_more_makes_a_new_stack(tmp_path: Path) -> None:
    """What the first four were filtered by is gone when the fifth one comes."""
    job = stack_job(tmp_path)
    finish(replace(job, pairs=job.pairs[:4], names=job.names[:4]))
    finish(job)
    np.testing.assert_array_equal(filtered(job), expected(TRUTH))
    assert not (job.folders.state / "stack").exists()


def test_a_single_slice_is_a_stack_too(tmp_path: Path) -> None:
    """A filter along z leaves it as it is; the TIFF that is measured does not keep its z axis."""
    job = oracle_job(tmp_path, tuple(TRUTH[:1]), *FILTERED, num_classes=4)
    record = finish(job)[-1]
    assert np.trace(record.confusions["post_processing"]) == record.confusions["post_processing"].sum() == TRUTH[0].size
    np.testing.assert_array_equal(labels(job.folders.full_post_processing / "stack.tif", 2), TRUTH[0])


def test_a_finished_stack_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    job = stack_job(tmp_path)
    finish(job)
    assert names_predicted(replace(job), monkeypatch) == []


def test_slices_that_are_done_are_not_predicted_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    job = stack_job(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(stack, "filter_region", interrupted)  # all slices are there, the stack is not
        with pytest.raises(KeyboardInterrupt):
            finish(job)
    job.folders.slice_probabilities("3").unlink()
    assert names_predicted(replace(job), monkeypatch) == ["3"]
    np.testing.assert_array_equal(filtered(job), expected(TRUTH))


def interrupted(*_: object) -> None:
    """As a kill at this place."""
    raise KeyboardInterrupt


def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is several blocks for gigabytes is several blocks for these images too."""
    monkeypatch.setattr("crista.inference.task.IN_MEMORY_BYTES", 0)
    monkeypatch.setattr("crista.inference.task.BLOCK_BYTES", 1)
    monkeypatch.setattr("crista.images.pyramid.CHUNK_VOXELS", {2: 32 * 32, 3: 16 * 16 * 16})


def test_large_slices_are_filtered_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Images of several blocks, which are never whole in memory."""
    small_blocks(monkeypatch)
    job = stack_job(tmp_path)
    finish(job)
    np.testing.assert_array_equal(filtered(job), expected(TRUTH))
    assert not list(job.folders.state.rglob(".*.part*"))
    assert not (job.folders.state / "stack").exists()


@pytest.mark.parametrize("in_blocks", [False, True], ids=["in memory", "in blocks"])
def test_slices_that_are_not_predicted_are_no_background_to_the_filters(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, in_blocks: bool
) -> None:
    """With a range of slices its ends are as the ends of a volume: what lies beyond has no vote."""
    if in_blocks:
        small_blocks(monkeypatch)
    truth = np.random.default_rng(0).integers(0, 2, (12, 40, 48)).astype(np.uint8)
    chunks = ("TEST.BY_CHUNKS.ENABLE=True", "TEST.BY_CHUNKS.Z_START=3", "TEST.BY_CHUNKS.Z_END=9")
    job = oracle_job(
        tmp_path, [truth], "PROBLEM.NDIM=3D", *chunks, *Z_FILTER, "TEST.POST_PROCESSING.Z_FILTERING_SIZE=7", num_classes=2
    )
    [record] = finish(job)
    cleaned = labels(job.folders.full_post_processing / "0.zarr", 3)
    expected_inside = ndimage.median_filter(truth[3:9], (7, 1, 1))
    np.testing.assert_array_equal(cleaned[3:9], expected_inside)
    assert not cleaned[:3].any()
    assert not cleaned[9:].any()
    assert record.confusions["post_processing"].sum() == truth[3:9].size
    assert np.trace(record.confusions["post_processing"]) == (expected_inside == truth[3:9]).sum()


def test_whole_images_keep_to_the_range_of_slices(tmp_path: Path) -> None:
    """Overlapping tiles are averaged, so the whole image is a prediction of its own; it is seen whole, and its range written."""
    truth = np.repeat(np.random.default_rng(0).integers(1, 4, (1, 40, 48)).astype(np.uint8), 12, axis=0)
    chunks = ("TEST.BY_CHUNKS.ENABLE=True", "TEST.BY_CHUNKS.Z_START=3", "TEST.BY_CHUNKS.Z_END=9")
    overlap = "DATA.TEST.OVERLAP=(0.25,0.25,0.25)"
    job = replace(oracle_job(tmp_path, [truth], "PROBLEM.NDIM=3D", overlap, *chunks, *Z_FILTER, num_classes=4), full_image=True)
    assert not is_exact(job.plan, job.pairs[0].image)
    [record] = finish(job)
    for folder in (job.folders.per_image_binarized, job.folders.full_image_binarized, job.folders.full_post_processing):
        written = labels(folder / "0.zarr", 3)
        assert written[3:9].all()
        assert not written[:3].any()
        assert not written[9:].any()
    np.testing.assert_array_equal(labels(job.folders.full_image_binarized / "0.zarr", 3)[3:9], truth[3:9])
    assert record.confusions["full_image"].sum() == truth[3:9].size


@pytest.mark.parametrize("saved", [False, True])
def test_probabilities_that_only_the_filters_see_get_no_lower_resolutions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, saved: bool
) -> None:
    small_blocks(monkeypatch)
    built: list[str] = []
    monkeypatch.setattr("crista.inference.finish._build_pyramid", lambda store, _: built.append(store.name))
    truth = np.random.default_rng(0).integers(0, 4, (12, 40, 48)).astype(np.uint8)
    keys = ("PROBLEM.NDIM=3D", "TEST.BY_CHUNKS.ENABLE=True", f"DATA.TEST.ARGMAX_TO_OUTPUT={not saved}", *Z_FILTER)
    finish(oracle_job(tmp_path, [truth], *keys, num_classes=4))
    assert sorted(built) == ["filtered.zarr", "labels.zarr", *["probabilities.zarr"] * saved]


def test_of_large_slices_a_part_is_filtered_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With their neighbours and the probabilities of all classes whole slices are many times as large as their labels."""
    whole, parts = (oracle_job(tmp_path / name, tuple(TRUTH), *FILTERED, *YZ_FILTER, num_classes=4) for name in ("one", "many"))
    finish(whole)
    read: list[int] = []

    def watched(source: Any, region: Any, filters: Any) -> Any:
        read.append(4 * int(np.prod([part.stop - part.start + 4 for part in region])))
        return clean.filter_region(source, region, filters)

    monkeypatch.setattr(stack, "filter_region", watched)
    monkeypatch.setattr(stack, "BLOCK_VOXELS", 4 * 5 * 24 * 52)
    monkeypatch.setattr(stack, "LEAST_PART", 8)
    finish(parts)
    assert len(read) > len(TRUTH)
    assert max(read) <= stack.BLOCK_VOXELS
    np.testing.assert_array_equal(filtered(parts), filtered(whole))


def slow(of: Any, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a function of a module take a fifth of a second more."""
    usual = getattr(of, name)

    def wait(*args: Any, **settings: Any) -> Any:
        time.sleep(0.2)
        return usual(*args, **settings)

    monkeypatch.setattr(of, name, wait)


def test_the_time_of_the_stack_and_of_large_images_is_counted_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The report has the time of filters, and of writing and measuring, over all images."""
    slow(stack, "filter_region", monkeypatch)
    slow(stack, "image_boundary", monkeypatch)
    *slices, record = finish(stack_job(tmp_path / "stack"))
    assert record.seconds["writing"] > 0.2
    assert record.seconds["post_processing"] > 0.4, "filtered, and measured after it"
    assert "post_processing" not in slices[0].seconds
    small_blocks(monkeypatch)
    slow(finish_module, "image_boundary", monkeypatch)
    median = tuple(f"TEST.POST_PROCESSING.MEDIAN_FILTER{rest}" for rest in ("=True", "_AXIS=[xy]", "_SIZE=[3]"))
    [large] = finish(oracle_job(tmp_path / "large", [TRUTH[0]], *median, "TEST.BY_CHUNKS.ENABLE=True", num_classes=4))
    assert large.seconds["writing"] > 0.4, "measured before and after the filter"
    assert large.seconds["post_processing"] < 0.4
