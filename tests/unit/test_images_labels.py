"""Label values: counting them block by block, deciding which class each is, and reading them as classes."""

from __future__ import annotations

from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as Picture
from PIL import ImageFilter

from crista.errors import ImageReadError
from crista.geometry.axes import Array, Region
from crista.images import blocks
from crista.images.coding import CodingDecision, decide_coding
from crista.images.image import Image
from crista.images.label_faults import check_values
from crista.images.labels import MAX_VALUES, LabelCoding, class_counts, count_values, read_label, summarise_label


@dataclass(frozen=True)
class ArraySource:
    array: Array

    def read(self, region: Region) -> Array:
        return self.array[region]


def image_of(array: Any, axes: str = "YX", name: str = "a.tif") -> Image:
    array = np.asarray(array)
    ndim = 3 if "Z" in axes else 2
    return Image(Path("y") / name, axes, array.shape, array.dtype, ndim, None, ArraySource(array))


def decide(*labels: Any, num_classes: int | None = None, ignore_index: int | None = None, suffix: str = ".tif") -> CodingDecision:
    summaries = [
        (Path("y") / f"{letter}{suffix}", summarise_label(image_of(label)))
        for letter, label in zip("abcdefgh", labels, strict=False)
    ]
    return decide_coding(summaries, num_classes=num_classes, ignore_index=ignore_index, where="y")


def objects(*values: int, dtype: Any = np.uint8) -> Array:
    """A label image with an 6 × 6 object of each value on background."""
    label = np.zeros((10, 10 * len(values)), dtype)
    for position, value in enumerate(values):
        label[2:8, 10 * position + 2 : 10 * position + 8] = value
    return label


def only_problem(decision: CodingDecision) -> str:
    assert decision.coding is None
    assert len(decision.problems) == 1
    return str(decision.problems[0])


def warnings_of(decision: CodingDecision) -> str:
    assert decision.problems == ()
    return "\n".join(map(str, decision.warnings))


# --- counting -------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [bool, np.uint8, np.int8, np.uint16, np.int32, np.int64, np.uint64, np.float16, np.float64])
def test_whole_numbers_of_any_dtype_are_counted(dtype: Any) -> None:
    summary = summarise_label(image_of(np.array([[0, 1, 1], [0, 0, 1]], dtype)))
    assert summary.counts == {0: 3, 1: 3}
    assert summary.runs == {0: 2, 1: 2}
    assert (summary.num_values, summary.num_nan, summary.num_fractional) == (2, 0, 0)


def test_counts_do_not_depend_on_the_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    label = np.random.default_rng(0).integers(0, 7, (9, 33, 21))
    whole = summarise_label(image_of(label, "ZYX"))
    monkeypatch.setattr(blocks.iter_blocks, "__defaults__", (100, 8))
    assert summarise_label(image_of(label, "ZYX")) == whole
    assert whole.counts == {value: int((label == value).sum()) for value in range(7)}


def test_the_whole_volume_is_never_read_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks.iter_blocks, "__defaults__", (500, 8))
    sizes = []

    class Recording(ArraySource):
        def read(self, region: Region) -> Array:
            sizes.append(self.array[region].size)
            return super().read(region)

    label = np.zeros((20, 25, 20), np.uint8)
    summarise_label(Image(Path("a.tif"), "ZYX", label.shape, label.dtype, 3, None, Recording(label)))
    assert max(sizes) <= 500
    assert sum(sizes) == label.size


def test_negative_and_far_apart_values_are_counted() -> None:
    assert summarise_label(image_of([[-5, 2**40, -5]])).counts == {-5: 2, 2**40: 1}
    values, counts = count_values(np.array([-3, -3, 7]))
    assert (values.tolist(), counts.tolist()) == ([-3, 7], [2, 1])


def test_fractions_and_nan_are_counted_apart() -> None:
    summary = summarise_label(image_of(np.array([[0, 1, 0.25], [np.nan, np.inf, 1]], np.float32)))
    assert summary.counts == {0: 1, 1: 2}
    assert (summary.num_nan, summary.num_fractional, summary.fractional_example) == (2, 1, 0.25)


