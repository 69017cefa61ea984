"""Stack: the predictions of 2D images as the slices of one volume (TEST.ANALIZE_2D_IMGS_AS_3D_STACK), never held whole."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crista.config.test import ByChunks
from crista.geometry.axes import Region
from crista.geometry.tiles import grid_blocks, shape_of
from crista.images.atomic import remove_folder
from crista.images.image import ImagePair
from crista.images.open import open_written
from crista.images.write import write_image
from crista.inference.clean import Filters, filter_region, filter_source, reach_of
from crista.inference.measure import BLOCK_VOXELS, Counts, image_boundary, image_confusion, label_reader
from crista.inference.record import ImageRecord, forget_other_record, load_record
from crista.inference.task import OutputFolders, stack_takes_probabilities
from crista.plan.events import Event, FileWritten
from crista.plan.plan import Plan

NAME = "stack"
LEAST_PART = 64
"""Pixels; slices are not filtered in narrower parts."""
ReadSlice = Callable[[int, Region], NDArray[Any]]
"""Slice number and region (Y, X) to pixels (…, Y, X)."""


@dataclass(frozen=True)
class Slices:
    """Slices that lie in files, indexed as one array (…, Z, Y, X); only what is asked for is read."""

    shape: tuple[int, ...]
    dtype: np.dtype
    read: ReadSlice

    def __getitem__(self, index: Any) -> NDArray[Any]:
        box = index if isinstance(index, tuple) else (index,)
        spatial = box[-3:] if len(box) == len(self.shape) else (*box, slice(None), slice(None))[:3]
        plane = tuple(slice(*part.indices(n)) for part, n in zip(spatial[1:], self.shape[-2:], strict=True))
        z = spatial[0]
        if isinstance(z, int | np.integer):
            return self.read(int(z), plane)
        return np.stack([self.read(number, plane) for number in range(*z.indices(self.shape[-3]))], axis=-3)


def finish_stack(
    pairs: Sequence[ImagePair], names: Sequence[str], records: Sequence[ImageRecord], plan: Plan, folders: OutputFolders
) -> Generator[Event, None, ImageRecord]:
    """Write, filter and measure the volume that the label images in `records` are the slices of."""
    name = _free_name(names)
    key = _key([record.key for record in records])
    kept = load_record(folders.state, name, key)
    if kept is not None:
        remove_folder(folders.slice_probabilities(name).parent)
        return kept
    forget_other_record(folders.state, name, key)
    shape, started = (len(pairs), *pairs[0].image.spatial_shape), time.perf_counter()
    stack = _Stack(pairs, names, records, _measured_whole(plan), folders, shape)
    labels = stack.labels()
    confusions, boundaries = stack.measured("stack", labels)
    before = folders.as_3d_stack / f"{NAME}.tif"
    yield _write(before, labels)
    files, seconds = [before], {"writing": time.perf_counter() - started}
    filters = plan.config.test.post_processing.filters_for(3)
    if filters:
        source = filter_source(labels, stack.probabilities(), plan)
        cleaned = Slices(shape, np.dtype(np.uint8), _filtered_slices(source, shape, filters))
        after = folders.full_post_processing / f"{NAME}.tif"
        yield _write(after, cleaned)
        written = open_written(after, 3)
        filtered = stack.measured("post_processing", Slices(shape, cleaned.dtype, lambda z, r: _volume_slice(written, z, r)))
        confusions, boundaries = confusions | filtered[0], boundaries | filtered[1]
        files.append(after)
        seconds["post_processing"] = time.perf_counter() - started - seconds["writing"]
    record = ImageRecord(name, key, seconds, confusions, boundaries=boundaries, files=tuple(map(str, files)))
    record.save(folders.state)
    remove_folder(folders.slice_probabilities(name).parent)
    return record


def will_take_probabilities(names: Sequence[str], keys: Sequence[str], plan: Plan, folders: OutputFolders) -> bool:
    """Whether the stack is still to be filtered by the probabilities of its slices, so that their records are not enough.

    `keys` are those of the records of all slices, made or not.
    """
    return stack_takes_probabilities(plan) and load_record(folders.state, _free_name(names), _key(keys)) is None


def _key(keys: Sequence[str]) -> str:
    """Identifies the stack of slices by the keys of their records."""
    return sha256(json.dumps(list(keys)).encode()).hexdigest()


def _free_name(names: Sequence[str]) -> str:
    """An image may be called as the stack is."""
    name = NAME
    while name in names:
        name += "_3d"
    return name


@dataclass(frozen=True)
class _Stack:
    pairs: Sequence[ImagePair]
    names: Sequence[str]
    records: Sequence[ImageRecord]
    plan: Plan
    folders: OutputFolders
    shape: tuple[int, ...]

    def labels(self) -> Slices:
        """The predicted classes, from the files of the slices."""
        files = [Path(record.files[0]) for record in self.records]
        images = [open_written(file, 2) for file in files]
        return Slices(self.shape, np.dtype(np.uint8), lambda z, region: images[z].read(region)[0])

    def probabilities(self) -> Slices | None:
        """The probabilities of all classes; None where labels are enough."""
        num_classes = self.plan.classes.num_classes
        if num_classes == 2:
            return None

        def read(number: int, region: Region) -> NDArray[Any]:
            kept = np.load(self.folders.slice_probabilities(self.names[number]), mmap_mode="r")
            return np.array(kept[(slice(None), *region)])

        return Slices((num_classes, *self.shape), np.dtype(np.float32), read)

    def measured(self, stage: str, labels: Slices) -> tuple[dict[str, Counts], dict[str, Counts]]:
        """Confusion matrix and edge counts of the volume, where every slice has a label image."""
        readers = [label_reader(pair.label, self.plan) for pair in self.pairs if pair.label is not None]
        if len(readers) < len(self.pairs):
            return {}, {}
        truth = Slices(self.shape, np.dtype(np.uint8), lambda z, region: readers[z](region))
        counts = image_confusion(labels, lambda region: truth[region], self.plan)
        return {stage: counts}, {stage: image_boundary(labels, lambda region: truth[region], self.plan, None)}


def _filtered_slices(source: Any, shape: tuple[int, ...], filters: Filters) -> ReadSlice:
    """Slices after the filters, computed a slab at a time as they are asked for in order."""
    rows = max(1, BLOCK_VOXELS * shape[0] // max(1, prod(source.shape)))
    slabs = list(grid_blocks(shape, (rows, *shape[1:])))
    held: dict[int, NDArray[np.uint8]] = {}

    def read(number: int, region: Region) -> NDArray[Any]:
        slab = number // rows
        if slab not in held:
            held.clear()
            held[slab] = _filter_slab(source, slabs[slab], filters)
        return held[slab][(number - slab * rows, *region)]

    return read


def _filter_slab(source: Any, slab: Region, filters: Filters) -> NDArray[np.uint8]:
    """Labels of whole slices after the filters. Of large ones a part after the other: with their neighbours and the probabilities
    of all classes they are many times as large."""
    labels = np.empty(shape_of(slab), np.uint8)
    channels = prod(source.shape[:-3])
    size, reach = list(labels.shape), reach_of(filters, 3)
    while channels * prod(n + 2 * r for n, r in zip(size, reach, strict=True)) > BLOCK_VOXELS and max(size[1:]) > LEAST_PART:
        axis = 1 if size[1] > LEAST_PART else 2  # rows lie together on disk
        size[axis] = -(-size[axis] // 2)
    for part in grid_blocks(labels.shape, size):
        placed = tuple(slice(p.start + s.start, p.stop + s.start) for p, s in zip(part, slab, strict=True))
        labels[part] = filter_region(source, placed, filters)
    return labels


def _volume_slice(image: Any, number: int, region: Region) -> NDArray[Any]:
    pixels: NDArray[Any] = image.read((slice(number, number + 1), *region))[0, 0]
    return pixels


def _write(path: Path, labels: Slices) -> FileWritten:
    write_image(path, labels, "ZYX", spacing=None)
    return FileWritten(path, "prediction")


def _measured_whole(plan: Plan) -> Plan:
    """The border crop is given for single images; a stack of them is measured whole."""
    test = plan.config.test.model_copy(update={"eval_border_crop": (), "by_chunks": ByChunks()})
    return plan.model_copy(update={"config": plan.config.model_copy(update={"test": test})})
