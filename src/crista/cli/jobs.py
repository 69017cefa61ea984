"""Jobs: the commands that train and predict, with progress and a summary at the end."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from crista.cli import options
from crista.cli.note import note
from crista.cli.progress import LineListener, listener
from crista.cli.screen import Screen
from crista.plan.events import Event, StageStarted, TrainingFinished

if TYPE_CHECKING:
    from types import FrameType

    from crista.workflow.api import OnEvent, Outcome
    from crista.workflow.request import Request


class Sample(StrEnum):
    """The built-in sample data."""

    CELLS_2D = "cells_2d"
    CELLS_3D = "cells_3d"
    NUCLEI_2D = "nuclei_2d"


def run(
    job: options.ConfigArgument = None,
    config: options.ConfigOption = None,
    result_dir: options.ResultDir = None,
    name: options.Name = None,
    run_id: options.RunId = 1,
    gpu: options.Gpu = None,
    override: options.Overrides = None,
) -> None:
    """Train, predict and measure as a configuration says."""
    from crista.workflow.request import request_run

    path = options.one_config(job, config)
    start(partial(request_run, path, name=name, run_id=run_id), result_dir, gpu, override)


def train(
    job: Annotated[
        Path | None, typer.Argument(metavar="YAML|IMAGES", help="The configuration; or the folder of the training images.")
    ] = None,
    labels: Annotated[Path | None, typer.Argument(metavar="LABELS", help="With IMAGES: the folder of their labels.")] = None,
    config: options.ConfigOption = None,
    result_dir: options.ResultDir = None,
    name: options.Name = None,
    run_id: options.RunId = 1,
    gpu: options.Gpu = None,
    override: options.Overrides = None,
) -> None:
    """Train: on two folders, with nothing to decide; or as a configuration says (its test images are left alone)."""
    from crista.workflow.request import request_automatic, request_training

    if job is not None and not options.is_yaml(job):
        images, truth = options.two_folders(job, labels, config)
        with options.telling_how_to_set():
            start(partial(request_automatic, images, truth, name=name, run_id=run_id), result_dir, gpu, override)
        return
    options.refuse_labels(labels)
    path = options.one_config(job, config)
    start(partial(request_training, path, name=name, run_id=run_id), result_dir, gpu, override)


def predict(
    checkpoint: Annotated[Path, typer.Argument(metavar="MODEL", help=f"A trained network: {options.MODEL}.")],
    images: Annotated[Path, typer.Argument(metavar="IMAGES", help="A folder of images, or one image.")],
    labels: Annotated[Path | None, typer.Option(metavar="DIR", help="Their label images, to measure against.")] = None,
    result_dir: options.ResultDir = None,
    name: Annotated[str | None, typer.Option(help="Name of the job. Default: as the network, e.g. cells_1_prediction.")] = None,
    run_id: options.RunId = 1,
    gpu: options.Gpu = None,
    override: options.Overrides = None,
) -> None:
    """Predict images with a trained network."""
    from crista.workflow.request import find_checkpoint, request_prediction

    checkpoint = find_checkpoint(checkpoint)
    make_request = partial(request_prediction, checkpoint, images, labels=labels, name=name, run_id=run_id)
    with options.telling_how_to_set():
        start(make_request, result_dir, gpu, override)


def start(make_request: Callable[..., Request], result_dir: Path | None, gpu: str | None, override: Sequence[str] | None) -> None:
    """Make the request, with the results folder and the GPUs that the flags name, and carry it out."""
    screen = job_screen()
    overrides = options.select_gpus(gpu, override)
    request = make_request(result_dir=result_dir or options.DEFAULT_RESULTS, overrides=overrides)
    options.make_results_folder(result_dir, screen)
    options.require_gpus(gpu, screen)
    carry_out(request, screen)


def demo(
    folder: Annotated[Path, typer.Option(metavar="DIR", help="Where sample data and results go.")] = Path("crista_demo"),
    sample: Annotated[Sample, typer.Option(help="Which sample data.")] = Sample.CELLS_2D,
) -> None:
    """Train and predict on built-in sample data, in about two minutes."""
    screen = job_screen()
    screen.heading(f"Sample data {sample.value} -> {folder / 'data' / sample.value}")

    def go(on_event: OnEvent) -> Outcome:
        from crista.workflow import api

        return api.demo(folder, sample=sample.value, on_event=on_event)

    follow(go, screen)


def carry_out(request: Request, screen: Screen) -> None:
    """Run a request with progress on the screen."""
    interrupt = TrainingInterrupt(request, screen)

    def go(on_event: OnEvent) -> Outcome:
        from crista.workflow.api import finish

        def hear(event: Event) -> None:
            interrupt.follow(event)
            on_event(event)

        return finish(request, hear)

    log = request.folder.log_txt
    with note(lambda: f"The log of this run: {log}" if log.is_file() else ""), interrupt.released():
        follow(go, screen)


class TrainingInterrupt:
    """While a network is trained, the first Ctrl-C ends the training in order; else, and the second time, the program."""

    def __init__(self, request: Request, screen: Screen) -> None:
        self._request = request
        self._screen = screen
        self._before = signal.getsignal(signal.SIGINT)

    def follow(self, event: Event) -> None:
        """Take Ctrl-C over when the training begins, and give it back when it is over."""
        if threading.current_thread() is not threading.main_thread():
            return
        if isinstance(event, StageStarted) and event.stage == "train":
            signal.signal(signal.SIGINT, self._stop)
        elif isinstance(event, TrainingFinished):
            self._give_back()

    @contextmanager
    def released(self) -> Iterator[None]:
        """Ctrl-C is what it was when this is over, however the training ended."""
        try:
            yield
        finally:
            self._give_back()

    def _give_back(self) -> None:
        if signal.getsignal(signal.SIGINT) == self._stop:
            signal.signal(signal.SIGINT, self._before)

    def _stop(self, number: int, frame: FrameType | None) -> None:
        del number, frame
        self._give_back()
        self._request.stop.set()
        self._screen.line("\nCtrl-C: the training ends now, what follows it is done. Once more to stop everything", "yellow")


def follow(go: Callable[[OnEvent], Outcome], screen: Screen) -> None:
    """Show the events of `go` and what it left behind; Ctrl-C ends it in order."""
    if screen.silent:
        go(lambda _: None)
        return
    try:
        with listener(screen) as show:
            outcome = go(show)
    except KeyboardInterrupt as error:
        screen.line(
            "\nstopped. What is finished is kept: the same command goes on after the last finished epoch, or the last "
            "finished image",
            "yellow",
        )
        raise typer.Exit(130) from error
    show_outcome(outcome, show, screen)


def show_outcome(outcome: Outcome, show: LineListener, screen: Screen) -> None:
    """The figures, and where everything is."""
    if outcome.metrics:
        screen.line("")
        from crista.metrics import show_score

        screen.table(("Measured", "Value"), [(key, show_score(value)) for key, value in outcome.metrics.items()])
    screen.line("")
    screen.table(("Written", "Path"), [(what, str(path)) for what, path in _iter_results(outcome, show)])


def _iter_results(outcome: Outcome, show: LineListener) -> Iterator[tuple[str, Path]]:
    """What was made, the most wanted first; nothing twice, and no file of a folder that is named.

    Of a prediction that is what this run wrote: what an earlier one with label images, or of all shards, left is not of it.
    """
    folder = outcome.folder
    written = {event.what: event.path for event in show.files}
    predicted = [(what, written[what]) for what in ("report", "label images", "metrics of each image") if what in written]
    known = [
        ("train", "checkpoint", folder.checkpoint_best),
        ("check", "charts", folder.charts),
        ("check", "log", folder.log_txt),
    ]
    found = [*predicted, *((what, path) for stage, what, path in known if stage in show.stages)]
    seen: set[Path] = set()
    for what, path in [*found, *((event.what, event.path) for event in show.files)]:
        if path.exists() and seen.isdisjoint((path, *path.parents)):
            yield what, path
            seen.add(path)


def job_screen() -> Screen:
    """The screen of this process; silent beside the first of several that torchrun started."""
    return Screen(silent=os.environ.get("RANK", "0") != "0")
