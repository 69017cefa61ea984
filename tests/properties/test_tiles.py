"""Tiles partition, keep their distance from the border of what they read, and reproduce a local filter."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import uniform_filter

from crista.geometry.tiles import grid_starts, iter_tiles, shape_of, tile_axis


@st.composite
def axes(draw: st.DrawFn) -> tuple[int, int, int, int]:
    multiple = draw(st.sampled_from([1, 2, 4, 8]))
    halo = draw(st.integers(0, 3)) * multiple
    size = 2 * halo + multiple * draw(st.integers(1, 6))
    return draw(st.integers(1, 150)), size, halo, multiple


@given(axes())
def test_write_regions_partition_an_axis(axis: tuple[int, int, int, int]) -> None:
    length, size, halo, multiple = axis
    cover = tile_axis(length, size, halo, multiple)
    written = [i for _, _, write in cover for i in range(write.start, write.stop)]
    assert written == list(range(length))
    padded = -(-length // multiple) * multiple
    for read, crop, write in cover:
        assert read.start % multiple == 0
        assert read.start >= 0
        assert read.stop <= padded
        assert read.stop - read.start == min(size, padded)
        assert (crop.start, crop.stop) == (write.start - read.start, write.stop - read.start)
        assert write.start == 0 or write.start - read.start >= halo
        assert write.stop == length or read.stop - write.stop >= halo


@settings(max_examples=50, deadline=None)
@given(st.data())
def test_a_local_filter_is_the_same_tiled_and_whole(data: st.DataObject) -> None:
    ndim = data.draw(st.integers(1, 3))
    chosen = [data.draw(axes()) for _ in range(ndim)]
    shape = [min(length, 40) for length, *_ in chosen]
    radius = min(halo for _, _, halo, _ in chosen)
    image = np.random.default_rng(0).normal(size=shape)
    expected = uniform_filter(image, 2 * radius + 1, mode="reflect")
    result = np.full(shape, np.nan)
    for tile in iter_tiles(shape, *zip(*[(size, halo) for _, size, halo, _ in chosen], strict=True)):
        inside = tuple(slice(r.start, min(r.stop, n)) for r, n in zip(tile.read, shape, strict=True))
        filtered = uniform_filter(image[inside], 2 * radius + 1, mode="reflect")
        result[tile.write] = filtered[tile.crop]
    np.testing.assert_allclose(result, expected, atol=1e-12)


def test_a_tile_without_inside_is_refused() -> None:
    with pytest.raises(ValueError, match="a tile of 8 with a halo of 4 leaves no multiple of 1"):
        tile_axis(100, 8, 4)


def test_an_empty_axis_is_refused() -> None:
    with pytest.raises(ValueError, match="length 0"):
        tile_axis(0, 8, 0)


@given(st.integers(1, 300), st.integers(1, 64), st.floats(0, 0.9))
def test_grid_windows_cover_and_share(length: int, size: int, overlap: float) -> None:
    starts = grid_starts(length, size, overlap)
    assert starts[0] == 0
    assert starts[-1] == max(0, length - size)
    step = max(1, int(size * (1 - overlap)))
    assert all(0 < after - before <= step for before, after in pairwise(starts))


def test_grid_by_hand() -> None:
    # 100 pixels, windows of 40, no overlap: three windows, evenly spread
    assert grid_starts(100, 40) == [0, 30, 60]
    assert grid_starts(100, 40, 0.5) == [0, 20, 40, 60]
    assert grid_starts(40, 40) == [0]
    assert grid_starts(10, 40) == [0]


def test_shape_of_a_region() -> None:
    assert shape_of((slice(2, 5), slice(0, 7))) == (3, 7)
