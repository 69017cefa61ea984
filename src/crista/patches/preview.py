"""Preview: samples written as images, so that people can see what the network is shown."""

from __future__ import annotations

from collections.abc import Iterator
from math import prod
from pathlib import Path

import numpy as np

from crista.geometry.axes import Array, Region, canonical_axes, spatial_axes
from crista.images.image import short_name
from crista.images.write import write_image
from crista.patches.cutting import Placement
from crista.patches.dataset import PatchSamples
from crista.patches.probability_map import draw_mark
from crista.patches.sample import Sample
from crista.patches.split import Source

GRID_STEP = 32
"""Pixels between the lines of the grid that makes deformations visible."""

SHOWN_VOXELS = 2**26
"""Voxels of a source that is shown whole; as a picture each takes up to 16 bytes."""


def write_augmented_samples(samples: PatchSamples, folder: Path, *, count: int, draw_grid: bool) -> Iterator[Path]:
    """Write `count` samples before (`…_orig_x`, `…_orig_y`) and after augmentation (`…_x`, `…_y`).

    With `draw_grid` a grid drawn into the image before augmentation is deformed with it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for index in range(min(count, len(samples))):
        rng = samples.rng(index, 0)
        before, name = samples.cut(index, rng)
        name = short_name(name)
        shown = before.with_arrays(image=_with_grid(before.image)) if draw_grid else before
        after = samples.augment(shown, rng)
        for kind, sample in (("orig_", before), ("", after)):
            yield from _write(sample, folder / f"{index:02d}_{name}_{kind}x.tif", folder / f"{index:02d}_{name}_{kind}y.tif")


def write_checked_samples(samples: PatchSamples, images: Path, labels: Path) -> Iterator[Path]:
    """Write every sample of the first epoch as the network gets it (DATA.CHECK_GENERATORS)."""
    for folder in (images, labels):
        folder.mkdir(parents=True, exist_ok=True)
    for index in range(len(samples)):
        sample, name = samples.sample(index, 1)
        name = short_name(name)
        yield from _write(sample, images / f"{index:04d}_{name}.tif", labels / f"{index:04d}_{name}.tif")


def write_mark_images(samples: PatchSamples, folder: Path, *, count: int) -> Iterator[Path]:
    """Write `…_mark_x` (image) and `…_mark_y` (label) with a blue square on each drawn patch and a red point on its centre.

    Of a source of more than `SHOWN_VOXELS` only the surroundings of the patch are shown.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for index in range(min(count, len(samples))):
        number, placement = samples.placer.place(index, samples.rng(index, 0))
        source = samples.sources[number]
        shown = _shown(source, placement)
        pixels, label = samples.cache.read(source, shown)
        origin = [axis.start - box.start for axis, box in zip(shown, source.region, strict=True)]
        middle = [start + size // 2 for start, size in zip(placement.start, placement.size, strict=True)]
        centre = placement.centre if placement.centre is not None else middle
        start, centre = ([i - o for i, o in zip(place, origin, strict=True)] for place in (placement.start, centre))
        for kind, picture in (("mark_x", pixels), ("mark_y", label[np.newaxis])):
            path = folder / f"{index:02d}_{short_name(source.pair.name)}_{kind}.tif"
            marked = draw_mark(picture, start, placement.size, centre)
            write_image(path, np.moveaxis(marked, -1, 0), canonical_axes(marked.ndim - 1))
            yield path


def _shown(source: Source, placement: Placement) -> Region:
    """The whole source, or of a large one the patch with as much on each side, in image coordinates."""
    if prod(source.shape) <= SHOWN_VOXELS:
        return source.region
    axes = zip(source.region, placement.start, placement.size, strict=True)
    return tuple(
        slice(max(box.start, box.start + start - size), min(box.stop, box.start + start + 2 * size)) for box, start, size in axes
    )


def _with_grid(image: Array) -> Array:
    """A copy with lines of the highest and lowest intensity every `GRID_STEP` pixels along y and x."""
    marked = image.copy()
    low, high = float(image.min()), float(image.max())
    for axis in (-1, -2):
        lines = [slice(None)] * image.ndim
        lines[axis] = slice(GRID_STEP // 2, None, GRID_STEP)
        marked[tuple(lines)] = high if axis == -1 else low
    return marked


def _write(sample: Sample, image_path: Path, label_path: Path) -> Iterator[Path]:
    ndim = sample.label.ndim
    write_image(image_path, sample.image, canonical_axes(ndim))
    write_image(label_path, sample.label, spatial_axes(ndim))
    yield image_path
    yield label_path
