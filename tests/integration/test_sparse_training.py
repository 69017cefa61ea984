"""Runs on scribbles: trained, measured and resumed like any other, and blind to what is not annotated."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.jobs import job, labels, log_rows, run_and_listen, same_weights, table, write_data

import crista
from crista.errors import CristaError
from crista.images.write import write_image
from crista.results.log import read_warnings
from crista.training.checkpoint import load_checkpoint
from crista.workflow.api import Outcome

pytestmark = pytest.mark.usefixtures("no_drawings_in_module")

ONE = {"TRAIN": {"EPOCHS": 1}}


def best(outcome: Outcome) -> Path:
    return outcome.folder.checkpoint_best


def scribbled(folder: Path, open_values: tuple[int, ...], *, num_classes: int = 3, seed: int = 3, **settings: int) -> Path:
    """Data of which about 5 % of the training pixels keep their label; the others hold one of `open_values` each."""
    data = write_data(folder, num_classes=num_classes, **settings)
    rng, filling = np.random.default_rng(seed), np.random.default_rng(0)
    for path in sorted((data / "train" / "y").iterdir()):
        label = labels(path, 2).copy()
        kept = rng.random(label.shape) < 0.05
        label[~kept] = filling.choice(open_values, np.count_nonzero(~kept))
        write_image(path, label, "YX")
    return data


@pytest.mark.parametrize("num_classes", [2, 3])
def test_which_open_value_a_pixel_has_changes_nothing(num_classes: int, tmp_path: Path) -> None:
    """One value, or two at random: the same network bit for bit, and the same figures."""
    outcomes = []
    for name, values, key in (("one", (255,), 255), ("two", (200, 254), [254, 200])):
        data = scribbled(tmp_path / name, values, num_classes=num_classes)
        config = job(data, ONE, {"LOSS": {"IGNORE_INDEX": key}}, num_classes=num_classes)
        outcomes.append(run_and_listen(config, tmp_path / f"out_{name}"))
    (first, said), (second, _) = outcomes
    assert same_weights(best(first), best(second))
    assert first.metrics == second.metrics
    assert any("of the pixels are annotated: patches are drawn around them" in line for line in said)
    counts = [int(value) for row in table(first.folder.confusion).values() for key, value in row.items() if key != "truth"]
    assert sum(counts) == 2 * 48 * 48  # the test labels are whole
    assert sorted(path.name.rsplit("_", 1)[1] for path in first.folder.aug.glob("*mark*")).count("x.tif") > 0


def test_scribbles_that_count_from_1_are_learnt(tmp_path: Path) -> None:
    data = scribbled(tmp_path / "data", (255,), num_classes=2)
    for path in data.rglob("y/*.tif"):
        label = labels(path, 2)
        write_image(path, np.where(label == 255, 0, label + 1).astype(np.uint8), "YX")
    config = job(data, ONE, {"LOSS": {"IGNORE_INDEX": 0}})
    del config["DATA"]["N_CLASSES"]
    outcome, _ = run_and_listen(config, tmp_path / "out")
    plain, _ = run_and_listen(
        job(scribbled(tmp_path / "plain", (255,), num_classes=2), ONE, {"LOSS": {"IGNORE_INDEX": 255}}), tmp_path / "o2"
    )
    assert same_weights(best(outcome), best(plain))


def test_scribbles_without_the_key_are_refused_with_the_key(tmp_path: Path) -> None:
    config = job(scribbled(tmp_path / "data", (255,)), ONE, num_classes=3)
    with pytest.raises(CristaError, match=r"fills 9\d\.\d% of the pixels.*(?s:.)*set LOSS\.IGNORE_INDEX: 255 "):
        run_and_listen(config, tmp_path / "out")


def test_learning_from_scribbles_sees_the_whole_object(tmp_path: Path) -> None:
    """5 % of the pixels of bright boxes on a dark ground are enough for the test images."""
    data = scribbled(tmp_path / "data", (255,), num_classes=2)
    outcome, _ = run_and_listen(job(data, {"TRAIN": {"EPOCHS": 30}, "LOSS": {"IGNORE_INDEX": 255}}), tmp_path / "out")
    assert float(log_rows(outcome)[-1]["val_iou"]) > 0.8
    assert outcome.metrics["Foreground IoU, reconstructed image (mean over images)"] > 0.8


def scribbled_alike(folder: Path) -> Path:
    """Boxes on a ground of equal noise that is hard to tell from them, as many labelled pixels of one as of the other."""
    data = write_data(folder, num_classes=2)
    rng = np.random.default_rng(5)
    for path in sorted((data / "train" / "y").iterdir()):
        label = labels(path, 2).copy()
        count = np.count_nonzero(label == 1) // 20
        kept = np.concatenate([rng.choice(np.flatnonzero(label == value), count, replace=False) for value in (0, 1)])
        scribble = np.full(label.shape, 255, np.uint8)
        scribble.flat[kept] = label.flat[kept]
        write_image(path, scribble, "YX")
    return data


def test_the_trained_network_is_told_how_frequent_classes_are_once(tmp_path: Path) -> None:
    """Its head alone is changed, by as much as is said; a second run changes nothing; False leaves it as it was trained."""
    data = scribbled_alike(tmp_path / "data")
    config = job(data, {"TRAIN": {"EPOCHS": 15}, "LOSS": {"IGNORE_INDEX": 255}})
    outcome, said = run_and_listen(config, tmp_path / "out")
    asked = {**config, "LOSS": {"IGNORE_INDEX": 255, "ESTIMATE_CLASS_SHARES": False}}
    plain, said_plain = run_and_listen(asked, tmp_path / "plain")
    told, untold = load_checkpoint(best(outcome)), load_checkpoint(best(plain))
    assert untold.class_shares is None
    assert told.class_shares is not None
    assert told.class_shares[1] < 0.5 - 0.05
    assert told.class_shift is not None
    moved = float(told.weights["head.bias"]) - float(untold.weights["head.bias"])
    assert moved == pytest.approx(told.class_shift[1] - told.class_shift[0], abs=1e-5)
    changed = [name for name, value in told.weights.items() if not torch.equal(value, untold.weights[name])]
    assert changed == ["head.bias"]
    assert float(told.weights["head.bias"]) < float(untold.weights["head.bias"])
    assert any(line.startswith("class shares: ") and "expects the latter" in line for line in said)
    assert not any(line.startswith("class shares: ") for line in said_plain)
    last = crista.predict(outcome.folder.checkpoint_last, data / "test/x", result_dir=tmp_path / "last")
    assert any("this network was not told how frequent the classes are" in text for text in read_warnings(last.folder.log_txt))
    before = best(outcome).read_bytes()
    run_and_listen(config, tmp_path / "out")
    assert best(outcome).read_bytes() == before
    figure = "Foreground IoU, reconstructed image (mean over images)"
    assert outcome.metrics[figure] >= plain.metrics[figure]


def test_figures_of_a_few_annotated_pixels_are_said_to_be_of_these(tmp_path: Path) -> None:
    """In the log, whose warnings the page shows; of whole label images there is nothing to say."""
    data = scribbled(tmp_path / "data", (255,), num_classes=2)
    config = job(data, ONE, {"LOSS": {"IGNORE_INDEX": 255}})
    whole, said = run_and_listen(config, tmp_path / "whole")
    assert not any("pixels that are annotated: rare" in line for line in said)
    config["DATA"]["TEST"] = {"USE_VAL_AS_TEST": True}
    outcome, said = run_and_listen(config, tmp_path / "out")
    found = [line for line in said if "pixels that are annotated: rare" in line]
    assert len(found) == 1
    share = re.match(r"the figures are of the (\d\.\d)% of the pixels", found[0])
    assert share is not None
    assert 4 < float(share[1]) < 6
    assert "label an image or two in full and measure on these" in found[0]
    shown = [[text for text in read_warnings(run.folder.log_txt) if "annotated: rare" in text] for run in (outcome, whole)]
    assert list(map(len, shown)) == [1, 0]  # the page shows these
