"""Resumed equals uninterrupted; several processes equal one; no bad update is made."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml  # zarr brings it
from tests.conftest import MakeData, tiny_config
from tests.jobs import write_data
from tests.unit.test_probe import job_of
from torch import nn

from crista.errors import TrainingError, UnstableTrainingError
from crista.images.open import open_image
from crista.images.write import write_image
from crista.losses.build import WeightedSum
from crista.plan.events import EpochFinished, Said, StepFinished, TrainingFinished, Warned
from crista.training import loop
from crista.training.checkpoint import load_checkpoint, load_weights
from crista.training.finite import WorstBatch
from crista.training.loop import previous_of
from crista.training.precision import Precision
from crista.training.selection import best_epoch
from crista.training.state import State
from crista.training.validation import ValidationPatches, validate, validation_batches
from crista.workflow.api import run
from crista.workflow.request import request_run
from crista.workflow.run import run as run_events

AUGMENTED = {"ENABLE": True, "RANDOM_ROT": True, "VFLIP": True, "ELASTIC": True, "GAUSSIAN_NOISE": True, "AUG_NUM_SAMPLES": 1}
LEARNING = {"EPOCHS": 4, "OPTIMIZER": "ADAMW", "LR_SCHEDULER": {"NAME": "onecycle"}}


def weights_of(path: Path) -> dict[str, torch.Tensor]:
    return dict(load_checkpoint(path).weights)


def assert_same_weights(a: Path, b: Path, *, tolerance: float = 0.0) -> None:
    one, other = weights_of(a), weights_of(b)
    assert one.keys() == other.keys()
    for name, value in one.items():
        torch.testing.assert_close(value, other[name], rtol=0, atol=tolerance, msg=name)


def full_config(data: Path, **changes: dict[str, Any]) -> dict[str, Any]:
    model = {"DROPOUT_VALUES": [0.1, 0.1]}
    return tiny_config(data, augmentor=AUGMENTED, train=LEARNING, model=model, **changes)


@pytest.mark.parametrize("seed", [10**11, 10**21])
def test_a_seed_may_be_any_number(seed: int, make_data: MakeData, tmp_path: Path) -> None:
    """torch takes 64 bits; the first one is beyond them only once an epoch is mixed in."""
    config = tiny_config(make_data(test=0), system={"SEED": seed}, train={"EPOCHS": 1}, test={"ENABLE": False})
    outcome = run(config, result_dir=tmp_path, name="job")
    assert load_checkpoint(outcome.folder.checkpoint_last).finished


@pytest.mark.parametrize("half", [None, torch.bfloat16], ids=["float32", "bfloat16"])
def test_stopped_after_each_epoch_and_resumed_equals_uninterrupted(
    half: torch.dtype | None, make_data: MakeData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("crista.training.precision.training_half_precision", lambda _: half)
    config = full_config(make_data())
    whole = run(config, result_dir=tmp_path / "whole", name="job")
    for _ in range(4):  # closing the generator is the stop button; each start does one more epoch
        events = run_events(request_run(config, result_dir=tmp_path / "stopped", name="job"))
        for event in events:
            if isinstance(event, EpochFinished):
                break
        events.close()
    stopped = run(config, result_dir=tmp_path / "stopped", name="job")
    assert_same_weights(whole.folder.checkpoint_last, stopped.folder.checkpoint_last)
    assert_same_weights(whole.folder.checkpoint_best, stopped.folder.checkpoint_best)
    assert whole.metrics == stopped.metrics
    rows = [path.read_text().splitlines() for path in (whole.folder.train_log, stopped.folder.train_log)]
    assert len(rows[0]) == len(rows[1]) == 5  # header and one row per epoch, none twice


def test_a_training_that_went_back_resumes_bit_for_bit(
    make_data: MakeData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The loss explodes once, in epoch 2: back to epoch 1, half the rate from there on, also after a stop and a resume."""
    config, told = full_config(make_data()), []

    def explode_once(loss: float, earlier: list[float], worst: WorstBatch | None) -> None:
        if len(earlier) == 1 and not told:
            told.append(worst)
            raise UnstableTrainingError("boom", what="the training loss exploded", images=worst.images if worst else ())

    plain = run(config, result_dir=tmp_path / "plain", name="job")
    monkeypatch.setattr("crista.training.step.refuse_explosion", explode_once)
    seen: list[object] = []
    whole = run(config, result_dir=tmp_path / "whole", name="job", on_event=seen.append)
    (warning,) = [event.text for event in seen if isinstance(event, Warned) and "half the learning rate" in event.text]
    assert warning.startswith("the training loss exploded in epoch 2 in a batch of 0")
    assert "back to the end of epoch 1" in warning
    told.clear()
    for stops in range(4):
        events = run_events(request_run(config, result_dir=tmp_path / "stopped", name="job"))
        next(event for event in events if isinstance(event, EpochFinished) and event.epoch == stops + 1)
        events.close()
    stopped = run(config, result_dir=tmp_path / "stopped", name="job")
    assert_same_weights(whole.folder.checkpoint_last, stopped.folder.checkpoint_last)
    assert load_checkpoint(stopped.folder.checkpoint_last).guards.rollbacks == (2,)
    rates = [[row["lr"] for row in load_checkpoint(one.folder.checkpoint_last).history] for one in (plain, whole)]
    assert rates[1] == [rates[0][0], *(rate / 2 for rate in rates[0][1:])]


