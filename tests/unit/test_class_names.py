"""Names of classes from files beside the labels: read by value or by line, and left alone where they do not fit."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import tifffile

from crista.config.load import config_from_dict
from crista.images.check import check_dataset
from crista.images.class_names import find_class_names
from crista.images.labels import LabelCoding, make_coding
from crista.plan.make import make_plan

THREE = LabelCoding(3)
GAPS = LabelCoding(3, None, ((0, 0), (2, 1), (7, 2)))


@pytest.mark.parametrize(
    ("file_name", "text", "coding", "names"),
    [
        ("classes.txt", "background\nnucleus \n membrane\n\n", THREE, ("background", "nucleus", "membrane")),
        ("classes.txt", "\ufeffHintergrund\r\nKern\r\n", LabelCoding(2, None, ((0, 0), (255, 1))), ("Hintergrund", "Kern")),
        ("dataset.json", '{"labels": {"background": 0, "b": 2, "a": 1}}', THREE, ("background", "a", "b")),
        ("dataset.json", '{"labels": {"0": "background", "2": "b", "1": "a"}}', THREE, ("background", "a", "b")),
        ("dataset.json", '{"labels": {"none": 0, "two": 2, "seven": 7, "ignore": 8}}', GAPS, ("none", "two", "seven")),
        ("dataset.json", '{"labels": {"none": 0, "a": 1, "ignore": 2}}', make_coding(2, (2,)), ("none", "a")),
        ("dataset.json", '{"labels": {"none": 0, "all": [1, 2], "a": 1, "b": 2}}', THREE, ("none", "a", "b")),
    ],
)
def test_names_are_read(tmp_path: Path, file_name: str, text: str, coding: LabelCoding, names: tuple[str, ...]) -> None:
    (tmp_path / file_name).write_text(text, encoding="utf-8")
    found = find_class_names(tmp_path / "train" / "y", coding)
    assert found is not None
    assert (found.names, Path(found.file)) == (names, tmp_path / file_name)


@pytest.mark.parametrize(
    ("file_name", "text"),
    [
        ("classes.txt", "background\nnucleus"),
        ("classes.txt", "background\nnucleus\nmembrane\nvessel"),
        ("classes.txt", "background\ncell\ncell"),
        ("classes.txt", "background\n\ncell"),
        ("classes.txt", ""),
        ("dataset.json", "no json"),
        ("dataset.json", "[1, 2]"),
        ("dataset.json", '{"name": "of something else"}'),
        ("dataset.json", '{"labels": ["background", "a", "b"]}'),
        ("dataset.json", '{"labels": {"background": 0, "a": 1}}'),
        ("dataset.json", '{"labels": {"background": 0, "a": 1, "b": "two"}}'),
        ("dataset.json", '{"labels": {"background": 0, "all": [1, 2], "b": 2}}'),
    ],
)
def test_a_file_that_does_not_fit_names_nothing(tmp_path: Path, file_name: str, text: str) -> None:
    (tmp_path / file_name).write_text(text, encoding="utf-8")
    assert find_class_names(tmp_path, THREE) is None


def test_the_nearest_folder_wins_and_further_ones_do_not_count(tmp_path: Path) -> None:
    labels = tmp_path / "set" / "train" / "y"
    labels.mkdir(parents=True)
    (tmp_path / "classes.txt").write_text("a\nb\nc")
    assert find_class_names(labels, THREE) is None
    (tmp_path / "set" / "classes.txt").write_text("d\ne\nf")
    (labels / "classes.txt").write_text("g\nh\ni")
    found = find_class_names(labels, THREE)
    assert found is not None
    assert found.names == ("g", "h", "i")


@pytest.mark.parametrize("given", [None, ("nothing", "cell")])
def test_the_plan_takes_them_unless_the_configuration_names_the_classes(tmp_path: Path, given: tuple[str, ...] | None) -> None:
    generator = np.random.default_rng(0)
    for folder in ("x", "y"):
        (tmp_path / folder).mkdir()
        for index in range(3):
            pixels = generator.integers(0, 256, (64, 64), np.uint8)
            tifffile.imwrite(tmp_path / folder / f"{index}.tif", pixels if folder == "x" else np.uint8(pixels > 128) * 255)
    (tmp_path / "dataset.json").write_text(json.dumps({"labels": {"background": 0, "mitochondrion": 255}}))
    folders = {"TRAIN": {"PATH": str(tmp_path / "x"), "GT_PATH": str(tmp_path / "y")}}
    names = {} if given is None else {"CLASS_NAMES": list(given)}
    config = config_from_dict({"DATA": folders | names}).config
    report = check_dataset(config, need_train=True, need_test=False)
    assert report.fingerprint is not None
    plan = make_plan(config, report.fingerprint)
    decision = next(made for made in plan.decisions if made.key == "DATA.CLASS_NAMES")
    assert plan.classes.names == (given or ("background", "mitochondrion"))
    assert decision.reason == ("given" if given else f"from {tmp_path / 'dataset.json'}")
