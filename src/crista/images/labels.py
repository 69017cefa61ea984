"""What a label image holds, and its values as classes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import inf
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from crista.errors import ImageReadError
from crista.geometry.axes import Array, Region
from crista.geometry.tiles import shape_of
from crista.images.blocks import iter_blocks, iter_pixels
from crista.images.counting import count_integers
from crista.images.image import Image
from crista.images.object_size import Diameters, fill_middle, measure_diameters, middle_region

MAX_VALUES = 1024
"""Distinct values (and colours) that are counted; beyond it a file cannot hold classes anyway."""
BINCOUNT_RANGE = 2**17
MOST_COLOURS = 64
MOST_COUNTED_COLOURS = 16 * MAX_VALUES
"""When so many have been met, only the commonest are counted on."""

IGNORED = 255
"""What every pixel without annotation is inside crista, whatever the files say; classes end below it."""

Channels = Literal["one", "equal", "one-hot", "different"]


@dataclass(frozen=True)
class LabelCoding:
    """What the values of label images mean."""

    num_classes: int
    """Classes, background included."""
    ignore_index: int | None = None
    """What pixels without annotation become when a label image is read."""
    mapping: tuple[tuple[int, int], ...] | None = None
    """(stored value, class) pairs where they differ; None: the stored values are the classes."""
    ignored: tuple[int, ...] = ()
    """Stored values of pixels without annotation, increasing; empty: only `ignore_index` itself."""

    @property
    def ignored_values(self) -> tuple[int, ...]:
        """Stored values of pixels without annotation."""
        return self.ignored if self.ignored or self.ignore_index is None else (self.ignore_index,)

    @property
    def class_of(self) -> dict[int, int]:
        """Class of each stored value that is allowed; `ignore_index` for each value without annotation."""
        pairs = self.mapping if self.mapping is not None else tuple((k, k) for k in range(self.num_classes))
        if self.ignore_index is None:
            return dict(pairs)
        return dict(pairs) | dict.fromkeys(self.ignored_values, self.ignore_index)


def class_counts(labels: Iterable[Mapping[int, int]], coding: LabelCoding) -> tuple[int, ...]:
    """Pixels of each class over label images given as {stored value: pixels}; ignored pixels are left out."""
    counts, class_of = Counter[int](), coding.class_of
    for label in labels:
        for value, count in label.items():
            counts[class_of[value]] += count
    return tuple(counts[index] for index in range(coding.num_classes))


def make_coding(num_classes: int, ignored: Sequence[int], mapping: tuple[tuple[int, int], ...] | None = None) -> LabelCoding:
    """The coding in which the stored values `ignored` all become `IGNORED`."""
    if not ignored:
        return LabelCoding(num_classes, None, mapping)
    values = tuple(sorted(set(ignored)))
    return LabelCoding(num_classes, IGNORED, mapping, () if values == (IGNORED,) else values)


@dataclass(frozen=True)
class LabelSummary:
    """The values of one label image, counted."""

    counts: dict[int, int]
    """Pixels of each whole-number value, in increasing order; at most `MAX_VALUES` entries."""
    runs: dict[int, int]
    """Runs of equal values along x, for each value; pixels / runs is the mean length of a run."""
    num_values: int
    """Distinct whole-number values found; `MAX_VALUES` + 1 means more than that."""
    num_nan: int
    """Pixels that are NaN or infinite."""
    num_fractional: int
    """Pixels with a finite value that is no whole number."""
    fractional_example: float | None
    channels: Channels
    """`one`; `equal`: all channels are the same, the first is used; `one-hot`: exactly one channel is not 0
    in each pixel, its index is the class; `different`: no label image."""
    num_channels: int
    num_colours: int | None = None
    """Distinct values of three differing channels (at most `MAX_VALUES` + 1)."""
    colours: tuple[tuple[int, int], ...] = ()
    """(red · 65536 + green · 256 + blue, pixels) of the commonest colours of three differing channels, at most `MOST_COLOURS`."""
    low: float | None = None
    """Smallest finite value, where there are numbers that are not whole."""
    high: float | None = None
    """Largest one."""
    diameters: Diameters = ()
    """Of the objects in the middle of the image, for each value."""
    enclosed: dict[int, int] = field(default_factory=dict)
    """Of `runs` those that have the same other value on both sides: strokes do, a smoothed border lies between two values."""

    @property
    def values(self) -> tuple[int, ...]:
        """The distinct values, increasing."""
        return tuple(self.counts)


@dataclass
class _Tally:
    """Counts that grow block by block."""

    counts: Counter[int] = field(default_factory=Counter)
    runs: Counter[int] = field(default_factory=Counter)
    enclosed: Counter[int] = field(default_factory=Counter)
    overflow: bool = False
    num_nan: int = 0
    num_fractional: int = 0
    example: float | None = None
    low: float = inf
    high: float = -inf

    def add(self, block: Array) -> None:
        """Count the values of one (Z)YX block."""
        starts = np.ones(block.shape, bool)
        np.not_equal(block[..., 1:], block[..., :-1], out=starts[..., 1:])
        if block.dtype.kind == "f":
            whole = self._find_whole(block)
            self._count(self.counts, block[whole].astype(np.int64))
            self._count(self.runs, block[starts & whole].astype(np.int64))
            self._count(self.enclosed, _enclosed_runs(np.where(whole, block, 0).astype(np.int64), starts))
        else:
            self._count(self.counts, block.ravel())
            self._count(self.runs, block[starts])
            self._count(self.enclosed, _enclosed_runs(block, starts))

    def _find_whole(self, block: Array) -> NDArray[np.bool_]:
        """Where the numbers are whole; the others are counted apart."""
        block = block.astype(np.float32) if block.dtype.itemsize < 4 else block
        finite = np.isfinite(block)
        whole = finite & (block == np.trunc(block)) & (np.abs(np.where(finite, block, 0)) < 2.0**62)
        self.num_nan += int(block.size - np.count_nonzero(finite))
        fractional = block[finite & ~whole]
        self.num_fractional += fractional.size
        if fractional.size and self.example is None:
            self.example = float(fractional[0])
        if finite.any():
            self.low = min(self.low, float(block[finite].min()))
            self.high = max(self.high, float(block[finite].max()))
        return np.asarray(whole)

    def _count(self, counter: Counter[int], values: Array) -> None:
        if self.overflow or not values.size:
            return
        distinct, counts = count_values(values)
        self.overflow = len(distinct) > MAX_VALUES
        counter.update(dict(zip(distinct[:MAX_VALUES].tolist(), counts[:MAX_VALUES].tolist(), strict=True)))
        self.overflow = self.overflow or len(counter) > MAX_VALUES


def _enclosed_runs(block: Array, starts: NDArray[np.bool_]) -> Array:
    """The value of each run along x that has the same other value on both sides; `starts` marks where runs begin.

    None of a block of which most pixels begin a run: that is noise, and would take much memory.
    """
    if 2 * np.count_nonzero(starts) > block.size:
        return block.ravel()[:0]
    places = np.flatnonzero(starts)
    values, rows = block.ravel()[places], places // block.shape[-1]
    inside = (values[:-2] == values[2:]) & (rows[:-2] == rows[2:])
    return np.asarray(values[1:-1][inside])


def count_values(values: Array) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """Distinct values of a flat integer array, increasing, and how often each occurs."""
    if values.dtype.itemsize <= 2:
        origin, histogram = count_integers(values)
        present = np.flatnonzero(histogram)
        return present + origin, histogram[present]
    low, high = int(values.min()), int(values.max())
    if high - low > BINCOUNT_RANGE:
        distinct, counts = np.unique(values, return_counts=True)
        return distinct, counts.astype(np.int64)
    # In the dtype of the values: as Python numbers, those above 2⁶³ would not fit.
    origin = values.dtype.type(low if low < 0 or high > BINCOUNT_RANGE else 0)
    histogram = np.bincount((values - origin if origin else values).astype(np.intp, copy=False))
    distinct = np.flatnonzero(histogram)
    return distinct.astype(values.dtype) + origin, histogram[distinct]


def summarise_label(image: Image) -> LabelSummary:
    """Count the values of a label image block by block; the whole volume is never in memory."""
    tally, argmax, middle = _Tally(), _Tally(), middle_region(image.spatial_shape)
    sample = np.zeros((image.num_channels, *shape_of(middle)), image.dtype)
    equal = one_hot = image.num_channels > 1
    colours: Counter[int] | None = Counter() if image.num_channels == 3 and image.dtype == np.uint8 else None
    for region, block in iter_pixels(image, iter_blocks(image)):
        fill_middle(sample, middle, region, block)
        was_equal, equal = equal, equal and bool((block == block[:1]).all())
        one_hot = one_hot and _is_one_hot(block)
        if colours is not None and not equal:
            if was_equal:
                colours.update({value * 0x010101: count for value, count in tally.counts.items()})  # grey until here
            colours.update(count_colours(block))
            if len(colours) > MOST_COUNTED_COLOURS:
                colours = Counter(dict(_commonest(colours, MAX_VALUES + 1)))
        tally.add(block[0])
        if one_hot:
            argmax.add(block.argmax(axis=0))
    channels: Channels = "different"
    label = sample[0]
    if image.num_channels == 1 or equal:
        channels = "one" if image.num_channels == 1 else "equal"
    elif one_hot:
        channels, tally, label = "one-hot", argmax, sample.argmax(axis=0)
    return LabelSummary(
        counts=dict(sorted(tally.counts.items())[:MAX_VALUES]),
        runs=dict(sorted(tally.runs.items())[:MAX_VALUES]),
        enclosed=dict(sorted(tally.enclosed.items())[:MAX_VALUES]),
        num_values=MAX_VALUES + 1 if tally.overflow else len(tally.counts),
        num_nan=tally.num_nan,
        num_fractional=tally.num_fractional,
        fractional_example=tally.example,
        channels=channels,
        num_channels=image.num_channels,
        num_colours=min(len(colours), MAX_VALUES + 1) if colours and channels == "different" else None,
        colours=_commonest(colours, MOST_COLOURS) if colours and channels == "different" else (),
        low=tally.low if tally.num_fractional else None,
        high=tally.high if tally.num_fractional else None,
        diameters=measure_diameters(label) if channels != "different" else (),
    )


def _is_one_hot(block: Array) -> bool:
    """Whether each pixel of a C(Z)YX block has exactly one channel that is not 0, all of one value."""
    hot = block != 0
    if not (np.count_nonzero(hot, axis=0) == 1).all():
        return False
    marks = np.unique(block[hot])
    return len(marks) == 1 and bool(np.isfinite(marks[0]))


def pack_colours(block: Array) -> NDArray[np.int64]:
    """The three channels of 8 bits as one number: red · 65536 + green · 256 + blue."""
    return np.asarray((block[0].astype(np.int64) << 16) | (block[1].astype(np.int64) << 8) | block[2])


def count_colours(block: Array) -> dict[int, int]:
    """Pixels of each packed colour, of the `MAX_VALUES` + 1 commonest."""
    distinct, counts = np.unique(pack_colours(block), return_counts=True)
    first = np.argsort(-counts, kind="stable")[: MAX_VALUES + 1]
    return dict(zip(distinct[first].tolist(), counts[first].tolist(), strict=True))


def _commonest(colours: Counter[int], most: int) -> tuple[tuple[int, int], ...]:
    """Of equally frequent ones the darkest first, whichever was met first."""
    return tuple(sorted(colours.items(), key=lambda item: (-item[1], item[0]))[:most])


def read_label(label: Image, coding: LabelCoding, region: Region | None = None) -> NDArray[np.uint8]:
    """Classes of a label image, (Z)YX uint8; pixels without annotation are `coding.ignore_index`.

    Channels that are all the same count once; one-hot channels become the index of the channel.

    Raises
    ------
    ImageReadError
        A value that `coding` does not know, a number that is not whole, or channels that are neither: the
        file and the value are named.
    """
    values = _single_channel(label, label.read(region))
    if values.dtype.kind == "f":
        values = _require_whole(label, values)
    table = np.full(257, -1, np.int16)
    for value, index in coding.class_of.items():
        if 0 <= value <= 255:
            table[value] = index
    beyond = {value: index for value, index in coding.class_of.items() if not 0 <= value <= 255}
    if values.dtype == np.uint8:
        classes = table[values]
    else:
        classes = table[np.where((values >= 0) & (values <= 255), values, 256).astype(np.int64)]
        for value, index in beyond.items():
            classes[values == value] = index
    unknown = classes < 0
    if unknown.any():
        raise ImageReadError(_unknown_value(label, coding, int(values[unknown][0])))
    return classes.astype(np.uint8)


def _single_channel(label: Image, block: Array) -> Array:
    first: Array = block[0]
    if len(block) == 1 or (block == first).all():
        return first
    if _is_one_hot(block):
        return np.asarray(block.argmax(axis=0))
    raise ImageReadError(
        f"{label.path}: the label image has {len(block)} channels that differ and are not one-hot; "
        "a label image holds one class per pixel in one channel\n    -> save it with one channel and classes 0, 1, 2…"
    )


def _require_whole(label: Image, values: Array) -> Array:
    finite = np.isfinite(values)
    if not finite.all():
        raise ImageReadError(
            f"{label.path}: the label image holds NaN or infinite values "
            f"({np.count_nonzero(~finite)} pixels read)"
            "\n    -> give these pixels a class, or an ignore value (LOSS.IGNORE_INDEX)"
        )
    fractional = values != np.trunc(values)
    if fractional.any():
        raise ImageReadError(
            f"{label.path}: the label image holds non-integer values, e.g. {values[fractional][0]:g}; "
            "classes are whole numbers\n    -> threshold it first"
        )
    return values.astype(np.int64)


def _unknown_value(label: Image, coding: LabelCoding, value: int) -> str:
    allowed = ", ".join(str(known) for known in sorted(coding.class_of))
    return (
        f"{label.path}: the label image holds the value {value}; "
        f"{coding.num_classes} classes are coded as {allowed}"
        "\n    -> correct the label image, or set DATA.N_CLASSES or LOSS.IGNORE_INDEX (a value without annotation)"
    )
