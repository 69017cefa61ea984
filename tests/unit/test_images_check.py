"""The check of a data set: all problems at once, each named with its file and its way out."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import h5py
import nibabel
import numpy as np
import pytest
import tifffile
import zarr
from PIL import Image as Picture

import crista
from crista.config import Config
from crista.errors import DataError
from crista.geometry.axes import Array
from crista.geometry.spacing import Spacing
from crista.images import check
from crista.images.check import DatasetReport, check_dataset
from crista.images.labels import LabelCoding, class_counts, make_coding, read_label
from crista.images.look_cache import look_at_label
from crista.images.open import open_image
from crista.images.scan import Intensity, scan_image
from crista.images.write import write_image

RNG = np.random.default_rng(0)
SIZE = (48, 64)


def picture(*shape: int, dtype: Any = np.uint8) -> Array:
    """An image that is like no other."""
    return RNG.integers(1, 200, shape or SIZE).astype(dtype)


def label(*shape: int, value: int = 1, dtype: Any = np.uint8) -> Array:
    """An object in the middle."""
    array = np.zeros(shape or SIZE, dtype)
    array[tuple(slice(n // 4, n // 2 + 1) for n in array.shape)] = value
    return array


class Folders:
    """Images and labels of a split as NumPy files, and the request that names them."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.data: dict[str, Any] = {}

    def add(self, split: str, name: str, image: Array | None, target: Array | None) -> None:
        for side, array in (("x", image), ("y", target)):
            folder = self.root / split / side
            folder.mkdir(parents=True, exist_ok=True)
            if array is not None:
                np.save(folder / f"{name}.npy", array)
        section = self.data.setdefault(split.upper(), {})
        section |= {"PATH": str(self.root / split / "x"), "GT_PATH": str(self.root / split / "y")}

    def check(self, *, test: bool = False, train: bool = True, ndim: str | None = None, **keys: Any) -> DatasetReport:
        loss = {"IGNORE_INDEX": keys.pop("ignore_index", -1)}
        config = {"PROBLEM": {"NDIM": ndim}, "DATA": self.data | keys, "LOSS": loss}
        return check_dataset(Config.model_validate(config), need_train=train, need_test=test)


@pytest.fixture
def folders(tmp_path: Path) -> Folders:
    """Three sound training pairs."""
    made = Folders(tmp_path)
    for name in "abc":
        made.add("train", name, picture(), label())
    return made


def problems_of(report: DatasetReport) -> str:
    return "\n".join(map(str, report.problems))


def warnings_of(report: DatasetReport) -> str:
    assert report.problems == ()
    return "\n".join(map(str, report.warnings))


def test_sound_data_give_a_fingerprint_and_no_words(folders: Folders) -> None:
    report = folders.check()
    report.raise_if_problems()
    assert (report.problems, report.warnings, report.notices) == ((), (), ())
    found = report.fingerprint
    assert found is not None
    foreground = 3 * int(label().sum())
    total = 3 * SIZE[0] * SIZE[1]
    assert (found.ndim, found.num_channels, found.shapes) == (2, 1, (SIZE,) * 3)
    assert found.coding == LabelCoding(2)
    assert found.class_counts == (total - foreground, foreground)
    assert found.class_frequencies == pytest.approx(((total - foreground) / total, foreground / total))
    pixels = np.stack([np.load(path) for path in sorted((folders.root / "train/x").iterdir())]).astype(float)
    (intensity,) = found.intensity
    assert (intensity.min, intensity.max, intensity.count) == (pixels.min(), pixels.max(), pixels.size)
    assert (intensity.mean, intensity.std) == pytest.approx((pixels.mean(), pixels.std()))
    assert json.loads(json.dumps(found.to_json()))["images"][0]["shape"] == list(SIZE)


def test_all_problems_are_raised_together(folders: Folders) -> None:
    folders.add("train", "d", picture(), label(48, 63))
    folders.add("train", "e", np.full(SIZE, np.nan, np.float32), label())
    (folders.root / "train/x/f.npy").write_bytes(b"")
    np.save(folders.root / "train/y/f.npy", label())
    report = folders.check()
    with pytest.raises(DataError) as caught:
        report.raise_if_problems()
    text = str(caught.value)
    assert text.startswith("3 problems with the data")
    assert "d.npy: has shape 48 × 63, its image d.npy has 48 × 64" in text
    assert "e.npy: holds no finite value" in text
    assert "f.npy: empty file" in text
    assert report.fingerprint is None


def test_transposed_labels_are_named(folders: Folders) -> None:
    folders.add("train", "d", picture(), label(64, 48))
    found = problems_of(folders.check())
    assert "it looks transposed" in found
    assert "DATA.TRAIN.INPUT_MASK_AXES_ORDER (DATA.VAL…, DATA.TEST… alike), here XY" in found


def test_the_axes_that_would_mend_a_transposed_volume_are_named(tmp_path: Path) -> None:
    folders = Folders(tmp_path)
    folders.add("train", "a", picture(8, 40, 48), label(48, 40, 8))
    assert "here XYZ" in problems_of(folders.check(ndim="3D"))
    folders.data["TRAIN"]["INPUT_MASK_AXES_ORDER"] = "XYZ"
    assert folders.check(ndim="3D").problems == ()


