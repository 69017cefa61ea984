"""What answers at once: everything up to the plan, and the commands that only look, leave PyTorch unloaded."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[2] / "src" / "crista"
FREE = ("errors", "registry", "geometry", "config", "images", "plan")
SLOW = ("torch", "matplotlib")
SELDOM = ("scipy", "zarr", "h5py")
"""What only some jobs need, each a few tenths of a second."""
HELP_SECONDS = 0.5
"""Processor time of `crista --help`; on an idle machine the wall clock shows hardly more."""


def loaded_by(code: str, packages: Sequence[str] = SLOW) -> list[str]:
    """Which of the slow packages are loaded after `code` in a new interpreter; its exit code must be 0."""
    report = f"\nimport sys, json; print(json.dumps([name for name in {tuple(packages)} if name in sys.modules]))"
    done = subprocess.run([sys.executable, "-c", code + report], capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    loaded: list[str] = json.loads(done.stdout.splitlines()[-1])
    return loaded


def modules_of(part: str) -> list[str]:
    """Dotted names of all modules of one part."""
    files = [SOURCE / f"{part}.py"] if (SOURCE / f"{part}.py").is_file() else sorted((SOURCE / part).rglob("*.py"))
    names = [".".join(("crista", *path.relative_to(SOURCE).with_suffix("").parts)) for path in files]
    return [name.removesuffix(".__init__") for name in names]


def test_nothing_up_to_the_plan_needs_torch() -> None:
    """All modules of the lower layers, imported together."""
    modules = ["crista", *(name for part in FREE for name in modules_of(part))]
    assert len(modules) >= 60
    assert loaded_by("\n".join(f"import {name}" for name in modules)) == []


@pytest.mark.parametrize(
    "arguments",
    [["--help"], ["--version"], ["explain", "TRAIN.EPOCHS"], ["run", "--help"], ["predict", "--help"]],
    ids=" ".join,
)
def test_commands_that_only_talk_need_no_torch(arguments: list[str]) -> None:
    """Help and explanations."""
    assert loaded_by(f"from crista.cli.main import main; assert main({arguments}) == 0") == []


def test_new_and_check_need_no_torch(make_data: Callable[..., Path], tmp_path: Path) -> None:
    """A configuration is written and its data are checked without PyTorch."""
    data, job = make_data(), tmp_path / "job.yaml"
    new = ["new", str(job), "--train-images", str(data / "train/x"), "--train-labels", str(data / "train/y")]
    code = f"from crista.cli.main import main; assert main({new}) == 0; assert main(['check', {str(job)!r}]) == 0"
    assert loaded_by(code) == []


def test_a_run_loads_what_it_seldom_needs_only_then() -> None:
    """The modules that every training and prediction imports."""
    assert loaded_by("import crista.workflow.run", SELDOM) == []


def test_help_is_quick() -> None:
    """The best of three, in processor time: other programs beside this test do not count."""
    spent = []
    for _ in range(3):
        before = os.times()
        done = subprocess.run([sys.executable, "-m", "crista", "--help"], capture_output=True, check=False, timeout=60)
        after = os.times()
        assert done.returncode == 0
        spent.append(after.children_user - before.children_user + after.children_system - before.children_system)
    assert min(spent) < HELP_SECONDS
