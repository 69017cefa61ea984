"""The test phase with one trained network: what each key of TEST changes, and only that."""

from __future__ import annotations

import csv
import re
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.jobs import (
    foreground_iou,
    job,
    labels,
    pixels,
    predict_only,
    run_and_listen,
    same_weights,
    table,
    write_data,
    write_pairs,
)

import crista
from crista.cli.inspection import definitions_of, estimate_table
from crista.config.augmentor import Augmentor
from crista.errors import CheckpointError, ConfigError, CristaError, DataError, PlanError
from crista.geometry.spacing import Spacing
from crista.images.open import open_image
from crista.images.write import write_image
from crista.metrics import DEFINITIONS, find_estimate
from crista.results.run_report import write_run_report
from crista.training.checkpoint import load_checkpoint, save_checkpoint
from crista.workflow.api import Outcome, run
from crista.workflow.evaluate import Evaluation

pytestmark = pytest.mark.usefixtures("no_drawings_in_module")
POOLED = "Foreground IoU, reconstructed image (all pixels pooled)"
TRAINED = {"TRAIN": {"EPOCHS": 12}}


class Trained:
    """Data and the checkpoint of a network that was trained on them."""

    def __init__(self, folder: Path, num_classes: int) -> None:
        self.num_classes = num_classes
        self.data = write_data(folder / "data", num_classes=num_classes, shape=(48, 56))
        self.first = run(self.config(TRAINED), result_dir=folder / "train", name="job")
        self.checkpoint = self.first.folder.checkpoint_best
        assert self.first.metrics[POOLED] > 0.3  # labels worth looking at

    def config(self, *changes: dict[str, Any]) -> dict[str, Any]:
        """The job that was trained, with changes."""
        return job(self.data, *changes, num_classes=self.num_classes)

    def predict(self, where: Path, *changes: dict[str, Any]) -> Outcome:
        """Predict with the network and changed settings."""
        return run(self.config(predict_only(self.checkpoint), *changes), result_dir=where, name="job")


@pytest.fixture(scope="module")
def binary(tmp_path_factory: pytest.TempPathFactory, no_drawings_in_module: None) -> Iterator[Trained]:
    return Trained(tmp_path_factory.mktemp("binary"), 2)


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory, no_drawings_in_module: None) -> Iterator[Trained]:
    return Trained(tmp_path_factory.mktemp("three"), 3)


def test_a_checkpoint_alone_gives_the_same_labels(binary: Trained, tmp_path: Path) -> None:
    again = binary.predict(tmp_path)
    assert again.metrics == binary.first.metrics
    for path in binary.first.folder.per_image_binarized.iterdir():
        np.testing.assert_array_equal(labels(path, 2), labels(again.folder.per_image_binarized / path.name, 2))
    assert not again.folder.checkpoints.exists()
    assert not again.folder.train_log.exists()


def test_what_the_network_does_not_take_from_the_file_is_said(binary: Trained, tmp_path: Path) -> None:
    change = {"DATA": {"NORMALIZATION": {"TYPE": "div"}}, "MODEL": {"ACTIVATION": "tanh"}}
    outcome, said = run_and_listen(binary.config(predict_only(binary.checkpoint), change), tmp_path)
    kept = "DATA.NORMALIZATION, MODEL.ACTIVATION have no effect: a trained network keeps what it was trained with"
    assert any(line.startswith(kept) for line in said)
    assert outcome.metrics == binary.first.metrics


def test_own_checkpoint_is_found_without_a_path(binary: Trained, tmp_path: Path) -> None:
    """The best or the last one, as asked: each is found where the other is not there."""
    for epoch, name in (("best_on_val", "best"), ("last_on_train", "last")):
        source = binary.first.folder.checkpoints / f"job_1-checkpoint-{name}.pth"
        (tmp_path / name / "job/checkpoints").mkdir(parents=True)
        shutil.copy(source, tmp_path / name / "job/checkpoints")
        change = {"TRAIN": {"ENABLE": False}, "MODEL": {"LOAD_CHECKPOINT": True, "LOAD_CHECKPOINT_EPOCH": epoch}}
        found = run(binary.config(change), result_dir=tmp_path / name, name="job").metrics
        assert found == run(binary.config(predict_only(source)), result_dir=tmp_path / f"{name}_given", name="job").metrics


