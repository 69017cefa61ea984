"""Tuning: what is measured on the trained network and a real image before prediction: tile size and halo.

The findings are kept beside the results, so that a run that is taken up again, and every process that shares the work,
cuts the images in the same way.
"""

from __future__ import annotations

import json
import os
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from math import ceil, prod
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from crista.geometry.axes import Region
from crista.geometry.tiles import fit_tile, iter_tiles, round_up, shape_of, work_factor
from crista.images.atomic import atomic_write, read_json, write_first
from crista.images.image import Image
from crista.inference.cover import build_assembler
from crista.inference.engine import Engine
from crista.inference.memory import (
    USUAL_MEMORY,
    bytes_for_tiles,
    bytes_for_whole_image,
    estimated_bytes_per_voxel,
    most_voxels_on_gpu,
    peak_bytes,
    pipeline_bytes_per_voxel,
    rounded_up,
)
from crista.inference.predictor import AHEAD, Predictor
from crista.inference.record import state_of_image
from crista.inference.scores import labels_of
from crista.inference.statistics import StatisticsCache
from crista.inference.task import choose_block_shape
from crista.patches.normalization import ImageStatistics
from crista.plan.events import Event, Said
from crista.plan.plan import Decision, InferencePlan, Plan
from crista.plan.tiling import CHEAP
from crista.plan.topology import receptive_field_radius

SAMPLE_VOXELS = {2: 512**2, 3: 64**3}
"""Voxels of the piece of an image on which memory and speed are measured."""
ALLOWED_DIFFERENCE = 1e-4
"""Share of the pixels whose label may differ from that of the whole frame, for a halo that is not exact."""
SHARES = (1 / 8, 1 / 4, 3 / 8, 1 / 2, 3 / 4)
"""Of the receptive field's radius: halos that are tried, from the narrowest."""
GPU_SHARE = 0.6
"""Of a GPU's free memory, for the tiles of the processes that use it."""


def take_sample(predictor: Predictor, image: Image, statistics: ImageStatistics, max_voxels: int) -> NDArray[np.float32]:
    """The middle of `image` as the network gets it, (1, C, (Z)YX), of at most about `max_voxels`."""
    region = middle_of(image.spatial_shape, predictor.multiple, max_voxels)
    [tile] = iter_tiles(shape_of(region), shape_of(region), [0] * image.ndim)
    return predictor.input_of(image, [replace(tile, read=region)], statistics)


