"""Which orientations a training shows to the network, and that test-time augmentation keeps to them."""

from __future__ import annotations

import numpy as np
import pytest

from crista.augmentations.pipeline import build_pipeline
from crista.config import augmentor
from crista.geometry.orientation import Orientation
from crista.inference.orientations import trained_orientations
from crista.patches.sample import Sample


def chances(**keys: object) -> tuple[augmentor.Augmentation, ...]:
    return augmentor.Augmentor.model_validate({"ENABLE": True, **keys}).transforms(3)


@pytest.mark.parametrize(
    ("keys", "patch", "count"),
    [
        ({}, (8, 8, 8), 1),
        ({"VFLIP": True}, (8, 8, 8), 2),
        ({"VFLIP": True, "HFLIP": True}, (8, 8, 8), 4),
        ({"ROT90": True}, (8, 8, 8), 4),
        ({"ROT90": True}, (8, 8, 16), 2),
        ({"ROT90": True, "HFLIP": True}, (8, 8, 8), 8),
        ({"ROT90": True, "HFLIP": True, "ZFLIP": True}, (8, 8, 8), 16),
        ({"ZFLIP": True, "ZFLIP_PROB": 0.0}, (8, 8, 8), 1),
        ({"RANDOM_ROT": True, "RANDOM_ROT_RANGE": (-180, 180)}, (8, 8, 16), 4),
        ({"RANDOM_ROT": True, "RANDOM_ROT_RANGE": (-45, 45), "BRIGHTNESS": True}, (8, 8, 8), 1),
    ],
)
def test_orientations_of_a_training_by_hand(keys: dict[str, object], patch: tuple[int, ...], count: int) -> None:
    trained = trained_orientations(build_pipeline(chances(**keys), ndim=3, ignore_index=None).augments, patch)
    assert len(trained) == count
    assert trained[0] == Orientation()


@pytest.mark.parametrize(
    "keys", [{"VFLIP": True}, {"ROT90": True, "ZFLIP": True}, {"VFLIP": True, "HFLIP": True}, {"ROT90": True, "VFLIP": True}]
)
@pytest.mark.parametrize("patch", [(2, 3, 3), (2, 3, 4)])
def test_orientations_of_a_training_are_those_of_its_samples(keys: dict[str, object], patch: tuple[int, ...]) -> None:
    pixels = np.arange(np.prod(patch)).reshape(patch)
    pipeline = build_pipeline(chances(**keys), ndim=3, ignore_index=None)
    sample = Sample(image=pixels[None].astype(np.float32), label=pixels)
    rng = np.random.default_rng(0)
    shown = {(view := pipeline(sample, rng).label).shape + tuple(view.ravel()) for _ in range(300)}
    expected = {(view := one(pixels)).shape + tuple(view.ravel()) for one in trained_orientations(pipeline.augments, patch)}
    assert shown == expected
