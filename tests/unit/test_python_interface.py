"""What Python may hand to the functions of `crista`: paths, text, numbers; and what is said about everything else."""

from __future__ import annotations

from collections.abc import Callable, Generator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from tests.jobs import job, predict_only, write_data

import crista
from crista.cli.options import make_results_folder, writable_file
from crista.cli.screen import Screen
from crista.config.load import config_from_dict
from crista.errors import CheckpointError, ConfigError, DataError
from crista.plan.events import Event, Said
from crista.results.run_folder import RunFolder
from crista.workflow import run
from crista.workflow.known_images import warn_of_known_images
from crista.workflow.request import (
    Request,
    request_automatic,
    request_prediction,
    request_run,
    request_training,
    start_changes,
)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home folder with data in it, and another one to work in."""
    folder, elsewhere = tmp_path / "home", tmp_path / "elsewhere"
    write_data(folder / "data", train=3)
    elsewhere.mkdir()
    monkeypatch.setenv("HOME", str(folder))
    monkeypatch.setenv("USERPROFILE", str(folder))
    monkeypatch.chdir(elsewhere)
    return folder


@pytest.fixture
def no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs without charts and report, which take most of the time of a tiny job."""
    monkeypatch.setattr("crista.results.recorder.draw_charts", lambda *_, **__: [])
    monkeypatch.setattr("crista.workflow.run.draw_network", lambda folder, _plan: folder.model_plot)
    monkeypatch.setattr("crista.workflow.run.write_run_report", lambda *_: iter(()))


def test_the_home_folder_is_found_in_every_path(home: Path) -> None:
    """A notebook has no shell that writes it out; a folder called ~ would be a trap for whoever removes it."""
    where = {"result_dir": "~/results"}
    made = request_automatic("~/data/train/x", "~/data/train/y", **where)
    assert made.config.data.train.path == str(home / "data/train/x")
    assert made.folder.result_dir == home / "results"
    (home / "job.yaml").write_text("TRAIN: {ENABLE: True}\n")
    assert request_run("~/job.yaml", **where).folder.root == request_training("~/job.yaml", **where).folder.root
    assert start_changes("~/best.pth")[1].endswith(f'"{home / "best.pth"}"')
    assert crista.check("~/data/train/x", "~/data/train/y").problems == ()
    assert crista.evaluate("~/data/train/y", "~/data/train/y").class_iou == (1.0, 1.0)
    folders = crista.Folders("~/data/train/x", "~/data/train/y")
    assert crista.new("~/new.yaml", folders=folders) == home / "new.yaml"
    assert crista.check("~/new.yaml").problems == ()
    assert writable_file(Path("~/check.html")) == home / "check.html"
    make_results_folder(Path("~/made"), Screen(silent=True))
    assert (home / "made").is_dir()
    assert list(Path.cwd().iterdir()) == []
    paths = config_from_dict({"PATHS": {"PROB_MAP_DIR": "~/maps"}}).config.paths
    assert RunFolder(Path("results"), "a", 1, paths).prob_map == home / "maps"


