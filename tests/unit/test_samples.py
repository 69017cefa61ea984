"""The procedural data sets: deterministic, labelled as they say, written as a data set."""

from __future__ import annotations

import hashlib
import time
from pathlib import Path

import numpy as np
import pytest
import tifffile
from scipy import ndimage

from crista.errors import DataError
from crista.samples import SAMPLES, draw_sample, write_sample

SMALL = {"cells_2d": (96, 128), "cells_3d": (6, 64, 80), "nuclei_2d": (96, 128)}


def test_every_set_is_tested() -> None:
    assert set(SMALL) == set(SAMPLES)


@pytest.mark.parametrize("name", SAMPLES)
def test_same_seed_same_image(name: str) -> None:
    first = draw_sample(name, seed=3, index=1, shape=SMALL[name])
    again = draw_sample(name, seed=3, index=1, shape=SMALL[name])
    other = draw_sample(name, seed=3, index=1, split="test", shape=SMALL[name])
    np.testing.assert_array_equal(first[0], again[0])
    np.testing.assert_array_equal(first[1], again[1])
    assert (first[0] != other[0]).any()


@pytest.mark.parametrize("name", SAMPLES)
def test_shapes_classes_and_contrast(name: str) -> None:
    image, label = draw_sample(name, seed=0, index=0)
    assert image.shape == label.shape == SAMPLES[name].shape
    assert label.dtype == np.uint8
    assert sorted(np.unique(label)) == list(range(len(SAMPLES[name].class_names)))
    assert 0.04 < (label > 0).mean() < 0.6
    clipped = (image == image.min()).mean() + (image == image.max()).mean()
    assert clipped < 0.02


CHECKSUMS = {
    "cells_2d": ("c534c758076ccc2c1abe9ad0b71002a641b77d11", 134.1763),
    "cells_3d": ("b44295ccef300712b9db82c77f4caed4a9257d08", 125.8109),
    "nuclei_2d": ("73d1135567af26b04433119140d3a20b36fe7b8f", 704.9137),
}
"""SHA-1 of the label and mean of the image: the last bit of a float may differ between processors, a label does not."""


@pytest.mark.parametrize("name", SAMPLES)
def test_known_pixels(name: str) -> None:
    image, label = draw_sample(name, seed=0, index=0, shape=SMALL[name])
    checksum, mean = CHECKSUMS[name]
    assert hashlib.sha1(label.tobytes()).hexdigest() == checksum
    assert image.mean() == pytest.approx(mean, abs=0.01)


@pytest.mark.parametrize("name", ["cells_2d", "cells_3d"])
def test_a_threshold_does_not_solve_it(name: str) -> None:
    image, label = draw_sample(name, seed=1, index=0)
    truth = label > 0
    best = max(((image < t) & truth).sum() / ((image < t) | truth).sum() for t in range(20, 200, 5))
    assert 0.15 < best < 0.65


def test_outline_lies_between_nucleus_and_background() -> None:
    _, label = draw_sample("nuclei_2d", seed=0, index=0)
    near_background = ndimage.binary_dilation(label == 0, iterations=2)
    assert not (near_background & (label == 2)).any()


def test_mitochondria_go_on_from_slice_to_slice() -> None:
    _, label = draw_sample("cells_3d", seed=0, index=0)
    objects, count = ndimage.label(label)
    depths = [box[0].stop - box[0].start for box in ndimage.find_objects(objects)]
    assert count >= 5
    assert np.mean(depths) > 2


def test_written_as_a_data_set(tmp_path: Path) -> None:
    write_sample("cells_3d", tmp_path, num_train=2, num_test=1, shape=SMALL["cells_3d"], seed=5)
    found = sorted(str(path.relative_to(tmp_path).as_posix()) for path in tmp_path.rglob("*.tif"))
    names = ["test/x/cells_3d_000.tif", "test/y/cells_3d_000.tif"]
    names += [f"train/{kind}/cells_3d_{i:03d}.tif" for kind in "xy" for i in range(2)]
    assert found == sorted(names)
    image, label = draw_sample("cells_3d", seed=5, index=1, shape=SMALL["cells_3d"])
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "train/x/cells_3d_001.tif"), image)
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "train/y/cells_3d_001.tif"), label)
    with tifffile.TiffFile(tmp_path / "train/x/cells_3d_000.tif") as file:
        assert file.imagej_metadata is not None
        assert file.imagej_metadata["spacing"] == pytest.approx(0.064)


def test_writing_again_is_allowed_and_other_images_are_not_mixed_in(tmp_path: Path) -> None:
    write_sample("nuclei_2d", tmp_path, num_train=2, num_test=0, shape=(64, 64))
    (tmp_path / "train/x/.DS_Store").write_bytes(b"of a file manager")
    write_sample("nuclei_2d", tmp_path, num_train=2, num_test=0, shape=(64, 64))
    with pytest.raises(DataError) as error:
        write_sample("cells_2d", tmp_path, num_train=2, num_test=0, shape=(64, 64))
    text = str(error.value)
    assert "2 problems with the folder for the sample data" in text
    assert "holds 2 other files (nuclei_2d_000.tif, nuclei_2d_001.tif)" in text
    assert "choose an empty folder" in text


@pytest.mark.parametrize(
    ("name", "shape", "text"),
    [
        ("cells", (64, 64), "there is no set 'cells'"),
        ("cells_2d", (4, 64, 64), "does not fit cells_2d, which takes (y, x)"),
        ("cells_3d", (64, 64), "which takes (z, y, x)"),
        ("nuclei_2d", (16, 64), "at least 32 pixels in y and x"),
    ],
)
def test_impossible_wishes_are_refused(tmp_path: Path, name: str, shape: tuple[int, ...], text: str) -> None:
    with pytest.raises(DataError) as error:
        write_sample(name, tmp_path, shape=shape)
    assert text in str(error.value)
    assert list(tmp_path.iterdir()) == []


def test_drawing_is_quick() -> None:
    start = time.process_time()
    draw_sample("cells_2d", seed=0, index=0)
    draw_sample("nuclei_2d", seed=0, index=0)
    assert time.process_time() - start < 2
