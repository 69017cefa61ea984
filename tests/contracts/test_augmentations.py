"""What every registered augmentation promises, in 2D and 3D, on square and oblong samples."""

from __future__ import annotations

import itertools
import pickle

import numpy as np
import pytest
from scipy import ndimage

from crista.augmentations import AUGMENTATIONS, build_pipeline
from crista.augmentations.flips import Rearrangement
from crista.augmentations.intensity import IntensityChange
from crista.augmentations.spatial import Deformation
from crista.config import augmentor
from crista.config.augmentor import Augmentation
from crista.patches.sample import Sample

PARAMETERS: dict[type[Augmentation], dict[str, object]] = {
    augmentor.VerticalFlip: {},
    augmentor.HorizontalFlip: {},
    augmentor.DepthFlip: {},
    augmentor.Rotation90: {},
    augmentor.Rotation: {"degrees": (20, 70), "border": "reflect"},
    augmentor.Zoom: {"factors": (0.7, 0.9), "in_z": False, "border": "reflect"},
    augmentor.Shear: {"degrees": (-20, -10), "border": "reflect"},
    augmentor.Shift: {"fractions": (0.1, 0.2), "border": "reflect"},
    augmentor.Elastic: {"alpha": (40, 60), "sigma": 4, "border": "reflect"},
    augmentor.Brightness: {"factors": (0.05, 0.1)},
    augmentor.Contrast: {"factors": (0.05, 0.1)},
    augmentor.Gamma: {"gammas": (1.25, 1.75)},
    augmentor.GaussianBlur: {"sigmas": (1, 2)},
    augmentor.MedianBlur: {"kernels": (3, 7)},
    augmentor.GaussianNoise: {"mean": 0, "variance": 0.05, "use_image_statistics": False},
    augmentor.PoissonNoise: {},
    augmentor.Dropout: {"fractions": (0.1, 0.2)},
    augmentor.Cutout: {"iterations": (1, 3), "sizes": (0.1, 0.3), "value": 0.0, "apply_to_label": False},
}
SHAPES = [(64, 64), (48, 80), (6, 40, 40), (5, 48, 32)]
BORDERS = ["constant", "reflect", "wrap", "symmetric"]


def make(config_class: type[Augmentation], probability: float = 1.0, **changes: object) -> Augmentation:
    return config_class(probability=probability, **(PARAMETERS[config_class] | changes))


def blobs(shape: tuple[int, ...], channels: int = 2) -> Sample:
    """A z-scored image of `channels` channels and a label of the classes 0 and 2 that follows the first."""
    noise = np.random.default_rng(5).standard_normal((channels, *shape))
    sigma = (0, *(1.0 if n < 10 else 4.0 for n in shape))
    smooth = ndimage.gaussian_filter(noise, sigma, mode="nearest")
    image = (smooth / smooth.std()).astype(np.float32)
    return Sample(image, np.where(image[0] > 0, 2, 0).astype(np.uint8))


def cases() -> list[tuple[type[Augmentation], tuple[int, ...]]]:
    pairs = itertools.product(AUGMENTATIONS, SHAPES)
    return [(key, s) for key, s in pairs if key is not augmentor.DepthFlip or len(s) == 3]


def kind(config_class: type[Augmentation], ndim: int) -> object:
    return AUGMENTATIONS.build(make(config_class), ndim=ndim)


def test_every_config_class_is_registered_and_has_parameters_here() -> None:
    assert set(AUGMENTATIONS) == set(Augmentation.__subclasses__()) == set(PARAMETERS)


@pytest.mark.parametrize(("config_class", "shape"), cases())
def test_probability_0_is_the_identity(config_class: type[Augmentation], shape: tuple[int, ...]) -> None:
    sample = blobs(shape)
    pipeline = build_pipeline([make(config_class, 0.0)], ndim=len(shape), ignore_index=None)
    result, applied = pipeline.trace(sample, np.random.default_rng(1))
    assert applied == ()
    np.testing.assert_array_equal(result.image, sample.image)
    np.testing.assert_array_equal(result.label, sample.label)


