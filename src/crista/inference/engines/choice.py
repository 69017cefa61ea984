"""Choice: which engine predicts, and why. The numbers are checked first, then the speed."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from hashlib import sha256
from math import prod
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from crista.config.engine import CANDIDATES, CHOOSING, EngineConfig, OpenVINOInt8, Torch
from crista.errors import EngineError
from crista.images.atomic import atomic_write, read_json, write_first
from crista.inference.engine import Engine
from crista.inference.engines.base import ENGINES, EngineSource, check_available, installed
from crista.inference.engines.conversion import is_converted
from crista.inference.engines.int8_record import int8_model_path
from crista.inference.engines.probe import PROBE_VOXELS, ROUNDS, cut_sample, measure_speeds, seconds_per_voxel
from crista.inference.engines.speeds import Speeds, load_speeds, save_speeds, speed_key
from crista.inference.engines.trial import Trial
from crista.plan.plan import Plan
from crista.plan.topology import input_multiple

CONVERSION_SECONDS = 1.0
START_SECONDS = 0.5
"""Converting a network, and starting an engine with it: 0.7 s and 0.3 s for a U-Net of 2 million weights on two quiet cores."""
LEAST_GAIN = 0.05
"""Share of PyTorch's time that an engine must save to take its place; less is within the scatter of the measurement."""


@dataclass(frozen=True)
class EngineChoice:
    """The engine to predict with."""

    engine: Engine
    name: str
    reason: str
    """One sentence with figures."""
    notices: tuple[str, ...] = ()
    """One line for each engine that was wanted and cannot be used."""
    milliseconds: Mapping[str, float] = field(default_factory=dict)
    """What each engine took for the same part of a tile, now or in an earlier run; empty if that was never measured."""


def choose_engine(
    plan: Plan,
    weights: Mapping[str, torch.Tensor],
    device: torch.device,
    *,
    sample: NDArray[np.float32],
    num_voxels: int,
    cache: Path,
    checkpoint: Path | None = None,
) -> EngineChoice:
    """The engine that TEST.ENGINE asks for, or the fastest one whose numbers are right; PyTorch where nothing else will do.

    Parameters
    ----------
    sample : (1, C, [Z,] Y, X) float32
        A normalised tile of a real image.
    num_voxels :
        Voxels that the network will see in this job, halos and orientations included: a faster engine must save more than
        finding and starting it costs.
    cache :
        Folder of converted networks, and of what was chosen: a job that is resumed takes the same engine.
    checkpoint :
        The file of the weights; an accepted 8-bit model lies beside it.
    """
    int8_model = int8_model_path(checkpoint) if checkpoint is not None else None
    source = EngineSource(plan, weights, device, cache, torch.get_num_threads(), int8_model)
    wanted = plan.config.test.engine
    pytorch = ENGINES.build(Torch(), source=source)
    if device.type != "cpu":
        return _on_a_gpu(pytorch, source)
    candidates = CANDIDATES[wanted]
    if not candidates:
        return EngineChoice(pytorch, pytorch.name, "TEST.ENGINE asks for it")
    trial = Trial(source, pytorch, cut_sample(sample, input_multiple(plan.model, plan.ndim), PROBE_VOXELS))
    if wanted not in CHOOSING:
        return _named(trial, candidates[0])
    return _Search(trial, _available(trial, candidates), tuple(sample.shape), num_voxels).choose()


def _on_a_gpu(pytorch: Engine, source: EngineSource) -> EngineChoice:
    wanted = source.plan.config.test.engine
    reason = f"always on {source.device}"
    if wanted in ("auto", pytorch.name):
        return EngineChoice(pytorch, pytorch.name, reason)
    notice = f"TEST.ENGINE: {wanted} is for processors; PyTorch is used on {source.device} (SYSTEM.DEVICE: cpu for the processor)"
    return EngineChoice(pytorch, pytorch.name, reason, (notice,))


