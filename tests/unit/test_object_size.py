"""Objects of another size than in training: how they are measured, remembered, and told with the factor."""

from __future__ import annotations

from math import pi
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from tests.conftest import MakeData, tiny_config

import crista
from crista.geometry.axes import Array
from crista.geometry.spacing import Spacing
from crista.images.image import ImagePair
from crista.images.object_size import fill_middle, measure_diameters, median_diameter, middle_region
from crista.images.open import open_image
from crista.images.write import write_image
from crista.inference.record import ImageRecord
from crista.plan.events import Warned
from crista.plan.plan import Classes
from crista.workflow.object_size import warn_of_object_size


def discs(radius: int, *, value: int = 1, shape: tuple[int, int] = (200, 200)) -> Array:
    """Four discs, and one that the border cuts."""
    y, x = np.indices(shape)
    label = np.zeros(shape, np.uint8)
    for centre in ((50, 50), (50, 140), (140, 50), (140, 140), (100, 199)):
        label[(y - centre[0]) ** 2 + (x - centre[1]) ** 2 <= radius**2] = value
    return label


def test_discs_and_balls_have_their_diameters() -> None:
    (background, found) = (dict(measure_diameters(discs(10))).get(index, ()) for index in (0, 1))
    assert background == ()
    assert found == pytest.approx((20, 20, 20, 20), abs=0.3)
    z, y, x = np.indices((30, 30, 30))
    ball = ((z - 15) ** 2 + (y - 15) ** 2 + (x - 15) ** 2 <= 81).astype(np.uint8)
    assert dict(measure_diameters(ball))[1] == pytest.approx((18,), abs=0.3)
    square = np.zeros((9, 9), np.uint8)
    square[2:6, 2:6] = 3
    assert measure_diameters(square) == ((3, (round(2 * (16 / pi) ** 0.5, 2),)),)


def test_what_is_no_set_of_classes_or_objects_is_not_measured() -> None:
    assert measure_diameters(np.arange(100, dtype=np.uint8).reshape(10, 10)) == ()
    assert measure_diameters(np.ones((20, 20), np.uint8)) == ()
    assert measure_diameters(np.zeros((20, 20), np.float32)) == ()


def test_a_network_with_a_broken_piece_has_no_objects() -> None:
    y, x = np.indices((120, 120))
    membranes = ((y % 20 < 3) | (x % 20 < 3)).astype(np.uint8)
    membranes[48:54, 48:54] = 1
    assert measure_diameters(membranes) == ()
    found = dict(measure_diameters(np.where(membranes == 1, 1, 2)))
    assert 1 not in found
    assert len(found[2]) == 25


def test_holes_of_the_background_are_no_objects() -> None:
    assert measure_diameters(1 - discs(10)) == ()


def test_the_middle_is_bounded_and_put_together_from_blocks() -> None:
    region = middle_region((40, 2000, 3000), most=2**19)
    sizes = [part.stop - part.start for part in region]
    assert np.prod(sizes) <= 2**19
    assert sizes[0] == 40
    assert all(abs((part.start + part.stop) / 2 - n / 2) <= 1 for part, n in zip(region, (40, 2000, 3000), strict=True))
    image, wanted = np.arange(96).reshape(8, 12), (slice(2, 7), slice(3, 9))
    sample = np.zeros((1, 5, 6), int)
    for rows in (slice(0, 4), slice(4, 8)):
        for columns in (slice(0, 8), slice(8, 12)):
            fill_middle(sample, wanted, (rows, columns), image[None, rows, columns])
    assert np.array_equal(sample[0], image[wanted])


def test_half_of_the_foreground_lies_below_the_median() -> None:
    measured = (((0, (99.0,)), (5, (10.0, 12.0)), (255, (80.0,))), ((5, (14.0, *[2.0] * 20)),))
    classes = {0: 0, 5: 1, 255: 255}
    assert median_diameter(measured, classes, 2, 255) == 12.0  # 80 + 100 of 520 lie below it, 324 up to it
    assert median_diameter(measured, classes, 3, 255) == 12.0
    assert median_diameter((((1, (2.0, 2.0, 20.0)),),), {1: 1}, 2) == 20.0
    assert median_diameter(measured, {0: 0}, 2) is None


