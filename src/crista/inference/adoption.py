"""Adoption: what shards have predicted on other machines (with GPUs, say) is put together where it would be cut otherwise.

Engine and tiles are chosen for a machine, and belong to what identifies a prediction. The process that puts the work of shards
together often runs elsewhere; it goes by what they have noted, once all of them are done.
"""

from __future__ import annotations

import json
from collections.abc import Generator, Iterator
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

from crista.errors import PredictionError
from crista.images.atomic import atomic_write, read_json
from crista.inference.record import load_record, record_key
from crista.inference.stage import PredictionJob, is_done
from crista.inference.task import plan_tasks
from crista.plan.events import Event, Said
from crista.plan.plan import Decision, InferencePlan

NOTES = "shards"
"""Folder in the state of a run."""


def note_shard(job: PredictionJob) -> None:
    """Leave word of the engine and the tiles with which a shard of `job` predicts."""
    inference = job.plan.inference.model_dump(mode="json")
    content = {"inference": inference, "decisions": [decision.model_dump(mode="json") for decision in job.plan.decisions]}
    atomic_write(_folder(job) / f"{_digest([inference])}.json", json.dumps(content, indent=1))


def adopt_shards(job: PredictionJob) -> Generator[Event, None, PredictionJob]:
    """`job` with engine and tiles of shards that have predicted all of it, if they had others than this process has chosen.

    Raises
    ------
    PredictionError
        If such shards have predicted a part of it, and nobody else has: this process would remove that, and do all of it anew.
    """
    others = list(_noted(job)) if (job.folders.state / NOTES).is_dir() else []  # to look costs a look at all files of the images
    if not others or any(other.keys == job.keys for other in others):
        return job
    counts = [_count_done(other) for other in others]
    for other, (done, total) in zip(others, counts, strict=True):
        if done == total:
            yield Said(
                f"engine and tiles are those of the shards, which have predicted everything ({other.plan.inference.engine}); "
                "what was chosen here is not used"
            )
            return other
    (done, total), other = max(zip(counts, others, strict=True), key=lambda found: found[0][0])
    if done and not _count_done(job)[0]:
        raise PredictionError(
            f"shards have predicted {done} of {total} blocks, with another engine or other tiles "
            f"({other.plan.inference.engine}) than this process has chosen ({job.plan.inference.engine}), which would do all of "
            "them anew\n    -> submit the shards again that have not ended, or run this command on a machine of their kind; to "
            f"begin anew here, remove {_folder(job)}"
        )
    return job


def _noted(job: PredictionJob) -> Iterator[PredictionJob]:
    """`job` as the shards have it."""
    for path in sorted(_folder(job).glob("*.json")):
        content = read_json(path)
        if content is not None:
            inference = InferencePlan.model_validate(content["inference"])
            decisions = tuple(Decision.model_validate(decision) for decision in content["decisions"])
            plan = job.plan.model_copy(update={"inference": inference, "decisions": decisions})
            yield replace(job, predictor=replace(job.predictor, plan=plan))


def _count_done(job: PredictionJob) -> tuple[int, int]:
    """Blocks that are done, and all; a finished image counts as one."""
    done = total = 0
    for name, key, pair in zip(job.names, job.keys, job.pairs, strict=True):
        if load_record(job.folders.state, name, key) is not None:
            done, total = done + 1, total + 1
            continue
        tasks = plan_tasks(job.plan, pair, name, key, full_image=job.full_image)
        done, total = done + sum(is_done(job, task) for task in tasks), total + len(tasks)
    return done, total


def _folder(job: PredictionJob) -> Path:
    """Where the shards of this job leave word: by all that identifies it but engine and tiles."""
    ndim = job.plan.ndim
    any_machine = InferencePlan(
        mode="halo", tile_size=(1,) * ndim, halo=(0,) * ndim, overlap=(0.0,) * ndim, batch_size=1, exact=True
    )
    plan = job.plan.model_copy(update={"inference": any_machine})
    keys = [record_key(job.digest, plan, pair) for pair in job.pairs]
    return job.folders.state / NOTES / _digest([keys, list(job.names), job.full_image])


def _digest(content: object) -> str:
    return sha256(json.dumps(content).encode()).hexdigest()[:12]