def test_a_label_of_a_picture_that_is_turned_by_exif_is_not_to_be_transposed(tmp_path: Path) -> None:
    folders = Folders(tmp_path)
    folders.add("train", "a", None, np.rot90(label(), -1))
    exif = Picture.Exif()
    exif[0x0112] = 6
    Picture.fromarray(picture()).save(tmp_path / "train/x/a.jpg", exif=exif)
    found = problems_of(folders.check())
    assert "a.jpg is to be turned by its EXIF orientation, which is ignored" in found
    assert "AXES_ORDER" not in found


def test_a_picture_that_is_upside_down_by_exif_is_not_nothing_to_do(tmp_path: Path) -> None:
    """Its label has the same shape, whichever of the two it was drawn on."""
    folders = Folders(tmp_path)
    folders.add("train", "a", None, label())
    exif = Picture.Exif()
    exif[0x0112] = 3
    Picture.fromarray(picture()).save(tmp_path / "train/x/a.jpg", exif=exif)
    (warning,) = folders.check().findings
    assert "EXIF orientation 3 is ignored" in warning.seen
    assert "drawn on the turned picture does not lie on this one" in warning.effect
    assert "--report" in warning.fix


def test_links_in_a_circle_are_told_and_do_not_end_the_check(tmp_path: Path) -> None:
    folders = Folders(tmp_path)
    for name in "abc":
        folders.add("train", name, picture() if name == "a" else None, label())
    (tmp_path / "train/x/b.npy").symlink_to("c.npy")
    (tmp_path / "train/x/c.npy").symlink_to("b.npy")
    report = folders.check()
    assert [Path(problem.where).name for problem in report.problems] == ["b.npy", "c.npy"]
    assert all("links lead in a circle" in problem.what for problem in report.problems)


def test_missing_keys_are_named(folders: Folders) -> None:
    report = check_dataset(Config(), need_train=True, need_test=True)
    text = problems_of(report)
    for key in ("DATA.TRAIN.PATH", "DATA.TRAIN.GT_PATH", "DATA.TEST.PATH"):
        assert f"{key}: is not set" in text
    folders.data["VAL"] = {"FROM_TRAIN": False}
    text = problems_of(folders.check())
    assert "DATA.VAL.PATH: is not set" in text
    assert "DATA.VAL.GT_PATH: is not set" in text


def test_missing_folders_are_named_with_their_key(folders: Folders) -> None:
    folders.data["TRAIN"]["GT_PATH"] = str(folders.root / "train" / "yy")
    text = problems_of(folders.check())
    assert f"DATA.TRAIN.GT_PATH {folders.root}/train/yy: does not exist" in text
    assert "did you mean y instead of yy?" in text


def test_images_are_not_their_own_labels(folders: Folders) -> None:
    folders.data["TRAIN"]["GT_PATH"] = folders.data["TRAIN"]["PATH"]
    assert "image and label are the same file" in problems_of(folders.check())


def test_mixed_dimensions_are_listed(folders: Folders) -> None:
    folders.add("train", "v", picture(20, *SIZE), label(20, *SIZE))
    assert "files with different dimensions: a.npy, b.npy, c.npy 2D, v.npy 3D" in problems_of(folders.check())


@pytest.mark.parametrize(
    ("image", "target"), [("img_{}.npy", "img_{}_mask.npy"), ("img_{}.npy", "mask_img_{}.npy"), ("{}.npy", "{} labels.npy")]
)
def test_label_images_beside_the_images_are_seen(tmp_path: Path, image: str, target: str) -> None:
    for number in range(1, 12):
        np.save(tmp_path / image.format(number), picture())
        np.save(tmp_path / target.format(number), label())
    data = {"TRAIN": {"PATH": str(tmp_path), "GT_PATH": str(tmp_path)}}
    (problem,) = check_dataset(Config.model_validate({"DATA": data}), need_train=True, need_test=False).problems
    said = f"11 of these files look like the label images of others ({target.format(1)} of {image.format(1)}): move them"
    assert said in problem.next_step


def test_label_images_among_images_to_predict_are_told(folders: Folders) -> None:
    for number in range(3):
        folders.add("test", f"img_{number}", picture(), None)
        folders.add("test", f"img_{number}_mask", label(), None)
    folders.data["TEST"]["LOAD_GT"] = False
    report = folders.check(train=False, test=True)
    assert "label images among the images, as names and few values say: img_0_mask.npy, img_1_mask.npy" in warnings_of(report)
    for number in range(3):  # a second channel, or the same cells once more
        folders.add("test", f"img_{number}_mask", picture(), None)
    assert "label images among" not in warnings_of(folders.check(train=False, test=True))


def test_numbered_images_are_no_label_images_of_each_other(folders: Folders) -> None:
    for name in ("1", "11", "img_1", "img_12"):
        folders.add("train", name, picture(), None)
    folders.data["TRAIN"]["GT_PATH"] = folders.data["TRAIN"]["PATH"]
    assert "look like" not in problems_of(folders.check())


def test_a_volume_of_one_slice_among_volumes_is_a_volume(tmp_path: Path) -> None:
    made = Folders(tmp_path)
    for name, depth in (("a", 1), ("b", 3), ("c", 1)):
        made.add("train", name, picture(depth, *SIZE), label(3, *SIZE)[:depth] if depth > 1 else label(*SIZE)[None])
    report = made.check()
    assert problems_of(report) == ""
    assert [pair.image.spatial_shape[0] for pair in report.train] == [1, 3, 1]


