"""N5: which dataset is read, axes and voxel size as different writers store them, and what is missing."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorstore

from crista.errors import ImageReadError
from crista.geometry.spacing import Spacing
from crista.images.listing import list_images
from crista.images.open import open_image

VOLUME = np.random.default_rng(0).integers(0, 200, (6, 20, 30), dtype=np.uint8)


def _write(path: Path, inner: str, pixels: Any = VOLUME, **attributes: object) -> None:
    spec = {
        "driver": "n5",
        "kvstore": {"driver": "file", "path": str(path / inner)},
        "metadata": {"dimensions": pixels.shape[::-1], "blockSize": [16] * pixels.ndim, "dataType": str(pixels.dtype)},
    }
    tensorstore.open(spec, create=True, delete_existing=True).result()[...] = pixels.T
    _update(path, n5="4.0.0")
    _update(path / inner, **attributes)


def _update(folder: Path, **attributes: object) -> None:
    file = folder / "attributes.json"
    known = json.loads(file.read_text()) if file.exists() else {}
    file.write_text(json.dumps({**known, **attributes}))


@pytest.mark.parametrize("inner", ["", "volumes/raw", "setup0/timepoint0/s0"])
def test_the_only_dataset_is_read_as_zyx(inner: str, tmp_path: Path) -> None:
    _write(tmp_path / "a.n5", inner)

    image = open_image(tmp_path / "a.n5", ndim=3)

    assert (image.axes, image.shape, image.inner) == ("ZYX", (6, 20, 30), inner or None)
    np.testing.assert_array_equal(image.read()[0], VOLUME)
    part = image.read((slice(1, 4), slice(10, 20), slice(3, 19)))
    np.testing.assert_array_equal(part[0], VOLUME[1:4, 10:20, 3:19])


def test_of_a_pyramid_the_finest_level_is_read(tmp_path: Path) -> None:
    _write(tmp_path / "a.n5", "em/s0")
    _write(tmp_path / "a.n5", "em/s1", VOLUME[::2, ::2, ::2])

    assert open_image(tmp_path / "a.n5").inner == "em/s0"
    assert open_image(tmp_path / "a.n5", inner="em").inner == "em/s0"
    assert open_image(tmp_path / "a.n5", inner="em.s1").shape == (3, 10, 15)


def test_several_datasets_are_listed_with_the_key_that_names_one(tmp_path: Path) -> None:
    for inner in ("raw", "labels/vessels0", "labels/other"):
        _write(tmp_path / "a.n5", inner)

    with pytest.raises(ImageReadError) as caught:
        open_image(tmp_path / "a.n5", is_label=True)
    assert "labels/other (6, 20, 30), labels/vessels0 (6, 20, 30), raw (6, 20, 30)" in str(caught.value)
    assert "DATA.TRAIN.INPUT_ZARR_MULTIPLE_DATA_GT_PATH" in str(caught.value)
    with pytest.raises(ImageReadError, match="holds no array 'em'; found: labels/other"):
        open_image(tmp_path / "a.n5", inner="em")


@pytest.mark.parametrize(
    "attributes",
    [
        {"pixelResolution": {"dimensions": [8, 10, 40], "unit": "nm"}},
        {"resolution": [0.008, 0.01, 0.04], "units": ["um", "um", "um"]},
        {"transform": {"axes": ["z", "y", "x"], "scale": [40, 10, 8], "units": ["nm", "nm", "nm"], "translate": [0, 0, 0]}},
        {"transform": {"axes": ["x", "y", "z"], "scale": [8, 10, 40], "units": ["nm", "nm", "nm"]}},
    ],
)
def test_the_voxel_size_of_different_writers(attributes: dict[str, object], tmp_path: Path) -> None:
    _write(tmp_path / "a.n5", "raw", **attributes)

    assert open_image(tmp_path / "a.n5").spacing == Spacing((0.04, 0.01, 0.008))


def test_sizes_without_units_are_not_guessed(tmp_path: Path) -> None:
    _write(tmp_path / "a.n5", "raw", resolution=[8, 10, 40])

    assert open_image(tmp_path / "a.n5").spacing is None


@pytest.mark.parametrize("axes", [["x", "y", "c"], ["c", "y", "x"]])
def test_axes_named_from_either_end(axes: list[str], tmp_path: Path) -> None:
    _write(tmp_path / "a.n5", "raw", VOLUME[:2], axes=axes)

    image = open_image(tmp_path / "a.n5", ndim=2)

    assert (image.axes, image.num_channels, image.axes_reason) == ("CYX", 2, "metadata")


def test_without_tensorstore_the_message_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _write(tmp_path / "a.n5", "raw")
    monkeypatch.setitem(sys.modules, "tensorstore", None)

    with pytest.raises(ImageReadError, match=r'the library that reads N5 is not installed\n    -> pip install "crista\[n5\]"'):
        open_image(tmp_path / "a.n5")


def test_a_damaged_block_and_an_unknown_compression_are_named(tmp_path: Path) -> None:
    _write(tmp_path / "a.n5", "raw")
    (tmp_path / "a.n5" / "raw" / "0" / "0" / "0").write_bytes(b"x")
    image = open_image(tmp_path / "a.n5")

    with pytest.raises(ImageReadError, match=r"a\.n5: dataset raw cannot be decoded \(ValueError: .*chunk has size 1"):
        image.read()
    _update(tmp_path / "a.n5" / "raw", compression={"type": "lz4"})
    with pytest.raises(ImageReadError, match=r'dataset raw cannot be decoded .*"lz4" is not registered'):
        image.read()


def test_a_store_is_found_by_name_or_content_and_a_folder_of_none_is_refused(tmp_path: Path) -> None:
    _write(tmp_path / "in" / "b.n5", "raw")
    _write(tmp_path / "in" / "plain", "raw")
    (tmp_path / "in" / "notes.txt").write_text("words")

    assert [path.name for path in list_images(tmp_path / "in")] == ["b.n5", "plain"]
    assert list_images(tmp_path / "in" / "plain") == [tmp_path / "in" / "plain"]
    (tmp_path / "c.n5").mkdir()
    with pytest.raises(ImageReadError, match=r"c\.n5: not an N5 store: the folder holds no attributes\.json"):
        open_image(tmp_path / "c.n5")
    _update(tmp_path / "c.n5", n5="2.0.0")
    with pytest.raises(ImageReadError, match="no numeric array of at least two axes"):
        open_image(tmp_path / "c.n5")


@pytest.mark.parametrize(
    "attributes",
    [
        {"transform": "words"},
        {"pixelResolution": None, "transform": None},
        {"pixelResolution": 4},
        {"pixelResolution": {"dimensions": ["a", "b", "c"], "unit": "nm"}},
    ],
)
def test_attributes_of_another_meaning_do_not_make_a_store_unreadable(attributes: dict[str, object], tmp_path: Path) -> None:
    _write(tmp_path / "a.n5", "raw", **attributes)

    image = open_image(tmp_path / "a.n5")

    assert (image.axes, image.spacing) == ("ZYX", None)
    np.testing.assert_array_equal(image.read()[0], VOLUME)


def test_blocks_that_are_not_stored_are_said(tmp_path: Path) -> None:
    _write(tmp_path / "a.n5", "raw")
    assert open_image(tmp_path / "a.n5").notes == ()
    (tmp_path / "a.n5/raw/0/0/0").unlink()

    image = open_image(tmp_path / "a.n5")

    assert image.notes == ("1 of 4 blocks are not stored and read as the fill value 0",)
    assert (image.read()[0, :, :16, :16] == 0).all()
