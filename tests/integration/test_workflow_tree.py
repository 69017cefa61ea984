"""One run of every kind: the results tree, its names, and that its files and its figures describe the same pixels."""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Iterator
from hashlib import sha1
from importlib.metadata import version
from math import nan
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from PIL import Image as PillowImage
from tests.jobs import foreground_iou, job, labels, log_rows, pixels, plan_of, table, write_data

import crista
from crista.config.load import load_config
from crista.images.open import open_image
from crista.plan.plan import Plan
from crista.training.checkpoint import load_checkpoint
from crista.training.distributed import choose_device
from crista.workflow.api import Outcome, run

EPOCHS = 8
AUGMENTED = {"AUGMENTOR": {"ENABLE": True, "VFLIP": True, "AUG_NUM_SAMPLES": 2}}
PROBABILITIES = {"DATA": {"TEST": {"ARGMAX_TO_OUTPUT": False}}}
FULL = {"TEST": {"FULL_IMG": True}}
Z_FILTER = {"TEST": {"POST_PROCESSING": {"Z_FILTERING": True, "Z_FILTERING_SIZE": 3}}}
YZ_FILTER = {"TEST": {"POST_PROCESSING": {"YZ_FILTERING": True, "YZ_FILTERING_SIZE": 3}}}
RGB = {"DATA": {"PATCH_SIZE": (32, 32, 3)}}

KINDS: dict[str, dict[str, Any]] = {
    "2D binary": {"changes": (FULL, AUGMENTED)},
    "2D three classes": {"num_classes": 3, "changes": (PROBABILITIES, FULL, AUGMENTED)},
    "2D RGB": {"channels": 3, "changes": (PROBABILITIES, RGB), "shape": (45, 61)},
    "3D anisotropic": {"shape": (9, 36, 44), "spacing": (0.12, 0.03, 0.03), "changes": (Z_FILTER, AUGMENTED)},
    "3D three classes": {"shape": (9, 33, 40), "num_classes": 3, "changes": (PROBABILITIES, FULL, YZ_FILTER)},
}


class Done(NamedTuple):
    """One finished run."""

    kind: str
    data: Path
    outcome: Outcome
    ndim: int
    num_classes: int

    @property
    def setting(self) -> dict[str, Any]:
        """What was asked."""
        return KINDS[self.kind]

    def has(self, change: dict[str, Any]) -> bool:
        """Whether the run was asked with `change`."""
        return change in self.setting["changes"]

    @property
    def stages(self) -> dict[str, Path]:
        """Folder of the label images of each stage that was asked for."""
        folder = self.outcome.folder
        stages = {"per_image": folder.per_image_binarized}
        if self.has(FULL):
            stages["full_image"] = folder.full_image_binarized
        if self.has(Z_FILTER) or self.has(YZ_FILTER):
            stages["post_processing"] = folder.full_post_processing
        return stages


@pytest.fixture(scope="module", params=sorted(KINDS))
def done(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Done]:
    """A run of each kind, made once."""
    setting = dict(KINDS[request.param])
    changes = setting.pop("changes")
    folder = tmp_path_factory.mktemp("tree")
    ndim, num_classes = len(setting.get("shape", (48, 48))), setting.get("num_classes", 2)
    data = write_data(folder / "data", **setting)
    outcome = run(
        job(data, {"TRAIN": {"EPOCHS": EPOCHS}}, *changes, ndim=ndim, num_classes=num_classes),
        result_dir=folder / "results",
        name="job",
    )
    assert outcome.metrics["Foreground IoU, reconstructed image (all pixels pooled)"] > 0.1  # labels worth looking at
    return Done(request.param, data, outcome, ndim, num_classes)


def test_the_tree(done: Done) -> None:
    root = done.outcome.folder.result_dir / "job"
    found = {path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()}
    results = "results/job_1"
    images = ["00.tif", "01.tif"]
    wanted = {
        "config_files/job_1.yaml",
        "checkpoints/job_1-checkpoint-best.pth",
        "checkpoints/job_1-checkpoint-last.pth",
        "results/runs_summary.csv",
        *(
            f"{results}/{name}"
            for name in (
                *(f"charts/job_1_{metric}.png" for metric in ("loss", "IoU", "lr")),
                *("charts/model_plot_job_1.png", "train_logs/job_1.csv", "test_results_metrics.csv"),
                *("test_results_summary.csv", "test_results_confusion.csv", "label_next.csv"),
                *("charts/overlays/00.png", "charts/overlays/01.png"),
                *("plan.json", "provenance.json", "log.txt", "report.html"),
                *(f"{folder}/{image}" for folder in ("per_image", "per_image_binarized") for image in images),
            )
        ),
    }
    for folder in done.stages.values():
        wanted |= {f"{results}/{folder.name}/{image}" for image in images}
    if done.has(FULL):
        wanted |= {f"{results}/full_image/{image}" for image in images}
    assert wanted <= found
    assert any(name.startswith(f"{results}/tensorboard/events") for name in found)
    assert any(name.startswith(f"{results}/aug/") for name in found) == done.has(AUGMENTED)
    for folder_name in ("full_image", "full_image_binarized"):
        assert any(f"/{folder_name}/" in name for name in found) == done.has(FULL)
    assert not [name for name in found if ".part" in name]


