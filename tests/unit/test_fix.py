"""`crista check --fix`: corrected copies, exact to the pixel; the originals untouched; what is left is said."""

from __future__ import annotations

import csv
import errno
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import tifffile
import zarr
from PIL import Image as Pillow

import crista
from crista.cli.main import main
from crista.config.load import config_from_dict, load_config
from crista.errors import ConfigError, DataError
from crista.geometry.axes import Array
from crista.geometry.spacing import Spacing
from crista.images.open import open_image
from crista.images.write import write_image
from crista.workflow.fix import FixReport, _ignore_index

RNG = np.random.default_rng(5)
SIZE = (64, 80)
Save = Callable[[Path, Array], None]


def picture(*shape: int) -> Array:
    return RNG.integers(0, 200, shape or SIZE).astype(np.uint8)


def truth(classes: int = 2) -> Array:
    """Boxes of the classes 1, 2… on background."""
    label = np.zeros(SIZE, np.uint8)
    for index in range(1, classes):
        label[10:50, 12 * index : 12 * index + 9] = index
    return label


def save(folder: Path, name: str, array: Array) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    if path.suffix == ".npy":
        np.save(path, array)
    else:
        Pillow.fromarray(array).save(path)
    return path


def write_set(root: Path, labels: dict[str, Array], split: str = "train") -> None:
    for name, label in labels.items():
        save(root / split / "x", f"{Path(name).stem}.npy", picture())
        save(root / split / "y", name, label)


def mend(root: Path, **data: Any) -> FixReport:
    return crista.fix(root / "train/x", root / "train/y", out=root / "out", overrides=[f"DATA.{k}={v}" for k, v in data.items()])


def written(root: Path, name: str, split: str = "train") -> Array:
    (path,) = (root / "out" / split / "y").glob(f"{name}.*")
    return open_image(path, ndim=2, is_label=True).read()[0]


def rows(root: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO((root / "out/changes.csv").read_text())))


def one_hot(label: Array) -> Array:
    return np.stack([label == index for index in range(3)]).astype(np.uint8)


def painted(label: Array) -> Array:
    return np.array([[0, 0, 0], [0, 120, 255], [255, 0, 0]], np.uint8)[label]


def blurred(label: Array) -> Array:
    """Soft borders, which keep the side of 0.5 on which a pixel is."""
    soft = label.astype(np.float32)
    soft[:, 1:] += np.where(label[:, 1:] != label[:, :-1], 0.25 - 0.5 * (label[:, 1:] == 1), 0).astype(np.float32)
    return soft


CASES: dict[str, tuple[str, Callable[[Array], Array], int, str, str]] = {
    "0/255": ("a.png", lambda t: t * 255, 2, "looks like 0/255", "0 -> 0, 255 -> 1"),
    "one value": ("a.npy", lambda t: t * np.uint8(7), 2, "looks like 0/7", "0 -> 0, 7 -> 1"),
    "gaps": ("a.npy", lambda t: np.array([0, 2, 5], np.uint8)[t], 3, "labels {0, 2, 5} have gaps", "0 -> 0, 2 -> 1, 5 -> 2"),
    "wide gaps": ("a.npy", lambda t: np.array([3, 300, 70000], np.int32)[t], 3, "have gaps", "3 -> 0, 300 -> 1, 70000 -> 2"),
    "colours": ("a.png", painted, 3, "colour-coded, 3 colours", "each of 3 colours becomes a class"),
    "one-hot": ("a.npy", one_hot, 3, "one-hot, 3 channels", "the index of the channel"),
    "equal channels": ("a.png", lambda t: np.stack([t] * 3, -1), 2, "3 equal channels", "the first is kept"),
    "equal 0/255": ("a.png", lambda t: np.stack([t * 255] * 3, -1), 2, "looks like 0/255", "0 -> 0, 255 -> 1"),
    "float": ("a.npy", lambda t: t.astype(np.float64), 3, "whole numbers stored as float64", "written as uint8"),
    "soft": ("a.npy", blurred, 2, "soft (non-integer) values", "thresholded: the nearest of {0, 1}"),
    "instances": (
        "a.npy",
        lambda t: (t * np.arange(1, 65)[:, None]).astype(np.uint16),
        2,
        "looks like instance ids",
        "above 0 becomes class 1",
    ),
}


