"""Zarr v2 and v3, plain or OME-Zarr 0.4 and 0.5: one array of a store that is opened read-only."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from itertools import product
from math import ceil, prod
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from zarr.storage import LocalStore

from crista.geometry.axes import Array, Region
from crista.images.chunked import MAX_COUNTED, ChunkGrid, OpenedArray, read_through_cache
from crista.images.containers import (
    axes_from_attributes,
    choose_only_array,
    missing_array_error,
    spacing_from_attributes,
    spellings_of,
)
from crista.images.content import ZARR_METADATA
from crista.images.stored import (
    DECODING_ERRORS,
    Stored,
    decoding_errors,
    micrometres_by_axis,
    note_on_missing,
    note_on_pieces,
    num_bytes,
    read_error,
)

MAX_DEPTH = 10
"""Groups are searched so deep for arrays; links may lead in a circle."""


QUOTES = " '\""


def read_zarr_header(path: Path, inner: str | None, is_label: bool) -> Stored:
    """Describe the array `inner` of a store; without it the array itself, level 0 of an OME-Zarr, or the only array.

    Raises
    ------
    ImageReadError
        If the store is damaged, holds no such array, or several and none is named, or its decompressor is not installed.
    """
    with _naming_codecs(path):
        return _read_header(path, inner, is_label)


@contextmanager
def _naming_codecs(path: Path) -> Iterator[None]:
    """Where a store cannot be opened for want of a decompressor, say which one: it is sound."""
    try:
        yield
    except ValueError as error:
        if type(error).__name__ != "UnknownCodecError":  # one in zarr, another one in numcodecs
            raise
        what = f"is compressed with the codec {str(error).rpartition(':')[2].strip(QUOTES)}, which is not installed here"
        raise read_error(path, what, "install the package that brings it, or save it with blosc, zstd or gzip") from error


def _read_header(path: Path, inner: str | None, is_label: bool) -> Stored:
    root = _open_node(path, "")
    if isinstance(root, zarr.Array):
        if inner:
            raise missing_array_error(path, inner, [("", root.shape)], is_label)
        return _describe(path, root, "", {}, (), "")
    notes: tuple[str, ...] = ()
    name, node = _named_node(path, root, inner, is_label) if inner else ("", root)
    if isinstance(node, zarr.Group) and "bioformats2raw.layout" in _ome(node) and not _multiscale_of(node) and "0" in node:
        name, node = _join(name, "0"), node["0"]
        notes = ("several images may lie in this store: the first is used",)
    if isinstance(node, zarr.Group):
        finest = _levels_of(_multiscale_of(node))[:1]
        name = _join(name, finest[0] if finest else choose_only_array(path, _list_arrays(path, node), is_label))
    multiscale, level = _multiscale_around(root, name)
    return _describe(path, root[name], name, multiscale, notes, level)


def _open_node(path: Path, name: str) -> Any:
    try:
        # Not by consolidated metadata: they do not know of arrays that were added (labels), or removed, later.
        return zarr.open(store=LocalStore(path, read_only=True), path=name, mode="r", use_consolidated=False)
    except FileNotFoundError as error:
        raise read_error(path, f"not a zarr array or group ({error})", "copy the store again") from error


def _named_node(path: Path, root: Any, inner: str, is_label: bool) -> tuple[str, Any]:
    for name in spellings_of(inner):
        if name in root:
            return name, root[name]
    raise missing_array_error(path, inner, _list_arrays(path, root), is_label)


def _join(*parts: str) -> str:
    return "/".join(part for part in parts if part)


def _list_arrays(path: Path, group: Any) -> list[tuple[str, tuple[int, ...]]]:
    """Name and shape of all arrays of two axes or more; of a pyramid the finest level alone."""
    nodes = {"": group, **dict(_iter_nodes(path / group.path, group))}
    groups = [(name, node) for name, node in nodes.items() if isinstance(node, zarr.Group)]
    coarse = {_join(name, level) for name, node in groups for level in _levels_of(_multiscale_of(node))[1:]}
    arrays = [(name, node.shape) for name, node in nodes.items() if isinstance(node, zarr.Array) and node.ndim >= 2]
    return sorted((name, shape) for name, shape in arrays if name not in coarse)


def _iter_nodes(folder: Path, group: Any, depth: int = 0) -> Iterator[tuple[str, Any]]:
    """Name and node of all that lies in a group. zarr's own listing warns of each file that is none: .DS_Store, notes."""
    for sub in sorted(folder.iterdir()):
        if depth < MAX_DEPTH and any((sub / name).is_file() for name in ZARR_METADATA):
            node = group[sub.name]
            yield sub.name, node
            if isinstance(node, zarr.Group):
                yield from ((_join(sub.name, name), inside) for name, inside in _iter_nodes(sub, node, depth + 1))


def _ome(group: Any) -> Mapping[str, Any]:
    """OME metadata: under ``ome`` since version 0.5, at the top before."""
    attributes = dict(group.attrs)
    ome = attributes.get("ome")
    return ome if isinstance(ome, Mapping) else attributes


def _multiscale_of(group: Any) -> Mapping[str, Any]:
    multiscales = _ome(group).get("multiscales") or [{}]
    multiscale: Mapping[str, Any] = multiscales[0]
    return multiscale


def _levels_of(multiscale: Mapping[str, Any]) -> list[str]:
    """The names of its arrays, finest first."""
    return [str(dataset["path"]) for dataset in multiscale.get("datasets", ())]