def test_training_images_in_the_home_folder_are_found_again(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They calibrate the 8-bit model of TEST.ENGINE: fastest, also in a run that only predicts."""

    def look(*_: Any) -> Generator[Event, None, Any]:
        yield Said("looking")
        return SimpleNamespace(problems=["they are not of use here"])

    monkeypatch.setattr(run, "known_int8_model", lambda *_, **__: None)
    monkeypatch.setattr(run, "check", look)
    config = config_from_dict(job(Path("~/data"))).config
    plan: Any = SimpleNamespace(config=config)
    nothing: Any = SimpleNamespace(train=(), val=())
    first, *_ = run._quantize(Request(config, home / "results"), plan, nothing, nothing)
    assert first == Said("looking")


def test_a_folder_whose_name_begins_with_a_tilde_is_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`~backup` is also the way to write the home folder of a user, who need not be there."""
    monkeypatch.chdir(tmp_path)
    plan: Any = SimpleNamespace(config=config_from_dict({"DATA": {"TRAIN": {"PATH": "~nobody-here/x"}}}).config)
    assert list(warn_of_known_images((), plan)) == []


@pytest.mark.parametrize(
    ("call", "name"),
    [
        (lambda wrong, right: crista.predict(right, wrong, result_dir=right), "images"),
        (lambda wrong, right: crista.predict(wrong, right, result_dir=right), "checkpoint"),
        (lambda wrong, right: crista.train_on(wrong, right, result_dir=right), "images"),
        (lambda wrong, right: crista.train_on(right, wrong, result_dir=right), "labels"),
        (lambda wrong, right: crista.evaluate(right, wrong), "predictions"),
        (lambda wrong, right: crista.run(wrong, result_dir=right), "config"),
    ],
)
@pytest.mark.parametrize("wrong", [np.zeros((8, 8)), ["a.tif", "b.tif"]])
def test_pixels_and_lists_of_files_are_no_path(tmp_path: Path, call: Callable[..., Any], name: str, wrong: Any) -> None:
    """In BiaPy `predict` takes an array; as text it would be a path of ten thousand letters."""
    with pytest.raises(TypeError, match=f"{name} takes the path of a file or a folder, not {type(wrong).__name__}: save arrays"):
        call(wrong, tmp_path)


def test_results_are_always_files() -> None:
    """In BiaPy a job without a folder leaves nothing behind."""
    with pytest.raises(TypeError, match=r"result_dir takes the path of a file or a folder, not NoneType$"):
        crista.run({"TRAIN.ENABLE": True}, result_dir=None)


@pytest.mark.parametrize(
    ("key", "given", "expected"),
    [
        ("data.patch_size", np.array([64, 64, 1]), (64, 64, 1)),
        ("data.normalization.zero_mean_unit_var.mean_val", np.float32([0.5, 2]), (0.5, 2.0)),
        ("model.feature_maps", range(8, 32, 8), (8, 16, 24)),
        ("train.epochs", np.int64(3), 3),
        ("data.train.path", Path("train/x"), "train/x"),
        ("data.class_names", np.array(["background", "cell"]), ("background", "cell")),
    ],
)
def test_values_of_keys_are_what_python_computes(key: str, given: Any, expected: Any) -> None:
    """The mean of the images of a folder is an array."""
    config: Any = config_from_dict({key: given}).config
    *sections, last = key.split(".")
    tree: Any = {last: given}
    for section in reversed(sections):
        tree = {section: tree}
    for found in (config, crista.Config(**tree)):
        for section in sections:
            found = getattr(found, section)
        assert getattr(found, last) == expected


def test_one_change_of_a_key_is_given_in_a_list(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match=r"overrides takes a list of KEY=VALUE, here \['TRAIN.EPOCHS=2'\], not one text"):
        crista.run({"TRAIN.ENABLE": True}, result_dir=tmp_path, overrides="TRAIN.EPOCHS=2")


@pytest.mark.parametrize(("given", "said"), [({"run_id": "2"}, "'2' is no whole number"), ({"name": 7}, "7 is no text")])
def test_names_and_numbers_of_another_type_are_named(tmp_path: Path, given: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        crista.run({"TRAIN.ENABLE": True}, result_dir=tmp_path, **given)


def test_runs_may_be_counted_by_numpy(tmp_path: Path) -> None:
    jobs = [request_run({}, result_dir=tmp_path, name="a", run_id=number).folder.job for number in np.arange(3)]
    assert jobs == ["a_0", "a_1", "a_2"]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"ndim": "3D", "classes": 2}, "'3D' is neither 2 .images. nor 3"),
        ({"ndim": 2, "classes": "abc"}, "'abc' is one text, not a list of names"),
    ],
)
def test_a_new_configuration_is_not_of_what_was_not_meant(tmp_path: Path, given: dict[str, Any], said: str) -> None:
    """Volumes are no images, and three letters no three classes."""
    with pytest.raises(ConfigError, match=said):
        crista.new(tmp_path / "job.yaml", **given)
    assert list(tmp_path.iterdir()) == []


def test_names_of_classes_are_a_list(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.arange(40 * 48).reshape(40, 48).astype(np.uint8) % 3)
    with pytest.raises(DataError, match="class_names: 'abc' is one text, not a list of names"):
        crista.evaluate(tmp_path, tmp_path, class_names="abc")


@pytest.mark.parametrize("ignored", [np.int64(255), np.array([254, 255]), [255], 255])
def test_ignored_values_may_be_numbers_of_numpy(tmp_path: Path, ignored: Any) -> None:
    truth, predicted = np.zeros((2, 40, 40), np.uint8)
    truth[:10], predicted[:20], truth[30:] = 1, 1, 255
    for name, label in (("y", truth), ("p", predicted)):
        (tmp_path / name).mkdir()
        np.save(tmp_path / name / "a.npy", label)
    found = crista.evaluate(tmp_path / "y", tmp_path / "p", ignore_index=ignored)
    assert found.pooled.sum() == 30 * 40
    assert found.class_iou == (0.5, 0.5)