def test_the_last_network_is_the_one_that_was_validated(binary: Trained, tmp_path: Path) -> None:
    """Where weights are averaged, the checkpoint to resume from holds those of the last step too, which nobody has measured."""
    steps = {"TRAIN": {"EPOCHS": 1, "EMA": True, "LR_SCHEDULER": {"NAME": ""}}, "DATA": {"TRAIN": {"REPLICATE": 20}}}
    trained = run(binary.config(steps, {"TEST": {"ENABLE": False}}), result_dir=tmp_path, name="job")
    assert not same_weights(trained.folder.checkpoint_best, trained.folder.checkpoint_last)
    probable = {"DATA": {"TEST": {"ARGMAX_TO_OUTPUT": False}}}
    best, last = (
        run(binary.config(predict_only(path), probable), result_dir=tmp_path / path.stem, name="job")
        for path in (trained.folder.checkpoint_best, trained.folder.checkpoint_last)
    )
    assert last.metrics == best.metrics
    for path in best.folder.per_image.iterdir():
        np.testing.assert_array_equal(pixels(path, 2), pixels(last.folder.per_image / path.name, 2))


def test_without_any_checkpoint_the_message_names_the_file(binary: Trained, tmp_path: Path) -> None:
    change = {"TRAIN": {"ENABLE": False}, "MODEL": {"LOAD_CHECKPOINT": True}}
    with pytest.raises(CheckpointError, match=r"new_1-checkpoint-best\.pth: no such checkpoint.*PATHS\.CHECKPOINT_FILE"):
        run(binary.config(change), result_dir=tmp_path, name="new")
    assert not (tmp_path / "new" / "results" / "new_1" / "per_image").exists()


def test_nothing_to_do_is_said(binary: Trained, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"TRAIN\.ENABLE.*TEST\.ENABLE.*nothing to do"):
        run(binary.config({"TRAIN": {"ENABLE": False}, "TEST": {"ENABLE": False}}), result_dir=tmp_path, name="job")


@pytest.mark.parametrize("key", [{"FULL_IMG": True}, {"STATS": {"FULL_IMG": True}}])
def test_full_image_by_the_new_and_the_old_key(binary: Trained, tmp_path: Path, key: dict[str, Any]) -> None:
    outcome = binary.predict(tmp_path, {"TEST": key})
    folder = outcome.folder
    for name in ("00.tif", "01.tif"):  # one tile holds each image, so both ways are the same prediction
        np.testing.assert_array_equal(labels(folder.full_image_binarized / name, 2), labels(folder.per_image_binarized / name, 2))
    assert outcome.metrics["Foreground IoU, full image (mean over images)"] == pytest.approx(
        outcome.metrics["Foreground IoU, reconstructed image (mean over images)"]
    )


def test_padding_is_the_least_context_so_an_image_that_fits_is_one_piece(binary: Trained, tmp_path: Path) -> None:
    change = {"DATA": {"TEST": {"PADDING": (8, 8), "ARGMAX_TO_OUTPUT": False}}, "TEST": {"FULL_IMG": True}}
    folder = binary.predict(tmp_path, change).folder
    np.testing.assert_array_equal(pixels(folder.per_image / "00.tif", 2), pixels(folder.full_image / "00.tif", 2))


@pytest.mark.parametrize("cut", [{"OVERLAP": (0.5, 0.5)}, {"PADDING": (0, 0), "OVERLAP": (0.25, 0.25)}])
def test_patches_of_the_test_phase(binary: Trained, tmp_path: Path, cut: dict[str, Any]) -> None:
    """Cut as asked, put together without loss: nearly the labels of the whole image, and the keys do something."""
    outcome = binary.predict(tmp_path, {"DATA": {"TEST": {**cut, "ARGMAX_TO_OUTPUT": False}}, "TEST": {"FULL_IMG": True}})
    folder = outcome.folder
    tiled, full = pixels(folder.per_image / "00.tif", 2), pixels(folder.full_image / "00.tif", 2)
    assert 0 < np.abs(tiled - full).max() < 0.5
    assert (tiled.argmax(0) == full.argmax(0)).mean() > 0.97
    assert outcome.metrics["Foreground IoU per patch (mean)"] != outcome.metrics[POOLED]