def test_too_many_values_stop_counting() -> None:
    summary = summarise_label(image_of(np.arange(2000, dtype=np.uint16).reshape(20, 100)))
    assert summary.num_values == MAX_VALUES + 1
    assert len(summary.counts) <= MAX_VALUES


def test_equal_channels_are_one() -> None:
    label = np.array([[0, 1], [1, 0]], np.uint8)
    summary = summarise_label(image_of(np.stack([label] * 3, -1), "YXC"))
    assert (summary.channels, summary.num_channels, summary.counts) == ("equal", 3, {0: 2, 1: 2})


@pytest.mark.parametrize("hot", [1, 255])
def test_one_hot_channels_are_recognised(hot: int) -> None:
    label = np.array([[0, 1], [2, 2]])
    one_hot = (np.arange(3)[:, None, None] == label).astype(np.uint8) * hot
    summary = summarise_label(image_of(one_hot, "CYX"))
    assert (summary.channels, summary.counts) == ("one-hot", {0: 1, 1: 1, 2: 2})


def test_colours_are_counted() -> None:
    label = np.zeros((2, 4, 3), np.uint8)
    label[0, 0], label[0, 1] = (255, 0, 0), (10, 20, 30)
    summary = summarise_label(image_of(label, "YXC"))
    assert (summary.channels, summary.num_colours) == ("different", 3)


# --- deciding -------------------------------------------------------------------------------------


def test_consecutive_values_are_the_classes() -> None:
    decision = decide(objects(1, 2), objects(1))
    assert decision == CodingDecision(LabelCoding(3))
    assert decide(objects(1, 2), num_classes=3) == CodingDecision(LabelCoding(3))


def test_values_are_decided_over_all_files_not_the_first() -> None:
    assert decide(objects(1), objects(2)).coding == LabelCoding(3)
    assert decide(objects(5), objects(5, 200)).coding == LabelCoding(3, None, ((0, 0), (5, 1), (200, 2)))


@pytest.mark.parametrize("num_classes", [None, 2])
@pytest.mark.parametrize("value", [255, 128, 1000])
def test_two_values_become_0_and_1_with_a_warning(num_classes: int | None, value: int) -> None:
    decision = decide(objects(value, dtype=np.uint16), num_classes=num_classes)
    assert decision.coding == LabelCoding(2, None, ((0, 0), (value, 1)))
    assert f"label values {{0, {value}}}" in warnings_of(decision)
    assert "mapped to {0, 1}" in warnings_of(decision)


def test_all_foreground_at_255_is_foreground() -> None:
    decision = decide(np.full((4, 4), 255, np.uint8))
    assert decision.coding == LabelCoding(2, None, ((0, 0), (255, 1)))
    assert "class 0 occurs in no label image" in warnings_of(decision)


@pytest.mark.parametrize("num_classes", [None, 3])
def test_gaps_are_closed_with_a_warning_that_shows_the_mapping(num_classes: int | None) -> None:
    decision = decide(objects(5, 200), num_classes=num_classes)
    assert decision.coding == LabelCoding(3, None, ((0, 0), (5, 1), (200, 2)))
    assert "0 -> 0, 5 -> 1, 200 -> 2" in warnings_of(decision)


def test_labels_that_start_at_1_are_mapped() -> None:
    label = np.where(objects(1) > 0, 2, 1).astype(np.uint8)
    assert decide(label).coding == LabelCoding(2, None, ((1, 0), (2, 1)))


def test_gaps_that_do_not_fit_the_number_of_classes_are_refused() -> None:
    text = only_problem(decide(objects(5, 200), num_classes=2))
    assert "label values {0, 5, 200}, but DATA.N_CLASSES: 2 allows {0, 1}" in text
    assert "y/a.tif" in text


