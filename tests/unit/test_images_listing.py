"""Listing: what counts as an image, in which order, and what is said where there is none."""

from __future__ import annotations

import os
from pathlib import Path, PureWindowsPath
from typing import Any

import pytest

from crista.errors import DataError, ImageReadError
from crista.images import listing
from crista.images.listing import list_images
from crista.images.open import open_image


def make(folder: Path, *names: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    return folder


def names_of(folder: Path) -> list[str]:
    return [path.name for path in list_images(folder)]


def message_of(folder: Path) -> str:
    with pytest.raises(DataError) as caught:
        list_images(folder)
    assert len(caught.value.problems) == 1
    return str(caught.value)


def test_numbers_sort_by_value_and_capitals_as_small_letters(tmp_path: Path) -> None:
    make(tmp_path, "s10.tif", "s2.tif", "S1.tif", "a.png", "B.png")
    assert names_of(tmp_path) == ["a.png", "B.png", "S1.tif", "s2.tif", "s10.tif"]


def test_hidden_system_and_sidecar_files_are_skipped(tmp_path: Path) -> None:
    make(tmp_path, "a.tif", ".DS_Store", "._a.tif", "Thumbs.db", "desktop.ini", "README.txt", "stats.csv")
    make(
        tmp_path,
        "a.tif:Zone.Identifier",
        "Icon\r",
        "ehthumbs.db",
        "@eaDir/a.tif",
        "a.companion.ome",
        "Notes.XLSX",
        "a.roi",
        "a.geojson",
    )
    assert names_of(tmp_path) == ["a.tif"]


def test_notes_without_extension_scripts_and_outlines_are_skipped(tmp_path: Path) -> None:
    make(
        tmp_path,
        "a.tif",
        "README",
        "LICENSE",
        "RoiSet.zip",
        "Thumbs.db:encryptable",
        "checksums.md5",
        "measure.ijm",
        "index.html",
    )
    assert names_of(tmp_path) == ["a.tif"]


def test_images_that_are_called_like_notes_stay_images(tmp_path: Path) -> None:
    make(tmp_path, "readme.tif", "RoiSet.tif", "more.zip")
    assert names_of(tmp_path) == ["more.zip", "readme.tif", "RoiSet.tif"]


def test_unknown_formats_are_kept_to_be_refused_by_name(tmp_path: Path) -> None:
    make(tmp_path, "a.czi", "noextension")
    assert names_of(tmp_path) == ["a.czi", "noextension"]


def test_a_zarr_store_is_one_image(tmp_path: Path) -> None:
    make(tmp_path / "a.zarr", ".zgroup")
    make(tmp_path / "b.ome.zarr")
    make(tmp_path / "plain", "zarr.json")
    assert names_of(tmp_path) == ["a.zarr", "b.ome.zarr", "plain"]
    for name in ("a.zarr", "b.ome.zarr", "plain"):
        assert list_images(tmp_path / name) == [tmp_path / name]


def test_subfolders_beside_images_are_left_alone(tmp_path: Path) -> None:
    make(tmp_path, "a.tif", "old/b.tif")
    assert names_of(tmp_path) == ["a.tif"]


def test_a_folder_named_like_an_image_is_kept(tmp_path: Path) -> None:
    make(tmp_path / "a.tif")
    assert names_of(tmp_path) == ["a.tif"]


def test_one_file_is_a_list_of_one(tmp_path: Path) -> None:
    make(tmp_path, "a.tif", "b.tif")
    assert list_images(tmp_path / "b.tif") == [tmp_path / "b.tif"]


def test_broken_links_are_kept(tmp_path: Path) -> None:
    (tmp_path / "a.tif").symlink_to(tmp_path / "missing.tif")
    assert names_of(tmp_path) == ["a.tif"]


def test_missing_folder_names_the_nearest_parent_and_similar_names(tmp_path: Path) -> None:
    make(tmp_path / "train" / "images")
    make(tmp_path / "train" / "labels")
    message = message_of(tmp_path / "train" / "image")
    assert f"the nearest existing folder is {tmp_path / 'train'}" in message
    assert "did you mean images instead of image?" in message
    deep = message_of(tmp_path / "trian" / "images")
    assert f"the nearest existing folder is {tmp_path}" in deep
    assert "did you mean train instead of trian?" in deep


def test_missing_folder_with_nothing_similar_lists_what_is_there(tmp_path: Path) -> None:
    make(tmp_path / "train", "x.tif")
    assert "correct the path (it holds train)" in message_of(tmp_path / "qqqq")
    assert "it is empty" in message_of(make(tmp_path / "empty") / "qqqq")


def test_a_path_below_a_file_and_a_broken_link_are_told(tmp_path: Path) -> None:
    make(tmp_path, "a.tif")
    assert "is a file, not a folder" in message_of(tmp_path / "a.tif" / "x")
    (tmp_path / "link").symlink_to(tmp_path / "gone")
    assert "is a link to" in message_of(tmp_path / "link")


def test_empty_folder(tmp_path: Path) -> None:
    message = message_of(tmp_path)
    assert f"no images found in {tmp_path}" in message
    assert ".tif" in message
    assert "subfolders" not in message


def test_only_hidden_files(tmp_path: Path) -> None:
    message = message_of(make(tmp_path, ".DS_Store", "._a.tif", "notes.txt"))
    assert f"no images found in {tmp_path} (only .DS_Store, ._a.tif, notes.txt)" in message


def test_only_subfolders(tmp_path: Path) -> None:
    make(tmp_path, "patient 1/a.tif", "patient 2/deeper/b.png", "empty/readme.txt")
    message = message_of(tmp_path)
    assert f"no images found in {tmp_path}, but some in subfolders: patient 1, patient 2/deeper\n" in message


def test_a_folder_without_permission_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Path) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "iterdir", refuse)
    assert f"{tmp_path}: no permission to list it" in message_of(tmp_path)