@pytest.mark.parametrize("mode", ["mean", "min", "max"])
def test_test_time_augmentation(three: Trained, tmp_path: Path, mode: str) -> None:
    change = {"TEST": {"AUGMENTATION": True, "AUGMENTATION_MODE": mode}, "DATA": {"TEST": {"ARGMAX_TO_OUTPUT": False}}}
    outcome = three.predict(tmp_path, change)
    values = pixels(outcome.folder.per_image / "00.tif", 2)
    np.testing.assert_allclose(values.sum(axis=0), 1, atol=1e-5)
    assert (labels(three.first.folder.per_image_binarized / "00.tif", 2) != values.argmax(axis=0)).any()


def test_prediction_with_augmentation_turns_with_the_image(binary: Trained, tmp_path: Path) -> None:
    """With all orientations averaged, the prediction of a turned image is the turned prediction."""
    image = pixels(binary.data / "test/x/00.tif", 2)[0][:48, :48]
    write_image(tmp_path / "x" / "a.tif", image, "YX")
    write_image(tmp_path / "x" / "b.tif", np.ascontiguousarray(np.rot90(image)), "YX")
    overrides = ["TEST.AUGMENTATION=True", "DATA.TEST.ARGMAX_TO_OUTPUT=False"]
    folder = crista.predict(binary.checkpoint, tmp_path / "x", result_dir=tmp_path / "out", overrides=overrides).folder
    straight, turned = pixels(folder.per_image / "a.tif", 2), pixels(folder.per_image / "b.tif", 2)
    np.testing.assert_allclose(np.rot90(straight, axes=(1, 2)), turned, atol=1e-5)


@pytest.mark.parametrize(
    ("trained", "group", "count", "warned"),
    [
        ({"VFLIP": True, "HFLIP": True}, "auto", 4, None),
        ({"VFLIP": True, "HFLIP": True}, "full", 8, "4 of which.*AUGMENTATION_GROUP: auto"),
        ({"VFLIP": True, "HFLIP": True}, "flips", 4, None),
        ({}, "auto", 8, "7 of which.*Measure both$"),
    ],
)
def test_augmentation_keeps_to_the_orientations_of_the_training(
    binary: Trained, tmp_path: Path, trained: dict[str, bool], group: str, count: int, warned: str | None
) -> None:
    """Of the training, which is in the checkpoint: the AUGMENTOR of the configuration that predicts is another thing."""
    checkpoint = load_checkpoint(binary.checkpoint)
    shown = Augmentor.model_validate({"ENABLE": True, **trained})
    config = checkpoint.plan.config.model_copy(update={"augmentor": shown})
    flipped = tmp_path / "flipped.pth"
    save_checkpoint(flipped, replace(checkpoint, plan=checkpoint.plan.model_copy(update={"config": config})))
    changes = {"AUGMENTOR": {"ENABLE": True, "ROT90": True}, "TEST": {"AUGMENTATION": True, "AUGMENTATION_GROUP": group}}
    _, said = run_and_listen(binary.config(predict_only(flipped), changes), tmp_path)
    assert any(line.startswith(f"TEST.AUGMENTATION = {count} orientations: ") for line in said)
    warnings = [line for line in said if line.startswith("TEST.AUGMENTATION averages over")]
    assert len(warnings) == (warned is not None)
    assert warned is None or re.search(warned, warnings[0])


