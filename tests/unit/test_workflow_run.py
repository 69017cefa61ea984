"""What a run takes of the machine, and what a prediction takes of the training."""

from __future__ import annotations

import os
import sys
from collections.abc import Generator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import h5py
import numpy as np
import pytest
from tests.conftest import tiny_config
from tests.jobs import write_data
from tests.networks import drawn_weights, network_plan, source_of
from tests.quantised import record_of

from crista.config.load import config_from_dict, parse_config
from crista.errors import ImageReadError, PredictionError
from crista.images.check import DatasetReport, check_dataset
from crista.images.dataset import open_pairs
from crista.images.digest import digest_files
from crista.images.image import ImagePair
from crista.images.open import open_image
from crista.inference.engines import int8, int8_model_path
from crista.inference.engines.int8_record import save_record
from crista.patches.prepare import make_split
from crista.patches.split import Split
from crista.plan.events import Event, ImageFinished, Said, Warned
from crista.plan.make import make_plan
from crista.plan.plan import Plan
from crista.results.run_folder import RunFolder
from crista.training.checkpoint import Checkpoint
from crista.training.class_shares import warn_of_untold
from crista.workflow import resources, run
from crista.workflow.alone import predict_alone
from crista.workflow.known_images import _overlap, training_files, warn_of_known_images, warn_of_learnt_images
from crista.workflow.request import request_automatic, request_prediction


def test_the_cache_fits_what_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    """A container with a limit has less than the machine; Windows is asked in another way what that has."""
    monkeypatch.setattr(resources, "free_bytes", lambda: 10**9)
    assert resources.cache_bytes() == 10**9 // 2
    monkeypatch.setattr(resources, "free_bytes", lambda: sys.maxsize)
    monkeypatch.delattr(os, "sysconf")
    monkeypatch.setattr("psutil.virtual_memory", lambda: SimpleNamespace(total=5 * 10**9))
    assert resources.cache_bytes() == 2 * 10**9


def trained_with(monkeypatch: pytest.MonkeyPatch, keys: dict[str, Any]) -> None:
    """Every checkpoint is that of a training with these keys."""
    plan = SimpleNamespace(config=config_from_dict(keys).config)
    monkeypatch.setattr("crista.training.checkpoint.load_checkpoint", lambda *_: SimpleNamespace(plan=plan))


def test_label_images_that_are_given_are_those_that_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also after a training whose test labels lay beside the images, in the same files."""
    inner = {"RAW_PATH": "raw", "GT_PATH": "label"}
    keys = {"INPUT_ZARR_MULTIPLE_DATA": True, **{f"INPUT_ZARR_MULTIPLE_DATA_{key}": value for key, value in inner.items()}}
    trained_with(monkeypatch, {"DATA": {"TEST": {"PATH": "test", "LOAD_GT": True, **keys}}})
    (tmp_path / "x").mkdir()
    with h5py.File(tmp_path / "x/a.h5", "w") as file:
        file["raw"], file["label"] = np.ones((40, 48), np.uint8), np.zeros((40, 48), np.uint8)
    (tmp_path / "y").mkdir()
    np.save(tmp_path / "y/a.npy", np.ones((40, 48), np.uint8))
    for labels, expected in (("y", "a.npy"), ("x", "a.h5")):
        request = request_prediction("best.pth", tmp_path / "x", labels=tmp_path / labels, result_dir=tmp_path)
        assert request.notices == ()
        opened = open_pairs(request.config.data.test, ndim=2, with_labels=True, role="test")
        assert opened.problems == []
        [pair] = opened.pairs
        assert pair.image.inner == "raw"
        assert pair.label is not None
        assert pair.label.path.name == expected
        assert pair.label.inner == ("label" if labels == "x" else None)


def test_another_seed_changes_nothing_in_a_prediction(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trained_with(monkeypatch, {"SYSTEM": {"SEED": 7}})
    [told] = request_prediction("best.pth", tmp_path / "x", result_dir=tmp_path, overrides=["SYSTEM.SEED=3"]).notices
    assert told.startswith("SYSTEM.SEED has no effect: a trained network keeps what it was trained with")
    assert request_prediction("best.pth", tmp_path / "x", result_dir=tmp_path, overrides=["SYSTEM.SEED=7"]).notices == ()


def test_the_configuration_that_is_kept_of_a_prediction_says_what_was_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained_with(monkeypatch, {"TEST": {"THRESHOLD": 0.4}})
    request = request_prediction("best.pth", tmp_path / "x", result_dir=tmp_path, overrides=["TEST.THRESHOLD=0.7"])
    assert request.config.test.threshold == 0.7
    assert request.config_text.endswith("\n# changed on the command line: TEST.THRESHOLD=0.7")
    assert parse_config(request.config_text).config == request.config


def test_the_voxel_size_of_other_images_is_not_taken_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It would replace what the files say, and hide that the network was trained on voxels of another size."""
    trained_with(monkeypatch, {"DATA": {"TEST": {"RESOLUTION": [0.5, 0.5], "PADDING": [8, 8]}}})
    request = request_prediction("best.pth", tmp_path, result_dir=tmp_path)
    assert (request.config.data.test.resolution, request.config.data.test.padding) == (None, (8, 8))
    assert request.notices[0].startswith(
        "DATA.TEST.RESOLUTION = (0.5, 0.5), of the test images of the training, is not taken over"
    )
    given = request_prediction("best.pth", tmp_path, result_dir=tmp_path, overrides=["DATA.TEST.RESOLUTION=(0.2, 0.2)"])
    assert (given.config.data.test.resolution, given.notices) == ((0.2, 0.2), ())
    trained_with(monkeypatch, {"DATA": {"TEST": {"RESOLUTION": [-1]}}})
    assert request_prediction("best.pth", tmp_path, result_dir=tmp_path).notices == ()