@pytest.mark.parametrize("case", sorted(CASES))
def test_label_faults_are_mended_to_the_pixel(tmp_path: Path, case: str) -> None:
    name, spoil, classes, seen, done = CASES[case]
    expected = truth(classes)
    write_set(tmp_path, {name: spoil(expected), f"b{Path(name).suffix}": spoil(expected[::-1].copy())})
    before = {path: path.read_bytes() for path in tmp_path.rglob("*.*")}
    found = mend(tmp_path)
    assert np.array_equal(written(tmp_path, "a"), expected)
    assert np.array_equal(written(tmp_path, "b"), expected[::-1])
    assert written(tmp_path, "a").dtype == np.uint8
    assert found.after.findings == ()
    assert found.after.coding is not None
    assert found.after.coding.num_classes == classes
    assert any(seen in row["seen"] and done in row["done"] and row["file"].endswith(name) for row in rows(tmp_path))
    assert {path: path.read_bytes() for path in before} == before
    for image in ("a.npy", "b.npy"):
        assert (tmp_path / "out/train/x" / image).read_bytes() == (tmp_path / "train/x" / image).read_bytes()


@pytest.mark.parametrize(("classes", "step", "quality", "right"), [(3, 120, 70, 0.995), (4, 85, 90, 0.98)])
def test_a_jpeg_label_goes_to_the_nearest_true_value(classes: int, step: int, quality: int, right: float, tmp_path: Path) -> None:
    """Four values in a JPEG are more than two classes have, but those of the mended label image are no damage any more."""
    expected = truth(classes)
    (tmp_path / "train/y").mkdir(parents=True)
    save(tmp_path / "train/x", "a.npy", picture())
    Pillow.fromarray(expected * step).save(tmp_path / "train/y/a.jpg", quality=quality)
    found = mend(tmp_path)
    assert "JPEG-damaged label" in found.before.problems[0].what
    assert found.before.problems[0].fix.startswith("each pixel gets the nearest of the commonest values")
    assert set(np.unique(written(tmp_path, "a"))) == set(range(classes))
    assert np.mean(written(tmp_path, "a") == expected) > right
    assert found.after.problems == ()


@pytest.mark.parametrize(
    ("names", "text"),
    [("classes.txt", "outside\ncell\nnucleus\n"), ("dataset.json", '{"labels": {"outside": 0, "cell": 2, "nucleus": 5}}')],
)
def test_the_copies_keep_the_names_of_the_classes(tmp_path: Path, names: str, text: str) -> None:
    """They lie beside the label images, or above: the copies are elsewhere, and hold other values."""
    write_set(tmp_path, {"a.npy": np.array([0, 2, 5], np.uint8)[truth(3)]})
    (tmp_path / "train" / names).write_text(text)
    found = mend(tmp_path)
    assert found.after.fingerprint is not None
    again = crista.check(found.config)
    assert again.fingerprint is not None
    assert again.fingerprint.named is not None
    assert again.fingerprint.named.names == ("outside", "cell", "nucleus")


def test_names_are_not_given_to_colours_which_have_an_order_of_their_own(tmp_path: Path) -> None:
    write_set(tmp_path, {"a.png": painted(truth(3))})
    (tmp_path / "train/classes.txt").write_text("outside\nred\nblue\n")
    again = crista.check(mend(tmp_path).config)
    assert again.fingerprint is not None
    assert again.fingerprint.named is None


def test_sound_labels_say_what_damaged_ones_were(tmp_path: Path) -> None:
    grey = truth().astype(np.uint8) * 255
    save(tmp_path / "train/x", "a.npy", picture())
    save(tmp_path / "train/y", "a.jpg", grey)
    write_set(tmp_path, {"b.png": grey})
    mend(tmp_path)
    assert np.array_equal(written(tmp_path, "a"), truth())
    assert np.array_equal(written(tmp_path, "b"), truth())


def test_nan_and_negative_labels_are_left_out_of_the_training(tmp_path: Path) -> None:
    label = truth().astype(np.float32)
    label[:4] = np.nan
    other = truth().astype(np.int16)
    other[:, :3] = -1
    write_set(tmp_path, {"a.npy": label, "b.npy": other})
    found = mend(tmp_path)
    assert np.all(written(tmp_path, "a")[:4] == 255)
    assert np.array_equal(written(tmp_path, "a")[4:], truth()[4:])
    assert np.all(written(tmp_path, "b")[:, :3] == 255)
    assert np.array_equal(written(tmp_path, "b")[:, 3:], truth()[:, 3:])
    assert "IGNORE_INDEX: 255" in found.config.read_text()
    assert found.after.problems == ()


