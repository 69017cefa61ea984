"""What the listeners write for each event, as lines and as bars."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from crista.cli import progress
from crista.cli.progress import LineListener, figures, image_figures, listener
from crista.cli.screen import Screen, one_line
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

ROW = {
    **{"epoch": 1.0, "loss": 0.5, "val_loss": 0.25, "val_iou": 0.75, "lr": 0.001, "seconds": 2.0},
    **{"steps_per_second": 1.2345, "data_wait_percent": 25.4},
}
STORY: tuple[Event, ...] = (
    Said("a [bold] notice"),
    StageStarted("check"),
    Warned("train/x: odd\n    -> look at it"),
    StageStarted("train", 2),
    TrainingStarted((), 2),
    StepFinished(1, 1, 2),
    StepFinished(1, 2, 2),
    EpochFinished(1, 2, ROW, is_best=True),
    TrainingFinished("all epochs are done", Path("best.pth")),
    StageStarted("predict", 2),
    TileFinished("a", 1, 2),
    TileFinished("a", 2, 2),
    FileWritten(Path("a.tif"), "prediction"),
    ImageFinished("a", 1, 2, {"per_image": 0.5, "post_processing": 0.6}),
    FileWritten(Path("m.csv"), "metrics"),
)
LINES = """\
a [bold] notice
Checking the data
warning: train/x: odd -> look at it
Training: 2 epochs
epoch 1/2  loss 0.5000  val_loss 0.2500  val_IoU 0.7500  1.23 steps/s  data wait 25%  best so far
training finished: all epochs are done; best network: best.pth
Predicting: 2 images
image 1/2 a  foreground IoU 0.5000  filtered 0.6000
"""


def test_without_a_terminal_every_event_worth_reading_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with listener(Screen()) as show:
        for event in STORY:
            show(event)
    assert capsys.readouterr().out == LINES
    assert [event.what for event in show.files] == ["metrics"]
    assert show.stages == {"check", "train", "predict"}


def test_an_iou_that_could_not_be_measured_is_a_dash() -> None:
    assert progress.figures({"val_loss": 0.5, "val_iou": float("nan")}) == "val_loss 0.5000  val_IoU –"


@pytest.mark.parametrize(("val_iou", "remark"), [(0.0, "  no foreground found yet"), (0.01, "  best so far")])
def test_an_epoch_without_foreground_is_not_announced_as_the_best(
    val_iou: float, remark: str, capsys: pytest.CaptureFixture[str]
) -> None:
    show = LineListener(Screen())
    show(EpochFinished(1, 2, {"loss": 0.5, "val_iou": val_iou}, is_best=True))
    show(EpochFinished(2, 2, {"loss": 0.5, "val_iou": val_iou}, is_best=False))
    first, second = capsys.readouterr().out.splitlines()
    assert first == f"epoch 1/2  loss 0.5000  val_IoU {val_iou:.4f}{remark}"
    assert second == f"epoch 2/2  loss 0.5000  val_IoU {val_iou:.4f}"


def test_long_epochs_and_images_give_a_sign_of_life(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(progress, "QUIET_SECONDS", 0.0)
    show = LineListener(Screen())
    show(StepFinished(3, 7, 9))
    show(TileFinished("a", 1, 2))
    assert capsys.readouterr().out == "epoch 3: step 7/9\na: tile 1/2\n"


def terminal() -> tuple[Screen, io.StringIO]:
    screen, output = Screen(), io.StringIO()
    screen.console = Console(file=output, force_terminal=True, width=120, highlight=False, soft_wrap=True)
    return screen, output


def test_on_a_terminal_there_are_bars_and_colours() -> None:
    screen, output = terminal()
    with listener(screen) as show:
        for event in STORY:
            show(event)
        bars = [task.description for task in show._progress.tasks]  # type: ignore[attr-defined]
    text = output.getvalue()
    assert bars == ["image 1/2", "tile 2/2"]
    assert "\x1b[33mwarning: train/x: odd -> look at it" in text
    assert "\x1b[2ma [bold] notice" in text
    assert "training finished: all epochs are done" in text


def test_the_figures_of_an_epoch_stand_behind_its_bar() -> None:
    screen, _ = terminal()
    with listener(screen) as show:
        for event in STORY[3:8]:
            show(event)
        epochs = show._progress.tasks[0]  # type: ignore[attr-defined]
        assert (epochs.description, epochs.completed) == ("epoch 1/2", 1)
        assert epochs.fields["note"] == "loss 0.5000  val_loss 0.2500  val_IoU 0.7500  1.23 steps/s  data wait 25%"


def test_the_bar_of_a_resumed_training_begins_where_it_stopped() -> None:
    screen, _ = terminal()
    with listener(screen) as show:
        show(StageStarted("train", 4))
        show(TrainingStarted((ROW, ROW, ROW), 4))
        task = show._progress.tasks[0]  # type: ignore[attr-defined]
        assert (task.description, task.completed, task.total) == ("epoch 4/4", 3, 4)
        show(StepFinished(4, 1, 2))
        assert task.completed == 3.5


def test_the_bar_grows_with_the_epochs_that_the_clock_gives() -> None:
    """A training of 25 epochs that is given more minutes; nobody counts epoch 26 of 25."""
    screen, _ = terminal()
    with listener(screen) as show:
        show(StageStarted("train", 25))
        show(TrainingStarted((ROW,) * 25, 25))
        task = show._progress.tasks[0]  # type: ignore[attr-defined]
        show(StepFinished(26, 1, 2))
        assert (task.description, task.completed, task.total) == ("epoch 26/26", 25.5, 26)
        show(EpochFinished(26, 300, ROW))
        show(StepFinished(27, 1, 2))
        assert (task.description, task.completed, task.total) == ("epoch 27/300", 26.5, 300)


def test_figures_leave_out_what_is_not_known() -> None:
    assert figures({"loss": 1.0}) == "loss 1.0000"
    assert figures({"seconds": 2.0}) == ""
    assert image_figures({}) == ""
    assert image_figures({"foreground_iou": 0.5, "accuracy": 0.9}) == "  foreground IoU 0.5000"


def test_tables_are_never_cut_without_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    path = "/a" * 200
    Screen().table(("What", "Path"), [("long", path), ("longer word", "b")])
    assert capsys.readouterr().out == f"What         Path\nlong         {path}\nlonger word  b\n"


def test_tables_on_a_terminal_show_brackets_as_they_are() -> None:
    screen, output = terminal()
    screen.table(("Key", "Value"), [("[red]", "1")])
    assert "[red]" in output.getvalue()


def test_several_lines_become_one() -> None:
    assert one_line("a:  b\n   -> c\nd") == "a:  b -> c d"
