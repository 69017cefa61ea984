"""Shards on machines with GPUs, and a last command on one without: what they have predicted is put together, and not lost."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.integration.test_biapy_weaknesses import finish, oracle_job
from tests.integration.test_stacks import names_predicted, small_blocks
from tests.jobs import labels

from crista.errors import PredictionError
from crista.inference.adoption import adopt_shards, note_shard
from crista.inference.stage import PredictionJob, predict_shard
from crista.plan.events import Event, Said

TRUTH = [np.random.default_rng(seed).integers(1, 4, (90, 100)).astype(np.uint8) for seed in range(2)]
GPU: dict[str, Any] = {"engine": "torch", "tile_size": (64, 64), "halo": (8, 8), "max_tile_voxels": 10**6, "batch_size": 9}
CPU: dict[str, Any] = {"engine": "openvino", "tile_size": (32, 32), "halo": (4, 4), "max_tile_voxels": 10**4}


def on(job: PredictionJob, machine: dict[str, Any]) -> PredictionJob:
    """The job with what a machine has chosen."""
    inference = job.plan.inference.model_copy(update={"exact": False, **machine})
    return replace(job, predictor=replace(job.predictor, plan=job.plan.model_copy(update={"inference": inference})))


def do_shard(job: PredictionJob, index: int, count: int) -> None:
    note_shard(job)
    list(predict_shard(job, index, count))


def outcome_of(events: Generator[Event, None, PredictionJob]) -> tuple[PredictionJob, str]:
    """What a generator returns, and what it says."""
    said = ""
    while True:
        try:
            event = next(events)
            said += event.text if isinstance(event, Said) else ""
        except StopIteration as stop:
            return stop.value, said


@pytest.fixture(params=[False, True], ids=["in memory", "in blocks"])
def job(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> PredictionJob:
    if request.param:
        small_blocks(monkeypatch)
    return oracle_job(tmp_path, TRUTH, num_classes=4)


def test_what_all_shards_have_done_is_put_together_and_kept(job: PredictionJob, monkeypatch: pytest.MonkeyPatch) -> None:
    for index in range(2):
        do_shard(on(job, GPU), index, 2)
    for _ in range(2):  # the same command again, for the report
        adopted, said = outcome_of(adopt_shards(on(job, CPU)))
        assert said.startswith("engine and tiles are those of the shards, which have predicted everything (torch)")
        assert adopted.plan.inference.engine == "torch"
        assert names_predicted(adopted, monkeypatch) == []
    for index, truth in enumerate(TRUTH):
        np.testing.assert_array_equal(labels(job.folders.per_image_binarized / f"{index}.tif", 2), truth)


def test_what_some_shards_have_done_is_not_done_anew(job: PredictionJob) -> None:
    do_shard(on(job, GPU), 0, 2)
    work = sorted(job.folders.state.glob("work/*"))
    with pytest.raises(
        PredictionError, match=r"(?s)shards have predicted \d+ of \d+ blocks.*\(torch\).*\(openvino\).*remove "
    ) as why:
        outcome_of(adopt_shards(on(job, CPU)))
    assert sorted(job.folders.state.glob("work/*")) == work
    for note in Path(str(why.value).rpartition("remove ")[2]).iterdir():
        note.unlink()
    anew = on(job, CPU)
    assert outcome_of(adopt_shards(anew)) == (anew, "")


def test_shards_of_the_same_kind_of_machine_and_others_change_nothing(job: PredictionJob) -> None:
    do_shard(on(job, GPU), 0, 2)
    do_shard(on(job, CPU), 1, 2)
    do_shard(on(replace(job, digest="another"), GPU), 0, 1)
    own = on(job, CPU)
    assert outcome_of(adopt_shards(own)) == (own, "")
    finish(own)
    other = replace(own, digest="a third")
    assert outcome_of(adopt_shards(other)) == (other, "")
