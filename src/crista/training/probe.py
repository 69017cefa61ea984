"""Probe: a real step of the planned network, by which the batch is fitted to the memory and the epochs to the time."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, replace
from math import inf, prod
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn

from crista.config.root import Config
from crista.config.train import ReduceOnPlateau, ScheduleShape, WarmupCosine
from crista.errors import PlanError, Problem
from crista.geometry.tiles import round_up
from crista.images.fingerprint import Fingerprint
from crista.images.wording import plural
from crista.losses import build_loss
from crista.models import build_model
from crista.models.placement import memory_layout, to_device, to_layout
from crista.patches.loader import Batch, full_batches, iter_batches, shuffled_order
from crista.plan.alternatives import changes_of, plans_by_effort, steps_of_epochs, wanted_steps
from crista.plan.budget import divide_time
from crista.plan.effort import FEWEST_STEPS, FULL
from crista.plan.events import Event, Said, Warned
from crista.plan.growing import GROWTH, count_first_epochs, growth_in, leaves_growth_open
from crista.plan.learning import idle_patience
from crista.plan.machine import free_bytes
from crista.plan.make import make_plan
from crista.plan.plan import Decision, Plan
from crista.plan.preparation import FLIPS_OF_Z, flips_of_z_in, leaves_flips_of_z_open
from crista.plan.topology import input_multiple, network_stride
from crista.training.cpu_layers import quicken
from crista.training.distributed import Processes, least_of_processes
from crista.training.loop import training_key
from crista.training.memory import reused_memory
from crista.training.precision import Precision
from crista.training.state import State, TrainingJob, preparation
from crista.training.step import Steps

SHARE_OF_FREE = 0.7
"""Of the memory that is free, a training may take so much."""
WORKSPACE = 1.5
"""What gradients of activations and scratch memory add to the activations that are kept: measured 1.2 to 1.4 on U-Nets."""
MOST_STEPS = 8
SHARE_OF_TIME = 0.03
"""Of the time budget, for the steps that are measured."""
TOO_LONG = 2.0
"""Times that a step may take, for `FEWEST_STEPS` in the time budget, beyond which it is foreseen from a part of its batch: parts
take longer than their share, and all that is timed, in three networks, takes about a tenth of the budget at most."""
SMALL_PATCH = 2**12
"""Voxels of the smallest part of a batch that is timed, about."""
MEASURED = ("effort", "TRAIN.BATCH_SIZE", "steps per epoch", FLIPS_OF_Z, GROWTH)
"""Decisions that were made by what was measured."""
AS_BEFORE = "as in what was done of this training before"


def choose_plan(
    config: Config, fingerprint: Fingerprint, device: torch.device, seconds: float | None, previous: Plan | None
) -> Generator[Event, None, Plan]:
    """The plan with the most effort of which enough steps fit into `seconds`; without a time, the full one.

    Steps on noise are timed on this device. The `previous` run of the same training is followed without timing.
    """
    tried = [("", make_plan(config, fingerprint))] if seconds is None else plans_by_effort(config, fingerprint)
    for name, plan in tried if previous is not None else ():
        if (adopted := adopt(plan, previous)) is not None:  # type: ignore[arg-type]
            yield from _notice_of_lighter(name, adopted, tried[0][1], previous)  # type: ignore[arg-type]
            return adopted
    if seconds is None:
        return tried[0][1]
    for name, plan in tried:
        taken = _time_noise(plan, device, seconds)
        steps, wanted = int(max(0.0, seconds) / taken), wanted_steps(plan, fingerprint)
        if steps >= wanted or plan is tried[-1][1]:
            break
        lack = f"would make {steps} steps in the time that is left, {wanted} are wanted" if taken < inf else _no_room(plan)
        yield Said(f"the {name} network {lack}: network and patches are made smaller")
    reason = f"about {steps} steps in the time that is left, {wanted} are wanted" if taken < inf else _no_room(plan)
    if steps < wanted:
        reason += "; there is no lighter one with what is given"
    elif plan is not tried[-1][1]:
        reason += "; with fewer, network and patches are made smaller"
    if leaves_growth_open(plan):
        grows, why = growth_in(steps, plan.first_patch or ())
        plan = _with(plan, {} if grows else {"first_patch": None}, Decision(key=GROWTH, value=str(grows), reason=why))
    plan = _with(plan, {}, Decision(key="effort", value=name, reason=reason))
    if not leaves_flips_of_z_open(config, fingerprint, plan.model):
        return plan
    flips, why = flips_of_z_in(int(min(steps, steps_of_epochs(plan, fingerprint))))
    return _with(plan, {"flips_z": flips}, Decision(key=FLIPS_OF_Z, value=str(flips), reason=why))


def _no_room(plan: Plan) -> str:
    return f"does not fit into the memory of the GPU, with {plan.batch_size} patches in a step"


def _notice_of_lighter(name: str, plan: Plan, full: Plan, previous: Plan) -> Iterator[Event]:
    """That a training that is given more time goes on with the lighter network that a shorter one took, and what to do."""
    if name == FULL.name or plan.minutes is None or previous.minutes is None or plan.minutes <= previous.minutes:
        return
    yield Warned(
        f"this training was begun with TRAIN.MAX_MINUTES {previous.minutes:g}, too little for the full network, and goes on with "
        f"the {name} one ({changes_of(full, plan)}). {plan.minutes:g} may be enough for the full one: the same command with "
        "another --run_id or --name trains anew with what fits, and leaves this network as it is"
    )


def _time_noise(plan: Plan, device: torch.device, seconds: float) -> float:
    """Seconds of a step on noise; infinite where the memory of a GPU does not bear it.

    Parts of the batch are timed from the smallest on, until a step of the whole is seen to be cheap enough to be timed itself, or
    already the next part takes too much of the `seconds` of the training: then the whole is foreseen by the part before.
    """
    untrained, taken, voxels = _Untrained.of(plan, device), 0.0, 1
    most, timed = TOO_LONG * max(0.0, seconds) / FEWEST_STEPS, plan
    try:
        for part in _parts_of_a_batch(plan):
            if taken / voxels * _voxels_of_a_batch(part) > most:
                taken = min(taken, untrained.step_seconds(timed))  # the first one of a size takes longer
                if taken / voxels * _voxels_of_a_batch(part) > most:
                    break
            if part is plan or not 0 < taken / voxels * _voxels_of_a_batch(plan) < most:
                taken, voxels, timed = untrained.step_seconds(part), _voxels_of_a_batch(part), part
        else:
            taken = untrained.step_seconds(plan)
    except RuntimeError as error:
        if not _is_of_memory(error):
            raise
        torch.cuda.empty_cache()
        return float("inf")
    return max(taken / voxels * _voxels_of_a_batch(plan), 1e-6)


@dataclass(frozen=True)
class _Untrained:
    """The network of a plan, to see how long its steps take."""

    model: nn.Module
    loss: nn.Module
    precision: Precision
    device: torch.device

    @classmethod
    def of(cls, plan: Plan, device: torch.device) -> _Untrained:
        model = build_model(plan.model, num_channels=plan.num_channels, num_logits=plan.classes.num_logits, ndim=plan.ndim)
        model = to_layout(model, device, plan.ndim).train()
        model = quicken(model) if device.type == "cpu" else model
        loss = build_loss(plan.loss, classes=plan.classes, class_weights=plan.class_weights).to(device)
        return cls(model, loss, Precision(plan.amp, device), device)

    def step_seconds(self, plan: Plan) -> float:
        """Seconds of a step with a batch of `plan`."""
        batch = _noise(plan, plan.batch_size, self.device)
        started = time.perf_counter()
        with self.precision.autocast():
            logits = self.model(batch.images)
        value = self.loss(logits.float(), batch.targets)
        torch.autograd.backward(value)
        value.item()
        return time.perf_counter() - started


def _parts_of_a_batch(plan: Plan) -> list[Plan]:
    """A small part of the batch, one about twice as large, and so on up to `plan`."""
    parts = [plan]
    while (half := _half(parts[-1])) is not None:
        parts.append(half)
    return parts[::-1]


def _half(plan: Plan) -> Plan | None:
    """The same with half the patches, or with one of half the length; None where that is too small."""
    patch, multiple = plan.patch_size, input_multiple(plan.model, plan.ndim)
    if plan.batch_size >= 4:  # of a single volume PyTorch computes small layers by another, slower way on a processor
        smaller = plan.model_copy(update={"batch_size": plan.batch_size // 2})
    elif prod(patch) > SMALL_PATCH:
        longest = max(range(plan.ndim), key=lambda axis: patch[axis] // multiple[axis])
        half = round_up(patch[longest] // 2, multiple[longest])
        smaller = plan.model_copy(update={"patch_size": (*patch[:longest], half, *patch[longest + 1 :])})
    else:
        return None
    # The last level of one patch may be one voxel, which has no variance to normalise by.
    has_variance = smaller.batch_size > 1 or any(side > m for side, m in zip(smaller.patch_size, multiple, strict=True))
    return smaller if has_variance else None


def _fewest_patches(plan: Plan) -> int:
    """Patches that a step has at least: two where batch normalisation sees one voxel of each at the last level."""
    of_batch = plan.model.normalization in ("bn", "sync_bn")
    return 2 if of_batch and plan.patch_size == network_stride(plan.model, plan.ndim) else 1


def _voxels_of_a_batch(plan: Plan) -> int:
    return plan.batch_size * prod(plan.patch_size)


def adopt(plan: Plan, previous: Plan) -> Plan | None:
    """`plan` with the measured numbers of the `previous` run and their reasons, if that was of the same training; else None."""
    measured = ("batch_size", "steps_per_epoch", "validation_patches", "first_epochs", "first_steps")
    given = plan.config.train.batch_size is not None
    update: dict[str, Any] = {name: getattr(previous, name) for name in measured if not (given and name == "batch_size")}
    if plan.minutes is not None:
        update |= {"epochs": previous.epochs, "schedule": previous.schedule, "flips_z": previous.flips_z}
    if leaves_growth_open(plan):
        update["first_patch"] = previous.first_patch
    adopted = plan.model_copy(update=update)
    return _with_decisions_of(adopted, previous) if training_key(adopted) == training_key(previous) else None


def _with_decisions_of(plan: Plan, previous: Plan) -> Plan:
    """`plan` with those decisions of the `previous` run that its own measurements made."""
    own = {item.key: item.value for item in plan.decisions}
    for item in previous.decisions:
        if item.key in MEASURED and own.get(item.key) != item.value:
            reason = item.reason if item.reason.startswith(AS_BEFORE) else f"{AS_BEFORE}: {item.reason}"
            plan = _with(plan, {}, item.model_copy(update={"reason": reason}))
    return plan


def fit_to_memory(job: TrainingJob) -> Generator[Event, None, Plan]:
    """The plan with a batch that the memory at hand bears, seen from a real forward and backward pass.

    Raises
    ------
    PlanError
        If not even the smallest batch fits.
    """
    plan, wanted = job.plan, job.plan.batch_size
    fitting = _fitting_patches(job)
    if fitting >= wanted:
        return plan
    if plan.config.train.batch_size is not None and fitting >= _fewest_patches(plan):
        yield Warned(f"TRAIN.BATCH_SIZE {wanted} may not fit into the memory; {fitting} would")
        return plan
    if fitting < _fewest_patches(plan):
        size = " × ".join(map(str, plan.patch_size))
        what = f"a single patch of {size} does not fit" if fitting < 1 else f"two patches of {size}, the fewest, do not fit"
        problem = Problem("DATA.PATCH_SIZE", f"{what} into the memory that is free", "use a smaller patch")
        raise PlanError("with the memory of this machine", [problem])
    reason = f"{wanted} were planned; a real step showed that more than {fitting} do not fit into the free memory"
    smaller = plan.model_copy(update={"batch_size": fitting})
    if plan.minutes is None:  # else the steps of an epoch are said when they have been timed
        reason += f"; of these an epoch has {plural(replace(job, plan=smaller).steps_of_a_pass, 'step')}"
    yield Said(f"TRAIN.BATCH_SIZE = {fitting}: {reason}")
    return _with(smaller, {}, Decision(key="TRAIN.BATCH_SIZE", value=str(fitting), reason=reason))


def warn_of_memory(job: TrainingJob) -> Generator[Event, None, None]:
    """A warning where the memory may not bear the batch of a training that goes on: with another one it would begin anew."""
    size, fitting = job.plan.batch_size, _fitting_patches(job)
    if fitting < size:
        given = job.plan.config.train.batch_size is not None
        anew = f"the same command with {'a smaller one and ' if given else ''}another --run_id or --name trains anew"
        yield Warned(
            f"this training goes on as it was begun, with TRAIN.BATCH_SIZE {size}, and the memory that is free here may bear "
            f"{max(0, fitting)}. If it ends for want of memory, close other programs, or go on where it was begun; {anew}"
            f"{'' if given else ' with a batch that fits'}"
        )


def _fitting_patches(job: TrainingJob) -> int:
    """Patches of a step that fit into the memory at hand, of several processes that of the one with the least."""
    alone = replace(job, processes=Processes())  # peers would wait for a step that does not fit here
    fitting = _fit_cuda(alone) if job.device.type == "cuda" else _fit_processor(alone)
    return least_of_processes(fitting, job.processes, job.device)


def fit_to_time(job: TrainingJob) -> Generator[Event, None, Plan]:
    """The plan with epochs and steps that fill the time budget, seen from real steps on real patches."""
    plan = job.plan
    if job.budget_seconds is None:
        return plan
    with reused_memory(job.device):
        step, forward = _time_steps(job)
        first = _time_steps(replace(job, train=job.first))[0] if job.first is not None else step
    patches, given = len(job.validation), plan.config.train.epochs
    validation = forward / plan.batch_size
    if given is not None:
        needed = given * (job.steps_of_a_pass * step + patches * validation)
        if needed <= job.budget_seconds:
            yield Said(f"TRAIN.EPOCHS = {given}: they take about {needed / 60:.1f} minutes and end before the time does")
            for key, (waits, why) in idle_patience(plan.patience, plan.schedule, given).items():
                yield Said(f"{key} = {waits}: {why}")
            return plan
        yield Said(
            f"TRAIN.EPOCHS = {given}: they would take about {needed / 60:.1f} minutes, and the time ends before; "
            "epochs are parts of the time now"
        )
    epochs, steps, validated = divide_time(job.budget_seconds, step, validation, patches)
    first_epochs = count_first_epochs(epochs) if job.first is not None else 0
    first_steps = max(1, int(steps * step / first))
    total = first_epochs * first_steps + (epochs - first_epochs) * steps
    fill = "fill" if epochs * steps * step <= job.budget_seconds else "are the least that can be made, and take more than"
    reason = (
        f"a step takes {step:.2f} s here, measured on real patches; {total} of them in {plural(epochs, 'epoch')} {fill} the "
        f"{job.budget_seconds / 60:.1f} minutes that are left, with {validated} of {patches} validation patches after each"
    )
    if first_epochs:
        reason += f"; the first {first_epochs * first_steps} are of small patches and take {first:.2f} s each"
    yield Said(f"steps per epoch = {steps}: {reason}")
    yield from _patience_notice(plan, epochs)
    update = {
        "epochs": epochs,
        "steps_per_epoch": steps,
        "first_epochs": first_epochs,
        "first_steps": first_steps if first_epochs else None,
        "validation_patches": validated if validated < patches else None,
        "schedule": _same_share(plan.schedule, plan.epochs, epochs),
    }
    return _with(plan, update, Decision(key="steps per epoch", value=str(steps), reason=reason))


def _patience_notice(plan: Plan, epochs: int) -> Iterator[Event]:
    """What the keys that count epochs without improvement mean where an epoch is a part of the time."""
    counted = {"TRAIN.PATIENCE": plan.patience}
    if isinstance(plan.schedule, ReduceOnPlateau):
        counted["TRAIN.LR_SCHEDULER.REDUCEONPLATEAU_PATIENCE"] = plan.schedule.patience
    without_effect = idle_patience(plan.patience, plan.schedule, epochs)
    for key, patience in counted.items():
        if patience is not None:
            idle = ", so that it has no effect" if key in without_effect else ""
            yield Said(f"{key} = {patience} counts these epochs, about {epochs} in all, not passes over the samples{idle}")


def _same_share(schedule: ScheduleShape, planned: int, epochs: int) -> ScheduleShape:
    """`schedule` with the warm-up that has the share of `epochs` which it had of those that were `planned`."""
    if not isinstance(schedule, WarmupCosine) or not schedule.warmup_epochs:
        return schedule
    warmup = min(epochs, max(1, round(schedule.warmup_epochs * epochs / planned)))
    return schedule.model_copy(update={"warmup_epochs": warmup})


def _with(plan: Plan, update: dict[str, Any], decision: Decision) -> Plan:
    kept = tuple(item for item in plan.decisions if item.key != decision.key)
    return plan.model_copy(update={**update, "decisions": (*kept, decision)})


def _fit_processor(job: TrainingJob) -> int:
    """Patches of a batch whose activations fit into the memory that is free once the images are in it."""
    few = _fewest_patches(job.plan)
    one, two = (_activation_bytes(job, size) for size in (few, few + 1))
    per_patch = max(1, two - one)
    state = State(job)
    weights = 4 * sum(p.numel() * p.element_size() for p in state.model.parameters())
    sources = (*job.train.sources, *job.validation.sources)
    images = max(samples.cache.bytes_to_come(sources) for samples in (job.train, job.validation))  # mostly they share one
    return int((SHARE_OF_FREE * (free_bytes() - images) - weights) / (WORKSPACE * per_patch))


def _activation_bytes(job: TrainingJob, size: int) -> int:
    """Bytes that a forward pass of `size` patches keeps for the backward pass; with a real backward pass after it."""
    state, kept = State(job), dict[int, int]()
    batch = _noise(job.plan, size, job.device)

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    state.model.train()
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        with state.precision.autocast():
            logits = state.model(batch.images)
        loss = state.loss(logits.float(), batch.targets)
    torch.autograd.backward(loss)
    return sum(kept.values())


def _fit_cuda(job: TrainingJob) -> int:
    """The largest halving of the batch with which a real step fits into the GPU."""
    size = job.plan.batch_size
    torch.cuda.empty_cache()
    with _own_memory_of_gpu(job.device):
        while size >= _fewest_patches(job.plan):
            fits = _bears_steps(job, size)
            torch.cuda.empty_cache()
            if fits:
                return size
            size //= 2
    return 0


@contextmanager
def _own_memory_of_gpu(device: torch.device) -> Iterator[None]:
    """While it lasts more than what is free on the GPU is refused: on Windows its driver would take memory of the machine, which
    never runs out and makes a step many times slower."""
    index = device.index if device.index is not None else torch.cuda.current_device()
    free, total = torch.cuda.mem_get_info(index)
    torch.cuda.set_per_process_memory_fraction(min(1.0, (free + torch.cuda.memory_reserved(index)) / total), index)
    try:
        yield
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0, index)


def _bears_steps(job: TrainingJob, size: int) -> bool:
    """Whether a GPU bears steps with so many patches, beside all that a training holds while it makes them."""
    try:
        state = State(job)
        state.model.train()
        _take(job, state, [_noise(job.plan, size, job.device)])
        held = deepcopy((state.model.state_dict(), state.optimizer.state_dict()))  # as by the guards, to go back to
        _take(job, state, [_noise(job.plan, size, job.device)])  # the first one is made before the optimizer has a state
        del held
    except RuntimeError as error:
        if not _is_of_memory(error):
            raise
        return False
    return True


def _is_of_memory(error: RuntimeError) -> bool:
    """Whether a GPU has no memory left; what PyTorch does not allocate itself (cuDNN, kernels) says so in other words."""
    return isinstance(error, torch.OutOfMemoryError) or any(words in str(error) for words in ("out of memory", "ALLOC_FAILED"))


def _noise(plan: Plan, size: int, device: torch.device) -> Batch:
    """A batch of random pixels and classes."""
    images = torch.randn(size, *plan.patch_size, plan.num_channels, device=device).movedim(-1, 1)
    images = images.contiguous(memory_format=memory_layout(plan.ndim, device))
    targets = torch.randint(0, plan.classes.num_classes, (size, *plan.patch_size), dtype=torch.uint8, device=device)
    return Batch(images, targets, ("noise",) * size)


def _take(job: TrainingJob, state: State, batches: Sequence[Batch]) -> None:
    Steps(job, state).take(batches, job.plan.optimizer.lr / 25)
    if job.device.type == "cuda":
        torch.cuda.synchronize(job.device)


def _time_steps(job: TrainingJob) -> tuple[float, float]:
    """Seconds of a step, the patches of which are cut beside it, and of a forward pass of a batch in validation."""
    plan = job.plan
    assert job.budget_seconds is not None
    state = State(replace(job, start=None))
    state.model.train()
    accumulated = plan.config.train.accum_iter
    alone = job.processes.world_size == 1  # several processes take the same number of steps
    limit = SHARE_OF_TIME * job.budget_seconds if alone else float("inf")
    order = shuffled_order(max(len(job.train), plan.batch_size * (MOST_STEPS + 1)), epoch=0, seed=plan.config.system.seed)
    groups = full_batches(order, plan.batch_size)[: MOST_STEPS + 1]
    batches = iter_batches(job.train, groups, epoch=0, num_threads=job.num_threads, prepare=preparation(job))
    times: list[float] = []
    begun = started = time.perf_counter()
    for batch in batches:
        _take(job, state, [batch])
        now = time.perf_counter()
        times.append(now - started)
        started = now
        if len(times) >= 2 and now - begun > limit:
            break
    state.model.eval()
    with torch.inference_mode():
        images = to_device(batch.images, job.device)
        started = time.perf_counter()
        state.model(images).sum().item()
    return accumulated * median(times[1:] or times), time.perf_counter() - started