@pytest.mark.parametrize(
    ("minutes", "overrides", "expected"),
    [(3, (), 3), (None, ("TRAIN.MAX_MINUTES=7",), 7), (None, (), 20), (None, ("TRAIN.EPOCHS=4",), None)],
)
def test_the_configuration_that_is_kept_of_two_folders_is_that_of_the_same_training(
    tmp_path: Path, minutes: float | None, overrides: tuple[str, ...], expected: float | None
) -> None:
    """Its first line tells people to run it; `--minutes` comes as a change of a key."""
    made = request_automatic(tmp_path / "x", tmp_path / "y", minutes=minutes, result_dir=tmp_path, overrides=overrides)
    assert made.config.train.max_minutes == expected
    assert ("TRAIN.MAX_MINUTES" in made.reasons) == (expected == 20)
    assert parse_config(made.config_text).config.train.max_minutes == expected
    assert made.config.augmentor.zflip == "auto"


def test_what_was_changed_of_the_own_configuration_has_no_reason_of_its_own(tmp_path: Path) -> None:
    def reasons(*overrides: str) -> set[str]:
        return set(request_automatic(tmp_path / "x", tmp_path / "y", result_dir=tmp_path, overrides=overrides).reasons)

    assert reasons() == reasons("DATA.VAL.RANDOM=False") == {"AUGMENTOR", "DATA.VAL.SPLIT_TRAIN", "TRAIN.MAX_MINUTES"}
    assert reasons("augmentor.vflip=False", "TRAIN.MAX_MINUTES=9") == {"DATA.VAL.SPLIT_TRAIN"}
    assert reasons("AUGMENTOR={VFLIP: False}", "DATA.VAL.SPLIT_TRAIN=0.1", "TRAIN.EPOCHS=3") == set()


@pytest.mark.parametrize(
    "overrides",
    [
        ("DATA.PATCH_SIZE=(32,32,1)", "model.feature_maps=[4, 8]", "TEST.THRESHOLD=0.7"),
        ("AUGMENTOR.ENABLE=False", "TRAIN.MAX_MINUTES=null"),
        ("LOSS.IGNORE_INDEX=[254, 255]", "SYSTEM.SEED=3", "SYSTEM.SEED=4"),
        ("AUGMENTOR={VFLIP: False, GAMMA_CONTRAST: True}", "DATA.CLASS_NAMES=[background, 'a: #b']"),
        ("DATA.TRAIN.PATH='C:\\it''s'",),
    ],
)
def test_the_configuration_that_is_kept_holds_what_was_changed(tmp_path: Path, overrides: tuple[str, ...]) -> None:
    made = request_automatic(tmp_path / "x", tmp_path / "y", result_dir=tmp_path, overrides=overrides)
    assert parse_config(made.config_text).config == made.config
    assert "# This share of the images is not trained on" in made.config_text
    assert [line for line in made.config_text.splitlines() if line.startswith("# changed")] == [
        f"# changed on the command line: {change}" for change in overrides
    ]


