"""evaluate: two folders of label images against each other, by hand."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

import crista
from crista.cli.inspection import definitions_of, score_rows
from crista.errors import CristaError, DataError
from crista.geometry.spacing import Spacing
from crista.images.open import open_image
from crista.images.wording import show_values
from crista.images.write import write_image
from crista.inference.outputs import OutputFile, OutputFormat
from crista.plan.events import ImageFinished, Warned


def write(folder: Path, **arrays: Any) -> Path:
    for name, array in arrays.items():
        values = np.asarray(array, np.uint8)
        write_image(folder / f"{name}.tif", values, "ZYX"[-values.ndim :])
    return folder


TRUE = [[0, 0, 1, 1], [0, 0, 1, 1]]
FOUND = [[0, 1, 1, 1], [0, 0, 0, 1]]


def test_by_hand(tmp_path: Path) -> None:
    """Image a: 3 hits, 1 missed, 1 invented: IoU 3/5. Image b is perfect. Pooled: 7 hits of 9."""
    true, found = write(tmp_path / "y", a=TRUE, b=TRUE), write(tmp_path / "p", a=FOUND, b=TRUE)
    heard: list[Any] = []
    result = crista.evaluate(true, found, on_event=heard.append)
    assert result.names == ("a", "b")
    np.testing.assert_array_equal(result.confusions[0], [[3, 1], [1, 3]])
    assert result.summary["foreground_iou"] == pytest.approx((0.6 + 1) / 2)
    assert result.summary["pooled_foreground_iou"] == pytest.approx(7 / 9)
    assert result.summary["foreground_dice"] == pytest.approx((6 / 8 + 1) / 2)
    assert result.class_iou == pytest.approx((7 / 9, 7 / 9))
    assert [event.name for event in heard if isinstance(event, ImageFinished)] == ["a", "b"]


def test_true_label_images_that_number_a_few_objects_are_told(tmp_path: Path) -> None:
    """Against predictions of one class they would be classes that are never found."""
    numbered = np.zeros((10, 40), np.uint8)
    for number in range(1, 4):
        numbered[2:8, 10 * number + 2 : 10 * number + 8] = number
    fewer = np.where(numbered > 2, 0, numbered)
    true = write(tmp_path / "y", a=numbered, b=fewer)
    found = write(tmp_path / "p", a=numbered > 0, b=fewer > 0)
    heard: list[Any] = []
    crista.evaluate(true, found, on_event=heard.append)
    assert any("look like the numbers of objects" in event.text for event in heard if isinstance(event, Warned))
    heard.clear()
    crista.evaluate(true, found, num_classes=4, on_event=heard.append)
    assert not any("numbers of objects" in event.text for event in heard if isinstance(event, Warned))


def test_several_classes_and_a_class_that_is_nowhere(tmp_path: Path) -> None:
    true, found = write(tmp_path / "y", a=[[0, 1, 1, 3]]), write(tmp_path / "p", a=[[0, 1, 3, 3]])
    result = crista.evaluate(true, found, num_classes=4)
    assert result.class_iou[0] == 1
    assert result.class_iou[1] == 0.5
    assert np.isnan(result.class_iou[2])
    assert result.summary["foreground_iou"] == 0.5
    assert result.summary["biapy_iou"] == pytest.approx(2 / 3)  # background included, absent class left out


def test_ignored_pixels_count_nowhere(tmp_path: Path) -> None:
    true, found = write(tmp_path / "y", a=[[0, 1, 255, 255]]), write(tmp_path / "p", a=[[0, 1, 0, 1]])
    result = crista.evaluate(true, found, num_classes=2, ignore_index=255)
    assert result.pooled.sum() == 2
    assert result.summary["foreground_iou"] == 1


@pytest.mark.parametrize("several", [(254, 255), [255, 254, -1]])
def test_several_values_of_ignored_pixels(tmp_path: Path, several: Sequence[int]) -> None:
    true, found = write(tmp_path / "y", a=[[0, 1, 254, 255]]), write(tmp_path / "p", a=[[0, 1, 0, 1]])
    heard: list[Any] = []
    result = crista.evaluate(true, found, ignore_index=several, on_event=heard.append)
    assert (result.pooled.sum(), result.summary["foreground_iou"]) == (2, 1)
    assert not [event for event in heard if isinstance(event, Warned)]


def test_predictions_are_not_asked_for_ignored_pixels(tmp_path: Path) -> None:
    """0 and 255 in the predictions are read by themselves; the true label images hold the 254 that is ignored."""
    true, found = write(tmp_path / "y", a=[[0, 1, 254, 1]]), write(tmp_path / "p", a=[[0, 255, 0, 255]])
    heard: list[Any] = []
    assert crista.evaluate(true, found, ignore_index=254, on_event=heard.append).pooled.sum() == 3
    assert not [event.text for event in heard if isinstance(event, Warned) and "ignore" in event.text]
    write(tmp_path / "p", a=[[0, 255, 254, 255]])
    with pytest.raises(DataError, match="254"):
        crista.evaluate(true, found, ignore_index=254)


def test_scribbles_that_count_classes_from_1_against_predictions_that_count_from_0(tmp_path: Path) -> None:
    """As a network predicts that was trained with LOSS.IGNORE_INDEX: 0 (and 9)."""

    def rows(*values: int) -> np.ndarray:
        return np.repeat([values], 4, axis=1)

    true, found = write(tmp_path / "y", a=rows(0, 1, 2, 2, 3, 9)), write(tmp_path / "p", a=rows(1, 0, 1, 1, 2, 2))
    heard: list[Any] = []
    result = crista.evaluate(true, found, ignore_index=(0, 9), on_event=heard.append)
    assert any(
        "taken for the numbers of the true values {1, 2, 3} in their order" in e.text for e in heard if isinstance(e, Warned)
    )
    np.testing.assert_array_equal(result.pooled, np.diag([4, 8, 4]))
    same = write(tmp_path / "q", a=rows(1, 1, 2, 2, 3, 3))  # as the true ones are written
    np.testing.assert_array_equal(crista.evaluate(true, same, ignore_index=(0, 9)).pooled, np.diag([4, 8, 4]))
    all_three = write(tmp_path / "b", a=rows(0, 1, 2, 2, 0, 1)), write(tmp_path / "c", a=rows(0, 1, 2, 2, 1, 1))
    with pytest.raises(DataError, match="set --classes 3"):
        crista.evaluate(*all_three, ignore_index=0)
    np.testing.assert_array_equal(crista.evaluate(*all_three, ignore_index=0, num_classes=3).pooled, np.diag([0, 8, 8]))
    write(tmp_path / "p", a=rows(1, 0, 1, 1, 2, 3))
    with pytest.raises(DataError, match=r"set --classes 4"):
        crista.evaluate(true, found, ignore_index=(0, 9))


def test_a_further_value_to_ignore_is_advised_beside_the_given_one(tmp_path: Path) -> None:
    true, found = write(tmp_path / "y", a=[[0, 1, 254, 255]]), write(tmp_path / "p", a=[[0, 1, 0, 1]])
    with pytest.raises(DataError, match="set --ignore-index 254,255 to leave these pixels out"):
        crista.evaluate(true, found, ignore_index=254)


@pytest.mark.parametrize(("top_true", "top_found"), [(1, 255), (255, 1), (255, 255)])
def test_0_and_255_mean_0_and_1_on_either_side(top_true: int, top_found: int, tmp_path: Path) -> None:
    """Also when the first image has no foreground."""
    true = write(tmp_path / "y", a=np.zeros((2, 4)), b=np.array(TRUE) * top_true)
    found = write(tmp_path / "p", a=np.zeros((2, 4)), b=np.array(FOUND) * top_found)
    result = crista.evaluate(true, found, num_classes=2)
    assert result.summary["foreground_iou"] == pytest.approx((1 + 0.6) / 2)


def test_volumes_and_single_files(tmp_path: Path) -> None:
    volume = np.zeros((3, 4, 5), np.uint8)
    volume[1] = 1
    true, found = write(tmp_path / "y", a=volume), write(tmp_path / "p", a=volume)
    assert crista.evaluate(true / "a.tif", found / "a.tif").summary["foreground_iou"] == 1


def test_names_are_paired_and_leftovers_refused(tmp_path: Path) -> None:
    true, found = write(tmp_path / "y", a=TRUE, b=TRUE), write(tmp_path / "p", a=FOUND, c=TRUE)
    with pytest.raises(DataError, match=r"(?s)b\.tif.*c\.tif|c\.tif.*b\.tif"):
        crista.evaluate(true, found)


def test_shapes_are_all_compared(tmp_path: Path) -> None:
    true = write(tmp_path / "y", a=TRUE, b=TRUE, c=TRUE)
    found = write(tmp_path / "p", a=FOUND, b=np.zeros((2, 3)), c=np.zeros((3, 4)))
    with pytest.raises(DataError) as caught:
        crista.evaluate(true, found)
    assert "b.tif" in str(caught.value)
    assert "c.tif" in str(caught.value)


def test_no_classes_at_all(tmp_path: Path) -> None:
    true, found = write(tmp_path / "y", a=np.zeros((2, 4))), write(tmp_path / "p", a=np.zeros((2, 4)))
    result = crista.evaluate(true, found, num_classes=2)
    assert result.summary["foreground_iou"] == 1


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    found = write(tmp_path / "p", a=FOUND)
    with pytest.raises(CristaError, match="nowhere"):
        crista.evaluate(tmp_path / "nowhere", found)
    with pytest.raises(CristaError, match="nowhere"):
        crista.evaluate(found, tmp_path / "nowhere")


def test_all_that_cannot_be_read_is_said_at_once_and_without_keys(tmp_path: Path) -> None:
    true, found = write(tmp_path / "y", a=TRUE, b=TRUE, c=TRUE), write(tmp_path / "p", a=TRUE)
    (found / "b.tif").write_bytes(b"")
    with h5py.File(found / "c.h5", "w") as file:
        file["raw"], file["label"] = np.array(TRUE), np.array(TRUE)
    with pytest.raises(DataError) as caught:
        crista.evaluate(true, found)
    assert "b.tif: empty file" in str(caught.value)
    assert "c.h5: holds several arrays: label (2, 4), raw (2, 4)\n" in str(caught.value)
    assert "-> export the label image as a file of its own" in str(caught.value)
    assert "DATA." not in str(caught.value)


def test_a_prediction_without_one_of_the_classes_is_not_renumbered(tmp_path: Path) -> None:
    true, found = write(tmp_path / "y", a=[[0, 1, 2, 2]]), write(tmp_path / "p", a=[[0, 2, 2, 2]])
    result = crista.evaluate(true, found)
    np.testing.assert_array_equal(result.pooled, [[1, 0, 0], [0, 0, 1], [0, 0, 2]])


def test_intervals_edges_and_names(tmp_path: Path) -> None:
    """Three images, one of them right; image a has 3 edge pixels of class 1 in the label, 3 in the prediction, all near."""
    true, found = write(tmp_path / "y", a=TRUE, b=TRUE, c=TRUE), write(tmp_path / "p", a=FOUND, b=TRUE, c=FOUND)
    result = crista.evaluate(true, found, class_names=["ground", "cell"])
    by_key = {(e.measure, e.of, e.over): e for e in result.estimates}
    assert by_key["iou", "cell", "images"].value == pytest.approx((0.6 + 1 + 0.6) / 3)
    assert (by_key["iou", "cell", "images"].low, by_key["iou", "cell", "images"].high) == pytest.approx((0.6, 1))
    assert by_key["iou", "cell", "images"].value == result.summary["foreground_iou"]
    assert by_key["nsd", "cell", "images"].value == 1
    assert result.boundaries[1][1].tolist() == [2, 2, 2, 2]
    assert result.tolerance == "2 pixels"
    for name, size in (("a", 0.5), ("b", 0.5), ("c", 0.5), ("c", 0.2)):
        write_image(found / f"{name}.tif", np.asarray(TRUE, np.uint8), "YX", spacing=Spacing((size, size)))
        told = crista.evaluate(true, found).tolerance
        assert told == ("2 pixels of the finest axis (1 µm)" if (name, size) == ("c", 0.5) else "2 pixels")
    with pytest.raises(DataError, match=r"class_names.*3 names.*2 classes"):
        crista.evaluate(true, found, class_names=["a", "b", "c"])


def test_every_figure_of_the_table_is_defined(tmp_path: Path) -> None:
    found = crista.evaluate(write(tmp_path / "y", a=TRUE), write(tmp_path / "p", a=FOUND))
    terms = {"foreground_iou": "IoU", "foreground_dice": "Dice", "foreground_nsd": "NSD", "accuracy": "accuracy"}
    terms["biapy_iou"] = "BiaPy's IoU"
    assert {"file", *terms} == set(score_rows(found)[0])
    assert {line.partition(": ")[0] for line in definitions_of(found)} >= {*terms.values(), "all foreground"}


def test_an_image_without_annotation_has_no_figures_and_no_say(tmp_path: Path) -> None:
    true, found = write(tmp_path / "y", a=TRUE, b=[[255] * 4] * 2), write(tmp_path / "p", a=FOUND, b=TRUE)
    one, nothing, mean, pooled = score_rows(crista.evaluate(true, found, ignore_index=255))
    assert all(np.isnan(value) for key, value in nothing.items() if key != "file")
    for row in (mean, pooled):
        assert {key: value for key, value in row.items() if key != "file"} == {k: v for k, v in one.items() if k != "file"}


@pytest.mark.parametrize("values", [(0, 10, 20), (0, 127, 255), (1, 2, 3), (1, 2), (0, 200)])
def test_predictions_of_label_images_with_gaps_are_measured_as_in_the_run(values: tuple[int, ...], tmp_path: Path) -> None:
    """A training numbers such values in their order, with a warning, and that is what its predictions hold."""
    classes = np.random.default_rng(0).integers(0, len(values), (2, 20, 24))
    true = write(tmp_path / "y", a=np.take(values, classes[0]), b=np.take(values, classes[1]))
    found = write(tmp_path / "p", a=classes[0], b=1 - classes[1].clip(0, 1))
    heard: list[Any] = []
    result = crista.evaluate(true, found, on_event=heard.append)
    assert result.confusions[0].shape == (len(values),) * 2
    np.testing.assert_array_equal(result.confusions[0], np.diag(np.bincount(classes[0].ravel())))
    assert result.confusions[1][0, 0] == 0
    assert f"taken for the numbers of the true values {show_values(values)} in their order" in " ".join(map(str, heard))
    assert crista.evaluate(true, true).summary["foreground_iou"] == 1


def test_sparse_labels_with_gaps_are_measured_as_in_the_run(tmp_path: Path) -> None:
    """0 is not annotated, the classes are 1 and 2; a prediction has no such pixels, and its numbers begin with 0."""
    true, found = write(tmp_path / "y", a=[[0, 1, 2, 2], [0, 0, 1, 2]]), write(tmp_path / "p", a=[[1, 0, 1, 1], [0, 1, 0, 0]])
    result = crista.evaluate(true, found, ignore_index=0)
    np.testing.assert_array_equal(result.pooled, [[2, 0], [1, 2]])


def test_values_that_have_nothing_in_common_are_not_measured(tmp_path: Path) -> None:
    """A class is missing in the test images: that 3 stands for 30 cannot be known, and no IoU of 0 is made of it."""
    true, found = write(tmp_path / "y", a=[[0, 10, 30, 30]]), write(tmp_path / "p", a=[[0, 1, 3, 3]])
    with pytest.raises(
        DataError, match=r"hold \{0, 10, 30\} and the predictions \{0, 1, 3\}(?s:.*)-> write the true label images"
    ):
        crista.evaluate(true, found)


def test_values_that_mean_something_on_both_sides_are_not_renumbered(tmp_path: Path) -> None:
    """Class 5 is not there by accident, and class 2 was predicted wrongly; only who says that there are three has them so."""
    true, found = write(tmp_path / "y", a=[[0, 1, 5, 5]]), write(tmp_path / "p", a=[[0, 1, 2, 2]])
    assert crista.evaluate(true, found).summary["foreground_iou"] < 0.5
    assert crista.evaluate(true, found, num_classes=6).summary["foreground_iou"] < 0.5
    assert crista.evaluate(true, found, num_classes=3).summary["foreground_iou"] == 1


def runs(*values: int) -> np.ndarray:
    """A row of them, each as wide as an object."""
    return np.repeat([values], 4, axis=1)


def test_objects_that_are_numbered_are_no_prediction_of_classes(tmp_path: Path) -> None:
    """None of the numbers is one of the classes: an IoU of 0 would say that nothing was found."""
    true, found = write(tmp_path / "y", a=runs(0, 1, 1, 1)), write(tmp_path / "p", a=runs(0, 3, 6, 9))
    with pytest.raises(DataError, match=r"hold \{0, 1\} and the predictions \{0, 3, 6, 9\}(?s:.*)give --classes"):
        crista.evaluate(true, found)
    assert crista.evaluate(true, found, num_classes=10).summary["foreground_iou"] == 0


def test_what_is_said_of_predictions_names_their_folder(tmp_path: Path) -> None:
    true, found = write(tmp_path / "y", a=runs(0, 3, 6, 9)), write(tmp_path / "p", a=runs(0, 1, 1, 0))
    heard: list[Any] = []
    crista.evaluate(true, found, on_event=heard.append)
    said = [event.text for event in heard if isinstance(event, Warned)]
    assert [text.startswith(f"{found}: ") for text in said] == [False, True, True]
    assert "class 2, 3 occurs in no label image" in said[1]
    assert "the predictions hold {0, 1}, taken for" in said[2]


@pytest.mark.parametrize("axes", ["CYX", "YX"])
def test_probabilities_are_told_from_label_images(axes: str, tmp_path: Path) -> None:
    probabilities = np.random.default_rng(0).random((2, 4, 4)).astype(np.float32)
    true = write(tmp_path / "y", a=np.eye(4))
    write_image(tmp_path / "p" / "a.tif", probabilities if axes == "CYX" else probabilities[0], axes)
    with pytest.raises(DataError) as caught:
        crista.evaluate(true, tmp_path / "p")
    assert "; if these are probabilities that crista has written, take the label images in per_image_binarized" in str(
        caught.value
    )
    assert "DATA." not in str(caught.value)
    with pytest.raises(DataError) as caught:
        crista.evaluate(tmp_path / "p", true)
    assert "per_image_binarized" not in str(caught.value)


def test_predictions_that_are_written_twice_are_measured_once(tmp_path: Path) -> None:
    """TEST.BY_CHUNKS.SAVE_OUT_TIF leaves a TIFF beside each OME-Zarr; where they differ the user has to say which is meant."""
    truth = np.zeros((4, 40, 48), np.uint8)
    truth[1:3, 10:30] = 1
    image = open_image(write(tmp_path / "y", **{"v0.a": truth}) / "v0.a.tif")
    OutputFile(tmp_path / "p", "v0.a", "ZYX", image, OutputFormat(tiff=True, zarr=True)).write(truth)
    assert sorted(path.name for path in (tmp_path / "p").iterdir()) == ["v0.a.tif", "v0.a.zarr"]
    heard: list[Any] = []
    assert crista.evaluate(tmp_path / "y", tmp_path / "p", on_event=heard.append).class_iou == (1.0, 1.0)
    assert heard[0].text.startswith("v0.a.tif: holds the same as the OME-Zarr of this name")
    write(tmp_path / "p", **{"v0.a": 0 * truth})
    with pytest.raises(DataError, match=r'two images with the stem "v0.a": v0.a.tif, v0.a.zarr'):
        crista.evaluate(tmp_path / "y", tmp_path / "p")
