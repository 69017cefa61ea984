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


def split_startup(seconds_one: float, seconds_many: float, count: int) -> Split:
    """Take apart the wall seconds of one command on one image and on `count` images.

    A command takes start-up + images x (seconds per image); two measurements give both. It needs no knowledge of a tool's
    log and treats all alike: what a tool does once is start-up, what it does for each image is not.
    """
    if count < 2:
        raise ValueError(f"count is {count}; at least two images are needed to tell start-up from prediction")
    per_image = (seconds_many - seconds_one) / (count - 1)
    return Split(per_image, seconds_one - per_image)


def images_for(seconds: float, per_image: float, *, least: int, most: int) -> int:
    """Images to predict so that all but the first take `seconds`, at least `least` and at most `most`."""
    if per_image <= 0:
        return most
    return max(least, min(most, ceil(seconds / per_image) + 1))
