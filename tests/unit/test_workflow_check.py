"""What the check of a run holds against the settings of its prediction."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

import crista
from crista.config.load import config_from_dict
from crista.geometry.spacing import Spacing
from crista.images.check import DatasetReport
from crista.images.image import ImagePair
from crista.images.open import open_image
from crista.images.write import write_image
from crista.workflow.check import _check_channels, _check_spacing, _unheeded

FILTERS = {"Z_FILTERING": True, "MEDIAN_FILTER": True, "MEDIAN_FILTER_AXIS": ["yz", "xy"], "MEDIAN_FILTER_SIZE": [3, 3]}
RANGE = {"ENABLE": True, "Z_START": 2}


def check(folder: Path, shape: tuple[int, ...], **test: Any) -> DatasetReport:
    """The check of a prediction of two images of a shape, whose dimensions no key names."""
    for name in "ab":
        np.save(folder / f"{name}.npy", np.random.default_rng(ord(name)).integers(0, 99, shape).astype(np.uint8))
    return crista.check({"DATA": {"TEST": {"PATH": str(folder)}}, "TEST": {"ENABLE": True, **test}})


def test_filters_and_ranges_along_z_say_that_images_have_none(tmp_path: Path) -> None:
    """Only PROBLEM.NDIM tells that to the loader of the configuration, and it may be left out."""
    found = [str(warning) for warning in check(tmp_path, (48, 56), POST_PROCESSING=FILTERS, BY_CHUNKS=RANGE).warnings]
    assert [text.split(":")[0] for text in found] == ["TEST.POST_PROCESSING", "TEST.BY_CHUNKS"]
    assert "median filters along z and zy have no effect: the images are 2D" in found[0]
    assert "TEST.ANALIZE_2D_IMGS_AS_3D_STACK: True" in found[0]
    assert "Z_START and Z_END have no effect" in found[1]


@pytest.mark.parametrize(("shape", "test"), [((9, 48, 56), {}), ((48, 56), {"ANALIZE_2D_IMGS_AS_3D_STACK": True})])
def test_where_there_is_a_z_axis_nothing_is_said(tmp_path: Path, shape: tuple[int, ...], test: dict[str, Any]) -> None:
    report = check(tmp_path, shape, POST_PROCESSING=FILTERS, **test)
    assert (report.problems, report.warnings) == ((), ())


def test_a_border_that_is_not_measured_refuses_no_image_without_label(tmp_path: Path) -> None:
    """The key of the training stays, and the images that are predicted now are smaller; nothing of them is measured."""
    assert check(tmp_path, (48, 56), EVAL_BORDER_CROP=[30]).problems == ()
    (tmp_path / "y").mkdir()
    np.save(tmp_path / "y/a.npy", np.ones((48, 56), np.uint8))
    with_label = {"PATH": str(tmp_path / "a.npy"), "GT_PATH": str(tmp_path / "y"), "LOAD_GT": True}
    [problem] = crista.check({"DATA": {"TEST": with_label}, "TEST": {"ENABLE": True, "EVAL_BORDER_CROP": [30]}}).problems
    assert "leaves nothing of a.npy" in str(problem)


def test_volumes_are_no_slices_of_a_stack(tmp_path: Path) -> None:
    """It would come out after the prediction, which is not filtered then, that they cannot be stacked."""
    [problem] = check(tmp_path, (9, 48, 56), ANALIZE_2D_IMGS_AS_3D_STACK=True).problems
    assert "is for 2D images, and these are volumes (b.npy)" in str(problem)
    assert problem.where == "TEST.ANALIZE_2D_IMGS_AS_3D_STACK"


def test_what_holds_for_many_images_is_said_once(tmp_path: Path) -> None:
    """Of a thousand images with the pixel size of another microscope one line, not a thousand."""
    for number in range(20):
        size = (0.5, 0.5) if number < 12 else (1.0, 1.0)
        write_image(tmp_path / f"{number:02d}.tif", np.zeros((3, 40, 50), np.uint8), "CYX", spacing=Spacing(size))
    pairs = [ImagePair(open_image(path, ndim=2)) for path in sorted(tmp_path.iterdir())]
    plan = cast(
        "Any",
        SimpleNamespace(spacing=(0.25, 0.25), num_channels=1, config=SimpleNamespace(data=SimpleNamespace(force_rgb=False))),
    )
    first, second = map(str, _check_spacing(pairs, plan))
    assert f"{tmp_path} (12 files: 00.tif" in first
    assert "voxels are 2 × 2 times those that the network was trained on" in first
    assert "00.tif becomes 80 × 100" in first
    assert f"{tmp_path} (8 files: 12.tif" in second
    assert "4 × 4 times" in second
    [problem] = _check_channels(pairs, plan)
    assert str(problem).startswith(f"{tmp_path} (20 files: 00.tif")
    assert "has 3 channels, the network was trained on 1 channel" in str(problem)


@pytest.mark.parametrize(
    ("key", "learnt", "now"),
    [
        ("DATA.N_CLASSES", "2", "3"),
        ("DATA.CLASS_NAMES", "[background, cell]", "[background, nucleus]"),
        ("DATA.FORCE_RGB", "False", "True"),
        ("DATA.NORMALIZATION.TYPE", "zero_mean_unit_variance", "div"),
        ("LOSS.IGNORE_INDEX", "255", "254"),
    ],
)
def test_keys_that_a_trained_network_has_settled_say_so(key: str, learnt: str, now: str) -> None:
    """A configuration that was changed after the training, with TRAIN.ENABLE: False."""
    trained = config_from_dict({}, [f"{key}={learnt}"]).config
    classes = SimpleNamespace(num_classes=2, names=("background", "cell"))
    plan = cast("Any", SimpleNamespace(config=trained, classes=classes))
    assert list(_unheeded(trained, plan)) == []
    assert list(_unheeded(config_from_dict({}).config, plan)) == []
    [problem] = _unheeded(config_from_dict({}, [f"{key}={now}"]).config, plan)
    assert key.startswith(problem.where)
    assert "has no effect: it is not what the network was trained with" in problem.what