@pytest.mark.parametrize("num_volumes", [1, 4])
def test_the_rarer_dimensions_do_not_hide_what_is_wrong_with_the_others(folders: Folders, num_volumes: int) -> None:
    """Whatever the kind that is rarer; with as many of both nothing can be told."""
    folders.add("train", "odd", picture(), label(SIZE[0] - 1, SIZE[1]))
    for number in range(num_volumes):
        folders.add("train", f"v{number}", picture(20, *SIZE), label(20, *SIZE))
    first, *others = folders.check().problems
    assert first.fix == ("the 3D ones are left out, with their labels" if num_volumes == 1 else "")
    assert [Path(problem.where).name for problem in others] == (["odd.npy"] if num_volumes == 1 else [])


def test_three_slices_that_were_saved_as_red_green_and_blue_can_be_named(tmp_path: Path) -> None:
    """tifffile takes an array of (3, y, x) bytes for a picture in colour; but nothing of 0 and 1 can be colours."""
    volume, target = picture(3, *SIZE), label(3, *SIZE)
    target[0] = 0
    for side, array in (("x", volume), ("y", target)):
        (tmp_path / side).mkdir()
        tifffile.imwrite(tmp_path / side / "a.tif", array, photometric="rgb", planarconfig="separate")
    found = crista.check(tmp_path / "x", tmp_path / "y")
    keys = ("DATA.TRAIN.INPUT_IMG_AXES_ORDER", "DATA.TRAIN.INPUT_MASK_AXES_ORDER")
    assert "if the 3 channels are slices of a volume, say so of images and labels with " + " and ".join(keys) in str(
        found.problems[0]
    )
    assert found.problems[0].fix == ""
    assert "colour" not in found.problems[0].what
    again = crista.check(tmp_path / "x", tmp_path / "y", overrides=[f"{key}=ZYX" for key in keys])
    assert (again.ndim, again.train[0].image.spatial_shape, again.problems) == (3, (3, *SIZE), ())


def test_one_image_may_be_too_small_to_keep_a_part_of_it_for_validation(tmp_path: Path) -> None:
    """The split, which is made later, says whether it was."""
    Folders(tmp_path).add("train", "a", picture(), label())
    [notice] = crista.check(tmp_path / "train/x", tmp_path / "train/y").notices
    assert notice.startswith("one training image: a part of it validates and is not trained on, unless it is too small for that")


def test_guessed_axes_of_image_and_label_of_one_name_are_told_once(tmp_path: Path) -> None:
    volumes = Folders(tmp_path)
    for name in "ab":
        volumes.add("train", name, picture(9, *SIZE), label(9, *SIZE))
    [notice] = [notice for notice in volumes.check().notices if "guessed" in notice]
    assert notice.startswith("a.npy, b.npy: axes guessed (z, y, x)")


def test_a_label_tells_channels_from_slices(folders: Folders) -> None:
    for name in "abc":
        folders.add("train", name, picture(3, *SIZE), label())
    report = folders.check()
    assert (report.ndim, report.problems) == (2, ())
    assert report.fingerprint is not None
    assert report.fingerprint.num_channels == 3


def test_test_images_follow_the_training_images(folders: Folders) -> None:
    folders.add("test", "t", picture(3, *SIZE), None)
    text = problems_of(folders.check(test=True))
    assert "different numbers of channels" in text
    assert "a.npy, b.npy, c.npy have 1 channel; t.npy has 3 channels" in text


def test_channels_must_fit_each_other_and_the_patch(folders: Folders) -> None:
    text = problems_of(folders.check(PATCH_SIZE=[32, 32, 3]))
    assert "DATA.PATCH_SIZE: (32, 32, 3) asks for 3 channels, the images have 1" in text
    assert "DATA.FORCE_RGB: True" in text
    assert folders.check(PATCH_SIZE=[32, 32, 3], FORCE_RGB=True).problems == ()
    folders.add("train", "d", picture(*SIZE, 3), label())
    assert "d.npy has 3 channels" in problems_of(folders.check())
    report = folders.check(FORCE_RGB=True)
    assert report.problems == ()
    assert report.fingerprint is not None
    assert report.fingerprint.num_channels == 3


def test_a_trained_network_keeps_its_number_of_channels(folders: Folders) -> None:
    """DATA.FORCE_RGB would mend that of a training; one that is over does not change any more."""
    folders.add("test", "grey", picture(), None)
    folders.add("test", "colour", picture(*SIZE, 3), None)
    folders.data["TEST"]["LOAD_GT"] = False
    assert "FORCE_RGB" not in problems_of(folders.check(train=False, test=True, ndim="2D"))
    folders.add("train", "colour", picture(*SIZE, 3), label())
    assert "FORCE_RGB" in problems_of(folders.check(ndim="2D"))


def test_the_patch_must_have_the_axes_of_the_images(folders: Folders) -> None:
    text = problems_of(folders.check(PATCH_SIZE=[16, 32, 32, 1]))
    assert "DATA.PATCH_SIZE: (16, 32, 32, 1) has 4 values, the images are 2D and take (y, x, channels)" in text


