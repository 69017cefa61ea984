"""What a run takes of the machine, and what a prediction takes of the training."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import h5py
import numpy as np
import pytest

from crista.config.load import config_from_dict, parse_config
from crista.images.dataset import open_pairs
from crista.workflow import run
from crista.workflow.request import request_automatic, request_prediction


def test_the_cache_fits_what_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    """A container with a limit has less than the machine; Windows does not tell what it has."""
    monkeypatch.setattr(run, "free_bytes", lambda: 10**9)
    assert run.cache_bytes() == 10**9 // 2
    monkeypatch.setattr(run, "free_bytes", lambda: sys.maxsize)
    monkeypatch.delattr(os, "sysconf")
    assert run.cache_bytes() == run.UNKNOWN_MEMORY * 2 // 5


def trained_with(monkeypatch: pytest.MonkeyPatch, keys: dict[str, Any]) -> None:
    """Every checkpoint is that of a training with these keys."""
    plan = SimpleNamespace(config=config_from_dict(keys).config)
    monkeypatch.setattr("crista.training.checkpoint.load_checkpoint", lambda *_: SimpleNamespace(plan=plan))


def test_label_images_that_are_given_are_those_that_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also after a training whose test labels lay beside the images, in the same files."""
    inner = {"RAW_PATH": "raw", "GT_PATH": "label"}
    keys = {"INPUT_ZARR_MULTIPLE_DATA": True, **{f"INPUT_ZARR_MULTIPLE_DATA_{key}": value for key, value in inner.items()}}
    trained_with(monkeypatch, {"DATA": {"TEST": {"PATH": "test", "LOAD_GT": True, **keys}}})
    (tmp_path / "x").mkdir()
    with h5py.File(tmp_path / "x/a.h5", "w") as file:
        file["raw"], file["label"] = np.ones((40, 48), np.uint8), np.zeros((40, 48), np.uint8)
    (tmp_path / "y").mkdir()
    np.save(tmp_path / "y/a.npy", np.ones((40, 48), np.uint8))
    for labels, expected in (("y", "a.npy"), ("x", "a.h5")):
        request = request_prediction("best.pth", tmp_path / "x", labels=tmp_path / labels, result_dir=tmp_path)
        assert request.notices == ()
        opened = open_pairs(request.config.data.test, ndim=2, with_labels=True, role="test")
        assert opened.problems == []
        [pair] = opened.pairs
        assert pair.image.inner == "raw"
        assert pair.label is not None
        assert pair.label.path.name == expected
        assert pair.label.inner == ("label" if labels == "x" else None)


def test_the_configuration_that_is_kept_of_a_prediction_says_what_was_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained_with(monkeypatch, {"TEST": {"THRESHOLD": 0.4}})
    request = request_prediction("best.pth", tmp_path / "x", result_dir=tmp_path, overrides=["TEST.THRESHOLD=0.7"])
    assert request.config.test.threshold == 0.7
    assert request.config_text.endswith("\n# changed on the command line: TEST.THRESHOLD=0.7")


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
    assert bool(made.assumed_minutes) == (expected == 20)
    assert parse_config(made.config_text).config.train.max_minutes == expected
