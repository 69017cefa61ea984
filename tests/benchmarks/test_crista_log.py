"""The split that crista prints is the one that the benchmark reads."""

from __future__ import annotations

import pytest
from measuring.crista_log import read_split

from crista.inference.predictor import Clock


def test_the_sentence_of_crista_is_understood() -> None:
    """30 s, of which 27 in the network and 1.5 waiting; 1.5 voxels in per voxel out; the engine named before it."""
    clock = Clock(network=27.0, waiting=1.5, total=30.0, voxels_in=3_000_000, voxels_out=2_000_000)
    log = f"10:00:00 TEST.ENGINE = openvino: the fastest of two\n10:01:00 prediction: {clock.describe()}\n"
    split = read_split(log)
    assert split is not None
    assert (split.total, split.network, split.waiting) == pytest.approx((30.0, 27.0, 1.5))
    assert (split.work_factor, split.engine) == (1.5, "openvino")


def test_the_last_of_several_runs_counts() -> None:
    """A log is appended to by every run."""
    first, second = (Clock(network=n, total=10.0, voxels_in=1, voxels_out=1).describe() for n in (1.0, 9.0))
    split = read_split(f"prediction: {first}\nprediction: {second}\n")
    assert split is not None
    assert split.network == pytest.approx(9.0)


def test_a_log_without_it() -> None:
    """Nothing is made up."""
    assert read_split("10:00:00 == predict\n") is None