def _multiscale_around(root: Any, name: str) -> tuple[Mapping[str, Any], str]:
    """The pyramid that the array `name` is a level of, and its name there; empty where there is none."""
    parts = name.split("/")
    for cut in reversed(range(len(parts))):
        multiscale, level = _multiscale_of(root["/".join(parts[:cut])] if cut else root), "/".join(parts[cut:])
        if level in _levels_of(multiscale):
            return multiscale, level
    return {}, ""


def _describe(path: Path, array: Any, name: str, multiscale: Mapping[str, Any], notes: tuple[str, ...], level: str) -> Stored:
    _check_separator(path, path / name, array)
    attributes = dict(array.attrs)
    dimension_names = getattr(array.metadata, "dimension_names", None)
    if dimension_names and None not in dimension_names:
        attributes.setdefault("dimension_names", list(dimension_names))
    axes = axes_from_attributes({"axes": multiscale["axes"]} if "axes" in multiscale else attributes, array.ndim)
    chunk_bytes = num_bytes(array.chunks, np.dtype(array.dtype))
    spacing = _ome_spacing(multiscale, level) if multiscale else spacing_from_attributes(attributes)
    return Stored(
        shape=tuple(int(n) for n in array.shape),
        dtype=np.dtype(array.dtype),
        axes=axes or "?" * array.ndim,
        source=_ZarrPixels(path, name),
        spacing=spacing,
        notes=notes + _missing_chunks(path / name, array) + note_on_pieces("chunks", chunk_bytes),
        inner=name or None,
        chunks=tuple(array.chunks),
    )


def _check_separator(path: Path, folder: Path, array: Any) -> None:
    """Refuse chunks under other names than the metadata say: zarr would read them as missing, a constant image.

    Zarr 2 once wrote nested chunks, 0/0/0, without a word about it.
    """
    separator = getattr(array.metadata, "dimension_separator", None)
    with os.scandir(folder) as entries:
        chunk = next((entry for entry in entries if entry.name[0].isdecimal()), None)
    stored = "." if chunk is None or chunk.is_file() else "/"
    if separator is None or chunk is None or array.ndim < 2 or stored == separator:
        return
    what = f"its chunks are stored as 0{stored}0, its metadata ({folder / '.zarray'}) say 0{separator}0"
    raise read_error(path, what, f'write "dimension_separator": "{stored}" there')


def _ome_spacing(multiscale: Mapping[str, Any], level: str) -> dict[str, float]:
    """Micrometres per voxel: the scale of the level times that of the whole pyramid (OME-NGFF 0.4 and 0.5, §multiscales)."""
    axes = multiscale.get("axes", [])
    scale = [1.0] * len(axes)
    found = False
    dataset: Mapping[str, Any] = next((d for d in multiscale["datasets"] if str(d["path"]) == level), {})
    for transform in (*dataset.get("coordinateTransformations", ()), *multiscale.get("coordinateTransformations", ())):
        if transform.get("type") == "scale" and len(transform.get("scale", ())) == len(axes):
            scale = [a * float(b) for a, b in zip(scale, transform["scale"], strict=True)]
            found = True
    if not found:
        return {}
    named = [axis if isinstance(axis, Mapping) else {} for axis in axes]
    units = [str(axis.get("unit", "")) if axis.get("type", "space") == "space" else "" for axis in named]
    return micrometres_by_axis("".join(str(axis.get("name", "?"))[:1] for axis in named), scale, units)


def _missing_chunks(folder: Path, array: Any) -> tuple[str, ...]:
    """Counts files, not chunks by their names, which takes zarr seconds, and not chunks of shards, which hides lost ones."""
    kind, sizes = ("chunks", array.chunks) if array.shards is None else ("shards", array.shards)
    expected = prod(ceil(n / step) for n, step in zip(array.shape, sizes, strict=True))
    if not 0 < expected <= MAX_COUNTED:
        return ()
    stored = sum(_is_chunk_file(name) for _, _, names in os.walk(folder) for name in names)
    return note_on_missing(kind, stored, expected, array.fill_value)


def _is_chunk_file(name: str) -> bool:
    return not name.startswith(".") and name != "zarr.json" and not name.endswith(".partial")


@lru_cache(maxsize=32)
def _open_array(path: Path, name: str, version: tuple[int, ...]) -> tuple[Any, ChunkGrid]:  # noqa: ARG001 - part of the key
    array = _open_node(path, name)
    return array, ChunkGrid(tuple(array.shape), tuple(array.chunks), np.dtype(array.dtype))


def _version(path: Path, name: str) -> tuple[int, ...]:
    """Changes when the metadata of the array are written anew."""
    folder = path / name
    files = [folder / "zarr.json", folder / ".zarray"]
    return tuple(file.stat().st_mtime_ns for file in files if file.exists())


@dataclass(frozen=True)
class _ZarrPixels(OpenedArray):
    """Pixels of one array."""

    def read(self, region: Region) -> Array:
        version = _version(self.path, self.name)
        with decoding_errors(self.path, "its metadata"):
            array, grid = _open_array(self.path, self.name, version)
        try:
            return read_through_cache((self, version), grid, region, lambda box: np.asarray(array[box]))
        except MemoryError as error:
            with decoding_errors(self.path):
                raise error
        except DECODING_ERRORS as error:
            with decoding_errors(self.path, self._damaged_part(array, grid, region)):
                raise error

    def _damaged_part(self, array: Any, grid: ChunkGrid, region: Region) -> str:
        """The chunk that cannot be decoded, in words."""
        for position in product(*grid.chunks_of(region)):
            try:
                array[grid.chunk_at(position)]
            except DECODING_ERRORS:
                return f"chunk {'.'.join(map(str, position))}" + (f" of array {self.name}" if self.name else "")
        return f"array {self.name}" if self.name else "the array"
