"""`crista train` on two folders: what is typed wrong is said, and Ctrl-C ends it in order."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tests.conftest import MakeData, tiny_config

from crista.cli.main import main
from crista.training.checkpoint import load_checkpoint


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["images"], "images is no YAML file; if it is a folder of images, name the folder of their label images after it"),
        (["images", "labels", "--config", "a.yaml"], "images and a configuration: give one of them"),
        (["a.yaml", "labels"], "labels: a configuration names the labels itself"),
        (["images", "labels", "--minutes", "0"], "--minutes"),
        (["images", "labels", "--quality", "super"], "'fast', 'standard', 'best'"),
    ],
)
@pytest.mark.parametrize("command", ["train", "plan"])
def test_wrong_words(command: str, words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([command, *words]) == 2
    assert message in " ".join(capsys.readouterr().err.split())


def test_a_missing_folder_is_named(make_data: MakeData, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = make_data(test=0)
    assert main(["train", str(data / "train/x"), str(tmp_path / "nowhere"), "--result_dir", str(tmp_path / "out")]) == 1
    assert "DATA.TRAIN.GT_PATH" in capsys.readouterr().err


def test_the_plan_of_two_folders(make_data: MakeData, capsys: pytest.CaptureFixture[str]) -> None:
    data = make_data(test=0, num_classes=3)
    assert (
        main(["plan", str(data / "train/x"), str(data / "train/y"), "--minutes", "7", "--set", "MODEL.FEATURE_MAPS=[4,8]"]) == 0
    )
    printed = capsys.readouterr().out
    for word in ("TRAIN.MAX_MINUTES", "DATA.N_CLASSES", "counted in the label images", "(4, 8)"):
        assert word in printed
    told = " ".join(printed.split())
    assert "AUGMENTOR VFLIP, HFLIP, ROT90, BRIGHTNESS, CONTRAST turned, mirrored, brighter or darker, an image is as" in told
    assert "DATA.VAL.SPLIT_TRAIN 0.2 not trained on" in told


def test_python_plans_two_folders_as_the_command_line_does(make_data: MakeData, capsys: pytest.CaptureFixture[str]) -> None:
    import crista

    data = make_data(test=0)
    folders = data / "train/x", data / "train/y"
    made = crista.make_plan(*folders, overrides=["TRAIN.MAX_MINUTES=7", "AUGMENTOR.ROT90=False"])
    assert main(["plan", *map(str, folders), "--minutes", "7", "--set", "AUGMENTOR.ROT90=False"]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    for item in made.decisions:
        assert f"{item.key} {item.value} {item.reason}" in printed
    assert {item.key: item.reason for item in made.decisions}["AUGMENTOR"] == "given"
    with pytest.raises(TypeError, match="labels go with a folder of images"):
        crista.make_plan({}, folders[1])


def test_a_plan_is_that_of_a_training_whatever_the_configuration_enables(
    make_data: MakeData, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    yaml = tmp_path / "job.yaml"
    yaml.write_text(json.dumps(tiny_config(make_data())))
    tables = []
    for change in ("True", "False"):
        assert main(["plan", str(yaml), "--set", f"TRAIN.ENABLE={change}"]) == 0
        tables.append(capsys.readouterr().out.partition("Key ")[2])
    assert tables[0] == tables[1] != ""


def test_the_plan_says_what_was_not_given_and_what_has_no_effect(
    make_data: MakeData, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = make_data(test=0)
    folders = [str(data / "train/x"), str(data / "train/y")]
    assert main(["plan", *folders, "--set", "TRAIN.OPTIMIZER=SGD", "--set", "TRAIN.OPT_BETAS=(0.8,0.9)"]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "TRAIN.MAX_MINUTES 20 no time is given, and TRAIN.QUALITY: standard stands for that many minutes" in printed
    assert printed.count("TRAIN.OPT_BETAS has no effect: TRAIN.OPTIMIZER is SGD") == 1
    assert "effort full or light" in printed or "effort full or least" in printed
    assert main(["check", *folders, "--set", "TRAIN.OPTIMIZER=SGD", "--set", "TRAIN.OPT_BETAS=(0.8,0.9)"]) == 0
    assert capsys.readouterr().out.count("TRAIN.OPT_BETAS has no effect: TRAIN.OPTIMIZER is SGD") == 1
    assert main(["plan", *folders, "--minutes", "20"]) == 0
    assert "TRAIN.MAX_MINUTES 20 given" in " ".join(capsys.readouterr().out.split())


def test_python_hears_what_has_no_effect_and_of_which_run_a_plan_knows_nothing(make_data: MakeData) -> None:
    import crista
    from crista.plan.events import Event, Said

    data, heard = make_data(), list[Event]()
    tree = tiny_config(data, train={"OPTIMIZER": "SGD", "OPT_BETAS": (0.8, 0.9)}, model={"LOAD_CHECKPOINT": True})
    notice = Said("TRAIN.OPT_BETAS has no effect: TRAIN.OPTIMIZER is SGD")
    crista.make_plan(tree, on_event=heard.append)
    assert heard.count(notice) == 1
    assert any(isinstance(event, Said) and "this plan does not know that run" in event.text for event in heard)
    heard.clear()
    crista.check(tree, on_event=heard.append)
    assert heard.count(notice) == 1


def test_the_job_is_called_as_the_folder_of_the_data(make_data: MakeData, tmp_path: Path) -> None:
    from crista.workflow.request import request_automatic

    data = make_data(test=0).rename(tmp_path / "my cells")
    request = request_automatic(data / "train/x", data / "train/y", result_dir=tmp_path / "out")
    assert request.name == "my_cells"
    assert request.config.train.max_minutes == 20


def test_the_file_beside_the_results_says_the_minutes_that_were_typed(make_data: MakeData, tmp_path: Path) -> None:
    """It asks to be changed and run again."""
    from crista.config.load import parse_config
    from crista.workflow.request import request_automatic

    data = make_data(test=0)
    folders = data / "train/x", data / "train/y"
    for changes, minutes in ((["TRAIN.MAX_MINUTES=7"], 7), (["TRAIN.EPOCHS=3"], None), ([], 20)):
        text = request_automatic(*folders, result_dir=tmp_path / "out", overrides=changes).config_text
        assert parse_config(text).config.train.max_minutes == minutes


def test_a_training_starts_from_a_network_by_command_line_as_from_python(make_data: MakeData, tmp_path: Path) -> None:
    """Other classes, no configuration: both say what was loaded, and both end in the same weights."""
    import crista

    first = make_data(test=0).rename(tmp_path / "first")
    second = make_data(test=0, num_classes=3)
    small = ["TRAIN.EPOCHS=1", "MODEL.FEATURE_MAPS=[4,8]", "DATA.PATCH_SIZE=(32,32,1)"]
    folders, out = (second / "train/x", second / "train/y"), tmp_path / "out"
    source = crista.train_on(first / "train/x", first / "train/y", result_dir=out, name="a", overrides=small)
    said: list[str] = []
    tuned = crista.train_on(
        *folders,
        start_from=source.folder.checkpoint_best,
        result_dir=out,
        name="b",
        overrides=small[:1],
        on_event=lambda event: said.append(getattr(event, "text", "")),
    )
    assert any("starting weights: loaded" in line and "2 -> 3 classes" in line for line in said), said
    command = ["train", *map(str, folders), "--from", str(out / "a"), "--result_dir", str(out), "--name", "c"]
    assert main([*command, "--set", small[0]]) == 0
    weights = [load_checkpoint(out / f"{job}/checkpoints/{job}_1-checkpoint-last.pth").weights for job in ("b", "c")]
    assert all((weights[1][name] == value).all() for name, value in weights[0].items())
    assert tuned.folder.checkpoint_best.is_file()


def test_ctrl_c_leaves_a_network_and_a_report(make_data: MakeData, tmp_path: Path) -> None:
    """Once: the training ends, the validation images are predicted; the exit code says that all is well."""
    data = make_data(train=4, test=0)
    command = [sys.executable, "-m", "crista", "train", str(data / "train/x"), str(data / "train/y"), "--minutes", "20"]
    small = ["MODEL.FEATURE_MAPS=[4,8]", "DATA.PATCH_SIZE=(32,32,1)", "TEST.ENGINE=torch"]
    command += [word for change in small for word in ("--set", change)]
    process = subprocess.Popen(
        [*command, "--result_dir", str(tmp_path / "out"), "--name", "job"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    log = tmp_path / "out/job/results/job_1/log.txt"
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and not (log.is_file() and "== train" in log.read_text()):
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    printed, _ = process.communicate(timeout=120)
    assert process.returncode == 0, printed
    assert "Ctrl-C: the training ends now" in printed
    assert "the same command goes on" in printed
    assert (log.parent / "report.html").is_file()
    assert not load_checkpoint(tmp_path / "out/job/checkpoints/job_1-checkpoint-last.pth").finished


def test_a_job_folder_is_a_network(make_data: MakeData, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from crista.workflow.request import find_checkpoint

    folder = tmp_path / "job/checkpoints"
    folder.mkdir(parents=True)
    (folder / "job_1-checkpoint-best.pth").touch()
    (folder / "job_1-checkpoint-last.pth").touch()
    assert find_checkpoint(tmp_path / "job") == folder / "job_1-checkpoint-best.pth"
    (folder / "job_2-checkpoint-best.pth").touch()
    data = make_data(test=0)
    assert main(["predict", str(tmp_path / "job"), str(data / "train/x")]) == 1
    assert "is a folder with 2 networks: name one" in capsys.readouterr().err
