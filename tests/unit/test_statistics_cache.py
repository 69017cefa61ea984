"""Statistics of large images are kept on disk, for the pixels that they are of."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tests.networks import network_plan

from crista.images.image import crop_image
from crista.images.open import open_image
from crista.images.write import write_image
from crista.inference import statistics
from crista.inference.statistics import StatisticsCache
from crista.patches.normalization import compute_statistics


@pytest.fixture
def nothing_is_small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(statistics, "KEPT_BYTES", 0)


def test_a_part_of_an_image_has_the_statistics_of_the_whole(tmp_path: Path, nothing_is_small: None) -> None:
    """A block of a training image that is measured is normalised as it was while it validated."""
    write_image(tmp_path / "a.tif", np.arange(48 * 40, dtype=np.uint16).reshape(48, 40), "YX")
    image = open_image(tmp_path / "a.tif", ndim=2)
    part = crop_image(image, (slice(0, 48), slice(0, 9)))
    part_of_part = crop_image(part, (slice(8, 20), slice(0, 4)))
    plan = network_plan()
    expected = compute_statistics(image, plan.config.data.normalization)
    for one in (part, image, part_of_part):
        assert StatisticsCache(tmp_path, plan).of("a", one) == expected


@pytest.mark.parametrize("left", ["", "{", "\x00"])
def test_damaged_statistics_are_computed_anew(tmp_path: Path, nothing_is_small: None, left: str) -> None:
    write_image(tmp_path / "a.tif", np.arange(48 * 40, dtype=np.uint16).reshape(48, 40), "YX")
    image, plan = open_image(tmp_path / "a.tif", ndim=2), network_plan()
    expected = StatisticsCache(tmp_path, plan).of("a", image)
    [kept] = (tmp_path / "statistics").iterdir()
    kept.write_text(left)
    assert StatisticsCache(tmp_path, plan).of("a", image) == expected
