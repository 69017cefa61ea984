"""The median filter against SciPy's, and what it does to labels."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from crista.postprocessing import median, median_filter

SHAPES = [(5, 6, 7), (2, 9, 33), (1, 20, 3), (20, 40, 150)]


def random_array(shape: tuple[int, ...], dtype: type, seed: int = 0) -> np.ndarray:
    values = np.random.default_rng(seed).random(shape)
    return (values * 5).astype(dtype) if dtype is np.uint8 else values.astype(dtype)


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
@pytest.mark.parametrize(("axes", "size"), [("z", 3), ("z", 5), ("z", 9), ("zy", 3), ("yx", 5), ("zx", 3), ("y", 1)])
@pytest.mark.parametrize("shape", SHAPES)
def test_equals_scipy(shape, axes, size, dtype):
    array = random_array(shape, dtype)
    window = [size if letter in axes else 1 for letter in "zyx"]
    filtered = median_filter(array, axes, size)
    assert filtered.dtype == dtype
    np.testing.assert_array_equal(filtered, ndimage.median_filter(array, size=window, mode="reflect"))


@pytest.mark.parametrize(("axes", "size"), [("zyx", 5), ("yx", 11), ("z", 83)])
def test_large_windows_equal_scipy_too(axes, size):
    array = random_array((18, 40, 140), np.float32)
    window = [size if letter in axes else 1 for letter in "zyx"]
    assert np.prod(window) > median.LARGEST_NETWORK
    np.testing.assert_array_equal(median_filter(array, axes, size), ndimage.median_filter(array, size=window))


def test_2d_and_channels():
    plane = random_array((30, 300), np.uint8)
    np.testing.assert_array_equal(median_filter(plane, "yx", 3), ndimage.median_filter(plane, size=3))
    stack = random_array((3, 6, 7, 8), np.float32)
    each = np.stack([median_filter(volume, "z", 3) for volume in stack])
    np.testing.assert_array_equal(median_filter(stack, "z", 3), each)


def test_one_wrong_slice_is_mended():
    volume = np.zeros((7, 4, 4), np.uint8)
    volume[:, 1:3, 1:3] = 1
    damaged = volume.copy()
    damaged[3] = 1 - damaged[3]
    np.testing.assert_array_equal(median_filter(damaged, "z", 3), volume)


@pytest.mark.parametrize(("axes", "size"), [("z", 3), ("z", 5), ("zy", 3)])
def test_two_classes_may_be_filtered_as_labels_or_as_probabilities(axes, size):
    probabilities = random_array((9, 20, 30), np.float32, seed=4)
    labels = (probabilities > 0.5).astype(np.uint8)
    after = (median_filter(probabilities, axes, size) > 0.5).astype(np.uint8)
    np.testing.assert_array_equal(median_filter(labels, axes, size), after)


def test_memory_maps_are_filtered_into_memory_maps(tmp_path):
    array = random_array((20, 40, 50), np.uint8)
    source = np.lib.format.open_memmap(tmp_path / "in.npy", mode="w+", dtype=np.uint8, shape=array.shape)
    source[:] = array
    target = np.lib.format.open_memmap(tmp_path / "out.npy", mode="w+", dtype=np.uint8, shape=array.shape)
    assert median_filter(source, "z", 5, out=target) is target
    np.testing.assert_array_equal(target, ndimage.median_filter(array, size=(5, 1, 1)))


@pytest.mark.parametrize(
    ("array", "axes", "size", "message"),
    [
        (np.zeros((4, 4)), "z", 3, "axes 'z' .* must be different letters of 'yx'"),
        (np.zeros((4, 4, 4)), "zz", 3, "must be different letters of 'zyx'"),
        (np.zeros((4, 4, 4)), "", 3, "axes ''"),
        (np.zeros((4, 4, 4)), "z", 4, "must be odd, got 4; use 5"),
        (np.zeros((4, 4, 4)), "z", 0, "must be odd, got 0; use 1"),
        (np.zeros(4), "x", 3, r"takes \(Z\)YX or K\(Z\)YX, got 1 axes"),
    ],
)
def test_what_cannot_be_filtered_is_refused(array, axes, size, message):
    with pytest.raises(ValueError, match=message):
        median_filter(array, axes, size)


def test_output_that_does_not_fit_is_refused():
    array = random_array((4, 5, 6), np.uint8)
    with pytest.raises(ValueError, match=r"out is float32 \(4, 5, 6\); it must be uint8"):
        median_filter(array, "z", 3, out=np.empty((4, 5, 6), np.float32))
    with pytest.raises(ValueError, match="shares memory"):
        median_filter(array, "z", 3, out=array)