def test_compressed_volumes_in_subfolders_are_seen(tmp_path: Path) -> None:
    make(tmp_path, "patient 1/scan.nii.gz")
    assert "but some in subfolders: patient 1\n" in message_of(tmp_path)


@pytest.fixture
def locked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that must not be entered: the system refuses to tell what is in it, also to root, who runs tests in containers."""
    folder = tmp_path / "locked"
    ask = os.stat

    def guarded(path: Any, *args: Any, **options: Any) -> os.stat_result:
        if not isinstance(path, int) and f"{folder}{os.sep}" in os.path.realpath(path):
            raise PermissionError(13, "Permission denied", str(path))
        return ask(path, *args, **options)

    make(folder, "x/a.tif")
    monkeypatch.setattr(os, "stat", guarded)
    return folder


def test_a_subfolder_without_permission_hides_no_images(locked: Path) -> None:
    """The images lie at the top of a disk, beside lost+found, which only root may enter."""
    make(locked.parent, "a.tif")
    assert names_of(locked.parent) == ["a.tif"]


def test_a_link_without_permission_is_one_image_that_cannot_be_read(locked: Path) -> None:
    folder = make(locked.parent / "images", "a.tif")
    (folder / "b.tif").symlink_to(locked / "x/a.tif")
    assert names_of(folder) == ["a.tif", "b.tif"]
    with pytest.raises(ImageReadError, match=r"b\.tif: no permission to read it, or to enter a folder above it"):
        open_image(folder / "b.tif")


def test_a_path_below_a_folder_without_permission_is_told(locked: Path) -> None:
    for path in (locked / "x", locked / "x/a.tif", locked / "gone"):
        assert f"{path}: no permission to list it, or to enter a folder above it" in message_of(path)


def test_a_missing_folder_below_one_that_cannot_be_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the home folders of other people are."""

    def refuse(self: Path) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "iterdir", refuse)
    assert f"does not exist; the nearest existing folder is {tmp_path}" in message_of(tmp_path / "gone")


@pytest.mark.parametrize("path", ["E:\\images\\x", "\\\\server\\share\\x"])
def test_a_drive_that_is_not_there_is_told(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that is not connected, on Windows: not even the top of the path exists."""

    class Absent(PureWindowsPath):
        def absolute(self) -> Absent:
            return self

        def is_symlink(self) -> bool:
            return False

        is_dir = exists = is_symlink

    problem = listing._missing(Absent(path))  # type: ignore[arg-type]
    assert str(problem) == f"{path}: does not exist: there is no {PureWindowsPath(path).anchor} here\n    -> connect that drive"
