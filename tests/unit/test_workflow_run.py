"""What a run takes of the machine."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from crista.config.load import parse_config
from crista.workflow import run
from crista.workflow.request import request_automatic


def test_the_cache_fits_what_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    """A container with a limit has less than the machine; Windows does not tell what it has."""
    monkeypatch.setattr(run, "free_bytes", lambda: 10**9)
    assert run.cache_bytes() == 10**9 // 2
    monkeypatch.setattr(run, "free_bytes", lambda: sys.maxsize)
    monkeypatch.delattr(os, "sysconf")
    assert run.cache_bytes() == run.UNKNOWN_MEMORY * 2 // 5


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
    assert parse_config(made.config_text).config.train.max_minutes == expected
