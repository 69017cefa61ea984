"""Predicted: the labels of a block and, where wanted, its probabilities, as they become final."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from crista.geometry.axes import Region
from crista.geometry.tiles import shape_of
from crista.inference.scores import labels_of, probabilities_of
from crista.inference.uncertainty import EntropyCells


class PredictedBlock:
    """Labels of one block of an image, in memory; its probabilities too where they are wanted.

    Labels are made where the scores are (on a GPU: there), so that one byte per voxel comes back.
    """

    def __init__(
        self,
        block: Region,
        num_classes: int,
        threshold: float,
        *,
        keep_probabilities: bool,
        uncertainty: EntropyCells | None = None,
    ) -> None:
        self.block = block
        shape: Sequence[int] = shape_of(block)
        self.labels: NDArray[np.uint8] = np.zeros(shape, np.uint8)
        """(Z)YX classes."""
        self.probabilities: NDArray[np.float32] | None = (
            np.zeros((num_classes, *shape), np.float32) if keep_probabilities else None
        )
        """K(Z)YX in [0, 1], or None."""
        self.uncertainty = uncertainty
        """Gathers the entropy of the scores, or None."""
        self.network_seconds = 0.0
        """Time that the network took for it."""
        self.is_broken = False
        """Whether some of its tiles could not be put in: what is there must not be taken for a prediction."""
        self._threshold = threshold

    def write(self, region: Region, scores: torch.Tensor) -> None:
        """Keep the final scores (L, (Z)YX) of a region of the image that lies in the block."""
        own = tuple(slice(r.start - b.start, r.stop - b.start) for r, b in zip(region, self.block, strict=True))
        self.labels[own] = labels_of(scores, self._threshold).cpu().numpy()
        if self.probabilities is not None:
            self.probabilities[(slice(None), *own)] = probabilities_of(scores).cpu().numpy()
        if self.uncertainty is not None:
            self.uncertainty.add(region, scores)