def _named(trial: Trial, config: EngineConfig) -> EngineChoice:
    """The engine that TEST.ENGINE names."""
    engine = trial.attempt(config)
    if engine is None:
        reason = f"TEST.ENGINE: {config.name} cannot be used"
        return EngineChoice(trial.pytorch, trial.pytorch.name, reason, tuple(trial.notices))
    return EngineChoice(trial.fresh(config), engine.name, f"TEST.ENGINE asks for it; {trial.agreement(engine.name)}")


def _available(trial: Trial, candidates: Sequence[EngineConfig]) -> list[EngineConfig]:
    """Candidates that can be had; `fastest`, which asks for them, says which cannot."""
    found: list[EngineConfig] = []
    for config in candidates:
        try:
            check_available(config, trial.source)
            found.append(config)
        except EngineError as error:
            if trial.source.plan.config.test.engine != "auto":
                trial.notices.append(str(error))
    return found


def _rounds(found: Sequence[EngineConfig]) -> list[list[EngineConfig]]:
    """Who competes with PyTorch, round after round until one is faster.

    Accepted 8-bit integers come first and alone: no float32 engine comes near them, and that is not measured again for each
    network. Only where a processor (an old one, or of another kind) is slow with them is there a second round.
    """
    accepted: list[EngineConfig] = [config for config in found if isinstance(config, OpenVINOInt8)]
    others = [config for config in found if config not in accepted]
    return [rivals for rivals in (accepted, others) if rivals]


