"""Writing beside and renaming: a file has its final name only when it is complete."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def aside(path: Path) -> Iterator[Path]:
    """A hidden name in the folder of `path` to write to; renamed to `path` at the end, removed after an error.

    The hidden name keeps the extension, because many writers choose the format by it. Missing folders are made.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.stem}.{os.getpid()}.part{path.suffix}")
    try:
        yield part
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def atomic_write(path: Path, content: str | bytes) -> None:
    """Write `content` (text as UTF-8 with plain line ends) to `path` all at once."""
    with aside(path) as part:
        part.write_bytes(content.encode() if isinstance(content, str) else content)
