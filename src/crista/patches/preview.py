"""Preview: samples written as images, so that people can see what the network is shown."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from crista.geometry.axes import Array, canonical_axes, spatial_axes
from crista.images.image import short_name
from crista.images.write import write_image
from crista.patches.dataset import PatchSamples
from crista.patches.probability_map import draw_mark
from crista.patches.sample import Sample

GRID_STEP = 32
"""Pixels between the lines of the grid that makes deformations visible."""


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
    """Write `…_mark_x` (image) and `…_mark_y` (label) with a blue square on each drawn patch and a red point on its centre."""
    folder.mkdir(parents=True, exist_ok=True)
    for index in range(min(count, len(samples))):
        number, placement = samples.placer.place(index, samples.rng(index, 0))
        source = samples.sources[number]
        pixels, label = samples.cache.read(source, source.region)
        middle = [start + size // 2 for start, size in zip(placement.start, placement.size, strict=True)]
        centre = placement.centre if placement.centre is not None else middle
        for kind, picture in (("mark_x", pixels), ("mark_y", label[np.newaxis])):
            path = folder / f"{index:02d}_{short_name(source.pair.name)}_{kind}.tif"
            marked = draw_mark(picture, placement.start, placement.size, centre)
            write_image(path, np.moveaxis(marked, -1, 0), canonical_axes(marked.ndim - 1))
            yield path


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