def test_small_images_are_padded_or_refused(folders: Folders) -> None:
    folders.add("train", "d", picture(7, 200), label(7, 200))
    text = warnings_of(folders.check())
    assert "7 × 200 is smaller than any patch (32 × 32): padded by reflection" in text
    report = folders.check(PATCH_SIZE=[64, 64, 1])
    assert "4 images (e.g. a.npy, 48 × 64) are smaller than the patch (64 × 64)" in warnings_of(report)
    text = problems_of(folders.check(PATCH_SIZE=[48, 48, 1], REFLECT_TO_COMPLETE_SHAPE=False))
    assert "the minimum is 48 × 48" in text
    assert "DATA.REFLECT_TO_COMPLETE_SHAPE: True" in text


def test_different_dtypes_are_told(folders: Folders) -> None:
    folders.add("train", "d", picture(dtype=np.uint16), label())
    assert "uint16 (d.npy); uint8 (a.npy, b.npy, c.npy); each image is normalised by itself" in warnings_of(folders.check())
    fixed = {"ZERO_MEAN_UNIT_VAR": {"MEAN_VAL": 10.0, "STD_VAL": 2.0}}
    assert "the same fixed mean" in warnings_of(folders.check(NORMALIZATION=fixed))


def test_nan_and_constant_images_are_told(folders: Folders) -> None:
    image = picture(dtype=np.float32)
    image[0, :5] = np.nan
    folders.add("train", "a", image, label())
    folders.add("train", "d", np.full(SIZE, 7, np.uint8), label())
    text = warnings_of(folders.check())
    assert "a.npy: holds NaN or infinite values (5 pixels): they are replaced by 0 after normalisation" in text
    assert "d.npy: the image is constant: every pixel is 7" in text
    folders.add("train", "e", np.zeros(SIZE, np.uint8), label())
    assert "2 images are constant: d.npy, e.npy" in warnings_of(folders.check())


def test_copies_within_training_and_in_the_test_are_told(folders: Folders) -> None:
    image = np.load(folders.root / "train/x/a.npy")
    folders.add("train", "d", image, label())
    folders.add("test", "t", image, None)
    text = warnings_of(folders.check(test=True))
    assert "identical images (duplicates): a.npy, d.npy" in text
    assert "1 test images are training images too: t.npy = a.npy" in text


def test_validation_and_test_labels_follow_the_training_labels(folders: Folders) -> None:
    for name in "abc":
        folders.add("train", name, picture(), label(value=255))
    folders.add("val", "v", picture(), label(value=255))
    folders.add("test", "t", picture(), label(value=1))
    folders.data["VAL"]["FROM_TRAIN"] = False
    folders.data["TEST"]["LOAD_GT"] = True
    folders.add("test", "u", picture(), label(value=7))
    report = folders.check(test=True)
    assert len(report.problems) == 2
    assert "t.npy: holds {1}; the label values of this training are {0, 255}" in problems_of(report)
    assert (len(report.train), len(report.val), len(report.test)) == (3, 1, 2)


def test_a_settled_coding_is_used(folders: Folders) -> None:
    folders.add("test", "t", picture(), label(value=255))
    folders.add("test", "u", picture(), label(value=1))
    folders.data["TEST"]["LOAD_GT"] = True
    config = Config.model_validate({"DATA": folders.data})
    settled = check_dataset(config, need_train=False, need_test=True, coding=LabelCoding(2))
    assert "holds {255}; the label values of this training are {0, 1}" in problems_of(settled)
    assert "train with LOSS.IGNORE_INDEX: 255, or measure with `crista evaluate … --ignore-index 255`" in problems_of(settled)
    (folders.root / "test/x/u.npy").unlink()
    (folders.root / "test/y/u.npy").unlink()
    other = check_dataset(config, need_train=False, need_test=True, coding=make_coding(2, [254]))
    assert "with LOSS.IGNORE_INDEX: [254, 255], or measure with `crista evaluate … --ignore-index 254,255`" in problems_of(other)
    assert check_dataset(config, need_train=False, need_test=True).problems == ()


@pytest.mark.parametrize(("learnt", "tested", "fix"), [(1, 255, "255 becomes class 1"), (255, 1, "")])
@pytest.mark.parametrize("dtype", [np.uint8, np.int8, bool, np.float32, np.int64])
def test_foreground_of_255_is_understood_where_the_training_has_1(
    folders: Folders, learnt: int, tested: int, fix: str, dtype: Any
) -> None:
    """As it is in a training, and in `crista evaluate`; the other way round too."""
    dtype = np.uint8 if tested == 255 and dtype in (np.int8, bool) else dtype
    for name in "abc":
        folders.add("train", name, picture(), label(value=learnt))
    for split in ("val", "test"):
        folders.add(split, f"{split}1", picture(), label(value=tested, dtype=dtype))
        folders.add(split, f"{split}2", picture(), label(value=0, dtype=dtype))
    folders.data["VAL"]["FROM_TRAIN"] = False
    folders.data["TEST"]["LOAD_GT"] = True
    report = folders.check(test=True)
    assert report.problems == ()
    assert report.coding is not None
    found = [finding for finding in report.findings if f"label values {{0, {tested}}}, those of the training" in finding.seen]
    assert [finding.files for finding in found] == [str(folders.root / "val/y"), str(folders.root / "test/y")]
    assert all(f"{tested} is read as the foreground" in finding.effect for finding in found)
    assert {finding.problem.fix for finding in found} == {fix}
    assert "no foreground in this label image" in warnings_of(report)
    assert "val1" not in warnings_of(report).replace(str(folders.root), "")
    for pair in (*report.val, *report.test):
        assert pair.label is not None
        wanted = label() if pair.name.endswith("1") else label(value=0)
        again = pickle.loads(pickle.dumps(pair.label))  # as workers get it
        np.testing.assert_array_equal(read_label(again, report.coding), wanted)
        np.testing.assert_array_equal(read_label(pair.label, report.coding, (slice(10, 20), slice(20, 40))), wanted[10:20, 20:40])
        counted = class_counts([look_at_label(pair.label).counts], report.coding)  # what was seen of the file is not of this
        assert counted == ((wanted == 0).sum(), wanted.sum())