def predicting(failure: Exception | None = None) -> Generator[Event, None, str]:
    """A prediction of three images."""
    for number in range(3):
        yield ImageFinished(str(number), number + 1, 3)
        if failure is not None:
            raise failure
    return "records"


def test_of_two_predictions_into_one_folder_the_one_that_began_last_goes_on(tmp_path: Path) -> None:
    """The first ends with words, also where the second has cleared away the file that it was writing; neither mixes its figures
    with the other's images."""
    folder = RunFolder(tmp_path, "job")
    first, hindered = (predict_alone(predicting(failure), folder) for failure in (None, FileNotFoundError("a.part")))
    next(first)
    next(hindered)
    last = predict_alone(predicting(), folder)
    assert [type(event) for event in (next(last), next(last))] == [ImageFinished] * 2
    for other in (first, hindered):
        with pytest.raises(PredictionError, match=r"job_1: another run has begun(?s:.*)-> give each(.*) its own --name"):
            next(other)
    next(last)
    with pytest.raises(StopIteration) as ended:
        next(last)
    assert ended.value.value == "records"
    assert not [path for path in folder.state.iterdir() if path.is_file()]
    undisturbed = predict_alone(predicting(FileNotFoundError("a.tif")), folder)
    next(undisturbed)
    with pytest.raises(FileNotFoundError, match=r"a\.tif"):
        next(undisturbed)