def test_a_value_too_many_names_files_and_the_way_out() -> None:
    text = only_problem(decide(objects(1), objects(1, 2), num_classes=2))
    assert "{2} occur in b.tif" in text
    assert "set DATA.N_CLASSES: 3" in text


@pytest.mark.parametrize("num_classes", [None, 2])
def test_255_beside_classes_asks_for_the_ignore_index(num_classes: int | None) -> None:
    text = only_problem(decide(objects(1), objects(1, 255), num_classes=num_classes))
    assert "the value 255 occurs beside the classes {0, 1} (in b.tif)" in text
    assert "LOSS.IGNORE_INDEX: 255" in text


def test_255_is_ignored_when_asked_for() -> None:
    decision = decide(objects(1, 255), ignore_index=255)
    assert decision == CodingDecision(LabelCoding(2, 255))
    assert decision.coding is not None
    assert class_counts([{0: 7, 1: 2, 255: 9}], decision.coding) == (7, 2)


def test_255_as_a_class_is_possible_when_the_number_of_classes_says_so() -> None:
    decision = decide(objects(1, 255), num_classes=3)
    assert decision.coding == LabelCoding(3, None, ((0, 0), (1, 1), (255, 2)))
    assert "LOSS.IGNORE_INDEX: 255" in warnings_of(decision)


def test_an_ignore_index_that_never_occurs_is_told() -> None:
    assert "255 occurs in no label image" in warnings_of(decide(objects(1), ignore_index=255))


def test_files_of_two_kinds_are_named() -> None:
    text = only_problem(decide(objects(1), objects(255)))
    assert "{0, 1} in a.tif; {0, 255} in b.tif" in text


def test_files_of_several_classes_in_two_codings_are_named() -> None:
    labels = [objects(1, 2), objects(127, 255), objects(2), np.zeros((4, 4), np.uint8), objects(1)]
    text = only_problem(decide(*labels))
    assert "label values differ between files: {0, 1, 2} in a.tif, c.tif, e.tif; {0, 127, 255} in b.tif" in text
    assert "set DATA.N_CLASSES: 5" in text
    assert decide(*labels, num_classes=5).coding == LabelCoding(5, None, tuple(zip((0, 1, 2, 127, 255), range(5), strict=True)))
    assert decide(objects(1, 2), objects(3, 4)).coding == LabelCoding(5)
    assert "instance ids" in only_problem(decide(objects(*range(100, 110)), objects(*range(200, 210))))
    assert decide(objects(1, 2), objects(2, 5)).coding == LabelCoding(4, None, ((0, 0), (1, 1), (2, 2), (5, 3)))


def test_instance_ids_are_recognised() -> None:
    for dtype, values, count in ((np.uint8, range(1, 11), 11), (np.uint16, range(300, 320), 21)):
        for num_classes in (None, 2):
            text = only_problem(decide(objects(*values, dtype=dtype), num_classes=num_classes))
            assert f"{count} label values" in text
            assert "instance ids" in text
            assert "label > 0" in text
            assert f"DATA.N_CLASSES: {count}" in text


def test_many_classes_are_accepted_when_stated() -> None:
    assert decide(objects(*range(1, 11)), num_classes=11) == CodingDecision(LabelCoding(11))


def test_thousands_of_values_are_instance_ids() -> None:
    label = np.repeat(np.arange(2000, dtype=np.uint16), 9).reshape(60, 300)
    assert f"more than {MAX_VALUES} label values" in only_problem(decide(label, num_classes=2))


@pytest.mark.parametrize("num_classes", [None, 2])
def test_smoothed_borders_are_recognised_as_lossy(num_classes: int | None) -> None:
    row = np.array([0] * 20 + [31, 88, 140, 199, 233] + [255] * 20 + [240, 180, 90, 15] + [0] * 20, np.uint8)
    text = only_problem(decide(objects(1), np.tile(row, (10, 1)), num_classes=num_classes))
    assert "y/b.tif: 11 distinct values, from 0 to 255" in text
    assert "lossy" in text
    assert "label > 127" in text
    assert "a.tif holds 2 values" in text


