"""Class sampling: rare classes are met, patches hold the pixel they were drawn for, sparse labels are found."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from crista.images.image import ImagePair
from crista.images.open import open_image
from crista.images.write import write_image
from crista.patches.class_sampling import MAX_PIXELS, ClassPixels, ClassPlacer
from crista.patches.split import Source, whole_sources

PATCH = (16, 16)


def sources_of(folder: Path, labels: list[np.ndarray]) -> tuple[Source, ...]:
    pairs = []
    for number, label in enumerate(labels):
        path = folder / f"{number}.tif"
        write_image(path, label, "YX")
        pairs.append(ImagePair(open_image(path), open_image(path, is_label=True)))
    return whole_sources(pairs)


def placer_of(
    folder: Path, labels: list[np.ndarray], *, share: float, num_classes: int = 3, ignore: int | None = None
) -> ClassPlacer:
    pixels = [ClassPixels(label, num_classes, ignore) for label in labels]
    return ClassPlacer(sources_of(folder, labels), PATCH, pixels, share=share, per_epoch=10)


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


def test_sparse_labels_are_found(tmp_path: Path) -> None:
    """Every patch holds an annotated pixel, background counts as a class, and an image without annotation is never drawn."""
    sparse, nothing = np.full((2, 128, 128), 255, np.uint8)
    sparse[100, 20:30], sparse[5, 5] = 1, 0
    placer = placer_of(tmp_path, [nothing, sparse], share=0.5, num_classes=2, ignore=255)
    rng = np.random.default_rng(3)
    seen = []
    for index in range(500):
        number, placement = placer.place(index, rng)
        assert number == 1
        values = set(np.unique(cut(sparse, placement.start))) - {255}
        assert values
        seen.append(0 in values)
    assert np.mean(seen) == pytest.approx(0.5 * 0.5 + 0.5 / 11, abs=0.06)


def test_memory_is_bounded() -> None:
    found = ClassPixels(np.ones((400, 400), np.uint8), 2, None)
    assert [len(indices) for indices in found.of_class] == [0, MAX_PIXELS]
    assert found.of_class[1][0] == 0
    assert found.of_class[1][-1] == 400 * 400 - 1


def test_equal_generators_draw_equal_patches(tmp_path: Path) -> None:
    placer = placer_of(tmp_path, rare(), share=0.5)
    first, second = ([placer.place(i, np.random.default_rng((7, i))) for i in range(50)] for _ in range(2))
    assert first == second
