"""Estimates: every figure over a set of images with its 95 % interval; log, tables, `evaluate` and report take them from here."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import fsum
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from crista.metrics.boundary import BoundaryCounts, nsd
from crista.metrics.overlap import Confusion

LEVEL = 0.95
RESAMPLES = 2000
SEED = 0
MIN_IMAGES = 3
"""Fewer images say nothing about how much others would differ."""

CHUNK_VALUES = 2**21
"""Numbers that are held at a time while resampling."""

FOREGROUND = "all foreground"
"""What the mean over the classes but the background is called; a class may be called foreground."""

INTERVAL_RULE = (
    f"[low, high]: {LEVEL:.0%} percentile bootstrap over images (Efron & Tibshirani 1993), {RESAMPLES} resamples of the images, "
    f"seed {SEED}. It says how much the figure would move with other images of this kind, not with another training. Fewer than "
    f"{MIN_IMAGES} images with the class: no interval."
)

Over = Literal["images", "pixels"]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class ImageCounts:
    """What an image contributes."""

    confusion: Confusion
    """(K, K) voxels, rows truth, columns prediction."""
    boundary: BoundaryCounts | None = None
    """(K, 4), see `crista.metrics.boundary`; None where it was not measured."""


@dataclass(frozen=True)
class Estimate:
    """One figure over a set of images."""

    measure: str
    """``iou``, ``dice`` or ``nsd``."""
    of: str
    """FOREGROUND or the name of a class."""
    over: Over
    """`images`: each image has the same say; `pixels`: the counts of all images are added first."""
    value: float
    """NaN where there is nothing to measure."""
    low: float
    """Lower end of the interval; NaN where there is none."""
    high: float
    num_images: int
    """Images in which it could be measured."""

    @property
    def has_interval(self) -> bool:
        """Whether there were images enough."""
        return bool(np.isfinite(self.low) and np.isfinite(self.high))

    def __str__(self) -> str:
        if np.isnan(self.value):
            return "–"
        if self.has_interval:
            return f"{self.value:.4f} [{self.low:.4f}, {self.high:.4f}]"
        return f"{self.value:.4f} (no interval: {self.num_images} image{'s' * (self.num_images != 1)})"


def estimate(images: Sequence[ImageCounts], names: Sequence[str]) -> tuple[Estimate, ...]:
    """IoU, Dice and NSD of the foreground and of each class, over images and over pixels, each with its interval.

    Images without a counted voxel are left out. The interval is the 2.5 and 97.5 percentile over resamples of the images (with
    replacement, as many as there are); it does not depend on their order. Resamples without the class are left out.

    Parameters
    ----------
    images : counts of each image; boundaries of all of them, or none
    names : of the classes, background first
    """
    counted = [image for image in images if image.confusion.any()]
    if not counted:
        return ()
    tallies = np.stack([_tally(image) for image in counted])
    tallies = tallies[np.lexsort(tallies.reshape(len(tallies), -1).T)]
    measures = {key: score for key, score in _MEASURES.items() if key != "nsd" or all(i.boundary is not None for i in counted)}
    per_image = {key: score(tallies) for key, score in measures.items()}
    pooled = {key: score(tallies.sum(axis=0)) for key, score in measures.items()}
    resampled = _resample(tallies, measures, per_image)
    columns = [FOREGROUND, *names]
    return tuple(
        _estimate(key, columns[column], over, per_image[key][:, column], pooled[key][column], resampled[over, key][:, column])
        for over in ("images", "pixels")
        for key in measures
        for column in range(len(columns))
    )


def find_estimate(estimates: Sequence[Estimate], measure: str, of: str, over: Over) -> Estimate | None:
    """The one figure that was asked for; None if it was not measured."""
    found = (e for e in estimates if (e.measure, e.of, e.over) == (measure, of, over))
    return next(found, None)


def _estimate(key: str, of: str, over: Over, per_image: Floats, pooled: float, resampled: Floats) -> Estimate:
    finite = per_image[np.isfinite(per_image)]
    value = float(pooled) if over == "pixels" else fsum(finite) / finite.size if finite.size else float("nan")
    low, high = float("nan"), float("nan")
    if finite.size >= MIN_IMAGES:
        known = resampled[np.isfinite(resampled)]
        low, high = (float(v) for v in np.percentile(known, [50 - 50 * LEVEL, 50 + 50 * LEVEL]))
    return Estimate(key, of, over, value, low, high, int(finite.size))


def _resample(
    tallies: NDArray[np.int64], measures: Mapping[str, Callable[[NDArray[np.int64]], Floats]], per_image: Mapping[str, Floats]
) -> dict[tuple[Over, str], Floats]:
    """The figures (RESAMPLES, 1 + K) of each resample, means over images and pooled."""
    generator, count = np.random.default_rng(SEED), len(tallies)
    flat = tallies.reshape(count, -1)
    step = max(1, CHUNK_VALUES // max(count, flat.shape[1]))
    parts: dict[tuple[Over, str], list[Floats]] = {}
    for start in range(0, RESAMPLES, step):
        times = generator.multinomial(count, [1 / count] * count, size=min(step, RESAMPLES - start))
        sums = (times @ flat).reshape(len(times), *tallies.shape[1:])
        for key, score in measures.items():
            known = np.isfinite(per_image[key])
            total = times @ np.where(known, per_image[key], 0.0)
            number = times @ known
            mean = np.divide(total, number, out=np.full(total.shape, np.nan), where=number > 0)
            parts.setdefault(("images", key), []).append(mean)
            parts.setdefault(("pixels", key), []).append(score(sums))
    return {key: np.concatenate(found) for key, found in parts.items()}


def _tally(image: ImageCounts) -> NDArray[np.int64]:
    """(K, 7) per class: hits, in the label, in the prediction, and the four counts of the boundary."""
    confusion = np.asarray(image.confusion, np.int64)
    boundary = image.boundary if image.boundary is not None else np.zeros((len(confusion), 4), np.int64)
    sums = np.stack([confusion.diagonal(), confusion.sum(axis=1), confusion.sum(axis=0)], axis=1)
    return np.concatenate([sums, boundary], axis=1)


def _overlap(tallies: NDArray[np.int64], hit_weight: int) -> Floats:
    """Dice (2) or IoU (1) of the foreground and of each class, (…, 1 + K), by the rules of `crista.metrics.overlap`."""
    hits, label, prediction = (tallies[..., column] for column in range(3))
    both = label + prediction
    scores = np.full(both.shape, np.nan)
    np.divide(hit_weight * hits, both if hit_weight == 2 else both - hits, out=scores, where=both > 0)
    return np.concatenate([_foreground(scores, empty=1.0), scores], axis=-1)


def _boundary(tallies: NDArray[np.int64]) -> Floats:
    scores = nsd(tallies[..., 3:])
    return np.concatenate([_foreground(scores, empty=np.nan), scores], axis=-1)


def _foreground(scores: Floats, empty: float) -> Floats:
    """Mean over the classes but the background that have a score, (…, 1)."""
    known = np.isfinite(scores[..., 1:])
    total = np.where(known, scores[..., 1:], 0.0).sum(axis=-1, keepdims=True)
    number = known.sum(axis=-1, keepdims=True)
    mean: Floats = np.divide(total, number, out=np.full(total.shape, empty), where=number > 0)
    return mean


_MEASURES: dict[str, Callable[[NDArray[np.int64]], Floats]] = {
    "iou": lambda tallies: _overlap(tallies, 1),
    "dice": lambda tallies: _overlap(tallies, 2),
    "nsd": _boundary,
}