def test_the_plan_keeps_the_diameter_of_the_training(make_data: MakeData) -> None:
    data = make_data(train=2, test=1, shape=(200, 200))
    for path in (data / "train/y").iterdir():
        write_image(path, discs(10), "YX")
    plan = crista.make_plan(tiny_config(data))
    assert plan.object_diameter == pytest.approx(20, abs=0.3)


def test_strokes_of_sparse_labels_are_no_objects(make_data: MakeData) -> None:
    """A stroke through each object says where it is, not how large."""
    data = make_data(train=2, test=1, shape=(200, 200))
    for path in (data / "train/y").iterdir():
        label = np.where(np.indices((200, 200))[0] % 20 < 2, discs(10), np.uint8(255))
        write_image(path, label, "YX")
    plan = crista.make_plan(tiny_config(data, loss={"IGNORE_INDEX": 255}))
    assert plan.sparse_labels
    assert plan.object_diameter is None


def warnings_for(
    folder: Path,
    radius: int,
    *,
    own: float | None = None,
    learnt: float | None = None,
    written_as: Path | None = None,
    true: int | None = None,
) -> list[str]:
    """What is said of discs of `radius` pixels, predicted by a network that learnt a diameter of 20."""
    write_image(folder / "x/a.tif", discs(radius), "YX", spacing=Spacing((own, own)) if own else None)
    write_image(folder / "per/a.tif", discs(radius), "YX")
    plan = SimpleNamespace(
        object_diameter=20.0,
        ndim=2,
        classes=Classes(names=("background", "disc")),
        spacing=(learnt,) * 2 if learnt else None,
    )
    places = SimpleNamespace(per_image_binarized=folder / "per", full_image_binarized=folder / "full")
    record = ImageRecord("a", "key", {}, files=(str((written_as or folder) / "per/a.tif"),))
    if true is not None:
        write_image(folder / "y/a.tif", discs(true), "YX")
    label = open_image(folder / "y/a.tif", ndim=2, is_label=True) if true is not None else None
    pairs = [ImagePair(open_image(folder / "x/a.tif", ndim=2), label)]
    events = warn_of_object_size([record], pairs, cast("Any", plan), cast("Any", places))
    return [event.text for event in events if isinstance(event, Warned)]


def test_the_factor_and_the_way_out_are_told(tmp_path: Path) -> None:
    assert warnings_for(tmp_path, 10) == []
    assert warnings_for(tmp_path, 15) == []
    (text,) = warnings_for(tmp_path, 20)
    assert "predicted objects are 2 times as large as those of the training (median diameter 40" in text
    assert "a.tif becomes 100 × 100" in text
    (text,) = warnings_for(tmp_path, 5)
    assert "predicted objects are 0.51 times as large" in text


def test_a_prediction_that_is_just_wrong_is_not_to_be_rescaled(tmp_path: Path) -> None:
    """Label images say how large the objects are: the validation images of a short training are of the learnt size."""
    assert warnings_for(tmp_path, 5, true=10) == []
    assert warnings_for(tmp_path, 20, true=10) == []
    assert len(warnings_for(tmp_path, 20, true=20)) == 1
    assert warnings_for(tmp_path, 20, true=0) == []  # specks of a pixel: no objects that could be of another size


def test_a_factor_that_the_pixel_size_explains_is_not_told_twice(tmp_path: Path) -> None:
    assert warnings_for(tmp_path, 20, own=0.05, learnt=0.1) == []
    assert len(warnings_for(tmp_path, 20, own=0.1, learnt=0.1)) == 1
    assert len(warnings_for(tmp_path, 20, own=0.2, learnt=0.1)) == 1
    assert len(warnings_for(tmp_path, 20, own=0.05)) == len(warnings_for(tmp_path, 20, learnt=0.1)) == 1  # one is not known


def test_a_kept_prediction_is_looked_at_however_its_folder_was_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert len(warnings_for(tmp_path, 20, written_as=Path())) == 1
