"""Training jobs: optimizers, schedules, early stopping, starting weights, runs beside each other, tables over them."""

from __future__ import annotations

import csv
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import numpy as np
import pytest
import torch
from tests.jobs import job, log_rows, plan_of, run_and_listen, same_weights, table, weights_of, write_data

import crista
from crista.config.load import config_from_dict
from crista.errors import ConfigError, PlanError, TrainingError
from crista.plan.events import EpochFinished, TrainingFinished
from crista.results.log import read_warnings
from crista.training import loop
from crista.training.checkpoint import load_checkpoint
from crista.workflow.api import Outcome, run
from crista.workflow.request import request_run
from crista.workflow.run import run as run_events

pytestmark = pytest.mark.usefixtures("no_drawings_in_module")
NO_TEST = {"TEST": {"ENABLE": False}}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data(tmp_path_factory.mktemp("learning") / "data")


def train(**keys: Any) -> dict[str, Any]:
    return {"TRAIN": keys}


def only_train(data: Path, where: Path, *changes: dict[str, Any], name: str = "job", **settings: Any) -> Outcome:
    return run(job(data, NO_TEST, *changes, **settings), result_dir=where, name=name)


SCHEDULERS: dict[str, dict[str, Any]] = {
    "constant": {"NAME": ""},
    "onecycle": {"NAME": "onecycle"},
    "reduceonplateau": {"NAME": "reduceonplateau", "MIN_LR": 1e-4, "REDUCEONPLATEAU_PATIENCE": 0},
    "warmupcosine": {"NAME": "warmupcosine", "MIN_LR": 1e-4, "WARMUP_COSINE_DECAY_EPOCHS": 1},
}


@pytest.mark.parametrize("optimizer", ["SGD", "ADAM", "ADAMW"])
@pytest.mark.parametrize("scheduler", sorted(SCHEDULERS))
def test_every_optimizer_with_every_schedule(optimizer: str, scheduler: str, data: Path, tmp_path: Path) -> None:
    settings = train(OPTIMIZER=optimizer, LR=0.01, EPOCHS=2, LR_SCHEDULER=SCHEDULERS[scheduler])
    rows = log_rows(only_train(data, tmp_path, settings))
    assert [row["epoch"] for row in rows] == [1, 2]
    assert all(np.isfinite(row["loss"]) for row in rows)
    last = {"constant": 0.01, "onecycle": 0.01 / 25e4, "warmupcosine": 1e-4}
    if scheduler in last:
        assert rows[-1]["lr"] == pytest.approx(last[scheduler], rel=1e-4)


@pytest.mark.parametrize("architecture", ["unet", "resunet", "attention_unet"])
@pytest.mark.parametrize("ndim", [2, 3])
def test_every_network_through_the_whole_workflow(architecture: str, ndim: int, tmp_path: Path) -> None:
    data = write_data(tmp_path / "data", shape=(8, 32, 40)[-ndim:], train=2, test=1)
    change = {"MODEL": {"ARCHITECTURE": architecture, "DROPOUT_VALUES": [0.1, 0.2], "ACTIVATION": "elu", "NORMALIZATION": "gn"}}
    outcome = run(job(data, change, train(EPOCHS=1), ndim=ndim), result_dir=tmp_path / "out", name="job")
    assert plan_of(outcome)["MODEL"]["ARCHITECTURE"] == architecture
    assert len(outcome.metrics) > 3