def test_label_images(done: Done) -> None:
    for folder in done.stages.values():
        for path in sorted(folder.iterdir()):
            source, written = (open_image(p, ndim=done.ndim) for p in (done.data / "test" / "x" / path.name, path))
            assert written.spatial_shape == source.spatial_shape
            assert written.num_channels == 1
            assert written.dtype == np.uint8
            assert set(np.unique(written.read())) <= set(range(done.num_classes))
            if source.spacing is None:
                assert written.spacing is None
            else:
                assert written.spacing is not None
                np.testing.assert_allclose(written.spacing.values, source.spacing.values, rtol=1e-5)


def test_per_image_holds_probabilities_or_labels(done: Done) -> None:
    folder = done.outcome.folder
    pairs = [(folder.per_image, folder.per_image_binarized)]
    if done.has(FULL):
        pairs.append((folder.full_image, folder.full_image_binarized))
    for raw, binarized in pairs:
        for path in sorted(raw.iterdir()):
            values, label = pixels(path, done.ndim), labels(binarized / path.name, done.ndim)
            if not done.has(PROBABILITIES):
                assert values.dtype == np.uint8
                np.testing.assert_array_equal(values[0], label)
                continue
            assert values.dtype == np.float32
            assert values.shape == (done.num_classes, *label.shape)
            assert values.min() >= 0
            assert values.max() <= 1
            np.testing.assert_allclose(values.sum(axis=0), 1, atol=1e-5)
            np.testing.assert_array_equal(values.argmax(axis=0), label)


def test_figures_are_those_of_the_saved_label_images(done: Done) -> None:
    rows = table(done.outcome.folder.test_results_metrics)
    assert list(rows) == ["00", "01", "mean"]
    for stage, folder in done.stages.items():
        scores = []
        for name in ("00", "01"):
            truth, label = (labels(path / f"{name}.tif", done.ndim) for path in (done.data / "test" / "y", folder))
            scores.append(foreground_iou(truth, label))
            assert float(rows[name][f"{stage}_iou"]) == pytest.approx(scores[-1], abs=1e-6)
        assert float(rows["mean"][f"{stage}_iou"]) == pytest.approx(np.mean(scores), abs=1e-6)


def test_evaluate_gives_the_same_figures(done: Done) -> None:
    rows = table(done.outcome.folder.test_results_metrics)
    names = {"per_image": "reconstructed image", "full_image": "full image", "post_processing": "after post-processing"}
    for stage, folder in done.stages.items():
        found = crista.evaluate(done.data / "test" / "y", folder, num_classes=done.num_classes)
        assert found.summary["foreground_iou"] == pytest.approx(float(rows["mean"][f"{stage}_iou"]), abs=1e-6)
        assert found.summary["biapy_iou"] == pytest.approx(float(rows["mean"][f"{stage}_biapy_iou"]), abs=1e-6)
        key = f"Foreground IoU, {names[stage]} (all pixels pooled)"
        assert found.summary["pooled_foreground_iou"] == pytest.approx(done.outcome.metrics[key], abs=1e-9)


def test_confusion_matrix_counts_every_pixel_of_the_last_stage(done: Done) -> None:
    rows = table(done.outcome.folder.confusion)
    counts = np.array([[int(value) for key, value in row.items() if key != "truth"] for row in rows.values()])
    folder = done.stages.get("post_processing") or done.stages.get("full_image") or done.stages["per_image"]
    expected = np.zeros_like(counts)
    for name in ("00.tif", "01.tif"):
        truth, label = labels(done.data / "test" / "y" / name, done.ndim), labels(folder / name, done.ndim)
        np.add.at(expected, (truth.ravel(), label.ravel()), 1)
    np.testing.assert_array_equal(counts, expected)


def test_filters_change_labels_and_both_figures_are_kept(done: Done) -> None:
    if "post_processing" not in done.stages:
        pytest.skip("this kind has no filter")
    rows = table(done.outcome.folder.test_results_metrics)
    before, after = (labels(done.stages[stage] / "00.tif", 3) for stage in ("per_image", "post_processing"))
    assert (before != after).any()
    assert {"per_image_iou", "post_processing_iou"} <= rows["mean"].keys()
    if done.num_classes == 2:  # the median over three slices, by hand
        padded = np.pad(before, ((1, 1), (0, 0), (0, 0)), mode="reflect")
        expected = np.median(np.stack([padded[:-2], padded[1:-1], padded[2:]]), axis=0)
        np.testing.assert_array_equal(after[1:-1], expected[1:-1])


def test_charts_and_tensorboard_show_every_figure_of_the_log(done: Done) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator  # slow to import

    folder, rows = done.outcome.folder, log_rows(done.outcome)
    assert [row["epoch"] for row in rows] == list(range(1, EPOCHS + 1))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        events = EventAccumulator(str(folder.tensorboard)).Reload()
    scalars = {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}
    for tag, key in (("loss/training", "loss"), ("loss/validation", "val_loss"), ("iou/validation", "val_iou"), ("run/lr", "lr")):
        assert [step for step, _ in scalars[tag]] == list(range(1, EPOCHS + 1))
        np.testing.assert_allclose([value for _, value in scalars[tag]], [row[key] for row in rows], rtol=1e-5)
    for path in folder.charts.glob("*.png"):
        with PillowImage.open(path) as picture:
            assert min(picture.size) > 200


