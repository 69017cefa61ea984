"""Lower resolutions: majority and mean by numbers worked out by hand, edges, and the levels of a store."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from crista.geometry.spacing import Spacing
from crista.images.downsampling import (
    SORTING_NETWORKS,
    build_pyramid,
    downsample_region,
    iter_blocks_of_level,
    take_majority,
    take_mean,
)
from crista.images.ome_zarr import create_ome_zarr, open_level, read_pyramid, write_block
from crista.images.pyramid import choose_pyramid


def test_the_majority_of_four_labels_and_ties_go_to_the_highest() -> None:
    labels = np.array(
        [
            [0, 0, 1, 0, 2, 1],
            [0, 5, 0, 1, 2, 0],
            [7, 7, 3, 3, 9, 0],
            [7, 0, 4, 4, 0, 0],
        ],
        np.uint8,
    )

    # 0 thrice; 0 and 1 twice each -> 1; 2 twice | 7 thrice; 3 and 4 twice each -> 4; 0 thrice.
    np.testing.assert_array_equal(take_majority(labels, (2, 2)), [[0, 1, 2], [7, 4, 0]])


def test_eight_voxels_vote_and_all_different_gives_the_highest() -> None:
    votes = np.array([[[1, 2], [2, 1]], [[1, 2], [3, 3]]], np.uint16)
    different = np.arange(8, dtype=np.int32).reshape(2, 2, 2) - 4

    assert take_majority(votes, (2, 2, 2)).tolist() == [[[2]]]
    assert take_majority(different, (2, 2, 2)).tolist() == [[[3]]]


def test_at_an_odd_border_fewer_voxels_vote() -> None:
    labels = np.array([[1, 1, 0], [0, 0, 0], [5, 0, 6]], np.uint8)

    np.testing.assert_array_equal(take_majority(labels, (2, 2)), [[1, 0], [5, 6]])


def test_an_axis_that_is_not_halved_stays() -> None:
    labels = np.array([[1, 1, 0, 2], [3, 0, 0, 0]], np.uint8)

    np.testing.assert_array_equal(take_majority(labels, (1, 2)), [[1, 2], [3, 0]])
    np.testing.assert_array_equal(take_majority(labels, (1, 1)), labels)


@pytest.mark.parametrize("factors", list(product((1, 2), repeat=3)))
@pytest.mark.parametrize("num_classes", [2, 5])
def test_the_majority_is_that_of_counting(factors: tuple[int, ...], num_classes: int) -> None:
    labels = np.random.default_rng(0).integers(0, num_classes, (5, 6, 7)).astype(np.uint8)
    result = take_majority(labels, factors)

    for position in np.ndindex(result.shape):
        box = labels[tuple(slice(i * f, i * f + f) for i, f in zip(position, factors, strict=True))]
        counts = np.bincount(box.ravel(), minlength=num_classes)
        assert result[position] == np.flatnonzero(counts == counts.max())[-1]


@pytest.mark.parametrize("number", sorted(SORTING_NETWORKS))
def test_the_networks_sort_every_row_of_zeros_and_ones(number: int) -> None:
    # Sorting these is sorting anything (Knuth's 0-1 principle).
    for row in product((0, 1), repeat=number):
        values = list(row)
        for low, high in SORTING_NETWORKS[number]:
            values[low], values[high] = min(values[low], values[high]), max(values[low], values[high])
        assert values == sorted(row)


def test_the_mean_of_probabilities_and_of_integers() -> None:
    scores = np.array([[0.0, 0.5, 1.0], [0.25, 0.25, 0.5]], np.float32)
    pixels = np.array([[1, 2, 9], [2, 2, 8], [250, 255, 7]], np.uint8)

    np.testing.assert_array_equal(take_mean(scores, (2, 2)), np.array([[0.25, 0.75]], np.float32))
    # 7/4 -> 2; 8.5 -> 9; 252.5 -> 253.
    np.testing.assert_array_equal(take_mean(pixels, (2, 2)), [[2, 9], [253, 7]])
    assert take_mean(scores, (2, 2)).dtype == np.float32
    assert take_mean(pixels, (2, 2)).dtype == np.uint8
    np.testing.assert_array_equal(take_mean(np.array([[-3, -4]], np.int16), (1, 2)), [[-3]])


def _fill(path: Path, axes: str, array: NDArray[np.generic], *, is_label: bool, shard_bytes: int = 2**15) -> None:
    pyramid = choose_pyramid(axes, array.shape, array.dtype, Spacing((1.0,) * len(axes.strip("C"))), shard_bytes=shard_bytes)
    create_ome_zarr(path, pyramid, is_label=is_label)
    for region in iter_blocks_of_level(path, 0):
        write_block(path, 0, region, array[region])


@pytest.mark.parametrize("sharded", [False, True])
def test_each_level_is_made_of_the_one_above(sharded: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("crista.images.pyramid.CHUNK_VOXELS", {3: 2**12})
    monkeypatch.setattr("crista.images.pyramid.SMALL_AXIS", 16)
    monkeypatch.setattr("crista.images.pyramid.MIN_HALVED", 4)
    if sharded:
        monkeypatch.setattr("crista.images.pyramid.MAX_FILES", 4)
    labels = np.random.default_rng(1).integers(0, 3, (33, 50, 61)).astype(np.uint8)
    labels[:, :20] = 0

    _fill(tmp_path / "a.zarr", "ZYX", labels, is_label=True)
    build_pyramid(tmp_path / "a.zarr")

    levels = read_pyramid(tmp_path / "a.zarr").levels
    assert [level.shape for level in levels] == [(33, 50, 61), (17, 25, 31), (9, 13, 16)]
    assert (levels[0].shards is not None) == sharded
    expected = labels
    for number in range(3):
        np.testing.assert_array_equal(open_level(tmp_path / "a.zarr", number)[:], expected)
        expected = take_majority(expected, (2, 2, 2))


def test_probabilities_of_several_channels_take_the_mean(tmp_path: Path) -> None:
    scores = np.random.default_rng(2).random((2, 300, 41), dtype=np.float32)

    _fill(tmp_path / "a.zarr", "CYX", scores, is_label=False)
    build_pyramid(tmp_path / "a.zarr")

    assert [level.factors for level in read_pyramid(tmp_path / "a.zarr").levels] == [(1, 1, 1), (1, 2, 1)]
    halved = scores.reshape(2, 150, 2, 41)
    mean = (halved[:, :, 0] + halved[:, :, 1]) / np.float32(2)
    np.testing.assert_array_equal(open_level(tmp_path / "a.zarr", 1)[:], mean)


def test_downsampling_a_region_again_gives_the_same_bytes(tmp_path: Path) -> None:
    labels = np.random.default_rng(3).integers(0, 2, (300, 300)).astype(np.uint8)
    _fill(tmp_path / "a.zarr", "YX", labels, is_label=True)
    build_pyramid(tmp_path / "a.zarr")

    def content() -> dict[str, bytes]:
        return {str(file): file.read_bytes() for file in sorted((tmp_path / "a.zarr").rglob("*")) if file.is_file()}

    before = content()
    assert len(before) == 5
    for region in iter_blocks_of_level(tmp_path / "a.zarr", 1):
        downsample_region(tmp_path / "a.zarr", 1, region)
    assert content() == before