def test_training_images_that_have_changed_do_not_end_a_prediction(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They would only have made an 8-bit model: a class has been added to their labels since, for instance."""

    def relabelled(*_: object, **__: object) -> None:
        raise ImageReadError("a.tif: holds the value 2, and the classes are 0 and 1")

    monkeypatch.setattr(run, "known_int8_model", lambda *_, **__: None)
    monkeypatch.setattr(run, "make_split", lambda *_: None)
    monkeypatch.setattr(run, "prepare_samples", lambda *_, **__: None)
    monkeypatch.setattr(run, "make_int8_model", relabelled)
    config = config_from_dict({"TRAIN": {"ENABLE": False}, "PATHS": {"CHECKPOINT_FILE": "best.pth"}}).config
    request: Any = SimpleNamespace(config=config, folder=RunFolder(tmp_path, "job"))
    report: Any = SimpleNamespace(train=["pair"], val=[])
    nothing: Any = None
    [told] = run._quantize(request, nothing, report, nothing)
    assert isinstance(told, Warned)
    assert told.text.endswith("any more: a.tif: holds the value 2, and the classes are 0 and 1")


def test_an_8_bit_model_that_is_there_needs_no_training_images(tmp_path: Path) -> None:
    """They are not read again, and nobody hears what is wrong with them now."""
    plan, checkpoint = network_plan(engine="fastest"), tmp_path / "a-checkpoint-best.pth"
    trained: Any = SimpleNamespace(weights=drawn_weights(plan))
    record = record_of(source_of(plan, tmp_path, trained.weights), accepted=False, versions=int8._versions())
    save_record(int8_model_path(checkpoint), record)
    config = config_from_dict({"TRAIN": {"ENABLE": False}, "PATHS": {"CHECKPOINT_FILE": str(checkpoint)}}).config
    request: Any = SimpleNamespace(config=config, folder=RunFolder(tmp_path, "job"))
    report: Any = SimpleNamespace(train=["pair"], val=[])
    [told] = run._quantize(request, plan, report, trained)
    assert isinstance(told, Said)
    assert told.text == record.summary


def test_that_the_network_has_learnt_from_what_is_measured_is_said(tmp_path: Path) -> None:
    """A checkpoint on its own training images, by another way to their folder; a run that trains compares the pixels itself."""
    folders = [tmp_path / name for name in ("train", "new")]
    for folder in folders:
        folder.mkdir()
        np.save(folder / "a.npy", np.zeros((20, 24), np.uint8))
    known, new = (open_image(folder / ".." / folder.name / "a.npy", ndim=2) for folder in folders)
    plan: Any = SimpleNamespace(config=config_from_dict({"DATA": {"TRAIN": {"PATH": str(folders[0])}}}).config)
    pairs = [ImagePair(known, known), ImagePair(new, new)]
    [told] = warn_of_known_images(pairs, plan)
    assert isinstance(told, Warned)
    assert "1 of 2 images that are measured lie where the training images were" in told.text
    assert list(warn_of_known_images(pairs[1:], plan)) == []
    assert list(warn_of_known_images([ImagePair(known)], plan)) == []
    nowhere: Any = SimpleNamespace(config=config_from_dict({}).config)
    assert list(warn_of_known_images(pairs, nowhere)) == []


def data_of(folder: Path, count: int, *, seed: int = 0, shape: tuple[int, ...] = (48, 48)) -> tuple[Plan, DatasetReport, Split]:
    """The plan of a training on the images in `folder`, which hold `count`, what was seen of them, and their split."""
    data = write_data(folder, shape=shape, train=count, test=0)
    tree = tiny_config(data, test={"ENABLE": False}, system={"SEED": seed})
    config = config_from_dict(tree).config
    report = check_dataset(config, need_train=True, need_test=False)
    assert report.fingerprint is not None
    plan = make_plan(config, report.fingerprint)
    return plan, report, make_split(plan, report.train, ())


def test_that_the_start_of_a_training_has_learnt_from_what_validates_is_said(tmp_path: Path) -> None:
    """Another seed keeps other images aside; where images were added nobody knows which they were."""
    plan, report, split = data_of(tmp_path / "here", 8)
    start = Checkpoint(plan, {}, epoch=1, data_key=digest_files(training_files(report)))
    assert list(warn_of_learnt_images(split, report, start)) == []
    _, report, other = data_of(tmp_path / "here", 8, seed=1)
    names = [{source.pair.name for source in one.validation} for one in (split, other)]
    known = len(names[1] - names[0])
    assert known
    [told] = warn_of_learnt_images(other, report, start)
    assert isinstance(told, Warned)
    assert f"{known} of 2 images that validate {'was' if known == 1 else 'were'} trained on by the network" in told.text
    _, report, split = data_of(tmp_path / "here", 12)
    [told] = warn_of_learnt_images(split, report, start)
    assert isinstance(told, Warned)
    assert "3 of 3 images that validate may have been trained on by the network" in told.text
    _, elsewhere, split = data_of(tmp_path / "elsewhere", 8, seed=1)
    assert list(warn_of_learnt_images(split, elsewhere, start)) == []
    [told] = warn_of_learnt_images(split, replace(elsewhere, test=report.train[:2]), start)
    assert isinstance(told, Warned)
    assert "2 of 2 images that are measured lie where the training images were" in told.text


def test_the_images_of_a_start_from_another_machine_are_known_by_what_they_hold(tmp_path: Path) -> None:
    plan, report, _ = data_of(tmp_path / "there", 8)
    start = Checkpoint(plan, {}, epoch=1, data_key=digest_files(training_files(report)))
    (tmp_path / "there").rename(tmp_path / "here")
    _, report, split = data_of(tmp_path / "here", 8, seed=1)
    [told] = warn_of_learnt_images(split, report, start)
    assert isinstance(told, Warned)
    assert "trained on by the network that this training starts from" in told.text


def test_blocks_of_one_image_are_compared_by_their_place(tmp_path: Path) -> None:
    split = data_of(tmp_path / "here", 1, shape=(64, 160))[2]
    [trained, *_], [validated] = split.train, split.validation
    assert _overlap(trained, trained)
    assert not _overlap(trained, validated)


@pytest.mark.parametrize(("told", "count"), [(None, 1), ((0.9, 0.1), 0)])
def test_a_network_that_was_not_told_how_frequent_classes_are_is_named(
    tmp_path: Path, told: tuple[float, ...] | None, count: int
) -> None:
    """The checkpoint to resume from never is, nor the best one of a training that was killed."""
    plan = data_of(tmp_path, 2)[0].model_copy(update={"estimates_class_shares": True})
    assert len(list(warn_of_untold(Checkpoint(plan, {}, epoch=1, class_shares=told)))) == count
    plan = plan.model_copy(update={"estimates_class_shares": False})
    assert list(warn_of_untold(Checkpoint(plan, {}, epoch=1))) == []


@pytest.mark.parametrize(
    ("finished", "minutes", "on"), [(False, 5, True), (True, 5, False), (True, 4, False), (True, 6, True), (True, None, False)]
)
def test_a_training_goes_on_unless_it_is_finished(tmp_path: Path, finished: bool, minutes: float | None, on: bool) -> None:
    plan = data_of(tmp_path, 2)[0]
    had = plan.model_copy(update={"minutes": None if minutes is None else 5.0})
    done = Checkpoint(had, {}, epoch=1, finished=finished)
    assert run._goes_on(done, plan.model_copy(update={"minutes": minutes})) is on
