"""Files that are written all at once: the first of several processes counts, and nothing is left beside them."""

from __future__ import annotations

import errno
import sys
from pathlib import Path

import pytest

from crista.images import atomic
from crista.images.atomic import atomic_write, read_json, write_first
from crista.images.open_files import FILES


@pytest.mark.parametrize("links", [True, False], ids=["links", "no_links"])
def test_the_first_content_stays_and_damaged_content_does_not(
    links: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object) -> None:
        raise PermissionError("no hard links here")

    if not links:
        monkeypatch.setattr("os.link", refused)
    path = tmp_path / "new" / "choice.json"
    write_first(path, '{"engine": "torch"}')
    write_first(path, '{"engine": "openvino"}')
    assert read_json(path) == {"engine": "torch"}
    path.write_text('{"engi')
    write_first(path, '{"engine": "openvino"}')
    assert read_json(path) == {"engine": "openvino"}
    assert list(path.parent.iterdir()) == [path]


class _Windows:
    """A rename that Windows refuses while anybody has the file open: here this process, and for some time a virus scanner."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, refusals: int) -> None:
        self.left, self.waited = refusals, list[float]()
        self._replace = Path.replace
        monkeypatch.setattr(sys, "platform", "win32")
        monkeypatch.setattr(Path, "replace", lambda part, path: self.replace(part, path))
        monkeypatch.setattr(atomic.time, "sleep", self.waited.append)

    def replace(self, part: Path, path: Path) -> Path:
        own = [version for version, handle in FILES._idle.items() if version[0] == str(path) and not handle.closed]
        if own or self.left > 0:
            self.left -= 1
            raise PermissionError(errno.EACCES, "Access is denied", str(part), 5, str(path))
        return self._replace(part, path)


def test_what_windows_has_open_is_closed_or_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Label images of a first prediction are read for its report and stay open; the second in the same notebook replaces them."""
    path = tmp_path / "labels.bin"
    path.write_bytes(b"first")
    with FILES.borrow(path, lambda: path.open("rb")):
        pass
    windows = _Windows(monkeypatch, refusals=0)
    atomic_write(path, b"second")
    assert path.read_bytes() == b"second"
    assert windows.waited == [0.0]
    windows.left = 3
    atomic_write(path, b"third")
    assert path.read_bytes() == b"third"
    assert sum(windows.waited) < 1


def test_what_stays_open_is_an_error_that_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "table.csv"
    path.write_text("old")
    windows = _Windows(monkeypatch, refusals=1000)
    with pytest.raises(PermissionError):
        atomic_write(path, "new")
    assert 1 < sum(windows.waited) < 3
    assert [file.name for file in tmp_path.iterdir()] == ["table.csv"]
    assert path.read_text() == "old"


def test_who_fails_to_write_is_heard_though_its_file_is_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError("it is open")

    monkeypatch.setattr(Path, "unlink", refuse)
    with pytest.raises(ValueError, match="no such dtype"), atomic.aside(tmp_path / "image.tif"):
        raise ValueError("no such dtype")
