"""Foreground: 255 in label images of validation or test where those of the training have 1, or the other way round."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np

from crista.errors import Problem
from crista.geometry.axes import Array, Region
from crista.images.image import ImagePair, PixelSource
from crista.images.label_faults import Summaries, is_broken
from crista.images.labels import IGNORED, LabelCoding, LabelSummary
from crista.images.wording import show_values

FORMS = (1, 255)
"""What one class beside the background is written as, in label images of the same meaning."""


def other_form(summaries: Summaries, coding: LabelCoding) -> tuple[int, int] | None:
    """(value of the foreground in these label images, value that `coding` knows for it), if one is 1, the other 255; else None.

    None too where `coding` knows pixels without annotation, which are often 255.
    """
    value_of = {index: value for value, index in coding.class_of.items()}
    held = {value for _, summary in summaries for value in summary.values} - {0}
    plain = all(summary.channels in ("one", "equal") and not is_broken(summary) for _, summary in summaries)
    if coding.num_classes != 2 or coding.ignored_values or value_of.get(0) != 0 or len(held) != 1 or not plain:
        return None
    given, wanted = held.pop(), value_of[1]
    return (given, wanted) if {given, wanted} == set(FORMS) else None


def other_form_warning(where: str, given: int, wanted: int) -> Problem:
    """That the foreground of these label images is read as that of the training."""
    what = f"label values {show_values((0, given))}, those of the training are {show_values((0, wanted))}: "
    what += f"{given} is read as the foreground"
    step = f"if {given} is not the foreground here, correct these label images"
    if given == IGNORED:
        step += f"; where it means 'not annotated', measure with `crista evaluate … --ignore-index {given}`"
    effect = f"{given} is read as the foreground, as {wanted} is in the training"
    return Problem(where, what, step, effect, f"{given} becomes class 1" if given != 1 else "")


def in_other_form(summary: LabelSummary, given: int, wanted: int) -> LabelSummary:
    """What is counted once `given` is read as `wanted`."""
    return replace(summary, counts={wanted if value == given else value: count for value, count in summary.counts.items()})


def read_as(pair: ImagePair, given: int, wanted: int) -> ImagePair:
    """The pair with a label image of which pixels that are `given` are read as `wanted`."""
    if pair.label is None:
        return pair
    source = RecodedPixels(pair.label.source, given, wanted, np.promote_types(pair.label.dtype, np.uint8))
    return replace(pair, label=replace(pair.label, source=source, dtype=source.dtype, recoded=(given, wanted)))


@dataclass(frozen=True)
class RecodedPixels:
    """The pixels of another source with one value in place of another."""

    source: PixelSource = field(repr=False)
    given: int
    wanted: int
    dtype: np.dtype
    """Holds both."""

    def read(self, region: Region) -> Array:
        """The pixels of `region`."""
        pixels = self.source.read(region).astype(self.dtype)
        pixels[pixels == self.given] = self.wanted
        return pixels