def test_killed_at_any_moment_and_started_again_equals_uninterrupted(make_data: MakeData, tmp_path: Path) -> None:
    """SIGKILL of the real command, several times, in training and in prediction."""
    config = full_config(make_data(test=4))
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(config).replace("!!python/tuple", ""))
    whole = run(tmp_path / "job.yaml", result_dir=tmp_path / "whole", name="job")
    command = [sys.executable, "-m", "crista", "--config", "job.yaml", "--result_dir", "killed", "--name", "job"]
    log = tmp_path / "killed/job/results/job_1/train_logs/job_1.csv"
    predictions = tmp_path / "killed/job/results/job_1/per_image_binarized"
    moments = [
        lambda: log.is_file() and len(log.read_text().splitlines()) >= 2,  # one epoch is done
        lambda: len(log.read_text().splitlines()) >= 4,
        lambda: predictions.is_dir() and any(predictions.glob("*.tif")),
    ]
    for moment in moments:
        process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while not moment() and process.poll() is None:
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL, "the command ended before it could be killed"
    finished = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr
    killed = tmp_path / "killed" / "job"
    assert_same_weights(whole.folder.checkpoint_best, killed / "checkpoints/job_1-checkpoint-best.pth")
    for path in sorted(whole.folder.per_image_binarized.iterdir()):
        assert path.read_bytes() == (killed / "results/job_1/per_image_binarized" / path.name).read_bytes()
    assert whole.folder.test_results_metrics.read_text() == (killed / "results/job_1/test_results_metrics.csv").read_text()
    assert not [path for path in killed.rglob(".*") if ".part" in path.name or path.name.startswith(".scratch")]


def test_a_finished_training_is_not_repeated(make_data: MakeData, tmp_path: Path) -> None:
    config = tiny_config(make_data())
    first = run(config, result_dir=tmp_path, name="job")
    seen: list[object] = []
    second = run(config, result_dir=tmp_path, name="job", on_event=seen.append)
    assert not [event for event in seen if isinstance(event, EpochFinished)]
    assert [event.reason for event in seen if isinstance(event, TrainingFinished)] == ["already trained"]
    assert first.metrics == second.metrics


def test_other_settings_train_anew_and_say_so(make_data: MakeData, tmp_path: Path) -> None:
    data = make_data()
    run(tiny_config(data), result_dir=tmp_path, name="job")
    seen: list[object] = []
    run(tiny_config(data, train={"LR": 0.02}), result_dir=tmp_path, name="job", on_event=seen.append)
    assert len([event for event in seen if isinstance(event, EpochFinished)]) == 2
    assert any("settings differ" in event.text for event in seen if isinstance(event, Warned))


def test_other_data_train_anew_and_the_old_network_is_kept(make_data: MakeData, tmp_path: Path) -> None:
    data = make_data()
    first = run(tiny_config(data), result_dir=tmp_path, name="job")
    old = weights_of(first.folder.checkpoint_best)
    make_data(seed=1)  # other pixels under the same names
    seen: list[object] = []
    second = run(tiny_config(data), result_dir=tmp_path, name="job", on_event=seen.append)
    assert len([event for event in seen if isinstance(event, EpochFinished)]) == 2
    (warning,) = [event.text for event in seen if isinstance(event, Warned) and "training starts anew" in event.text]
    assert "the data differ" in warning
    kept = weights_of(second.folder.checkpoint_best.with_name("job_1-checkpoint-best.previous.pth"))
    for name, value in old.items():
        assert torch.equal(value, kept[name])