def test_a_jpeg_label_is_lossy_whatever_it_looks_like() -> None:
    assert "lossy" in only_problem(decide(objects(1, 2, 3, 254, 255), suffix=".jpg"))


def strokes(*directions: str) -> Array:
    """Lines of one pixel, 60 long, of the values 64, 128, 192 and 255 on 0."""
    label = np.zeros((80, 4 * 80), np.uint8)
    steps = np.arange(60)
    for index, direction in enumerate(directions):
        start = 80 * index + 10
        label[10 + steps, start + (steps if direction == "diagonal" else 5)] = (64, 128, 192, 255)[index]
    return label


@pytest.mark.parametrize("direction", ["vertical", "diagonal"])
@pytest.mark.parametrize(("ignore_index", "classes"), [(None, 5), (0, 4)])
def test_strokes_of_one_pixel_are_not_taken_for_lossy(direction: str, ignore_index: int | None, classes: int) -> None:
    """Along x they are runs of one pixel, as the grey values of a smoothed border are; but on both sides of them is the same."""
    decision = decide(strokes(*[direction] * 4), ignore_index=ignore_index)
    assert "have gaps" in warnings_of(decision)
    assert decision.coding is not None
    assert decision.coding.num_classes == classes


@pytest.mark.parametrize("damage", ["smoothed", "resized", "JPEG 50", "JPEG 90"])
def test_damaged_labels_are_lossy_also_where_objects_are_thin(damage: str) -> None:
    rows, columns = np.indices((96, 128))
    label = (((rows - 40) ** 2 + (columns - 50) ** 2 < 500) | (abs(columns - 100) < 4)).astype(np.uint8) * 255
    picture = Picture.fromarray(label)
    if damage == "smoothed":
        damaged = picture.filter(ImageFilter.GaussianBlur(1.5))
    elif damage == "resized":
        damaged = picture.resize((200, 150), Picture.Resampling.BILINEAR)
    else:
        packed = BytesIO()
        picture.save(packed, "JPEG", quality=int(damage[5:]))
        damaged = Picture.open(packed)
    assert "lossy" in only_problem(decide(np.asarray(damaged)))


def test_runs_between_equal_values_are_counted_apart() -> None:
    """Not those at the ends of a row, nor those between two values; the next row is no neighbour."""
    summary = summarise_label(image_of(np.array([[0, 5, 5, 0, 7, 9, 9, 9], [0, 0, 0, 5, 7, 7, 7, 7]])))
    assert summary.runs == {0: 3, 5: 2, 7: 2, 9: 1}
    assert summary.enclosed == {5: 1}
    assert summarise_label(image_of(np.random.default_rng(0).integers(0, 9, (20, 20)))).enclosed == {}


def numbered(*counts: int) -> list[Array]:
    """Label images of so many objects each, which are numbered from 1."""
    return [np.pad(objects(*range(1, count + 1)), ((0, 0), (0, 60 - 10 * count))) for count in counts]


def test_numbers_of_a_few_objects_are_told() -> None:
    assert "look like the numbers of objects (instance ids)" in warnings_of(decide(*numbered(3, 5, 2)))


def test_where_two_classes_are_asked_for_numbers_may_be_of_objects() -> None:
    step = "if they number objects of one kind, write 1 for all of them (label > 0)"
    for labels in (numbered(4, 4), numbered(1, 3)):
        assert step in only_problem(decide(*labels, num_classes=2))
    assert step not in only_problem(decide(*numbered(4, 4), num_classes=3))
    for count, coding in ((4, LabelCoding(2)), (2, LabelCoding(2)), (4, LabelCoding(3))):
        problem = check_values(Path("a.tif"), summarise_label(image_of(*numbered(count))), coding)
        assert problem is not None or coding.num_classes > 2
        assert (step in str(problem)) == (count == 4 and coding.num_classes == 2)


