"""The Python interface: the same verbs as the command line, with the same effect."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Required, TypedDict, TypeVar, Unpack

from crista.config.automatic import Quality
from crista.config.load import LoadedConfig
from crista.config.root import Config
from crista.images.check import DatasetReport
from crista.images.fingerprint import Fingerprint
from crista.plan.alternatives import tell_what_is_open
from crista.plan.events import Event, Measured, Said
from crista.plan.fine_tuning import plan_fine_tuning
from crista.plan.make import make_plan
from crista.plan.plan import Plan
from crista.plan.preparation import with_reasons
from crista.results.run_folder import RunFolder
from crista.workflow.check import check as check_events
from crista.workflow.fix import FixReport
from crista.workflow.fix import fix as fix_events
from crista.workflow.request import (
    ConfigLike,
    Request,
    as_path,
    load_any,
    request_automatic,
    request_prediction,
    request_run,
    request_training,
    start_changes,
)
from crista.workflow.settings import as_they_come

if TYPE_CHECKING:
    from crista.workflow.evaluate import Evaluation

OF_OWN_CHECKPOINT = (
    "MODEL.LOAD_CHECKPOINT is True and PATHS.CHECKPOINT_FILE is empty: the training starts from the checkpoint of its own run, "
    "and takes its network and patch; this plan does not know that run, and is of a training from scratch"
)
"""What a plan cannot know."""

OnEvent = Callable[[Event], object]
Result = TypeVar("Result")


@dataclass(frozen=True)
class Outcome:
    """What a run left behind."""

    folder: RunFolder
    """Every path of its results."""
    metrics: dict[str, float] = field(default_factory=dict)
    """Figures over the test set, empty without labels."""


def silent(event: Event) -> None:
    """Listen to nothing."""
    del event


def listen(events: Generator[Event, None, Result], on_event: OnEvent) -> Result:
    """Run a generator of events to its end; returns what it returns."""
    with closing(events):
        while True:
            with as_they_come():
                try:
                    event = next(events)
                except StopIteration as stop:
                    result: Result = stop.value
                    return result
            on_event(event)


class Where(TypedDict, total=False):
    """Where the results go, ``<result_dir>/<name>/…/<name>_<run_id>``, and changes of single keys."""

    result_dir: Required[Path | str]
    name: str | None
    """None: that of the configuration, of the images, or of the network."""
    run_id: int
    """From 1, the default; runs of a job stand beside each other."""
    overrides: Sequence[str]
    """``TRAIN.EPOCHS=20``."""


def run(
    config: ConfigLike,
    *,
    on_event: OnEvent = silent,
    **where: Unpack[Where],
) -> Outcome:
    """Train, predict and measure as the configuration says.

    Parameters
    ----------
    config : a YAML file, a tree of keys, or a Config
    on_event : called with every event
    where : `result_dir`, and `name`, `run_id`, `overrides` (`Where`)
    """
    return finish(request_run(config, **where), on_event)


def train(
    config: ConfigLike,
    *,
    on_event: OnEvent = silent,
    **where: Unpack[Where],
) -> Outcome:
    """Only train; arguments as `run`."""
    return finish(request_training(config, **where), on_event)


def train_on(
    images: Path | str,
    labels: Path | str,
    *,
    minutes: float | None = None,
    quality: Quality = "standard",
    start_from: Path | str | None = None,
    on_event: OnEvent = silent,
    **where: Unpack[Where],
) -> Outcome:
    """Train on a folder of images and one of label images, with nothing to decide.

    Parameters
    ----------
    minutes : until the network is trained, reading and planning included; the measurement of the validation images and the
        report come after it. None: as `quality` says
    quality : fast 5, standard 20, best 120 minutes
    start_from : a checkpoint, or the results folder of a job, whose network is trained further; its classes and channels may be
        others
    """
    if start_from is not None:
        where["overrides"] = (*start_changes(start_from), *where.get("overrides", ()))
    return finish(request_automatic(images, labels, minutes=minutes, quality=quality, **where), on_event)


def predict(
    checkpoint: Path | str,
    images: Path | str,
    *,
    labels: Path | str | None = None,
    on_event: OnEvent = silent,
    **where: Unpack[Where],
) -> Outcome:
    """Predict a folder of images (or one) with a checkpoint, and measure against `labels` where they are given.

    In place of a checkpoint the results folder of a job with one network will do.
    """
    return finish(request_prediction(checkpoint, images, labels=labels, **where), on_event)


def evaluate(
    labels: Path | str,
    predictions: Path | str,
    *,
    num_classes: int | None = None,
    ignore_index: int | Sequence[int] | None = None,
    class_names: Sequence[str] | None = None,
    on_event: OnEvent = silent,
) -> Evaluation:
    """Compare predicted label images with true ones; see `crista.workflow.evaluate.evaluate_folders`."""
    from crista.workflow.evaluate import evaluate_folders  # torch is slow to import

    counted = {"num_classes": num_classes, "ignore_index": ignore_index, "class_names": class_names}
    true, predicted = as_path("labels", labels), as_path("predictions", predictions)
    events = evaluate_folders(true, predicted, **counted)  # type: ignore[arg-type]
    return listen(events, on_event)


def check(
    data: ConfigLike,
    labels: Path | str | None = None,
    *,
    overrides: Sequence[str] = (),
    on_event: OnEvent = silent,
) -> DatasetReport:
    """Check the data of a configuration, or a folder of images with `labels`; `findings` of the report is the table."""
    return listen(check_events(_settings_of(data, labels, overrides, on_event)[0]), on_event)


def fix(
    data: ConfigLike,
    labels: Path | str | None = None,
    *,
    out: Path | str,
    overrides: Sequence[str] = (),
    on_event: OnEvent = silent,
) -> FixReport:
    """Write corrected copies of the data to the folder `out`; see `crista.workflow.fix.fix`."""
    return listen(fix_events(_settings_of(data, labels, overrides, on_event)[0], as_path("out", out)), on_event)


def _settings_of(
    data: ConfigLike, labels: Path | str | None, overrides: Sequence[str], on_event: OnEvent
) -> tuple[Config, Mapping[str, str]]:
    """The configuration, or that of a training on two folders; and why it says what it says, where crista made it."""
    if labels is None:
        loaded = load_any(data, overrides)
        _tell(_unheard(data, loaded), on_event)
        return loaded.config, {}
    if not isinstance(data, str | Path):
        raise TypeError("labels go with a folder of images; a configuration names its labels itself (DATA.TRAIN.GT_PATH)")
    request = request_automatic(data, labels, result_dir=".", overrides=overrides)
    _tell(request.notices, on_event)
    return request.config, request.reasons


def plan(
    data: ConfigLike,
    labels: Path | str | None = None,
    *,
    overrides: Sequence[str] = (),
    on_event: OnEvent = silent,
) -> Plan:
    """Every number of the training that a configuration describes, or one on a folder of images with `labels`, and its reason.

    What only the training decides, by the time and the memory that a step takes, is named among the decisions. The time that
    `train_on` takes as `minutes` is a key here: ``overrides=["TRAIN.MAX_MINUTES=10"]``.
    """
    asked, reasons = _settings_of(data, labels, overrides, on_event)
    config = load_any(asked, ("TRAIN.ENABLE=True",)).config
    report = listen(check_events(config), on_event)
    report.raise_if_problems()
    assert report.fingerprint is not None
    return with_reasons(_plan_of(config, report.fingerprint, on_event), reasons)


def _plan_of(config: Config, fingerprint: Fingerprint, on_event: OnEvent) -> Plan:
    start, path = config.model.load_checkpoint, config.paths.checkpoint_file
    if start and path:
        from crista.training.checkpoint import load_checkpoint  # torch is slow to import

        trained = load_checkpoint(as_path("PATHS.CHECKPOINT_FILE", path)).plan
        made = plan_fine_tuning(config, fingerprint, trained, where=path)
        return tell_what_is_open(made, fingerprint, from_scratch=False)
    if start:
        on_event(Said(OF_OWN_CHECKPOINT))
    return tell_what_is_open(make_plan(config, fingerprint), fingerprint)


def _unheard(config: ConfigLike, loaded: LoadedConfig) -> Sequence[str]:
    """What the loader had to say; whoever made a `Config` has heard it."""
    return () if isinstance(config, Config) else loaded.notices


def _tell(notices: Sequence[str], on_event: OnEvent) -> None:
    for notice in notices:
        on_event(Said(notice))


def demo(folder: Path | str, *, sample: str = "cells_2d", on_event: OnEvent = silent) -> Outcome:
    """Make a built-in sample data set in `folder`, train on it, predict its test images and measure them."""
    from crista.samples import write_sample
    from crista.workflow import demo as demo_job

    settings, folder = demo_job.settings_of(sample), as_path("folder", folder)
    data = folder / "data" / sample
    write_sample(sample, data, num_train=settings.num_train, num_test=settings.num_test, shape=settings.shape, seed=0)
    request = demo_job.request_demo(folder, data, sample)
    return finish(request, on_event)


def finish(request: Request, on_event: OnEvent) -> Outcome:
    """Run a request to its end."""
    from crista.workflow.run import run as run_events  # torch is slow to import

    metrics: dict[str, float] = {}

    def note(event: Event) -> None:
        if isinstance(event, Measured):
            metrics.update(event.metrics)
        on_event(event)

    listen(run_events(request), note)
    return Outcome(request.folder, metrics)
