"""Images that are one task: nothing lies on disk between prediction and record, and a kill before the record costs that image."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tests.integration.test_biapy_weaknesses import Oracle, finish, oracle_job

from crista.errors import PredictionError
from crista.images.image import ImagePair, crop_image
from crista.images.write import write_image
from crista.inference import stage
from crista.inference.record import ImageRecord, record_key
from crista.inference.stage import PredictionJob, predict_images, predict_shard
from crista.inference.task import TaskReport, keep_report, kept_report, load_report, plan_tasks
from crista.plan.events import Said, TileFinished

TRUTH = [np.random.default_rng(seed).integers(0, 4, (37, 45)).astype(np.uint8) for seed in range(3)]


def interrupted(*_: object) -> None:
    """As a kill at this place."""
    raise KeyboardInterrupt


def contents(folder: Path) -> dict[str, bytes]:
    """Every file but the records, which hold seconds."""
    files = [path for path in folder.rglob("*") if path.is_file() and path.suffix != ".json"]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def test_no_work_folder_is_made_for_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prediction = oracle_job(tmp_path, TRUTH, num_classes=4)
    monkeypatch.setattr(stage, "keep_report", lambda *_, **__: pytest.fail("a report was put on disk"))
    records = finish(prediction)
    assert [record.name for record in records] == ["0", "1", "2"]
    assert not (prediction.folders.state / "work").exists()
    assert all(prediction.folders.uncertainty(record.name).is_file() for record in records)


def test_killed_before_its_record_an_image_is_predicted_again_and_all_is_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    undisturbed = oracle_job(tmp_path / "a", TRUTH, num_classes=4)
    expected = finish(undisturbed)
    prediction = oracle_job(tmp_path / "b", TRUTH, num_classes=4)
    save = ImageRecord.save

    def killed(self: ImageRecord, folder: Path) -> None:
        if self.name == "1":
            raise KeyboardInterrupt
        save(self, folder)

    monkeypatch.setattr(ImageRecord, "save", killed)
    with pytest.raises(KeyboardInterrupt):
        finish(prediction)
    monkeypatch.undo()
    done = sorted(path.stem for path in prediction.folders.state.glob("*.json"))
    assert "0" in done
    assert "1" not in done
    records = finish(prediction)
    for before, after in zip(expected, records, strict=True):
        np.testing.assert_array_equal(before.confusions["per_image"], after.confusions["per_image"])
        assert (before.patch_iou, before.uncertainty) == (after.patch_iou, after.uncertainty)
    assert contents(undisturbed.folders.state.parent) == contents(prediction.folders.state.parent)


def test_a_record_does_not_outlive_the_files_that_it_vouches_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Predicted by network A, then by B but killed before B's record: going on with A must not take B's files for its own."""
    first = oracle_job(tmp_path, TRUTH[:1], num_classes=4)
    finish(first)
    written = first.folders.per_image_binarized / "0.tif"
    expected = written.read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(ImageRecord, "save", interrupted)
        with pytest.raises(KeyboardInterrupt):
            finish(replace(first, digest="another network"))
    write_image(written, np.zeros_like(TRUTH[0]), "YX")  # what the other network might have made of it
    finish(first)
    assert written.read_bytes() == expected


@pytest.mark.parametrize("part", [np.s_[:], np.s_[..., -9:, -9:]], ids=["everywhere", "in a corner"])
def test_scores_that_are_no_numbers_are_no_labels(tmp_path: Path, part: tuple[slice, ...]) -> None:
    """They would compare as background, and nobody would see it."""

    def overflow(scores: np.ndarray) -> None:
        scores[part] = np.nan

    prediction = oracle_job(tmp_path, TRUTH, num_classes=4)
    broken = replace(prediction, predictor=replace(prediction.predictor, engine=Oracle(4, overflow)))
    with pytest.raises(PredictionError, match=r"(?s)0\.tif: what the network gives .* are not numbers.*SYSTEM.DEVICE=cpu"):
        finish(broken)
    assert not list(prediction.folders.per_image_binarized.parent.rglob("*.tif"))