def test_early_stopping(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Best in epoch 2, PATIENCE 2: the fourth is the last, and the best checkpoint is that of the second."""
    losses = iter([1.0, 0.5, 0.9, 1.0, 0.1, 0.1])  # moving average: 1, 0.85, 0.865, 0.9055
    nothing_found = np.array([[2, 0], [2, 0]])  # so the loss selects
    monkeypatch.setattr(loop, "validate", lambda *_, **__: (next(losses), nothing_found))
    seen: list[Any] = []
    request = request_run(job(data, NO_TEST, train(EPOCHS=6, PATIENCE=2)), result_dir=tmp_path, name="job")
    seen.extend(run_events(request))
    epochs = [event for event in seen if isinstance(event, EpochFinished)]
    assert [event.is_best for event in epochs] == [True, True, False, False]
    assert [event.reason for event in seen if isinstance(event, TrainingFinished)] == ["no better validation loss for 2 epochs"]
    assert load_checkpoint(request.folder.checkpoint_best).epoch == 2
    assert load_checkpoint(request.folder.checkpoint_last).epoch == 4
    assert load_checkpoint(request.folder.checkpoint_last).finished


def test_a_validation_loss_that_is_no_number_is_never_the_best(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It must not leave the network of an earlier training standing as the result of this one."""
    monkeypatch.setattr(loop, "validate", lambda *_, **__: (float("nan"), np.ones((2, 2), np.int64)))
    with pytest.raises(TrainingError, match=r"validation loss became nan in epoch 1"):
        only_train(data, tmp_path)


def test_a_lost_best_checkpoint_is_made_again(data: Path, tmp_path: Path) -> None:
    first = only_train(data, tmp_path)
    kept = weights_of(first.folder.checkpoint_best)
    first.folder.checkpoint_best.unlink()
    _, said = run_and_listen(job(data), tmp_path)
    assert any("training starts anew" in line for line in said)
    assert all(torch.equal(value, kept[name]) for name, value in weights_of(first.folder.checkpoint_best).items())


def test_changed_training_data_are_trained_on(tmp_path: Path) -> None:
    """Corrected label images under the same names: the same command does not answer with the old network."""
    data = write_data(tmp_path / "data")
    before = weights_of(only_train(data, tmp_path / "out").folder.checkpoint_best)
    write_data(data, seed=1)
    outcome, said = run_and_listen(job(data, NO_TEST), tmp_path / "out")
    assert any("training starts anew" in line for line in said)
    assert any(not torch.equal(value, before[name]) for name, value in weights_of(outcome.folder.checkpoint_best).items())


def test_fine_tuning_starts_from_the_given_weights(data: Path, tmp_path: Path) -> None:
    """A learning rate of almost nothing leaves the weights where they were."""
    source = only_train(data, tmp_path, name="source").folder.checkpoint_best
    model = {"MODEL": {"LOAD_CHECKPOINT": True}, "PATHS": {"CHECKPOINT_FILE": str(source)}}
    tiny = train(LR=1e-12, EPOCHS=1, W_DECAY=0)
    tuned = only_train(data, tmp_path, model, tiny, name="tuned")
    fresh = only_train(data, tmp_path, tiny, name="fresh")
    for name, value in weights_of(source).items():
        if "weight" in name:
            torch.testing.assert_close(weights_of(tuned.folder.checkpoint_last)[name], value, rtol=0, atol=1e-6)
    assert not same_weights(tuned.folder.checkpoint_last, fresh.folder.checkpoint_last)


def test_validation_that_the_starting_network_has_learnt_from_is_said_to_be_so(data: Path, tmp_path: Path) -> None:
    """Half of the images validate, where a quarter did: the report says that its figures are too good."""
    source = only_train(data, tmp_path, name="source").folder.checkpoint_best
    model = {"MODEL": {"LOAD_CHECKPOINT": True}, "PATHS": {"CHECKPOINT_FILE": str(source)}}
    half = {"DATA": {"VAL": {"SPLIT_TRAIN": 0.5}, "TEST": {"USE_VAL_AS_TEST": True}}}
    outcome, said = run_and_listen(job(data, model, half), tmp_path, name="tuned")
    [told] = [line for line in said if "that this training starts from" in line]
    assert told.startswith("1 of 2 images that validate was trained on by the network")
    assert told in read_warnings(outcome.folder.log_txt)  # which the report shows
    quarter = {"DATA": {"TEST": {"USE_VAL_AS_TEST": True}}}
    _, said = run_and_listen(job(data, model, quarter), tmp_path, name="same")
    assert not any("that this training starts from" in line for line in said)


def test_a_batch_that_was_chosen_where_more_memory_was_is_named_when_the_training_goes_on(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On another machine; of a training that is finished there is nothing to say."""
    config = job(data, NO_TEST)
    del config["TRAIN"]["BATCH_SIZE"]
    request = request_run(config, result_dir=tmp_path, name="job")
    for event in run_events(request):
        if isinstance(event, EpochFinished):
            request.stop.set()
    monkeypatch.setattr("crista.training.probe._fit_processor", lambda _: 1)
    warned = [
        any("the memory that is free here may bear 1" in line for line in run_and_listen(config, tmp_path)[1]) for _ in "ab"
    ]
    assert warned == [True, False]
    assert load_checkpoint(request.folder.checkpoint_last).finished


def test_other_starting_weights_train_anew(data: Path, tmp_path: Path) -> None:
    sources = [
        only_train(data, tmp_path, {"SYSTEM": {"SEED": seed}}, name=f"source{seed}").folder.checkpoint_best for seed in (1, 2)
    ]
    for source, anew in ((sources[0], False), (sources[0], False), (sources[1], True)):
        change = {"MODEL": {"LOAD_CHECKPOINT": True}, "PATHS": {"CHECKPOINT_FILE": str(source)}}
        _, said = run_and_listen(job(data, NO_TEST, change), tmp_path)
        assert any("training starts anew" in line for line in said) == anew


def test_layers_that_do_not_fit(data: Path, tmp_path: Path) -> None:
    """Other classes are no obstacle; other layers are, all named at once, unless SKIP_UNMATCHED_LAYERS is set."""
    source = only_train(data, tmp_path, name="source").folder.checkpoint_best
    three = write_data(tmp_path / "three", num_classes=3)
    model = {"MODEL": {"LOAD_CHECKPOINT": True}, "PATHS": {"CHECKPOINT_FILE": str(source)}}
    wide = {"MODEL": {"FEATURE_MAPS": [8, 8], "KERNEL_SIZE": 5}}
    seen = r"(?s)2 problems.*MODEL\.FEATURE_MAPS: \(8, 8\) is asked for, the checkpoint has \(4, 8\)"
    with pytest.raises(PlanError, match=seen) as caught:
        only_train(three, tmp_path, model, wide, num_classes=3)
    assert "MODEL.KERNEL_SIZE: 5 is asked for, the checkpoint has 3" in str(caught.value)
    assert "MODEL.SKIP_UNMATCHED_LAYERS: True" in str(caught.value)
    skip = {"MODEL": {"SKIP_UNMATCHED_LAYERS": True}}
    outcome, said = run_and_listen(job(three, NO_TEST, model, wide, skip, num_classes=3), tmp_path)
    assert weights_of(outcome.folder.checkpoint_best)
    (line,) = [line for line in said if line.startswith("starting weights: loaded ")]
    assert "not loaded, their shape or name does not fit: encoder.0" in line


def test_other_classes_and_channels_and_what_is_left_out_comes_from_the_checkpoint(data: Path, tmp_path: Path) -> None:
    """Grey and two classes to colour and three: one line says what was loaded; the plan says whose network it is."""
    norm = {"DATA": {"NORMALIZATION": {"TYPE": "div"}}, "MODEL": {"ARCHITECTURE": "resunet", "NORMALIZATION": "gn"}}
    source = only_train(data, tmp_path, norm, name="source").folder.checkpoint_best
    config = job(write_data(tmp_path / "rgb", num_classes=3, channels=3), NO_TEST, train(EPOCHS=1), num_classes=3)
    config["MODEL"] = {"LOAD_CHECKPOINT": True}
    config["PATHS"] = {"CHECKPOINT_FILE": str(source)}
    del config["DATA"]["PATCH_SIZE"]
    outcome, said = run_and_listen(config, tmp_path, name="tuned")
    (line,) = [line for line in said if line.startswith("starting weights: ")]
    assert "new: head (2 -> 3 classes; rows background copied)" in line
    assert "stem: 1 -> 3 channels, weights repeated and divided by 3" in line
    model, classes = plan_of(outcome)["MODEL"], plan_of(outcome)["CLASSES"]["NAMES"]
    assert (model["ARCHITECTURE"], model["FEATURE_MAPS"], model["NORMALIZATION"], len(classes)) == ("resunet", [4, 8], "gn", 3)
    assert plan_of(outcome)["PATCH_SIZE"] == [32, 32]
    assert plan_of(outcome)["CONFIG"]["DATA"]["NORMALIZATION"]["TYPE"] == "div"
    assert f"MODEL = resunet (4, 8): the network of {source}; keys that are given stay" in said
    assert len(log_rows(outcome)) == 1
    shown = crista.make_plan(config_from_dict(config).config)  # as `crista plan` does
    assert (shown.model.architecture, shown.model.feature_maps, shown.patch_size) == ("resunet", (4, 8), (32, 32))


def test_a_network_of_other_axes_is_refused(data: Path, tmp_path: Path) -> None:
    source = only_train(data, tmp_path, name="source").folder.checkpoint_best
    deep = write_data(tmp_path / "deep", shape=(8, 32, 32), train=2, test=1)
    change = {"MODEL": {"LOAD_CHECKPOINT": True, "SKIP_UNMATCHED_LAYERS": True}, "PATHS": {"CHECKPOINT_FILE": str(source)}}
    with pytest.raises(PlanError, match=r"the checkpoint is of a 2D network, the images are 3D: its weights do not fit"):
        only_train(deep, tmp_path, change, ndim=3)


def test_fine_tuning_without_a_checkpoint_says_so_before_training(data: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"MODEL\.LOAD_CHECKPOINT.*PATHS\.CHECKPOINT_FILE is empty"):
        only_train(data, tmp_path, {"MODEL": {"LOAD_CHECKPOINT": True}})


def test_runs_beside_each_other_and_the_table_over_them(data: Path, tmp_path: Path) -> None:
    means = []
    for run_id in (1, 2, 3):
        config = job(data, {"SYSTEM": {"SEED": run_id}})
        outcome = run(config, result_dir=tmp_path, name="job", run_id=run_id)
        means.append(float(table(outcome.folder.test_results_metrics)["mean"]["per_image_iou"]))
    root = tmp_path / "job"
    assert sorted(path.name for path in (root / "results").iterdir()) == ["job_1", "job_2", "job_3", "runs_summary.csv"]
    assert len(list((root / "checkpoints").iterdir())) == 6
    assert sorted(path.name for path in (root / "config_files").iterdir()) == [f"job_{i}.yaml" for i in (1, 2, 3)]
    rows = table(root / "results" / "runs_summary.csv")
    assert list(rows) == ["1", "2", "3", "mean", "sd"]
    assert [float(rows[str(i)]["per_image_iou"]) for i in (1, 2, 3)] == pytest.approx(means, abs=1e-6)
    assert float(rows["mean"]["per_image_iou"]) == pytest.approx(fmean(means), abs=1e-6)
    assert float(rows["sd"]["per_image_iou"]) == pytest.approx(stdev(means), rel=1e-3)
    assert len(set(means)) > 1


def test_the_yaml_is_kept_to_the_letter_and_overwritten_by_the_next_run(data: Path, tmp_path: Path) -> None:
    yaml = "\n".join(
        [
            "# my job",
            "PROBLEM: {TYPE: SEMANTIC_SEG, NDIM: 2D}",
            "DATA:",
            "    PATCH_SIZE: (32, 32, 1)",
            f"    TRAIN: {{PATH: {data}/train/x, GT_PATH: {data}/train/y}}",
            "MODEL: {FEATURE_MAPS: [4, 8]}",
            "TRAIN: {ENABLE: True, EPOCHS: 1, LR: 1.E-3}",
        ]
    )
    path = tmp_path / "my job.yaml"
    path.write_text(yaml)
    outcome = crista.run(path, result_dir=tmp_path)
    assert outcome.folder.config_file.name == "my job_1.yaml"
    assert outcome.folder.config_file.read_text() == yaml
    path.write_text(yaml.replace("# my job", "# my second job"))
    crista.run(path, result_dir=tmp_path)
    assert outcome.folder.config_file.read_text().startswith("# my second job")


def test_python_and_the_command_line_are_one(data: Path, tmp_path: Path) -> None:
    from crista.cli.main import main

    config = job(data)
    outcome = crista.run(config, result_dir=tmp_path / "python", name="job", overrides=["TRAIN.EPOCHS=1"])
    assert len(log_rows(outcome)) == 1
    arguments = ["--config", str(outcome.folder.config_file), "--result_dir", str(tmp_path / "shell"), "--name", "job"]
    assert main([*arguments, "--set", "TRAIN.EPOCHS=1"]) == 0
    shell = tmp_path / "shell" / "job"
    assert same_weights(outcome.folder.checkpoint_best, shell / "checkpoints" / "job_1-checkpoint-best.pth")
    with (shell / "results/job_1/test_results_metrics.csv").open() as one, outcome.folder.test_results_metrics.open() as other:
        assert list(csv.reader(one)) == list(csv.reader(other))


def test_only_training_predicts_nothing(data: Path, tmp_path: Path) -> None:
    outcome = crista.train(job(data), result_dir=tmp_path, name="job")
    assert outcome.folder.checkpoint_best.is_file()
    assert not outcome.folder.per_image.exists()
    assert outcome.metrics == {}


def test_check_and_plan_write_nothing(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert crista.check(job(data)).problems == ()
    assert crista.make_plan(job(data)).epochs == 2
    assert list(tmp_path.iterdir()) == []
