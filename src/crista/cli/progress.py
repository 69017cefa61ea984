"""Progress: listeners that show the events of a run, as bars on a terminal and as lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import singledispatchmethod
from typing import TYPE_CHECKING, Any

from crista.cli.screen import Screen
from crista.images.wording import plural
from crista.plan.events import (
    EpochFinished,
    Event,
    FileWritten,
    ImageFinished,
    Said,
    StageStarted,
    StepFinished,
    TileFinished,
    TrainingFinished,
    TrainingStarted,
    Warned,
)

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

TITLES = {"check": "Checking the data", "plan": "Plan", "train": "Training", "predict": "Predicting", "evaluate": "Evaluating"}
QUIET_SECONDS = 60.0
"""Without a terminal a long epoch or image gives a sign of life this often."""


class LineListener:
    """Writes one line for each event that people want to read, and keeps which stages and files there were."""

    def __init__(self, screen: Screen) -> None:
        self.screen = screen
        self.files: list[FileWritten] = []
        self.stages: set[str] = set()
        self._spoken = time.monotonic()

    def __call__(self, event: Event) -> None:
        """Show an event."""
        self.show(event)

    @singledispatchmethod
    def show(self, event: Event) -> None:
        """Events without a line of their own."""

    @show.register
    def _(self, event: Said) -> None:
        self.screen.notice(event.text)

    @show.register
    def _(self, event: Warned) -> None:
        self.screen.warn(event.text)

    @show.register
    def _(self, event: StageStarted) -> None:
        self._spoken = time.monotonic()
        self.stages.add(event.stage)
        self.stage_started(event.stage, event.total)

    @show.register
    def _(self, event: TrainingStarted) -> None:
        self.training_started(len(event.history), event.num_epochs)

    @show.register
    def _(self, event: StepFinished) -> None:
        self.step_finished(event)

    @show.register
    def _(self, event: EpochFinished) -> None:
        self._spoken = time.monotonic()
        self.epoch_finished(event)

    @show.register
    def _(self, event: TrainingFinished) -> None:
        self.screen.line(f"training finished: {event.reason}; best network: {event.best_checkpoint}")

    @show.register
    def _(self, event: TileFinished) -> None:
        self.tile_finished(event)

    @show.register
    def _(self, event: ImageFinished) -> None:
        self._spoken = time.monotonic()
        self.image_finished(event)

    @show.register
    def _(self, event: FileWritten) -> None:
        if event.what != "prediction":
            self.files.append(event)

    def stage_started(self, stage: str, total: int) -> None:
        """A stage begins."""
        self.screen.heading(_title(stage, total))

    def training_started(self, done: int, total: int) -> None:
        """Training begins or goes on after epoch `done`."""

    def step_finished(self, event: StepFinished) -> None:
        """Speaks only now and then."""
        if self._is_quiet():
            self.screen.line(f"epoch {event.epoch}: step {event.step}/{event.num_steps}")

    def epoch_finished(self, event: EpochFinished) -> None:
        """The figures of the epoch."""
        self.screen.line(f"epoch {event.epoch}/{event.num_epochs}  {figures(event.metrics)}{_remark(event)}")

    def tile_finished(self, event: TileFinished) -> None:
        """Speaks only now and then."""
        if self._is_quiet():
            self.screen.line(f"{event.name}: tile {event.tile}/{event.num_tiles}")

    def image_finished(self, event: ImageFinished) -> None:
        """The image and how well it agrees with its label."""
        self.screen.line(f"image {event.index}/{event.num_images} {event.name}{image_figures(event.metrics)}")

    def _is_quiet(self) -> bool:
        if time.monotonic() - self._spoken < QUIET_SECONDS:
            return False
        self._spoken = time.monotonic()
        return True


class BarListener(LineListener):
    """Shows epochs, steps, images and tiles as bars below the lines."""

    def __init__(self, screen: Screen, progress: Progress) -> None:
        super().__init__(screen)
        self._progress = progress
        self._outer: TaskID | None = None
        self._inner: TaskID | None = None
        self._epochs = 0

    def stage_started(self, stage: str, total: int) -> None:
        """New bars for a stage with several steps."""
        self._clear()
        self.screen.heading(_title(stage, total))
        if total > 1 and stage != "train":
            self._outer = self._add(stage, total)

    def training_started(self, done: int, total: int) -> None:
        """The bar of the epochs begins at those that are done."""
        self._epochs = total
        self._outer = self._add(f"epoch {min(done + 1, total)}/{total}", total, completed=done)

    def step_finished(self, event: StepFinished) -> None:
        """Steps move both bars, so that the time left is known within the first epoch."""
        self._inner = self._inner if self._inner is not None else self._add("step", event.num_steps)
        self._set(self._inner, f"step {event.step}/{event.num_steps}", event.step, total=event.num_steps)
        done, total = event.epoch - 1 + event.step / event.num_steps, max(event.epoch, self._epochs)  # the clock gives more
        self._set(self._outer, f"epoch {event.epoch}/{total}", done, total=total)

    def epoch_finished(self, event: EpochFinished) -> None:
        """The figures stand behind the bar."""
        self._epochs = event.num_epochs
        shown = f"epoch {event.epoch}/{event.num_epochs}"
        self._set(self._outer, shown, event.epoch, total=event.num_epochs, note=figures(event.metrics))

    def tile_finished(self, event: TileFinished) -> None:
        """A bar for the tiles of the image, if it has several."""
        if event.num_tiles > 1:
            self._inner = self._inner if self._inner is not None else self._add("tile", event.num_tiles)
            self._set(self._inner, f"tile {event.tile}/{event.num_tiles}", event.tile, total=event.num_tiles, note=event.name)

    def image_finished(self, event: ImageFinished) -> None:
        """The line of the image, and the bar moves on."""
        super().image_finished(event)
        self._set(self._outer, f"image {event.index}/{event.num_images}", event.index)

    def _add(self, text: str, total: int, completed: int = 0) -> TaskID:
        return self._progress.add_task(text, total=total, completed=completed, note="")

    def _set(self, task: TaskID | None, text: str, completed: float, **fields: Any) -> None:
        if task is not None:
            self._progress.update(task, description=text, completed=completed, **fields)

    def _clear(self) -> None:
        for task in (self._outer, self._inner):
            if task is not None:
                self._progress.remove_task(task)
        self._outer = self._inner = None


@contextmanager
def listener(screen: Screen) -> Iterator[LineListener]:
    """The listener that suits the screen; its bars vanish at the end."""
    if screen.console is None:
        yield LineListener(screen)
        return
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(16),
        TimeRemainingColumn(compact=True),
        TextColumn("{task.fields[note]}", style="dim", markup=False),
    )
    with Progress(*columns, console=screen.console, transient=True, speed_estimate_period=600) as progress:
        yield BarListener(screen, progress)


def _remark(event: EpochFinished) -> str:
    """What to say of the best epoch so far; without any foreground it is nothing to announce."""
    if not event.is_best:
        return ""
    return "  no foreground found yet" if event.metrics.get("val_iou") == 0 else "  best so far"


def figures(metrics: Mapping[str, float]) -> str:
    """Losses, IoU, speed, and the share of the time that the network waited for patches."""
    from crista.metrics import show_score

    names = {"loss": "loss", "val_loss": "val_loss", "val_iou": "val_IoU"}
    shown = [f"{name} {show_score(metrics[key])}" for key, name in names.items() if key in metrics]
    if "steps_per_second" in metrics:
        shown.append(f"{metrics['steps_per_second']:.3g} steps/s")
    if "data_wait_percent" in metrics:
        shown.append(f"data wait {metrics['data_wait_percent']:.0f}%")
    return "  ".join(shown)


def image_figures(metrics: Mapping[str, float]) -> str:
    """The IoU of each stage of one image."""
    from crista.metrics import show_score

    if "foreground_iou" in metrics:
        return f"  foreground IoU {show_score(metrics['foreground_iou'])}"
    names = {"per_image": "foreground IoU", "full_image": "whole", "post_processing": "filtered"}
    return "".join(f"  {names.get(key, key)} {show_score(value)}" for key, value in metrics.items())


def _title(stage: str, total: int) -> str:
    word = {"train": "epoch", "predict": "image", "evaluate": "image"}.get(stage)
    counted = f": {plural(total, word)}" if word and total else ""
    return f"{TITLES.get(stage, stage)}{counted}"