def test_border_crop_leaves_the_border_out_of_the_figures_alone(binary: Trained, tmp_path: Path) -> None:
    outcome = binary.predict(tmp_path, {"TEST": {"EVAL_BORDER_CROP": (10, 6)}})
    rows = table(outcome.folder.test_results_metrics)
    for name in ("00", "01"):
        label = labels(outcome.folder.per_image_binarized / f"{name}.tif", 2)
        np.testing.assert_array_equal(label, labels(binary.first.folder.per_image_binarized / f"{name}.tif", 2))
        truth = labels(binary.data / f"test/y/{name}.tif", 2)
        expected = foreground_iou(truth[10:-10, 6:-6], label[10:-10, 6:-6])
        assert float(rows[name]["per_image_iou"]) == pytest.approx(expected, abs=1e-6)
        # 28 × 44 are left, which patches of 32 × 32 cover by two
        patches = [foreground_iou(truth[10:-10, x : x + 32], label[10:-10, x : x + 32]) for x in (6, 18)]
        assert float(rows[name]["patch_iou"]) == pytest.approx(np.mean(patches), abs=1e-6)


def test_a_border_crop_that_leaves_nothing_is_refused(binary: Trained, tmp_path: Path) -> None:
    with pytest.raises(CristaError, match=r"TEST\.EVAL_BORDER_CROP.*leaves nothing of 0\d\.tif"):
        binary.predict(tmp_path, {"TEST": {"EVAL_BORDER_CROP": (24, 6)}})


def test_a_border_crop_for_other_axes_is_refused(binary: Trained, tmp_path: Path) -> None:
    with pytest.raises(CristaError, match=r"TEST\.EVAL_BORDER_CROP.*3 values.*2 axes"):
        binary.predict(tmp_path, {"TEST": {"EVAL_BORDER_CROP": (1, 2, 3)}})


@pytest.mark.parametrize("threshold", [0.2, 0.8])
def test_one_threshold_for_labels_and_figures(binary: Trained, tmp_path: Path, threshold: float) -> None:
    outcome = binary.predict(tmp_path, {"TEST": {"THRESHOLD": threshold}, "DATA": {"TEST": {"ARGMAX_TO_OUTPUT": False}}})
    rows = table(outcome.folder.test_results_metrics)
    for name in ("00", "01"):
        label = labels(outcome.folder.per_image_binarized / f"{name}.tif", 2)
        probability = pixels(outcome.folder.per_image / f"{name}.tif", 2)[1]
        np.testing.assert_array_equal(label, probability > threshold)
        truth = labels(binary.data / f"test/y/{name}.tif", 2)
        assert float(rows[name]["per_image_iou"]) == pytest.approx(foreground_iou(truth, label), abs=1e-6)


STACKED = {"TEST": {"ANALIZE_2D_IMGS_AS_3D_STACK": True}}


def z_filter(size: int) -> dict[str, Any]:
    return {"TEST": {"POST_PROCESSING": {"Z_FILTERING": True, "Z_FILTERING_SIZE": size}}}


@pytest.fixture
def slices(tmp_path: Path) -> dict[str, Any]:
    """Five test images of one size: the slices of a volume."""
    folder = write_pairs(tmp_path / "slices", [(48, 56)] * 5, seed=5)
    return {"DATA": {"TEST": {"PATH": str(folder / "x"), "GT_PATH": str(folder / "y")}}}


def test_slices_as_a_stack(binary: Trained, slices: dict[str, Any], tmp_path: Path) -> None:
    """Without a filter: the stack is the slices and is measured."""
    outcome = binary.predict(tmp_path, slices, STACKED)
    stack = labels(outcome.folder.as_3d_stack / "stack.tif", 3)
    assert stack.shape == (5, 48, 56)
    for z, path in enumerate(sorted(outcome.folder.per_image_binarized.iterdir())):
        np.testing.assert_array_equal(stack[z], labels(path, 2))
    truth = np.stack([labels(path, 2) for path in sorted(Path(slices["DATA"]["TEST"]["GT_PATH"]).iterdir())])
    row = table(outcome.folder.test_results_metrics)["stack"]
    assert float(row["stack_iou"]) == pytest.approx(foreground_iou(truth, stack), abs=1e-6)
    assert not outcome.folder.full_post_processing.exists()


