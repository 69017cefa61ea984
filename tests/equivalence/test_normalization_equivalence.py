"""The same pixels give the same statistics and the same network input, however they are stored, read or cut."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from crista.config.data import Normalization
from crista.geometry.axes import Array, Region, canonical_axes
from crista.images.image import Image
from crista.patches.exact_sum import ExactSum
from crista.patches.intensities import PIECE, open_intensities, value_of_key
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
    percentages = (0, 0.1, 12.34, 50, 99.9, 100)
    expected = np.percentile(values, percentages, axis=1)
    np.testing.assert_allclose(intensities.percentiles(percentages), expected, rtol=1e-12)
    for summary, channel in zip(intensities.summarise([(-np.inf, np.inf)] * 2), values, strict=True):
        assert summary.count == channel.size
        assert (summary.minimum, summary.maximum) == (channel.min(), channel.max())
        assert summary.mean == pytest.approx(channel.mean(), rel=1e-12)
        assert summary.std == pytest.approx(channel.std(), rel=1e-12)


def test_percentiles_are_exact_beside_huge_outliers() -> None:
    pixels = np.linspace(-1, 1, 2001, dtype=np.float32).reshape(1, 3, 667)
    pixels[0, 0, 0], pixels[0, 2, 666] = -3e38, 3e38
    ((median,),) = open_intensities(as_image(pixels), 2**20).percentiles([50])
    ((low,),) = open_intensities(as_image(pixels), 2**20).percentiles([1])
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


def test_keys_keep_the_order_of_float32() -> None:
    values = np.array([-3e38, -1.5, -1e-45, -0.0, 0.0, 1e-45, 0.1, 2.0, 3e38], dtype=np.float32)
    bits = values.view(np.uint32).astype(np.int64)
    keys = [0xFFFFFFFF - int(bit) if bit >> 31 else int(bit) + 0x80000000 for bit in bits]
    assert (np.diff(keys) > 0).all()
    np.testing.assert_array_equal([value_of_key(key) for key in keys], values)


def test_the_bits_of_many_exponents_signs_and_odd_values_are_counted() -> None:
    random = np.random.default_rng(0)
    pixels = random.integers(0, 2**32, (3, 40, 50), dtype=np.uint32).view(np.float32)
    intensities = open_intensities(as_image(pixels), 2**20)
    found = intensities.percentiles([0, 3, 25, 50, 75, 99.9, 100])
    for percentage, values in zip([0, 3, 25, 50, 75, 99.9, 100], found, strict=True):
        for value, channel in zip(values, pixels, strict=True):
            finite = np.sort(channel[np.isfinite(channel)]).astype(np.float64)
            position = percentage / 100 * (len(finite) - 1)
            low, high = finite[int(position)], finite[min(int(position) + 1, len(finite) - 1)]
            assert value == pytest.approx(low + (high - low) * (position - int(position)), rel=1e-12)


@pytest.mark.parametrize("chunks", [None, (4, 8, 16), (7, 5, 64)])
@pytest.mark.parametrize("config", CONFIGS, ids=lambda c: f"{c.type}-{c.perc_clip.enable}")
@pytest.mark.parametrize("dtype", ["uint16", "float32"])
def test_statistics_do_not_depend_on_the_chunks(dtype: str, config: Normalization, chunks: tuple[int, ...] | None) -> None:
    pixels = draw((2, 9, 20, 70), dtype)
    at_once = compute_statistics(as_image(pixels), config)
    image = replace(as_image(pixels), chunks=chunks)
    assert compute_statistics(image, config, block_bytes=9000) == at_once


@pytest.mark.parametrize("first_finite", [(0, 0, 3), (0, 5, 0), (2, 1, 7), (8, 19, 69), None])
def test_statistics_with_missing_pixels_do_not_depend_on_the_blocks(first_finite: tuple[int, int, int] | None) -> None:
    pixels = draw((2, 9, 20, 70), "float32") + np.float32(1000)
    flat = pixels[1].reshape(-1)
    flat[: np.ravel_multi_index(first_finite, pixels.shape[1:]) if first_finite else flat.size] = np.nan
    flat[::7] = np.where(np.isnan(flat[::7]), np.nan, np.inf)
    summaries = [
        open_intensities(replace(as_image(pixels), chunks=chunks), block_bytes).summarise([(-np.inf, 1200.0)] * 2)
        for chunks in (None, (4, 8, 16))
        for block_bytes in (2**20, 9000, 300)
    ]
    assert all(other == summaries[0] for other in summaries)
    finite = pixels[1][np.isfinite(pixels[1])].astype(np.float64)
    assert summaries[0][1].count == finite.size
    if finite.size:
        assert summaries[0][1].mean == pytest.approx(np.minimum(finite, 1200).mean(), rel=1e-12)
        assert summaries[0][1].std == pytest.approx(np.minimum(finite, 1200).std(), rel=1e-9, abs=1e-9)


def test_rows_longer_than_a_piece_do_not_depend_on_the_blocks() -> None:
    pixels = draw((1, 3, 5, 2 * PIECE + 77), "float32")
    at_once = open_intensities(as_image(pixels), 2**30).summarise([(-np.inf, np.inf)])
    for chunks in (None, (2, 2, 300), (3, 5, 2000)):
        image = replace(as_image(pixels), chunks=chunks)
        assert open_intensities(image, 20_000).summarise([(-np.inf, np.inf)]) == at_once
        assert image.source.largest < 20_000
    assert at_once[0].mean == pytest.approx(pixels.astype(np.float64).mean(), rel=1e-12)


def test_sums_are_exact_in_any_order_and_memory_does_not_grow() -> None:
    random = np.random.default_rng(0)
    numbers = np.concatenate([random.normal(0, 10.0**power, 500) for power in range(-300, 300, 25)] + [[5e-324, 0.0, -0.0]])
    forwards, backwards = ExactSum(), ExactSum()
    for part in np.array_split(numbers, 7):
        forwards.add(part)
    for part in np.array_split(numbers[::-1], 30):
        backwards.add(part)

    assert forwards.value == backwards.value == sum(map(Fraction, numbers.tolist()))
    assert float(forwards) == math.fsum(numbers)
    held = len(forwards._sums)
    for _ in range(50):
        forwards.add(numbers)
    assert len(forwards._sums) == held


def test_sums_of_many_equal_numbers_do_not_overflow() -> None:
    total = ExactSum()
    total.add(np.full(2**20, np.nextafter(1.0, 0.0)))
    assert total.value == 2**20 * Fraction(math.nextafter(1.0, 0.0))


def test_a_large_image_is_read_once_for_sums_and_three_times_with_percentiles() -> None:
    for clip, passes in (({}, 1), (CLIP, 3)):
        pixels = draw((1, 40, 50, 60), "float32")
        image = as_image(pixels)
        reads: list[int] = []
        image.source.read = lambda region, reads=reads, pixels=pixels: reads.append(pixels[region].size) or pixels[region]
        compute_statistics(image, Normalization(type="scale_range", perc_clip=clip), block_bytes=40_000)
        assert sum(reads) == passes * pixels.size + 60  # and the first row, for its first finite pixel
