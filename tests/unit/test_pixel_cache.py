"""Pixels of training images in memory: each image is read once, and counted once, however many threads cut from it."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from tests.unit.test_plan import facts, plan

from crista.geometry.axes import Array, Region
from crista.images.image import Image, ImagePair
from crista.images.labels import LabelCoding
from crista.patches.cutting import PixelCache
from crista.patches.dataset import PatchSamples
from crista.patches.prepare import prepare_samples
from crista.patches.split import Source, Split, whole_sources

SHAPE = (20, 30)
PIXELS = (np.arange(600) % 3).astype(np.uint8).reshape(SHAPE)


@dataclass(frozen=True)
class SlowFile:
    """A file that takes its time, and notes how much is asked of it."""

    asked: list[int] = field(default_factory=list)

    def read(self, region: Region) -> Array:
        self.asked.append(PIXELS[region].size)
        time.sleep(0.05)
        return PIXELS[region].copy()


def slow_sources(count: int) -> tuple[tuple[Source, ...], list[SlowFile]]:
    files = [SlowFile() for _ in range(count)]
    images = [Image(Path(f"{i}.tif"), "YX", SHAPE, np.dtype(np.uint8), 2, None, file) for i, file in enumerate(files)]
    return whole_sources([ImagePair(image, image) for image in images]), files


@pytest.mark.parametrize("room", [2, 3, 30])
def test_threads_read_an_image_once_between_them(room: int) -> None:
    sources, files = slow_sources(3)
    cache = PixelCache(LabelCoding(3, None), limit_bytes=room * 2 * PIXELS.size)
    region = (slice(3, 9), slice(5, 16))
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda source: cache.read(source, region), sources * 8))
    for image, label in found:
        np.testing.assert_array_equal(image[0], PIXELS[region])
        np.testing.assert_array_equal(label, PIXELS[region])
    whole = [file.asked.count(PIXELS.size) for file in files]
    kept = min(room, 3)
    assert sorted(whole) == [0] * (3 - kept) + [2] * kept  # the image and its label, for as many as there is room


def test_training_and_validation_images_share_the_room(tmp_path: Path) -> None:
    """Two folders of images in memory take no more than one."""
    sources, files = slow_sources(4)
    made = plan(facts([SHAPE] * 2, num_classes=3, counts=(1, 1, 1)), DATA__VAL__FROM_TRAIN=False)
    room = 2 * PIXELS.size
    prepared = prepare_samples(made, Split(sources[:2], sources[2:], ""), map_folder=tmp_path, cache_bytes=room)

    def read_all(samples: PatchSamples) -> None:
        for index in range(len(samples)):
            samples.sample(index, 1)

    for samples in (prepared.train, prepared.validation, prepared.train, prepared.validation):
        for file in files:
            file.asked.clear()
        read_all(samples)
        kept = [not file.asked for file in files]
    assert sum(kept[2:]) == 0  # the first image of the training has the room
