"""What a new user types wrong is told in words, before anything long is computed."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from tests.conftest import MakeData, tiny_config

import crista
from crista.cli import jobs
from crista.cli.main import main
from crista.cli.note import note
from crista.config.load import load_config
from crista.errors import ConfigError, DataError, Problem
from crista.images.write import write_image
from crista.plan.events import Event, Said
from crista.results.log import record_log


def run(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str, str]:
    code = main([str(word) for word in words])
    out, err = capsys.readouterr()
    return code, out, " ".join(err.split())


@pytest.mark.parametrize("place", ["folder", "file/page.html", "file/deep/page.html"])
@pytest.mark.parametrize("command", [("check", "--report"), ("evaluate", "--csv")])
def test_a_file_that_cannot_be_written_is_told_first(
    command: tuple[str, str], place: str, make_data: MakeData, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    data = make_data(test=0)
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("")
    code, out, err = run(capsys, command[0], data / "train/y", data / "train/y", command[1], tmp_path / place)
    assert (code, out) == (2, "")
    assert command[1] in err
    assert ("is a folder" if place == "folder" else f"{tmp_path / 'file'} is a file, not a folder") in err


def test_folders_below_a_file_are_refused(make_data: MakeData, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    data, file = make_data(test=0), tmp_path / "file"
    file.write_text("")
    code, _, err = run(capsys, "check", data / "train/x", data / "train/y", "--fix", file / "out")
    assert (code, f"--fix: {file} is a file, not a folder" in err) == (1, True)
    code, _, err = run(capsys, "new", file / "job.yaml", "--ndim", "2D", "--classes", "2")
    assert (code, f"{file / 'job.yaml'}: {file} is a file, not a folder" in err) == (1, True)
    code, _, err = run(capsys, "train", data / "train/x", data / "train/y", "--result_dir", file)
    assert (code, f"--result_dir: {file} is a file, not a folder" in err) == (1, True)


def test_classes_need_names_of_their_own(make_data: MakeData, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """Tables and figures find a class by its name."""
    words = ("new", tmp_path / "a.yaml", "--ndim", "2D", "--classes")
    code, _, err = run(capsys, *words, "cell,nucleus,cell")
    assert (code, "'cell' twice" in err) == (2, True)
    data = make_data(test=1)
    report = crista.check(tiny_config(data), overrides=["DATA.CLASS_NAMES=[cell, cell]"])
    assert any("DATA.CLASS_NAMES: 'cell' twice" in str(problem) for problem in report.problems)
    report = crista.check(tiny_config(data), overrides=["DATA.CLASS_NAMES=[ground, all foreground]"])
    assert any("'all foreground' is what the mean over the classes" in str(problem) for problem in report.problems)
    with pytest.raises(DataError, match="class_names: 'cell' twice"):
        crista.evaluate(data / "train/y", data / "train/y", class_names=["cell", "cell"])


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--set", "TRAIN.EPOCH=3"), "--set TRAIN.EPOCH: there is no such key -> did you mean TRAIN.EPOCHS?"),
        (("--set", "TRAIN.EPOCHS"), "--set 'TRAIN.EPOCHS': has no KEY=VALUE form"),
        (("--set", "TRAIN.EPOCHS=[3"), "--set TRAIN.EPOCHS: the value '[3' is not YAML"),
        (("--set", "TRAIN.EPOCHS=0"), "--set TRAIN.EPOCHS: must be at least 1, but is 0"),
        (("--set", "MODEL.N_CLASSES=0"), "--set MODEL.N_CLASSES (now DATA.N_CLASSES): must be at least 1"),
    ],
)
@pytest.mark.parametrize("command", ["train", "plan", "check"])
def test_what_was_typed_after_set_is_named(
    make_data: MakeData, capsys: pytest.CaptureFixture[str], command: str, words: tuple[str, str], told: str
) -> None:
    data = make_data(test=0)
    code, _, err = run(capsys, command, data / "train/x", data / "train/y", *words)
    assert (code, told in err) == (1, True)


def test_a_flag_that_stands_for_a_key_is_named(make_data: MakeData, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    job = tmp_path / "job.yaml"
    job.write_text("TEST:\n  ENABLE: True\n")
    code, _, err = run(capsys, "run", job, "--shard", "8/8")
    assert (code, "--shard, SYSTEM.CLUSTER.SHARD: " in err, "override" in err) == (1, True, False)


def write_labels(folder: Path, name: str, values: list[list[int]]) -> None:
    write_image(folder / f"{name}.tif", np.repeat(np.repeat(np.array(values, np.uint8), 24, axis=0), 24, axis=1), "YX")


def test_without_a_configuration_it_is_said_how_a_key_is_set(
    make_data: MakeData, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """255 beside two classes: every command names file, value and key, and how the key is given to it."""
    data = make_data(test=0)
    monkeypatch.chdir(data)
    write_labels(data / "train/y", "01", [[0, 1], [0, 255]])
    images, labels = data / "train/x", data / "train/y"
    for command in ("train", "plan"):
        code, _, err = run(capsys, command, images, labels)
        assert code == 1
        assert f"{labels / '01.tif'}: the value 255 occurs beside the classes {{0, 1}}" in err
        assert "set LOSS.IGNORE_INDEX: 255 to leave these pixels out" in err
        assert "with the data; keys are set with --set KEY=VALUE" in err
    code, out, _ = run(capsys, "check", images, labels)
    assert (code, "keys are set with --set KEY=VALUE" in out) == (1, True)
    code, out, _ = run(capsys, "check", images, labels, "--set", "LOSS.IGNORE_INDEX=255")
    assert (code, "keys are set" in out) == (0, False)
    code, _, err = run(capsys, "new", data / "job.yaml", "--train-images", images, "--train-labels", labels)
    assert code == 1
    assert "give --ndim and --classes, and in the file that is written set LOSS.IGNORE_INDEX: 255 to leave" in err
    assert "if it is a class, give --classes 3" in err


def test_new_takes_the_number_of_classes_for_what_it_looks_at(
    make_data: MakeData, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Ten values are taken for classes where that is said."""
    data = make_data(test=0)
    write_labels(data / "train/y", "01", [[0, 1, 2, 3, 4], [5, 6, 7, 8, 9]])
    write_image(data / "train/x/01.tif", np.random.default_rng(0).integers(0, 255, (48, 120), np.uint8), "YX")
    words = ("new", tmp_path / "job.yaml", "--train-images", data / "train/x", "--train-labels", data / "train/y")
    code, _, err = run(capsys, *words)
    assert (code, "if they are classes, give --classes 10" in err) == (1, True)
    assert run(capsys, *words, "--classes", "10")[0] == 0


