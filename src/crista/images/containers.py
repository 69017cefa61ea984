"""What Zarr and HDF5 have in common: choosing one array among several, and axes named by attributes."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from crista.errors import ImageReadError
from crista.images.stored import read_error
from crista.images.wording import list_names

AXES_ATTRIBUTES = ("axes", "axistags", "DIMENSION_LABELS", "_ARRAY_DIMENSIONS", "dimension_names")
"""Attributes that name axes: BiaPy and others, ilastik, HDF5 dimension scales, xarray, Zarr v3."""

SPACING_ATTRIBUTE = "element_size_um"


Found = Sequence[tuple[str, tuple[int, ...]]]
"""Name and shape of each array of a file."""


def spellings_of(inner: str) -> tuple[str, str]:
    """What ``/volumes.raw/`` may mean: an array of that name, or ``volumes/raw``."""
    inner = inner.strip().strip("/")
    return inner, inner if "/" in inner else inner.replace(".", "/")


def choose_only_array(path: Path, found: Found, is_label: bool) -> str:
    """The name of the one array that there is."""
    if not found:
        raise read_error(path, "holds no numeric array of at least two axes", "export the image again")
    if len(found) > 1:
        raise _several_arrays_error(path, found, is_label)
    return found[0][0]


def _several_arrays_error(path: Path, found: Found, is_label: bool) -> ImageReadError:
    """Several arrays and none named: list them and the key that names one."""
    listed = list_names([f"{name} {tuple(shape)}" for name, shape in found])
    other = "…_RAW_PATH for the images" if is_label else "…_GT_PATH for the labels"
    return read_error(path, f"holds several arrays: {listed}", f"name one with {inner_key(is_label)} ({other})")


def inner_key(is_label: bool) -> str:
    """The key of the inner path; who opens test images puts TEST in the place of TRAIN."""
    return "DATA.TRAIN.INPUT_ZARR_MULTIPLE_DATA_" + ("GT_PATH" if is_label else "RAW_PATH")


def missing_array_error(path: Path, inner: str, found: Found, is_label: bool) -> ImageReadError:
    """The named array is not there: list those that are. The name of a store that is an array itself is empty."""
    listed = list_names([f"{name or 'the store itself'} {tuple(shape)}" for name, shape in found]) or "none"
    step = f"correct {inner_key(is_label)}" + (", or leave it empty, for there is one array only" if len(found) == 1 else "")
    return read_error(path, f"holds no array {inner!r}; found: {listed}", step)


def axes_from_attributes(attributes: Mapping[str, Any], num_axes: int) -> str | None:
    """Axis letters as named by the attributes of an array; None where they are not, or do not fit."""
    for name in AXES_ATTRIBUTES:
        if name in attributes:
            letters = _letters(attributes[name])
            if letters is not None and len(letters) == num_axes and len(set(letters)) == num_axes:
                return letters
    return None


def spacing_from_attributes(attributes: Mapping[str, Any]) -> dict[str, float]:
    """Micrometres per voxel along the spatial axes, from ``element_size_um`` in (z, y, x) order."""
    try:
        values = [float(value) for value in attributes.get(SPACING_ATTRIBUTE, ())]
    except (TypeError, ValueError):
        return {}  # not what it is elsewhere
    return dict(zip("ZYX"[-len(values) :], values, strict=True)) if len(values) in (2, 3) else {}


def _letters(value: Any) -> str | None:
    """Axis names as one letter each: ``"zyx"``, ``["z", "y", "x"]``, ilastik's JSON, OME's list of objects."""
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    if isinstance(value, str) and value.lstrip().startswith(("{", "[")):
        try:
            value = json.loads(value)
        except json.JSONDecodeError:
            return None
    if isinstance(value, Mapping):
        value = value.get("axes", ())
    if not isinstance(value, Iterable):
        return None
    names = [_name_of(entry) for entry in value]
    letters = "".join(name.strip()[:1].upper() for name in names)
    return letters if len(letters) == len(names) and set(letters) <= set("TCZYX") else None


def _name_of(entry: Any) -> str:
    if isinstance(entry, Mapping):
        entry = entry.get("name", entry.get("key", ""))
    return entry.decode("utf-8", "replace") if isinstance(entry, bytes) else str(entry)
