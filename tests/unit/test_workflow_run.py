"""What a run takes of the machine."""

from __future__ import annotations

import os
import sys

import pytest

from crista.workflow import run


def test_the_cache_fits_what_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    """A container with a limit has less than the machine; Windows does not tell what it has."""
    monkeypatch.setattr(run, "free_bytes", lambda: 10**9)
    assert run.cache_bytes() == 10**9 // 2
    monkeypatch.setattr(run, "free_bytes", lambda: sys.maxsize)
    monkeypatch.delattr(os, "sysconf")
    assert run.cache_bytes() == run.UNKNOWN_MEMORY * 2 // 5
