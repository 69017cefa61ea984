"""Copies: the same image twice, in the same split or in training and test, also saved anew, brightened, mirrored or turned."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from crista.errors import Problem
from crista.images.dataset import Role
from crista.images.image import ImagePair
from crista.images.pixel_sample import read_sample
from crista.images.scan import ImageScan
from crista.images.split import Split
from crista.images.wording import list_files, list_names, place_of

ALIKE = 0.9
"""Correlation of the differences between neighbouring points above which two images are one. Measured on fluorescence and
electron micrographs: JPEG of quality 50 keeps it above 0.91 and other brightness above 0.98; different images, neighbouring
slices of stacks among them, stay below 0.66."""
MAX_COMPARED = 2_000_000
"""Pairs of images that are compared at most."""

Scanned = Sequence[tuple[ImagePair, ImageScan]]


def check_copies(splits: Mapping[Role, Split]) -> list[Problem]:
    """Warnings about images with the same pixels: within the training images, and between them and validation or test."""
    learnt = splits.get("train", Split("train"))
    warnings = []
    for group in exact_copies(learnt):
        paths = [pair.image.path for pair in group]
        what = f"identical images (duplicates): {list_files(paths)}"
        next_step = "keep one of each: copies in training and validation make the validation look too good"
        effect = "one copy may be trained on and the other validate it: the validation looks too good"
        warnings.append(Problem(place_of(paths), what, next_step, effect, "the first is kept, the others left out"))
    for role in ("val", "test"):
        split = splits.get(role, Split(role))
        word = "validation" if role == "val" else "test"
        found = list(shared_images(learnt, split))
        if found:
            fix = f"they are left out of the {word} images" if len(found) < len(split.pairs) else ""
            warnings.append(_leak(found, "=", f"{word} images are training images too", word, fix))
        alike = list(near_copies(learnt.scanned, split.scanned))
        if alike:
            what = f"{word} images look like training images that were saved anew, changed in brightness, mirrored or turned"
            warnings.append(_leak(alike, "~", what, word, ""))
    return warnings


def _leak(found: Sequence[tuple[ImagePair, ImagePair]], sign: str, what: str, word: str, fix: str) -> Problem:
    listed = list_names([f"{copy.image.path.name} {sign} {pair.image.path.name}" for copy, pair in found])
    where = str(found[0][0].image.path.parent)
    step = f"the {word} figures will be too good: use other images"
    return Problem(where, f"{len(found)} {what}: {listed}", step, f"the {word} figures will be too good", fix)


def exact_copies(split: Split) -> list[list[ImagePair]]:
    """Groups of images with the same pixels."""
    groups: dict[str, list[ImagePair]] = defaultdict(list)
    for pair, scan in split.scanned:
        groups[scan.digest].append(pair)
    return [group for group in groups.values() if len(group) > 1]


def shared_images(learnt: Split, split: Split) -> Iterator[tuple[ImagePair, ImagePair]]:
    """Images of `split` that are training images too, each with the first of those."""
    seen: dict[str, ImagePair] = {}
    for pair, scan in learnt.scanned:
        seen.setdefault(scan.digest, pair)
    for pair, scan in split.scanned:
        if scan.digest in seen:
            yield pair, seen[scan.digest]


def near_copies(learnt: Scanned, others: Scanned) -> Iterator[tuple[ImagePair, ImagePair]]:
    """Images of `others` that resemble one of `learnt` point by point, in any of the eight orientations, without being equal."""
    learnt = [(pair, scan) for pair, scan in learnt if scan.sample]
    digests = {scan.digest for _, scan in learnt}
    others = [(pair, scan) for pair, scan in others if scan.sample and scan.digest not in digests]
    if not learnt or not others or len(learnt) * len(others) > MAX_COMPARED:
        return
    known = np.stack([_relief(read_sample(scan.sample)) for _, scan in learnt])
    for pair, scan in others:
        sample = read_sample(scan.sample)
        turned = np.stack([_relief(view) for view in _orientations(sample)])
        alike = known @ turned.T
        for index, row in enumerate(alike):
            other = learnt[index][0]
            fits = [value for view, value in enumerate(row) if _shape(pair, view >= 4) == _shape(other, False)]
            if fits and max(fits) >= ALIKE:
                yield pair, other
                break


def _shape(pair: ImagePair, transposed: bool) -> tuple[int, ...]:
    shape = pair.image.spatial_shape
    return (*shape[:-2], shape[-1], shape[-2]) if transposed else shape


def _orientations(sample: NDArray[np.float64]) -> list[NDArray[np.float64]]:
    """The sample mirrored in all ways, then the same of its transpose."""
    views = [sample[::y, ::x] for y in (1, -1) for x in (1, -1)]
    return [*views, *(view.T for view in views)]


def _relief(sample: NDArray[np.float64]) -> NDArray[np.float32]:
    """Differences between neighbouring points, as a vector of length 1: slow gradients of light do not count."""
    steps = np.concatenate([np.diff(sample, axis=0).ravel(), np.diff(sample, axis=1).ravel()])
    steps -= steps.mean()
    norm = float(np.sqrt(np.square(steps).sum()))
    return (steps / (norm or 1.0)).astype(np.float32)
