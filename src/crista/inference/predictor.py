"""Predictor: one image through the network, tile by tile, into a sink."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from crista.geometry.tiles import Tile, whole
from crista.images.image import Image
from crista.inference.cover import Assembler, build_assembler, whole_image_assembler
from crista.inference.engine import Engine, Scores
from crista.inference.sink import PredictionSink
from crista.patches.cutting import normalized, read_reflected
from crista.patches.normalization import ImageStatistics, compute_statistics
from crista.plan.plan import Plan
from crista.plan.topology import input_multiple

OnTile = Callable[[Tile, Scores], None]
"""Called with each tile and the scores (L, (Z)YX) of its whole read region, before assembling."""


@dataclass(frozen=True)
class Predictor:
    """A network ready for images of the kind that it was trained on."""

    plan: Plan
    engine: Engine

    def predict(
        self, image: Image, sink: PredictionSink, *, whole_image: bool = False, on_tile: OnTile | None = None
    ) -> Iterator[tuple[int, int]]:
        """Predict `image` into `sink`; yields (tiles done, tiles in all).

        Whole-image prediction is the case of one tile.
        """
        shape, multiple = image.spatial_shape, input_multiple(self.plan.model, self.plan.ndim)
        assembler = (
            whole_image_assembler(shape, multiple) if whole_image else build_assembler(self.plan.inference, shape, multiple)
        )
        statistics = compute_statistics(image, self.plan.config.data.normalization)
        done = 0
        for tiles in _batched(assembler, 1 if whole_image else self.plan.inference.batch_size):
            for tile, scores in zip(tiles, self.engine(self._input(image, tiles, statistics)), strict=True):
                if on_tile is not None:
                    on_tile(tile, scores)
                for region, final in assembler.add(tile, scores):
                    sink.write(region, final)
            done += len(tiles)
            yield done, len(assembler.tiles)
        for region, final in assembler.finish():
            sink.write(region, final)

    def _input(self, image: Image, tiles: Sequence[Tile], statistics: ImageStatistics) -> NDArray[np.float32]:
        limits = whole(image.spatial_shape)
        rgb = self.plan.config.data.force_rgb
        return np.stack([normalized(read_reflected(image, tile.read, limits), statistics, repeat_to_rgb=rgb) for tile in tiles])


def _batched(assembler: Assembler, size: int) -> Iterator[list[Tile]]:
    """Neighbouring tiles of equal shape, at most `size` together, in order."""
    batch: list[Tile] = []
    for tile in assembler.tiles:
        if batch and (len(batch) == size or batch[-1].shape != tile.shape):
            yield batch
            batch = []
        batch.append(tile)
    if batch:
        yield batch
