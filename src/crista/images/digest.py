"""Digest: a short name for the content of files, to notice that data changed between two runs."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from hashlib import blake2b
from pathlib import Path

from crista.images.listing import is_of_file_manager

WHOLE_BYTES = 2**30
"""Larger files are known by their size, their time of change, their first and their last bytes: reading them whole at each start
would take seconds to minutes."""
PIECE_BYTES = 2**20


def files_of(path: Path) -> list[Path]:
    """The file itself, or every file of a store (Zarr, N5) in order, also of arrays that are links to folders elsewhere.

    Not what a file manager leaves in it: a look at the folder is no change of the data.
    """
    return sorted(file for file in _iter_files(path) if file.is_file()) if path.is_dir() else [path]


def _iter_files(path: Path, seen: set[str] | None = None) -> Iterator[Path]:
    """Everything below `path` but folders; what links lead to once, for they may lead in a circle."""
    seen = {os.path.realpath(path)} if seen is None else seen
    for inside, folders, names in os.walk(path):
        yield from (Path(inside) / name for name in names if not is_of_file_manager(name))
        for folder in (Path(inside) / name for name in folders):
            if folder.is_symlink() and (real := os.path.realpath(folder)) not in seen:
                seen.add(real)
                yield from _iter_files(folder, seen)


def digest_files(paths: Iterable[Path]) -> str:
    """A digest of names and contents, in the order given.

    Copies of the same files have the same digest wherever they lie. A folder (a Zarr store) is known by the names, sizes and
    times of change of its files, and a file above `WHOLE_BYTES` by its time of change too.
    """
    digest = blake2b(digest_size=16)
    for path in paths:
        digest.update(os.fsencode(path.name))
        if path.is_dir():
            for file in files_of(path):
                stat = file.stat()
                digest.update(os.fsencode(file.relative_to(path)) + f" {stat.st_size} {stat.st_mtime_ns}".encode())
        else:
            _add_file(digest, path)
    return digest.hexdigest()


def _add_file(digest: blake2b, path: Path) -> None:
    stat = path.stat()
    digest.update(str(stat.st_size).encode())
    with path.open("rb") as file:
        if stat.st_size <= WHOLE_BYTES:
            while piece := file.read(PIECE_BYTES):
                digest.update(piece)
            return
        digest.update(f" {stat.st_mtime_ns} ".encode())
        digest.update(file.read(PIECE_BYTES))
        file.seek(-PIECE_BYTES, os.SEEK_END)
        digest.update(file.read(PIECE_BYTES))
