"""Probability maps: where the centres of random patches fall, so that foreground is met often.

All foreground pixels share one part of the probability equally and all background pixels the other; pixels without
annotation get none. Objects at the border of an image count like any other.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crista.geometry.axes import Array
from crista.images.atomic import aside, atomic_write
from crista.patches.intensities import as_float32
from crista.patches.pixel_group import PixelGroup

BLUE = (0, 0, 255)
RED = (255, 0, 0)
OUTLINE = 2
"""Width of the square around a patch, pixels."""


def compute_probability_map(
    label: Array, *, w_foreground: float, w_background: float, ignore_index: int | None
) -> NDArray[np.float32]:
    """Probability of each pixel of `label`, (Z)YX classes, to be the centre of a patch; float32, sum 1.

    Foreground (every class but 0) shares `w_foreground` equally and background `w_background`; ignored pixels get 0.
    Without foreground, or without background, the other takes all; where that leaves nothing (a weight of 0, or
    nothing annotated) every annotated pixel, or else every pixel, is as likely.
    """
    foreground, background = split_label(label, ignore_index)
    counts = int(foreground.sum()), int(background.sum())
    if not any(counts):
        return np.full(label.shape, 1 / label.size, np.float32)
    masses = compute_masses(counts, (w_foreground, w_background))
    probabilities = np.zeros(label.shape, np.float32)
    for group, count, mass in zip((foreground, background), counts, masses, strict=True):
        if count:
            probabilities[group] = mass / count
    return probabilities


def split_label(label: Array, ignore_index: int | None) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Masks of foreground and background; ignored pixels are in neither."""
    foreground, background = label != 0, label == 0
    if ignore_index is not None:
        annotated = label != ignore_index
        foreground &= annotated
        background &= annotated
    return foreground, background


def compute_masses(counts: Sequence[int], weights: Sequence[float]) -> tuple[float, ...]:
    """Probability of each group of pixels: by weight among the groups that have any; by size if all weights are 0."""
    present = [weight if count else 0.0 for weight, count in zip(weights, counts, strict=True)]
    chosen = present if sum(present) > 0 else [float(count) for count in counts]
    return tuple(value / sum(chosen) for value in chosen)


class ProbabilityMap:
    """Centres drawn from a probability map with at most two values besides 0.

    It keeps at most one byte per pixel and no open file, and can be sent to other processes.
    """

    def __init__(self, probabilities: NDArray[np.float32]) -> None:
        self.shape: tuple[int, ...] = probabilities.shape
        highest = probabilities.max()
        values = {highest, probabilities.min(where=probabilities > 0, initial=highest)}
        self._groups = tuple(PixelGroup.of(probabilities == value) for value in sorted(values))
        if not highest > 0 or sum(g.count for g in self._groups) != np.count_nonzero(probabilities):
            raise ValueError("a probability map holds 0 and one or two probabilities above 0, this array does not")
        masses = [float(v) * group.count for v, group in zip(sorted(values), self._groups, strict=True)]
        self._cumulative = np.cumsum(masses) / sum(masses)

    def draw_centre(self, rng: np.random.Generator) -> tuple[int, ...]:
        """A random pixel, ([z,] y, x), distributed as the map: a group by its mass, then any pixel of the group."""
        chosen = int(np.searchsorted(self._cumulative, rng.random(), side="right"))
        group = self._groups[min(chosen, len(self._groups) - 1)]
        return tuple(int(i) for i in np.unravel_index(group.draw(rng), self.shape))


