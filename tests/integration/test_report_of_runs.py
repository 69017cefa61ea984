"""What the report and the files beside it say of unusual runs: parts of images, stacks, odd names, other networks."""

from __future__ import annotations

import json
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.jobs import job, labels, predict_only, run_and_listen, table, write_data, write_pairs

import crista
from crista.images.image import ImagePair, crop_image
from crista.images.open import open_image
from crista.images.write import write_image
from crista.inference.record import ImageRecord
from crista.plan.plan import Plan
from crista.results.log import read_warnings
from crista.results.run_pictures import _read
from crista.workflow.api import Outcome, run

ONE = {"TRAIN": {"EPOCHS": 1}}
VALIDATION = {"DATA": {"VAL": {"SPLIT_TRAIN": 0.25, "RANDOM": False}, "TEST": {"USE_VAL_AS_TEST": True}}}
RANGE = ("TEST.BY_CHUNKS.ENABLE=True", "TEST.BY_CHUNKS.Z_START=3", "TEST.BY_CHUNKS.Z_END=6")
LAST_FOLD = {"DATA": {"VAL": {"CROSS_VAL": True, "CROSS_VAL_NFOLD": 3, "CROSS_VAL_FOLD": 3}, "TEST": {"USE_VAL_AS_TEST": True}}}
STACKED = {"TEST": {"ANALIZE_2D_IMGS_AS_3D_STACK": True}}


