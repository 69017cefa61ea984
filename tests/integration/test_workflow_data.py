"""Training data in every form: what the network sees does not depend on the file, and each key of DATA does what it says."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import zarr
from PIL import Image as PillowImage
from tests.jobs import job, labels, log_rows, pixels, run_and_listen, same_weights, table, write_data, write_pairs

from crista.errors import CristaError, DataError
from crista.images.open import open_image
from crista.images.write import write_image
from crista.metrics.confusion import compute_confusion
from crista.metrics.overlap import foreground_iou
from crista.patches.prepare import make_split, prepare_samples
from crista.plan.events import Event, Warned
from crista.plan.make import make_plan
from crista.training.checkpoint import load_checkpoint
from crista.workflow.api import Outcome, listen, predict, run, silent
from crista.workflow.check import check
from crista.workflow.request import load_any

pytestmark = pytest.mark.usefixtures("no_drawings_in_module")
ONE = {"TRAIN": {"EPOCHS": 1}}
SOME = {"TRAIN": {"EPOCHS": 8}}
LOW = {"ENABLE": True, "LOWER_PERC": 0.1, "UPPER_PERC": 99.8}
NO_TEST = {"TEST": {"ENABLE": False}}


def train_data(**keys: Any) -> dict[str, Any]:
    return {"DATA": {"TRAIN": keys}}


def best(outcome: Outcome) -> Path:
    return outcome.folder.checkpoint_best


def samples_of(config: dict[str, Any], where: Path) -> Any:
    """The samples of a job, prepared as the workflow does."""
    loaded = load_any(config).config
    report = listen(check(loaded), silent)
    report.raise_if_problems()
    assert report.fingerprint is not None
    plan = make_plan(loaded, report.fingerprint)
    split = make_split(plan, report.train, report.val)
    return prepare_samples(plan, split, map_folder=where / "maps", cache_bytes=2**30)


def test_clipping_that_blanks_an_image_is_said(tmp_path: Path) -> None:
    """Both percentiles of a black image with one bright spot in a thousand pixels are 0, so its objects vanish."""
    data = write_data(tmp_path / "data", shape=(48, 56))
    spot = np.zeros((48, 56), np.uint8)
    spot[20:22, 20:21] = 200
    write_image(data / "train/x/00.tif", spot, "YX")
    clipped = {"DATA": {"NORMALIZATION": {"PERC_CLIP": dict(LOW)}}}
    warning = samples_of(job(data, clipped), tmp_path).warning
    assert "PERC_CLIP leaves one value in a channel of 1 image" in warning
    assert "equal: 00." in warning
    clipped["DATA"]["NORMALIZATION"]["PERC_CLIP"]["UPPER_PERC"] = 100
    assert samples_of(job(data, clipped), tmp_path).warning == ""
    _, said = run_and_listen(job(data, ONE, NO_TEST, {"DATA": {"NORMALIZATION": {"PERC_CLIP": LOW}}}), tmp_path / "run")
    assert sum("PERC_CLIP leaves one value" in line for line in said) == 1


def test_clipping_that_blanks_an_image_to_predict_is_said(tmp_path: Path) -> None:
    """Once after each prediction, also where the image was predicted before, and where it was predicted in blocks."""
    data = write_data(tmp_path / "data", shape=(48, 56))
    clipped = {"DATA": {"NORMALIZATION": {"PERC_CLIP": LOW}}}
    outcome, said = run_and_listen(job(data, ONE, clipped), tmp_path / "run")
    assert [line for line in said if "PERC_CLIP" in line] == []
    spot = np.zeros((48, 56), np.uint8)
    spot[20:22, 20:21] = 200
    write_image(data / "new/dark.tif", spot, "YX")
    write_image(data / "new/usual.tif", open_image(data / "test/x/00.tif").read()[0], "YX")
    for by_chunks in (False, False, True):
        heard: list[Event] = []
        changes = [f"TEST.BY_CHUNKS.ENABLE={by_chunks}"]
        predict(best(outcome), data / "new", result_dir=tmp_path / "new", overrides=changes, on_event=heard.append)
        [line] = [event.text for event in heard if isinstance(event, Warned) and "PERC_CLIP" in event.text]
        assert "a channel of 1 image, where both limits are equal: dark. The network sees nothing there" in line
        assert "-> train one with UPPER_PERC nearer to 100" in line


# --- files -----------------------------------------------------------------------------------------------


def write_png(path: Path, array: np.ndarray) -> None:
    PillowImage.fromarray(array).save(path.with_suffix(".png"))


def write_uint16(path: Path, array: np.ndarray) -> None:
    write_image(path.with_suffix(".tif"), array.astype(np.uint16), "YX")


def write_hdf5(path: Path, array: np.ndarray) -> None:
    with h5py.File(path.with_suffix(".h5"), "w") as file:
        file["data"] = array


def write_zarr(path: Path, array: np.ndarray) -> None:
    stored = zarr.open_array(str(path.with_suffix(".zarr")), mode="w", shape=array.shape, chunks=(16, 16), dtype=array.dtype)
    stored[:] = array


def write_npy(path: Path, array: np.ndarray) -> None:
    np.save(path.with_suffix(".npy"), array)


FORMATS: dict[str, Callable[[Path, np.ndarray], None]] = {
    "png": write_png,
    "uint16 tiff": write_uint16,
    "hdf5": write_hdf5,
    "zarr": write_zarr,
    "npy": write_npy,
}


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory, no_drawings_in_module: None) -> tuple[Path, Outcome]:
    """Data in uint8 TIFF and the run on them."""
    folder = tmp_path_factory.mktemp("reference")
    data = write_data(folder / "data", shape=(40, 44))
    return data, run(job(data, SOME), result_dir=folder / "out", name="job")


@pytest.mark.parametrize("name", sorted(FORMATS))
def test_the_format_changes_nothing(name: str, reference: tuple[Path, Outcome], tmp_path: Path) -> None:
    """Bit for bit the same network and the same labels."""
    data, first = reference
    for path in data.rglob("*.tif"):
        copy = tmp_path / "data" / path.relative_to(data)
        copy.parent.mkdir(parents=True, exist_ok=True)
        FORMATS[name](copy, pixels(path, 2)[0])
    outcome = run(job(tmp_path / "data", SOME), result_dir=tmp_path / "out", name="job")
    assert same_weights(best(outcome), best(first))
    written = "zarr" if name == "zarr" else "tif"
    for image in ("00", "01"):
        a = labels(first.folder.per_image_binarized / f"{image}.tif", 2)
        np.testing.assert_array_equal(a, labels(outcome.folder.per_image_binarized / f"{image}.{written}", 2))
    assert outcome.metrics == first.metrics


@pytest.mark.parametrize("dtype", ["int16", "int32", "uint32", "float32", "float64"])
def test_the_dtype_changes_no_label(dtype: str, reference: tuple[Path, Outcome], tmp_path: Path) -> None:
    """The same intensities in another dtype: the same label images."""
    data, first = reference
    for path in data.rglob("*.tif"):
        copy = tmp_path / "data" / path.relative_to(data)
        copy.parent.mkdir(parents=True, exist_ok=True)
        np.save(copy.with_suffix(".npy"), pixels(path, 2)[0].astype(dtype if path.parent.name == "x" else np.uint8))
    outcome = run(job(tmp_path / "data", SOME), result_dir=tmp_path / "out", name="job")
    assert same_weights(best(outcome), best(first))
    for image in ("00.tif", "01.tif"):
        a, b = (labels(one.folder.per_image_binarized / image, 2) for one in (first, outcome))
        np.testing.assert_array_equal(a, b)


def test_labels_of_0_and_255_are_those_of_0_and_1(reference: tuple[Path, Outcome], tmp_path: Path) -> None:
    data, first = reference
    for path in data.rglob("*.tif"):
        values = pixels(path, 2)[0]
        write_image(tmp_path / "data" / path.relative_to(data), values * 255 if path.parent.name == "y" else values, "YX")
    outcome = run(job(tmp_path / "data", SOME), result_dir=tmp_path / "out", name="job")
    assert same_weights(best(outcome), best(first))
    assert outcome.metrics == first.metrics
    assert set(np.unique(labels(outcome.folder.per_image_binarized / "00.tif", 2))) <= {0, 1}


def test_a_network_that_learnt_0_and_1_is_validated_and_measured_by_labels_of_0_and_255(
    reference: tuple[Path, Outcome], tmp_path: Path
) -> None:
    """The same weights and figures; what validates holds foreground, whatever was seen of the file before."""
    data, first = reference
    for path in (data / "test/y").iterdir():
        write_image(tmp_path / "y" / path.name, labels(path, 2) * 255, "YX")
    found = predict(best(first), data / "test/x", labels=tmp_path / "y", result_dir=tmp_path / "out")
    assert found.metrics == first.metrics
    outcomes, said = [], []
    for name, folder in (("one", data / "test/y"), ("255", tmp_path / "y")):
        folders = {"FROM_TRAIN": False, "PATH": str(data / "test/x"), "GT_PATH": str(folder)}
        config = job(data, ONE, {"DATA": {"VAL": folders}}, NO_TEST)
        outcome, lines = run_and_listen(config, tmp_path / name)
        outcomes.append(outcome)
        said.append([line for line in lines if line.startswith("validation: ")])
    assert same_weights(*map(best, outcomes))
    assert [row["val_iou"] for row in log_rows(outcomes[0])] == [row["val_iou"] for row in log_rows(outcomes[1])]
    assert said[0] == said[1] == ["validation: the 2 images of DATA.VAL.PATH"]


def test_reading_from_disk_changes_nothing(reference: tuple[Path, Outcome], tmp_path: Path) -> None:
    data, first = reference
    change = {"DATA": {"TRAIN": {"IN_MEMORY": False}, "VAL": {"IN_MEMORY": False}}}
    assert same_weights(best(run(job(data, SOME, change), result_dir=tmp_path, name="job")), best(first))


def test_the_number_of_threads_changes_nothing(reference: tuple[Path, Outcome], tmp_path: Path) -> None:
    data, first = reference
    outcome = run(job(data, SOME, {"SYSTEM": {"NUM_WORKERS": 3}}), result_dir=tmp_path, name="job")
    assert same_weights(best(outcome), best(first))


def test_the_network_sees_in_prediction_what_it_saw_in_training(reference: tuple[Path, Outcome], tmp_path: Path) -> None:
    """One function normalises: a training patch is a cut of the normalised whole image."""
    from crista.images.open import open_image
    from crista.patches.normalization import compute_statistics, normalize

    data, _ = reference
    prepared = samples_of(job(data), tmp_path)
    sample, name = prepared.train.sample(0, 1)
    _number, placement = prepared.train.placer.place(0, np.random.default_rng(0))
    image = open_image(data / "train" / "x" / f"{name}.tif", ndim=2)
    whole = normalize(image.read(), compute_statistics(image, load_any(job(data)).config.data.normalization))
    y, x = placement.start
    np.testing.assert_array_equal(sample.image, whole[:, y : y + 32, x : x + 32])


# --- validation ------------------------------------------------------------------------------------------


def test_every_image_validates_in_one_fold(tmp_path: Path) -> None:
    data = write_data(tmp_path / "data", train=5)
    seen = []
    for fold in (1, 2, 3):
        change = {
            "DATA": {"VAL": {"CROSS_VAL": True, "CROSS_VAL_NFOLD": 3, "CROSS_VAL_FOLD": fold}, "TEST": {"USE_VAL_AS_TEST": True}}
        }
        outcome, said = run_and_listen(job(data, ONE, change), tmp_path / "out", run_id=fold)
        assert any(f"fold {fold} of 3" in line for line in said)
        tested = {path.stem for path in outcome.folder.per_image_binarized.iterdir()}
        seen += sorted(tested)
        again = run(job(data, ONE, change, {"TRAIN": {"ENABLE": False}}), result_dir=tmp_path / "out", name="job", run_id=fold)
        assert {row for row in table(again.folder.test_results_metrics) if row != "mean"} == tested
    assert sorted(seen) == ["00", "01", "02", "03", "04"]


def test_what_validated_is_measured_whatever_the_seed_of_the_prediction(tmp_path: Path) -> None:
    """Else images that were trained on would be told as those that were not."""
    data = write_data(tmp_path / "data", train=5)
    change = {"DATA": {"VAL": {"SPLIT_TRAIN": 0.2}, "TEST": {"USE_VAL_AS_TEST": True}}}
    first, _ = run_and_listen(job(data, ONE, change, {"SYSTEM": {"SEED": 7}}), tmp_path / "out")
    measured = first.folder.test_results_metrics.read_text()
    for other in ({}, {"SYSTEM": {"SEED": 3}}):
        again, said = run_and_listen(job(data, ONE, change, {"TRAIN": {"ENABLE": False}}, other), tmp_path / "out")
        assert again.folder.test_results_metrics.read_text() == measured
        assert any(line.startswith("SYSTEM.SEED has no effect: a trained network keeps") for line in said) == bool(other)
        assert not any("not those that the network was trained with" in line for line in said)
    write_pairs(data / "more", [(48, 48)], seed=7)
    for kind in "xy":
        (data / "more" / kind / "00.tif").replace(data / "train" / kind / "05.tif")
    _, said = run_and_listen(job(data, ONE, change, {"TRAIN": {"ENABLE": False}}), tmp_path / "out")
    assert any("the images of DATA.TRAIN are not those that the network was trained with" in line for line in said)


def test_a_fold_of_one_image_is_its_block(tmp_path: Path) -> None:
    """The network saw the rest of that image: only the block that validates is predicted and measured."""
    data = write_data(tmp_path / "data", train=1, shape=(48, 96))
    change = {"DATA": {"VAL": {"CROSS_VAL": True, "CROSS_VAL_NFOLD": 3}, "TEST": {"USE_VAL_AS_TEST": True}}}
    outcome, said = run_and_listen(job(data, ONE, change), tmp_path / "out")
    assert any("x = 0 to 31 of 00 (4 pixels beside it left out) validates" in line for line in said)
    predicted = open_image(outcome.folder.per_image_binarized / "00.tif", is_label=True)
    assert predicted.spatial_shape == (48, 32)
    truth = open_image(data / "train/y/00.tif", is_label=True).read((slice(0, 48), slice(0, 32)))[0]
    counts = compute_confusion(truth, predicted.read()[0], num_classes=2)
    assert float(table(outcome.folder.test_results_metrics)["00"]["per_image_iou"]) == pytest.approx(foreground_iou(counts))


def test_a_block_is_tested_as_it_was_validated(tmp_path: Path) -> None:
    """It is much brighter than the rest of its image: by its own statistics the network would see something else."""
    data = write_data(tmp_path / "data", train=1, shape=(32, 96))
    path = data / "train/x/00.tif"
    image = pixels(path, 2)[0]
    image[:, :32] = image[:, :32] // 8 + 200
    write_image(path, image, "YX")
    change = {"DATA": {"VAL": {"CROSS_VAL": True, "CROSS_VAL_NFOLD": 3}, "TEST": {"USE_VAL_AS_TEST": True}}}
    outcome, said = run_and_listen(job(data, SOME, change, {"TRAIN": {"AMP": False}}), tmp_path / "out")
    assert any("x = 0 to 31 of 00" in line for line in said)
    best_row = log_rows(outcome)[load_checkpoint(best(outcome)).epoch - 1]
    measured = float(table(outcome.folder.test_results_metrics)["00"]["per_image_iou"])
    assert measured == pytest.approx(best_row["val_iou"], abs=2e-3)


def test_validation_from_its_own_folders(tmp_path: Path) -> None:
    data = write_data(tmp_path / "data", train=3)
    write_pairs(data / "val", [(48, 48)] * 2, seed=7)
    change = {"DATA": {"VAL": {"FROM_TRAIN": False, "PATH": str(data / "val/x"), "GT_PATH": str(data / "val/y")}}}
    _, said = run_and_listen(job(data, ONE, change), tmp_path / "out")
    assert "validation: the 2 images of DATA.VAL.PATH" in said
    prepared = samples_of(job(data, change), tmp_path)
    assert {source.pair.image.path.parent.parent.name for source in prepared.split.validation} == {"val"}
    assert len(prepared.split.train) == 3


def test_a_bad_validation_image_is_found_before_training(tmp_path: Path) -> None:
    data = write_data(tmp_path / "data", train=3)
    write_pairs(data / "val", [(48, 48)] * 2, seed=7)
    write_image(data / "val" / "y" / "01.tif", np.zeros((48, 40), np.uint8), "YX")
    change = {"DATA": {"VAL": {"FROM_TRAIN": False, "PATH": str(data / "val/x"), "GT_PATH": str(data / "val/y")}}}
    with pytest.raises(DataError, match=r"(?s)val/y/01\.tif.*48 × 40"):
        run(job(data, change), result_dir=tmp_path / "out", name="job")
    assert not list((tmp_path / "out").rglob("*.pth"))


def test_one_image_is_split_with_a_gap(tmp_path: Path) -> None:
    """No pixel is in both parts, and a strip between them is in none."""
    data = write_data(tmp_path / "data", train=1, shape=(64, 160))
    outcome, said = run_and_listen(job(data, ONE), tmp_path / "out")
    assert any("only one image" in line and "validates" in line for line in said)
    prepared = samples_of(job(data), tmp_path)
    used = [np.zeros((64, 160), bool) for _ in range(2)]
    for mask, part in zip(used, (prepared.split.train, prepared.split.validation), strict=True):
        for source in part:
            mask[source.region] = True
    assert not (used[0] & used[1]).any()
    assert not (used[0] | used[1]).all()
    assert log_rows(outcome)


def test_one_volume_trains(tmp_path: Path) -> None:
    data = write_data(tmp_path / "data", train=1, test=1, shape=(10, 48, 96))
    outcome, said = run_and_listen(job(data, ONE, ndim=3), tmp_path / "out")
    assert any("only one image" in line for line in said)
    assert labels(outcome.folder.per_image_binarized / "00.tif", 3).shape == (10, 48, 96)


# --- sampling --------------------------------------------------------------------------------------------


def test_images_of_any_size_train_and_are_predicted_at_their_size(tmp_path: Path) -> None:
    shapes = [(20, 25), (70, 33), (32, 32), (9, 90), (48, 47)]
    data = tmp_path / "data"
    write_pairs(data / "train", shapes)
    write_pairs(data / "test", shapes[::-1], seed=3)
    outcome, said = run_and_listen(job(data, ONE, {"TEST": {"FULL_IMG": True}}), tmp_path / "out")
    assert any("smaller than the patch (32 × 32): padded by reflection" in line for line in said)
    for index, shape in enumerate(shapes[::-1]):
        for folder in (outcome.folder.per_image_binarized, outcome.folder.full_image_binarized):
            assert labels(folder / f"{index:02d}.tif", 2).shape == shape


def test_volumes_smaller_than_a_patch(tmp_path: Path) -> None:
    data = tmp_path / "data"
    write_pairs(data / "train", [(3, 20, 40), (12, 40, 35)])
    write_pairs(data / "test", [(2, 17, 19), (5, 33, 64)], seed=3)
    outcome = run(job(data, ONE, ndim=3), result_dir=tmp_path / "out", name="job")
    assert labels(outcome.folder.per_image_binarized / "00.tif", 3).shape == (2, 17, 19)
    assert labels(outcome.folder.per_image_binarized / "01.tif", 3).shape == (5, 33, 64)


def test_small_images_are_refused_where_padding_is_off(tmp_path: Path) -> None:
    data = write_data(tmp_path / "data", shape=(20, 20))
    with pytest.raises(DataError, match=r"(?s)smaller than the patch \(32 × 32\).*REFLECT_TO_COMPLETE_SHAPE"):
        run(job(data, {"DATA": {"REFLECT_TO_COMPLETE_SHAPE": False}}), result_dir=tmp_path / "out", name="job")


def test_grid_overlap_and_padding_of_training_patches(tmp_path: Path) -> None:
    data = write_data(tmp_path / "data", shape=(64, 64))
    counts = {}
    for name, keys in {"plain": {}, "overlap": {"OVERLAP": (0.5, 0.5)}, "padding": {"PADDING": (8, 8)}}.items():
        prepared = samples_of(job(data, train_data(**keys)), tmp_path)
        counts[name] = len(prepared.train)
        sample, _ = prepared.train.sample(0, 1)
        assert sample.image.shape == (1, 32, 32)
    assert counts == {"plain": 3 * 4, "overlap": 3 * 9, "padding": 3 * 16}  # three of four images train
    padded, _ = samples_of(job(data, train_data(PADDING=(8, 8))), tmp_path).train.sample(0, 1)
    np.testing.assert_array_equal(padded.image[0, :8], padded.image[0, 16:8:-1])  # context beyond the border is reflected


def test_padding_of_validation_patches_on_images_of_any_size(tmp_path: Path) -> None:
    data = tmp_path / "data"
    write_pairs(data / "train", [(40, 44), (20, 90), (10, 12), (33, 35)])
    write_pairs(data / "test", [(40, 40)])
    cuts = {"PADDING": (10, 10), "OVERLAP": (0.1, 0.1)}
    outcome = run(
        job(data, ONE, {"DATA": {"TRAIN": cuts, "VAL": {**cuts, "SPLIT_TRAIN": 0.5}}}), result_dir=tmp_path / "o", name="job"
    )
    assert outcome.metrics


def test_replicate_repeats_the_samples(tmp_path: Path) -> None:
    data = write_data(tmp_path / "data")
    once = samples_of(job(data, train_data(EXTRACT_RANDOM_PATCH=True)), tmp_path).train
    thrice = samples_of(job(data, train_data(EXTRACT_RANDOM_PATCH=True, REPLICATE=3)), tmp_path).train
    assert (len(once), len(thrice)) == (3, 9)
    drawn = [thrice.sample(index, 1)[0].image for index in (0, 3, 6)]
    assert not np.array_equal(drawn[0], drawn[1])  # the same image, another place
    outcome = run(
        job(data, ONE, NO_TEST, train_data(EXTRACT_RANDOM_PATCH=True, REPLICATE=3)), result_dir=tmp_path / "o", name="job"
    )
    assert len(log_rows(outcome)) == 1


def test_grey_images_as_rgb(tmp_path: Path) -> None:
    data = write_data(tmp_path / "data")
    change = {"DATA": {"FORCE_RGB": True, "PATCH_SIZE": (32, 32, 3)}}
    outcome = run(job(data, ONE, change), result_dir=tmp_path / "out", name="job")
    sample, _ = samples_of(job(data, change), tmp_path).train.sample(0, 1)
    assert sample.image.shape == (3, 32, 32)
    np.testing.assert_array_equal(sample.image[0], sample.image[2])
    from crista import predict

    again = predict(best(outcome), data / "test/x", result_dir=tmp_path / "again")
    for name in ("00.tif", "01.tif"):
        np.testing.assert_array_equal(
            labels(again.folder.per_image_binarized / name, 2), labels(outcome.folder.per_image_binarized / name, 2)
        )


MAPPED = train_data(EXTRACT_RANDOM_PATCH=True, PROBABILITY_MAP=True, W_FOREGROUND=0.9, W_BACKGROUND=0.1)


@pytest.mark.parametrize("ndim", [2, 3])
def test_probability_map_files_and_marks(ndim: int, tmp_path: Path) -> None:
    data = write_data(tmp_path / "data", shape=(6, 40, 44)[-ndim:])
    where = {"PATHS": {"PROB_MAP_DIR": str(tmp_path / "maps")}, "AUGMENTOR": {"AUG_NUM_SAMPLES": 2}}
    outcome = run(job(data, ONE, NO_TEST, MAPPED, where, ndim=ndim), result_dir=tmp_path / "out", name="job")
    maps = sorted((tmp_path / "maps").glob("*.npy"))
    assert len(maps) == 3
    values = np.load(maps[0])
    label = labels(data / "train" / "y" / f"{maps[0].stem.removeprefix('prob_map_')}.tif", ndim)
    assert values[label > 0].sum() == pytest.approx(0.9, rel=1e-3)
    assert values.sum() == pytest.approx(1, rel=1e-3)
    for kind in ("mark_x", "mark_y"):
        marks = sorted(outcome.folder.aug.glob(f"*_{kind}.tif"))
        assert len(marks) == 2
        picture = pixels(marks[0], ndim)
        assert picture.shape == (3, *label.shape)
        red, green, blue = picture.astype(int)
        blue_square, red_point = (blue > 200) & (red < 50) & (green < 50), (red > 200) & (green < 50) & (blue < 50)
        assert blue_square.any()
        assert red_point.any()
        rows, columns = np.nonzero(blue_square.reshape(-1, *label.shape[-2:]).any(axis=0))
        assert (np.ptp(rows) + 1, np.ptp(columns) + 1) == (32, 32)  # the square is the patch
        centre = [np.mean(axis) for axis in np.nonzero(red_point.reshape(-1, *label.shape[-2:]).any(axis=0))]
        assert rows.min() <= centre[0] <= rows.max()
        assert columns.min() <= centre[1] <= columns.max()
    assert not list(data.rglob("*prob_map*"))  # nothing in the user's data


def test_probability_maps_are_kept_and_made_anew_when_weights_or_labels_change(tmp_path: Path) -> None:
    data = write_data(tmp_path / "data")
    base = (ONE, NO_TEST, MAPPED, {"PATHS": {"PROB_MAP_DIR": "my_maps"}})
    outcome = run(job(data, *base), result_dir=tmp_path / "out", name="job")
    folder = outcome.folder.root / "my_maps"
    times = {path.name: path.stat().st_mtime_ns for path in folder.glob("*.npy")}
    run(job(data, *base, {"TRAIN": {"LR": 0.02}}), result_dir=tmp_path / "out", name="job")
    assert {path.name: path.stat().st_mtime_ns for path in folder.glob("*.npy")} == times
    run(job(data, *base, train_data(W_FOREGROUND=0.5, W_BACKGROUND=0.5)), result_dir=tmp_path / "out", name="job")
    first = sorted(folder.glob("*.npy"))[0]
    assert {path.name: path.stat().st_mtime_ns for path in folder.glob("*.npy")}.items().isdisjoint(times.items())
    label_path = data / "train" / "y" / f"{first.stem.removeprefix('prob_map_')}.tif"
    changed = labels(label_path, 2).copy()
    changed[:4] = 1
    write_image(label_path, changed, "YX")
    before = np.load(first)
    run(
        job(data, *base, train_data(W_FOREGROUND=0.5, W_BACKGROUND=0.5), {"TRAIN": {"LR": 0.03}}),
        result_dir=tmp_path / "out",
        name="job",
    )
    assert not np.array_equal(np.load(first), before)


def test_check_generators_and_augmented_samples(tmp_path: Path) -> None:
    data = write_data(tmp_path / "data")
    change = {"DATA": {"CHECK_GENERATORS": True}, "AUGMENTOR": {"ENABLE": True, "RANDOM_ROT": True, "AUG_NUM_SAMPLES": 3}}
    outcome = run(job(data, ONE, NO_TEST, change), result_dir=tmp_path / "out", name="job")
    count = len(samples_of(job(data, change), tmp_path).train)
    checked = sorted(outcome.folder.gen_check.iterdir())
    assert len(checked) == len(list(outcome.folder.gen_mask_check.iterdir())) == count
    sample, _name = samples_of(job(data, change), tmp_path).train.sample(0, 1)
    np.testing.assert_array_equal(pixels(checked[0], 2), sample.image)
    np.testing.assert_array_equal(labels(outcome.folder.gen_mask_check / checked[0].name, 2), sample.label)
    kinds = [path.name.split("_", 2)[2] for path in sorted(outcome.folder.aug.iterdir())]
    assert sorted(kinds) == sorted(["orig_x.tif", "orig_y.tif", "x.tif", "y.tif"] * 3)


# --- ignored pixels and weights --------------------------------------------------------------------------


def ignoring(folder: Path, num_classes: int, seed: int) -> Path:
    """Data whose label images hold 255 in a corner; the pixels beneath depend on `seed` alone."""
    data = write_data(folder, num_classes=num_classes)
    rng = np.random.default_rng(seed)
    for path in data.rglob("y/*.tif"):
        label, image_path = labels(path, 2).copy(), path.parents[1] / "x" / path.name
        label[:12, :20] = 255
        write_image(path, label, "YX")
        if seed:
            image = pixels(image_path, 2)[0].copy()
            # the border of the corner reaches far enough for no counted pixel to see beyond it
            image[:1, :1] = rng.integers(0, 255)
            write_image(image_path, image, "YX")
    return data


IGNORE = {"LOSS": {"IGNORE_INDEX": 255}}
FIXED = {"DATA": {"NORMALIZATION": {"TYPE": "div"}}, "MODEL": {"NORMALIZATION": "none"}}


@pytest.mark.parametrize("terms", [["CE"], ["DICE"], ["DICE", "CE"]])
@pytest.mark.parametrize("num_classes", [2, 3])
def test_what_lies_under_ignored_pixels_changes_nothing(num_classes: int, terms: list[str], tmp_path: Path) -> None:
    """A pixel that no counted pixel's receptive field reaches may be anything: same network, same figures, bit for bit."""
    outcomes = [
        run(
            job(
                ignoring(tmp_path / f"data{seed}", num_classes, seed),
                ONE,
                IGNORE,
                FIXED,
                {"LOSS": {"TYPE": terms}},
                num_classes=num_classes,
            ),
            result_dir=tmp_path / f"out{seed}",
            name="job",
        )
        for seed in (0, 5)
    ]
    assert same_weights(best(outcomes[0]), best(outcomes[1]))
    assert outcomes[0].metrics == outcomes[1].metrics