def test_a_shard_counts_tasks_not_tiles(tmp_path: Path) -> None:
    """Two of three images, each many batches of tiles."""
    prediction = oracle_job(tmp_path, TRUTH, "DATA.TEST.OVERLAP=(0.25,0.25)", num_classes=4)
    told = [event for event in predict_shard(prediction, 0, 2) if isinstance(event, TileFinished)]
    assert [(event.name, event.tile, event.num_tiles) for event in told] == [("0", 1, 2), ("2", 2, 2)]


@pytest.mark.parametrize("left", [b"", b'{"key": "', b"\x00" * 100], ids=["empty", "cut short", "zeros"])
def test_damaged_records_are_as_none(tmp_path: Path, left: bytes) -> None:
    """A machine that lost its power keeps names of files and not what was in them: the next run makes them anew."""
    prediction = oracle_job(tmp_path, TRUTH, num_classes=4)
    expected = finish(prediction)
    (prediction.folders.state / "1.json").write_bytes(left)
    for before, after in zip(expected, finish(prediction), strict=True):
        np.testing.assert_array_equal(before.confusions["per_image"], after.confusions["per_image"])


@pytest.mark.parametrize("left", [b"", b"\x93NUMPY"], ids=["empty", "cut short"])
def test_damaged_reports_and_sums_are_as_none(tmp_path: Path, left: bytes) -> None:
    path = tmp_path / "per_image-0.json"
    TaskReport("key").save(path)
    assert load_report(path, "key") is not None
    path.write_bytes(left)
    assert load_report(path, "key") is None
    [pair, *_] = (job := oracle_job(tmp_path, TRUTH, num_classes=4)).pairs
    [task] = plan_tasks(job.plan, pair, "0", "key", full_image=False)
    keep_report(task, TaskReport("key", entropy=np.ones((2, 3, 3))), job.folders)
    kept = kept_report(task, job.folders)
    assert kept is not None
    assert kept.entropy is not None
    task.entropy_path(job.folders).write_bytes(left)
    kept = kept_report(task, job.folders)
    assert kept is not None
    assert kept.entropy is None


def test_that_images_are_predicted_anew_is_said(tmp_path: Path) -> None:
    """The tiles go by the largest image, for instance: one more image can mean that all others wait once more."""
    prediction = oracle_job(tmp_path, TRUTH, num_classes=4)

    def said(job: PredictionJob) -> str:
        return " ".join(event.text for event in predict_images(job) if isinstance(event, Said))

    assert "predicted anew" not in said(prediction)
    assert "predicted anew" not in said(prediction)
    tiles = prediction.plan.inference.model_copy(update={"overlap": (0.25, 0.25), "mode": "blended", "exact": False})
    plan = prediction.plan.model_copy(update={"inference": tiles})
    other = replace(prediction, predictor=replace(prediction.predictor, plan=plan))
    one = replace(other, pairs=prediction.pairs[:1], names=prediction.names[:1])
    assert "1 image was finished before, with another network or engine, other settings, files or tiles" in said(one)
    assert "2 images were finished before" in said(other)
    assert "predicted anew" not in said(other)


def test_a_record_of_a_part_does_not_vouch_for_the_whole_nor_for_another_part(tmp_path: Path) -> None:
    """A block of an image validates, and is predicted; with more images beside it all of it does, of the same file."""
    prediction = oracle_job(tmp_path, TRUTH[:1], num_classes=4)
    [whole] = prediction.pairs
    parts = [(slice(0, 20), slice(0, 24)), (slice(17, 37), slice(21, 45))]
    cut = [ImagePair(crop_image(whole.image, part), crop_image(whole.label, part)) for part in parts]
    assert len({record_key("weights", prediction.plan, pair) for pair in (whole, *cut)}) == 3
    finish(replace(prediction, pairs=cut[:1]))
    [record] = finish(prediction)
    assert record.confusions["per_image"].sum() == TRUTH[0].size
