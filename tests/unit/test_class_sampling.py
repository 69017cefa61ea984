"""Class sampling: rare classes are met, and patches hold the pixel that they were drawn for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tests.conftest import MakeData, tiny_config

from crista.config.load import config_from_dict
from crista.images.check import check_dataset
from crista.images.image import ImagePair
from crista.images.labels import LabelCoding
from crista.images.open import open_image
from crista.images.write import write_image
from crista.patches.annotated import BalancedPlacer, group_pixels
from crista.patches.class_sampling import AnywherePlacer, MixedPlacer
from crista.patches.cutting import PixelCache
from crista.patches.placing import GridPlacer
from crista.patches.prepare import make_split, prepare_samples
from crista.patches.split import Source, whole_sources
from crista.plan.make import make_plan

PATCH = (16, 16)


def sources_of(folder: Path, labels: list[np.ndarray]) -> tuple[Source, ...]:
    pairs = []
    for number, label in enumerate(labels):
        path = folder / f"{number}.tif"
        write_image(path, label, "YX")
        pairs.append(ImagePair(open_image(path), open_image(path, is_label=True)))
    return whole_sources(pairs)


def placer_of(folder: Path, labels: list[np.ndarray], *, share: float) -> MixedPlacer:
    sources = sources_of(folder, labels)
    cache = PixelCache(LabelCoding(3), limit_bytes=0)
    around = BalancedPlacer(sources, PATCH, group_pixels(sources, cache, (1, 2)), count=10)
    return MixedPlacer(around, AnywherePlacer(sources, PATCH, 10), share)


def cut(label: np.ndarray, start: tuple[int, ...]) -> np.ndarray:
    return label[tuple(slice(s, s + p) for s, p in zip(start, PATCH, strict=True))]


def rare() -> list[np.ndarray]:
    """Two images of 128 × 128: class 1 is a tenth of the first, class 2 a single pixel at the corner of the second."""
    first, second = np.zeros((2, 128, 128), np.uint8)
    first[:, :13] = 1
    second[127, 0] = 2
    return [first, second]


def test_a_class_of_one_pixel_is_in_its_share_of_the_patches(tmp_path: Path) -> None:
    labels, rng = rare(), np.random.default_rng(0)
    placer = placer_of(tmp_path, labels, share=0.5)
    drawn = [placer.place(index, rng) for index in range(2000)]
    holding = [2 in cut(labels[number], placement.start) for number, placement in drawn]
    assert np.mean(holding) == pytest.approx(0.25 + 0.5 * 0.5 / 113**2, abs=0.03)  # half of the half; by chance hardly ever


def test_all_patches_lie_around_their_class_with_share_1(tmp_path: Path) -> None:
    labels, rng = rare(), np.random.default_rng(1)
    placer = placer_of(tmp_path, labels, share=1.0)
    for index in range(300):
        number, placement = placer.place(index, rng)
        assert cut(labels[number], placement.start).shape == PATCH
        assert cut(labels[number], placement.start).any()


def test_the_other_patches_are_uniform(tmp_path: Path) -> None:
    labels, rng = rare(), np.random.default_rng(2)
    placer = placer_of(tmp_path, labels, share=0.0)
    drawn = [placer.place(index, rng) for index in range(4000)]
    starts = np.array([placement.start for _, placement in drawn])
    assert np.mean([number for number, _ in drawn]) == pytest.approx(0.5, abs=0.03)
    assert starts.mean(axis=0) == pytest.approx((56, 56), abs=2)
    assert starts.min() == 0
    assert starts.max() == 112


def test_larger_sources_are_drawn_more_often(tmp_path: Path) -> None:
    sources = sources_of(tmp_path, [np.zeros((32, 32), np.uint8), np.zeros((32, 96), np.uint8)])
    placer, rng = AnywherePlacer(sources, PATCH, 5), np.random.default_rng(4)
    assert len(placer) == 5
    assert np.mean([placer.place(0, rng)[0] for _ in range(4000)]) == pytest.approx(0.75, abs=0.03)


@pytest.mark.parametrize(("share", "kind"), [(0.0, GridPlacer), (0.5, MixedPlacer)])
def test_the_plan_decides(make_data: MakeData, tmp_path: Path, share: float, kind: type) -> None:
    config = config_from_dict(tiny_config(make_data(test=0)), [f"DATA.TRAIN.CLASS_SHARE={share}"]).config
    report = check_dataset(config, need_train=True, need_test=False)
    assert report.fingerprint is not None
    plan = make_plan(config, report.fingerprint)
    samples = prepare_samples(plan, make_split(plan, report.train, ()), map_folder=tmp_path / "map", cache_bytes=2**20)
    assert isinstance(samples.train.placer, kind)
    assert len(samples.train) == 3 * 4  # as many as a grid has


def test_equal_generators_draw_equal_patches(tmp_path: Path) -> None:
    placer = placer_of(tmp_path, rare(), share=0.5)
    first, second = ([placer.place(i, np.random.default_rng((7, i))) for i in range(50)] for _ in range(2))
    assert first == second
