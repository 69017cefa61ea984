"""HDF5: one dataset of a file, read by region."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from h5py import h5z

from crista.geometry.axes import Array, Region
from crista.images.chunked import ChunkGrid, read_through_cache
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
from crista.images.stored import Stored, decoding_errors, note_on_pieces, num_bytes, read_error

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
            notes=note_on_pieces("chunks", num_bytes(dataset.chunks or (), dataset.dtype)),
            inner=name,
            chunks=dataset.chunks,
        )


def _open_file(path: Path) -> Any:
    try:
        return h5py.File(path, "r")
    except BlockingIOError as error:
        raise read_error(path, "is open for writing in another program", "close it there") from error


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
        raise missing_array_error(path, inner, found)
    return choose_only_array(path, found, is_label)


def _is_numeric(dataset: Any) -> bool:
    try:
        return dataset.dtype.kind in "buif"
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
