"""How much memory tiles may take: the limit less what is held, in coarse steps so that two runs cut alike."""

from __future__ import annotations

from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.networks import network_plan

from crista.config.cluster import Cluster
from crista.geometry.axes import Region
from crista.geometry.tiles import grid_blocks, shape_of
from crista.images.image import Image
from crista.inference import memory, tuning
from crista.inference.measure import BLOCK_VOXELS, iter_slabs
from crista.inference.memory import LEAST_FOR_TILES, RESERVE, bytes_for_tiles, bytes_for_whole_image, rounded_up
from crista.inference.task import BLOCK_BYTES, bytes_per_voxel, choose_block_shape, labels_pyramid, probabilities_pyramid
from crista.plan.plan import Plan

MB = 1_000_000


@pytest.mark.parametrize(
    ("held", "free", "expected"),
    [
        (500 * MB, 100_000 * MB, 700 * MB),
        (330 * MB, 100_000 * MB, 700 * MB),
        (530 * MB, 100_000 * MB, 700 * MB),
        (1500 * MB - RESERVE - 199 * MB, 100_000 * MB, 100 * MB),
        (1500 * MB - RESERVE - 80 * MB, 100_000 * MB, 80 * MB),
        (1600 * MB, 100_000 * MB, LEAST_FOR_TILES),
        (500 * MB, 1000 * MB, 500 * MB),
    ],
    ids=[
        "usual",
        "not all libraries are at work yet",
        "a little more is held",
        "little is left",
        "less than a step",
        "too much is held",
        "the machine has less",
    ],
)
def test_bytes_for_tiles(monkeypatch: pytest.MonkeyPatch, held: int, free: int, expected: int) -> None:
    monkeypatch.setattr(memory, "resident_bytes", lambda: held)
    monkeypatch.setattr(memory, "free_bytes", lambda: free)
    assert bytes_for_tiles(1.5) == expected


def test_what_a_voxel_takes_is_rounded_up_to_steps_of_a_fifth() -> None:
    assert [rounded_up(value) for value in (0.0, 1.0, 680.0, 684.0, 685.0, 1024.0)] == [1, 1, 725, 725, 725, 1024]


@pytest.mark.parametrize(
    ("free", "num_processes", "expected"),
    [(8_000 * MB, 1, 2_000 * MB), (8_000 * MB, 8, 800 * MB), (100_000 * MB, 2, 4_000 * MB)],
    ids=["a quarter", "shared", "never more than 4 GB"],
)
def test_bytes_for_a_whole_image(monkeypatch: pytest.MonkeyPatch, free: int, num_processes: int, expected: int) -> None:
    monkeypatch.setattr(memory, "free_bytes", lambda: free)
    assert bytes_for_whole_image(num_processes) == expected


@pytest.mark.parametrize(
    ("free", "num_processes", "expected"),
    [(100_000 * MB, 8, 700 * MB), (5_000 * MB, 4, 200 * MB), (2_000 * MB, 4, LEAST_FOR_TILES)],
    ids=["enough for all", "a share each", "little for each"],
)
def test_processes_on_one_machine_share_its_memory(
    monkeypatch: pytest.MonkeyPatch, free: int, num_processes: int, expected: int
) -> None:
    monkeypatch.setattr(memory, "resident_bytes", lambda: 500 * MB)
    monkeypatch.setattr(memory, "free_bytes", lambda: free)
    assert bytes_for_tiles(1.5, num_processes) == expected


@pytest.mark.parametrize(
    ("cluster", "ranks", "expected"),
    [
        ({}, None, 1),
        ({"workers": 4}, None, 4),
        ({}, "3", 3),
        ({"workers": 4, "queue": "slurm"}, None, 1),
        ({"scheduler": "tcp://host:8786"}, None, 1),
    ],
    ids=["alone", "workers", "torchrun", "jobs elsewhere", "workers elsewhere"],
)
def test_processes_on_this_machine(
    monkeypatch: pytest.MonkeyPatch, cluster: dict[str, Any], ranks: str | None, expected: int
) -> None:
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    if ranks:
        monkeypatch.setenv("LOCAL_WORLD_SIZE", ranks)
    plan = with_cluster(network_plan(), cluster)
    asked: list[int] = []
    monkeypatch.setattr(tuning, "bytes_for_tiles", lambda _, count: asked.append(count) or 0)
    tuning._budget(plan, tuning.torch.device("cpu"))
    assert asked == [expected]


