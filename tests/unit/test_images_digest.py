"""The digest of files: what it depends on, and what not."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from crista.images.digest import digest_files, files_of
from crista.inference.record import state_of


def test_copies_elsewhere_have_the_same_digest_and_other_contents_another(tmp_path: Path) -> None:
    for folder, content in (("one", b"pixels"), ("two", b"pixels"), ("three", b"Pixels")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "a.tif").write_bytes(content)

    one, two, three = (digest_files([tmp_path / folder / "a.tif"]) for folder in ("one", "two", "three"))

    assert one == two != three


def test_a_pixel_in_the_middle_of_a_large_file_changes_its_digest(tmp_path: Path) -> None:
    """A label that was corrected in one slice of a stack: the size is the same, and so is whatever lies at both ends."""
    path = tmp_path / "a.tif"
    with path.open("wb") as file:
        file.truncate(2**26 + 2**21)
    before = digest_files([path])
    with path.open("r+b") as file:
        file.seek(2**25)
        file.write(b"1")
    assert digest_files([path]) != before


def test_of_a_huge_file_the_time_of_change_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """To read all of it would take minutes."""
    monkeypatch.setattr("crista.images.digest.WHOLE_BYTES", 2**21)
    path = tmp_path / "a.tif"
    path.write_bytes(bytes(2**22))
    before = digest_files([path])
    assert digest_files([path]) == before
    os.utime(path, ns=(1, 1))
    assert digest_files([path]) != before


def test_names_that_are_no_unicode_have_a_digest(tmp_path: Path) -> None:
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.tif"))
    path.write_bytes(b"pixels")
    other = path.rename(path.with_name("cafe.tif"))
    without = digest_files([other])
    other.rename(path)

    assert digest_files([path]) != without


def test_arrays_that_are_links_to_folders_elsewhere_count(tmp_path: Path) -> None:
    """A large level of a store on another disk; links in a circle end."""
    elsewhere = tmp_path / "disk/0"
    elsewhere.mkdir(parents=True)
    (elsewhere / "0.0").write_bytes(b"pixels")
    store = tmp_path / "a.zarr"
    store.mkdir()
    (store / ".zgroup").write_text("{}")
    (store / "0").symlink_to(elsewhere)
    (elsewhere / "round").symlink_to(store)
    assert [file.relative_to(store).as_posix() for file in files_of(store)] == [".zgroup", "0/0.0"]
    before = digest_files([store])

    (elsewhere / "0.0").write_bytes(b"other pixels")

    assert digest_files([store]) != before


def test_a_look_at_a_store_with_a_file_manager_is_no_change(tmp_path: Path) -> None:
    """Finder leaves `.DS_Store` in each folder that it shows; a training would begin anew, a prediction too."""
    store = tmp_path / "a.zarr"
    (store / "0").mkdir(parents=True)
    for name in (".zgroup", "0/.zarray", "0/0.0"):
        (store / name).write_bytes(b"x")
    digest, state, files = digest_files([store]), state_of(store), files_of(store)
    assert len(files) == 3
    for name in (".DS_Store", "0/.DS_Store", "0/._0.0", "Thumbs.db"):
        (store / name).write_bytes(b"of a file manager")
    assert (digest_files([store]), state_of(store), files_of(store)) == (digest, state, files)
    (store / "0/0.1").write_bytes(b"x")
    assert digest_files([store]) != digest
    assert state_of(store) != state