def test_data_by_which_the_plan_changes_too_are_what_differs(tmp_path: Path) -> None:
    """Nobody touched a setting: the new images have another voxel size, and that is in the plan."""
    seen: list[object] = []
    for spacing in (0.5, 0.4):
        data = write_data(tmp_path / "data", test=0, spacing=(spacing, spacing))
        config = tiny_config(data, train={"EPOCHS": 1}, test={"ENABLE": False})
        run(config, result_dir=tmp_path, name="job", on_event=seen.append)
    [warning] = [event.text for event in seen if isinstance(event, Warned) and "training starts anew" in event.text]
    assert warning.startswith("the data differ")


def test_another_network_to_start_from_trains_anew_and_is_not_taken_for_other_data(make_data: MakeData, tmp_path: Path) -> None:
    data = make_data(test=0)
    seen: list[object] = []
    short: dict[str, Any] = {"test": {"ENABLE": False}, "train": {"EPOCHS": 1}}
    for seed in (0, 1):
        first = run(tiny_config(data, system={"SEED": seed}, **short), result_dir=tmp_path, name=f"start{seed}")
        start = {"model": {"LOAD_CHECKPOINT": True}, "paths": {"CHECKPOINT_FILE": str(first.folder.checkpoint_best)}}
        run(tiny_config(data, **start, **short), result_dir=tmp_path, name="job", on_event=seen.append)
    [warning] = [event.text for event in seen if isinstance(event, Warned) and "training starts anew" in event.text]
    assert warning.startswith("the data, or the network to start from, differ")


def test_a_network_that_is_gone_is_not_said_to_be_kept(make_data: MakeData, tmp_path: Path) -> None:
    data = make_data(test=0)
    short = {"train": {"EPOCHS": 1}, "test": {"ENABLE": False}}
    run(tiny_config(data, **short), result_dir=tmp_path, name="job").folder.checkpoint_best.unlink()
    seen: list[object] = []
    run(tiny_config(data, loss={"TYPE": ["CE"]}, **short), result_dir=tmp_path, name="job", on_event=seen.append)
    [warning] = [event.text for event in seen if isinstance(event, Warned) and "training starts anew" in event.text]
    assert "kept" not in warning


def test_data_that_only_moved_are_the_same(make_data: MakeData, tmp_path: Path) -> None:
    data = make_data()
    run(tiny_config(data), result_dir=tmp_path, name="job")
    shutil.copytree(data, tmp_path / "moved")
    seen: list[object] = []
    run(tiny_config(tmp_path / "moved"), result_dir=tmp_path, name="job", on_event=seen.append)
    assert not [event for event in seen if isinstance(event, EpochFinished)]


def test_other_test_settings_predict_anew_without_training(make_data: MakeData, tmp_path: Path) -> None:
    data = make_data()
    run(tiny_config(data), result_dir=tmp_path, name="job")
    seen: list[object] = []
    run(tiny_config(data, test={"AUGMENTATION": True}), result_dir=tmp_path, name="job", on_event=seen.append)
    assert not [event for event in seen if isinstance(event, EpochFinished)]
    assert not [event for event in seen if isinstance(event, Said) and "predicted before" in event.text]


def test_seeds_decide_the_weights(make_data: MakeData, tmp_path: Path) -> None:
    data = make_data()
    folders = [
        run(tiny_config(data, system={"SEED": seed}), result_dir=tmp_path / name, name="job").folder
        for name, seed in (("a", 1), ("b", 1), ("c", 2))
    ]
    assert_same_weights(folders[0].checkpoint_last, folders[1].checkpoint_last)
    with pytest.raises(AssertionError):
        assert_same_weights(folders[0].checkpoint_last, folders[2].checkpoint_last)


