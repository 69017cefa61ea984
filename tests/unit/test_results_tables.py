"""Training log, TensorBoard, and the tables of measurements."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from crista.errors import DataError
from crista.results.run_folder import RunFolder
from crista.results.tables import read_mean, write_confusion, write_runs_table, write_test_metrics
from crista.results.tensorboard import ScalarLog, tag
from crista.results.train_log import TrainLog, read_train_log


def test_train_log_has_one_row_per_epoch(tmp_path: Path) -> None:
    path = tmp_path / "train_logs" / "a_1.csv"
    log = TrainLog(path)
    log.append(1, {"loss": 0.5, "lr": 1e-4})
    assert path.read_text() == "epoch,loss,lr\n1,0.5,0.0001\n"
    log.append(2, {"loss": 0.25, "lr": 1e-4, "val_loss": float("nan")})
    assert path.read_text() == "epoch,loss,lr,val_loss\n1,0.5,0.0001,\n2,0.25,0.0001,nan\n"


def test_resumed_log_equals_uninterrupted_log(tmp_path: Path) -> None:
    whole, killed = TrainLog(tmp_path / "whole.csv"), TrainLog(tmp_path / "killed.csv")
    for epoch in range(1, 6):
        whole.append(epoch, {"loss": 1 / epoch})
    for epoch in range(1, 4):
        killed.append(epoch, {"loss": 1 / epoch})
    killed.path.write_text("epoch,loss\n1,0.5\n9,half a ro")  # whatever lies there: the checkpoint, of epoch 2, knows
    resumed = TrainLog(killed.path, whole.rows[:2])
    assert killed.path.read_text() == "epoch,loss\n1,1\n2,0.5\n"
    for epoch in range(3, 6):
        resumed.append(epoch, {"loss": 1 / epoch})
    resumed.append(4, {"loss": 7.0})  # went back, and again
    resumed.append(4, {"loss": 1 / 4})
    resumed.append(5, {"loss": 1 / 5})
    assert (tmp_path / "killed.csv").read_bytes() == (tmp_path / "whole.csv").read_bytes()


def test_a_new_start_forgets_the_old_log(tmp_path: Path) -> None:
    TrainLog(tmp_path / "a.csv").append(7, {"loss": 1.0})
    TrainLog(tmp_path / "a.csv").append(1, {"loss": 2.0})
    assert (tmp_path / "a.csv").read_text() == "epoch,loss\n1,2\n"


@pytest.mark.parametrize("line", ["one,0.5", ",0.5", "1,abc"])
def test_a_file_that_is_no_log_is_named(tmp_path: Path, line: str) -> None:
    (tmp_path / "a.csv").write_text(f"epoch,loss\n{line}\n")
    with pytest.raises(DataError, match=r"a\.csv line 2: is no row of a training log"):
        read_train_log(tmp_path / "a.csv")


def test_tensorboard_shows_no_step_twice(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    with closing(ScalarLog(tmp_path)) as log:
        for epoch in (1, 2, 3):
            log.write(epoch, {"epoch": epoch, "loss": 1.0, "lr": 0.1, "val_iou": float("nan")})
    with closing(ScalarLog(tmp_path, last_epoch=2)) as log:
        for epoch in (3, 4):
            log.write(epoch, {"loss": 2.0, "val_iou": 0.5})
    shown = EventAccumulator(str(tmp_path))
    shown.Reload()
    assert [(event.step, event.value) for event in shown.Scalars("loss/training")] == [(1, 1.0), (2, 1.0), (3, 2.0), (4, 2.0)]
    assert [event.step for event in shown.Scalars("iou/validation")] == [3, 4]
    assert shown.Tags()["scalars"] == ["loss/training", "run/lr", "iou/validation"]  # the epoch is the axis, no figure


def test_tensorboard_forgets_an_earlier_run_on_a_new_start(tmp_path: Path) -> None:
    for _ in range(2):
        with closing(ScalarLog(tmp_path)) as log:
            log.write(1, {"loss": 1.0})
    assert len(list(tmp_path.iterdir())) == 1
    assert tag("lr") == "run/lr"


def test_metrics_table_ends_with_the_mean(tmp_path: Path) -> None:
    path = tmp_path / "m.csv"
    rows = [{"file": "a.tif", "iou": 0.5}, {"file": "b.tif", "iou": float("nan"), "dice": 1.0}]
    write_test_metrics(path, rows, {"iou": 0.5, "dice": 1.0})
    assert path.read_text() == "file,iou,dice\na.tif,0.500000,\nb.tif,,1.000000\nmean,0.500000,1.000000\n"
    assert read_mean(path) == {"iou": 0.5, "dice": 1.0}


def test_confusion_table(tmp_path: Path) -> None:
    write_confusion(tmp_path / "c.csv", np.array([[5, 1], [0, 2]]), ["background", "cell"])
    assert (tmp_path / "c.csv").read_text() == "truth,predicted background,predicted cell\nbackground,5,1\ncell,0,2\n"


def test_runs_table_has_mean_and_sample_deviation(tmp_path: Path) -> None:
    for run_id, iou in ((10, 0.8), (2, 0.6), (1, 0.7)):
        write_test_metrics(RunFolder(tmp_path, "job", run_id).test_results_metrics, [], {"iou": iou})
    RunFolder(tmp_path, "job", 4).results.mkdir(parents=True)  # not measured
    (tmp_path / "job/results/job_old_5").mkdir()
    assert write_runs_table(RunFolder(tmp_path, "job", 1))
    table = RunFolder(tmp_path, "job", 1).runs_summary.read_text()
    assert table == "run_id,iou\n1,0.700000\n2,0.600000\n10,0.800000\nmean,0.700000\nsd,0.100000\n"


def test_runs_table_of_two_runs_and_small_numbers(tmp_path: Path) -> None:
    for run_id, value in ((1, 0.0), (2, 0.001)):
        write_test_metrics(RunFolder(tmp_path, "job", run_id).test_results_metrics, [], {"iou": value, "seen": 1.0})
    assert write_runs_table(RunFolder(tmp_path, "job", 1))
    table = RunFolder(tmp_path, "job", 1).runs_summary.read_text()
    assert table == ("run_id,iou,seen\n1,0.000000,1.000000\n2,0.001000,1.000000\nmean,0.0005,1.000000\nsd,0.000707107,0.000000\n")


def test_runs_table_without_measurement_writes_nothing(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path, "job", 1)
    assert not write_runs_table(folder)
    folder.results.mkdir(parents=True)
    folder.test_results_metrics.write_text("file,iou\na.tif,0.5\n")  # no mean row: not finished
    assert not write_runs_table(folder)
    folder.test_results_metrics.write_text('file,iou\nmean,"0,5"\n')  # saved by a spreadsheet with decimal commas
    assert not write_runs_table(folder)
    folder.test_results_metrics.write_text("file,iou\nmean,0.5,0.7\n")
    assert not write_runs_table(folder)
    assert not folder.runs_summary.exists()


def test_runs_table_with_tables_that_a_spreadsheet_has_saved(tmp_path: Path) -> None:
    """With its own mark at the start it still counts; in another encoding, or as UTF-16, it is no table of ours, and no error."""
    text = "file,iou_Zellkörper\nmean,0.5\n"
    first, *others = (RunFolder(tmp_path, "job", number) for number in (1, 2, 3))
    for folder, encoding in ((first, "utf-8-sig"), (others[0], "cp1252"), (others[1], "utf-16")):
        folder.results.mkdir(parents=True)
        folder.test_results_metrics.write_bytes(text.encode(encoding))
    assert write_runs_table(first)
    assert first.runs_summary.read_text(encoding="utf-8") == "run_id,iou_Zellkörper\n1,0.500000\nmean,0.500000\nsd,\n"


def test_runs_table_of_a_single_run_has_an_empty_deviation(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path, "job", 1)
    write_test_metrics(folder.test_results_metrics, [], {"iou": 0.5})
    write_runs_table(folder)
    assert folder.runs_summary.read_text() == "run_id,iou\n1,0.500000\nmean,0.500000\nsd,\n"
