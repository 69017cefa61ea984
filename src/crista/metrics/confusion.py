"""The confusion matrix: from it every overlap measure follows, and matrices of parts of an image add up to its
own."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

CHUNK = 1 << 20
"""Voxels counted at a time: bounds the memory, whatever the size of the volume, and stays in the cache."""

FEW_PAIRS = 16
"""Up to so many pairs of classes, comparing bytes with each of them is quicker than one histogram of 64-bit integers."""


def compute_confusion(
    label: NDArray[Any], prediction: NDArray[Any], *, num_classes: int, ignore_index: int | None = None
) -> NDArray[np.int64]:
    """Voxels per pair of true and predicted class.

    Parameters
    ----------
    label, prediction : (Z)YX, or any equal shapes, integer or bool
        Classes 0 to `num_classes` - 1. May be memory maps: they are read a piece at a time.
    ignore_index :
        Voxels whose label has this value are not counted, whatever the prediction.

    Returns
    -------
    (num_classes, num_classes) int64
        Rows are the truth, columns the prediction.

    Raises
    ------
    ValueError
        If shapes differ, an array is not of integers, or a value is not a class; the message names the value.
    """
    _check_arrays(label, prediction)
    counts = np.zeros(num_classes * num_classes, dtype=np.int64)
    rows = label.shape[0] if label.ndim else 0
    step = max(1, CHUNK * rows // max(1, label.size))
    for start in range(0, rows, step):
        truth = np.asarray(label[start : start + step]).ravel()
        guess = np.asarray(prediction[start : start + step]).ravel()
        for offset in range(0, truth.size, CHUNK):
            part = slice(offset, offset + CHUNK)
            counts += _count(truth[part], guess[part], num_classes, ignore_index)
    return counts.reshape(num_classes, num_classes)


def _count(truth: NDArray[Any], guess: NDArray[Any], num_classes: int, ignore_index: int | None) -> NDArray[np.int64]:
    if ignore_index is not None:
        valid = truth != ignore_index
        if not valid.all():
            truth, guess = truth[valid], guess[valid]
    _check_classes("label", truth, num_classes)
    _check_classes("prediction", guess, num_classes)
    num_pairs = num_classes * num_classes
    if num_pairs <= FEW_PAIRS:
        pairs = truth.astype(np.uint8) * np.uint8(num_classes) + guess.astype(np.uint8)
        return np.array([np.count_nonzero(pairs == pair) for pair in range(num_pairs)], np.int64)
    wide = truth.astype(np.int64)
    wide *= num_classes
    wide += guess
    return np.bincount(wide, minlength=num_pairs)


def _check_arrays(label: NDArray[Any], prediction: NDArray[Any]) -> None:
    if label.shape != prediction.shape:
        raise ValueError(f"the label has shape {label.shape}, the prediction {prediction.shape}; they must be equal")
    for name, array in (("label", label), ("prediction", prediction)):
        if array.dtype.kind not in "iub":
            raise ValueError(f"the {name} must hold integer classes, got {array.dtype}; make labels of it first")


def _check_classes(name: str, values: NDArray[Any], num_classes: int) -> None:
    if values.size == 0:
        return
    low, high = int(values.min()), int(values.max())
    if low < 0 or high >= num_classes:
        wrong = low if low < 0 else high
        raise ValueError(f"the {name} holds the value {wrong}; classes are 0 to {num_classes - 1}")
