"""What the record of a finished image depends on: everything that its labels and figures do."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tests.networks import network_plan

from crista.geometry.spacing import Spacing
from crista.images.image import ImagePair, crop_image
from crista.images.open import open_image
from crista.images.write import write_image
from crista.inference.record import record_key


@pytest.fixture
def pair(tmp_path: Path) -> ImagePair:
    for name in "xy":
        write_image(tmp_path / f"{name}.tif", np.eye(40, dtype=np.uint8), "YX")
    return ImagePair(open_image(tmp_path / "x.tif", ndim=2), open_image(tmp_path / "y.tif", ndim=2, is_label=True))


def test_axes_that_are_given_anew_make_another_record(pair: ImagePair) -> None:
    """Of training images that validate, DATA.TRAIN names them, which is no setting of a prediction."""
    plan = network_plan()
    key = record_key("network", plan, pair)
    assert pair.label is not None
    others = [
        ImagePair(open_image(pair.image.path, ndim=2, axes="XY"), pair.label),
        ImagePair(pair.image, open_image(pair.label.path, ndim=2, axes="XY", is_label=True)),
        ImagePair(pair.image, replace(pair.label, inner="other")),
        ImagePair(replace(pair.image, spacing=Spacing((0.5, 0.5))), pair.label),
        ImagePair(pair.image),
    ]
    parts = [(slice(0, 20), slice(0, 40)), (slice(20, 40), slice(0, 40))]
    others += [ImagePair(crop_image(pair.image, part), crop_image(pair.label, part)) for part in parts]
    keys = [key, *(record_key("network", plan, other) for other in others)]
    assert len(set(keys)) == len(keys)
    again = ImagePair(open_image(pair.image.path, ndim=2), open_image(pair.label.path, ndim=2, is_label=True))
    assert record_key("network", plan, again) == key
