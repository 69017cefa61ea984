"""Axes: moving to C(Z)YX and back loses nothing, whatever the stored order."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crista.geometry.axes import canonical_axes, from_canonical, spatial_axes, to_canonical

LENGTHS = {"T": 1, "C": 3, "Z": 4, "Y": 5, "X": 6}


@st.composite
def stored_axes(draw: st.DrawFn) -> tuple[str, int]:
    """Axes of a file in any order, and the number of spatial axes of the task."""
    ndim = draw(st.sampled_from([2, 3]))
    letters = list(spatial_axes(ndim)) + [letter for letter in "TC" if draw(st.booleans())]
    return "".join(draw(st.permutations(letters))), ndim


@given(stored_axes())
@settings(max_examples=100, deadline=None)
def test_there_and_back(case: tuple[str, int]) -> None:
    axes, ndim = case
    array = np.arange(np.prod([LENGTHS[letter] for letter in axes])).reshape([LENGTHS[letter] for letter in axes])
    image = to_canonical(array, axes, ndim)
    channels = 3 if "C" in axes else 1
    assert image.shape == (channels, *(LENGTHS[letter] for letter in spatial_axes(ndim)))
    np.testing.assert_array_equal(from_canonical(image, axes, ndim), array)


@given(stored_axes(), st.integers(0, 2**31 - 1))
@settings(max_examples=50, deadline=None)
def test_every_voxel_keeps_its_place(case: tuple[str, int], seed: int) -> None:
    axes, ndim = case
    array = np.random.default_rng(seed).integers(0, 1000, [LENGTHS[letter] for letter in axes])
    place = {letter: int(np.random.default_rng(seed).integers(LENGTHS[letter])) for letter in "TCZYX"}
    image = to_canonical(array, axes, ndim)
    stored = array[tuple(place[letter] for letter in axes)]
    canonical = tuple((place[letter] if letter in axes else 0) for letter in canonical_axes(ndim))
    assert image[canonical] == stored


def test_a_canonical_image_is_a_view() -> None:
    array = np.zeros((5, 6, 3))
    assert np.shares_memory(to_canonical(array, "YXC", 2), array)


@pytest.mark.parametrize("axes", ["".join(p) for p in permutations("ZYX")])
def test_volumes_in_every_order(axes: str) -> None:
    array = np.arange(4 * 5 * 6).reshape([LENGTHS[letter] for letter in axes])
    assert to_canonical(array, axes, 3).shape == (1, 4, 5, 6)


def test_what_cannot_be_moved_is_refused() -> None:
    with pytest.raises(ValueError, match="axis T of TYX has length 2 and cannot be dropped"):
        to_canonical(np.zeros((2, 5, 6)), "TYX", 2)
    with pytest.raises(ValueError, match="axis Z of ZYX has length 4 and cannot be dropped"):
        to_canonical(np.zeros((4, 5, 6)), "ZYX", 2)
    with pytest.raises(ValueError, match="axes 'YX' name 2 axes, the array has 3"):
        to_canonical(np.zeros((4, 5, 6)), "YX", 2)
    with pytest.raises(ValueError, match="3 channels do not fit axes 'YX'"):
        from_canonical(np.zeros((3, 5, 6)), "YX", 2)