class _Search:
    """Looks for the fastest of PyTorch and the engines that can be had, as far as the job is worth it."""

    def __init__(self, trial: Trial, found: Sequence[EngineConfig], shape: Sequence[int], num_voxels: int) -> None:
        self._trial = trial
        self._found: dict[str, EngineConfig] = {config.name: config for config in found}
        self._num_voxels = num_voxels
        self._is_settled = False
        self._speeds: Speeds = {}
        self._file = trial.source.cache / f"engine-{_job_key(trial.source, shape, num_voxels, list(self._found))}.json"

    def choose(self) -> EngineChoice:
        """What this job took before; PyTorch if the job is too small; else the fastest by measurement, now or earlier."""
        pytorch = self._trial.pytorch.name
        if not self._found:
            why = 'no other engine is installed; pip install "crista[openvino]" makes processors about twice as fast'
            return self._settle(pytorch, why)
        before = _load_choice(self._file)
        if before in (pytorch, *self._found):
            return self._as_before(before)
        for rivals in _rounds(list(self._found.values())):
            why = self._compare(rivals)
            if why:
                return self._settle(pytorch, why)
            name = self._first_right(self._faster_than_pytorch(self._speeds))
            if name:
                return self._take(name, self._figures())
        return self._settle(pytorch, self._figures())

    def _compare(self, rivals: Sequence[EngineConfig]) -> str:
        """Learn how fast PyTorch and its rivals are, from an earlier run or by measurement; why not, if that is not worth it."""
        key = speed_key(self._trial.source, self._trial.part.shape, [config.name for config in rivals])
        known = load_speeds(key) or {}
        if known.keys() != {self._trial.pytorch.name, *(config.name for config in rivals)}:
            known = {}
        self._speeds |= known
        if known and not self._faster_than_pytorch(known):
            return ""
        why = self._not_worth_it(rivals, known)
        if not known and not why:
            self._measure(rivals, key)
        return why

    def _not_worth_it(self, rivals: Sequence[EngineConfig], known: Speeds) -> str:
        """Why looking for another engine would take longer than it saves; empty if it would not."""
        source, part = self._trial.source, self._trial.part
        per_voxel = seconds_per_voxel(self._trial.pytorch, part, input_multiple(source.plan.model, source.plan.ndim))
        job = per_voxel * self._num_voxels
        cost = START_SECONDS + (0.0 if is_converted(source) else CONVERSION_SECONDS)
        gain = max(config.expected_gain for config in rivals)
        if known:
            gain = 1 - min(known.values()) / known[self._trial.pytorch.name]
        else:
            runs = (1 + ROUNDS) * (1 + len(rivals))
            cost += START_SECONDS * (len(rivals) - 1) + runs * per_voxel * prod(part.shape[2:])
        if gain * job > cost:
            return ""
        return f"another engine would save about {gain * job:.1f} s of this job's {job:.1f} s and cost {cost:.1f} s to start"

    def _measure(self, rivals: Sequence[EngineConfig], key: str) -> None:
        """Time PyTorch and every rival whose numbers are right."""
        tried = {config.name: self._trial.attempt(config) for config in rivals}
        right = {name: engine for name, engine in tried.items() if engine is not None}
        speeds = measure_speeds({self._trial.pytorch.name: self._trial.pytorch} | right, self._trial.part, self._fail)
        self._speeds |= speeds
        if len(speeds) == 1 + len(tried):  # what went wrong is to be said in the next run too
            save_speeds(key, speeds)

    def _fail(self, name: str, error: Exception) -> None:
        """Do without an engine that fails while it is timed; a failure of PyTorch is that of the prediction."""
        if name not in self._found:
            raise error
        self._trial.give_up(self._found[name], error)

    def _faster_than_pytorch(self, speeds: Speeds) -> list[str]:
        limit = (1 - LEAST_GAIN) * speeds[self._trial.pytorch.name]
        return sorted((name for name, taken in speeds.items() if taken < limit), key=lambda name: speeds[name])

    def _figures(self) -> str:
        shape = " × ".join(map(str, self._trial.part.shape[2:]))
        taken = ", ".join(f"{name} {value:.0f}" for name, value in sorted(self._speeds.items(), key=lambda item: item[1]))
        return f"milliseconds for {shape} pixels: {taken}"

    def _first_right(self, names: Sequence[str]) -> str:
        """The first of `names` whose numbers are right; empty if none is."""
        return next((name for name in names if self._trial.attempt(self._found[name]) is not None), "")

    def _as_before(self, name: str) -> EngineChoice:
        """The engine that this job took before, or that another process of it takes, as long as its numbers are right."""
        self._is_settled = True
        why = "chosen before for this job"
        if name in self._found and self._first_right([name]):
            return self._take(name, why)
        return self._settle(self._trial.pytorch.name, why)

    def _take(self, name: str, why: str) -> EngineChoice:
        """Choose an engine whose numbers are right."""
        return self._settle(name, f"{why}; {self._trial.agreement(name)}", self._trial.fresh(self._found[name]))

    def _settle(self, name: str, why: str, engine: Engine | None = None) -> EngineChoice:
        """Choose an engine; of the processes of a job (shards) that choose at once, all take what the first one does."""
        first = name if self._is_settled else _save_first(self._file, name)
        if first != name and first in (self._trial.pytorch.name, *self._found):
            return self._as_before(first)
        _save_choice(self._file, name)
        return EngineChoice(engine or self._trial.pytorch, name, why, tuple(dict.fromkeys(self._trial.notices)), self._speeds)


def _job_key(source: EngineSource, shape: Sequence[int], num_voxels: int, engines: Sequence[str]) -> str:
    """A digest of what makes a job the same job, with the same choice; on another machine too."""
    versions = [installed(package) for package in ("torch", "openvino", "onnxruntime")]
    asked = [source.plan.model.model_dump_json(), source.plan.config.test.engine]
    parts = [source.digest, *asked, list(shape), num_voxels, list(engines), versions]
    return sha256(json.dumps(parts).encode()).hexdigest()[:32]


def _load_choice(path: Path) -> str:
    """Name of the engine that was chosen; empty if none was, or the file cannot be read."""
    content = read_json(path)
    return str(content.get("engine", "")) if isinstance(content, dict) else ""


def _save_first(path: Path, name: str) -> str:
    """Remember an engine, unless another process was quicker; returns the one that counts."""
    with suppress(OSError):  # a folder that cannot be written is done without
        write_first(path, json.dumps({"engine": name}))
    return _load_choice(path) or name


def _save_choice(path: Path, name: str) -> None:
    """Remember an engine; a folder that cannot be written is done without."""
    with suppress(OSError):
        atomic_write(path, json.dumps({"engine": name}))
