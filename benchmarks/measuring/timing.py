"""Seconds per image without start-up, the same way for every tool."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil


@dataclass(frozen=True)
class Split:
    """A command's time taken apart."""

    per_image: float
    """Seconds that one more image takes."""
    startup: float
    """Seconds that the command takes before and after its images: imports, building, probing, tables, report."""


def split_startup(few: tuple[int, float], many: tuple[int, float]) -> Split:
    """Take apart the wall seconds of one command, from (images, seconds) of two runs of it.

    A command takes start-up + images x (seconds per image); two measurements give both. It needs no knowledge of a tool's
    log and treats all alike: what a tool does once is start-up, what it does for each image is not.
    """
    (few_images, few_seconds), (many_images, many_seconds) = few, many
    if many_images <= few_images:
        raise ValueError(
            f"{few_images} and {many_images} images: the second run must have more, to tell start-up from prediction"
        )
    per_image = (many_seconds - few_seconds) / (many_images - few_images)
    return Split(per_image, many_seconds - many_images * per_image)


def few_of(count: int) -> int:
    """Images of the shorter run beside one of `count`: an eighth, so that a tool does not take it for another kind of job."""
    return max(1, count // 8)


def images_for(seconds: float, per_image: float, *, least: int, most: int) -> int:
    """Images to predict so that all but the first take `seconds`, at least `least` and at most `most`."""
    if per_image <= 0:
        return most
    return max(least, min(most, ceil(seconds / per_image) + 1))
