"""The page of a check: one file that needs nothing else, with the table and pictures that show the labels."""

from __future__ import annotations

import io
import re
from base64 import b64decode
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Pillow
from tests.conftest import MakeData, tiny_config

import crista
from crista.geometry.axes import Region
from crista.images.labels import make_coding
from crista.images.open import open_image
from crista.images.write import write_image
from crista.results.check_page import check_thumbnails, draw_pair, findings_table, write_check_page
from crista.results.overlays import colour_classes


def pictures_in(html: str) -> list[np.ndarray]:
    found = re.findall(r'src="data:image/png;base64,([^"]+)"', html)
    return [np.asarray(Pillow.open(io.BytesIO(b64decode(text)))) for text in found]


def test_the_page_holds_the_table_and_the_labels_drawn_in(make_data: MakeData, tmp_path: Path) -> None:
    data = make_data(train=3, test=1)
    label = np.zeros((48, 48), np.uint8)
    label[10:20, 10:20] = 1
    Pillow.fromarray(np.full((48, 48), 90, np.uint8)).save(data / "train/x/02.tif")
    Pillow.fromarray(label).save(data / "train/y/02.tif")
    report = crista.check(tiny_config(data))
    write_check_page(report, tmp_path / "page.html")
    html = (tmp_path / "page.html").read_text()
    assert "http" not in html
    assert html.count("<tr>") == 1 + len(report.findings)
    assert "3 training, 0 validation and 1 test images" in html
    pictures = pictures_in(html)
    assert len(pictures) == 8
    odd, drawn = pictures[:2]  # the file with a finding comes first
    assert "<figcaption>02.tif with 02.tif</figcaption>" in html.split("</figure>")[0]
    tinted = drawn[..., 0].astype(int) - drawn[..., 2]
    assert np.array_equal(np.abs(tinted) > 20, label > 0)
    assert np.array_equal(odd[..., 0], odd[..., 2])


def test_names_are_escaped_and_volumes_show_their_middle(make_data: MakeData) -> None:
    data = make_data(shape=(9, 40, 50), train=2, test=1)
    (data / "train/x/00.tif").rename(data / "train/x/a<b>.tif")
    (data / "train/y/00.tif").rename(data / "train/y/a<b>.tif")
    report = crista.check(tiny_config(data, ndim=3))
    html = check_thumbnails(report, most=2)
    assert "a&lt;b&gt;.tif" in html
    assert "a<b>" not in html
    assert [picture.shape for picture in pictures_in(html)] == [(40, 50, 3)] * 4
    assert "2 of 3 pairs" in html


def test_sound_data_are_one_sentence(make_data: MakeData) -> None:
    report = crista.check(tiny_config(make_data(train=3, test=1)))
    assert report.findings == ()
    assert findings_table(report) == "<p>Nothing is wrong with the files.</p>"


def test_pixels_without_annotation_are_grey_where_the_label_holds_unknown_values_too(tmp_path: Path) -> None:
    label = np.zeros((48, 48), np.uint8)
    label[10:20], label[20:30], label[30:] = 1, 7, 255
    write_image(tmp_path / "x.tif", np.full((48, 48), 90, np.uint8), "YX")
    write_image(tmp_path / "y.tif", label, "YX")
    image, found = open_image(tmp_path / "x.tif"), open_image(tmp_path / "y.tif", is_label=True)
    _, drawn = draw_pair(image, found, make_coding(2, [255]))
    colours = [drawn[row, 5] for row in (0, 12, 25, 40)]
    assert [np.ptp(colour) < 0.1 for colour in colours] == [True, False, False, True]
    assert not np.allclose(colours[0], colours[3])
    assert not np.allclose(colours[1], colours[2])


def test_classes_have_their_colours_and_unknown_values_those_of_their_order(tmp_path: Path) -> None:
    """A label image that holds only the second class."""
    label = np.zeros((48, 48), np.uint8)
    label[10:20] = 2
    write_image(tmp_path / "x.tif", np.full((48, 48), 90, np.uint8), "YX")
    write_image(tmp_path / "y.tif", label, "YX")
    image, found = open_image(tmp_path / "x.tif"), open_image(tmp_path / "y.tif", is_label=True)
    for coding, shown in ((make_coding(3, []), 2), (None, 1)):
        picture, drawn = draw_pair(image, found, coding)
        np.testing.assert_array_equal(drawn, colour_classes(picture, np.where(label > 0, shown, 0), None))


@pytest.mark.parametrize("shape", [(700, 500), (3, 333, 1000)])
def test_large_planes_are_read_band_by_band(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shape: tuple[int, ...]) -> None:
    rng, axes = np.random.default_rng(0), "ZYX"[-len(shape) :]
    write_image(tmp_path / "x.tif", rng.integers(0, 255, (*shape, 3)).astype(np.uint8), axes + "C")
    write_image(tmp_path / "y.tif", rng.integers(0, 2, shape).astype(np.uint8), axes)
    image, label = (open_image(tmp_path / name, ndim=len(shape), is_label=name == "y.tif") for name in ("x.tif", "y.tif"))
    whole = draw_pair(image, label, make_coding(2, []))
    read, sizes = type(image.source).read, []

    def noted(self: object, region: Region) -> np.ndarray:
        pixels = read(self, region)
        sizes.append(pixels.size)
        return pixels

    monkeypatch.setattr(type(image.source), "read", noted)
    monkeypatch.setattr("crista.results.check_page.BAND_PIXELS", 10_000)
    for one, other in zip(draw_pair(image, label, make_coding(2, [])), whole, strict=True):
        np.testing.assert_array_equal(one, other)
    assert max(sizes) <= 3 * 10_000
    assert len(sizes) > 20
