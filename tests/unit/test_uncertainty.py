"""The entropy map: by hand, and the same from blocks as from the whole."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from crista.geometry.tiles import grid_blocks, whole
from crista.inference.predicted import PredictedBlock
from crista.inference.uncertainty import EntropyCells, choose_cells, entropy_of, join_cells


def test_entropy_by_hand() -> None:
    """A coin has 1 bit; 0.25 has 0.8113 bits; certainty has none. Three equal classes: 1 after division by log 3."""
    one = entropy_of(torch.tensor([[0.5, 0.25, 0.0, 1.0]]))
    np.testing.assert_allclose(one, [1, 0.811278, 0, 0], atol=1e-6)
    several = entropy_of(torch.tensor([[1 / 3, 1.0, 0.5], [1 / 3, 0.0, 0.5], [1 / 3, 0.0, 0.0]]))
    np.testing.assert_allclose(several, [1, 0, np.log(2) / np.log(3)], atol=1e-6)


def test_cells_of_images() -> None:
    grid = choose_cells((512, 1000))
    assert (grid.cell, grid.step) == ((6, 11), (3, 6))
    volume = choose_cells((20, 64, 3000))
    assert (volume.cell, volume.step) == ((1, 4, 32), (1, 2, 16))


def test_a_map_by_hand() -> None:
    """Cells of 4 pixels, every second looked at. The left cell is unsure, of the right one the column 4 only."""
    scores = torch.zeros(1, 4, 8)
    scores[0, :, :5] = 0.5
    cells = EntropyCells(choose_cells((4, 8)), whole((4, 8)))
    cells.add(whole((4, 8)), scores)
    mean, total = join_cells(cells.grid, [(whole((4, 8)), cells.sums)])
    np.testing.assert_allclose(mean, [[1, 0.5]])
    assert total == pytest.approx(0.75)


@pytest.mark.parametrize("shape", [(61, 83), (7, 30, 41), (3, 3)])
@pytest.mark.parametrize("num_scores", [1, 3])
def test_blocks_and_tiles_give_the_map_of_the_whole(shape: tuple[int, ...], num_scores: int) -> None:
    scores = torch.rand(num_scores, *shape, generator=torch.manual_seed(0))
    scores = scores / scores.sum(dim=0) if num_scores > 1 else scores
    grid = choose_cells(shape)
    together = EntropyCells(grid, whole(shape))
    together.add(whole(shape), scores)
    parts = []
    for block in grid_blocks(shape, [23] * len(shape)):
        part = EntropyCells(grid, block)
        for tile in grid_blocks([b.stop - b.start for b in block], [5] * len(shape)):
            region = tuple(slice(b.start + t.start, b.start + t.stop) for b, t in zip(block, tile, strict=True))
            part.add(region, scores[(slice(None), *region)])
        parts.append((block, part.sums))
    whole_map, whole_mean = join_cells(grid, [(whole(shape), together.sums)])
    block_map, block_mean = join_cells(grid, parts)
    np.testing.assert_allclose(block_map, whole_map, rtol=1e-6)
    assert block_mean == pytest.approx(whole_mean)
    looked_at = np.prod([-(-n // s) for n, s in zip(shape, grid.step, strict=True)])
    assert sum(part[1].sum() for _, part in parts) == together.sums[1].sum() == looked_at


def test_what_is_not_predicted_has_no_uncertainty() -> None:
    cells = EntropyCells(choose_cells((8, 8)), whole((8, 8)))
    predicted = PredictedBlock(whole((8, 8)), 2, 0.5, keep_probabilities=False, uncertainty=cells)
    predicted.write((slice(0, 4), slice(0, 8)), torch.full((1, 4, 8), 0.5))
    mean, total = join_cells(cells.grid, [(whole((8, 8)), cells.sums)])
    np.testing.assert_array_equal(mean, [[1, 1], [np.nan, np.nan]])
    assert total == 1
    assert np.isnan(join_cells(cells.grid, [])[1])