def test_one_of_two_channels_is_no_foreground_in_another_form(folders: Folders) -> None:
    """The index of a channel is a class, and 255 is none there."""
    hot = np.stack([label() == 0, label() == 1]).astype(np.uint8)
    for name in "abc":
        folders.add("train", name, picture(), label(value=255))
    folders.add("test", "t", picture(), hot)
    folders.data["TEST"] |= {"LOAD_GT": True, "INPUT_MASK_AXES_ORDER": "CYX"}
    assert "holds {1}; the label values of this training are {0, 255}" in problems_of(folders.check(test=True))


def test_the_mapping_is_one_for_all_training_files(folders: Folders) -> None:
    folders.add("train", "a", picture(), label(value=5))
    folders.add("train", "b", picture(), label(value=200))
    folders.add("train", "c", picture(), label(value=0))
    report = folders.check(N_CLASSES=3)
    assert "0 -> 0, 5 -> 1, 200 -> 2" in warnings_of(report)
    assert "c.npy: no foreground in this label image" in warnings_of(report)
    assert report.fingerprint is not None
    object_size = int(label().sum())
    assert report.fingerprint.class_counts is not None
    assert report.fingerprint.class_counts[1:] == (object_size, object_size)


def test_ignored_pixels_are_not_counted(folders: Folders) -> None:
    for name in "abc":
        folders.add("train", name, picture(), label() + 255 * (label() == 0).astype(np.uint8))
    folders.add("train", "d", picture(), label())
    assert "LOSS.IGNORE_INDEX: 255" in problems_of(folders.check())
    report = folders.check(ignore_index=255)
    assert report.fingerprint is not None
    assert report.fingerprint.class_counts == (SIZE[0] * SIZE[1] - int(label().sum()), 4 * int(label().sum()))


def test_check_data_off_leaves_labels_unread(folders: Folders) -> None:
    folders.add("train", "c", picture(), label(value=77))
    folders.data["TRAIN"]["CHECK_DATA"] = False
    report = folders.check(N_CLASSES=2)
    assert report.problems == ()
    assert report.fingerprint is not None
    assert (report.fingerprint.class_counts, report.fingerprint.coding) == (None, LabelCoding(2))
    assert folders.check().problems != ()  # without N_CLASSES the labels are needed


def test_unread_training_labels_leave_the_plain_coding_for_the_test(folders: Folders) -> None:
    folders.add("test", "t", picture(), label())
    folders.data["TEST"]["LOAD_GT"] = True
    folders.data["TRAIN"]["CHECK_DATA"] = False
    report = folders.check(test=True, N_CLASSES=2)
    assert report.problems == ()
    assert report.fingerprint is not None
    folders.add("test", "t", picture(), label(value=3))
    assert "t.npy: holds {3}" in problems_of(folders.check(test=True, N_CLASSES=2))


@pytest.mark.parametrize("classes", [{}, {"N_CLASSES": 2}])
def test_a_test_set_may_hold_no_foreground(folders: Folders, classes: dict[str, int]) -> None:
    folders.add("test", "t", picture(), label(value=0))
    folders.data["TEST"]["LOAD_GT"] = True
    text = warnings_of(folders.check(test=True, train=False, **classes))
    assert "t.npy: no foreground in this label image" in text
    folders.data["TRAIN"] = folders.data["TEST"] | {"CHECK_DATA": True}
    folders.data["TRAIN"].pop("LOAD_GT")
    report = folders.check(**classes)
    assert report.problems == ()
    assert "no label image holds foreground" in warnings_of(report)


def test_voxel_sizes_that_differ_are_told(tmp_path: Path) -> None:
    made = Folders(tmp_path)
    for name, size in (("a", 0.1), ("b", 0.2)):
        made.add("train", name, None, label())
        write_image(tmp_path / "train/x" / f"{name}.tif", picture(), "YX", spacing=Spacing((size, size)))
    report = made.check()
    assert "voxel sizes differ: a.tif 0.1 × 0.1 µm, b.tif 0.2 × 0.2 µm" in warnings_of(report)
    assert report.fingerprint is not None
    assert report.fingerprint.spacing == pytest.approx((0.15, 0.15))
    made.data["TRAIN"]["RESOLUTION"] = [0.1, 0.1]
    again = made.check()
    assert again.warnings == ()
    assert any("DATA.TRAIN.RESOLUTION" in notice and "b.tif" in notice for notice in again.notices)


