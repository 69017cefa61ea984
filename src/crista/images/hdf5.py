"""HDF5: one dataset of a file, read by region."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import ceil, prod
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from h5py import h5z

from crista.geometry.axes import Array, Region
from crista.images.chunked import MAX_COUNTED, ChunkGrid, read_through_cache
from crista.images.containers import (
    AXES_ATTRIBUTES,
    SPACING_ATTRIBUTE,
    axes_from_attributes,
    choose_only_array,
    missing_array_error,
    spacing_from_attributes,
    spellings_of,
)
from crista.images.open_files import FILES, file_version
from crista.images.stored import VIRTUAL, Stored, decoding_errors, note_on_missing, note_on_pieces, num_bytes, read_error
from crista.images.wording import list_names

READ_ATTRIBUTES = (*AXES_ATTRIBUTES, SPACING_ATTRIBUTE)


def read_hdf5_header(path: Path, inner: str | None, is_label: bool) -> Stored:
    """Describe the dataset `inner` of an HDF5 file, or its only numeric dataset of at least two axes.

    Raises
    ------
    ImageReadError
        If the file is truncated, holds no such dataset, or several and none is named.
    """
    try:
        file = _open_file(path)
    except OSError as error:
        kind = "truncated" if "truncated" in str(error) else "damaged"
        raise read_error(path, f"{kind} HDF5 file ({error})", "copy or export it again") from error
    with file:
        name = _choose_dataset(path, file, inner, is_label)
        dataset = file[name]
        # Not all attributes: there are types that h5py cannot read.
        attributes = {key: dataset.attrs[key] for key in READ_ATTRIBUTES if key in dataset.attrs}
        num_axes = len(dataset.shape)
        return Stored(
            shape=tuple(int(n) for n in dataset.shape),
            dtype=dataset.dtype,
            axes=axes_from_attributes(attributes, num_axes) or "?" * num_axes,
            source=_Dataset(path, name),
            spacing=spacing_from_attributes(attributes),
            notes=_notes_on(path, dataset),
            inner=name,
            chunks=dataset.chunks,
        )


def _notes_on(path: Path, dataset: Any) -> tuple[str, ...]:
    """HDF5 reads what is not there as the fill value, without a word.

    Raises an `ImageReadError` where files are missing whose pixels a virtual dataset puts together.
    """
    if dataset.is_virtual:
        named = {source.file_name for source in dataset.virtual_sources() if "%" not in source.file_name} - {"."}
        gone = sorted(name for name in named if not any((folder / name).exists() for folder in _folders_of_parts(path)))
        if gone:
            what = f"its pixels lie in other files, of which {list_names(gone)} {'is' if len(gone) == 1 else 'are'} not here"
            raise read_error(path, what, "copy all files of the set")
        return (VIRTUAL,)
    if dataset.chunks is None:
        is_stored = dataset.id.get_storage_size() > 0 or dataset.external is not None
        return () if is_stored else (f"no pixel of it is stored: all read as the fill value {dataset.fillvalue}",)
    expected = prod(ceil(n / step) for n, step in zip(dataset.shape, dataset.chunks, strict=True))
    stored = dataset.id.get_num_chunks() if expected <= MAX_COUNTED else expected
    missing = note_on_missing("chunks", stored, expected, dataset.fillvalue)
    return missing + note_on_pieces("chunks", num_bytes(dataset.chunks, dataset.dtype))


def _folders_of_parts(path: Path) -> tuple[Path, ...]:
    """Folders in which HDF5 looks for the files of a virtual dataset."""
    prefix = os.environ.get("HDF5_VDS_PREFIX", "").replace("${ORIGIN}", str(path.parent))
    return (Path(prefix), path.parent, Path())


def _open_file(path: Path) -> Any:
    try:
        return h5py.File(path, "r")
    except BlockingIOError as error:
        raise read_error(path, "is open for writing in another program", "close it there") from error
    except OSError as error:
        if "unable to lock file" not in str(error):
            raise
        return h5py.File(path, "r", locking=False)  # file systems of clusters often have no locks (errno 37, 524)


def _choose_dataset(path: Path, file: Any, inner: str | None, is_label: bool) -> str:
    found: list[tuple[str, tuple[int, ...]]] = []

    def visit(name: str, node: Any) -> None:
        if isinstance(node, h5py.Dataset) and _is_numeric(node) and len(node.shape or ()) >= 2:
            found.append((name, node.shape))

    file.visititems(visit)
    if inner:
        for name in spellings_of(inner):
            if getattr(file.get(name), "shape", None):
                return name
        raise missing_array_error(path, inner, found, is_label)
    return choose_only_array(path, found, is_label)


def _is_numeric(dataset: Any) -> bool:
    try:
        return bool(dataset.dtype.kind in "buif")
    except TypeError:
        return False  # a type that NumPy does not know, such as times


@dataclass(frozen=True)
class _Dataset:
    """Pixels of one dataset."""

    path: Path
    name: str

    def read(self, region: Region) -> Array:
        with (
            decoding_errors(self.path, f"dataset {self.name}"),
            FILES.borrow(self.path, lambda: _open_file(self.path)) as file,
            _naming_filters(self.path, file[self.name]),
        ):
            dataset = file[self.name]
            if dataset.chunks is None:
                return np.asarray(dataset[region])
            grid = ChunkGrid(dataset.shape, dataset.chunks, dataset.dtype)
            key = self, file_version(self.path)
            return read_through_cache(key, grid, region, lambda box: np.asarray(dataset[box]))


@contextmanager
def _naming_filters(path: Path, dataset: Any) -> Iterator[None]:
    """Where a read fails for want of a decompressor, say which one: the file is sound."""
    try:
        yield
    except OSError as error:
        made = dataset.id.get_create_plist()
        filters = [made.get_filter(position) for position in range(made.get_nfilters())]
        missing = [
            f"{code} {name.decode(errors='replace')}".strip() for code, _, _, name in filters if not h5z.filter_avail(code)
        ]
        if not missing:
            raise
        what = (
            f"dataset {dataset.name.strip('/')} is compressed with HDF5 filter {', '.join(missing)}, which is not installed here"
        )
        next_step = "pip install hdf5plugin, and set HDF5_PLUGIN_PATH to its hdf5plugin.PLUGINS_PATH; or save it with gzip"
        raise read_error(path, what, next_step) from error