def test_evaluate_names_its_own_flags(make_data: MakeData, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    labels = make_data(test=0) / "train/y"
    for name in ("00", "01", "02", "03"):
        write_labels(labels, name, [[0, 1], [0, 255]])
        write_labels(tmp_path / "found", name, [[0, 1], [0, 1]])
    code, _, err = run(capsys, "evaluate", labels, tmp_path / "found")
    assert code == 1
    assert "set --ignore-index 255 to leave these pixels out; if it is a class, set --classes 3" in err
    assert "LOSS." not in err
    code, out, _ = run(capsys, "evaluate", labels, tmp_path / "found", "--ignore-index", "255")
    assert code == 0
    code, out, _ = run(capsys, "evaluate", tmp_path / "found", tmp_path / "found", "--ignore-index", "-1")
    assert (code, "warning" in out) == (0, False)
    code, out, _ = run(capsys, "evaluate", tmp_path / "found", tmp_path / "found", "--ignore-index", "254")
    assert code == 0
    assert "--ignore-index: 254 occurs in no label image" in out
    write_labels(labels, "01", [[0, 1], [254, 255]])
    for flags in (["--ignore-index", "254,255"], ["--ignore-index", "254", "--ignore_index", "255"]):
        code, out, _ = run(capsys, "evaluate", labels, tmp_path / "found", *flags)
        assert (code, "warning" in out) == (0, False)
    write_labels(labels, "01", [[0, 1], [0, 255]])
    write_labels(tmp_path / "found", "02", [[0, 1], [0, 255]])
    code, _, err = run(capsys, "evaluate", labels, tmp_path / "found", "--ignore-index", "255")
    assert code == 1
    assert f"{tmp_path / 'found/02.tif'}: the prediction holds {{255}}, and its classes are {{0, 1}}" in err


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("classes.txt", "ground\nall foreground\n"),
        ("dataset.json", '{"labels": {"ground": 0, "all foreground": 1}}'),
    ],
)
def test_the_name_of_the_mean_is_refused_in_files_too(
    make_data: MakeData, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, file: str, text: str
) -> None:
    data = make_data(test=0)
    monkeypatch.chdir(data)  # where the results of `train` would go
    path = data / "train" / file
    path.write_text(text)
    told = f"{path}: 'all foreground' is what the mean over the classes but the background is called -> choose another name"
    for command in ("train", "plan"):
        code, _, err = run(capsys, command, data / "train/x", data / "train/y", "--minutes", "1")
        assert (code, told in err) == (1, True)
    report = crista.check(data / "train/x", data / "train/y", overrides=["DATA.CLASS_NAMES=[ground, cell]"])
    assert report.problems == ()  # the configuration names them