def test_slices_as_a_filtered_stack(binary: Trained, slices: dict[str, Any], tmp_path: Path) -> None:
    outcome = binary.predict(tmp_path, slices, STACKED, z_filter(3))
    before, after = (labels(path / "stack.tif", 3) for path in (outcome.folder.as_3d_stack, outcome.folder.full_post_processing))
    expected = np.median(np.stack([before[:-2], before[1:-1], before[2:]]), axis=0)
    np.testing.assert_array_equal(after[1:-1], expected)
    truth = np.stack([labels(path, 2) for path in sorted(Path(slices["DATA"]["TEST"]["GT_PATH"]).iterdir())])
    row = table(outcome.folder.test_results_metrics)["stack"]
    assert float(row["post_processing_iou"]) == pytest.approx(foreground_iou(truth, after), abs=1e-6)
    assert "Foreground IoU, after post-processing (mean over images)" in outcome.metrics


def test_a_stack_of_several_classes_is_filtered_by_probability(three: Trained, tmp_path: Path) -> None:
    folder = write_pairs(tmp_path / "slices", [(48, 56)] * 5, num_classes=3, seed=5)
    where = {"DATA": {"TEST": {"PATH": str(folder / "x"), "GT_PATH": str(folder / "y"), "ARGMAX_TO_OUTPUT": False}}}
    outcome = three.predict(tmp_path, where, STACKED, z_filter(3))
    after = labels(outcome.folder.full_post_processing / "stack.tif", 3)
    raw = np.stack([pixels(path, 2) for path in sorted(outcome.folder.per_image.iterdir())], axis=1)
    expected = np.median(np.stack([raw[:, :-2], raw[:, 1:-1], raw[:, 2:]]), axis=0).argmax(axis=0)
    np.testing.assert_array_equal(after[1:-1], expected)
    truth = np.stack([labels(path, 2) for path in sorted((folder / "y").iterdir())])
    row = table(outcome.folder.test_results_metrics)["stack"]
    assert float(row["post_processing_iou"]) == pytest.approx(foreground_iou(truth, after), abs=1e-6)


def test_a_stack_of_several_classes_without_filter(three: Trained, tmp_path: Path) -> None:
    outcome = three.predict(tmp_path, STACKED)
    assert set(np.unique(labels(outcome.folder.as_3d_stack / "stack.tif", 3))) <= {0, 1, 2}
    assert "Foreground IoU, as 3D stack (mean over images)" in outcome.metrics


def test_the_label_images_that_are_named_are_those_of_this_run(binary: Trained, tmp_path: Path) -> None:
    """With a filter, then without it, and once more, when nothing is left to predict."""
    median = {"TEST": {"POST_PROCESSING": {"MEDIAN_FILTER": True, "MEDIAN_FILTER_AXIS": ["yx"], "MEDIAN_FILTER_SIZE": [3]}}}
    folder = binary.predict(tmp_path, median).folder
    for _ in range(2):
        binary.predict(tmp_path)
        (folder.full_post_processing / "notes.txt").write_text("looked at it")
    lines = [line[9:] for line in folder.log_txt.read_text().splitlines()]  # without the time
    named = [line.removeprefix("label images: ") for line in lines if line.startswith("label images: ")]
    assert named == list(map(str, (folder.full_post_processing, folder.per_image_binarized, folder.per_image_binarized)))


def test_a_volume_before_a_2d_network_is_told_what_can_be_done(binary: Trained, tmp_path: Path) -> None:
    """PROBLEM.NDIM of a trained network cannot be changed: it is no advice."""
    write_image(tmp_path / "a.tif", np.zeros((5, 48, 56), np.uint8), "ZYX")
    with pytest.raises(DataError, match=r"but the task is 2D(?s:.*)TEST\.ANALIZE_2D_IMGS_AS_3D_STACK: True") as caught:
        crista.predict(binary.checkpoint, tmp_path / "a.tif", result_dir=tmp_path / "out")
    assert "NDIM" not in str(caught.value)
    assert "set DATA.TEST.INPUT_IMG_AXES_ORDER" in str(caught.value)


