"""The same pixels give the same statistics and the same network input, however they are stored, read or cut."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest

from crista.config.data import Normalization
from crista.geometry.axes import Array, Region, canonical_axes
from crista.geometry.tiles import shape_of, whole
from crista.images.image import Image
from crista.patches.intensities import iter_regions, open_intensities, sort_keys, value_of_key
from crista.patches.normalization import compute_statistics, normalize

CLIP = {"enable": True, "lower_perc": 0.7, "upper_perc": 98.9}
CONFIGS = [
    Normalization(type=kind, perc_clip=clip)
    for kind, clip in itertools.product(("zero_mean_unit_variance", "scale_range", "div"), ({}, CLIP))
]
SHAPES = [(2, 37, 53), (1, 7, 19, 23)]


class CountingSource:
    def __init__(self, array: Array) -> None:
        self.array = array
        self.largest = 0

    def read(self, region: Region) -> Array:
        part = self.array[region]
        self.largest = max(self.largest, part.nbytes)
        return part


def as_image(pixels: Array) -> Image:
    ndim = pixels.ndim - 1
    source = CountingSource(pixels)
    return Image(Path("a.tif"), canonical_axes(ndim), pixels.shape, pixels.dtype, ndim, None, source)


def draw(shape: tuple[int, ...], dtype: str) -> Array:
    rng = np.random.default_rng(0)
    if np.dtype(dtype).kind == "f":
        return (rng.lognormal(0, 3, shape) - 2).astype(dtype)
    info = np.iinfo(dtype)
    return rng.integers(max(info.min, -(2**30)), min(info.max, 2**30), shape, dtype=dtype)


@pytest.mark.parametrize("config", CONFIGS, ids=lambda c: f"{c.type}-{c.perc_clip.enable}")
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("dtype", ["uint8", "int16", "int32", "float32", "float64"])
def test_statistics_do_not_depend_on_the_blocks(shape: tuple[int, ...], dtype: str, config: Normalization) -> None:
    pixels = draw(shape, dtype)
    at_once = compute_statistics(as_image(pixels), config)
    row = pixels[..., 0, :].nbytes
    for block_bytes in (1, row, 3 * row, 20 * row, 50 * row):
        image = as_image(pixels)
        assert compute_statistics(image, config, block_bytes=block_bytes) == at_once
        row_of_all_channels = pixels.shape[0] * pixels.shape[-1] * pixels.itemsize
        assert image.source.largest <= max(block_bytes, row_of_all_channels)


@pytest.mark.parametrize("config", CONFIGS, ids=lambda c: f"{c.type}-{c.perc_clip.enable}")
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_statistics_and_input_do_not_depend_on_the_dtype(shape: tuple[int, ...], config: Normalization) -> None:
    pixels = np.random.default_rng(1).integers(0, 256, shape, dtype=np.uint8)
    expected = compute_statistics(as_image(pixels), config)
    for dtype in ("uint16", "int16", "int32", "uint32", "int64", "float16", "float32", "float64"):
        same = pixels.astype(dtype)
        statistics = compute_statistics(as_image(same), config)
        assert statistics == expected
        np.testing.assert_array_equal(normalize(same, statistics), normalize(pixels, expected))


@pytest.mark.parametrize("dtype", ["bool", "uint8", "int8", "uint16", "int16", "uint32", "float16", "float32"])
def test_statistics_are_those_of_numpy(dtype: str) -> None:
    pixels = draw((2, 31, 45), dtype) if dtype != "bool" else draw((2, 31, 45), "uint8") > 99
    intensities = open_intensities(as_image(pixels), 2**20)
    values = pixels.astype(np.float32).astype(np.float64).reshape(2, -1)
    for percentage in (0, 0.1, 12.34, 50, 99.9, 100):
        expected = np.percentile(values, percentage, axis=1)
        np.testing.assert_allclose(intensities.percentiles(percentage), expected, rtol=1e-12)
    for summary, channel in zip(intensities.summarise([(-np.inf, np.inf)] * 2), values, strict=True):
        assert summary.count == channel.size
        assert (summary.minimum, summary.maximum) == (channel.min(), channel.max())
        assert summary.mean == pytest.approx(channel.mean(), rel=1e-12)
        assert summary.std == pytest.approx(channel.std(), rel=1e-12)


def test_percentiles_are_exact_beside_huge_outliers() -> None:
    pixels = np.linspace(-1, 1, 2001, dtype=np.float32).reshape(1, 3, 667)
    pixels[0, 0, 0], pixels[0, 2, 666] = -3e38, 3e38
    (median,) = open_intensities(as_image(pixels), 2**20).percentiles(50)
    (low,) = open_intensities(as_image(pixels), 2**20).percentiles(1)
    assert median == pytest.approx(0, abs=1e-7)
    assert low == pytest.approx(-0.98, rel=1e-6)


def test_the_variance_of_large_nearly_equal_intensities_keeps_its_digits() -> None:
    noise = np.random.default_rng(0).integers(0, 2, (1, 64, 64))
    for dtype in ("float32", "int32"):
        (summary,) = open_intensities(as_image((noise + 2**23).astype(dtype)), 2**20).summarise([(-np.inf, np.inf)])
        assert summary.std == pytest.approx(noise.std(), rel=1e-12)


@pytest.mark.parametrize("config", CONFIGS, ids=lambda c: f"{c.type}-{c.perc_clip.enable}")
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32", "float64"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_a_patch_is_bitwise_the_same_as_in_the_whole(shape: tuple[int, ...], dtype: str, config: Normalization) -> None:
    pixels = draw(shape, dtype)
    statistics = compute_statistics(as_image(pixels), config)
    at_once = normalize(pixels, statistics)
    rng = np.random.default_rng(2)
    for _ in range(10):
        starts = [int(rng.integers(n)) for n in shape[1:]]
        box = (slice(None), *(slice(s, s + int(rng.integers(1, n - s + 1))) for s, n in zip(starts, shape[1:], strict=True)))
        assert normalize(pixels[box], statistics).tobytes() == at_once[box].tobytes()
    interleaved = np.moveaxis(np.ascontiguousarray(np.moveaxis(pixels, 0, -1)), -1, 0)
    assert normalize(interleaved, statistics).tobytes() == at_once.tobytes()
    big_endian = pixels.astype(pixels.dtype.newbyteorder(">"))
    assert normalize(big_endian, statistics).tobytes() == at_once.tobytes()
    assert compute_statistics(as_image(big_endian), config) == statistics


@pytest.mark.parametrize("shape", [(9, 5), (100, 8, 6), (3, 200, 4)], ids=str)
@pytest.mark.parametrize("block_bytes", [1, 64, 1000, 5000, 10**6])
def test_regions_partition_the_image_in_scan_order(shape: tuple[int, ...], block_bytes: int) -> None:
    seen = np.zeros(shape, int)
    last = -1
    for region in iter_regions(shape, 2, block_bytes):
        seen[region] += 1
        first = np.ravel_multi_index([axis.start for axis in region], shape)
        assert first > last
        last = first
        assert region[-1] == whole(shape)[-1]
        assert 2 * np.prod(shape_of(region)) <= max(block_bytes, 2 * shape[-1])
    assert (seen == 1).all()


def test_sort_keys_keep_the_order_and_can_be_undone() -> None:
    values = np.array([-3e38, -1.5, -1e-45, 0.0, 1e-45, 0.1, 2.0, 3e38], dtype=np.float32)
    keys = sort_keys(values)
    assert (np.diff(keys) > 0).all()
    np.testing.assert_array_equal([value_of_key(int(key)) for key in keys], values)
