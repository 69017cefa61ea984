"""Estimates: every figure over a set of images with its 95 % interval; log, tables, `evaluate` and report take them from here."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import fsum, isnan, nan
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from crista.metrics.boundary import BoundaryCounts, nsd
from crista.metrics.overlap import Confusion, dice_of, foreground_mean, iou_of

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

    @property
    def interval(self) -> str:
        """The interval in words, or why there is none."""
        if self.has_interval:
            return f"[{show_score(self.low)}, {show_score(self.high)}]"
        return f"no interval: {self.num_images} image{'s' * (self.num_images != 1)}"

    def __str__(self) -> str:
        shown = show_score(self.value)
        if isnan(self.value):
            return shown
        return f"{shown} {self.interval}" if self.has_interval else f"{shown} ({self.interval})"


def show_score(value: float) -> str:
    """Four decimals; a dash where there is nothing to measure."""
    return "–" if isnan(value) else f"{value:.4f}"


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
    measures = [key for key in _MEASURES if key != "nsd" or all(image.boundary is not None for image in counted)]
    per_image = {key: _scores(key, tallies) for key in measures}
    pooled = {key: _scores(key, tallies.sum(axis=0)) for key in measures}
    resampled = _resample(tallies, per_image)
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
    value = float(pooled) if over == "pixels" else fsum(finite) / finite.size if finite.size else nan
    low, high = nan, nan
    if finite.size >= MIN_IMAGES:
        known = resampled[np.isfinite(resampled)]
        low, high = (float(v) for v in np.percentile(known, [50 - 50 * LEVEL, 50 + 50 * LEVEL]))
    return Estimate(key, of, over, value, low, high, int(finite.size))


def _resample(tallies: NDArray[np.int64], per_image: Mapping[str, Floats]) -> dict[tuple[Over, str], Floats]:
    """The figures (RESAMPLES, 1 + K) of each resample, means over images and pooled."""
    generator, count = np.random.default_rng(SEED), len(tallies)
    flat = tallies.reshape(count, -1)
    step = max(1, CHUNK_VALUES // max(count, flat.shape[1]))
    parts: dict[tuple[Over, str], list[Floats]] = {}
    for start in range(0, RESAMPLES, step):
        times = generator.multinomial(count, [1 / count] * count, size=min(step, RESAMPLES - start))
        sums = (times @ flat).reshape(len(times), *tallies.shape[1:])
        for key, scores in per_image.items():
            known = np.isfinite(scores)
            total = times @ np.where(known, scores, 0.0)
            number = times @ known
            mean = np.divide(total, number, out=np.full(total.shape, np.nan), where=number > 0)
            parts.setdefault(("images", key), []).append(mean)
            parts.setdefault(("pixels", key), []).append(_scores(key, sums))
    return {key: np.concatenate(found) for key, found in parts.items()}


def _tally(image: ImageCounts) -> NDArray[np.int64]:
    """(K, 7) per class: hits, in the label, in the prediction, and the four counts of the boundary."""
    confusion = np.asarray(image.confusion, np.int64)
    boundary = image.boundary if image.boundary is not None else np.zeros((len(confusion), 4), np.int64)
    sums = np.stack([confusion.diagonal(), confusion.sum(axis=1), confusion.sum(axis=0)], axis=1)
    return np.concatenate([sums, boundary], axis=1)


def _scores(measure: str, tallies: NDArray[np.int64]) -> Floats:
    """A measure of the foreground and of each class, (…, 1 + K)."""
    score, empty = _MEASURES[measure]
    scores = score(tallies)
    return np.concatenate([foreground_mean(scores, empty=empty)[..., np.newaxis], scores], axis=-1)


_MEASURES: dict[str, tuple[Callable[[NDArray[np.int64]], Floats], float]] = {
    "iou": (lambda tallies: iou_of(tallies[..., 0], tallies[..., 1], tallies[..., 2]), 1.0),
    "dice": (lambda tallies: dice_of(tallies[..., 0], tallies[..., 1], tallies[..., 2]), 1.0),
    "nsd": (lambda tallies: nsd(tallies[..., 3:]), nan),
}
"""How each measure follows from tallies (…, K, 7), (…, K); and what the foreground has where no class of it has a score."""
