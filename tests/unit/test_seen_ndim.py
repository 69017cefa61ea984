"""Where PROBLEM.NDIM is left out, keys that do not go with the axes of the images are said once these are seen."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.conftest import MakeData, merge, tiny_config

import crista
from crista.config.load import config_from_dict
from crista.errors import Problem
from crista.plan.events import Event, Said
from crista.workflow.check import check


def checked(folder: Path, ndim: int, change: dict[str, Any]) -> tuple[list[str], tuple[Problem, ...]]:
    """The lines that a check says, and its problems, for images of `ndim` axes; NDIM and the patch are left to the images."""
    rng = np.random.default_rng(0)
    for index in range(2):
        for part in ("train", "test"):
            for kind, highest in (("x", 255), ("y", 2)):
                path = folder / part / kind / f"{index}.npy"
                path.parent.mkdir(parents=True, exist_ok=True)
                np.save(path, rng.integers(0, highest, (9, 40, 40)[-ndim:]).astype(np.uint8))
    tree = tiny_config(folder, ndim=ndim)
    del tree["PROBLEM"], tree["DATA"]["PATCH_SIZE"]
    merge(tree, change)
    events = check(config_from_dict(tree).config)
    said = []
    while True:
        try:
            event = next(events)
        except StopIteration as end:
            return said, end.value.problems
        if isinstance(event, Said):
            said.append(event.text)


def test_a_key_for_volumes_is_said_of_2d_images(tmp_path: Path) -> None:
    said, problems = checked(tmp_path, 2, {"TEST": {"POST_PROCESSING": {"Z_FILTERING": True}}})
    assert problems == ()
    found = [line for line in said if "Z_FILTERING" in line]
    assert len(found) == 1
    assert "no effect: the images are 2D" in found[0]


def test_a_key_for_volumes_is_not_said_of_volumes(tmp_path: Path) -> None:
    said, problems = checked(tmp_path, 3, {"TEST": {"POST_PROCESSING": {"Z_FILTERING": True}}})
    assert problems == ()
    assert not [line for line in said if "Z_FILTERING" in line]


@pytest.mark.parametrize(("classes", "idle"), [(2, False), (3, True)])
def test_a_threshold_is_said_to_be_idle_once_the_classes_are_counted(make_data: MakeData, classes: int, idle: bool) -> None:
    tree = tiny_config(make_data(num_classes=classes), test={"THRESHOLD": 0.4})
    del tree["DATA"]["N_CLASSES"]
    heard: list[Event] = []
    crista.check(tree, on_event=heard.append)
    assert any(isinstance(event, Said) and event.text.startswith("TEST.THRESHOLD has no effect") for event in heard) == idle


@pytest.mark.parametrize(
    ("ndim", "change", "where", "words"),
    [
        (2, {"TEST": {"POST_PROCESSING": {"MEDIAN_FILTER": True, "MEDIAN_FILTER_AXIS": ["z"], "MEDIAN_FILTER_SIZE": [3]}}},
         "TEST.POST_PROCESSING.MEDIAN_FILTER_AXIS", "the images are 2D"),
        (3, {"TEST": {"ANALIZE_2D_IMGS_AS_3D_STACK": True}}, "TEST.ANALIZE_2D_IMGS_AS_3D_STACK", "the images are 3D"),
    ],
)  # fmt: skip
def test_a_key_that_contradicts_the_images_is_a_problem(
    tmp_path: Path, ndim: int, change: dict[str, Any], where: str, words: str
) -> None:
    _, problems = checked(tmp_path, ndim, change)
    assert [problem.where for problem in problems] == [where]
    assert words in str(problems[0])