def test_evaluate_offers_only_what_helps_there(make_data: MakeData, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """`crista check --fix` works on images and labels, not on predictions."""
    data = make_data(train=3, test=0)
    write_image(tmp_path / "found" / "00.tif", np.zeros((48, 48), np.uint8), "YX")
    code, _, err = run(capsys, "evaluate", data / "train/y", tmp_path / "found")
    assert code == 1
    assert "here the predictions are the images" in err
    assert f"1 image in {tmp_path / 'found'}, 3 labels in {data / 'train/y'}" in err
    assert "01.tif, 02.tif" in err
    assert "crista check" not in err
    code, _, err = run(capsys, "evaluate", data / "train/y", data / "train/x")
    assert code == 1
    assert "crista check" not in err


def test_figures_that_do_not_exist_are_no_nan(make_data: MakeData, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    folder = make_data(train=2, test=0) / "train/y"
    code, out, _ = run(capsys, "evaluate", folder, folder, "--classes", "4", "--csv", tmp_path / "s.csv")
    assert code == 0
    assert "nan" not in out.lower()
    lines = [line.split(",") for line in (tmp_path / "s.csv").read_text().splitlines()]
    column = lines[0].index("iou_class_3")
    assert [line[column] for line in lines[1:]] == [""] * 4


def test_commands_to_go_on_with_can_be_copied(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = tmp_path / "my job.yaml"
    code, out, _ = run(capsys, "new", path, "--ndim", "2D", "--classes", "2")
    assert code == 0
    assert f"next: crista check '{path}'\n" in out
    assert f"then: crista --config '{path}' --result_dir crista_results --name 'my job'\n" in out


class Terminal(io.StringIO):
    """Somebody who types."""

    def isatty(self) -> bool:
        return True


def test_nonsense_answers_are_told_and_asked_again(
    make_data: MakeData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    data = make_data(test=0)
    monkeypatch.setenv("HOME", str(tmp_path))
    answers = [tmp_path, "job.txt", "~/asked.yaml", "", data / "train/x", data / "train/y", "", "flat", "2DD", "3", "a,a", "a,b"]
    monkeypatch.setattr(sys, "stdin", Terminal("".join(f"{answer}\n" for answer in answers)))
    code, out, _ = run(capsys, "new")
    assert code == 0
    for told in (
        f"{tmp_path}: is a folder",
        "job.txt: is no name of a YAML file",
        "name a folder",
        "'flat' is neither 2D (images) nor 3D (volumes)",
        "'2DD' is neither 2D",
        "'a' twice",
    ):
        assert told in out
    settings = load_config(tmp_path / "asked.yaml").config
    assert (settings.problem.ndim, settings.data.class_names) == ("3D", ("a", "b"))


def test_a_sample_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"'cell_2d' is no sample data set\n.*choose one of cells_2d, "):
        crista.demo(tmp_path, sample="cell_2d")
    assert list(tmp_path.iterdir()) == []


def test_the_log_has_the_error_that_ends_a_run(tmp_path: Path) -> None:
    """Also one that is no mistake of the user: the log is what people send."""

    def events() -> Iterator[Event]:
        yield Said("begun")
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        list(record_log(events(), tmp_path / "log.txt"))
    lines = (tmp_path / "log.txt").read_text().splitlines()
    assert [line[9:] for line in lines[1:]] == ["begun", "OSError: [Errno 28] No space left on device"]
    closed = record_log(iter([Said("a"), Said("b")]), tmp_path / "closed.txt")
    next(closed)
    closed.close()  # type: ignore[attr-defined]
    assert (tmp_path / "closed.txt").read_text().endswith(" a\n")


def test_a_run_after_a_failure_has_a_log_of_its_own(tmp_path: Path) -> None:
    """Who catches an error and tries again does so while Python still holds the first one."""
    first = OSError("of the first try")
    try:
        raise first
    except OSError:
        list(record_log(iter([Said("second try")]), tmp_path / "log.txt"))
        with note(lambda: "a note"):
            pass
    assert (tmp_path / "log.txt").read_text().endswith(" second try\n")
    assert not hasattr(first, "__notes__")


def test_keys_that_a_prediction_names_are_set_with_a_flag(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """There is no file in which to set them: the configuration is that of the network."""

    def start(*_: object) -> None:
        raise DataError("with the data", [Problem("a.zarr", "holds no array", "correct DATA.TEST.INPUT_IMG_AXES_ORDER")])

    monkeypatch.setattr(jobs, "start", start)
    monkeypatch.setattr("crista.workflow.request.find_checkpoint", lambda path: path)
    assert main(["predict", "a.pth", "images"]) == 1
    assert "with the data; keys are set with --set KEY=VALUE" in capsys.readouterr().err