@pytest.mark.parametrize(("config_class", "shape"), cases())
def test_probability_1_changes_the_image_and_keeps_the_form(config_class: type[Augmentation], shape: tuple[int, ...]) -> None:
    sample = blobs(shape)
    before = (sample.image.copy(), sample.label.copy())
    sample.image.flags.writeable = sample.label.flags.writeable = False
    pipeline = build_pipeline([make(config_class)], ndim=len(shape), ignore_index=None)
    seed = 0  # turns under either rule of Rotation90
    result, applied = pipeline.trace(sample, np.random.default_rng(seed))
    assert applied == (config_class.__name__,)
    assert not np.array_equal(result.image, sample.image)
    assert result.image.shape == sample.image.shape
    assert result.image.dtype == np.float32
    assert result.label.shape == sample.label.shape
    assert result.label.dtype == np.uint8
    assert result.image.flags.c_contiguous
    assert result.label.flags.c_contiguous
    assert np.isfinite(result.image).all()
    np.testing.assert_array_equal(sample.image, before[0])
    np.testing.assert_array_equal(sample.label, before[1])


@pytest.mark.parametrize(("config_class", "shape"), cases())
def test_the_same_generator_state_gives_the_same_result(config_class: type[Augmentation], shape: tuple[int, ...]) -> None:
    sample = blobs(shape)
    pipeline = build_pipeline([make(config_class)], ndim=len(shape), ignore_index=None)
    once = pipeline(sample, np.random.default_rng(7))
    again = pickle.loads(pickle.dumps(pipeline))(sample, np.random.default_rng(7))
    np.testing.assert_array_equal(once.image, again.image)
    np.testing.assert_array_equal(once.label, again.label)


@pytest.mark.parametrize(("config_class", "shape"), cases())
def test_no_class_is_invented_and_the_global_random_state_stays(config_class: type[Augmentation], shape: tuple[int, ...]) -> None:
    sample = blobs(shape)
    state = np.random.get_state()[1].copy()  # noqa: NPY002
    pipeline = build_pipeline([make(config_class)], ndim=len(shape), ignore_index=255)
    for seed in range(3):
        assert set(np.unique(pipeline(sample, np.random.default_rng(seed)).label)) <= {0, 2, 255}
    np.testing.assert_array_equal(np.random.get_state()[1], state)  # noqa: NPY002


def agreement(sample: Sample, result: Sample, label_value: int = 2) -> float:
    """Share of the pixels on which the image, cut at half its height, is the label."""
    return float(((result.image[0] > 0.5) == (result.label == label_value)).mean())


def label_as_image(shape: tuple[int, ...]) -> Sample:
    label = blobs(shape).label
    return Sample((label[np.newaxis] == 2).astype(np.float32), label)


@pytest.mark.parametrize("border", BORDERS)
@pytest.mark.parametrize(("config_class", "shape"), cases())
def test_image_and_label_move_together(config_class: type[Augmentation], shape: tuple[int, ...], border: str) -> None:
    built = kind(config_class, len(shape))
    if isinstance(built, IntensityChange):
        sample = blobs(shape)
        result = built(sample, np.random.default_rng(2))
        np.testing.assert_array_equal(result.label, sample.label)
        return
    sample = label_as_image(shape)
    changes = {"border": border} if isinstance(built, Deformation) else {}
    pipeline = build_pipeline([make(config_class, **changes)], ndim=len(shape), ignore_index=None)
    for seed in range(3):
        result = pipeline(sample, np.random.default_rng(seed))
        share = agreement(sample, result)
        if isinstance(built, Rearrangement):
            assert share == 1
        elif isinstance(built, Deformation):
            assert share > 0.985


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("elastic_border", ["reflect", "constant", "wrap"])
def test_image_and_label_move_together_through_all_deformations(shape: tuple[int, ...], elastic_border: str) -> None:
    sample = label_as_image(shape)
    transforms = [
        make(augmentor.VerticalFlip),
        make(augmentor.Zoom, in_z=len(shape) == 3),
        make(augmentor.Rotation),
        make(augmentor.Shear),
        make(augmentor.Shift),
        make(augmentor.Elastic, border=elastic_border),
    ]
    pipeline = build_pipeline(transforms, ndim=len(shape), ignore_index=None)
    for seed in range(4):
        assert agreement(sample, pipeline(sample, np.random.default_rng(seed))) > 0.97