def test_data_that_nobody_has_looked_at_are_not_sound(tmp_path: Path) -> None:
    """Both switches are off where they are left out, and then there is nothing to check."""
    data = write_data(tmp_path, train=3)
    folders = {"data.train.path": str(data / "train/x"), "data.train.gt_path": str(data / "train/y")}
    [problem] = crista.check(folders).problems
    assert str(problem).startswith("TRAIN.ENABLE: and TEST.ENABLE are both False: there is nothing to do")
    with pytest.raises(ConfigError, match=r"TEST.ENABLE are both False"):
        crista.fix(folders, out=tmp_path / "mended")
    report = crista.check({**folders, "train.enable": True})
    assert (report.problems, len(report.train)) == ((), 3)


def test_cores_are_given_back_to_the_next_run(tmp_path: Path) -> None:
    """SYSTEM.NUM_CPUS is of one run; a notebook goes on with all cores, also after a run that failed or was closed."""
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        config = job(write_data(tmp_path / "data"), {"SYSTEM": {"NUM_CPUS": 1}}, predict_only(tmp_path / "none.pth"))
        events = run.run(request_run(config, result_dir=tmp_path))
        next(events)
        assert torch.get_num_threads() == 1
        events.close()
        assert torch.get_num_threads() == 3
        with pytest.raises(crista.CristaError, match="no such checkpoint"):
            crista.run(config, result_dir=tmp_path)
        with pytest.raises(crista.CristaError, match="is no device"):
            crista.run(config, result_dir=tmp_path, overrides=["SYSTEM.DEVICE=abacus"])
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)


@pytest.mark.usefixtures("no_pictures")
def test_a_notebook_may_have_set_numpy_and_pytorch_otherwise(tmp_path: Path) -> None:
    """No gradients, as for its own predictions, numbers of 64 bits, and every underflow an error: whoever listens keeps that."""
    seen = set[tuple[Any, ...]]()
    own = (torch.float64, "meta", False, "raise")

    def note(_: Event) -> None:
        new = torch.empty(1)
        seen.add((new.dtype, new.device.type, torch.is_grad_enabled(), np.geterr()["under"]))

    config = job(write_data(tmp_path / "data", num_classes=3), num_classes=3)
    torch.set_default_dtype(torch.float64)
    torch.set_default_device("meta")
    try:
        with np.errstate(all="raise"), torch.inference_mode():
            outcome = crista.run(config, result_dir=tmp_path, on_event=note)
            found = crista.evaluate(tmp_path / "data/test/y", outcome.folder.per_image_binarized, on_event=note)
            note(Event())
    finally:
        torch.set_default_dtype(torch.float32)
        torch.set_default_device(None)
    assert seen == {own}
    assert found.summary["foreground_iou"] == pytest.approx(
        outcome.metrics["Foreground IoU, reconstructed image (mean over images)"]
    )


def test_no_more_cores_are_used_than_there_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A configuration comes from a larger machine."""
    monkeypatch.setattr("crista.workflow.resources.usable_cores", lambda: 2)
    config = job(write_data(tmp_path / "data"), {"SYSTEM": {"NUM_CPUS": 64, "DEVICE": "cpu"}})
    events = run.run(request_run(config, result_dir=tmp_path))
    said = [next(events), next(events)]
    assert torch.get_num_threads() == 2
    events.close()
    assert said[1] == Said("SYSTEM.NUM_CPUS: 64, but there are 2 cores: these are used")


def test_the_results_of_a_job_are_a_network_as_on_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trained = SimpleNamespace(plan=SimpleNamespace(config=config_from_dict({}).config))
    monkeypatch.setattr("crista.training.checkpoint.load_checkpoint", lambda _: trained)
    with pytest.raises(CheckpointError, match="is a folder without a network"):
        request_prediction(tmp_path, tmp_path, result_dir=tmp_path)
    network = tmp_path / "cells/checkpoints/cells_1-checkpoint-best.pth"
    network.parent.mkdir(parents=True)
    network.touch()
    request = request_prediction(tmp_path / "cells", tmp_path, result_dir=tmp_path)
    assert request.config.paths.checkpoint_file == str(network)
    assert request.name == "cells_1_prediction"
    assert str(network) in start_changes(str(tmp_path / "cells"))[1]


def test_the_images_of_a_prediction_are_a_path_as_any_other(tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Path] = []

    def load(path: Path) -> Any:
        asked.append(path)
        return SimpleNamespace(plan=SimpleNamespace(config=config_from_dict({}).config))

    monkeypatch.setattr("crista.training.checkpoint.load_checkpoint", load)
    test = request_prediction("~/best.pth", "~/x", labels="~/y", result_dir=tmp_path).config.data.test
    assert asked == [home / "best.pth"]
    assert (test.path, test.gt_path) == (str(home / "x"), str(home / "y"))