def test_axes_keys_override_the_file(folders: Folders) -> None:
    folders.add("train", "d", picture(), label().T)
    for name in "abc":
        folders.add("train", name, picture(), label().T)
    assert "looks transposed" in problems_of(folders.check())
    folders.data["TRAIN"]["INPUT_MASK_AXES_ORDER"] = "XY"
    assert folders.check().problems == ()


def test_large_test_images_are_not_read(folders: Folders, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check, "SCAN_LIMIT", 1000)
    folders.add("test", "t", np.full(SIZE, np.nan, np.float32), None)
    report = folders.check(test=True)
    assert report.problems == ()
    assert any("not read in advance" in notice and "t.npy" in notice for notice in report.notices)


def test_resolution_overrides_the_voxel_size(folders: Folders) -> None:
    folders.data["TRAIN"]["RESOLUTION"] = [0.2, 0.1]
    report = folders.check()
    assert report.fingerprint is not None
    assert report.fingerprint.spacing == (0.2, 0.1)
    folders.data["TRAIN"]["RESOLUTION"] = [0.2, -2.0]
    assert "DATA.TRAIN.RESOLUTION: (0.2, -2.0) is no voxel size" in problems_of(folders.check())
    folders.data["TRAIN"]["RESOLUTION"] = [-1.0]
    assert folders.check().problems == ()


def test_one_training_image_is_told(folders: Folders) -> None:
    for name in "bc":
        for side in "xy":
            (folders.root / "train" / side / f"{name}.npy").unlink()
    assert any("one training image" in notice for notice in folders.check().notices)


def test_the_same_fault_of_many_files_is_one_problem(folders: Folders) -> None:
    report = folders.check(ndim="3D")
    assert len(report.problems) == 2
    assert "3 files: a.npy, b.npy, c.npy" in problems_of(report)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int16, np.float32, np.float64])
def test_a_scan_measures_each_channel(tmp_path: Path, dtype: Any) -> None:
    array = picture(*SIZE, 2).astype(dtype)
    np.save(tmp_path / "a.npy", array)
    scan = scan_image(open_image(tmp_path / "a.npy", ndim=2))
    for channel, found in enumerate(scan.channels):
        pixels = array[..., channel].astype(float)
        assert (found.min, found.max, found.count) == (pixels.min(), pixels.max(), pixels.size)
        assert (found.mean, found.std) == pytest.approx((pixels.mean(), pixels.std()))


def test_statistics_of_parts_merge_to_those_of_the_whole() -> None:
    pixels = RNG.normal(1e6, 3, 1000)
    parts = [Intensity(p.min(), p.max(), p.mean(), p.std(), p.size) for p in (pixels[:10], pixels[10:700], pixels[700:])]
    merged = Intensity.merge([*parts, Intensity(0, 0, 0, 0, 0)])
    assert merged.count == 1000
    assert (merged.min, merged.max) == (pixels.min(), pixels.max())
    assert (merged.mean, merged.std) == pytest.approx((pixels.mean(), pixels.std()))
    assert Intensity.merge([]).count == 0


def test_the_table_says_what_will_happen_and_how_to_mend_it(folders: Folders) -> None:
    for name in "abc":
        folders.add("train", name, picture(), label(value=255))
    folders.add("train", "d", picture(), label(48, 63, value=255))
    problem, warning = folders.check().findings
    assert (problem.severity, problem.effect) == ("problem", "nothing is trained or predicted until it is mended")
    assert problem.files.endswith("train/y/d.npy")
    assert problem.fix.startswith("both must be the same (yx order)")
    assert problem.fix.endswith("; or --fix: image and label are left out")
    assert (warning.severity, warning.fix) == ("warning", "--fix: they are written as 0 -> 0, 255 -> 1")
    assert "looks like 0/255" in warning.seen
    assert "read as 0 -> 0, 255 -> 1, in training, prediction" in warning.effect
    assert "`crista check … --fix OUT` writes corrected copies" in problems_of(folders.check())


def test_a_rare_class_is_told(folders: Folders) -> None:
    rare = label()
    rare[0, :2] = 2
    folders.add("train", "a", picture(), rare)
    total = 3 * SIZE[0] * SIZE[1]
    assert f"class 2 in {100 * 2 / total:.2g} % of the pixels, in 1 of 3 label images" in warnings_of(folders.check())
    named = folders.check(CLASS_NAMES=["ground", "cell", "vesicle"])
    assert "class 2 (vesicle) in" in warnings_of(named)


@pytest.mark.parametrize("change", ["brighter", "noisy", "mirrored", "turned"])
def test_near_copies_in_the_test_are_told(folders: Folders, change: str) -> None:
    image = picture(48, 48)
    folders.add("train", "d", image, label(48, 48))
    changed = {
        "brighter": (image * 0.7 + 30).astype(np.uint8),
        "noisy": (image + RNG.normal(0, 8, image.shape)).clip(0, 255).astype(np.uint8),
        "mirrored": image[:, ::-1],
        "turned": np.rot90(image),
    }[change]
    folders.add("test", "t", changed, None)
    folders.add("test", "u", picture(48, 48), None)
    report = folders.check(test=True)
    (found,) = [row for row in report.findings if "look like training images" in row.seen]
    assert found.seen.startswith("1 test images look like training images that were saved anew")
    assert found.seen.endswith(": t.npy ~ d.npy")
    assert found.effect == "the test figures will be too good"


