"""Flips, intensity changes and the pipeline against hand-computed pixels."""

from __future__ import annotations

import numpy as np
import pytest

from crista.augmentations import AUGMENTATIONS, build_pipeline
from crista.augmentations.base import Augment
from crista.config import augmentor
from crista.config.augmentor import Augmentation, Augmentor
from crista.patches.sample import Sample


def build(config: Augmentation, ndim: int = 2, ignore_index: int | None = None) -> Augment:
    return AUGMENTATIONS.build(config, ndim=ndim, ignore_index=ignore_index)


def volume() -> Sample:
    image = np.arange(24, dtype=np.float32).reshape(1, 2, 3, 4)
    return Sample(image, image[0].astype(np.uint8))


@pytest.mark.parametrize(
    ("config_class", "axis"),
    [(augmentor.DepthFlip, 0), (augmentor.VerticalFlip, 1), (augmentor.HorizontalFlip, 2)],
)
def test_flips_reverse_their_axis(config_class: type[Augmentation], axis: int) -> None:
    result = build(config_class(probability=1), ndim=3)(volume(), np.random.default_rng(0))
    np.testing.assert_array_equal(result.label, np.flip(volume().label, axis))
    np.testing.assert_array_equal(result.image[0], result.label)


def test_quarter_turns_of_a_square_are_the_four_rotations_alike() -> None:
    plane = np.arange(9, dtype=np.float32).reshape(1, 3, 3)
    sample, rng = Sample(plane, plane[0].astype(np.uint8)), np.random.default_rng(0)
    seen = [build(augmentor.Rotation90(probability=1))(sample, rng).label.tobytes() for _ in range(400)]
    turned = [np.rot90(sample.label, k).tobytes() for k in range(4)]
    assert all(70 < seen.count(turn) < 130 for turn in turned)


def test_an_oblong_plane_turns_by_0_or_180_degrees() -> None:
    rng = np.random.default_rng(0)
    seen = {build(augmentor.Rotation90(probability=1), 3)(volume(), rng).label.tobytes() for _ in range(50)}
    assert seen == {volume().label.tobytes(), np.flip(volume().label, (1, 2)).tobytes()}


def test_brightness_adds_and_contrast_stretches_about_the_mean_of_the_channel() -> None:
    image = np.array([[[0.0, 2.0]], [[-5.0, 5.0]]], dtype=np.float32)
    sample, rng = Sample(image, np.zeros((1, 2), np.uint8)), np.random.default_rng(0)
    brighter = build(augmentor.Brightness(probability=1, factors=(0.25, 0.25)))(sample, rng)
    np.testing.assert_allclose(brighter.image, image + 0.25)
    stretched = build(augmentor.Contrast(probability=1, factors=(0.5, 0.5)))(sample, rng)
    np.testing.assert_allclose(stretched.image, [[[-0.5, 2.5]], [[-7.5, 7.5]]])


def test_gamma_keeps_the_range_of_each_channel_and_constant_channels() -> None:
    image = np.array([[[-1.0, 0.0, 1.0]], [[4.0, 4.0, 4.0]]], dtype=np.float32)
    sample = Sample(image, np.zeros((1, 3), np.uint8))
    result = build(augmentor.Gamma(probability=1, gammas=(2, 2)))(sample, np.random.default_rng(0))
    np.testing.assert_allclose(result.image, [[[-1, -0.5, 1]], [[4, 4, 4]]])


def test_blurs_stay_in_the_plane() -> None:
    image = np.zeros((1, 3, 9, 9), np.float32)
    image[0, 1, 4, 4] = 1
    sample, rng = Sample(image, np.zeros((3, 9, 9), np.uint8)), np.random.default_rng(0)
    blurred = build(augmentor.GaussianBlur(probability=1, sigmas=(1, 1)), 3)(sample, rng).image
    assert blurred[0, 1].sum() == pytest.approx(1)
    assert blurred[0, 1, 4, 4] == pytest.approx(1 / (2 * np.pi), rel=0.01)
    assert blurred[0, [0, 2]].max() == 0
    median = build(augmentor.MedianBlur(probability=1, kernels=(4, 4)), 3)(sample, rng).image
    assert median.max() == 0


def test_median_sizes_are_the_odd_ones_of_the_range() -> None:
    spike = np.arange(81, dtype=np.float32).reshape(1, 9, 9)
    sample, rng = Sample(spike, np.zeros((9, 9), np.uint8)), np.random.default_rng(0)
    augment = build(augmentor.MedianBlur(probability=1, kernels=(3, 7)))
    assert len({augment(sample, rng).image.tobytes() for _ in range(60)}) == 3
    identity = build(augmentor.MedianBlur(probability=1, kernels=(1, 1)))
    np.testing.assert_array_equal(identity(sample, rng).image, spike)


