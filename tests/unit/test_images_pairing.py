"""Pairing: every way in which names may differ, and every leftover named."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import pytest

from crista.errors import DataError
from crista.images.listing import sort_naturally
from crista.images.pairing import pair_files, pair_what_matches


def paths(folder: str, *names: str) -> list[Path]:
    return sort_naturally([Path(folder) / name for name in names])


def paired(images: tuple[str, ...], labels: tuple[str, ...]) -> tuple[list[tuple[str, str]], list[str]]:
    pairs, notices = pair_files(paths("x", *images), paths("y", *labels))
    return [(image.name, label.name) for image, label in pairs], notices


def message_of(images: tuple[str, ...], labels: tuple[str, ...]) -> str:
    with pytest.raises(DataError) as caught:
        pair_files(paths("x", *images), paths("y", *labels))
    return str(caught.value)


def test_equal_stems_pair_in_silence_whatever_the_extension() -> None:
    pairs, notices = paired(("a.tif", "b.png", "c.TIF"), ("a.png", "b.png", "c.png"))
    assert pairs == [("a.tif", "a.png"), ("b.png", "b.png"), ("c.TIF", "c.png")]
    assert notices == []


def test_double_extensions_count_as_one() -> None:
    pairs, notices = paired(("a.ome.tif", "b.nii.gz", "c.ome.btf"), ("a.tif", "b.nii", "c.png"))
    assert pairs == [("a.ome.tif", "a.tif"), ("b.nii.gz", "b.nii"), ("c.ome.btf", "c.png")]
    assert notices == []


def test_a_number_at_the_end_is_no_extension() -> None:
    pairs, notices = paired(("slice.001", "slice.002"), ("slice.001.png", "slice.002.png"))
    assert pairs == [("slice.001", "slice.001.png"), ("slice.002", "slice.002.png")]
    assert notices == []
    pairs, _ = paired(("slice.001", "slice.002"), ("mask.001", "mask.002"))
    assert pairs == [("slice.001", "mask.001"), ("slice.002", "mask.002")]


def test_capitals_and_unicode_forms_pair_with_a_notice() -> None:
    composed = unicodedata.normalize("NFC", "café.tif")
    decomposed = unicodedata.normalize("NFD", "café.tif")
    pairs, (notice,) = paired(("A.tif", composed), ("a.tif", decomposed))
    assert pairs == [("A.tif", "a.tif"), (composed, decomposed)]
    assert "capitals or in the Unicode form: A.tif with a.tif" in notice


def test_names_that_differ_in_capitals_only_pair_exactly_where_both_exist() -> None:
    pairs, notices = paired(("A.tif", "a.tif"), ("a.tif", "A.tif"))
    assert sorted(pairs) == [("A.tif", "A.tif"), ("a.tif", "a.tif")]
    assert notices == []


@pytest.mark.parametrize(
    ("images", "labels"),
    [
        (("image_001.tif", "image_002.tif"), ("mask_001.tif", "mask_002.tif")),
        (
            ("training-0001.tif", "training-0002.tif"),
            ("training_groundtruth-0001.tif", "training_groundtruth-0002.tif"),
        ),
        (("a_1.tif", "a_2.tif", "a_10.tif"), ("a_1_mask.tif", "a_2_mask.tif", "a_10_mask.tif")),
        (("im1.tif", "im2.tif"), ("im1_label.png", "im2_label.png")),
        (("t1_001.tif", "t1_002.tif"), ("t2_001.tif", "t2_002.tif")),
        (("cells_a.tif", "cells_b.tif"), ("labels_a.tif", "labels_b.tif")),
    ],
)
def test_a_constant_difference_pairs_with_a_notice(images: tuple[str, ...], labels: tuple[str, ...]) -> None:
    pairs, (notice,) = paired(images, labels)
    assert pairs == list(zip(images, labels, strict=True))
    assert f"{images[0]} with {labels[0]}" in notice


def test_the_notice_lists_the_first_pairs_and_counts_the_rest() -> None:
    images = tuple(f"image_{i}.tif" for i in range(1, 12))
    labels = tuple(f"mask_{i}.tif" for i in range(1, 12))
    _, (notice,) = paired(images, labels)
    assert "'image' in the image names for 'mask' in the label names" in notice
    assert notice.endswith("image_3.tif with mask_3.tif and 8 more")


def test_natural_order_pairs_by_number_with_a_notice() -> None:
    pairs, (notice,) = paired(("1.tif", "2.tif", "10.tif"), ("01.tif", "02.tif", "10.tif"))
    assert pairs == [("1.tif", "01.tif"), ("2.tif", "02.tif"), ("10.tif", "10.tif")]
    assert "1.tif with 01.tif" in notice


def test_one_image_and_one_label_are_a_pair() -> None:
    pairs, (notice,) = paired(("raw.tif",), ("annotation.tif",))
    assert pairs == [("raw.tif", "annotation.tif")]
    assert "paired although their names differ" in notice


@pytest.mark.parametrize(
    ("images", "labels"),
    [
        (("1.tif", "2.tif", "3.tif"), ("11.tif", "12.tif", "13.tif")),
        (("img_1.tif", "img_2.tif"), ("img_2.tif", "img_3.tif")),
        (("b_1.tif", "b_2.tif"), ("c_1.tif", "d_2.tif")),
        (("alpha.tif", "beta.tif"), ("one.tif", "two.tif")),
    ],
)
def test_equal_counts_are_no_reason_to_pair(images: tuple[str, ...], labels: tuple[str, ...]) -> None:
    assert "without a label of the same name" in message_of(images, labels)


def test_leftovers_are_listed_and_nothing_else() -> None:
    message = message_of(("a.tif", "b.tif"), ("a.tif", "d.tif"))
    assert "without a label of the same name in y: b.tif" in message
    assert "without an image of the same name in x: d.tif" in message
    assert "a.tif" not in message


def test_different_counts_name_both_folders_and_the_image() -> None:
    message = message_of(("a.tif", "b.tif", "c.tif"), ("a.tif", "b.tif"))
    assert "3 images in x, 2 labels in y" in message
    assert "without a label of the same name in y: c.tif" in message


def test_different_counts_with_renamed_labels_still_name_the_image() -> None:
    message = message_of(("image_1.tif", "image_2.tif", "image_3.tif"), ("mask_1.tif", "mask_3.tif"))
    assert "without a label of the same name in y: image_2.tif" in message
    assert "image_1.tif" not in message


def test_equal_stems_on_one_side_are_all_named_at_once() -> None:
    message = message_of(("a.tif", "a.png"), ("a.tif", "b.tif", "b.png", "b.jpg"))
    assert 'two images with the stem "a": a.png, a.tif' in message
    assert '3 labels with the stem "b": b.jpg, b.png, b.tif' in message


def test_many_equal_stems_are_one_problem() -> None:
    """A preview beside each image."""
    names = [f"a{number}" for number in range(30)]
    with pytest.raises(DataError) as caught:
        pair_files(paths("x", *(f"{name}{end}" for name in names for end in (".tif", ".png"))), paths("y", *names))
    (problem,) = caught.value.problems
    assert problem.what.startswith('two images with the stem "a0": a0.png, a0.tif (and 29 more stems: a1, a2, ')
    assert problem.what.endswith("a20 and 9 more)")


def test_equal_stems_do_not_hide_what_has_no_partner() -> None:
    message = message_of(("a.tif", "a.png", "b.tif", "c.tif"), ("a.tif", "b.tif", "d.tif"))
    assert 'two images with the stem "a": a.png, a.tif' in message
    assert "without a label of the same name in y: c.tif" in message
    assert "without an image of the same name in x: d.tif" in message
    assert message.count("a.tif") == 1
    assert "none of them is used" in message
    assert "none of them is used" not in message_of(("a.tif", "a.png"), ("a.tif",))


def test_long_lists_are_shortened() -> None:
    images = tuple(f"{chr(97 + i // 26)}{chr(97 + i % 26)}q.tif" for i in range(30))
    message = message_of(images, ("zzz.tif", "yyy.tif"))
    assert "and 10 more" in message


def test_names_that_differ_in_leading_zeros_only_are_never_guessed() -> None:
    images, labels = paths("x", "img_1.tif", "img_01.tif", "img_2.tif"), paths("y", "mask_1.tif", "mask_01.tif", "mask_2.tif")
    pairs, _ = pair_what_matches(images, labels)
    assert [(image.name, label.name) for image, label in pairs] == [("img_2.tif", "mask_2.tif")]


@pytest.mark.parametrize(
    ("images", "labels", "left"),
    [
        (("img_A.tif", "img_B.tif"), ("img_C.tif", "img_D.tif"), ()),
        (("img_A.tif", "img_BB.tif"), ("img_C.tif", "img_DDD.tif"), ()),
        (("s1_t1.tif", "s1_t2.tif", "s2_t1.tif", "s2_t2.tif"), ("s3_t1.tif", "s3_t2.tif", "s4_t1.tif", "s4_t2.tif"), ()),
        (("case_0000.tif", "case_0001.tif"), ("case.tif",), ()),
        (("a_img.tif", "b_img.tif"), ("a_mask.tif",), (("a_img.tif", "a_mask.tif"),)),
        (("cell_a_img.tif", "cell_b_img.tif"), ("cell_a_mask.tif", "cell_c_mask.tif"), (("cell_a_img.tif", "cell_a_mask.tif"),)),
        (
            ("im1.tif", "im2.tif", "im3.tif", "im4.tif"),
            ("im1_a.tif", "im2_a.tif", "im3_b.tif", "im4_b.tif"),
            (("im1.tif", "im1_a.tif"), ("im2.tif", "im2_a.tif")),
        ),
    ],
)
def test_a_difference_that_tells_no_two_files_apart_pairs_nothing(
    images: tuple[str, ...], labels: tuple[str, ...], left: tuple[tuple[str, str], ...]
) -> None:
    """Where one image of img_A and img_B is given to img_C, a copy of the data would have the label of another image."""
    assert "without a label of the same name" in message_of(images, labels)
    pairs, _ = pair_what_matches(paths("x", *images), paths("y", *labels))
    assert tuple((image.name, label.name) for image, label in pairs) == left
