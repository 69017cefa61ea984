"""What was seen is remembered: no pixel is read twice, nothing stale is believed, and the cache may be broken or off."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from crista.config import Config
from crista.images.check import DatasetReport, check_dataset
from crista.images.image import Image
from crista.images.look_cache import cache_folder, forget_oldest, look_at_image, look_at_label
from crista.images.open import open_image

RNG = np.random.default_rng(3)


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """The name of the file at each reading of pixels; with a cache of its own."""
    monkeypatch.setenv("CRISTA_CACHE", str(tmp_path / "cache"))
    counted: list[str] = []
    plain = Image.read

    def read(self: Image, *region: Any) -> Any:
        counted.append(self.path.name)
        return plain(self, *region)

    monkeypatch.setattr(Image, "read", read)
    return counted


def save(path: Path, array: Any, *, age: float = 60) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, array)
    make_older(path, age)
    return path


def make_older(path: Path, age: float) -> None:
    then = time.time() - age
    os.utime(path, (then, then))


def check(folder: Path) -> DatasetReport:
    train = {"PATH": str(folder / "x"), "GT_PATH": str(folder / "y")}
    return check_dataset(Config.model_validate({"DATA": {"TRAIN": train}}), need_train=True, need_test=False)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in "abc":
        save(tmp_path / "x" / f"{name}.npy", RNG.integers(0, 255, (40, 50), np.uint8))
        save(tmp_path / "y" / f"{name}.npy", (RNG.random((40, 50)) > 0.5).astype(np.uint8) * 255)
    return tmp_path


def test_a_second_check_reads_no_pixels_and_finds_the_same(folder: Path, reads: list[str]) -> None:
    first = check(folder)
    assert sorted(reads) == sorted(["a.npy", "b.npy", "c.npy"] * 2)
    reads.clear()
    second = check(folder)
    assert reads == []
    assert [row.seen for row in second.findings] == [row.seen for row in first.findings]
    assert "looks like 0/255" in second.findings[0].seen
    assert second.fingerprint == first.fingerprint
    assert [split.scans for split in second.splits] == [split.scans for split in first.splits]
    assert [split.summaries for split in second.splits] == [split.summaries for split in first.splits]


def test_a_changed_file_is_read_again_and_only_that(folder: Path, reads: list[str]) -> None:
    check(folder)
    reads.clear()
    label = np.load(folder / "y/b.npy")
    label[0, 0] = 7
    save(folder / "y/b.npy", label, age=59)  # of the same size
    report = check(folder)
    assert reads == ["b.npy"]
    assert "{0, 7, 255}" in report.findings[0].seen


def test_a_file_changed_just_now_is_not_remembered(folder: Path, reads: list[str]) -> None:
    future = -3600  # a clock that runs ahead must not be believed either
    save(folder / "x/a.npy", np.ones((40, 50), np.uint8), age=future)
    image = open_image(folder / "x/a.npy", ndim=2)
    look_at_image(image)
    look_at_image(image)
    assert reads == ["a.npy", "a.npy"]


@pytest.mark.parametrize("damage", ["", "[]", "{", '{"digest": "x"}', "null", "\0\0"])
def test_damaged_entries_are_written_anew(folder: Path, reads: list[str], damage: str) -> None:
    image = open_image(folder / "x/a.npy", ndim=2)
    found = look_at_image(image)
    home = cache_folder()
    assert home is not None
    (entry,) = (home / "looks").iterdir()
    entry.write_text(damage)
    assert look_at_image(image) == found
    assert look_at_image(image) == found
    assert reads == ["a.npy", "a.npy"]


def test_settings_of_reading_are_part_of_the_key(folder: Path, reads: list[str]) -> None:
    flat = open_image(folder / "x/a.npy", ndim=2)
    turned = open_image(folder / "x/a.npy", ndim=2, axes="XY")
    assert look_at_image(flat).digest != look_at_image(turned).digest
    assert look_at_label(flat).counts == look_at_label(turned).counts
    assert len(reads) == 4


def test_a_store_of_many_files_is_seen_to_change_in_one(tmp_path: Path, reads: list[str]) -> None:
    path = tmp_path / "a.zarr"
    array = zarr.create_array(path, shape=(32, 32), chunks=(16, 16), dtype="uint8", zarr_format=2)
    array[:] = RNG.integers(1, 255, (32, 32), np.uint8)
    for file in path.rglob("*"):
        make_older(file, 60)
    image = open_image(path, ndim=2)
    before = look_at_image(image)
    count = len(reads)
    assert look_at_image(image) == before
    assert len(reads) == count
    array[20:, 20:] = 0
    make_older(path / "1.1", 50)
    assert look_at_image(open_image(path, ndim=2)).digest != before.digest


def test_the_cache_can_be_moved_and_turned_off(folder: Path, reads: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert cache_folder() == folder / "cache"
    monkeypatch.setenv("CRISTA_CACHE", "off")
    assert cache_folder() is None
    check(folder)
    check(folder)
    assert len(reads) == 12
    assert not (folder / "cache").exists()
    monkeypatch.delenv("CRISTA_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder / "home"))
    assert cache_folder() == folder / "home" / "crista"


def test_without_a_home_folder_nothing_is_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    """A user of a container who has a number and no name."""
    for name in ("CRISTA_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)

    def refuse() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", refuse)
    assert cache_folder() is None


def test_a_cache_that_cannot_be_written_is_done_without(folder: Path, reads: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "file").write_text("no folder")
    monkeypatch.setenv("CRISTA_CACHE", str(folder / "file"))
    assert check(folder).problems == ()
    assert len(reads) == 6


def test_the_oldest_entries_are_forgotten(folder: Path, reads: list[str]) -> None:
    check(folder)
    assert len(reads) == 6
    home = cache_folder()
    assert home is not None
    entries = sorted((home / "looks").iterdir())
    for age, entry in enumerate(entries):
        make_older(entry, 1000 * age)
    forget_oldest(most=4)
    assert set((home / "looks").iterdir()) == set(entries[:3])
