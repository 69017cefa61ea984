"""Pictures of the report: panels, slices within a budget, what to label next, curves, warnings."""

from __future__ import annotations

import io
import re
from base64 import b64decode
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from PIL import Image

from crista.config.root import Config
from crista.images.image import ImagePair
from crista.images.open import open_image
from crista.images.write import write_image
from crista.inference.record import ImageRecord
from crista.plan.events import Said, Warned
from crista.results.curves import curve_names, draw_curve
from crista.results.examples import MAX_SLICES, Pixels, build_slices, crop_cells
from crista.results.log import read_warnings, record_log
from crista.results.pictures import colour_uncertainty, encode_picture
from crista.results.ranking import UncertaintyMap, label_next_rows, rank_regions
from crista.results.run_folder import RunFolder
from crista.results.run_pictures import PICTURE_BUDGET, build_examples, draw_overlays


def decode(uri: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(b64decode(uri.split(",", 1)[1]))))


def volume(depth: int, side: int = 40) -> Pixels:
    rng = np.random.default_rng(0)
    label = np.zeros((depth, side, side), np.uint8)
    label[depth // 2, 5:30, 5:30] = 1
    cells = rng.random((depth, -(-side // 4), -(-side // 4))).astype(np.float32)
    return Pixels(rng.integers(0, 255, (1, depth, side, side)).astype(np.uint8), label, label, cells)


def test_small_pictures_are_exact_and_large_ones_small() -> None:
    rng = np.random.default_rng(0)
    small, large = rng.random((30, 40, 3)), np.full((300, 400, 3), 0.5)
    np.testing.assert_array_equal(decode(encode_picture(small)), np.floor(small * 255 + 0.5))
    assert encode_picture(large).startswith("data:image/jpeg")
    assert decode(encode_picture(large)).shape == (300, 400, 3)


def test_noise_in_every_channel_is_pictured() -> None:
    """Its contrast is stretched, and its JPEG takes more than a byte per pixel. All panels of three such images fit the page."""
    rng = np.random.default_rng(0)
    image, classes = rng.normal(100, 10, (3, 560, 560)), rng.integers(0, 5, (560, 560)).astype(np.uint8)
    (only,), _ = build_slices(Pixels(image, classes, classes, np.zeros((96, 96), np.float32)), 0)
    assert only.panels[0].picture.startswith("data:image/jpeg")
    assert len(only.panels[0].picture) > 560 * 560 * 4 / 3
    assert 3 * only.size < PICTURE_BUDGET


def test_panels_of_an_image_with_and_without_label() -> None:
    image, classes = np.full((3, 700, 600), 9, np.uint16), np.zeros((700, 600), np.uint8)
    cells = np.zeros((88, 86), np.float32)
    (only,), shown = build_slices(Pixels(image, classes, classes, cells), 0)
    assert [panel.name for panel in only.panels] == ["image", "label", "prediction", "errors", "uncertainty"]
    assert (only.number, shown) == (None, 0)
    assert {decode(panel.picture).shape for panel in only.panels} == {(350, 300, 3)}
    (bare,), _ = build_slices(Pixels(image, classes, None, None), 0)
    assert [panel.name for panel in bare.panels] == ["image", "prediction"]


def test_a_volume_of_one_slice_is_pictured(tmp_path: Path) -> None:
    """Its label image is a TIFF, which does not say that it is a volume."""
    folder = RunFolder(tmp_path, "job")
    np.save(tmp_path / "a.npy", np.random.default_rng(0).integers(0, 99, (1, 40, 50)).astype(np.uint8))
    path = folder.per_image_binarized / "a.tif"
    write_image(path, np.ones((1, 40, 50), np.uint8), "ZYX")
    classes = SimpleNamespace(names=("background", "cell"), ignore_index=None)
    plan = cast("Any", SimpleNamespace(ndim=3, classes=classes, config=Config(), save_probabilities=False))
    record, pair = ImageRecord("a", "key", {}, files=(str(path),)), ImagePair(open_image(tmp_path / "a.npy", ndim=3))
    assert [event.path.name for event in draw_overlays(folder, plan, {"a": pair}, [record])] == ["a.png"]
    [example] = build_examples(folder, plan, {"a": pair}, [("", record, "")])
    assert [entry.number for entry in example.slices] == [0]


def is_tinted(picture: np.ndarray) -> np.ndarray:
    """Where a grey picture has a colour."""
    return np.asarray(np.ptp(picture.astype(int), axis=-1) > 20)


def test_each_panel_shows_what_it_is_called() -> None:
    """Label on the left, prediction at the top: where only one of them is, the errors say which."""
    image = np.random.default_rng(0).integers(90, 110, (1, 40, 40)).astype(np.uint8)
    label, prediction = np.zeros((40, 40), np.uint8), np.zeros((40, 40), np.uint8)
    label[:, :20], prediction[:20] = 1, 1
    cells = np.zeros((10, 10), np.float32)
    cells[9, 9] = 1
    (only,), _ = build_slices(Pixels(image, prediction, label, cells), 10**6)
    shown = {panel.name: decode(panel.picture) for panel in only.panels}
    assert not is_tinted(shown["image"]).any()
    np.testing.assert_array_equal(is_tinted(shown["label"]), label > 0)
    np.testing.assert_array_equal(is_tinted(shown["prediction"]), prediction > 0)
    np.testing.assert_array_equal(is_tinted(shown["errors"]), (label | prediction) > 0)
    missed, invented = shown["errors"][30, 10], shown["errors"][10, 30]
    assert missed[2] > missed[0]  # blue: a false negative
    assert invented[0] > invented[2]  # orange: a false positive
    brightness = shown["uncertainty"].sum(axis=-1)
    assert np.unravel_index(brightness.argmax(), brightness.shape) >= (36, 36)


def test_each_slice_shows_its_own_pixels() -> None:
    """Of 60 slices 24 are shown; slice n has a square of its own at y = n."""
    label = np.zeros((60, 64, 8), np.uint8)
    for number in range(60):
        label[number, number, :4], label[number, number, 4:] = 1, 0
    slices, _ = build_slices(Pixels(np.full((1, 60, 64, 8), 7, np.uint8), label[:, :, ::-1], label, None), 10**9)
    assert len(slices) == MAX_SLICES
    for entry in slices:
        shown = {panel.name: is_tinted(decode(panel.picture)) for panel in entry.panels}
        np.testing.assert_array_equal(shown["label"], label[entry.number] > 0)
        np.testing.assert_array_equal(shown["prediction"], label[entry.number, :, ::-1] > 0)


def test_slices_fit_the_budget_and_the_fullest_comes_first() -> None:
    slices, shown = build_slices(volume(60), 10**9)
    assert len(slices) == MAX_SLICES
    assert (slices[0].number, slices[-1].number) == (0, 59)
    full = sum(entry.size for entry in slices)
    fewer, _ = build_slices(volume(60), full // 3)
    assert sum(entry.size for entry in fewer) <= full // 3
    assert len(fewer) == MAX_SLICES // 4
    one, _ = build_slices(volume(60), 10)
    assert len(one) == 1
    all_of_them, shown = build_slices(volume(9), 10**9)
    assert [entry.number for entry in all_of_them] == list(range(9))
    assert shown == 4


def test_pixels_without_annotation_are_not_the_fullest_slice() -> None:
    """Of sparse labels most slices hold nothing but the ignore value."""
    pixels = volume(9)
    label = pixels.label.copy()
    label[:4] = 255
    _, shown = build_slices(replace(pixels, label=label, ignore_index=255), 10**9)
    assert shown == 4


def test_cells_of_a_region_have_one_plane_per_slice() -> None:
    """64 slices are 32 cells of 2: slices 3 to 6 lie in the cells 1, 2, 2, 3."""
    cells = np.arange(32, dtype=np.float32)[:, None, None] * np.ones((1, 5, 5), np.float32)
    own = crop_cells(cells, (slice(3, 7), slice(4, 12), slice(0, 20)), (64, 20, 20))
    assert own.shape == (4, 2, 5)
    np.testing.assert_array_equal(own[:, 0, 0], [1, 2, 2, 3])


def test_uncertainty_is_dark_where_it_is_low_or_unknown() -> None:
    picture = colour_uncertainty(np.array([[0, 1], [np.nan, 1]], np.float32), (40, 40))
    assert picture.shape == (40, 40, 3)
    assert picture[0, 0].max() < 0.05
    assert picture[-1, 0].max() < 0.05
    assert picture[0, -1].min() > 0.6


def test_the_most_uncertain_regions_by_hand() -> None:
    """Image a has two bright spots, b one that is brighter; windows of 16 pixels are 4 cells, and do not overlap."""
    a, b = (np.full((16, 16), 0.1, np.float32) for _ in range(2))
    a[0:4, 0:4], a[8:12, 8:12], b[4:8, 4:8] = 0.5, 0.4, 0.9
    found = rank_regions([UncertaintyMap("a", (64, 64), a), UncertaintyMap("b", (64, 64), b)], (16, 16), 4)
    assert [region.name for region in found[:3]] == ["b", "a", "a"]
    assert [region.uncertainty for region in found[:3]] == pytest.approx([0.9, 0.5, 0.4])
    assert found[0].region == (slice(16, 32), slice(16, 32))
    assert found[1].where == "y 0–15, x 0–15"
    assert len(found) == 4
    rows = label_next_rows(found, ["no", "yes", "partly", "no"])
    assert rows[0] == {"rank": 1, "file": "b", "region": "y 16–31, x 16–31", "uncertainty": pytest.approx(0.9), "labelled": "no"}
    assert rows[1]["labelled"] == "yes"


def test_small_images_are_regions_of_their_own_and_unpredicted_ones_none() -> None:
    small = UncertaintyMap("small", (10, 10), np.full((3, 3), 0.2, np.float32))
    nothing = UncertaintyMap("nothing", (10, 10), np.full((3, 3), np.nan, np.float32))
    (only,) = rank_regions([small, nothing], (64, 64), 5)
    assert (only.name, only.where, only.is_whole) == ("small", "whole image", True)
    assert only.region == (slice(0, 10), slice(0, 10))
    assert rank_regions([], (64, 64), 5) == []


def test_regions_of_a_part_lie_where_they_are_in_its_file() -> None:
    """What validates of a single image: a strip that begins at x = 32."""
    cells = np.full((4, 8), 0.1, np.float32)
    cells[:, 4:] = 0.6
    strip = UncertaintyMap("a", (16, 32), cells, cut_at=(0, 32))
    first, second = rank_regions([strip], (16, 16), 2)
    assert [first.where, second.where] == ["y 0–15, x 48–63", "y 0–15, x 32–47"]
    assert first.region == (slice(0, 16), slice(16, 32))
    middle = np.full((4, 12), 0.1, np.float32)
    middle[:, 2:6] = 0.9  # half of the first window, half of the second
    assert rank_regions([UncertaintyMap("a", (16, 48), middle)], (16, 16), 1)[0].where == "y 0–15, x 8–23"
    (whole,) = rank_regions([strip], (16, 32), 1)
    assert whole.where == "y 0–15, x 32–63"


def test_curves_lie_between_round_numbers() -> None:
    rows = [{"epoch": 1, "loss": 0.93, "val_loss": 0.55, "lr": 1.0}, {"epoch": 2, "loss": 0.5, "val_loss": float("nan")}]
    assert curve_names(rows) == (["loss"], ["lr"])
    svg = draw_curve(rows, "loss", 1)
    assert svg.count("<polyline") == 1  # one finite point of validation is a dot
    assert svg.count('class="val dot"') == svg.count('class="best"') == 1
    ticks = [float(text) for text in re.findall(r'text-anchor="end">([\d.]+)<', svg)]
    assert (ticks[0], ticks[-1]) == (0.4, 1.0)
    assert re.search(r'points="44.0,[\d.]+ 348.0,[\d.]+"', svg)
    assert draw_curve([{"epoch": 1, "loss": float("nan")}], "loss", None) == ""


def test_curves_of_one_epoch_and_of_constants() -> None:
    one = draw_curve([{"epoch": 1, "loss": 0.5}], "loss", None)
    assert one.count('class="train dot"') == 1
    for value in (0.0, 0.5, -2.0):
        svg = draw_curve([{"epoch": epoch, "loss": value} for epoch in range(1, 12)], "loss", None)
        ticks = [float(text) for text in re.findall(r'text-anchor="end">(-?[\d.]+)<', svg)]
        assert ticks[0] < value < ticks[-1]
        heights = {float(y) for y in re.findall(r"[\d.]+,([\d.]+)", svg.split("points=")[1])}
        [height] = heights
        assert 10 < height < 188
        assert re.findall(r'text-anchor="middle">(\d+)<', svg) == ["1", "3", "5", "7", "9", "11"]


def test_warnings_are_those_of_the_last_run(tmp_path: Path) -> None:
    path = tmp_path / "log.txt"
    list(record_log([Warned("of an earlier run")], path))
    list(record_log([Said("all well"), Warned("first\nsecond line"), Said("again"), Warned("twice"), Warned("twice")], path))
    assert read_warnings(path) == ["first second line", "twice"]
    assert read_warnings(tmp_path / "none.txt") == []


def test_a_log_that_a_full_disk_has_cut_short_is_gone_on_with(tmp_path: Path) -> None:
    """In the middle of a letter of two bytes; the next run begins on a line of its own, and its warnings are those that count."""
    path = tmp_path / "log.txt"
    list(record_log([Warned("of an earlier run"), Said("2 × 3")], path))
    whole = path.read_bytes()
    path.write_bytes(whole[: whole.index("×".encode()) + 1])
    assert read_warnings(path) == ["of an earlier run"]
    list(record_log([Warned("of this run")], path))
    assert read_warnings(path) == ["of this run"]
    assert path.read_bytes().count(b"\n---- ") == 1
