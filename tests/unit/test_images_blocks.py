"""Blocks for passes over an image: a partition within a limit, of whole chunks, read ahead; and the digest over them."""

from __future__ import annotations

import threading
from dataclasses import replace
from math import prod
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import tifffile
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from crista.errors import ImageReadError
from crista.geometry.axes import Array, Region
from crista.images.blocks import choose_block, iter_blocks, iter_pixels
from crista.images.counting import count_integers
from crista.images.image import Image
from crista.images.open import open_image
from crista.images.pixel_digest import PixelDigest, draw_weights
from crista.images.scan import scan_image


class ArraySource:
    def __init__(self, array: Array) -> None:
        self.array = array

    def read(self, region: Region) -> Array:
        return self.array[region]


def _image(array: Array, axes: str, chunks: tuple[int, ...] | None = None) -> Image:
    ndim = len(axes.replace("C", ""))
    return Image(Path("a.tif"), axes, array.shape, array.dtype, ndim, None, ArraySource(array), chunks=chunks)


@settings(deadline=None)
@given(
    shape=st.lists(st.integers(1, 60), min_size=2, max_size=3),
    chunks=st.none() | st.lists(st.integers(1, 70), min_size=3, max_size=3),
    budget=st.integers(1, 5000),
    channels=st.integers(1, 3),
    row_unit=st.sampled_from([1, 8, 16]),
)
def test_blocks_partition_the_image(shape: Any, chunks: Any, budget: int, channels: int, row_unit: int) -> None:
    axes = "CZYX" if len(shape) == 3 else "CYX"
    some = None if chunks is None else tuple(chunks[-len(shape) :])
    visits = np.zeros(shape, int)
    for region in iter_blocks(_image(np.zeros((channels, *shape), np.uint8), axes, some), budget, row_unit):
        visits[region] += 1
        assert region[-1].start % row_unit == 0
        # The limit holds, but for a piece of a row that is not cut further.
        assert prod(part.stop - part.start for part in region) <= max(budget // channels, row_unit)
    assert (visits == 1).all()


@pytest.mark.parametrize(
    ("shape", "chunks", "budget", "expected"),
    [
        # Without chunks: whole rows, then planes, then slabs.
        ((100, 50, 40), None, 40, (1, 1, 40)),
        ((100, 50, 40), None, 4000, (2, 50, 40)),
        ((100, 50, 40), None, 1000, (1, 25, 40)),
        # Chunks stay whole; x is filled first, then y.
        ((100, 64, 64), (16, 16, 16), 16**3, (16, 16, 16)),
        ((100, 64, 64), (16, 16, 16), 3 * 16**3, (16, 16, 48)),
        ((100, 64, 64), (16, 16, 16), 8 * 16**3, (16, 32, 64)),
        ((100, 64, 64), (16, 16, 16), 70 * 16**3, (64, 64, 64)),
        # Chunks beyond the limit are cut.
        ((100, 64, 64), (64, 64, 64), 64**3 // 4, (32, 32, 64)),
        # A chunk that is no multiple of the unit of rows is rounded up along x.
        ((50, 50, 50), (10, 10, 10), 1600, (10, 10, 16)),
    ],
)
def test_the_shape_of_a_block(shape: Any, chunks: Any, budget: int, expected: tuple[int, ...]) -> None:
    assert choose_block(shape, chunks, budget) == expected


def test_every_chunked_format_says_its_chunks(tmp_path: Path) -> None:
    pixels = np.zeros((6, 64, 48), np.uint8)
    options: dict[str, Any] = {"photometric": "minisblack", "metadata": {"axes": "ZYX"}}
    tifffile.imwrite(tmp_path / "tiled.tif", pixels, tile=(16, 32), compression="zlib", **options)
    tifffile.imwrite(tmp_path / "strips.tif", pixels, rowsperstrip=5, compression="zlib", **options)
    tifffile.imwrite(tmp_path / "plain.tif", pixels, **options)
    zarr.create_array(str(tmp_path / "a.zarr"), shape=pixels.shape, chunks=(2, 16, 24), dtype="u1")[:] = pixels
    zarr.create_array(str(tmp_path / "s.zarr"), shape=pixels.shape, chunks=(2, 16, 24), shards=(4, 64, 48), dtype="u1")[:] = 1
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("a", data=pixels, chunks=(3, 8, 16))
    with h5py.File(tmp_path / "contiguous.h5", "w") as file:
        file["a"] = pixels

    found = {path.name: open_image(path, ndim=3).chunks for path in tmp_path.iterdir()}

    assert found == {
        "tiled.tif": (1, 16, 32),
        "strips.tif": (1, 5, 48),
        "plain.tif": None,
        "a.zarr": (2, 16, 24),
        "s.zarr": (2, 16, 24),
        "a.h5": (3, 8, 16),
        "contiguous.h5": None,
    }


def test_chunks_of_a_picture_are_named_by_its_axes(tmp_path: Path) -> None:
    pixels = np.zeros((50, 60, 3), np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", pixels, photometric="rgb", compression="zlib", rowsperstrip=10)

    assert open_image(tmp_path / "a.tif").chunks == (10, 60)


class _Watched:
    """Counts the blocks that are alive."""

    def __init__(self, array: Array) -> None:
        self.array = array
        self.threads: list[str] = []

    def read(self, region: Region) -> Array:
        self.threads.append(threading.current_thread().name)
        return self.array[region].copy()


def test_the_next_block_is_read_ahead_in_order() -> None:
    pixels = np.arange(120).reshape(12, 10)
    source = _Watched(pixels)
    image = replace(_image(pixels, "YX"), source=source)
    blocks = iter_pixels(image, iter_blocks(image, 20))

    region, block = next(blocks)
    assert block.tolist() == [pixels[:2].tolist()]
    assert region == (slice(0, 2), slice(0, 10))
    rest = list(blocks)

    assert [part[0].start for part, _ in rest] == [2, 4, 6, 8, 10]
    np.testing.assert_array_equal(np.concatenate([block[0] for _, block in rest]), pixels[2:])
    assert len(source.threads) == 6
    assert "MainThread" not in source.threads


def test_an_error_while_reading_ahead_reaches_the_caller() -> None:
    class Broken(ArraySource):
        def read(self, region: Region) -> Array:
            if region[0].start == 4:
                raise ImageReadError("a.tif: damaged")
            return super().read(region)

    image = replace(_image(np.zeros((12, 10)), "YX"), source=Broken(np.zeros((12, 10))))
    with pytest.raises(ImageReadError, match=r"a\.tif: damaged"):
        list(iter_pixels(image, iter_blocks(image, 20)))


# --- counting ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["bool", "uint8", "int8", "uint16", "int16", ">u2", ">i2"])
@pytest.mark.parametrize("size", [0, 1, 2, 1001])
def test_integers_are_counted_by_value(dtype: str, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("crista.images.counting.PIECE", 64)
    random = np.random.default_rng(0)
    info = np.iinfo(dtype) if dtype != "bool" else None
    values = random.integers(info.min, info.max, size, endpoint=True) if info else random.integers(0, 2, size)
    origin, counts = count_integers(values.astype(dtype))

    distinct, expected = np.unique(values, return_counts=True)
    np.testing.assert_array_equal(np.flatnonzero(counts) + origin, distinct)
    np.testing.assert_array_equal(counts[counts > 0], expected)


# --- digest -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["bool", "uint8", "uint16", "float16", "float32", "float64", "int64"])
@pytest.mark.parametrize(("shape", "axes"), [((2, 9, 21, 35), "CZYX"), ((40, 33), "YX")])
def test_the_digest_does_not_depend_on_blocks_or_byte_order(dtype: str, shape: Any, axes: str) -> None:
    pixels = (np.random.default_rng(0).random(shape) * 200).astype(dtype)
    whole = scan_image(_image(pixels, axes)).digest

    for chunks in (None, (3, 7, 8), (1, 16, 16)):
        some = None if chunks is None else chunks[-len(axes.replace("C", "")) :]
        image = _image(pixels, axes, some)
        digest = PixelDigest(image.spatial_shape)
        for region in reversed(list(iter_blocks(image, 700))):
            for channel, part in enumerate(image.read(region)):
                digest.add(channel, region, part)
        assert whole.endswith(digest.hexdigest())
    assert scan_image(_image(pixels.astype(pixels.dtype.newbyteorder(">")), axes)).digest == whole


def test_any_change_changes_the_digest() -> None:
    pixels = np.random.default_rng(0).integers(0, 4, (6, 8, 12), dtype=np.uint8)
    digests = {scan_image(_image(pixels, "ZYX")).digest}
    for position in np.ndindex(pixels.shape):
        changed = pixels.copy()
        changed[position] ^= 1
        digests.add(scan_image(_image(changed, "ZYX")).digest)
    assert len(digests) == pixels.size + 1
    others = [pixels[::-1], pixels[:, ::-1], pixels[..., ::-1], np.roll(pixels, 1, -1), pixels.astype(np.int8)]
    digests |= {scan_image(_image(np.ascontiguousarray(other), "ZYX")).digest for other in others}
    digests |= {scan_image(_image(pixels.transpose(1, 0, 2), "ZYX")).digest, scan_image(_image(pixels, "CYX")).digest}
    assert len(digests) == pixels.size + 8


def test_a_copy_in_another_format_is_found(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 4000, (20, 70, 90), dtype=np.uint16)
    tifffile.imwrite(tmp_path / "a.tif", pixels, compression="zlib", photometric="minisblack", metadata={"axes": "ZYX"})
    zarr.create_array(str(tmp_path / "a.zarr"), shape=pixels.shape, chunks=(8, 32, 24), dtype="u2")[:] = pixels

    digests = {scan_image(open_image(tmp_path / name, ndim=3)).digest for name in ("a.tif", "a.zarr")}

    assert len(digests) == 1


def test_weights_are_odd_and_differ() -> None:
    weights = draw_weights(np.arange(10_000, dtype=np.uint64))

    assert len(np.unique(weights)) == 10_000
    assert (weights % 2 == 1).all()
    assert 0.49 < np.unpackbits(weights.view(np.uint8)).mean() < 0.52


# --- scan -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["bool", "int8", "uint16", "int16", "int32", "uint64", "float16", "float32", "float64"])
def test_a_scan_finds_what_numpy_finds(dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("crista.images.scan.PIECE", 100)
    pixels = (np.random.default_rng(0).random((2, 5, 40, 50)) * 90).astype(dtype)
    scan = scan_image(_image(pixels, "CZYX", (2, 16, 16)))

    for channel, values in zip(scan.channels, pixels.astype(np.float64), strict=True):
        assert (channel.min, channel.max, channel.count) == (values.min(), values.max(), values.size)
        assert channel.mean == pytest.approx(values.mean(), rel=1e-12)
        assert channel.std == pytest.approx(values.std(), rel=1e-12)


def test_what_is_not_finite_is_counted_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("crista.images.scan.PIECE", 4)
    pixels = np.array([[1, 2, 3, 4, np.nan, np.inf], [np.nan] * 6, [5, 6, -np.inf, 1e308, -1e308, 0]])
    scan = scan_image(_image(pixels, "YX"))

    assert (scan.num_nonfinite, scan.channels[0].count) == (9, 9)
    assert (scan.channels[0].min, scan.channels[0].max) == (-1e308, 1e308)
    assert scan.channels[0].std == pytest.approx(np.sqrt(2 / 9) * 1e308, rel=1e-6)
