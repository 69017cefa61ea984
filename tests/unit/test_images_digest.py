"""The digest of files: what it depends on, and what not."""

from __future__ import annotations

import os
from pathlib import Path

from crista.images.digest import digest_files


def test_copies_elsewhere_have_the_same_digest_and_other_contents_another(tmp_path: Path) -> None:
    for folder, content in (("one", b"pixels"), ("two", b"pixels"), ("three", b"Pixels")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "a.tif").write_bytes(content)

    one, two, three = (digest_files([tmp_path / folder / "a.tif"]) for folder in ("one", "two", "three"))

    assert one == two != three


def test_names_that_are_no_unicode_have_a_digest(tmp_path: Path) -> None:
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.tif"))
    path.write_bytes(b"pixels")
    other = path.rename(path.with_name("cafe.tif"))
    without = digest_files([other])
    other.rename(path)

    assert digest_files([path]) != without