def test_test_labels_follow_the_classes_of_the_training(tmp_path: Path) -> None:
    write_set(tmp_path, {"a.png": truth() * 255, "b.png": truth()[::-1] * 255})
    write_set(tmp_path, {"t.png": truth(), "u.png": truth() * 255, "v.png": truth() * 9}, "test")
    job = {
        "DATA": {
            role.upper(): {"PATH": str(tmp_path / role / "x"), "GT_PATH": str(tmp_path / role / "y")}
            for role in ("train", "test")
        },
        "TRAIN": {"ENABLE": True, "EPOCHS": 3},
        "TEST": {"ENABLE": True},
    }
    job["DATA"]["TEST"]["LOAD_GT"] = True  # type: ignore[assignment]
    found = crista.fix(job, out=tmp_path / "out")
    assert [problem.fix for problem in found.before.problems] == ["1 becomes class 1", "9 becomes class 1"]
    assert not [row for row in rows(tmp_path) if row["done"].startswith("not changed")]
    assert found.after.problems == found.after.warnings == ()
    for name in "tuv":
        assert np.array_equal(written(tmp_path, name, "test"), truth())
    again = crista.check(found.config)
    assert (len(again.train), len(again.test), again.problems) == (2, 3, ())
    assert "EPOCHS: 3" in found.config.read_text()