def test_images_of_different_sizes_are_no_stack(binary: Trained, tmp_path: Path) -> None:
    folder = write_pairs(tmp_path / "slices", [(48, 56), (48, 40)])
    where = {"DATA": {"TEST": {"PATH": str(folder / "x"), "GT_PATH": str(folder / "y")}}}
    with pytest.raises(CristaError, match=r"(?s)ANALIZE_2D_IMGS_AS_3D_STACK.*(48 × 40|01)"):
        binary.predict(tmp_path / "out", where, STACKED)
    assert not list((tmp_path / "out").rglob("*.tif"))


def test_log_tables_evaluate_and_report_say_the_same(three: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Four images, so that there are intervals; each figure, to the last digit that is shown."""
    monkeypatch.setattr("crista.workflow.run.write_run_report", write_run_report)  # not skipped here
    folder = write_pairs(tmp_path / "more", [(48, 56), (40, 44), (52, 60), (48, 48)], num_classes=3, seed=5)
    where = {"DATA": {"TEST": {"PATH": str(folder / "x"), "GT_PATH": str(folder / "y")}}}
    outcome = three.predict(tmp_path / "out", where)
    log, page = outcome.folder.log_txt.read_text(), outcome.folder.report_html.read_text()
    names = ("background", "class 1", "class 2")
    found = crista.evaluate(folder / "y", outcome.folder.per_image_binarized, num_classes=3, class_names=names)
    titles = {"iou": "IoU", "dice": "Dice", "nsd": "NSD"}
    with outcome.folder.test_results_summary.open(newline="") as file:
        rows = {(row["measure"], row["of"], row["over"]): row for row in csv.DictReader(file)}
    assert len(rows) == len(found.estimates) == 3 * 4 * 2
    for figure in found.estimates:
        row = rows[figure.measure, figure.of, figure.over]
        assert [row["value"], row["low"], row["high"]] == [f"{v:.6f}" for v in (figure.value, figure.low, figure.high)]
        assert row["num_images"] == str(figure.num_images) == "4"
        assert f"{titles[figure.measure]} of {figure.of}: " in log
        assert str(figure) in log
        if (figure.measure, figure.over) != ("nsd", "pixels"):
            assert f"<td>{figure.value:.4f}<small>[{figure.low:.4f}, {figure.high:.4f}]</small></td>" in page
    iou, nsd = (find_estimate(found.estimates, m, "all foreground", "images") for m in ("iou", "nsd"))
    assert (
        outcome.metrics["Foreground IoU, reconstructed image (mean over images)"] == iou.value == found.summary["foreground_iou"]
    )
    assert outcome.metrics["Foreground NSD, reconstructed image (mean over images)"] == nsd.value
    mean = table(outcome.folder.test_results_metrics)["mean"]
    assert (mean["per_image_iou"], mean["per_image_nsd"]) == (f"{iou.value:.6f}", f"{nsd.value:.6f}")
    assert f"<b>{iou.value:.4f}</b><i>95 % [{iou.low:.4f}, {iou.high:.4f}]</i>" in page
    assert len(table(outcome.folder.label_next)) >= 4
    assert page.count('<article class="example">') == 3
    assert "NSD of all foreground" in "".join(definitions_and_rows(found))


def definitions_and_rows(found: Evaluation) -> list[str]:
    """What `crista evaluate` prints below its table of images."""
    headers, rows = estimate_table(found)
    assert len(headers) == len(rows[0]) == 3
    assert all(DEFINITIONS[key].text in " ".join(definitions_of(found)) for key in ("iou", "dice", "nsd", "interval"))
    return [cell for row in rows for cell in row]


def test_without_labels_the_report_ranks_by_uncertainty(binary: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("crista.workflow.run.write_run_report", write_run_report)
    folder = write_pairs(tmp_path / "more", [(48, 56)] * 4, seed=6)
    outcome = binary.predict(tmp_path / "out", {"DATA": {"TEST": {"PATH": str(folder / "x"), "LOAD_GT": False}}})
    page, rows = outcome.folder.report_html.read_text(), list(table(outcome.folder.label_next).values())
    assert [word in page for word in ("least sure", "typical", "surest", "no label yet", "mean uncertainty")] == [True] * 5
    assert {row["labelled"] for row in rows} == {"no"}
    values = [float(row["uncertainty"]) for row in rows]
    assert values == sorted(values, reverse=True)
    assert 0 < values[-1] <= values[0] <= 1


def test_an_image_called_stack_does_no_harm(binary: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("crista.workflow.run.write_run_report", write_run_report)  # not skipped here
    folder = write_pairs(tmp_path / "slices", [(48, 56)] * 2)
    for kind in "xy":
        (folder / kind / "00.tif").rename(folder / kind / "stack.tif")
    where = {"DATA": {"TEST": {"PATH": str(folder / "x"), "GT_PATH": str(folder / "y")}}}
    outcome = binary.predict(tmp_path / "out", where, STACKED, z_filter(3))
    assert labels(outcome.folder.per_image_binarized / "stack.tif", 2).shape == (48, 56)
    assert outcome.folder.report_html.is_file()


def test_filters_of_single_images(binary: Trained, tmp_path: Path) -> None:
    """2D: a filter over y and x works on the image; one along z has no effect and says so."""
    median = {"POST_PROCESSING": {"MEDIAN_FILTER": True, "MEDIAN_FILTER_AXIS": ["yx"], "MEDIAN_FILTER_SIZE": [4]}}
    outcome = binary.predict(tmp_path / "a", {"TEST": median})
    from scipy.ndimage import median_filter  # the reference

    label = labels(outcome.folder.per_image_binarized / "00.tif", 2)
    cleaned = labels(outcome.folder.full_post_processing / "00.tif", 2)
    np.testing.assert_array_equal(cleaned[3:-3, 3:-3], median_filter(label, 5)[3:-3, 3:-3])
    outcome, said = run_and_listen(binary.config(predict_only(binary.checkpoint), z_filter(5)), tmp_path / "b")
    assert any("Z_FILTERING has no effect: PROBLEM.NDIM is 2D" in line for line in said)
    assert not outcome.folder.full_post_processing.exists()


def test_without_labels_there_are_predictions_and_no_figures(binary: Trained, tmp_path: Path) -> None:
    change = {"DATA": {"TEST": {"LOAD_GT": False}}}
    outcome, said = run_and_listen(binary.config(predict_only(binary.checkpoint), change), tmp_path)
    assert len(list(outcome.folder.per_image_binarized.iterdir())) == 2
    assert outcome.metrics == {}
    assert not outcome.folder.test_results_metrics.exists()
    assert any("no label images to measure against" in line for line in said)


def test_predict_a_folder_and_a_file(binary: Trained, tmp_path: Path) -> None:
    """Only a checkpoint and images are needed; voxel size and names come through."""
    image = pixels(binary.data / "test/x/00.tif", 2)[0]
    write_image(tmp_path / "new" / "cell 1.tif", image, "YX", spacing=Spacing((0.5, 0.25)))
    folder = crista.predict(binary.checkpoint, tmp_path / "new", result_dir=tmp_path / "a").folder
    single = crista.predict(str(binary.checkpoint), tmp_path / "new" / "cell 1.tif", result_dir=str(tmp_path / "b")).folder
    assert folder.name == "job_1_prediction"
    for found in (folder, single):
        written = open_image(found.per_image_binarized / "cell 1.tif", ndim=2)
        np.testing.assert_array_equal(written.read()[0], labels(binary.first.folder.per_image_binarized / "00.tif", 2))
        assert written.spacing is not None
        np.testing.assert_allclose(written.spacing.values, (0.5, 0.25), rtol=1e-5)


def test_predict_measures_where_labels_are_given(binary: Trained, tmp_path: Path) -> None:
    test = binary.data / "test"
    outcome = crista.predict(binary.checkpoint, test / "x", labels=test / "y", result_dir=tmp_path)
    assert outcome.metrics == binary.first.metrics


def test_predict_refuses_images_of_another_kind(binary: Trained, tmp_path: Path) -> None:
    write_image(tmp_path / "a.tif", np.zeros((40, 40, 3), np.uint8), "YXC")
    with pytest.raises(DataError, match=r"a\.tif: has 3 channels, the network was trained on 1 channel\n"):
        crista.predict(binary.checkpoint, tmp_path / "a.tif", result_dir=tmp_path / "out")
    write_image(tmp_path / "b.tif", np.zeros((6, 40, 40), np.uint8), "ZYX")
    with pytest.raises(DataError, match=r"b\.tif"):
        crista.predict(binary.checkpoint, tmp_path / "b.tif", result_dir=tmp_path / "out")


def test_voxels_of_another_size_are_warned_of_with_the_factor(tmp_path: Path) -> None:
    data = write_data(tmp_path / "data", spacing=(0.2, 0.2))
    checkpoint = run(job(data, {"TRAIN": {"EPOCHS": 1}}), result_dir=tmp_path / "train", name="job").folder.checkpoint_best
    for name, spacing in (("same", (0.2, 0.2)), ("other", (0.5, 0.4))):
        folder = write_pairs(tmp_path / name, [(48, 48)], spacing=spacing)
        change = {"DATA": {"TEST": {"PATH": str(folder / "x"), "GT_PATH": str(folder / "y")}}}
        _, said = run_and_listen(job(data, predict_only(checkpoint), change), tmp_path / f"out_{name}")
        assert any("2.5 × 2 times those that the network was trained on" in line for line in said) == (name == "other")


def test_padding_that_leaves_nothing_is_refused_for_a_trained_network_too(binary: Trained, tmp_path: Path) -> None:
    with pytest.raises(PlanError, match=r"DATA\.TEST\.PADDING: 16 along y leaves 0 of a patch of 32"):
        binary.predict(tmp_path, {"DATA": {"TEST": {"PADDING": (16, 16)}}})


def test_foreground_free_images(binary: Trained, tmp_path: Path) -> None:
    """Nothing there and nothing found: 1, with the rule; BiaPy's number for it stays 0."""
    write_image(tmp_path / "x" / "a.tif", np.full((48, 48), 40, np.uint8), "YX")
    write_image(tmp_path / "y" / "a.tif", np.zeros((48, 48), np.uint8), "YX")
    overrides = ["TEST.THRESHOLD=0.999"]
    outcome = crista.predict(
        binary.checkpoint, tmp_path / "x", labels=tmp_path / "y", result_dir=tmp_path / "out", overrides=overrides
    )
    assert not labels(outcome.folder.per_image_binarized / "a.tif", 2).any()
    assert outcome.metrics["Foreground IoU, reconstructed image (mean over images)"] == 1
    assert outcome.metrics["BiaPy's Test Foreground IoU (merge patches)"] == 0
    assert "predicted as such, has a foreground IoU and Dice of 1" in outcome.folder.log_txt.read_text()


def test_images_without_a_counted_pixel(binary: Trained, tmp_path: Path) -> None:
    """Labels that are ignored throughout give no figures, and no error."""
    train = binary.data / "train"
    config = job(binary.data, {"LOSS": {"IGNORE_INDEX": 255}})
    config["DATA"]["TRAIN"] = {"PATH": str(train / "x"), "GT_PATH": str(train / "y")}
    write_image(tmp_path / "y" / "00.tif", np.full((48, 56), 255, np.uint8), "YX")
    write_image(tmp_path / "x" / "00.tif", pixels(binary.data / "test/x/00.tif", 2)[0], "YX")
    config["DATA"]["TEST"].update(PATH=str(tmp_path / "x"), GT_PATH=str(tmp_path / "y"))
    outcome = run(config, result_dir=tmp_path / "out", name="job")
    assert (outcome.folder.per_image_binarized / "00.tif").is_file()
    assert np.isnan(outcome.metrics["Foreground IoU, reconstructed image (mean over images)"])


def test_same_seed_same_checkpoint(binary: Trained, tmp_path: Path) -> None:
    again = run(binary.config(TRAINED), result_dir=tmp_path, name="job")
    assert same_weights(again.folder.checkpoint_best, binary.checkpoint)