def test_test_images_unlike_the_training_images_are_told(folders: Folders) -> None:
    folders.add("test", "t", picture(dtype=np.uint16) * np.uint16(50), None)
    text = warnings_of(folders.check(test=True))
    assert "test images are uint16, training images uint8" in text
    assert "intensities of the test images (" in text
    effects = [row.effect for row in folders.check(test=True).findings]
    assert all(effect.startswith("each image is normalised by itself") for effect in effects)
    divided = folders.check(test=True, NORMALIZATION={"TYPE": "div"})
    assert "set DATA.NORMALIZATION.TYPE: zero_mean_unit_variance" in warnings_of(divided)


def test_saturated_and_negative_images_are_told(folders: Folders) -> None:
    image = picture()
    image[:6] = 255
    folders.add("train", "a", image, label())
    assert "a.npy: saturated: 12% of the pixels have the largest value, 255" in warnings_of(folders.check())
    folders.add("train", "a", picture(dtype=np.int16) - np.int16(900), label())
    assert "negative intensities" not in warnings_of(folders.check())
    text = warnings_of(folders.check(NORMALIZATION={"TYPE": "div"}))
    assert "a.npy: negative intensities down to -8" in text


def test_swapped_folders_are_one_problem(folders: Folders) -> None:
    for name in "abc":
        folders.add("train", name, label(), picture())
    text = problems_of(folders.check())
    assert "train/x: looks swapped with" in text
    assert "exchange DATA.TRAIN.PATH and DATA.TRAIN.GT_PATH" in text
    assert len(folders.check().problems) == 1


def test_the_pixel_size_of_the_test_is_held_against_that_of_the_training(tmp_path: Path) -> None:
    made = Folders(tmp_path)
    for split, name, size in (("train", "a", 0.008), ("train", "b", 0.008), ("test", "t", 0.005)):
        made.add(split, name, None, label())
        write_image(tmp_path / split / "x" / f"{name}.tif", picture(), "YX", spacing=Spacing((size, size)))
    (found,) = made.check(test=True).findings
    assert found.seen == "pixel size 0.005 × 0.005 µm, training was 0.008 × 0.008 µm (a factor of 0.625)"
    assert found.files.endswith("t.tif")
    assert found.effect == "objects are 1.6 times as large in pixels as those learnt"
    assert "t.tif becomes 30 × 40" in found.fix
    assert "scipy.ndimage.zoom(image, (0.625, 0.625), order=1)" in found.fix


def test_inner_paths_serve_hdf5_files_of_any_name(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "experiment.mat", "w") as file:
        file["raw"], file["label"] = picture(), label()
    keys = {"INPUT_ZARR_MULTIPLE_DATA": True, "INPUT_ZARR_MULTIPLE_DATA_RAW_PATH": "raw"}
    made = Folders(tmp_path)
    made.data["TRAIN"] = {"PATH": str(tmp_path), "INPUT_ZARR_MULTIPLE_DATA_GT_PATH": "label", **keys}
    report = made.check()
    assert report.problems == ()
    assert [(pair.image.inner, pair.label and pair.label.inner) for pair in report.train] == [("raw", "label")]


def test_the_key_that_names_an_array_is_that_of_the_split(tmp_path: Path) -> None:
    """For the images of a prediction the keys of the training have no effect."""
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["raw"], file["other"] = picture(), picture()
    made = Folders(tmp_path)
    made.data["TEST"] = {"PATH": str(tmp_path / "a.h5")}
    text = problems_of(made.check(train=False, test=True))
    assert "DATA.TEST.INPUT_ZARR_MULTIPLE_DATA_RAW_PATH" in text
    assert "DATA.TRAIN" not in text


@pytest.mark.parametrize(("name", "found"), [("a.zarr", "the store itself"), ("a.h5", "exported")])
def test_a_name_that_only_the_files_of_the_training_know_is_told_with_its_key(tmp_path: Path, name: str, found: str) -> None:
    """Whoever predicts other files with its network has never typed it."""
    if name == "a.h5":
        with h5py.File(tmp_path / name, "w") as file:
            file["exported"] = picture()
    else:
        zarr.save_array(str(tmp_path / name), picture())
    made = Folders(tmp_path)
    made.data["TEST"] = {"PATH": str(tmp_path / name), "INPUT_ZARR_MULTIPLE_DATA_RAW_PATH": "volumes.raw"}
    text = problems_of(made.check(train=False, test=True))
    assert f"holds no array 'volumes.raw'; found: {found} {picture().shape}" in text
    assert "correct DATA.TEST.INPUT_ZARR_MULTIPLE_DATA_RAW_PATH, or leave it empty" in text


def test_files_without_a_partner_do_not_hide_what_is_wrong_with_the_others(tmp_path: Path) -> None:
    folders = Folders(tmp_path)
    for name in "abc":
        folders.add("train", name, picture(), label())
    folders.add("train", "alone", picture(), None)
    folders.add("train", "odd", picture(), label(SIZE[0] - 1, SIZE[1]))
    report = folders.check()
    seen = " | ".join(str(problem) for problem in report.problems)
    assert "alone" in seen
    assert "odd.npy" in seen
    assert report.fingerprint is None
    with pytest.raises(DataError, match="alone"):
        report.raise_if_problems()