def middle_of(shape: Sequence[int], multiple: Sequence[int], max_voxels: int) -> Region:
    """A box in the middle, of at most `max_voxels` unless it is one stride wide; sides and starts are multiples of the stride."""
    size = [round_up(n, m) for n, m in zip(shape, multiple, strict=True)]
    while prod(size) > max_voxels and any(s > m for s, m in zip(size, multiple, strict=True)):
        axis = max((axis for axis in range(len(size)) if size[axis] > multiple[axis]), key=lambda axis: size[axis])
        size[axis] = round_up(size[axis] // 2, multiple[axis])
    starts = [max(0, (round_up(n, m) - s) // 2 // m * m) for n, s, m in zip(shape, size, multiple, strict=True)]
    return tuple(slice(start, start + s) for start, s in zip(starts, size, strict=True))


def tune(
    predictor: Predictor, images: Mapping[str, Image], *, state: Path, digest: str, device: torch.device
) -> Generator[Event, None, Plan]:
    """The plan with tiles that fit the memory and a halo that is wide enough, as far as the images need it.

    Parameters
    ----------
    images : all that will be predicted, by the names of their results
    state : folder of the findings
    digest : of the weights
    """
    plan = predictor.plan
    if plan.inference.max_tile_voxels is None:
        return plan
    name, largest = max(images.items(), key=lambda item: prod(item[1].spatial_shape))
    path = state / f"tuning-{_key(plan, digest, device, largest)[:12]}.json"
    statistics = StatisticsCache(state, plan).of(name, largest)
    kept = _load(path)
    tuned = kept if kept is not None else _fit_memory(predictor, largest, statistics, device)
    missing = _needs_measured_halo(predictor, tuned, largest) and not any(d.key == "halo" for d in tuned.decisions)
    if missing:
        tuned = _with_halo(predictor, tuned, largest, statistics)
    if kept is None or missing:
        tuned = _save(path, tuned, replace_kept=kept is not None)
    yield from predictor.take_notices()
    for decision in tuned.decisions:
        yield Said(f"{decision.key} = {decision.value}: {decision.reason}")
    return plan.model_copy(update={"inference": tuned.inference, "decisions": (*plan.decisions, *tuned.decisions)})


@dataclass(frozen=True)
class _Tuned:
    inference: InferencePlan
    decisions: tuple[Decision, ...]


def _key(plan: Plan, digest: str, device: torch.device, largest: Image) -> str:
    """What the findings depend on; of the images it is the largest one, which is measured."""
    parts = [
        digest,
        plan.inference.model_dump_json(),
        str(plan.config.test.max_memory),
        plan.model.model_dump_json(),
        device.type,
        state_of_image(largest),
    ]
    return sha256(json.dumps(parts).encode()).hexdigest()


def _load(path: Path) -> _Tuned | None:
    content = read_json(path)
    if content is None:
        return None
    decisions = tuple(Decision.model_validate(decision) for decision in content["decisions"])
    return _Tuned(InferencePlan.model_validate(content["inference"]), decisions)


def _save(path: Path, tuned: _Tuned, *, replace_kept: bool) -> _Tuned:
    """Keep the findings; of several processes that measured at once, all go by those of the first."""
    decisions = [decision.model_dump(mode="json") for decision in tuned.decisions]
    content = json.dumps({"inference": tuned.inference.model_dump(mode="json"), "decisions": decisions}, indent=1)
    if replace_kept:
        atomic_write(path, content)
        return tuned
    write_first(path, content)
    return _load(path) or tuned


def _fit_memory(predictor: Predictor, largest: Image, statistics: ImageStatistics, device: torch.device) -> _Tuned:
    """The largest tile that memory allows, from what the network takes for a sample."""
    plan = predictor.plan
    sample = take_sample(predictor, largest, statistics, SAMPLE_VOXELS[largest.ndim])
    smallest = sample[(slice(None), slice(None), *(slice(0, 2 * m) for m in predictor.multiple))]
    predictor.engine.scores(np.ascontiguousarray(smallest))  # what is allocated once and for all is not counted
    peak = peak_bytes(lambda: predictor.engine.scores(sample), device)
    voxels = prod(sample.shape[2:])
    channels, logits = plan.num_channels, plan.classes.num_logits
    estimate = estimated_bytes_per_voxel(plan.model, channels, logits)
    measured = peak is not None and peak > estimate * voxels  # less: it was served from memory that was held already
    network = rounded_up(peak / voxels) if measured and peak is not None else estimate
    per_voxel = network + pipeline_bytes_per_voxel(channels, logits, AHEAD)
    budget = _budget(plan, device)
    most = max(prod(predictor.multiple), int(budget / per_voxel))
    most = most if device.type == "cpu" else min(most, most_voxels_on_gpu(plan.model))
    how = "measured" if measured else "estimated"
    reason = f"a tile takes {per_voxel} bytes per voxel ({how}), {budget / 1e6:.0f} MB are left for it"
    reason += "" if device.type == "cuda" else f" of TEST.MAX_MEMORY {_max_memory(plan):g} GB"
    whole = _padded_voxels(predictor, largest)
    if most < whole and whole * per_voxel <= _bytes_for_whole(predictor, largest, device):
        most = whole
        reason += f"; the largest image in one piece takes {whole * per_voxel / 1e9:.2g} GB, and far more is free"
    value = f"at most {most:,} voxels"
    # One tile at a time: an image that fits is one tile, and tiles of a larger one take what there is.
    inference = plan.inference.model_copy(update={"max_tile_voxels": most, "batch_size": 1})
    return _exactness(predictor, _Tuned(inference, (Decision(key="tiles", value=value, reason=reason),)), largest)


def _budget(plan: Plan, device: torch.device) -> int:
    if device.type == "cuda":
        torch.cuda.empty_cache()  # what a training before it held, which counts as used
        free, _ = torch.cuda.mem_get_info(device)
        return int(free * GPU_SHARE) // max(1, ceil(_processes_here(plan) / max(1, torch.cuda.device_count())))
    return bytes_for_tiles(_max_memory(plan), _processes_here(plan))


def _processes_here(plan: Plan) -> int:
    """How many processes predict on this machine at once: workers, or those that torchrun has started."""
    cluster = plan.config.system.cluster
    workers = 0 if cluster.queue or cluster.scheduler else cluster.workers
    return max(1, workers, int(os.environ.get("LOCAL_WORLD_SIZE", "1")))


def _max_memory(plan: Plan) -> float:
    """GB of the whole process."""
    given = plan.config.test.max_memory
    return USUAL_MEMORY if given is None else given


def _bytes_for_whole(predictor: Predictor, largest: Image, device: torch.device) -> int:
    """What an image in one piece may take where tiles may take less; 0 where a limit was set, and for images in blocks."""
    plan = predictor.plan
    if device.type == "cuda" or plan.config.test.max_memory is not None or choose_block_shape(largest, plan) is not None:
        return 0
    return bytes_for_whole_image(max(plan.config.system.cluster.workers, _processes_here(plan)))


def _padded_voxels(predictor: Predictor, image: Image) -> int:
    return prod(round_up(n, m) for n, m in zip(image.spatial_shape, predictor.multiple, strict=True))


def exact_halo(predictor: Predictor) -> tuple[int, ...]:
    """The radius of the receptive field in whole strides, at least DATA.TEST.PADDING."""
    plan = predictor.plan
    radius = receptive_field_radius(plan.model, plan.ndim)
    return tuple(
        max(round_up(r, m), h if plan.inference.exact else 0)
        for r, m, h in zip(radius, predictor.multiple, plan.inference.halo, strict=True)
    )


def _exactness(predictor: Predictor, tuned: _Tuned, largest: Image) -> _Tuned:
    """The exact halo, where it costs little on the largest image."""
    halo = exact_halo(predictor)
    cost = _work(predictor, largest, halo, tuned.inference)
    is_exact = cost is not None and cost <= CHEAP
    changed = {"exact": is_exact, "halo": halo} if is_exact else {"exact": False}
    return _Tuned(tuned.inference.model_copy(update=changed), tuned.decisions)


def _work(predictor: Predictor, image: Image, halo: Sequence[int], inference: InferencePlan) -> float | None:
    """Voxels through the network per voxel of the image with this halo; None if no tile of the allowed size can have it."""
    shape, block = image.spatial_shape, choose_block_shape(image, predictor.plan)
    box = tuple(min(b, n) for b, n in zip(block, shape, strict=True)) if block is not None else shape
    assert inference.max_tile_voxels is not None
    size = fit_tile(box, halo, predictor.multiple, inference.max_tile_voxels, inside=block is not None)
    if size is None:
        return None
    margin = (
        [4 * round_up(h, m) for h, m in zip(halo, predictor.multiple, strict=True)] if block is not None else [0] * len(shape)
    )
    around = [n + 2 * g for n, g in zip(box, margin, strict=True)]
    middle = tuple(slice(g, g + n) for g, n in zip(margin, box, strict=True))
    return work_factor(list(iter_tiles(around, size, halo, predictor.multiple, block=middle)))


def _needs_measured_halo(predictor: Predictor, tuned: _Tuned, largest: Image) -> bool:
    """Whether there is an image that needs several tiles with a halo that is not exact."""
    inference = tuned.inference
    if inference.exact or inference.max_tile_voxels is None:
        return False
    is_tiled = _padded_voxels(predictor, largest) > inference.max_tile_voxels
    return is_tiled or choose_block_shape(largest, predictor.plan) is not None


def _with_halo(predictor: Predictor, tuned: _Tuned, image: Image, statistics: ImageStatistics) -> _Tuned:
    """The narrowest halo with which hardly a label differs from the whole frame, tried on a region of a real image.

    Where none is found, and no tile that memory allows has room for the exact one, it is the widest for which one has.
    """
    assert tuned.inference.max_tile_voxels is not None
    probe = _Probe(predictor, take_sample(predictor, image, statistics, tuned.inference.max_tile_voxels))
    tried = []
    exact = exact_halo(predictor)
    halo: tuple[int, ...] | None = None
    for share in SHARES:
        candidate = _shared(exact, share, predictor)
        difference = probe.difference(candidate)
        tried.append(f"{candidate}: {difference:.1e}" if difference is not None else f"{candidate}: too wide for the region")
        if difference is not None and difference < ALLOWED_DIFFERENCE:
            halo = candidate
            break
    which = "the narrowest that was tried"
    if halo is None:
        halo = _widest_halo(predictor, image, tuned.inference)
        if halo != exact:
            which = "the widest that tiles of this size have room for (more TEST.MAX_MEMORY makes room), not one"
    work = _work(predictor, image, halo, tuned.inference)
    shown = f"{work:.2f}" if work is not None else "?"
    reason = (
        f"{which} with which less than {ALLOWED_DIFFERENCE:g} of the labels differ from those of the whole "
        f"frame, on {probe.shape} voxels of {image.path.name} ({'; '.join(tried)}); {shown} voxels through the network per "
        f"voxel of the result. The receptive field's radius is {exact}"
    )
    inference = tuned.inference.model_copy(update={"halo": halo, "exact": halo == exact})
    return _Tuned(inference, (*tuned.decisions, Decision(key="halo", value=str(halo), reason=reason)))


def _widest_halo(predictor: Predictor, image: Image, inference: InferencePlan) -> tuple[int, ...]:
    """The exact halo, or the widest share of it, that a tile of the allowed size has room for; 0 where there is no room."""
    exact = exact_halo(predictor)
    halos = [exact, *(_shared(exact, share, predictor) for share in reversed(SHARES))]
    return next((halo for halo in halos if _work(predictor, image, halo, inference) is not None), (0,) * len(exact))


def _shared(exact: Sequence[int], share: float, predictor: Predictor) -> tuple[int, ...]:
    """A share of the exact halo in whole strides, not below DATA.TEST.PADDING."""
    padding = predictor.plan.config.data.test.padding or (0,)
    least = padding * (len(exact) // len(padding))
    return tuple(
        round_up(max(1, int(e * share), p if e else 0), m) for e, p, m in zip(exact, least, predictor.multiple, strict=True)
    )


class _Probe:
    """A region predicted whole, to compare with the same region in tiles."""

    def __init__(self, predictor: Predictor, pixels: NDArray[np.float32]) -> None:
        self._engine: Engine = predictor.engine
        self._multiple = predictor.multiple
        self._threshold = predictor.plan.config.test.threshold
        self._pixels = pixels
        self.shape = pixels.shape[2:]
        self._whole = self._labels(pixels)

    def _labels(self, pixels: NDArray[np.float32]) -> NDArray[np.uint8]:
        scores = self._engine.scores(np.ascontiguousarray(pixels))[0]
        return labels_of(scores, self._threshold).cpu().numpy()

    def difference(self, halo: Sequence[int]) -> float | None:
        """Share of the labels that change when each axis is cut in two with this halo; None if the region is too small."""
        shape = self._pixels.shape[2:]
        size = [self._half(n, h, m) for n, h, m in zip(shape, halo, self._multiple, strict=True)]
        if all(s == n for s, n in zip(size, shape, strict=True)):
            return None
        plan = InferencePlan(mode="halo", tile_size=tuple(size), halo=tuple(halo), overlap=(0.0,) * len(size), batch_size=1)
        labels = np.zeros(shape, np.uint8)
        for tile in build_assembler(plan, shape, self._multiple).tiles:
            labels[tile.write] = self._labels(self._pixels[(slice(None), slice(None), *tile.read)])[tile.crop]
        return float((labels != self._whole).mean())

    @staticmethod
    def _half(length: int, halo: int, multiple: int) -> int:
        """Half an axis and its halo; all of an axis that is too short to be cut."""
        half = round_up(-(-(length - 2 * halo) // 2) + 2 * halo, multiple)
        return half if 2 * halo + multiple <= half < length else length
