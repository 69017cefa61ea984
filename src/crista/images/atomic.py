"""Writing beside and renaming: a file has its final name only when it is complete."""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

from crista.images.open_files import FILES

LONGEST_STEM = 200
"""Bytes of the name of a file, without its extension, that its hidden name repeats."""

WAITS = (0.0, 0.1, 0.3, 0.6, 1.0)
"""Seconds before a file that is open somewhere is tried again, on Windows."""


@contextmanager
def aside(path: Path) -> Iterator[Path]:
    """A hidden name in the folder of `path` to write to; renamed to `path` at the end, removed after an error.

    The hidden name keeps the extension, because many writers choose the format by it, and is a new one each time: processes of
    several machines, whose numbers may be equal (in containers they often are), write the same file at once. It is no longer
    than the longest that a file can have. Missing folders are made.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    beginning = os.fsencode(path.stem)[:LONGEST_STEM].decode(errors="ignore")
    part = path.with_name(f".{beginning}.{uuid4().hex[:8]}.part{path.suffix}")
    try:
        yield part
        _rename(part, path)
    finally:
        with suppress(PermissionError):  # on Windows, if who failed to write it has it open: the failure is what is to be told
            part.unlink(missing_ok=True)


def _rename(part: Path, path: Path) -> None:
    """Give `part` the name `path`, in place of what is there.

    Windows refuses that while either is open: what this process keeps open is closed, and scanners of viruses are waited for.
    """
    for wait in WAITS if sys.platform == "win32" else ():
        try:
            part.replace(path)
            return
        except PermissionError:
            FILES.close()
            time.sleep(wait)
    part.replace(path)


def atomic_write(path: Path, content: str | bytes) -> None:
    """Write `content` (text as UTF-8 with plain line ends) to `path` all at once.

    Names of files that are no text (old archives leave such) are written with the numbers of their bytes.
    """
    with aside(path) as part:
        part.write_bytes(content.encode(errors="backslashreplace") if isinstance(content, str) else content)


def write_first(path: Path, content: str) -> None:
    """Write JSON to `path` unless there is some: of several processes at once the content of the first one stays.

    What is there and damaged is replaced. Without hard links, two that write at the very same moment may both think so.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    own = path.with_name(f".{path.stem}.{uuid4().hex}.part")
    try:
        own.write_text(content, encoding="utf-8")
        with suppress(OSError):
            os.link(own, path)
        if read_json(path) is None:
            _rename(own, path)
    finally:
        own.unlink(missing_ok=True)


def read_json(path: Path) -> Any:
    """What a JSON file that was written all at once holds; None if there is none, or it is damaged.

    A machine that lost its power may keep the name of a file and not what was in it.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def folder_aside(path: Path) -> Path:
    """The hidden name beside `path` under which a folder is filled, the same after a kill: the work goes on in it."""
    return path.with_name(f".{path.name}.part")


def publish_folder(part: Path, path: Path) -> None:
    """Give the complete folder `part` its final name `path`, in place of what lies there.

    Whenever the process is killed, `path` is the old folder, the new one, or nothing; never half of one. Files that
    killed writers left behind (``*.partial``) are removed first.

    Raises
    ------
    FileNotFoundError
        If there is no `part`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    old = path.with_name(f".{path.name}.old")
    remove_folder(old)
    for left in part.rglob("*.partial"):
        left.unlink(missing_ok=True)
    if not part.is_dir():
        raise FileNotFoundError(f"{part} does not exist: nothing to publish as {path}")
    if path.is_symlink() or path.exists():
        _rename(path, old)
    _rename(part, path)
    remove_folder(old)


def remove_folder(path: Path) -> None:
    """Remove a file or a folder with all that is in it, if it exists."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def remove_at_once(folder: Path) -> None:
    """Remove a folder of which nobody may take a part for the whole: whenever the process is killed, it is all there or gone.

    What a kill leaves lies under a hidden name two folders above, like what was half written.
    """
    hidden = folder.parents[1] / f".{uuid4().hex}.removed.part"
    try:
        folder.replace(hidden)
    except FileNotFoundError:
        return
    except OSError:  # somebody has a file in it open, where that keeps it from being renamed
        hidden = folder
    remove_folder(hidden)
