"""`crista check --fix` on the real corner cases of label images: mended to the pixel where the truth is known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import crista
from crista.cli.main import main
from crista.errors import DataError
from crista.geometry.axes import Array
from crista.images.open import open_image
from crista.workflow.fix import FixReport

SOUND = "tif_lzw"
"""A case whose label is the truth of most others."""
EQUAL_TO_THE_TRUTH = (
    *("mask_png_0_255", "mask_png_1bit", "mask_tif_bool", "mask_float_01", "mask_float_fractional", "mask_instance_ids"),
    *("mask_int64", "mask_rgb_equal_channels", "mask_jpeg_artefacts", "nan_some", "identical_train_images", "mixed_extensions"),
    *("count_mismatch", "name_mismatch_same_count"),
)
UNUSABLE = ("shape_mismatch", "shape_transposed", "mixed_2d_3d", "nan_all", "same_stem_two_extensions")

pytestmark = pytest.mark.data


@pytest.fixture
def corpus(data_folder: Path) -> Path:
    return data_folder / "corner_cases"


def labels_in(folder: Path) -> list[Array]:
    return [open_image(path, ndim=2, is_label=True).read()[0] for path in sorted(folder.iterdir())]


def mend(corpus: Path, name: str, out: Path) -> FixReport:
    return crista.fix(corpus / name / "x", corpus / name / "y", out=out)


@pytest.mark.parametrize("name", EQUAL_TO_THE_TRUTH)
def test_labels_are_mended_to_the_pixel(corpus: Path, tmp_path: Path, name: str) -> None:
    (truth,) = labels_in(corpus / SOUND / "y")
    found = mend(corpus, name, tmp_path / "out")
    assert found.after.problems == ()
    assert np.array_equal(labels_in(tmp_path / "out/train/y")[0].astype(np.uint8), truth)
    left = " ".join(row.seen for row in found.after.findings)
    assert not [row.seen for row in found.before.findings if row.problem.fix and row.seen in left]


def test_values_with_gaps_keep_their_order(corpus: Path, tmp_path: Path) -> None:
    stored = labels_in(corpus / "mask_nonconsecutive" / "y")[0]
    mend(corpus, "mask_nonconsecutive", tmp_path / "out")
    assert np.array_equal(labels_in(tmp_path / "out/train/y")[0], np.searchsorted([0, 5, 200], stored))
    assert "labels {0, 5, 200} have gaps" in (tmp_path / "out/changes.csv").read_text()


def test_one_hot_channels_become_their_index(corpus: Path, tmp_path: Path) -> None:
    stored = open_image(corpus / "mask_onehot_channels/y/a.tif", ndim=2, is_label=True).read()
    mend(corpus, "mask_onehot_channels", tmp_path / "out")
    assert np.array_equal(labels_in(tmp_path / "out/train/y")[0], stored.argmax(axis=0))


def test_grey_borders_go_to_the_nearest_side(corpus: Path, tmp_path: Path) -> None:
    smoothed, sharp = (open_image(corpus / f"mask_antialiased_real/y/0{i}.png", ndim=2, is_label=True).read()[0] for i in (0, 1))
    found = mend(corpus, "mask_antialiased_real", tmp_path / "out")
    first, second = labels_in(tmp_path / "out/train/y")
    assert np.array_equal(first, smoothed > 127)
    assert np.array_equal(second, sharp)
    assert found.after.problems == ()


def test_nan_is_not_annotated(corpus: Path, tmp_path: Path) -> None:
    stored = labels_in(corpus / "nan_in_mask" / "y")[0]
    found = mend(corpus, "nan_in_mask", tmp_path / "out")
    mended = labels_in(tmp_path / "out/train/y")[0]
    assert np.array_equal(mended == 255, np.isnan(stored))
    assert np.array_equal(mended[mended != 255], stored[~np.isnan(stored)])
    assert found.after.problems == ()


@pytest.mark.parametrize("name", UNUSABLE)
def test_without_a_usable_pair_nothing_is_written(corpus: Path, tmp_path: Path, name: str) -> None:
    with pytest.raises(DataError, match="no image is left to copy"):
        mend(corpus, name, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_a_white_strip_of_255_is_for_the_user_to_decide(corpus: Path, tmp_path: Path) -> None:
    found = mend(corpus, "mask_255_ignore", tmp_path / "out")
    assert [row.problem.fix for row in found.after.findings] == [""]
    assert "set LOSS.IGNORE_INDEX: 255" in found.after.findings[0].fix


def test_the_command_line_does_the_same(corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    case = corpus / "mask_jpeg_artefacts"
    assert main(["check", str(case / "x"), str(case / "y")]) == 1
    told = capsys.readouterr().out
    assert "JPEG-damaged label" in " ".join(told.split())
    assert f"to mend what can be: crista check {case / 'x'} {case / 'y'} --fix NEW_FOLDER" in told
    assert (
        main(["check", str(case / "x"), str(case / "y"), "--fix", str(tmp_path / "out"), "--report", str(tmp_path / "a.html")])
        == 0
    )
    assert main(["check", str(tmp_path / "out/check.yaml")]) == 0
    assert capsys.readouterr().out.endswith("no problems, no warnings\n")
    assert (tmp_path / "a.html").read_text().count("data:image/png") == 2
