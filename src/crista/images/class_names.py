"""Class names that lie beside the label images: `dataset.json` of nnU-Net, or `classes.txt`."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from crista.images.labels import LabelCoding

MAX_BYTES = 2**20
"""A larger file is no list of names."""


@dataclass(frozen=True)
class NamedClasses:
    """The name of each class, background first, and the file that says so."""

    names: tuple[str, ...]
    file: str


def find_class_names(labels: Path, coding: LabelCoding) -> NamedClasses | None:
    """Names for the classes of the label images in the folder `labels`, from a file in it or in one of the two folders above.

    `dataset.json` of nnU-Net: ``"labels": {"background": 0, "nucleus": 1}`` (or the other way round, as in its first version),
    by the values that are stored in the label images. `classes.txt`: a name per line, one for each class, the background first.
    None where no file names every class, or names two alike.
    """
    for folder in (labels, *labels.absolute().parents[:2]):
        for file_name, read in READERS.items():
            path = folder / file_name
            with suppress(OSError, ValueError, LookupError, AttributeError, TypeError):
                if path.is_file() and path.stat().st_size <= MAX_BYTES:
                    names = read(path.read_text(encoding="utf-8-sig"), coding)
                    if all(names) and len(set(names)) == coding.num_classes == len(names):
                        return NamedClasses(names, str(path))
    return None


def _read_dataset_json(text: str, coding: LabelCoding) -> tuple[str, ...]:
    """By stored value; regions (several values under one name) name no class."""
    name_of: dict[int, str] = {}
    for key, value in json.loads(text)["labels"].items():
        if not isinstance(value, list):
            number, name = (key, value) if isinstance(value, str) else (value, key)
            name_of[int(number)] = name.strip()
    classes = sorted((number, stored) for stored, number in coding.class_of.items() if number != coding.ignore_index)
    return tuple(name_of[stored] for _, stored in classes)


def _read_lines(text: str, _coding: LabelCoding) -> tuple[str, ...]:
    return tuple(line.strip() for line in text.strip().splitlines())


READERS: Mapping[str, Callable[[str, LabelCoding], tuple[str, ...]]] = {
    "dataset.json": _read_dataset_json,
    "classes.txt": _read_lines,
}
