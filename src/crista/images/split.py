"""A split, read: what one pass over every image and label image of train, validation or test has found."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from crista.errors import ImageReadError, Problem
from crista.images.dataset import Role, as_problem, merge_equal
from crista.images.image import Image, ImagePair
from crista.images.labels import LabelSummary
from crista.images.look_cache import look_at_image, look_at_label
from crista.images.scan import ImageScan
from crista.images.wording import show_shape

MAX_THREADS = 4

Found = TypeVar("Found")


@dataclass(frozen=True)
class Split:
    """One split, read: `scans` and `summaries` stand beside `pairs` (None where nothing was read)."""

    role: Role
    pairs: tuple[ImagePair, ...] = ()
    scans: tuple[ImageScan | None, ...] = ()
    summaries: tuple[LabelSummary | None, ...] = ()
    unreadable: tuple[Path, ...] = ()
    """Files that could be opened, and whose pixels could not be read."""

    @property
    def labelled(self) -> list[tuple[Path, LabelSummary]]:
        """Paths and values of the label images that were read."""
        return [
            (pair.label.path, summary)
            for pair, summary in zip(self.pairs, self.summaries, strict=True)
            if pair.label is not None and summary is not None
        ]

    @property
    def unusable(self) -> dict[Path, str]:
        """Images of pairs that can neither be trained on nor measured, with the reason."""
        return dict(self._iter_unusable())

    def _iter_unusable(self) -> Iterator[tuple[Path, str]]:
        for pair, scan in zip(self.pairs, self.scans, strict=True):
            broken = [image for image in (pair.image, pair.label) if image is not None and image.path in self.unreadable]
            if broken:
                yield pair.image.path, f"{broken[0].path.name} cannot be read"
            elif pair.label is not None and pair.label.spatial_shape != pair.image.spatial_shape:
                shapes = " and ".join(show_shape(side.spatial_shape) for side in (pair.image, pair.label))
                yield pair.image.path, f"image and label {pair.label.path.name} have different shapes, {shapes}"
            elif scan is not None and scan.is_empty_of_values:
                yield pair.image.path, "no finite value in the image"

    @property
    def scanned(self) -> list[tuple[ImagePair, ImageScan]]:
        """Pairs whose image was read."""
        return [(pair, scan) for pair, scan in zip(self.pairs, self.scans, strict=True) if scan is not None]


def read_split(
    role: Role, pairs: tuple[ImagePair, ...], *, read_labels: bool, limit: int
) -> tuple[Split, list[Problem], list[Path]]:
    """One pass over every image, and over every label image that has to be read; what was read before is remembered.

    Returns the split, a problem for each kind of unreadable file, and the test images above `limit` bytes: these are not read.
    """
    large = [role == "test" and pair.image.nbytes > limit for pair in pairs]
    unreadable: list[tuple[Path, Problem]] = []

    def read(image: Image | None, look: Callable[[Image], Found]) -> Found | None:
        if image is None:
            return None
        try:
            return look(image)
        except ImageReadError as error:
            unreadable.append((image.path, as_problem(image.path, error)))
            return None

    images = [None if skip else pair.image for pair, skip in zip(pairs, large, strict=True)]
    labels = [pair.label if read_labels else None for pair in pairs]
    with ThreadPoolExecutor(min(MAX_THREADS, os.cpu_count() or 1)) as pool:
        scans = tuple(pool.map(lambda image: read(image, look_at_image), images))
        summaries = tuple(pool.map(lambda label: read(label, look_at_label), labels))
    broken = sorted(unreadable, key=lambda item: str(item[0]))
    split = Split(role, pairs, scans, summaries, tuple(path for path, _ in broken))
    return split, merge_equal(broken), [pair.image.path for pair, skip in zip(pairs, large, strict=True) if skip]
