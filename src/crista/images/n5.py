"""N5: one dataset of a store, or the finest level of its pyramid, read by region with tensorstore (an extra).

N5 counts its axes from the fastest one, x y z; here and in crista they are z y x.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from math import ceil, prod
from pathlib import Path
from typing import Any

import numpy as np

from crista.geometry.axes import Array, Region
from crista.images.chunked import MAX_COUNTED, ChunkGrid, OpenedArray, read_through_cache
from crista.images.containers import axes_from_attributes, choose_only_array, missing_array_error, spellings_of
from crista.images.stored import (
    Stored,
    decoding_errors,
    micrometres_by_axis,
    note_on_missing,
    note_on_pieces,
    num_bytes,
    read_error,
)

ATTRIBUTES = "attributes.json"
FINEST = "s0"
"""The name of the finest level of a pyramid, by convention."""

MAX_DEPTH = 6
"""Groups are searched so deep for datasets."""


def is_n5_store(path: Path) -> bool:
    """Whether the folder is an N5 container or dataset: by what its attributes hold."""
    if not (path / ATTRIBUTES).is_file():
        return False
    try:
        attributes = _attributes(path)
    except (OSError, ValueError):
        return False
    return "n5" in attributes or _is_dataset(attributes)


def read_n5_header(path: Path, inner: str | None, is_label: bool) -> Stored:
    """Describe the dataset `inner` of an N5 store; without it the store itself, its only dataset, or its only pyramid.

    Raises
    ------
    ImageReadError
        If tensorstore is not installed, or the store holds no such dataset, or several and none is named.
    """
    _require_tensorstore(path)
    name = _choose(path, inner, is_label)
    attributes = _attributes(path / name)
    shape = tuple(int(n) for n in reversed(attributes["dimensions"]))
    parent = _attributes((path / name).parent) if name else {}
    return Stored(
        shape=shape,
        dtype=np.dtype(attributes["dataType"]),
        axes=_axes(attributes, len(shape)) or _axes(parent, len(shape)) or "?" * len(shape),
        source=_N5Pixels(path, name),
        spacing=_spacing(attributes) or (_spacing(parent) if _is_finest(name) else {}),
        notes=_missing_blocks(path / name, attributes)
        + note_on_pieces("blocks", num_bytes(tuple(attributes["blockSize"]), np.dtype(attributes["dataType"]))),
        inner=name or None,
        chunks=tuple(int(n) for n in reversed(attributes["blockSize"])),
    )


def _missing_blocks(folder: Path, attributes: Mapping[str, Any]) -> tuple[str, ...]:
    expected = prod(ceil(n / step) for n, step in zip(attributes["dimensions"], attributes["blockSize"], strict=True))
    if not 0 < expected <= MAX_COUNTED:
        return ()
    stored = sum(name.isdecimal() for _, _, names in os.walk(folder) for name in names)
    return note_on_missing("blocks", stored, expected, 0)


def _require_tensorstore(path: Path) -> Any:
    try:
        import tensorstore
    except ImportError:
        what = "an N5 store, and the library that reads N5 is not installed"
        raise read_error(path, what, 'pip install "crista[n5]" (tensorstore), or convert it to OME-Zarr') from None
    return tensorstore


def _attributes(folder: Path) -> Mapping[str, Any]:
    file = folder / ATTRIBUTES
    attributes: Mapping[str, Any] = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    return attributes


def _is_dataset(attributes: Mapping[str, Any]) -> bool:
    return {"dimensions", "blockSize", "dataType"} <= set(attributes)


def _iter_datasets(folder: Path, prefix: str = "", depth: int = 0) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Name and shape of each dataset; the blocks of a dataset are not looked at."""
    attributes = _attributes(folder)
    if _is_dataset(attributes):
        yield prefix.strip("/"), tuple(int(n) for n in reversed(attributes["dimensions"]))
    elif depth < MAX_DEPTH:
        for sub in sorted(entry for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith(".")):
            yield from _iter_datasets(sub, f"{prefix}/{sub.name}", depth + 1)


def _choose(path: Path, inner: str | None, is_label: bool) -> str:
    found = list(_iter_datasets(path))
    if inner:
        for name in spellings_of(inner):
            for candidate in (name, f"{name}/{FINEST}"):
                if candidate in dict(found):
                    return candidate
        raise missing_array_error(path, inner, found, is_label)
    # Of a pyramid only the finest level counts; a dataset of any other name stands for itself.
    pyramids = {name.rpartition("/")[0] for name, _ in found if _is_finest(name)}
    images = [
        (name, shape)
        for name, shape in found
        if len(shape) >= 2 and (_is_finest(name) or name.rpartition("/")[0] not in pyramids)
    ]
    return choose_only_array(path, images, is_label)


def _is_finest(name: str) -> bool:
    return name.rpartition("/")[2] == FINEST


def _axes(attributes: Mapping[str, Any], num_axes: int) -> str | None:
    """Axis letters, slowest first. Writers list them from either end; x is the fastest axis of N5."""
    letters = axes_from_attributes(attributes, num_axes) or axes_from_attributes(_transform_of(attributes), num_axes)
    return letters[::-1] if letters is not None and letters.startswith("X") else letters


def _transform_of(attributes: Mapping[str, Any]) -> Mapping[str, Any]:
    transform = attributes.get("transform")
    return transform if isinstance(transform, Mapping) else {}


def _spacing(attributes: Mapping[str, Any]) -> dict[str, float]:
    """Micrometres per voxel; empty where there is nothing, or something else, under the names of a voxel size."""
    try:
        return _stated_spacing(attributes)
    except (TypeError, ValueError):
        return {}


def _stated_spacing(attributes: Mapping[str, Any]) -> dict[str, float]:
    """From ``pixelResolution`` or ``resolution`` (x first) or ``transform`` (as its axes)."""
    resolution = attributes.get("pixelResolution", attributes.get("resolution"))
    if resolution is not None:
        sizes, units = resolution, attributes.get("units", ())
        if isinstance(resolution, Mapping):
            sizes, units = resolution.get("dimensions", ()), resolution.get("unit", ())
        return micrometres_by_axis("XYZ"[: len(sizes)], sizes, units)
    transform = _transform_of(attributes)
    return micrometres_by_axis(
        "".join(map(str, transform.get("axes", ()))), transform.get("scale", ()), transform.get("units", ())
    )


@lru_cache(maxsize=32)
def _open_dataset(path: Path, name: str, version: int) -> tuple[Any, ChunkGrid]:  # noqa: ARG001 - part of the key
    """The dataset with its axes turned to z y x; its metadata are read once."""
    tensorstore = _require_tensorstore(path)
    spec = {"driver": "n5", "kvstore": {"driver": "file", "path": str(path / name)}}
    array = tensorstore.open(spec, read=True).result().T
    chunks = tuple(array.chunk_layout.read_chunk.shape)
    return array, ChunkGrid(tuple(array.shape), chunks, np.dtype(array.dtype.numpy_dtype))


@dataclass(frozen=True)
class _N5Pixels(OpenedArray):
    """Pixels of one dataset. tensorstore keeps threads, so a process must not fork once it has read N5; spawned ones are fine."""

    def read(self, region: Region) -> Array:
        """The pixels of `region`; blocks that are not stored are 0."""
        with decoding_errors(self.path, f"dataset {self.name}" if self.name else "its blocks"):
            version = (self.path / self.name / ATTRIBUTES).stat().st_mtime_ns
            array, grid = _open_dataset(self.path, self.name, version)
            return read_through_cache((self, version), grid, region, lambda box: np.asarray(array[box].read().result()))