def test_the_same_values_of_many_test_labels_are_one_problem(folders: Folders) -> None:
    for name in "def":
        folders.add("test", name, picture(), label(value=7))
    folders.data["TEST"]["LOAD_GT"] = True
    (problem,) = folders.check(test=True).problems
    assert "3 files: d.npy, e.npy, f.npy" in problem.where
    assert problem.fix == "7 becomes class 1"


def test_the_home_of_a_user_who_is_not_there_is_told(folders: Folders) -> None:
    folders.data["TRAIN"]["PATH"] = "~nobody-of-this-name/images"
    assert "~nobody-of-this-name/images: does not exist" in problems_of(folders.check())


def test_a_nifti_label_that_runs_in_other_directions_is_told(tmp_path: Path) -> None:
    """Image and label of one shape, one of them mirrored along x: nothing else shows it."""
    for side in "xy":
        (tmp_path / side).mkdir()
    mirrored = np.diag([-1.0, 1.0, 1.0, 1.0])
    directions = {"a": (np.eye(4), mirrored), "b": (np.eye(4), np.eye(4)), "c": (None, mirrored)}
    for name, affines in directions.items():
        for side, affine, array in zip("xy", affines, (picture(40, 48, 8), label(40, 48, 8)), strict=True):
            nifti = nibabel.Nifti1Image(array, affine)
            nifti.header.set_xyzt_units("micron")
            nibabel.save(nifti, tmp_path / side / f"{name}.nii.gz")
    data = {"DATA": {"TRAIN": {"PATH": str(tmp_path / "x"), "GT_PATH": str(tmp_path / "y")}}}
    (warning,) = check_dataset(Config.model_validate(data), need_train=True, need_test=False).warnings
    assert warning.where == str(tmp_path / "y/a.nii.gz")
    assert "a.nii.gz is stored in the directions LAS, its image in RAS" in warning.what


def test_damaged_training_labels_do_not_hide_what_is_wrong_with_those_of_the_test(folders: Folders) -> None:
    damaged = label(dtype=np.float32)
    damaged[0, 0] = np.nan
    folders.add("train", "d", picture(), damaged)
    folders.add("test", "e", picture(), label(value=7))
    sparse = label()
    sparse[0] = 255
    folders.add("test", "f", picture(), sparse)
    folders.data["TEST"]["LOAD_GT"] = True
    first, second = folders.check(test=True).problems
    assert "NaN" in first.what
    assert (Path(second.where).name, second.fix) == ("e.npy", "7 becomes class 1")


def test_the_same_shapes_and_nan_of_many_files_are_one_finding_each(folders: Folders) -> None:
    damaged = picture(dtype=np.float32)
    damaged[0, 0] = np.nan
    for number in range(15):
        folders.add("train", f"s{number}", picture(), label(40, 60))
        folders.add("train", f"n{number}", damaged + number, label())
    report = folders.check()
    (shapes,) = report.problems
    assert shapes.what.startswith("has shape 40 × 60, its image s0.npy has 48 × 64 (the same in 14 more: s1.npy, ")
    (nan,) = [warning for warning in report.warnings if "NaN" in warning.what]
    assert nan.what.startswith("15 images hold NaN or infinite values (15 pixels): n0.npy, n1.npy, ")


def test_a_file_that_cannot_be_read_does_not_hide_what_is_wrong_with_its_partner(folders: Folders) -> None:
    for name in "defg":
        folders.add("train", name, picture(), label())
    for name, side in (("d", "x"), ("e", "x"), ("f", "y"), ("g", "y")):
        (folders.root / "train" / side / f"{name}.npy").write_bytes(b"")
    np.save(folders.root / "train/y/d.npy", label(value=7))
    damaged = label(dtype=np.float32)
    damaged[0] = np.nan
    np.save(folders.root / "train/y/e.npy", damaged)
    np.save(folders.root / "train/x/f.npy", np.full(SIZE, np.nan, np.float32))
    report = folders.check()
    found = {(Path(problem.where).name, problem.what.split(":")[0].split(";")[0]) for problem in report.problems[2:]}
    assert [problem.what for problem in report.problems[:2]] == ["empty file (0 bytes)"] * 2
    assert found == {
        ("d.npy", "holds {7}"),
        ("e.npy", "the label image holds NaN or infinite values (64 pixels)"),
        ("f.npy", "holds no finite value"),
    }
    assert {problem.fix for problem in report.problems} == {"image and label are left out"}


def test_missing_chunks_of_many_stores_are_one_warning(tmp_path: Path) -> None:
    """Label stores do not hold chunks of background, some more and some less of them."""
    folders = Folders(tmp_path)
    for number in range(3):
        folders.add("train", f"s{number}", picture(), None)
        array = zarr.create_array(str(tmp_path / f"train/y/s{number}.zarr"), shape=SIZE, chunks=(12, 64), dtype="u1")
        array[12 * number :] = 1
    warnings = [warning.what for warning in folders.check().warnings if "not stored" in warning.what]
    assert warnings == ["1 of 4 chunks are not stored and read as the fill value 0 (and the like, 2 files: s1.zarr, s2.zarr)"]