def test_noise_has_its_moments_and_is_not_clipped() -> None:
    sample = Sample(np.full((2, 200, 200), 5, np.float32), np.zeros((200, 200), np.uint8))
    rng = np.random.default_rng(0)
    config = augmentor.GaussianNoise(probability=1, mean=0.5, variance=4, use_image_statistics=False)
    noisy = build(config)(sample, rng).image
    assert noisy.mean() == pytest.approx(5.5, abs=0.05)
    assert noisy.var() == pytest.approx(4, rel=0.03)
    assert noisy.min() < 0
    own = augmentor.GaussianNoise(probability=1, mean=9, variance=9, use_image_statistics=True)
    np.testing.assert_allclose(build(own)(sample, rng).image, 10)


def test_shot_noise_keeps_the_mean_and_grows_with_the_signal() -> None:
    image = np.zeros((1, 100, 300), np.float32)
    image[:, :, 100:200], image[:, :, 200:] = -1, 1
    sample = Sample(image, np.zeros((100, 300), np.uint8))
    noisy = build(augmentor.PoissonNoise(probability=1))(sample, np.random.default_rng(0)).image[0]
    dark, middle, bright = noisy[:, 100:200], noisy[:, :100], noisy[:, 200:]
    assert (dark == -1).all()
    assert middle.mean() == pytest.approx(0, abs=0.01)
    # A channel that spans 2 has steps of 2/255; the variance of n counts is n.
    assert middle.var() == pytest.approx(127.5 * (2 / 255) ** 2, rel=0.05)
    assert bright.var() == pytest.approx(255 * (2 / 255) ** 2, rel=0.05)


def test_dropout_loses_whole_pixels_to_the_lowest_value_of_their_channel() -> None:
    image = np.random.default_rng(0).uniform(1, 2, (2, 100, 100)).astype(np.float32)
    config = augmentor.Dropout(probability=1, fractions=(0.3, 0.3))
    result = build(config)(Sample(image, np.zeros((100, 100), np.uint8)), np.random.default_rng(0)).image
    lost = result != image
    np.testing.assert_array_equal(result, np.where(lost, image.min(axis=(1, 2), keepdims=True), image))
    assert lost[0].mean() == pytest.approx(0.3, abs=0.02)
    assert (lost[0] != lost[1]).sum() <= 1  # the lowest pixels themselves do not change


def test_cutout_blanks_boxes_of_the_given_size() -> None:
    sample = Sample(np.ones((2, 20, 40), np.float32), np.ones((20, 40), np.uint8))
    sample.label[:10] = 255
    sides = {"iterations": (1, 1), "sizes": (0.25, 0.25)}
    config = augmentor.Cutout(probability=1, **sides, value=-3.0, apply_to_label=True)
    result = build(config, ignore_index=255)(sample, np.random.default_rng(4))
    blank = result.image == -3
    assert blank.sum() == 2 * 5 * 10
    assert (blank[0] == blank[1]).all()
    np.testing.assert_array_equal(result.label == 0, blank[0] & (sample.label == 1))
    np.testing.assert_array_equal(result.label == 255, sample.label == 255)
    image_only = config.model_copy(update={"apply_to_label": False})
    np.testing.assert_array_equal(build(image_only)(sample, np.random.default_rng(4)).label, sample.label)


def test_the_trace_names_what_was_applied_in_order_and_probabilities_hold() -> None:
    config = Augmentor(enable=True, vflip=True, random_rot=True, brightness=True, da_prob=0.3)
    pipeline = build_pipeline(config.transforms(2), ndim=2, ignore_index=None)
    sample, rng = Sample(np.ones((1, 8, 8), np.float32), np.ones((8, 8), np.uint8)), np.random.default_rng(0)
    traces = [pipeline.trace(sample, rng)[1] for _ in range(500)]
    order = ["VerticalFlip", "Rotation", "Brightness"]
    assert all(list(trace) == [name for name in order if name in trace] for trace in traces)
    for name in order:
        assert sum(name in trace for trace in traces) / 500 == pytest.approx(0.3, abs=0.07)


def test_an_empty_pipeline_gives_the_sample_back() -> None:
    sample = volume()
    assert build_pipeline((), ndim=3, ignore_index=None)(sample, np.random.default_rng(0)) is sample