class ProbabilityMaps:
    """Probability maps kept in a folder, computed again when labels or weights have changed."""

    def __init__(self, folder: Path, *, w_foreground: float, w_background: float) -> None:
        self.folder = folder
        self.w_foreground = w_foreground
        self.w_background = w_background

    def path(self, name: str) -> Path:
        """File of the map of the image `name`; its key lies beside it as JSON."""
        return self.folder / f"prob_map_{name}.npy"

    def load_or_compute(self, name: str, label: Array, ignore_index: int | None) -> ProbabilityMap:
        """The map of `label`, (Z)YX classes, of the image `name`: from the folder if it still fits, else new."""
        key = self._key(label, ignore_index)
        path = self.path(name)
        if load_key(path.with_suffix(".json")) == key:
            loaded = load_map(path, label.shape)
            if loaded is not None:
                return loaded
        weights = {"w_foreground": self.w_foreground, "w_background": self.w_background}
        probabilities = compute_probability_map(label, **weights, ignore_index=ignore_index)
        self._save(path, probabilities, key)
        return ProbabilityMap(probabilities)

    def _key(self, label: Array, ignore_index: int | None) -> dict[str, Any]:
        """What a map depends on."""
        return {
            "label": hashlib.blake2b(np.ascontiguousarray(label).data, digest_size=16).hexdigest(),
            "dtype": str(label.dtype),
            "shape": list(label.shape),
            "w_foreground": self.w_foreground,
            "w_background": self.w_background,
            "ignore_index": ignore_index,
        }

    def _save(self, path: Path, probabilities: NDArray[np.float32], key: dict[str, Any]) -> None:
        key_path = path.with_suffix(".json")
        with aside(path) as part:
            with part.open("wb") as file:
                np.save(file, probabilities)
            # Without its key a map counts as missing, so a kill in between leaves no map under a wrong key.
            key_path.unlink(missing_ok=True)
        atomic_write(key_path, json.dumps(key, indent=1) + "\n")


def load_key(path: Path) -> Any:
    """The key of a saved map; None if there is none that can be read."""
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError):
        return None


def load_map(path: Path, shape: tuple[int, ...]) -> ProbabilityMap | None:
    """A saved map; None if the file is missing, damaged or of another shape."""
    try:
        probabilities = np.load(path, mmap_mode="r", allow_pickle=False)
        return ProbabilityMap(probabilities) if probabilities.shape == shape else None
    except (OSError, ValueError, EOFError):
        return None


def patch_around(centre: Sequence[int], patch_size: Sequence[int], shape: Sequence[int]) -> tuple[int, ...]:
    """Start of the patch whose pixel `patch_size // 2` is `centre`, moved inside an image of `shape`, all (Z)YX.

    Along an axis on which the image is smaller than the patch it starts at 0.
    """
    axes = zip(centre, patch_size, shape, strict=True)
    return tuple(max(0, min(middle - size // 2, length - size)) for middle, size, length in axes)


def draw_mark(image: Array, start: Sequence[int], size: Sequence[int], centre: Sequence[int]) -> NDArray[np.uint8]:
    """A picture of `image`, C(Z)YX of any dtype, with the patch at `start` of `size` and its `centre`, (Z)YX.

    Returns RGB, uint8 (Z)YX3: the image in grey (in its own colours if it has 3 channels), a blue square
    of 2 pixels width on the patch, in every slice of it, and a red disc on the centre, in its slice.
    """
    picture = render_rgb(image)
    planes = picture.reshape(-1, *picture.shape[-3:])
    height, width = planes.shape[1:3]
    depth = slice(start[0], start[0] + size[0]) if len(start) == 3 else slice(0, 1)
    top, left = start[-2:]
    bottom, right = min(top + size[-2], height), min(left + size[-1], width)
    outline = np.zeros((height, width), bool)
    outline[top:bottom, left:right] = True
    outline[top + OUTLINE : max(0, bottom - OUTLINE), left + OUTLINE : max(0, right - OUTLINE)] = False
    planes[depth, outline] = BLUE
    radius = min(6, max(3, min(height, width) // 40))
    y, x = np.ogrid[:height, :width]
    disc = (y - centre[-2]) ** 2 + (x - centre[-1]) ** 2 <= radius**2
    planes[centre[0] if len(centre) == 3 else 0, disc] = RED
    return picture


def render_rgb(image: Array) -> NDArray[np.uint8]:
    """`image`, C(Z)YX, as RGB, uint8 (Z)YX3: each channel stretched from its least to its greatest finite value."""
    grey = np.empty(image.shape, np.uint8)
    for channel, pixels in enumerate(image):
        values = as_float32(pixels)
        finite = np.isfinite(values)
        low = values.min(where=finite, initial=np.inf)
        span = values.max(where=finite, initial=-np.inf) - low
        stretched = (values - low) * (255 / span) if span > 0 else np.zeros_like(values)
        grey[channel] = np.where(finite, np.rint(stretched), 0)
    if len(grey) not in (1, 3):
        grey = np.rint(grey.mean(axis=0, keepdims=True)).astype(np.uint8)
    return np.ascontiguousarray(np.moveaxis(np.broadcast_to(grey, (3, *grey.shape[1:])), 0, -1))
