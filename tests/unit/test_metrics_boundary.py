"""Boundary agreement against hand-computed numbers, a brute-force oracle, and blocks against the whole."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from crista.geometry.tiles import grid_blocks
from crista.metrics import boundary, boundary_reach, compute_boundary, describe_tolerance, foreground_nsd, near_offsets, nsd


def square(shape: tuple[int, int], top: int, left: int, side: int) -> np.ndarray:
    image = np.zeros(shape, np.uint8)
    image[top : top + side, left : left + side] = 1
    return image


def test_a_square_moved_by_hand() -> None:
    """A square of 5 has 16 edge pixels and, outside, 20 of the background (no corners). Moved by 3 with tolerance 2.

    Of the 16 edge pixels the left column (5) is 3 or more away from the moved left column but for its ends: the top left corner
    (0, 0) has the moved corner (0, 3) at distance 3, and the top row pixel (0, 3) too: none within 2. (0, 1) has (0, 3) at 2.
    Likewise from the other side the right column is missed: 11 of 16 in both directions.
    """
    label, moved = square((20, 20), 6, 5, 5), square((20, 20), 6, 8, 5)
    counts = compute_boundary(label, moved, near_offsets(None, 2), num_classes=2)
    np.testing.assert_array_equal(counts[1], [16, 11, 16, 11])
    assert counts[0, 0] == counts[0, 2] == 20
    assert foreground_nsd(counts) == pytest.approx(22 / 32)
    by_two = compute_boundary(label, square((20, 20), 6, 7, 5), near_offsets(None, 2), num_classes=2)
    np.testing.assert_array_equal(by_two[1], [16, 16, 16, 16])


def brute_force(label, found, spacing, num_classes, ignore):
    """Every pair of edge voxels, one by one."""
    scaled = np.asarray(spacing) / min(spacing)

    def edges(classes, ignored):
        result = {}
        for p in np.ndindex(classes.shape):
            for axis, step in product(range(classes.ndim), (-1, 1)):
                q = tuple(x + step * (a == axis) for a, x in enumerate(p))
                inside = all(0 <= x < n for x, n in zip(q, classes.shape, strict=True))
                if inside and classes[p] != classes[q] and not (ignored[p] or ignored[q]):
                    result[p] = int(classes[p])
        return result

    def near(p, q):
        return (((np.subtract(p, q)) * scaled) ** 2).sum() <= 2**2 + 1e-9

    ignored = label == ignore if ignore is not None else np.zeros(label.shape, bool)
    unknown = list(zip(*np.nonzero(ignored), strict=True))
    truth, guess = edges(label, ignored), edges(found, np.zeros(label.shape, bool))
    counts = np.zeros((num_classes, 4), np.int64)
    for column, (one, other) in ((0, (truth, guess)), (2, (guess, truth))):
        for p, value in one.items():
            if any(near(p, q) for q in unknown):
                continue
            counts[value, column] += 1
            counts[value, column + 1] += any(v == value and near(p, q) for q, v in other.items())
    return counts


@pytest.mark.parametrize("shape", [(9, 11), (5, 7, 6), (1, 12), (3, 1, 9)])
@pytest.mark.parametrize("ignore", [None, 255])
def test_every_pair_one_by_one(shape: tuple[int, ...], ignore: int | None) -> None:
    rng = np.random.default_rng(sum(shape))
    label, found = (np.repeat(rng.integers(0, 3, (*shape[:-1], -(-shape[-1] // 3))), 3, -1)[..., : shape[-1]] for _ in range(2))
    if ignore is not None:
        label.flat[3] = ignore
    spacing = (3.0, 1.0, 1.5)[-len(shape) :]
    counts = compute_boundary(label, found, near_offsets(spacing, len(shape)), num_classes=3, ignore_index=ignore)
    np.testing.assert_array_equal(counts, brute_force(label, found, spacing, 3, ignore))


@pytest.mark.parametrize("shape", [(50, 41), (17, 22, 19)])
def test_blocks_add_up_to_the_whole(shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(0)
    label, found = (np.kron(rng.integers(0, 3, [-(-n // 6) for n in shape]), np.ones([6] * len(shape), int)) for _ in range(2))
    label, found = (a[tuple(slice(n) for n in shape)].astype(np.uint8) for a in (label, found))
    label[rng.random(shape) < 0.002] = 255
    offsets = near_offsets((2.0, 1.0, 1.0)[-len(shape) :], len(shape))
    settings = {"num_classes": 3, "ignore_index": 255}
    together = compute_boundary(label, found, offsets, **settings)
    total = np.zeros_like(together)
    for block in grid_blocks(shape, [7] * len(shape)):
        reach = boundary_reach(offsets)
        outer = tuple(slice(max(0, b.start - r), min(n, b.stop + r)) for b, r, n in zip(block, reach, shape, strict=True))
        inside = tuple(slice(b.start - o.start, b.stop - o.start) for b, o in zip(block, outer, strict=True))
        total += compute_boundary(label[outer], found[outer], offsets, **settings, inside=inside)
    assert together.min() > 0
    np.testing.assert_array_equal(total, together)


def test_classes_without_an_edge() -> None:
    """Class 2 is nowhere, class 1 only in the label; an image of one class has no edge at all."""
    offsets = near_offsets(None, 2)
    empty = np.zeros((12, 12), np.uint8)
    scores = nsd(compute_boundary(square((12, 12), 3, 3, 4), empty, offsets, num_classes=3))
    assert scores[0] == 0
    assert scores[1] == 0
    assert np.isnan(scores[2])
    assert np.isnan(foreground_nsd(compute_boundary(empty, empty, offsets, num_classes=2)))
    assert np.isnan(foreground_nsd(compute_boundary(empty + 1, empty + 1, offsets, num_classes=2)))


def test_unlabelled_pixels_take_the_edges_near_them_along() -> None:
    """The right half is not labelled: only edges more than 2 pixels left of it count, and a wrong edge in it does not."""
    label, found = square((12, 24), 3, 3, 4), square((12, 24), 3, 3, 4)
    found[:, 15:18] = 1
    label[:, 12:] = 255
    counts = compute_boundary(label, found, near_offsets(None, 2), num_classes=2, ignore_index=255)
    np.testing.assert_array_equal(counts[1], [12, 12, 12, 12])
    all_unknown = np.full((12, 24), 255, np.uint8)
    assert not compute_boundary(all_unknown, found, near_offsets(None, 2), num_classes=2, ignore_index=255).any()


def test_neighbourhood_is_physical() -> None:
    """With slices 2.5 times as thick, 2 pixels reach no other slice; with slices twice as thick, one, straight up and down."""
    assert len(near_offsets(None, 2)) == 13
    assert len(near_offsets(None, 3)) == 33
    assert len(near_offsets((0.05, 0.02, 0.02), 3)) == 13
    assert len(near_offsets((0.04, 0.02, 0.02), 3)) == 15
    np.testing.assert_array_equal(near_offsets((0.04, 0.02), 2)[0], [0, 0])
    assert boundary_reach(near_offsets((0.05, 0.02, 0.02), 3)) == (1, 3, 3)
    assert describe_tolerance(None) == "2 pixels"
    assert describe_tolerance((0.05, 0.02, 0.02)) == "2 pixels of the finest axis (0.04 µm)"


@pytest.mark.parametrize("shape", [(30, 41), (1, 7), (9, 20, 25), (1, 12, 13)])
@pytest.mark.parametrize("spacing", [None, "anisotropic"])
@pytest.mark.parametrize("share", [0.002, 0.05, 0.5])
def test_whole_arrays_and_voxels_one_by_one_give_the_same(
    shape: tuple[int, ...], spacing: str | None, share: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(int(1000 * share))
    label, prediction = ((rng.random(shape) < share) * rng.integers(1, 4, shape, np.uint8) for _ in range(2))
    label[rng.random(shape) < 0.01] = 9
    offsets = near_offsets([3.0, 1.0, 1.0][-len(shape) :] if spacing else None, len(shape))
    inside = tuple(slice(n // 4, n) for n in shape)
    found = []
    for few_edges in (0, 10**9):
        monkeypatch.setattr(boundary, "FEW_EDGES", few_edges)
        found += [compute_boundary(label, prediction, offsets, num_classes=4, ignore_index=9)]
        found += [compute_boundary(label, prediction, offsets, num_classes=4, ignore_index=9, inside=inside)]
    np.testing.assert_array_equal(found[0], found[2])
    np.testing.assert_array_equal(found[1], found[3])