def test_ignored_pixels_are_counted_nowhere(tmp_path: Path) -> None:
    data = ignoring(tmp_path / "data", 3, 0)
    outcome = run(job(data, ONE, IGNORE, num_classes=3), result_dir=tmp_path / "out", name="job")
    counts = [int(value) for row in table(outcome.folder.confusion).values() for key, value in row.items() if key != "truth"]
    assert sum(counts) == 2 * (48 * 48 - 12 * 20)
    rows = log_rows(outcome)
    assert rows[0]["loss"] < 5
    assert json.loads(outcome.folder.plan_json.read_text())["CLASSES"]["IGNORE_INDEX"] == 255


def test_255_without_the_key_is_refused_with_the_key_named(tmp_path: Path) -> None:
    data = ignoring(tmp_path / "data", 3, 0)
    with pytest.raises(CristaError, match=r"(?s)255.*LOSS\.IGNORE_INDEX: 255"):
        run(job(data, ONE, num_classes=3), result_dir=tmp_path / "out", name="job")


@pytest.mark.parametrize("num_classes", [2, 3])
@pytest.mark.parametrize("terms", [["CE"], ["DICE", "CE"]])
def test_class_weights_do_something(num_classes: int, terms: list[str], tmp_path: Path) -> None:
    """`auto` and `manual` train other networks than `none`; manual with the weights of auto trains the one of auto."""
    data = write_data(tmp_path / "data", num_classes=num_classes)
    loss = {"LOSS": {"TYPE": terms}}

    def trained(name: str, **keys: Any) -> Outcome:
        config = job(data, ONE, NO_TEST, loss, {"LOSS": keys}, num_classes=num_classes)
        return run(config, result_dir=tmp_path / "out", name=name)

    none, auto = trained("none"), trained("auto", CLASS_REBALANCE="auto")
    weights = json.loads(auto.folder.plan_json.read_text())["CLASS_WEIGHTS"]
    assert weights[0] < weights[1]  # the background is frequent
    assert sum(weights) == pytest.approx(num_classes, abs=1e-3)
    manual = trained("manual", CLASS_REBALANCE="manual", CLASS_WEIGHTS=weights)
    assert same_weights(best(auto), best(manual))
    assert not same_weights(best(auto), best(none))