@pytest.mark.parametrize(("workers", "gpus", "share"), [(0, 1, 1), (2, 2, 1), (2, 1, 2), (5, 2, 3)])
def test_workers_on_one_gpu_share_its_memory(monkeypatch: pytest.MonkeyPatch, workers: int, gpus: int, share: int) -> None:
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    monkeypatch.setattr(tuning.torch.cuda, "mem_get_info", lambda _: (30_000 * MB, 40_000 * MB))
    monkeypatch.setattr(tuning.torch.cuda, "device_count", lambda: gpus)
    plan = with_cluster(network_plan(), {"workers": workers})
    assert tuning._budget(plan, tuning.torch.device("cuda")) == 18_000 * MB // share


def test_what_a_training_held_on_the_gpu_is_given_back_before_tiles_are_fitted(monkeypatch: pytest.MonkeyPatch) -> None:
    """PyTorch keeps it, and it counts as used: the tiles after a training would be far smaller than without one."""
    free = [1_000 * MB]
    monkeypatch.setattr(tuning.torch.cuda, "empty_cache", lambda: free.append(4_000 * MB))
    monkeypatch.setattr(tuning.torch.cuda, "mem_get_info", lambda _: (free[-1], 5_000 * MB))
    monkeypatch.setattr(tuning.torch.cuda, "device_count", lambda: 1)
    assert tuning._budget(network_plan(), tuning.torch.device("cuda")) == 2_400 * MB


def with_cluster(plan: Plan, cluster: dict[str, Any]) -> Plan:
    """The plan with a SYSTEM.CLUSTER."""
    system = plan.config.system.model_copy(update={"cluster": Cluster(**cluster)})
    return plan.model_copy(update={"config": plan.config.model_copy(update={"system": system})})


class _NoPixels:
    def read(self, region: Region) -> Any:
        raise AssertionError(region)


@pytest.mark.parametrize("saves", [False, True], ids=["labels", "probabilities"])
@pytest.mark.parametrize("num_classes", [2, 5])
@pytest.mark.parametrize("shape", [(2048, 2048, 2048), (300, 8192, 8192), (100_000, 90_000)])
def test_blocks_stay_small_however_large_the_image(shape: tuple[int, ...], num_classes: int, saves: bool) -> None:
    """Files of labels grow with the image up to 32 million voxels, whose probabilities are many times as large."""
    plan = network_plan(len(shape), num_classes=num_classes).model_copy(update={"save_probabilities": saves})
    image = Image(Path("a.zarr"), "ZYX"[-len(shape) :], shape, np.dtype(np.uint8), len(shape), None, _NoPixels())
    block = choose_block_shape(image, plan)
    assert block is not None
    assert prod(block) * bytes_per_voxel(plan) < 1.5 * BLOCK_BYTES  # chunks are never cut
    for pyramid in (labels_pyramid(image, plan), probabilities_pyramid(image, plan)):
        level = pyramid.levels[0]
        channels = level.shape[: -len(shape)]
        for region in (
            next(iter(grid_blocks(shape, block))),
            tuple(slice((n - 1) // b * b, n) for n, b in zip(shape, block, strict=True)),
        ):
            assert level.is_aligned((*(slice(0, n) for n in channels), *region))


@pytest.mark.parametrize("shape", [(3, 9000, 9000), (40, 30, 20), (70_000, 1000), (5, 5000, 3000)])
def test_what_is_counted_at_a_time_stays_small_however_large_a_slice_is(shape: tuple[int, ...]) -> None:
    slabs = list(iter_slabs(shape))
    assert max(prod(shape_of(slab)) for slab in slabs) <= BLOCK_VOXELS
    assert sum(prod(shape_of(slab)) for slab in slabs) == prod(shape)
    assert all(slab[-1] == slice(0, shape[-1]) for slab in slabs), "whole rows"