@pytest.mark.parametrize("num_classes", [2, 3])
def test_two_processes_equal_one_with_the_same_global_batch(make_data: MakeData, tmp_path: Path, num_classes: int) -> None:
    """DDP over gloo. Instance normalisation: the statistics of batch normalisation are per process on a CPU."""
    data = make_data(train=8, num_classes=num_classes)
    model = {"NORMALIZATION": "in"}
    train = {"OPTIMIZER": "SGD", "LR": 0.1, "AMP": False}  # bfloat16 rounds what is only equal but for the order of additions
    one = tiny_config(data, num_classes=num_classes, model=model, train={**train, "BATCH_SIZE": 4})
    two = tiny_config(data, num_classes=num_classes, model=model, train={**train, "BATCH_SIZE": 2})
    single = run(one, result_dir=tmp_path / "one", name="job")
    double = run_in_two_processes(two, tmp_path)
    last = double / "checkpoints/job_1-checkpoint-last.pth"
    assert_same_weights(single.folder.checkpoint_last, last, tolerance=2e-4)
    assert (double / "results/job_1/test_results_metrics.csv").is_file()
    histories = (load_checkpoint(path).history for path in (single.folder.checkpoint_last, last))
    for row, other in zip(*histories, strict=True):  # of the samples of both processes
        assert [other[key] for key in ("iou", "val_iou")] == pytest.approx([row[key] for key in ("iou", "val_iou")], abs=5e-4)


