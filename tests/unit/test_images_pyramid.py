"""The layout of a pyramid: which axes are halved, where it ends, chunks and shards, in numbers."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crista.geometry.spacing import Spacing
from crista.images.pyramid import CHUNK_BYTES, SHARD_BYTES, PyramidLevel, choose_pyramid

UINT8 = np.dtype(np.uint8)
FLOAT32 = np.dtype(np.float32)


def _shapes(axes: str, shape: tuple[int, ...], spacing: tuple[float, ...] | None = None) -> list[tuple[int, ...]]:
    pyramid = choose_pyramid(axes, shape, UINT8, None if spacing is None else Spacing(spacing))
    return [level.shape for level in pyramid.levels]


def test_a_small_image_has_one_level() -> None:
    assert _shapes("YX", (256, 200)) == [(256, 200)]


def test_equal_spacing_halves_every_axis_and_rounds_up() -> None:
    assert _shapes("ZYX", (301, 512, 1025)) == [(301, 512, 1025), (151, 256, 513), (76, 128, 257), (38, 64, 129)]


def test_the_finer_axes_are_halved_until_voxels_are_cubes() -> None:
    # 50 nm slices of 8 nm pixels: 8 -> 16 -> 32, then 32·√2 < 50 still halves y and x alone, 64 > 50 takes z along.
    pyramid = choose_pyramid("ZYX", (600, 4096, 4096), UINT8, Spacing((0.05, 0.008, 0.008)))

    assert [level.factors for level in pyramid.levels] == [(1, 1, 1), (1, 2, 2), (1, 4, 4), (1, 8, 8), (2, 16, 16), (4, 32, 32)]
    assert pyramid.levels[-1].shape == (150, 128, 128)


def test_a_thin_stack_keeps_its_slices_and_channels_are_never_halved() -> None:
    assert _shapes("CZYX", (300, 20, 1000, 1000)) == [(300, 20, 1000, 1000), (300, 20, 500, 500), (300, 20, 250, 250)]


def test_chunks_are_cubes_in_micrometres_and_end_with_the_image() -> None:
    def chunks(axes: str, shape: tuple[int, ...], dtype: np.dtype, *size: float) -> tuple[int, ...]:
        return choose_pyramid(axes, shape, dtype, Spacing(size) if size else None).levels[0].chunks

    assert chunks("YX", (5000, 5000), UINT8) == (1024, 1024)
    assert chunks("ZYX", (1000, 1000, 1000), UINT8) == (128, 128, 128)
    assert chunks("ZYX", (1000, 1000, 1000), FLOAT32) == (64, 128, 128)
    assert chunks("ZYX", (1000, 4000, 4000), UINT8, 0.08, 0.01, 0.01) == (32, 256, 256)
    assert chunks("CZYX", (3, 20, 1000, 1000), UINT8) == (1, 20, 256, 256)
    assert chunks("CYX", (3, 100, 90), UINT8) == (1, 100, 90)


def test_only_levels_of_many_chunks_have_shards() -> None:
    # 1280³: 10³ = 1000 chunks of 128³; 1408³: 11³ = 1331.
    few = choose_pyramid("ZYX", (1280, 1280, 1280), UINT8, None)
    many = choose_pyramid("ZYX", (1408, 1408, 1408), UINT8, None)

    assert few.levels[0].shards is None
    assert few.levels[0].block_shape == (128, 128, 128)
    assert [level.shards for level in many.levels] == [(256, 256, 512), None, None, None]
    assert many.levels[0].block_shape == (256, 256, 512)


def test_a_shard_holds_all_channels_within_its_limit() -> None:
    pyramid = choose_pyramid("CZYX", (4, 1000, 1000, 1000), FLOAT32, None)

    assert pyramid.levels[0].chunks == (1, 64, 128, 128)
    assert pyramid.levels[0].shards == (4, 128, 128, 128)
    assert choose_pyramid("CZYX", (4, 1000, 1000, 1000), FLOAT32, None, shard_bytes=0).levels[0].shards is None


@settings(deadline=None)
@given(
    axes=st.sampled_from(["YX", "ZYX", "CYX", "CZYX"]),
    lengths=st.lists(st.integers(1, 5000), min_size=4, max_size=4),
    size=st.lists(st.floats(0.001, 10.0), min_size=3, max_size=3),
    dtype=st.sampled_from([UINT8, FLOAT32]),
)
def test_every_layout_can_be_written(axes: str, lengths: list[int], size: list[float], dtype: np.dtype) -> None:
    ndim = len(axes.removeprefix("C"))
    shape = (min(lengths[0], 7), *lengths[1:])[-len(axes) :] if "C" in axes else tuple(lengths[-ndim:])
    pyramid = choose_pyramid(axes, shape, dtype, Spacing(tuple(size[-ndim:])))

    assert pyramid.levels[0].shape == shape
    assert max(pyramid.levels[-1].shape[-ndim:]) <= 256
    for level in pyramid.levels:
        assert np.prod(level.chunks) * dtype.itemsize <= CHUNK_BYTES
        assert level.shape == tuple(-(-n // factor) for n, factor in zip(shape, level.factors, strict=True))
        if level.shards is not None:
            assert all(shard % chunk == 0 for shard, chunk in zip(level.shards, level.chunks, strict=True))
            one_chunk = np.prod(level.chunks) * (shape[0] if "C" in axes else 1) * dtype.itemsize
            assert np.prod(level.shards) * dtype.itemsize <= max(SHARD_BYTES, one_chunk)


def test_blocks_partition_a_level_and_are_aligned() -> None:
    level = PyramidLevel((3, 10, 7), (1, 1, 1), (1, 2, 4), (3, 4, 4))
    seen = np.zeros(level.shape, int)
    for region in level.iter_blocks():
        assert level.is_aligned(region)
        seen[region] += 1

    assert (seen == 1).all()
    assert level.is_aligned((slice(0, 3), slice(4, 10), slice(0, 7)))
    for bad in [
        (slice(0, 3), slice(2, 4), slice(0, 4)),
        (slice(0, 3), slice(0, 4), slice(0, 5)),
        (slice(0, 3), slice(8, 12), slice(0, 4)),
    ]:
        assert not level.is_aligned(bad)


@pytest.mark.parametrize(
    ("axes", "shape", "spacing", "message"),
    [
        ("XY", (4, 4), None, "axes 'XY' cannot be written as OME-Zarr here; allowed are YX, ZYX, CYX, CZYX"),
        ("ZYX", (4, 4), None, r"axes 'ZYX' name 3 axes of at least one voxel, the shape is \(4, 4\)"),
        ("YX", (0, 4), None, r"the shape is \(0, 4\)"),
        ("ZYX", (4, 4, 4), (1.0, 1.0), "has 2 values, axes 'ZYX' have 3 in space"),
    ],
)
def test_what_does_not_fit_is_refused(axes: str, shape: tuple[int, ...], spacing: tuple[float, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        choose_pyramid(axes, shape, UINT8, None if spacing is None else Spacing(spacing))
