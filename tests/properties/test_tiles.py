"""Tiles partition, keep their distance from the border of what they read, and reproduce a local filter."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import uniform_filter

from crista.geometry.tiles import (
    fit_tile,
    grid_blocks,
    grid_starts,
    iter_tiles,
    round_up,
    shape_of,
    tile_axis,
    work_factor,
)


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


@given(axes(), st.data())
def test_the_cover_of_a_part_keeps_its_distance(axis: tuple[int, int, int, int], data: st.DataObject) -> None:
    length, size, halo, multiple = axis
    first = data.draw(st.integers(0, length - 1))
    last = data.draw(st.integers(first + 1, length))
    cover = tile_axis(length, size, halo, multiple, part=(first, last))
    assert [i for _, _, write in cover for i in range(write.start, write.stop)] == list(range(first, last))
    for read, _, write in cover:
        assert read.start % multiple == 0
        assert 0 <= read.start < read.stop <= round_up(length, multiple)
        assert (read.stop - read.start) % multiple == 0
        assert read.stop - read.start <= max(size, multiple)
        assert read.start == 0 or write.start - read.start >= halo
        assert read.stop >= length or read.stop - write.stop >= halo


@given(st.data())
def test_blocks_and_their_tiles_partition_an_image(data: st.DataObject) -> None:
    chosen = [data.draw(axes()) for _ in range(2)]
    shape = tuple(min(length, 60) for length, *_ in chosen)
    block_size = [data.draw(st.integers(1, 60)) for _ in shape]
    halo, size, multiple = ([axis[i] for axis in chosen] for i in (2, 1, 3))
    written = np.zeros(shape, int)
    for block in grid_blocks(shape, block_size):
        for tile in iter_tiles(shape, size, halo, multiple, block=block):
            written[tile.write] += 1
    assert (written == 1).all()


@given(axes(), st.booleans(), st.integers(1, 400))
def test_the_fitted_tile_covers_with_the_least_work(axis: tuple[int, int, int, int], inside: bool, most: int) -> None:
    length, _, halo, multiple = axis
    fitted = fit_tile((length,), (halo,), (multiple,), most, inside=inside)
    around = length + 2 * halo if inside else length
    candidates = range(2 * halo + multiple, round_up(around, multiple) + multiple, multiple)
    image = length + 4 * round_up(halo, multiple) if inside else length
    first = 2 * round_up(halo, multiple) if inside else 0
    part = (first, first + length)
    costs = {size: sum(r.stop - r.start for r, _, _ in tile_axis(image, size, halo, multiple, part=part)) for size in candidates}
    allowed = {size: cost for size, cost in costs.items() if size <= most}
    if fitted is None:
        assert not allowed or inside or round_up(length, multiple) > most
        return
    assert fitted[0] <= most
    if allowed:
        cost = sum(r.stop - r.start for r, _, _ in tile_axis(image, fitted[0], halo, multiple, part=part))
        assert cost <= min(allowed.values()) + len(tile_axis(image, fitted[0], halo, multiple, part=part)) * multiple


def test_fitted_tiles_by_hand() -> None:
    # 368 voxels in windows of at most 160 with a halo of 16: three windows, 144 each (128 + 112 + 128 written)
    assert fit_tile((368,), (16,), (8,), 160) == (144,)
    # all of it where it fits, rounded up to the stride
    assert fit_tile((20, 365), (4, 16), (1, 8), 10**6) == (20, 368)
    # a block in the middle of an image has a halo at its own ends
    assert fit_tile((64,), (16,), (8,), 96, inside=True) == (96,)
    assert fit_tile((64,), (16,), (8,), 95, inside=True) == (64,)
    assert fit_tile((64,), (16,), (8,), 39, inside=True) is None


def test_work_factor_by_hand() -> None:
    # windows of 144 three times for 368 voxels
    assert work_factor(list(iter_tiles((368,), (144,), (16,), (8,)))) == 3 * 144 / 368


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