def test_classes_of_which_each_image_holds_one_piece_are_no_numbers() -> None:
    pieces = np.pad(objects(1, 2, 3), 10)
    pieces[3:6, 3:9] = 1
    for labels in (numbered(4, 4, 4), numbered(2, 1, 2), [objects(1, 2, 3), objects(1, 3)], [*numbered(3, 2), pieces]):
        assert "instance" not in warnings_of(decide(*labels))
    assert "instance" not in warnings_of(decide(*numbered(3, 5, 2), num_classes=6))


def test_thin_classes_are_not_taken_for_lossy() -> None:
    label = np.tile(np.array([0, 1, 2, 3, 4], np.uint8), (4, 4))
    assert "set DATA.N_CLASSES: 5" in only_problem(decide(label, num_classes=2))


def test_a_set_without_foreground_is_told_and_so_is_a_file() -> None:
    empty = np.zeros((4, 4), np.uint8)
    assert "no label image holds foreground" in warnings_of(decide(empty, empty))
    assert "or the ignore value 255" in warnings_of(decide(objects(255), ignore_index=255))
    assert "no foreground in 2 label images: b.tif, c.tif" in warnings_of(decide(objects(1), empty, empty))


def test_a_file_without_any_annotation_has_no_background_either() -> None:
    """Nothing is learnt from it, no background either."""
    [warning] = decide(objects(1), np.full((4, 4), 255, np.uint8), ignore_index=255).warnings
    assert warning.what == "no annotated pixel in this label image"
    assert warning.effect == "the image is neither trained on nor measured"


def test_classes_that_never_occur_are_told() -> None:
    assert "class 2, 3 occurs in no label image" in warnings_of(decide(objects(1), num_classes=4))


@pytest.mark.parametrize(
    ("label", "words"),
    [
        (np.array([[0.0, 0.7]]), ("non-integer values, e.g. 0.7 (1 pixels)", "label > 0.5")),
        (np.array([[0.0, np.nan]]), ("holds NaN or infinite values (1 pixels)", "LOSS.IGNORE_INDEX: 255")),
        (np.array([[0, -1]]), ("negative value -1", "LOSS.IGNORE_INDEX: 255")),
    ],
)
def test_what_is_no_label_image_is_named(label: Array, words: tuple[str, ...]) -> None:
    text = only_problem(decide(objects(1), label))
    assert text.startswith("y/b.tif: ")
    assert all(word in text for word in words)


def test_differing_channels_are_named() -> None:
    label = np.random.default_rng(0).integers(0, 3, (4, 4, 3)).astype(np.uint8) * np.uint8(100)
    summary = summarise_label(image_of(label, "YXC"))
    decision = decide_coding([(Path("a.png"), summary)], num_classes=None, ignore_index=None, where="y")
    assert "3 channels that differ" in only_problem(decision)
    assert "distinct colours" in only_problem(decision)


def test_files_that_are_no_label_image_do_not_hide_what_is_wrong_with_the_others() -> None:
    nan = np.array([[0.0, np.nan]])
    first, second = decide(nan, objects(1), objects(*range(1, 40), dtype=np.uint16)).problems
    assert "NaN" in str(first)
    assert "instance ids" in str(second)
    assert "c.tif" in str(second)
    assert decide(nan, objects(1)).problems == (first,)
    (warning,) = decide(nan, objects(255)).warnings
    assert warning.fix == "they are written as 0 -> 0, 255 -> 1"
    assert decide(nan, np.zeros((4, 4), np.uint8)).warnings == ()
    two, mixed = decide(np.array([[0.0, np.nan, 1.0]]), objects(255)).problems
    assert ("NaN" in str(two), "{0, 1} in a.tif; {0, 255} in b.tif" in str(mixed)) == (True, True)


def test_the_same_fault_of_several_files_is_one_problem() -> None:
    bad = np.array([[0.0, 0.7]])
    assert "(the same kind in 1 more: c.tif)" in only_problem(decide(objects(1), bad, bad))