@pytest.mark.parametrize("whole", [2**29, 100])
def test_nan_pixels_become_the_mean_and_axes_and_voxel_size_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, whole: int
) -> None:
    """Also of images that are too large to be read at once."""
    monkeypatch.setattr("crista.images.fix.WHOLE", whole)
    image = RNG.normal(100, 10, (3, 5, *SIZE)).astype(np.float32)
    image[1, 2, :3] = np.nan
    spacing = Spacing((0.05, 0.01, 0.02))
    label = np.broadcast_to(truth(), (5, *SIZE)) * np.uint8(255)
    write_image(tmp_path / "train/x/a.tif", image, "CZYX", spacing=spacing)
    write_image(tmp_path / "train/y/a.tif", label, "ZYX", spacing=spacing)
    found = mend(tmp_path)
    copy = open_image(tmp_path / "out/train/x/a.tif", ndim=3)
    assert (copy.num_channels, copy.spatial_shape) == (3, (5, *SIZE))
    assert copy.spacing is not None
    assert copy.spacing.values == pytest.approx(spacing.values)
    pixels = copy.read()
    missing = np.isnan(image)
    assert np.array_equal(pixels[~missing], image[~missing])
    assert pixels[missing] == pytest.approx(float(np.nanmean(image[1].astype(np.float64))))
    mended = open_image(tmp_path / "out/train/y/a.tif", ndim=3, is_label=True)
    assert np.array_equal(mended.read()[0], label // 255)
    assert mended.spacing is not None
    assert mended.spacing.values == pytest.approx(spacing.values)
    assert found.after.findings == ()


def test_what_cannot_be_used_is_left_out_and_listed(tmp_path: Path) -> None:
    write_set(tmp_path, {f"{name}.npy": truth() for name in "abc"})
    save(tmp_path / "train/x", "d.npy", np.load(tmp_path / "train/x/a.npy"))
    save(tmp_path / "train/y", "d.npy", truth())
    save(tmp_path / "train/x", "e.npy", picture())
    save(tmp_path / "train/y", "e.npy", truth()[:-1])
    save(tmp_path / "train/x", "f.npy", np.full(SIZE, np.nan, np.float32))
    save(tmp_path / "train/y", "f.npy", truth())
    (tmp_path / "train/x/g.npy").write_bytes(b"")
    save(tmp_path / "train/y", "g.npy", truth())
    save(tmp_path / "train/x", "h.npy", picture())
    found = mend(tmp_path)
    assert sorted(path.name for path in (tmp_path / "out/train/x").iterdir()) == ["a.npy", "b.npy", "c.npy"]
    assert sorted(path.name for path in (tmp_path / "out/train/y").iterdir()) == ["a.npy", "b.npy", "c.npy"]
    listed = {Path(row["file"]).name: row["seen"] for row in rows(tmp_path) if row["done"].startswith("left out")}
    assert listed["d.npy"] == "the same pixels as a.npy"
    assert listed["e.npy"] == "image and label e.npy have different shapes, 64 × 80 and 63 × 80"
    assert listed["f.npy"] == "no finite value in the image"
    assert set(listed) == {"d.npy", "e.npy", "f.npy", "g.npy", "h.npy"}
    assert found.after.findings == ()


def test_test_images_that_are_trained_on_are_left_out(tmp_path: Path) -> None:
    write_set(tmp_path, {"a.npy": truth(), "b.npy": truth()})
    save(tmp_path / "test/x", "t.npy", np.load(tmp_path / "train/x/a.npy"))
    save(tmp_path / "test/x", "u.npy", picture())
    paths = {"TRAIN": {"PATH": str(tmp_path / "train/x"), "GT_PATH": str(tmp_path / "train/y")}}
    job = {"DATA": paths | {"TEST": {"PATH": str(tmp_path / "test/x")}}, "TRAIN": {"ENABLE": True}, "TEST": {"ENABLE": True}}
    found = crista.fix(job, out=tmp_path / "out")
    assert [path.name for path in (tmp_path / "out/test/x").iterdir()] == ["u.npy"]
    assert not (tmp_path / "out/test/y").exists()
    assert found.after.findings == ()


def test_swapped_folders_are_exchanged(tmp_path: Path) -> None:
    for name in "abc":
        save(tmp_path / "train/x", f"{name}.npy", truth() * np.uint8(255))
        save(tmp_path / "train/y", f"{name}.npy", picture())
    found = mend(tmp_path)
    assert len(found.before.problems) == 1
    assert "looks swapped with" in found.before.problems[0].what
    assert np.array_equal(written(tmp_path, "a"), truth())
    assert np.array_equal(np.load(tmp_path / "out/train/x/a.npy"), np.load(tmp_path / "train/y/a.npy"))


def test_what_only_the_user_can_decide_is_copied_and_listed(tmp_path: Path) -> None:
    label = truth()
    label[:5] = 255
    write_set(tmp_path, {"a.npy": label})
    found = mend(tmp_path)
    assert np.array_equal(written(tmp_path, "a"), label)
    assert "255 occurs beside the classes" in found.after.problems[0].what
    assert any("LOSS.IGNORE_INDEX: 255" in row["done"] for row in rows(tmp_path))


def test_keys_that_say_how_to_read_are_done_with(tmp_path: Path) -> None:
    for name in "ab":
        save(tmp_path / "train/x", f"{name}.npy", picture())
        save(tmp_path / "train/y", f"{name}.npy", truth().T.copy())
    found = mend(tmp_path, **{"TRAIN.INPUT_MASK_AXES_ORDER": "XY"})
    assert np.array_equal(written(tmp_path, "a"), truth())
    assert "INPUT_MASK_AXES_ORDER" not in found.config.read_text()
    assert found.after.findings == ()


def test_nothing_is_overwritten_and_nothing_half_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_set(tmp_path, {"a.png": truth() * 255})
    (tmp_path / "out").mkdir()
    (tmp_path / "out/mine.txt").write_text("mine")
    with pytest.raises(ConfigError, match="exists and is not empty"):
        mend(tmp_path)
    (tmp_path / "out/mine.txt").unlink()

    def fail(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("crista.workflow.fix._write_lists", fail)
    with pytest.raises(OSError, match="disk full"):
        mend(tmp_path)
    assert list((tmp_path / "out").iterdir()) == []


def test_a_full_disk_is_said_and_not_left_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Half way through the copy of a store of many files."""
    save(tmp_path / "train/y", "a.npy", truth())
    zarr.create_array(str(tmp_path / "train/x/a.zarr"), data=picture(), chunks=(16, 16))
    copied: list[str] = []

    def copy(source: Path, _: Path) -> None:
        copied.append(str(source))
        if len(copied) > 3:
            raise OSError(errno.ENOSPC, "No space left on device", str(source))

    monkeypatch.setattr("crista.images.fix.shutil.copyfile", copy)
    assert main(["check", str(tmp_path / "train/x"), str(tmp_path / "train/y"), "--fix", str(tmp_path / "out")]) == 1
    assert "No space left on device" in capsys.readouterr().err
    assert len(copied) == 4
    assert [path.name for path in tmp_path.iterdir()] == ["train"]


def test_a_store_is_copied_with_all_that_is_in_it(tmp_path: Path) -> None:
    save(tmp_path / "train/y", "a.npy", truth())
    zarr.create_array(str(tmp_path / "train/x/a.zarr"), data=picture(), chunks=(16, 16))
    (tmp_path / "train/x/a.zarr/empty").mkdir()
    mend(tmp_path)
    before, after = (
        {path.relative_to(root): path.read_bytes() for path in root.rglob("*") if path.is_file()}
        for root in (tmp_path / "train/x", tmp_path / "out/train/x")
    )
    assert before == after
    assert len(before) > 20


@pytest.mark.parametrize("axes", [None, "YX"])
def test_images_that_differ_in_the_extension_do_not_take_each_others_place(tmp_path: Path, axes: str | None) -> None:
    images = {"a.npy": picture().astype(np.float32), "a.png": picture(), "b.npy": picture()}
    for name, image in images.items():
        save(tmp_path / "test/x", name, image)
    images["a.npy"][0, 0] = np.nan
    np.save(tmp_path / "test/x/a.npy", images["a.npy"])
    section = {"PATH": str(tmp_path / "test/x"), **({"INPUT_IMG_AXES_ORDER": axes} if axes else {})}
    crista.fix({"DATA": {"TEST": section}, "TEST": {"ENABLE": True}}, out=tmp_path / "out")
    copies = ["a.npy.tif", "a.png.tif", "b.tif"] if axes else ["a.npy.tif", "a.png", "b.npy"]
    assert sorted(path.name for path in (tmp_path / "out/test/x").iterdir()) == copies
    for name, image in zip(copies, images.values(), strict=True):
        found = open_image(tmp_path / "out/test/x" / name, ndim=2).read()[0]
        assert np.array_equal(found[1:], image[1:])


def test_without_a_usable_pair_nothing_is_written(tmp_path: Path) -> None:
    save(tmp_path / "train/x", "a.npy", picture())
    save(tmp_path / "train/y", "a.npy", truth()[:-1])
    with pytest.raises(DataError, match="no image is left to copy") as caught:
        mend(tmp_path)
    assert "63 × 80" in str(caught.value)
    assert "no image is left to copy in DATA.TRAIN" in str(caught.value)
    assert "--fix" not in str(caught.value)


def test_copies_that_cannot_be_written_are_not_offered(tmp_path: Path) -> None:
    """The training could be mended, of the test nothing is left."""
    write_set(tmp_path, {"a.png": truth() * 255})
    save(tmp_path / "test/x", "t.npy", np.full(SIZE, np.nan, np.float32))
    data = {"TRAIN": {"PATH": str(tmp_path / "train/x"), "GT_PATH": str(tmp_path / "train/y")}}
    job = {"DATA": {**data, "TEST": {"PATH": str(tmp_path / "test/x")}}, "TRAIN": {"ENABLE": True}, "TEST": {"ENABLE": True}}
    assert [finding.problem.fix for finding in crista.check(job).findings if finding.problem.fix] == []
    with pytest.raises(DataError, match=r"no image is left to copy in DATA\.TEST"):
        crista.fix(job, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_several_ignored_values_are_refused(tmp_path: Path) -> None:
    config = config_from_dict({"LOSS": {"IGNORE_INDEX": [254, 255]}}).config
    with pytest.raises(
        ConfigError, match=r"LOSS\.IGNORE_INDEX: has 2 values \(254, 255\), and corrected copies are written with one"
    ):
        _ignore_index(config)


@pytest.mark.parametrize(("ignored", "values"), [(0, (0, 1, 5)), (1000, (1000, 0, 5)), (3, (3, 0, 5)), (255, (255, 0, 5))])
def test_the_ignored_value_never_meets_a_class(tmp_path: Path, ignored: int, values: tuple[int, int, int]) -> None:
    write_set(tmp_path, {"a.npy": np.array(values, np.uint16)[truth(3)]})
    report = crista.fix(
        tmp_path / "train/x", tmp_path / "train/y", out=tmp_path / "out", overrides=[f"LOSS.IGNORE_INDEX={ignored}"]
    )
    np.testing.assert_array_equal(written(tmp_path, "a"), np.array([255, 0, 1], np.uint8)[truth(3)])
    assert load_config(report.config).config.loss.ignored_values == (255,)
    assert report.after.problems == ()


def test_nan_beside_the_value_255_stays_apart(tmp_path: Path) -> None:
    write_set(tmp_path, {"a.npy": np.array([0, 255, np.nan], np.float32)[truth(3)]})
    mend(tmp_path)
    np.testing.assert_array_equal(written(tmp_path, "a"), np.array([0, 1, 255], np.uint8)[truth(3)])


@pytest.mark.parametrize("own_file", [True, False])
def test_an_array_that_is_named_inside_a_file_is_written_on_its_own(tmp_path: Path, own_file: bool) -> None:
    """Also where no key says that image and label lie in one file: the keys that name it do not hold for the copies."""
    images = {name: picture() for name in "ab"}
    for name, image in images.items():
        (tmp_path / "train/x").mkdir(parents=True, exist_ok=True)
        with h5py.File(tmp_path / f"train/x/{name}.h5", "w") as file:
            file["raw"], file["other"], file["labels"] = image, picture(), truth() * 255
        if own_file:
            save(tmp_path / "train/y", f"{name}.npy", truth() * 255)
    labels = tmp_path / "train" / ("y" if own_file else "x")
    keys = {"RAW_PATH": "raw"} if own_file else {"RAW_PATH": "raw", "GT_PATH": "labels"}
    overrides = [f"DATA.TRAIN.INPUT_ZARR_MULTIPLE_DATA_{key}={inner}" for key, inner in keys.items()]
    found = crista.fix(tmp_path / "train/x", labels, out=tmp_path / "out", overrides=overrides)
    assert found.after.findings == ()
    for name, image in images.items():
        assert np.array_equal(open_image(tmp_path / f"out/train/x/{name}.tif", ndim=2).read()[0], image)
        assert np.array_equal(written(tmp_path, name), truth())


def test_an_image_in_several_files_is_written_as_one(tmp_path: Path) -> None:
    planes = picture(3, *SIZE)
    parts = "".join(
        f'<TiffData FirstZ="{z}" IFD="0" PlaneCount="1"><UUID FileName="{z}.ome.tif">urn:uuid:{z}</UUID></TiffData>'
        for z in range(3)
    )
    (tmp_path / "train/x").mkdir(parents=True)
    for z, plane in enumerate(planes):
        xml = (
            f'<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06" UUID="urn:uuid:{z}"><Image ID="Image:0">'
            '<Pixels ID="Pixels:0" DimensionOrder="XYZCT" Type="uint8" SizeX="80" SizeY="64" SizeZ="3" SizeC="1" SizeT="1">'
            f"{parts}</Pixels></Image></OME>"
        )
        tifffile.imwrite(tmp_path / f"train/x/{z}.ome.tif", plane, description=xml, metadata=None)
    label = save(tmp_path / "train/y", "a.npy", np.stack([truth() * 255] * 3))
    found = crista.fix(tmp_path / "train/x/0.ome.tif", label, out=tmp_path / "out")
    assert found.after.problems == ()
    assert np.array_equal(open_image(tmp_path / "out/train/x/0.tif", ndim=3).read()[0], planes)


def test_without_a_pair_the_reason_is_told(tmp_path: Path) -> None:
    for side, names in (("x", ("alpha", "beta")), ("y", ("one", "two"))):
        for name in names:
            save(tmp_path / "train" / side, f"{name}.npy", truth())
    with pytest.raises(DataError, match=r"without a label of the same name in .*: alpha\.npy, beta\.npy"):
        mend(tmp_path)


WHITE, BLACK, RED, BLUE = (255, 255, 255), (0, 0, 0), (255, 0, 0), (0, 0, 255)


@pytest.mark.parametrize(
    ("palette", "held"), [((WHITE, BLUE, RED), (0, 0)), ((BLACK, RED, WHITE), (0, 0)), ((BLACK, RED, WHITE), (0, 2))]
)
def test_a_colour_coded_label_without_a_colour_is_one_of_colours(
    tmp_path: Path, palette: tuple[tuple[int, int, int], ...], held: tuple[int, int]
) -> None:
    """All white, or black and white: its channels are equal, and 255 is no class of its own."""
    colours = np.array(palette, np.uint8)
    plain = np.array(held, np.uint8)[truth(2)]
    labels = {"a": truth(3), "b": truth(3)[::-1], "grey": plain}
    write_set(tmp_path, {f"{name}.png": colours[label] for name, label in labels.items()})
    found = mend(tmp_path)
    assert "3 colours" in rows(tmp_path)[0]["seen"]
    assert found.after.problems == ()
    assert not any("0/255" in str(warning) for warning in found.before.warnings)
    for name, label in labels.items():
        assert np.array_equal(
            written(tmp_path, name), label
        )  # the background, then by red, green, blue: the order of the palette


@pytest.mark.parametrize("split", ["train", "test"])
def test_colours_beside_numbers_are_left_to_the_user(tmp_path: Path, split: str) -> None:
    """By their order they would be other classes: here red is 1 and blue is 2."""
    colours = np.array([[0, 0, 0], [255, 0, 0], [0, 0, 255]], np.uint8)
    write_set(tmp_path, {"a.png": colours[truth(3)]})
    write_set(tmp_path, {"b.png": truth(3)[::-1].copy()}, split)
    data: dict[str, Any] = {
        role.upper(): {"PATH": str(tmp_path / role / "x"), "GT_PATH": str(tmp_path / role / "y"), "LOAD_GT": True}
        for role in dict.fromkeys(("train", split))
    }
    data["TRAIN"].pop("LOAD_GT")
    found = crista.fix({"DATA": data, "TRAIN": {"ENABLE": True}, "TEST": {"ENABLE": split == "test"}}, out=tmp_path / "out")
    (problem,) = found.before.problems
    assert "which colour is which number of the other label images, only you know" in problem.next_step
    assert problem.fix == ""
    assert (tmp_path / "out/train/y/a.png").read_bytes() == (tmp_path / "train/y/a.png").read_bytes()
    assert "3 channels that differ" in found.after.problems[0].what


def test_numbers_of_classes_in_equal_channels_are_no_colours(tmp_path: Path) -> None:
    write_set(tmp_path, {"a.png": painted(truth(3)), "b.png": np.stack([truth(3)] * 3, -1)})
    (problem,) = mend(tmp_path).before.problems
    assert "which colour is which number" in problem.next_step


@pytest.mark.parametrize("ignored", [7, 255])
def test_other_values_of_test_labels_are_mended_beside_an_ignored_one(tmp_path: Path, ignored: int) -> None:
    labels = {}
    for split, value in (("train", 1), ("test", 2)):
        labels[split] = truth() * np.uint8(value)
        labels[split][-3:] = ignored
        write_set(tmp_path, {"a.png": labels[split]}, split)
    data = {role.upper(): {"PATH": str(tmp_path / role / "x"), "GT_PATH": str(tmp_path / role / "y")} for role in labels}
    job: dict[str, Any] = {"DATA": data, "LOSS": {"IGNORE_INDEX": ignored}}
    job |= {"TRAIN": {"ENABLE": True}, "TEST": {"ENABLE": True}}
    job["DATA"]["TEST"]["LOAD_GT"] = True
    found = crista.fix(job, out=tmp_path / "out")
    assert [problem.fix for problem in found.before.problems] == ["2 becomes class 1"]
    assert found.after.problems == ()
    assert np.array_equal(written(tmp_path, "a", "test") == 1, labels["test"] == 2)


@pytest.mark.parametrize("channels", [1, 2])
def test_a_volume_of_one_slice_stays_a_volume(tmp_path: Path, channels: int) -> None:
    image = RNG.normal(size=(channels, 1, 700, 40)).astype(np.float32)
    image[0, 0, 3, 4] = np.nan
    label = np.zeros((1, 700, 40), np.uint8)
    label[:, 100:300, 5:20] = 255
    for name in "a.b", "c":
        save(tmp_path / "train/x", f"{name}.npy", image if channels > 1 else image[0])
        save(tmp_path / "train/y", f"{name}.npy", label)
    keys = {"TRAIN.INPUT_IMG_AXES_ORDER": "CZYX"} if channels > 1 else {}
    overrides = ["PROBLEM.NDIM=3D", *(f"DATA.{key}={value}" for key, value in keys.items())]
    found = crista.fix(tmp_path / "train/x", tmp_path / "train/y", out=tmp_path / "out", overrides=overrides)
    assert found.after.problems == ()
    read = open_image(tmp_path / "out/train/y/a.b.ome.zarr", ndim=3, is_label=True).read()
    assert np.array_equal(read[0], label == 255)
    copied = open_image(tmp_path / "out/train/x/a.b.ome.zarr", ndim=3).read()
    assert np.isfinite(copied).all()
    assert np.array_equal(copied[:, :, 4:], image[:, :, 4:])
