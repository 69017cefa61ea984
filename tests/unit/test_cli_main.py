"""How the command ends: words for what users and machines cause, tracebacks with a note for bugs, and the exit codes."""

from __future__ import annotations

import errno
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

import crista
from crista.cli import inspection
from crista.cli.main import COMMANDS, SPINS, main


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = main(arguments)
    return code, *capsys.readouterr()


def test_version_and_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, "--version") == (0, f"crista {crista.__version__}\n", "")
    assert run(capsys, "-v")[1] == f"crista {crista.__version__}\n"
    code, out, _ = run(capsys)
    assert code == 0
    assert "Usage: crista" in out
    for command in COMMANDS:
        assert f"\n  {command} " in out
        assert run(capsys, command, "--help")[0] == 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["trian"], "there is no command 'trian'\n    -> did you mean train?"),
        (["xyz"], "-> choose one of run, train, predict"),
        (["job.yaml"], "-> to run a configuration: crista --config job.yaml"),
        (["--config", "a.yaml", "--epochs", "3"], "No such option: --epochs"),
        (["--config", "a.yaml", "--world_size", "2"], "Processes that torchrun started are recognised without flags"),
        (["--config"], "requires an argument"),
        (["--name", "x"], "no configuration was given"),
        (["--config", "a.yaml", "--run_id", "x"], "Invalid value for '--run_id'"),
        (["--config", "a.yaml", "--gpu", "x"], "'x' is no list of GPU numbers"),
        (["--config", "a.yaml", "check"], "give flags after the command: crista check"),
        (["run"], "no configuration was given"),
        (["run", "a.yaml", "--config", "b.yaml"], "given twice"),
        (["check"], "no configuration was given"),
        (["predict", "a.pth"], "Missing argument"),
        (["evaluate", "labels"], "Missing argument"),
        (["demo", "--sample", "cells"], "cells_2d"),
        (["new", "a.yaml", "--ndim", "4D"], "'4D' is neither 2D"),
        (["new", "a.yaml", "--classes", "1"], "at least 2 classes are needed"),
    ],
)
def test_wrong_flags_end_with_2_and_few_words(arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capsys, *arguments)
    assert (code, out) == (2, "")
    assert words in err
    assert len(err.splitlines()) <= 6


def test_explain(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "explain", "train.epochs")
    assert code == 0
    assert out.startswith("TRAIN.EPOCHS\n")
    assert "TRAIN:" in run(capsys, "explain")[1]
    code, out, err = run(capsys, "explain", "TRAIN.EPOCS")
    assert (code, out) == (1, "")
    assert "did you mean TRAIN.EPOCHS?" in err


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "/disk/a.tif"), "/disk/a.tif: No space left on device"),
        (OSError(errno.EFBIG, "File too large"), "the room on the disk (disks formatted as FAT32 hold files of up to 4 GB)"),
        (OSError(errno.ENAMETOOLONG, "File name too long", "/disk/a.tif"), "/disk/a.tif: File name too long"),
        (OSError("1000000 requested and 124984 written"), "check the room on the disk"),
        (PermissionError(errno.EACCES, "Permission denied", "/root/a"), "/root/a: Permission denied"),
        (MemoryError("Unable to allocate 9 TiB"), "the memory is full: Unable to allocate 9 TiB"),
        (type("OutOfMemoryError", (RuntimeError,), {})("CUDA out of memory.\nmore"), "lower TRAIN.BATCH_SIZE"),
        (type("OutOfMemoryError", (RuntimeError,), {})("CUDA"), "to train, the processor (SYSTEM.DEVICE: cpu) to predict"),
        (RuntimeError("[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory"), "memory is full: [enf"),
        (RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 9 bytes."), "memory is full: Default"),
        (RuntimeError("MPS backend out of memory (MPS allocated: 9.06 GB)"), "the processor (SYSTEM.DEVICE: cpu) to predict"),
        (RuntimeError("CUDA error: out of memory"), "the memory is full: CUDA error: out of memory"),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), "the memory is full: [Errno 12] Cannot allocate memory"),
        (RuntimeError("std::bad_alloc"), "the memory is full: std::bad_alloc"),
        (MemoryError(), "TEST.MAX_MEMORY to predict"),
    ],
)
def test_full_disks_and_memories_are_said_in_words(
    error: Exception, words: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(self: object, text: str, style: str = "") -> None:
        raise error

    monkeypatch.setattr(inspection.Screen, "line", fail)
    code, _, err = run(capsys, "explain", "TRAIN.EPOCHS")
    assert code == 1
    assert words in err


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (
            PermissionError(errno.EACCES, "Access is denied", "C:\\r\\.a.part.csv", 5, "C:\\r\\a.csv"),
            "C:\\r\\a.csv: Access is denied\n    -> close the programs that have it open (Excel, Fiji, a preview); or",
        ),
        (
            FileNotFoundError(errno.ENOENT, "No such file or directory", "C:\\" + 300 * "a"),
            "the path has 303 characters, and Windows takes 260 as a rule\n    -> put results and images in folders with shorter",
        ),
    ],
)
def test_what_only_windows_refuses_is_said_in_words(
    error: Exception, words: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(self: object, text: str, style: str = "") -> None:
        monkeypatch.setattr(sys, "platform", "win32")
        raise error

    monkeypatch.setattr(inspection.Screen, "line", fail)
    code, _, err = run(capsys, "explain", "TRAIN.EPOCHS")
    assert code == 1
    assert words in err


@pytest.mark.parametrize("error", [RuntimeError("boom"), KeyError("boom"), FileNotFoundError(errno.ENOENT, "boom")])
def test_a_bug_keeps_its_traceback_and_is_called_one(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: object, text: str, style: str = "") -> None:
        raise error

    monkeypatch.setattr(inspection.Screen, "line", fail)
    with pytest.raises(type(error)) as caught:
        main(["explain", "TRAIN.EPOCHS"])
    assert "This is a bug of crista" in caught.value.__notes__[-1]


def test_help_is_quick() -> None:
    """Processor time of the best of three: others may be at work beside the tests."""
    times = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, "-m", "crista", "--help"], check=True, capture_output=True, timeout=60)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        times.append(after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime)
    assert min(times) < 0.5


def test_the_package_has_its_public_names_and_is_light(tmp_path: Path) -> None:
    code = (
        "import sys, crista\n"
        "heavy = {'torch', 'numpy', 'pydantic', 'typer', 'rich', 'matplotlib'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
        "assert set(crista.__all__) <= set(dir(crista))\n"
        "for name in crista.__all__: assert getattr(crista, name) is not None\n"
        "assert 'torch' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path, timeout=60)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = crista.nothing


@pytest.mark.parametrize(
    ("given", "expected"),
    [({}, SPINS), ({"GOMP_SPINCOUNT": "7"}, "7"), ({"OMP_WAIT_POLICY": "ACTIVE"}, None)],
    ids=["nothing", "a count", "a policy"],
)
def test_threads_sleep_soon_unless_the_user_says_otherwise(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], given: dict[str, str], expected: str | None
) -> None:
    for name in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY"):
        monkeypatch.setenv(name, "")  # so that what the command sets is taken back
        monkeypatch.delenv(name)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    run(capsys, "--version")
    assert os.environ.get("GOMP_SPINCOUNT") == expected
