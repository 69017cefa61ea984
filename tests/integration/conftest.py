"""Fixtures of the runs in this folder."""

from __future__ import annotations

from collections.abc import Iterator

import pytest


@pytest.fixture(scope="module")
def no_drawings_in_module() -> Iterator[None]:
    """Runs without charts and report, which take most of the time of a tiny job; test_workflow_tree.py draws them."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr("crista.results.recorder.draw_charts", lambda *_, **__: [])
        monkeypatch.setattr("crista.workflow.run.draw_network", lambda folder, _plan: folder.model_plot)
        monkeypatch.setattr("crista.workflow.run.write_run_report", lambda *_: iter(()))
        yield
