"""Deformations against hand-computed positions: fused resampling, borders, z, and fields."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from crista.augmentations import build_pipeline
from crista.augmentations.spatial import draw_smooth_field
from crista.augmentations.warp import Warp, fold, merge, plane_positions, resample
from crista.config import augmentor
from crista.errors import ConfigError
from crista.patches.sample import Sample


def ramp(height: int, width: int) -> Sample:
    """An image whose value is 100·y + x, and labels that tell the pixels of a small patch apart."""
    image = (100 * np.arange(height)[:, None] + np.arange(width)).astype(np.float32)
    label = (np.arange(height * width) % 251).astype(np.uint8).reshape(height, width)
    return Sample(image[np.newaxis], label)


@pytest.mark.parametrize(
    ("border", "expected"),
    [
        ("reflect", [2, 1, 0, 1, 3, 2, 1, 0]),
        ("symmetric", [1, 0, 0, 1, 3, 3, 2, 1]),
        ("wrap", [2, 3, 0, 1, 3, 0, 1, 2]),
        ("constant", [0, 0, 0, 1, 3, 3, 3, 3]),
    ],
)
def test_fold_is_what_numpy_pads(border: str, expected: list[int]) -> None:
    positions = np.array([-2, -1, 0, 1, 3, 4, 5, 6], dtype=np.float32)
    np.testing.assert_array_equal(fold(positions, 4, border), expected)


@pytest.mark.parametrize("border", ["reflect", "symmetric", "wrap"])
def test_shift_equals_numpy_padding(border: str) -> None:
    sample = ramp(6, 9)
    result = resample(sample, [Warp(border, offset=np.array([2.0, -3.0]))], None)
    padded = np.pad(sample.image[0], ((0, 2), (3, 0)), mode=border)[2:, :9]
    np.testing.assert_allclose(result.image[0], padded, atol=1e-3)
    np.testing.assert_array_equal(result.label, np.pad(sample.label, ((0, 2), (3, 0)), mode=border)[2:, :9])


@pytest.mark.parametrize(("ignore_index", "outside"), [(None, 0), (255, 255)])
def test_constant_border_gives_background_or_the_ignore_value(ignore_index: int | None, outside: int) -> None:
    sample = Sample(np.full((1, 4, 5), 7, np.float32), np.full((4, 5), 3, np.uint8))
    result = resample(sample, [Warp("constant", offset=np.array([0.0, 2.0]))], ignore_index)
    np.testing.assert_allclose(result.image[0], np.broadcast_to([7, 7, 7, 0, 0], (4, 5)), rtol=1e-6)
    np.testing.assert_array_equal(result.label, np.broadcast_to([3, 3, 3, outside, outside], (4, 5)))


def test_a_rotation_by_90_degrees_is_exact_and_turns_against_the_clock() -> None:
    sample = ramp(5, 5)
    transforms = [augmentor.Rotation(probability=1, degrees=(90, 90), border="reflect")]
    result = build_pipeline(transforms, ndim=2, ignore_index=None)(sample, np.random.default_rng(0))
    np.testing.assert_allclose(result.image, np.rot90(sample.image, axes=(1, 2)), atol=1e-3)
    np.testing.assert_array_equal(result.label, np.rot90(sample.label))


def test_zoom_by_2_reads_half_as_far_from_the_centre() -> None:
    y, x = plane_positions((5, 5), [Warp("reflect", matrix=np.eye(2) / 2)]).coordinates
    np.testing.assert_allclose(y[:, 0], [1, 1.5, 2, 2.5, 3])
    np.testing.assert_allclose(x[0], [1, 1.5, 2, 2.5, 3])


def test_there_and_back_is_the_identity_because_coordinates_are_fused() -> None:
    sample = ramp(32, 32)
    turn = [augmentor.Rotation(probability=1, degrees=(d, d), border="constant") for d in (33, -33)]
    result = build_pipeline(turn, ndim=2, ignore_index=255)(sample, np.random.default_rng(0))
    np.testing.assert_allclose(result.image, sample.image, atol=0.02)
    np.testing.assert_array_equal(result.label, sample.label)


def test_warps_of_the_same_border_merge_in_the_order_given() -> None:
    shift = Warp("reflect", offset=np.array([3.0, 0.0]))
    shear = Warp("reflect", matrix=np.array([[1, 0], [0.5, 1]]))
    (both,) = merge([shift, shear])
    np.testing.assert_allclose(both.matrix @ [2, 4] + both.offset, [2 + 3, 1 + 4])
    (both,) = merge([shear, shift])
    np.testing.assert_allclose(both.matrix @ [2, 4] + both.offset, [2 + 3, 4 + 0.5 * (2 + 3)])
    assert len(merge([shift, Warp("wrap"), shear])) == 3


def test_warps_of_different_borders_equal_one_after_the_other() -> None:
    sample = ramp(8, 8)
    first, second = Warp("wrap", offset=np.array([3.0, 1.0])), Warp("reflect", offset=np.array([0.0, -2.0]))
    fused = resample(sample, [first, second], None)
    stepwise = resample(resample(sample, [first], None), [second], None)
    np.testing.assert_allclose(fused.image, stepwise.image, atol=1e-2)
    np.testing.assert_array_equal(fused.label, stepwise.label)


def test_every_slice_and_channel_gets_the_same_warp() -> None:
    plane = np.random.default_rng(0).standard_normal((16, 20)).astype(np.float32)
    label = (plane > 0).astype(np.uint8)
    volume = Sample(np.stack([np.stack([plane] * 3)] * 2), np.stack([label] * 3))
    warp = Warp("reflect", matrix=np.array([[0.9, 0.2], [-0.2, 0.9]]))
    flat = resample(Sample(plane[np.newaxis], label), [warp], None)
    deep = resample(volume, [warp], None)
    np.testing.assert_array_equal(deep.image, np.broadcast_to(flat.image, deep.image.shape))
    np.testing.assert_array_equal(deep.label, np.broadcast_to(flat.label, deep.label.shape))


def test_zoom_in_z_interpolates_slices_and_takes_the_nearest_label() -> None:
    values = np.array([0, 10, 20, 30, 40], dtype=np.float32)
    image = np.broadcast_to(values[:, None, None], (5, 4, 4))[np.newaxis].copy()
    sample = Sample(image, np.broadcast_to(np.arange(5, dtype=np.uint8)[:, None, None], (5, 4, 4)).copy())
    result = resample(sample, [Warp("reflect", z_step=0.5)], None)
    np.testing.assert_allclose(result.image[0, :, 0, 0], [10, 15, 20, 25, 30])
    np.testing.assert_array_equal(result.label[:, 0, 0], [1, 2, 2, 2, 3])
    beyond = resample(sample, [Warp("constant", z_step=2.0)], 255)
    np.testing.assert_allclose(beyond.image[0, :, 0, 0], [0, 0, 20, 40, 0])
    np.testing.assert_array_equal(beyond.label[:, 0, 0], [255, 0, 2, 4, 255])


def test_zoom_in_z_is_the_trilinear_interpolation_of_the_full_grid() -> None:
    image = np.random.default_rng(1).standard_normal((1, 6, 9, 9)).astype(np.float32)
    warp = Warp("reflect", matrix=np.array([[0.8, 0.1], [-0.1, 0.8]]), z_step=0.8)
    result = resample(Sample(image, np.zeros((6, 9, 9), np.uint8)), [warp], None)
    matrix = np.array([[0.8, 0, 0], [0, 0.8, 0.1], [0, -0.1, 0.8]])
    centre = np.array([2.5, 4, 4])
    expected = ndimage.affine_transform(image[0], matrix, centre - matrix @ centre, order=1, mode="mirror")
    np.testing.assert_allclose(result.image[0], expected, atol=1e-4)


@pytest.mark.parametrize("sigma", [0.3, 1.0, 4.0, 11.0])
def test_the_random_field_has_unit_variance_everywhere(sigma: float) -> None:
    rng = np.random.default_rng(3)
    fields = np.stack([draw_smooth_field((24, 40), sigma, rng) for _ in range(1500)])
    np.testing.assert_allclose(fields.std(axis=0), 1, atol=0.12)
    np.testing.assert_allclose(fields.std(), 1, atol=0.03)


def test_the_random_field_is_as_smooth_as_smoothed_noise() -> None:
    rng = np.random.default_rng(3)
    fields = np.stack([draw_smooth_field((16, 40), 4.0, rng) for _ in range(1500)])
    # White noise after a Gaussian of sigma has the correlation exp(-d²/(4·sigma²)) at distance d.
    for distance in (2, 4, 8):
        correlation = (fields[:, 5, 10] * fields[:, 5, 10 + distance]).mean()
        assert correlation == pytest.approx(np.exp(-(distance**2) / 64), abs=0.1)


def test_elastic_displacements_are_as_strong_as_simards() -> None:
    rng = np.random.default_rng(0)
    config = augmentor.Elastic(probability=1, alpha=(30, 30), sigma=4, border="reflect")
    (augment,) = build_pipeline([config], ndim=2, ignore_index=None).augments
    ours = np.std([augment.draw((64, 64), rng).displacement for _ in range(40)])
    noise = rng.uniform(-1, 1, (80, 64, 64))
    simard = np.std(30 * ndimage.gaussian_filter(noise, (0, 4, 4), mode="wrap"))
    assert ours == pytest.approx(simard, rel=0.1)


def test_shear_beyond_80_degrees_is_refused() -> None:
    shear = augmentor.Shear(probability=1, degrees=(-20, 89), border="reflect")
    with pytest.raises(ConfigError, match=r"AUGMENTOR\.SHEAR_RANGE: .*89.*80 degrees[\s\S]*-20, 20"):
        build_pipeline([shear], ndim=2, ignore_index=None)


def test_z_in_2d_is_refused() -> None:
    with pytest.raises(ValueError, match=r"ZFLIP.*leave it out"):
        build_pipeline([augmentor.DepthFlip(probability=1)], ndim=2, ignore_index=None)
    zoom = augmentor.Zoom(probability=1, factors=(0.8, 1.2), in_z=True, border="reflect")
    with pytest.raises(ValueError, match=r"ZOOM_IN_Z.*False"):
        build_pipeline([zoom], ndim=2, ignore_index=None)


@pytest.mark.parametrize("shape", [(1, 12), (12, 1), (1, 1)])
def test_lines_and_points_survive(shape: tuple[int, int]) -> None:
    sample = Sample(np.ones((1, *shape), np.float32), np.ones(shape, np.uint8))
    transforms = [
        augmentor.Rotation(probability=1, degrees=(30, 30), border="reflect"),
        augmentor.Elastic(probability=1, alpha=(12, 16), sigma=4, border="wrap"),
    ]
    result = build_pipeline(transforms, ndim=2, ignore_index=None)(sample, np.random.default_rng(0))
    np.testing.assert_allclose(result.image, 1, rtol=1e-6)
