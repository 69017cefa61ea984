"""Normalisation against hand-computed numbers, and the messages of fixed values that do not fit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from crista.config.data import Normalization
from crista.errors import ConfigError
from crista.geometry.axes import Array, Region, canonical_axes
from crista.images.image import Image
from crista.patches.normalization import ImageStatistics, compute_statistics, normalize


class ArraySource:
    def __init__(self, array: Array) -> None:
        self.array = array

    def read(self, region: Region) -> Array:
        return self.array[region]


def as_image(pixels: Array) -> Image:
    ndim = pixels.ndim - 1
    return Image(Path("a.tif"), canonical_axes(ndim), pixels.shape, pixels.dtype, ndim, None, ArraySource(pixels))


def statistics_of(pixels: Array, kind: str = "zero_mean_unit_variance", **keys: Any) -> ImageStatistics:
    return compute_statistics(as_image(pixels), Normalization(type=kind, **keys))


TWO_CHANNELS = np.array([[[1, 3], [5, 7]], [[10, 10], [10, 50]]], dtype=np.uint8)


def test_zero_mean_unit_variance_is_per_channel() -> None:
    statistics = statistics_of(TWO_CHANNELS)
    assert statistics.offset == (4.0, 20.0)
    assert statistics.scale == pytest.approx((np.sqrt(5), np.sqrt(300)))
    assert statistics.lower is statistics.upper is None
    result = normalize(TWO_CHANNELS, statistics)
    assert result.dtype == np.float32
    np.testing.assert_allclose(result[0], np.array([[-3, -1], [1, 3]]) / np.sqrt(5), rtol=1e-6)


def test_scale_range_is_per_channel_and_ends_at_exactly_0_and_1() -> None:
    result = normalize(TWO_CHANNELS, statistics_of(TWO_CHANNELS, "scale_range"))
    np.testing.assert_allclose(result, [[[0, 1 / 3], [2 / 3, 1]], [[0, 0], [0, 1]]], rtol=1e-6)
    pixels = np.random.default_rng(0).standard_normal((1, 40, 50)).astype(np.float32) * 1e4
    floats = normalize(pixels, statistics_of(pixels, "scale_range"))
    assert (floats.min(), floats.max()) == (0, 1)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int32, np.float32, np.float64])
@pytest.mark.parametrize(("maximum", "divisor"), [(1, 1), (2, 255), (255, 255), (256, 65535), (65535, 65535), (70000, 70000)])
def test_div_goes_by_the_maximum_of_the_image(dtype: type, maximum: int, divisor: float) -> None:
    if np.issubdtype(dtype, np.integer) and maximum > np.iinfo(dtype).max:
        dtype = np.uint32
    pixels = np.array([[[0, 1]], [[0, maximum]]], dtype=dtype)
    statistics = statistics_of(pixels, "div")
    assert statistics == ImageStatistics((0.0, 0.0), (divisor, divisor))
    np.testing.assert_array_equal(normalize(pixels, statistics), (pixels / np.float32(divisor)).astype(np.float32))


@pytest.mark.parametrize("kind", ["zero_mean_unit_variance", "scale_range"])
@pytest.mark.parametrize("value", [0, 7, 0.1, 40000.3])
def test_a_constant_image_becomes_0(kind: str, value: float) -> None:
    for dtype in (np.uint16, np.float32, np.float64):
        pixels = np.full((1, 5, 6), value, dtype)
        np.testing.assert_array_equal(normalize(pixels, statistics_of(pixels, kind)), 0)


def test_a_channel_of_0_and_1_is_normalised_like_any_other() -> None:
    pixels = np.array([[[0, 1], [1, 0]]], dtype=np.uint8)
    np.testing.assert_array_equal(normalize(pixels, statistics_of(pixels)), [[[-1, 1], [1, -1]]])


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_pixels_that_are_not_finite_are_left_out_and_become_0(dtype: type) -> None:
    pixels = np.array([[[np.nan, 1, 3], [np.inf, 5, 7], [-np.inf, np.nan, np.nan]]], dtype=dtype)
    clean = np.array([[[1, 3, 5, 7]]], dtype=dtype)
    clip = {"enable": True, "lower_perc": 10, "upper_perc": 90}
    for kind in ("zero_mean_unit_variance", "scale_range", "div"):
        for keys in ({}, {"perc_clip": clip}):
            statistics = statistics_of(pixels, kind, **keys)
            assert statistics == statistics_of(clean, kind, **keys)
            result = normalize(pixels, statistics)
            assert (result[~np.isfinite(pixels)] == 0).all()
            np.testing.assert_array_equal(result[np.isfinite(pixels)], normalize(clean, statistics).ravel())


def test_an_image_without_a_finite_pixel_becomes_0() -> None:
    pixels = np.full((1, 3, 3), np.nan, np.float32)
    clip = {"enable": True, "lower_perc": 1, "upper_perc": 99}
    for kind in ("zero_mean_unit_variance", "scale_range", "div"):
        np.testing.assert_array_equal(normalize(pixels, statistics_of(pixels, kind, perc_clip=clip)), 0)


def test_float64_beyond_float32_counts_as_not_finite() -> None:
    pixels = np.array([[[1e300, 1.0, 3.0]]])
    np.testing.assert_array_equal(normalize(pixels, statistics_of(pixels)), [[[0, -1, 1]]])


def test_fixed_statistics_replace_the_images_own_one_or_per_channel() -> None:
    given = statistics_of(TWO_CHANNELS, zero_mean_unit_var={"mean_val": (5,), "std_val": (2, 4)})
    assert given == ImageStatistics((5.0, 5.0), (2.0, 4.0))
    metres = statistics_of(TWO_CHANNELS * 1e-9, zero_mean_unit_var={"mean_val": (5e-9,), "std_val": (2e-9, 4e-9)})
    assert metres.scale == pytest.approx((2e-9, 4e-9))  # as they were typed in; the least of an image's own is 1e-6
    mean_only = statistics_of(TWO_CHANNELS, zero_mean_unit_var={"mean_val": (5,)})
    assert mean_only.offset == (5, 5)
    assert mean_only.scale == pytest.approx((np.sqrt(5), np.sqrt(300)))


def test_fixed_statistics_need_no_pixels() -> None:
    image = Image(Path("a.tif"), "CYX", (1, 9, 9), np.dtype(np.uint8), 2, None, ArraySource(np.zeros(0)))
    fixed = Normalization(zero_mean_unit_var={"mean_val": (5,), "std_val": (2,)})
    assert compute_statistics(image, fixed) == ImageStatistics((5.0,), (2.0,))


def test_percentiles_clip_before_the_statistics() -> None:
    pixels = np.arange(101, dtype=np.uint8).reshape(1, 1, 101)
    clip = {"enable": True, "lower_perc": 10, "upper_perc": 90}
    statistics = statistics_of(pixels, "scale_range", perc_clip=clip)
    assert (statistics.lower, statistics.upper) == ((10.0,), (90.0,))
    expected = (np.clip(pixels.astype(np.float64), 10, 90) - 10) / 80
    np.testing.assert_allclose(normalize(pixels, statistics), expected, rtol=1e-6)
    z_scored = statistics_of(pixels, perc_clip=clip)
    clipped = np.clip(pixels.astype(np.float64), 10, 90)
    assert z_scored.offset == pytest.approx((clipped.mean(),))
    assert z_scored.scale == pytest.approx((clipped.std(),), rel=1e-7)


def test_fixed_limits_clip_where_no_percentile_is_set() -> None:
    clip = {"enable": True, "lower_value": (2,), "upper_value": (6, 20)}
    statistics = statistics_of(TWO_CHANNELS, "scale_range", perc_clip=clip)
    assert statistics == ImageStatistics((2.0, 10.0), (4.0, 10.0), (2.0, 2.0), (6.0, 20.0))


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
@pytest.mark.parametrize("kind", ["zero_mean_unit_variance", "scale_range", "div"])
def test_clipping_empties_a_channel_with_a_few_bright_pixels_not_one_without_any(kind: str, dtype: type) -> None:
    """An unused channel of a colour image, or a black one, is no fault of the percentiles: other ones would change nothing."""
    pixels = np.zeros((3, 20, 20), dtype)
    pixels[0] = np.arange(20)
    clip = {"enable": True, "lower_perc": 1, "upper_perc": 99}
    assert not statistics_of(pixels, kind, perc_clip=clip).leaves_nothing
    pixels[2, 5, 5] = 9
    found = statistics_of(pixels, kind, perc_clip=clip)
    assert found.leaves_nothing
    assert found.emptied == (2,)
    assert ImageStatistics.from_json(json.loads(json.dumps(found.to_json()))) == found


def test_statistics_survive_json() -> None:
    clip = {"enable": True, "lower_perc": 0.3, "upper_perc": 99.7}
    pixels = np.random.default_rng(0).standard_normal((3, 20, 20))
    for keys in ({}, {"perc_clip": clip}):
        statistics = statistics_of(pixels, **keys)
        assert ImageStatistics.from_json(json.loads(json.dumps(statistics.to_json()))) == statistics


def test_fixed_values_of_another_number_of_channels_are_all_reported() -> None:
    keys = {
        "zero_mean_unit_var": {"mean_val": (1, 2, 3), "std_val": (1, 2, 3)},
        "perc_clip": {"enable": True, "lower_value": (0, 0, 0), "upper_value": (9,)},
    }
    with pytest.raises(ConfigError) as caught:
        statistics_of(TWO_CHANNELS, **keys)
    message = str(caught.value)
    assert message.startswith("3 problems")
    assert "DATA.NORMALIZATION.ZERO_MEAN_UNIT_VAR.MEAN_VAL: 3 values, but a.tif has 2 channels" in message
    assert "ZERO_MEAN_UNIT_VAR.STD_VAL" in message
    assert "PERC_CLIP.LOWER_VALUE" in message
    assert "Give one value for all channels, or one per channel." in message


def test_a_fixed_standard_deviation_must_be_above_0() -> None:
    with pytest.raises(ConfigError, match=r"STD_VAL: 0: a standard deviation .* above 0"):
        statistics_of(TWO_CHANNELS, zero_mean_unit_var={"mean_val": (1,), "std_val": (0,)})


def test_pixels_and_statistics_of_different_channels_do_not_mix() -> None:
    with pytest.raises(ValueError, match="2 channels cannot be normalised by statistics of 1"):
        normalize(TWO_CHANNELS, ImageStatistics((0.0,), (1.0,)))
