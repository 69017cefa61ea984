"""How good and how equal label images are: one function for every tool."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import tifffile
from numpy.typing import NDArray

Labels = NDArray[np.uint8]


def read_labels(path: Path, shape: tuple[int, ...], *, probabilities: bool = False) -> Labels:
    """Foreground (1) and background (0) of a saved label image, or of saved probabilities at 0.5; axes of length 1 go."""
    pixels = np.squeeze(tifffile.imread(path))
    if pixels.shape != tuple(n for n in shape if n > 1):
        raise ValueError(f"{path}: shape {pixels.shape}, its true label image has {shape}")
    foreground: Labels = (pixels > (0.5 if probabilities else 0)).astype(np.uint8).reshape(shape)
    return foreground


def foreground_iou(pairs: Iterable[tuple[Labels, Labels]]) -> float:
    """Intersection over union of the foreground, all pixels of all (true, predicted) pairs pooled."""
    both = either = 0
    for true, predicted in pairs:
        both += int(np.count_nonzero((true > 0) & (predicted > 0)))
        either += int(np.count_nonzero((true > 0) | (predicted > 0)))
    return both / either if either else 1.0


def differing_percent(pairs: Iterable[tuple[Labels, Labels]]) -> float:
    """Pixels in which the images of the pairs differ, in % of all."""
    different = total = 0
    for first, second in pairs:
        different += int(np.count_nonzero(first != second))
        total += first.size
    return 100 * different / total
