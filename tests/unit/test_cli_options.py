"""Flags that are dealt with before PyTorch is imported: GPUs, the configuration, the folder of the results."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
import typer

from crista.cli import options
from crista.cli.flags import Quality, with_budget, with_start
from crista.cli.screen import Screen
from crista.errors import CheckpointError, ConfigError


@pytest.fixture(autouse=True)
def restored_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER", "LOCAL_RANK", "RANK"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)


@pytest.fixture(autouse=True)
def _a_machine_with_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(options, "machine_has_gpus", lambda: True)


def test_on_a_machine_without_gpus_nothing_is_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(options, "machine_has_gpus", lambda: False)
    assert options.select_gpus("0", ["TRAIN.EPOCHS=2"]) == ("TRAIN.EPOCHS=2",)


@pytest.mark.parametrize(
    ("system", "words"), [("linux", "no GPU, the processor is used"), ("darwin", "no GPU with a number; Apple's")]
)
def test_what_is_used_instead_is_said(
    system: str, words: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """On a Mac that is its own GPU, unless the processor is asked for."""
    monkeypatch.setattr(options, "machine_has_gpus", lambda: False)
    monkeypatch.setattr(options.sys, "platform", system)
    options.require_gpus("0", Screen())
    assert f"warning: --gpu 0: this machine has {words}" in capsys.readouterr().out


def test_without_gpu_nothing_is_changed() -> None:
    assert options.select_gpus(None, ["TRAIN.EPOCHS=2"]) == ("TRAIN.EPOCHS=2",)
    assert "CUDA_VISIBLE_DEVICES" not in os.environ


@pytest.mark.parametrize(("given", "visible"), [("0", "0"), ("2,0", "2,0"), ("0, 1", "0,1")])
def test_chosen_gpus_are_visible_in_their_order(given: str, visible: str) -> None:
    assert options.select_gpus(given, None) == ("SYSTEM.DEVICE=cuda:0",)
    assert os.environ["CUDA_VISIBLE_DEVICES"] == visible
    assert os.environ["CUDA_DEVICE_ORDER"] == "PCI_BUS_ID"


def test_each_process_of_torchrun_takes_its_own_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert options.select_gpus("4,5", ()) == ("SYSTEM.DEVICE=cuda:1",)


@pytest.mark.parametrize("given", ["a", "-1", "0;1", "", "cuda:0"])
def test_no_list_of_gpus_is_a_usage_error(given: str) -> None:
    with pytest.raises(typer.BadParameter, match="no list of GPU numbers"):
        options.select_gpus(given, None)


def test_gpu_and_device_contradict_each_other() -> None:
    with pytest.raises(typer.BadParameter, match="contradicts"):
        options.select_gpus("0", ["system.device = cpu"])


def test_a_gpu_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    options.require_gpus(None, Screen())
    options.require_gpus("0", Screen())
    with pytest.raises(ConfigError, match="0,1 was asked for, but 1 of 2 can be used here"):
        options.require_gpus("0,1", Screen())


def test_several_gpus_need_several_processes(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    options.require_gpus("3,4", Screen())
    assert "warning: one process uses one GPU: only GPU 3 of 3,4" in capsys.readouterr().out
    monkeypatch.setenv("RANK", "0")
    options.require_gpus("3,4", Screen())
    assert capsys.readouterr().out == ""


def test_a_configuration_is_given_once() -> None:
    assert options.one_config(None, Path("a.yaml")) == options.one_config(Path("a.yaml"), None) == Path("a.yaml")
    with pytest.raises(typer.BadParameter, match="given twice"):
        options.one_config(Path("a.yaml"), Path("b.yaml"))
    with pytest.raises(typer.BadParameter, match="crista new"):
        options.one_config(None, None)


def test_the_default_folder_of_results_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    options.make_results_folder(None, Screen())
    assert (tmp_path / "crista_results").is_dir()
    assert str(tmp_path / "crista_results") in capsys.readouterr().out
    options.make_results_folder(tmp_path / "other", Screen())
    assert capsys.readouterr().out == ""


def test_a_folder_of_results_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"--result_dir: .*file is a file, not a folder"):
        options.make_results_folder(tmp_path / "file" / "here", Screen())


@pytest.mark.parametrize("texts", [["254,255"], ["[254, 255]"], ["254", "255"], ["(254,255)"]])
def test_several_numbers_are_read_as_the_configuration_reads_them(texts: list[str]) -> None:
    assert options.whole_numbers("--flag", texts) == [254, 255]
    assert options.whole_numbers("--flag", ["-1"]) == [-1]
    assert options.whole_numbers("--flag", None) is None


@pytest.mark.parametrize("text", ["", "a", "254;255", "1.5", "True", "None", "[[1, 2]]"])
def test_what_is_no_number_is_a_usage_error(text: str) -> None:
    with pytest.raises(typer.BadParameter, match=r"is no whole number; write one, or several as 254,255"):
        options.whole_numbers("--flag", [text])


def test_a_budget_reaches_a_command_as_changes_before_those_of_set() -> None:
    seen: list[object] = []

    @with_budget
    def command(job: str = "", override: options.Overrides = None) -> None:
        seen.append((job, override))

    command(job="a", minutes=2.5, override=["TRAIN.MAX_MINUTES=9"])
    command(job="b")
    command(job="c", quality=Quality.FAST, override=["TRAIN.LR=1"])
    changes = ["TRAIN.MAX_MINUTES=2.5", "TRAIN.MAX_MINUTES=9"], None, ["TRAIN.MAX_MINUTES=5", "TRAIN.LR=1"]
    assert seen == list(zip("abc", changes, strict=True))
    for quality, minutes in ((Quality.STANDARD, 20), (Quality.BEST, 120)):
        command(quality=quality)
        assert seen[-1] == ("", [f"TRAIN.MAX_MINUTES={minutes}"])
    with pytest.raises(typer.BadParameter, match="fast stands for a time, and --minutes is given too"):
        command(job="d", minutes=2.5, quality=Quality.FAST)


def test_a_network_to_start_from_reaches_a_command_as_changes_before_those_of_set(tmp_path: Path) -> None:
    seen: list[object] = []

    @with_start
    def command(override: options.Overrides = None) -> None:
        seen.append(override)

    (tmp_path / "a: b/checkpoints").mkdir(parents=True)
    best = tmp_path / "a: b/checkpoints/a_1-checkpoint-best.pth"
    best.touch()
    command(start_from=tmp_path / "a: b", override=["TRAIN.EPOCHS=2"])
    command()
    assert seen == [["MODEL.LOAD_CHECKPOINT=True", f'PATHS.CHECKPOINT_FILE="{best}"', "TRAIN.EPOCHS=2"], None]
    with pytest.raises(CheckpointError, match=r"none: no such checkpoint\n    -> here are .*a_1-checkpoint-best"):
        command(start_from=tmp_path / "none")
