"""Recorder: turns the events of a training into its log, its TensorBoard scalars and its charts."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial

from crista.plan.events import EpochFinished, Event, TrainingStarted, Warned
from crista.results.charts import draw_charts
from crista.results.run_folder import RunFolder
from crista.results.tensorboard import ScalarLog
from crista.results.train_log import TrainLog
from crista.training.selection import best_epoch, scores

OPEN_ELSEWHERE = (
    "{}, or a chart in {}, is open in another program (Excel, say), so that nothing can be written there; the training goes on, "
    "and what is missing follows once it is closed"
)


def record_training(events: Iterable[Event], folder: RunFolder) -> Iterator[Event]:
    """Pass the events on, writing what they tell.

    The log and TensorBoard get a row per epoch. The charts are drawn at the end of epochs, in at most a twentieth of the time,
    and, whatever happens, at the end of the training. After a kill the rows of the checkpoint are what counts.
    """
    log = TrainLog(folder.train_log)
    scalars: ScalarLog | None = None
    is_open = is_told = False
    charts = _Charts(folder)
    try:
        for event in events:
            if isinstance(event, TrainingStarted):
                log = TrainLog(folder.train_log, event.history)
                scalars = ScalarLog(folder.tensorboard, last_epoch=len(event.history))
            elif isinstance(event, EpochFinished):
                is_open = not _written(partial(log.append, event.epoch, event.metrics))
                if scalars is not None:
                    scalars.write(event.epoch, event.metrics)
                is_open |= not _written(partial(charts.draw, log.rows))
                if is_open and not is_told:
                    yield Warned(OPEN_ELSEWHERE.format(folder.train_log, folder.charts))
                is_told |= is_open
            yield event
    finally:
        if scalars is not None:
            scalars.close()
        if is_open:
            _written(log.write)
        if log.rows:
            _written(partial(draw_training, log.rows, folder))


def _written(write: Callable[[], object]) -> bool:
    """Whether `write` did: Windows lets nobody replace a file that another program has open, and a training goes on without."""
    try:
        write()
    except PermissionError:
        if sys.platform != "win32":
            raise
        return False
    return True


def draw_training(rows: Sequence[Mapping[str, float]], folder: RunFolder) -> None:
    """Draw the charts of a training; the epoch of the best checkpoint is marked."""
    draw_charts(rows, folder.charts, folder.job, best_epoch=best_epoch(scores(rows)))


class _Charts:
    """Draws the charts no more often than a twentieth of the time allows."""

    def __init__(self, folder: RunFolder) -> None:
        self._folder = folder
        self._next = 0.0

    def draw(self, rows: Sequence[Mapping[str, float]]) -> None:
        """Draw, unless that was done just now."""
        started = time.monotonic()
        if started < self._next:
            return
        draw_training(rows, self._folder)
        finished = time.monotonic()
        self._next = finished + 20 * (finished - started)
