"""What the check of a run holds against the settings of its prediction."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

import crista
from crista.config.load import config_from_dict
from crista.errors import ConfigError
from crista.geometry.spacing import Spacing
from crista.images.check import DatasetReport
from crista.images.image import ImagePair, crop_image
from crista.images.open import open_image
from crista.images.write import write_image
from crista.plan.events import Warned
from crista.workflow.check import _check_channels, _check_spacing, check_validation


def check(folder: Path, **section: Any) -> DatasetReport:
    """The check of a prediction of an image of 48 × 56 pixels with a border of 30."""
    np.save(folder / "a.npy", np.random.default_rng(0).integers(0, 99, (48, 56)).astype(np.uint8))
    where = {"PATH": str(folder / "a.npy"), **section}
    return crista.check({"DATA": {"TEST": where}, "TEST": {"ENABLE": True, "EVAL_BORDER_CROP": [30]}})


def test_a_border_that_is_not_measured_refuses_no_image_without_label(tmp_path: Path) -> None:
    """The key of the training stays, and the images that are predicted now are smaller; nothing of them is measured."""
    assert check(tmp_path).problems == ()
    (tmp_path / "y").mkdir()
    np.save(tmp_path / "y/a.npy", np.ones((48, 56), np.uint8))
    [problem] = check(tmp_path, GT_PATH=str(tmp_path / "y"), LOAD_GT=True).problems
    assert "leaves nothing of a.npy" in str(problem)


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


def test_parts_that_validate_are_held_against_the_settings_of_the_measurement(tmp_path: Path) -> None:
    """The check has seen whole images; with DATA.TEST.USE_VAL_AS_TEST a tenth of one may be all that is measured."""
    write_image(tmp_path / "a.tif", np.ones((48, 56), np.uint8), "YX")
    image = open_image(tmp_path / "a.tif", ndim=2)
    high, wide = (crop_image(image, part) for part in ((slice(0, 48), slice(50, 56)), (slice(40, 48), slice(0, 56))))
    pairs = [ImagePair(part, part) for part in (high, wide)]
    config = config_from_dict({}, ("TEST.EVAL_BORDER_CROP=(4,)",)).config
    [warning] = check_validation(config, pairs[:1])
    assert isinstance(warning, Warned)
    assert "TEST.EVAL_BORDER_CROP: (4,) leaves nothing of a.tif (48 × 6)" in warning.text
    assert list(check_validation(config, [ImagePair(image, image)])) == []
    config = config_from_dict({}, ("TEST.ANALIZE_2D_IMGS_AS_3D_STACK=True",)).config
    assert list(check_validation(config, pairs[:1])) == []
    with pytest.raises(ConfigError, match="these images have several"):
        list(check_validation(config, pairs))
