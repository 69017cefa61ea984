"""Windows, which no test machine has: how commands are written, and which programs a Ctrl-C reaches."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement

from crista.config.root import Paths
from crista.images import atomic
from crista.images.wording import command_line
from crista.inference import turn
from crista.inference.distribution import processes
from crista.plan.events import EpochFinished, Event, TrainingStarted, Warned
from crista.results import provenance, recorder
from crista.results.recorder import record_training
from crista.results.run_folder import RunFolder
from crista.results.tensorboard import ScalarLog
from crista.results.train_log import read_train_log
from crista.training.claim import Claim

WORDS = ["crista", "check", r"C:\my data\x", r"D:\data\y", "", "--set", "DATA.CLASSES=[0,1]", 'A="b"']


@pytest.fixture
def windows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "win32")


def refuse(*_: object, **__: object) -> None:
    raise PermissionError("another process has it open")


@pytest.mark.usefixtures("windows")
def test_paths_are_quoted_as_cmd_and_powershell_understand_it() -> None:
    assert command_line(WORDS) == r'crista check "C:\my data\x" D:\data\y "" --set "DATA.CLASSES=[0,1]" "A=\"b\""'


def test_elsewhere_they_are_quoted_as_usual() -> None:
    assert shlex.split(command_line(WORDS)) == WORDS


@pytest.mark.usefixtures("windows")
def test_workers_do_not_hear_ctrl_c(monkeypatch: pytest.MonkeyPatch) -> None:
    """`start_new_session` has no effect there."""
    monkeypatch.setattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 512, raising=False)
    assert processes._deaf_to_ctrl_c() == {"creationflags": 512}


def test_a_file_that_another_process_looks_at_ends_no_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Marks that others look at, and an event file that TensorBoard shows, cannot be removed just then."""
    (tmp_path / "events.out.tfevents.1").write_bytes(b"")
    claim = Claim(tmp_path / "last.pth")
    monkeypatch.setattr(Path, "unlink", refuse)
    with claim.held(), turn.turn_at(tmp_path / "finding.json", lambda: False):
        pass
    ScalarLog(tmp_path).close()
    assert (tmp_path / "events.out.tfevents.1").exists(), "it could not be removed, and the log began all the same"


def test_what_only_some_systems_need_is_installed_there() -> None:
    """NumPy 1 has whole numbers of 32 bits on Windows, where a product of sides overflows; free memory is in /proc on Linux."""
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    asked = [Requirement(line) for line in project["dependencies"]]

    def of(name: str, system: str) -> list[Requirement]:
        found = [one for one in asked if one.name == name]
        return [one for one in found if one.marker is None or one.marker.evaluate({"sys_platform": system})]

    for system in ("linux", "darwin", "win32"):
        assert all("1.26.4" in one.specifier for one in of("numpy", system)) == (system != "win32")
        assert len(of("psutil", system)) == (system != "linux")


@pytest.mark.usefixtures("windows")
def test_a_log_that_is_open_in_excel_ends_no_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, replace = RunFolder(tmp_path, "job", 1, Paths()), Path.replace
    opened = [True]

    def rename(part: Path, path: Path) -> Path:
        if opened and path == folder.train_log:
            raise PermissionError("Excel has it open")
        return replace(part, path)

    def train() -> Iterator[Event]:
        yield TrainingStarted((), 3)
        for epoch in (1, 2, 3):
            if epoch == 3:
                opened.clear()
            yield EpochFinished(epoch, 3, {"epoch": epoch, "loss": 1.0, "val_loss": 1.0, "val_iou": 0.5}, True)

    monkeypatch.setattr(Path, "replace", rename)
    monkeypatch.setattr(recorder, "draw_charts", lambda *_, **__: None)  # Matplotlib asks Windows for its fonts
    monkeypatch.setattr(atomic.time, "sleep", lambda _: None)
    seen = list(record_training(train(), folder))
    assert [type(event) for event in seen] == [TrainingStarted, Warned, *3 * [EpochFinished]]
    assert [row["epoch"] for row in read_train_log(folder.train_log)] == [1, 2, 3]


def test_elsewhere_a_log_that_cannot_be_written_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "replace", refuse)
    row = {"epoch": 1.0, "loss": 1.0, "val_loss": 1.0, "val_iou": 0.5}
    with pytest.raises(PermissionError):
        list(record_training([EpochFinished(1, 1, row, True)], RunFolder(tmp_path, "job", 1, Paths())))


def test_a_file_from_before_1970_ends_no_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some archives and cameras leave such times; Windows makes no date of them."""

    class OfWindows(datetime):
        @classmethod
        def fromtimestamp(cls, timestamp: float, tz: Any = None) -> OfWindows:
            if timestamp < 0:
                raise OSError(22, "Invalid argument")
            return super().fromtimestamp(timestamp, tz)

    monkeypatch.setattr(provenance, "datetime", OfWindows)
    path = tmp_path / "a.tif"
    path.write_bytes(b"x")
    for seconds, date in ((-2_082_844_800, "1904-01-01T00:00:00+00:00"), (86_400, "1970-01-02T00:00:00+00:00")):
        os.utime(path, (seconds, seconds))
        assert provenance.describe_input(path).modified == date