def test_plan_explains_itself(done: Done) -> None:
    plan = plan_of(done.outcome)
    reasons = {decision["KEY"]: decision["REASON"] for decision in plan["DECISIONS"]}
    assert reasons["TRAIN.EPOCHS"] == "given"
    assert len(reasons["TRAIN.OPTIMIZER"]) > 10
    assert plan["NDIM"] == done.ndim
    if done.kind == "3D anisotropic":
        np.testing.assert_allclose(plan["SPACING"], (0.12, 0.03, 0.03), rtol=1e-5)
        assert plan["MODEL"]["Z_DOWN"] == [1]
        assert plan["MODEL"]["ISOTROPY"] == [False, False]


def test_log_and_provenance(done: Done) -> None:
    folder = done.outcome.folder
    text = folder.log_txt.read_text()
    for words in (
        "== check",
        "== plan",
        "== train",
        "== predict",
        f"epoch {EPOCHS}/{EPOCHS}",
        "predictions are written as TIFF",
        "device: ",
    ):
        assert words in text
    provenance = json.loads(folder.provenance_json.read_text())
    assert provenance["versions"]["crista"] == crista.__version__
    assert provenance["versions"]["torch"] == version("torch")
    read = {Path(entry["path"]): (entry["bytes"], entry["sha1"]) for entry in provenance["inputs"]}
    wanted = [path for path in done.data.rglob("*.tif") if path.parent.name in "xy"]
    assert set(read) == set(wanted)
    assert all(read[path] == (path.stat().st_size, sha1(path.read_bytes()).hexdigest()) for path in wanted)
    assert provenance["device"] == str(choose_device(None)[0])
    assert provenance["seconds"] > sum(row["seconds"] for row in log_rows(done.outcome))


def test_report_loads_nothing_from_elsewhere(done: Done) -> None:
    text = done.outcome.folder.report_html.read_text()
    assert not re.search(r"""(src|href)\s*=\s*["']?\s*(https?:)?//""", text)
    assert not re.search(r"url\(\s*['\"]?(https?:)?//", text)
    assert "@import" not in text
    assert "data:image/png;base64," in text


def test_the_report_shows_the_figures_of_the_tables(done: Done) -> None:
    """Each image and their mean, as in test_results_metrics.csv, of the last stage; the first card is the mean IoU."""
    text, rows = done.outcome.folder.report_html.read_text(), table(done.outcome.folder.test_results_metrics)
    stage = list(done.stages)[-1]
    shown = ("iou", "dice", "nsd") if done.num_classes == 2 else ("iou", "dice", "nsd", "iou_class 1", "iou_class 2")
    for name, row in rows.items():
        [cells] = re.findall(rf"<td>(?:<button[^>]*>)?{name}(?:</button>)?</td>((?:<td>[^<]*</td>)+)</tr>", text)
        numbers = [float(number) if number != "–" else nan for number in re.findall(r"<td>([^<]*)</td>", cells)]
        expected = [float(row[f"{stage}_{key}"] or "nan") for key in shown]
        np.testing.assert_allclose(numbers[: len(shown)], expected, atol=6e-5)
    [card] = re.findall(r"<b>([\d.]+)</b><i>[^<]*</i><span><button[^>]*>foreground IoU, mean over images<", text)
    assert float(card) == pytest.approx(float(rows["mean"][f"{stage}_iou"]), abs=6e-5)
    counts = [[int(n) for key, n in row.items() if key != "truth"] for row in table(done.outcome.folder.confusion).values()]
    cells = [int(n.replace(",", "")) for n in re.findall(r"%<small>([\d,]+)</small>", text)]
    assert cells == [n for row in counts for n in row]
    for k, name in enumerate(table(done.outcome.folder.confusion)):
        [(precision, recall, pixels_of)] = re.findall(
            rf"<tr><td>{name}</td>(?:<td>(?:(?!</td>).)*</td>)*?<td>([\d.]+)</td><td>([\d.]+)</td><td>([\d,]+)</td></tr>", text
        )
        found, labelled = sum(row[k] for row in counts), sum(counts[k])
        assert float(precision) == pytest.approx(counts[k][k] / found if found else 0, abs=6e-5)
        assert float(recall) == pytest.approx(counts[k][k] / labelled, abs=6e-5)
        assert int(pixels_of.replace(",", "")) == labelled
    [epoch] = re.findall(r">best epoch</button> \((\d+)\)", text)
    assert int(epoch) == load_checkpoint(done.outcome.folder.checkpoint_best).epoch


def test_the_kept_yaml_describes_the_run(done: Done) -> None:
    kept = load_config(done.outcome.folder.config_file).config
    assert kept == Plan.model_validate_json(done.outcome.folder.plan_json.read_text()).config
    assert kept.train.epochs == EPOCHS