def test_other_splits_are_held_against_the_coding() -> None:
    coding = LabelCoding(2, 7, ((0, 0), (255, 1)))
    assert check_values(Path("v.tif"), summarise_label(image_of(objects(255, 7))), coding) is None
    problem = check_values(Path("v.tif"), summarise_label(image_of(objects(1))), coding)
    assert problem is not None
    assert "holds {1}; the label values of this training are {0, 7, 255}" in str(problem)


# --- reading --------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint16, np.int64, np.float32])
def test_mapped_values_are_read_as_classes(dtype: Any) -> None:
    stored = np.array([[0, 5, 100], [99, 5, 0]], dtype)
    classes = read_label(image_of(stored), LabelCoding(3, 99, ((0, 0), (5, 1), (100, 2))))
    assert classes.dtype == np.uint8
    assert classes.tolist() == [[0, 1, 2], [99, 1, 0]]


def test_values_beyond_uint8_are_mapped() -> None:
    stored = np.array([[0, 300, 70000]])
    assert read_label(image_of(stored), LabelCoding(3, None, ((0, 0), (300, 1), (70000, 2)))).tolist() == [[0, 1, 2]]


def test_a_region_is_read_and_bool_is_fine() -> None:
    stored = np.arange(12).reshape(3, 4) % 2 == 0
    region = (slice(1, 3), slice(0, 2))
    assert read_label(image_of(stored), LabelCoding(2), region).tolist() == [[1, 0], [1, 0]]


def test_equal_and_one_hot_channels_are_read_as_one() -> None:
    label = np.array([[0, 1], [2, 1]], np.uint8)
    assert (read_label(image_of(np.stack([label] * 3, -1), "YXC"), LabelCoding(3)) == label).all()
    one_hot = (np.arange(3)[:, None, None] == label).astype(np.uint8)
    assert (read_label(image_of(one_hot, "CYX"), LabelCoding(3)) == label).all()


@pytest.mark.parametrize(
    ("stored", "axes", "words"),
    [
        (np.array([[0, 3]]), "YX", ("the value 3", "coded as 0, 1, 255")),
        (np.array([[0, -1]]), "YX", ("the value -1",)),
        (np.array([[0.0, 0.5]]), "YX", ("non-integer values, e.g. 0.5",)),
        (np.array([[0.0, np.nan]]), "YX", ("NaN or infinite values (1 pixels",)),
        (np.array([[[0, 1]], [[1, 1]]]), "CYX", ("2 channels that differ",)),
    ],
)
def test_unknown_values_name_the_file(stored: Array, axes: str, words: tuple[str, ...]) -> None:
    with pytest.raises(ImageReadError) as caught:
        read_label(image_of(stored, axes), LabelCoding(2, 255))
    assert str(caught.value).startswith("y/a.tif: ")
    assert "\n    -> " in str(caught.value)  # what to do
    assert all(word in str(caught.value) for word in words)


@pytest.mark.parametrize("dtype", [np.int16, np.uint64, np.float16, np.float64])
def test_the_size_of_objects_does_not_depend_on_the_dtype(dtype: Any) -> None:
    summary = summarise_label(image_of(objects(1, 2).astype(dtype)))
    assert summary.diameters == summarise_label(image_of(objects(1, 2))).diameters
    assert [value for value, _ in summary.diameters] == [1, 2]


def test_the_size_of_objects_does_not_depend_on_the_channels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks.iter_blocks, "__defaults__", (60, 8))
    label = objects(1, 2)
    expected = summarise_label(image_of(label)).diameters
    one_hot = np.stack([label == index for index in range(3)]).astype(np.uint8)
    assert summarise_label(image_of(np.stack([label] * 3), "CYX")).diameters == expected
    assert summarise_label(image_of(one_hot, "CYX")).diameters == expected


