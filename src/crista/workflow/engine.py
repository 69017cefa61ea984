"""Engine: what runs the trained network in a prediction, chosen on a real tile; and the 8-bit model that it may be."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Generator, Mapping
from math import prod
from pathlib import Path

import torch

from crista.augmentations import build_pipeline
from crista.config.engine import Torch, engine_named
from crista.errors import EngineError
from crista.images.image import ImagePair
from crista.inference.engine import Engine, build_engine
from crista.inference.engines import ENGINES, EngineSource, Int8Record, choose_engine, int8_model_path, quantize_engine
from crista.inference.engines.fallback import ReplaceableEngine
from crista.inference.engines.int8 import known_record
from crista.inference.engines.trial import build_or_say
from crista.inference.orientations import OrientedEngine, beyond, orientations, trained_orientations
from crista.inference.predictor import Predictor
from crista.inference.statistics import StatisticsCache
from crista.inference.tuning import SAMPLE_VOXELS, take_sample
from crista.patches.prepare import PreparedSamples
from crista.plan.events import Event, Said, Warned
from crista.plan.plan import Decision, Plan
from crista.training.checkpoint import Checkpoint


def choose_predictor(
    plan: Plan, trained: Checkpoint, device: torch.device, pairs: Mapping[str, ImagePair], *, state: Path, checkpoint: Path
) -> Generator[Event, None, Predictor]:
    """The predictor with the engine that TEST.ENGINE asks for; which one and why is a decision of its plan.

    Parameters
    ----------
    pairs : what will be predicted, by the names of the results
    state : folder of what is remembered of this run
    checkpoint : file of `trained`; an 8-bit model lies beside it
    """
    plan = yield from _decide_orientations(plan, trained.plan)
    pytorch = Predictor(plan, build_engine(plan, trained.weights, device))
    name, largest = max(((name, pair.image) for name, pair in pairs.items()), key=lambda item: prod(item[1].spatial_shape))
    statistics = StatisticsCache(state, plan).of(name, largest)
    choice = choose_engine(
        plan,
        trained.weights,
        device,
        sample=take_sample(pytorch, largest, statistics, SAMPLE_VOXELS[plan.ndim]),
        num_voxels=max(1, len(plan.inference.orientations)) * sum(prod(pair.image.spatial_shape) for pair in pairs.values()),
        cache=state / "engines",
        checkpoint=checkpoint,
    )
    for notice in choice.notices:
        yield Warned(notice)
    yield Said(f"TEST.ENGINE = {choice.name}: {choice.reason}")
    decision = Decision(key="TEST.ENGINE", value=choice.name, reason=choice.reason)
    inference = plan.inference.model_copy(update={"engine": choice.name})
    chosen = plan.model_copy(update={"inference": inference, "decisions": (*plan.decisions, decision)})
    source = EngineSource(plan, trained.weights, device, state / "engines", torch.get_num_threads())
    notices = deque[str]()
    return Predictor(chosen, _oriented(ReplaceableEngine(choice.engine, source, notices.append), plan), notices=notices)


def build_chosen_engine(
    plan: Plan, weights: Mapping[str, torch.Tensor], device: torch.device, *, state: Path, checkpoint: Path
) -> Engine:
    """The engine that `plan` has settled on, in another process; PyTorch, said in its log, where it cannot be had there."""
    source = EngineSource(plan, weights, device, state / "engines", torch.get_num_threads(), int8_model_path(checkpoint))
    config = engine_named(plan.inference.engine) if device.type == "cpu" else Torch()
    log = logging.getLogger("crista")
    engine, wrong = build_or_say(config, source)
    if engine is None:
        log.warning("%s cannot be used here, PyTorch is: %s", config.title, wrong)
        engine = ENGINES.build(Torch(), source=source)
    return _oriented(ReplaceableEngine(engine, source, log.warning), plan)


def known_int8_model(plan: Plan, trained: Checkpoint, *, state: Path, checkpoint: Path) -> Int8Record | None:
    """What was decided about an 8-bit model of the network before; the training images are not needed any more then."""
    return known_record(_int8_source(plan, trained, state, checkpoint))


def _int8_source(plan: Plan, trained: Checkpoint, state: Path, checkpoint: Path) -> EngineSource:
    folder, model = state / "engines", int8_model_path(checkpoint)
    return EngineSource(plan, trained.weights, torch.device("cpu"), folder, torch.get_num_threads(), model)


def make_int8_model(
    plan: Plan, trained: Checkpoint, samples: PreparedSamples, *, state: Path, checkpoint: Path
) -> Generator[Event, None, None]:
    """For TEST.ENGINE: fastest an 8-bit model beside the checkpoint, if the validation images do not suffer."""
    source = _int8_source(plan, trained, state, checkpoint)
    yield Said("making an 8-bit model for TEST.ENGINE: fastest")
    try:
        record = quantize_engine(source, samples.train, samples.validation)
    except EngineError as error:
        yield Warned(str(error))
        return
    yield Said(record.summary)


def _decide_orientations(plan: Plan, training: Plan) -> Generator[Event, None, Plan]:
    """With TEST.AUGMENTATION the orientations that are averaged over: those of the training, which gave the network its plan."""
    test = plan.config.test
    if not test.augmentation:
        return plan
    asked = orientations(plan.ndim, test.augmentation_group)
    pipeline = build_pipeline(training.augmentations, ndim=training.ndim, ignore_index=training.classes.ignore_index)
    trained = trained_orientations(pipeline.augments, training.patch_size)
    chosen, reason = asked, f"TEST.AUGMENTATION_GROUP: {test.augmentation_group}"
    if test.augmentation_group == "auto" and len(trained) > 1:
        chosen, reason = trained, f"those that follow from the flips and turns of the training, of {len(asked)}"
    elif unknown := beyond(asked, trained, plan.ndim):
        yield Warned(
            f"TEST.AUGMENTATION averages over {len(asked)} orientations, {len(unknown)} of which the training did not show to "
            "the network: where the orientation tells the classes apart, that is worse than no averaging. Measure both"
            + (", or keep to what it knows with TEST.AUGMENTATION_GROUP: auto" if len(trained) > 1 else "")
        )
    decision = Decision(key="TEST.AUGMENTATION", value=f"{len(chosen)} orientations", reason=reason)
    inference = plan.inference.model_copy(update={"orientations": tuple(chosen)})
    yield Said(f"TEST.AUGMENTATION = {decision.value}: {reason}")
    return plan.model_copy(update={"inference": inference, "decisions": (*plan.decisions, decision)})


def _oriented(engine: Engine, plan: Plan) -> Engine:
    """The engine over the orientations of `plan`."""
    chosen = plan.inference.orientations
    return OrientedEngine(engine, orientations=chosen, mode=plan.config.test.augmentation_mode) if chosen else engine