def run_in_two_processes(config: dict[str, Any], folder: Path) -> Path:
    """The job that torchrun leaves in `folder`."""
    (folder / "job.yaml").write_text(yaml.safe_dump(config).replace("!!python/tuple", ""))
    command = [
        *(sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2", "--master-port=0", "--rdzv-backend=c10d"),
        *("--rdzv-endpoint=127.0.0.1:0", "-m", "crista"),
        *("--config", "job.yaml", "--result_dir", "two", "--name", "job"),
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    return folder / "two" / "job"


ELSEWHERE = """
import os, sys
os.chdir(os.environ["RANK"])
from crista.cli.main import main
sys.exit(main(sys.argv[1:]))
"""


LEAST = """
import torch
from crista.training.distributed import join_processes, least_of_processes, leave_processes
cpu = torch.device("cpu")
processes = join_processes(cpu)
assert processes.world_size == 2
assert least_of_processes(5 - 2 * processes.rank, processes, cpu) == 3
leave_processes()
"""


def test_the_least_of_processes(tmp_path: Path) -> None:
    """Of what fits into their memory."""
    (tmp_path / "least.py").write_text(LEAST)
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2", "--master-port=0", "--rdzv-backend=c10d"]
    command += ["--rdzv-endpoint=127.0.0.1:0", "least.py"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, env=environment, timeout=120)
    assert done.returncode == 0, done.stderr[-3000:]


def test_processes_that_do_not_share_the_folder_of_results_are_refused(make_data: MakeData, tmp_path: Path) -> None:
    """On a machine with a folder of its own there is no checkpoint to go on from: it would train another network."""
    config = tiny_config(make_data(test=0), test={"ENABLE": False})
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(config).replace("!!python/tuple", ""))
    (tmp_path / "1").mkdir()
    events = run_events(request_run(tmp_path / "job.yaml", result_dir=tmp_path / "0/out", name="job"))
    next(event for event in events if isinstance(event, EpochFinished))
    events.close()
    (tmp_path / "elsewhere.py").write_text(ELSEWHERE)
    command = [
        *(sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2", "--master-port=0", "--rdzv-backend=c10d"),
        *("--rdzv-endpoint=127.0.0.1:0", "elsewhere.py", "--config", "../job.yaml", "--result_dir", "out", "--name", "job"),
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, env=environment, timeout=120)
    assert done.returncode != 0
    told = " ".join((done.stdout + done.stderr).split())
    assert "must be one that all machines share): the first one has that of epoch 1, this one has none" in told


@pytest.mark.parametrize("average", [False, True])
def test_several_processes_validate_the_network_that_is_kept(make_data: MakeData, tmp_path: Path, average: bool) -> None:
    """Batch norms have statistics of their own in each process; those of the first are kept, and all validate with them."""
    data = make_data(train=8, test=0)
    changes = {"TRAIN.BATCH_SIZE": 1, "TRAIN.EMA": average, "MODEL.NORMALIZATION": "bn"}
    job = job_of(data, tmp_path, *(f"{key}={value}" for key, value in changes.items()))
    config = tiny_config(data, test={"ENABLE": False}, train={"BATCH_SIZE": 1, "EMA": average}, model={"NORMALIZATION": "bn"})
    best = load_checkpoint(run_in_two_processes(config, tmp_path) / "checkpoints/job_1-checkpoint-best.pth")
    state = State(job)
    load_weights(state.model, best.weights, skip_unmatched=False, where="best")
    batches = validation_batches(job.validation, 1)
    assert len(batches) > 1
    patches = ValidationPatches(job.validation, batches, num_threads=1)
    settings: Any = {"classes": job.plan.classes, "device": job.device, "processes": job.processes}
    loss, _ = validate(state.model, state.validation_loss, patches, **settings)
    assert best.history[-1]["val_loss"] == pytest.approx(loss, rel=1e-4)


def test_a_non_finite_loss_stops_before_the_update(make_data: MakeData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An enormous learning rate blows the weights up: training stops, names the files, and keeps finite weights."""
    config = tiny_config(make_data(), train={"OPTIMIZER": "SGD", "LR": 1e30, "EPOCHS": 5}, model={"NORMALIZATION": "none"})
    request = request_run(config, result_dir=tmp_path, name="job")
    with pytest.raises(TrainingError, match=r"became (nan|inf).*stopped before the update.*patches\s+of: 0\d") as caught:
        list(run_events(request))
    assert "TRAIN.LR" in str(caught.value)
    if request.folder.checkpoint_last.is_file():
        for value in weights_of(request.folder.checkpoint_last).values():
            assert torch.isfinite(value).all()


def test_a_gradient_that_stays_nan_ends_a_training_in_float16(
    make_data: MakeData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Loss scaling skips every step; after two returns to the start of the epoch, with half the rate, it is told."""
    monkeypatch.setattr("crista.training.precision.training_half_precision", lambda _: torch.float16)
    monkeypatch.setattr(Precision, "autocast", lambda _: nullcontext())  # the scale alone: not all processors convolve float16

    def broken(self: nn.Module, logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return forward(self, logits, target) + (0 * logits).sum().sqrt()  # 0, with a slope of 0 times infinity

    forward = WeightedSum.forward
    monkeypatch.setattr(WeightedSum, "forward", broken)
    heard: list[str] = []
    config = tiny_config(make_data(train=8), train={"EPOCHS": 40})
    with pytest.raises(TrainingError, match=r"norm of the gradient, 20 steps in a row, became nan.*It went back 2 times"):
        run(config, result_dir=tmp_path, name="job", on_event=lambda event: heard.append(str(event)))
    assert sum("on with half the learning rate" in text for text in heard) == 2


def test_accumulated_gradients_equal_the_larger_batch(make_data: MakeData, tmp_path: Path) -> None:
    data = make_data()
    common = {"OPTIMIZER": "SGD", "LR": 0.1, "AMP": False}  # bfloat16 rounds what is only equal but for the order of additions
    model = {"NORMALIZATION": "in"}
    loss = {"TYPE": "CE"}  # a mean over pixels: the mean of two halves is the whole
    whole = run(
        tiny_config(data, model=model, loss=loss, train={**common, "BATCH_SIZE": 4}), result_dir=tmp_path / "a", name="job"
    )
    halves = tiny_config(data, model=model, loss=loss, train={**common, "BATCH_SIZE": 2, "ACCUM_ITER": 2})
    split = run(halves, result_dir=tmp_path / "b", name="job")
    assert_same_weights(whole.folder.checkpoint_last, split.folder.checkpoint_last, tolerance=1e-5)


def test_training_learns(make_data: MakeData, tmp_path: Path) -> None:
    outcome = run(tiny_config(make_data(train=8), train={"EPOCHS": 12}), result_dir=tmp_path, name="job")
    iou = outcome.metrics["Foreground IoU, reconstructed image (all pixels pooled)"]
    assert iou > 0.85
    rows = np.genfromtxt(outcome.folder.train_log, delimiter=",", names=True)
    assert rows["val_loss"][-1] < rows["val_loss"][0]


def test_where_validation_holds_no_foreground_its_loss_chooses(make_data: MakeData, tmp_path: Path) -> None:
    """The first network predicts background everywhere, which those labels cannot tell from a good one."""
    data = make_data(train=4, test=0)
    for path in sorted((data / "train/x").glob("0[01].tif")):
        for kind, pixels in (("x", open_image(path, ndim=2).read()[0]), ("y", np.zeros((48, 48), np.uint8))):
            write_image(data / "val" / kind / path.name, pixels, "YX")
    val = {"FROM_TRAIN": False, "PATH": str(data / "val/x"), "GT_PATH": str(data / "val/y")}
    config = tiny_config(data, test={"ENABLE": False}, train={"EPOCHS": 5})
    config["DATA"]["VAL"] = val
    seen: list[object] = []
    folder = run(config, result_dir=tmp_path, name="job", on_event=seen.append).folder
    [split] = [event.text for event in seen if isinstance(event, Said) and event.text.startswith("validation: ")]
    assert split.endswith(
        "the 2 images of DATA.VAL.PATH. Validation holds no annotated pixel of class 1 and says nothing about it"
    )
    history = load_checkpoint(folder.checkpoint_last).history
    assert all(np.isnan(row["val_iou"]) for row in history)
    assert load_checkpoint(folder.checkpoint_best).epoch == best_epoch([row["val_loss"] for row in history])


def test_stopped_in_its_first_epoch_and_started_again_equals_uninterrupted(make_data: MakeData, tmp_path: Path) -> None:
    """There is a network to look at, and the same command makes the epoch anew: all its steps, each at its rate."""
    config = full_config(make_data(train=8, test=0), test={"ENABLE": False})
    whole = run(config, result_dir=tmp_path / "whole", name="job")
    request = request_run(config, result_dir=tmp_path / "stopped", name="job")
    ended = []
    for event in run_events(request):
        if isinstance(event, StepFinished):
            assert event.num_steps > 1
            request.stop.set()
        ended += [event.reason] if isinstance(event, TrainingFinished) else []
    assert ended == ["stopped within epoch 1 of 4; the same command begins anew"]
    assert load_checkpoint(request.folder.checkpoint_best).epoch == 1
    stopped = run(config, result_dir=tmp_path / "stopped", name="job")
    assert_same_weights(whole.folder.checkpoint_last, stopped.folder.checkpoint_last)
    assert_same_weights(whole.folder.checkpoint_best, stopped.folder.checkpoint_best)


@pytest.mark.parametrize("killed", [True, False], ids=["killed", "Ctrl-C"])
def test_going_on_from_the_own_network_survives_a_stop_in_the_first_epoch(
    make_data: MakeData, tmp_path: Path, killed: bool
) -> None:
    data = make_data()
    run(tiny_config(data), result_dir=tmp_path, name="job")
    again = tiny_config(data, model={"LOAD_CHECKPOINT": True}, train={"LR": 0.001})
    shutil.copytree(tmp_path / "job", tmp_path / "undisturbed/job")
    whole = run(again, result_dir=tmp_path / "undisturbed", name="job")
    request = request_run(again, result_dir=tmp_path, name="job")
    events = run_events(request)
    for event in events:
        if isinstance(event, StepFinished):
            request.stop.set()
            if killed:
                break
    events.close()
    resumed = run(again, result_dir=tmp_path, name="job")
    assert_same_weights(whole.folder.checkpoint_last, resumed.folder.checkpoint_last)


@pytest.mark.parametrize("moment", [StepFinished, EpochFinished], ids=["first epoch", "second epoch"])
def test_going_on_from_the_own_network_by_its_path_is_resumed(
    make_data: MakeData, tmp_path: Path, moment: type[StepFinished | EpochFinished]
) -> None:
    """As `--from` names it: the file is written anew in each epoch that is better, and is no other start for that."""
    data = make_data(test=0)
    first = run(tiny_config(data, test={"ENABLE": False}), result_dir=tmp_path, name="job")
    old = weights_of(first.folder.checkpoint_best)
    shutil.copytree(tmp_path / "job", tmp_path / "undisturbed/job")

    def again(where: Path) -> dict[str, Any]:
        own = where / "job/checkpoints/job_1-checkpoint-best.pth"
        changes = {"model": {"LOAD_CHECKPOINT": True}, "train": {"LR": 0.001}, "paths": {"CHECKPOINT_FILE": str(own)}}
        return tiny_config(data, test={"ENABLE": False}, **changes)

    whole = run(again(tmp_path / "undisturbed"), result_dir=tmp_path / "undisturbed", name="job")
    events = run_events(request_run(again(tmp_path), result_dir=tmp_path, name="job"))
    for event in events:
        if isinstance(event, moment):
            break
    events.close()
    seen: list[object] = []
    resumed = run(again(tmp_path), result_dir=tmp_path, name="job", on_event=seen.append)
    assert any(isinstance(event, Said) and event.text == "resuming after epoch 1 of 2" for event in seen) is (
        moment is EpochFinished
    )
    assert_same_weights(whole.folder.checkpoint_last, resumed.folder.checkpoint_last)
    kept = weights_of(previous_of(resumed.folder.checkpoint_best))
    assert all(torch.equal(value, kept[name]) for name, value in old.items())
    run(again(tmp_path), result_dir=tmp_path, name="job", on_event=seen.append)
    assert [event.reason for event in seen if isinstance(event, TrainingFinished)][-1] == "already trained"


def test_the_network_that_a_training_starts_from_is_not_written_over(make_data: MakeData, tmp_path: Path) -> None:
    """The one that an earlier training left as `previous`."""
    data = make_data(test=0)
    start = previous_of(tmp_path / "job/checkpoints/job_1-checkpoint-best.pth")
    from_it = {"model": {"LOAD_CHECKPOINT": True}, "paths": {"CHECKPOINT_FILE": str(start)}}
    short: dict[str, Any] = {"test": {"ENABLE": False}, "train": {"EPOCHS": 1}}
    for seed in (0, 1):
        run(tiny_config(data, system={"SEED": seed}, **short), result_dir=tmp_path, name="job")
    before = start.read_bytes()
    seen: list[object] = []
    for _ in range(2):
        run(tiny_config(data, **from_it, **short), result_dir=tmp_path, name="job", on_event=seen.append)
    assert start.read_bytes() == before
    assert start.with_name("job_1-checkpoint-best.previous-2.pth").is_file()
    reasons = [event.reason for event in seen if isinstance(event, TrainingFinished)]
    assert reasons == ["all epochs are done", "already trained"]


def test_no_network_is_lost_however_often_a_training_starts_anew(make_data: MakeData, tmp_path: Path) -> None:
    """A slip in a setting, and back again: the training of hours is not written over by that of an epoch."""
    data, best = make_data(test=0), tmp_path / "job/checkpoints/job_1-checkpoint-best.pth"
    short: dict[str, Any] = {"test": {"ENABLE": False}, "train": {"EPOCHS": 1}}
    trained = []
    for seed in (0, 1, 0, 1):
        run(tiny_config(data, system={"SEED": seed}, **short), result_dir=tmp_path, name="job")
        trained.append(weights_of(best))
    kept = [best.with_name(f"job_1-checkpoint-best.previous{number}.pth") for number in ("", "-2", "-3")]
    assert previous_of(best) == kept[-1]
    for path, weights in zip(kept, trained, strict=False):
        assert all(torch.equal(value, weights[name]) for name, value in weights_of(path).items())


@pytest.mark.parametrize("rate", [0.01, 0.02], ids=["same settings", "other settings"])
def test_of_two_trainings_in_one_folder_the_last_one_goes_on(make_data: MakeData, tmp_path: Path, rate: float) -> None:
    """The other one says so at the end of its epoch, and writes nothing over what the last one wrote."""
    data, no_test = make_data(test=0), {"ENABLE": False}
    events = run_events(request_run(tiny_config(data, test=no_test), result_dir=tmp_path, name="job"))
    next(event for event in events if isinstance(event, EpochFinished))
    other = run_events(request_run(tiny_config(data, test=no_test, train={"LR": rate}), result_dir=tmp_path, name="job"))
    next(event for event in other if isinstance(event, EpochFinished))
    folder = tmp_path / "job/checkpoints"
    written = {path.name: path.read_bytes() for path in folder.glob("*.pth")}
    with pytest.raises(TrainingError, match="another training of this name has begun and writes here, so this one ends"):
        list(events)
    assert {path.name: path.read_bytes() for path in folder.glob("*.pth")} == written
    list(other)
    best = load_checkpoint(folder / "job_1-checkpoint-best.pth")
    assert best.plan.optimizer.lr == rate
    assert load_checkpoint(folder / "job_1-checkpoint-last.pth").finished
    assert all(path.suffix == ".pth" for path in folder.iterdir())


@pytest.mark.parametrize("asked", [(True, False), (False, True), (False, False)])
def test_processes_stop_together(
    make_data: MakeData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: tuple[bool, bool]
) -> None:
    """Ctrl-C may reach one process before the end of an epoch and another one after it."""
    own, peer = asked
    monkeypatch.setattr(loop, "sum_over_processes", lambda values, *_: values + peer)
    job = job_of(make_data(test=0), tmp_path)
    if own:
        job.stop.set()
    assert loop._agreed_stop(job) is any(asked)