def test_channels_of_nan_are_no_classes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks.iter_blocks, "__defaults__", (16, 8))
    label = np.stack([np.full((4, 4), np.nan), np.zeros((4, 4))])
    summary = summarise_label(image_of(label, "CYX"))
    assert (summary.channels, summary.num_nan, summary.diameters) == ("different", 16, ())


@pytest.mark.parametrize(("value", "dtype"), [(2**64 - 2, np.uint64), (-(2**63), np.int64), (2**31 - 2, np.int32)])
def test_values_at_the_ends_of_a_dtype_are_counted(value: int, dtype: Any) -> None:
    values, counts = count_values(np.array([value, value + 1, value], dtype))
    assert (values.tolist(), counts.tolist()) == ([value, value + 1], [2, 1])


@pytest.mark.parametrize("value", [10**9 * 4, 2**62, 2**64 - 1])
def test_two_values_however_far_apart_are_two_classes(value: int) -> None:
    decision = decide(objects(1).astype(np.uint64) * np.uint64(value))
    assert f"looks like 0/{value}" in warnings_of(decision)
    assert decision.coding == LabelCoding(2, None, ((0, 0), (value, 1)))


def test_the_range_of_soft_values_does_not_depend_on_the_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    label = np.zeros((8, 8), np.float32)
    label[0], label[-1] = 0.5, 3
    whole = summarise_label(image_of(label))
    monkeypatch.setattr(blocks.iter_blocks, "__defaults__", (16, 8))
    assert (whole.low, whole.high) == (0, 3)
    assert summarise_label(image_of(label)) == whole


def test_the_commonest_colours_do_not_depend_on_the_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (3, 40, 64), dtype=np.uint8)
    red, green = (np.zeros((3, 20, 64), np.uint8) for _ in range(2))
    red[0], green[1] = 250, 250
    label = np.concatenate([noise, red, green], axis=1)
    whole = summarise_label(image_of(label, "CYX"))
    monkeypatch.setattr(blocks.iter_blocks, "__defaults__", (3 * 64 * 30, 8))
    cut = summarise_label(image_of(label, "CYX"))
    assert whole.colours[:2] == cut.colours[:2] == ((250 << 8, 1280), (250 << 16, 1280))
    assert whole.num_colours == cut.num_colours == MAX_VALUES + 1


def test_grey_at_the_top_of_a_colour_coded_label_is_a_colour_too(monkeypatch: pytest.MonkeyPatch) -> None:
    label = np.zeros((3, 40, 8), np.uint8)
    label[:, 10:20], label[0, 20:30], label[1, 30:] = 255, 250, 250
    monkeypatch.setattr(blocks.iter_blocks, "__defaults__", (3 * 8 * 10, 8))
    summary = summarise_label(image_of(label, "CYX"))
    assert summary.colours == ((0, 80), (250 << 8, 80), (250 << 16, 80), (0xFFFFFF, 80))
    assert summary.num_colours == 4


@pytest.mark.parametrize(
    ("stored", "values", "trained", "fix"),
    [
        ((0, 1), (255,), True, "255 becomes class 1"),
        ((0, 255), (1,), False, "1 becomes class 1"),
        ((0, 255), (1,), True, ""),
        ((0, 5, 200), (1, 2), False, "kept, because the training labels are written as {0, 1, 2} too"),
        ((0, 5, 200), (1, 2), True, ""),
        ((0, 1, 2), (1, 7), False, ""),
    ],
)
def test_what_is_done_about_values_that_the_training_does_not_know_is_said(
    stored: tuple[int, ...], values: tuple[int, ...], trained: bool, fix: str
) -> None:
    """A trained network goes on reading the values that it has learnt, whatever is written to copies of other labels."""
    is_plain = stored == tuple(range(len(stored)))
    coding = LabelCoding(len(stored), None, None if is_plain else tuple((value, k) for k, value in enumerate(stored)))
    problem = check_values(Path("v.tif"), summarise_label(image_of(objects(*values))), coding, is_trained=trained)
    assert problem is not None
    assert problem.fix == fix