def page_of(outcome: Outcome) -> str:
    """The report without its pictures."""
    return re.sub(r'"data:image/[^"]+"', '""', outcome.folder.report_html.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def plane(tmp_path_factory: pytest.TempPathFactory) -> tuple[Outcome, Path]:
    """A network for images, and its data."""
    folder = tmp_path_factory.mktemp("plane")
    data = write_data(folder / "data", shape=(48, 56))
    return run(job(data, ONE), result_dir=folder / "train", name="job"), data


@pytest.fixture(scope="module")
def volume(tmp_path_factory: pytest.TempPathFactory) -> tuple[Outcome, Path]:
    """A network for volumes that trained on one alone: the last third of it, from x = 64, validates and is measured."""
    folder = tmp_path_factory.mktemp("volume")
    data = write_data(folder / "data", train=1, test=1, shape=(9, 36, 96), spacing=(0.3, 0.1, 0.1))
    return run(job(data, ONE, LAST_FOLD, ndim=3), result_dir=folder / "train", name="job"), data


def test_a_part_of_an_image_is_not_told_as_an_image_that_was_kept_aside(volume: tuple[Outcome, Path]) -> None:
    page = page_of(volume[0])
    assert "These images were trained on too" in page
    assert "These images were not trained on" not in page
    assert "Tolerance of NSD: 2 pixels of the finest axis (0.2 µm), by the voxel size of each image." in page
    assert re.search(r"Report of crista \S+, \d{4}-\d\d-\d\d \d\d:\d\d<", page)


def test_a_part_of_which_nothing_is_measured_is_told_of(tmp_path: Path) -> None:
    """A twentieth of one image validates; the border that is left out is as wide."""
    data = write_data(tmp_path / "data", train=1, test=1, shape=(96, 48))
    few = {"DATA": {"VAL": {"SPLIT_TRAIN": 0.05}, "TEST": {"USE_VAL_AS_TEST": True}}, "TEST": {"EVAL_BORDER_CROP": [4]}}
    _, said = run_and_listen(job(data, ONE, few), tmp_path / "run")
    assert any("EVAL_BORDER_CROP: (4,) leaves nothing of 00.tif (5 × 48)" in line for line in said)


def test_whole_images_that_validate_were_not_trained_on(tmp_path: Path) -> None:
    page = page_of(run(job(write_data(tmp_path / "data", train=4), ONE, VALIDATION), result_dir=tmp_path, name="job"))
    assert "These images were not trained on, but they chose the epoch" in page
    assert "These images were trained on too" not in page


def test_regions_and_slices_of_a_part_are_those_of_its_file(volume: tuple[Outcome, Path], tmp_path: Path) -> None:
    outcome, data = volume
    regions = [row["region"] for row in table(outcome.folder.label_next).values()]
    assert regions
    assert all(region.endswith("x 64–95") for region in regions)
    assert labels(outcome.folder.per_image_binarized / "00.tif", 3).shape == (9, 36, 32)
    whole = ImagePair(*(open_image(data / "train" / kind / "00.tif", ndim=3, is_label=kind == "y") for kind in "xy"))
    part = (slice(4, 7), slice(0, 36), slice(10, 50))
    cut = ImagePair(crop_image(whole.image, part), crop_image(whole.label, part))
    assert cut.image.cut_at == (4, 0, 10)
    assert crop_image(cut.image, (slice(1, 3), slice(5, 9), slice(0, 40))).cut_at == (5, 5, 10)
    write_image(tmp_path / "p.tif", np.zeros((3, 36, 40), np.uint8), "ZYX")
    plan = Plan.model_validate_json(outcome.folder.plan_json.read_text())
    shown = _read(outcome.folder, plan, cut, ImageRecord("other", "", {}, files=(str(tmp_path / "p.tif"),)))
    assert shown.first_slice == 4


def test_slices_that_were_not_predicted_are_not_shown(volume: tuple[Outcome, Path], tmp_path: Path) -> None:
    """Nothing was found in them, and all foreground would look missed."""
    outcome, data = volume
    config = job(data, predict_only(outcome.folder.checkpoint_best), ndim=3)
    ranged, said = run_and_listen(config, tmp_path, overrides=RANGE)
    assert re.findall(r'data-title="slice (\d+)"', page_of(ranged)) == ["3", "4", "5"]
    assert not any("of the pixels that are annotated" in line for line in said)  # all are, of these slices


def test_the_files_that_a_result_comes_from(volume: tuple[Outcome, Path], tmp_path: Path) -> None:
    """Images, their label images, and the network that predicts."""
    outcome, data = volume

    def inputs(of: Outcome) -> list[str]:
        return [entry["path"] for entry in json.loads(of.folder.provenance_json.read_text())["inputs"]]

    assert inputs(outcome) == [str(data / "train" / kind / "00.tif") for kind in "xy"]
    test = data / "test"
    predicted = crista.predict(outcome.folder.checkpoint_best, test / "x", labels=test / "y", result_dir=tmp_path)
    wanted = [test / "x/00.tif", test / "y/00.tif", outcome.folder.checkpoint_best]
    assert inputs(predicted) == list(map(str, wanted))


def test_the_images_of_a_stack_are_listed_by_their_own_scores(
    plane: tuple[Outcome, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Measured is the stack, which has no voxel size; of its slices the worst are listed, as the table says."""
    monkeypatch.setattr("crista.results.report.MAX_ROWS", 3)
    folder = write_pairs(tmp_path / "slices", [(48, 56)] * 5, seed=5, spacing=(0.5, 0.5))
    where = {"DATA": {"TEST": {"PATH": str(folder / "x"), "GT_PATH": str(folder / "y")}}}
    config = job(plane[1], predict_only(plane[0].folder.checkpoint_best), where, STACKED)
    outcome = run(config, result_dir=tmp_path, name="job")
    page, rows = page_of(outcome), table(outcome.folder.test_results_metrics)
    scores = sorted((float(row["per_image_iou"]), name) for name, row in rows.items() if name not in ("mean", "stack"))
    listed = page.split("the 3 worst of 5")[1].split("</table>")[0]
    assert re.findall(r"<tr><td>([^<]+)</td><td>([^<]+)</td>", listed) == [(name, f"{iou:.4f}") for iou, name in scores[:3]]
    assert "What is measured: as 3D stack; the table of images has those of each slice by itself." in page
    assert "Tolerance of NSD: 2 pixels." in page


def test_overlays_are_of_this_run(plane: tuple[Outcome, Path], tmp_path: Path) -> None:
    """Three of five images are drawn; what an earlier network left of the others would be taken for this one's."""
    folder = write_pairs(tmp_path / "more", [(48, 56)] * 5, seed=5)
    where = {"DATA": {"TEST": {"PATH": str(folder / "x"), "GT_PATH": str(folder / "y")}}}
    overlays = tmp_path / "job/results/job_1/charts/overlays"
    overlays.mkdir(parents=True)
    for name in ("00", "01", "02", "03", "04", "of another set"):
        (overlays / f"{name}.png").write_bytes(b"old")
    outcome = run(job(plane[1], predict_only(plane[0].folder.checkpoint_best), where), result_dir=tmp_path, name="job")
    assert outcome.folder.overlays == overlays
    left = {path.stem: path.read_bytes() == b"old" for path in overlays.iterdir()}
    shown = re.findall(r"<header><span[^>]*>[^<]*</span><b>([^<]*)</b>", page_of(outcome))
    assert len(shown) == 3
    assert left == dict.fromkeys(shown, False) | {"of another set": True}


def test_predictions_of_an_earlier_run_are_told_from_those_of_this_one(plane: tuple[Outcome, Path], tmp_path: Path) -> None:
    """All lie in the folder that is called after the network, whichever images it predicted, and with which filters."""
    folder = write_pairs(tmp_path / "more", [(48, 56)] * 3, seed=5)
    median = [f"TEST.POST_PROCESSING.MEDIAN_FILTER{rest}" for rest in ("=True", "_AXIS=[xy]", "_SIZE=[3]")]

    def predict(images: Path, *overrides: str) -> tuple[Outcome, list[str]]:
        outcome = crista.predict(plane[0].folder.checkpoint_best, images, result_dir=tmp_path / "out", overrides=overrides)
        return outcome, [line for line in read_warnings(outcome.folder.log_txt) if "of an earlier run" in line]

    assert predict(folder / "x")[1] == predict(folder / "x")[1] == []
    assert predict(folder / "x" / "01.tif", *median)[1][0].endswith(
        "there still are 00.tif, 02.tif in per_image_binarized; 00.tif, 02.tif in per_image -> remove what is not wanted; "
        "predictions of other images are kept apart by their --name or --run_id"
    )
    outcome, [line] = predict(folder / "x")
    start = f"{outcome.folder.results}: of an earlier run, and perhaps of another network, there still are "
    assert line.startswith(f"{start}01.tif in full_post_processing -> remove")
    assert start in page_of(outcome)


def odd_names(folder: Path, names: list[str]) -> Path:
    """Pairs of images called so."""
    write_pairs(folder, [(48, 56)] * len(names), seed=5, spacing=(0.5, 0.5))
    for kind in "xy":
        for index, name in enumerate(names):
            (folder / kind / f"{index:02d}.tif").rename(folder / kind / f"{name}.tif")
    return folder


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not allow such names")
def test_images_of_any_name_are_predicted_and_shown(plane: tuple[Outcome, Path], tmp_path: Path) -> None:
    """Signs of HTML, CSV and formulas, as many bytes as a file system allows, bytes that are no text; classes too."""
    names = ["a$b$_<&>,\"c'", "n" * 251, "old\udcb5m"]
    folder = odd_names(tmp_path / "odd", names)
    outcome = crista.predict(plane[0].folder.checkpoint_best, folder / "x", labels=folder / "y", result_dir=tmp_path / "out")
    page, rows = page_of(outcome), table(outcome.folder.test_results_metrics)
    assert len(list(outcome.folder.per_image_binarized.iterdir())) == 3
    assert [name in rows for name in (names[0], "old\\udcb5m", "mean")] == [True] * 3
    assert "<td>a$b$_&lt;&amp;&gt;,&#34;c&#39;</td>" in page
    assert "_<&" not in page
    assert page.count('<article class="example">') == 3
    assert "Tolerance of NSD: 2 pixels of the finest axis (1 µm), by the voxel size of each image." in page


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not allow such names")
def test_images_of_long_names_are_trained_on(tmp_path: Path) -> None:
    folder = odd_names(tmp_path / "odd", [letter * 251 for letter in "abc"])
    change = {
        "DATA": {
            "TRAIN": {
                "PATH": str(folder / "x"),
                "GT_PATH": str(folder / "y"),
                "PROBABILITY_MAP": True,
                "EXTRACT_RANDOM_PATCH": True,
            },
            "CHECK_GENERATORS": True,
        },
        "AUGMENTOR": {"ENABLE": True, "VFLIP": True},
    }
    outcome = crista.train(job(folder, ONE, change), result_dir=tmp_path, name="job")
    assert len(list(outcome.folder.prob_map.glob("*.npy"))) == 2
    assert list(outcome.folder.aug.glob("*_mark_x.tif"))
    assert list(outcome.folder.aug.glob("*_orig_x.tif"))
    assert list(outcome.folder.gen_check.iterdir())


def test_the_training_that_is_shown_is_that_of_the_network(plane: tuple[Outcome, Path], tmp_path: Path) -> None:
    """A folder that a network was trained in may serve for a prediction with another one."""
    trained, data = plane
    shutil.copytree(trained.folder.root, tmp_path / "job")
    own = tmp_path / "job/checkpoints/job_1-checkpoint-best.pth"
    for checkpoint, is_own in ((own, True), (trained.folder.checkpoint_best, False)):
        page = page_of(run(job(data, predict_only(checkpoint)), result_dir=tmp_path, name="job"))
        assert ('id="training"' in page) == ("blocks of the network" in page) == is_own


def test_names_of_classes_are_shown_as_they_are(tmp_path: Path) -> None:
    names = ["back & ground", "<cell>, $a$ or $b_$"]
    change: dict[str, Any] = {"DATA": {"CLASS_NAMES": names}}
    outcome, _ = run_and_listen(job(write_data(tmp_path / "data"), ONE, change), tmp_path)
    page = page_of(outcome)
    assert "<cell>" not in page
    assert page.count("&lt;cell&gt;, $a$ or $b_$") >= 4  # legend, classes, confusion matrix twice
    assert list(table(outcome.folder.confusion)) == names
    assert f"per_image_iou_{names[1]}" in table(outcome.folder.test_results_metrics)["mean"]
