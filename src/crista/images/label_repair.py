"""Label images made sound: colours, soft values, grey borders, NaN and values with gaps become classes 0, 1, 2…

Two steps. Each file becomes whole numbers (`_Rewriting`); then what the numbers of all files mean is decided together, by the
rules of `crista.images.coding`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from crista.geometry.axes import Array
from crista.images.coding import MAX_UNSTATED_CLASSES, decide_coding, is_lossy
from crista.images.label_faults import Summaries, colours_can_be_classes, colours_of, fix_of, is_colour_coded
from crista.images.labels import IGNORED, MAX_VALUES, LabelSummary, pack_colours
from crista.images.wording import plural, show_values

LEAST_SHARE = 0.005
"""A value with a smaller share of the pixels of damaged label images is a grey value of a border, not a class."""
LEAST_DISTANCE = 16
"""Values closer than a sixteenth of the range are one value that was blurred."""

LEAST_COLOUR_DISTANCE = 48.0
"""The same of colours, as distance in red, green and blue of 0 to 255."""

NOT_ANNOTATED = -1
"""What pixels without annotation are between the two steps; the values that files hold are not below 0 there."""
ANY_OBJECT = -2
"""As a key of a mapping: every value above 0."""

Values = Mapping[int, int]
"""Pixels of each value."""


@dataclass(frozen=True)
class LabelRepair:
    """How one label image becomes classes."""

    seen: tuple[str, ...]
    """What is wrong with it; empty: nothing, it is copied."""
    done: tuple[str, ...]
    """What is done about it, one for each."""
    apply: Callable[[Array], NDArray[np.uint8]]
    """C(Z)YX as stored -> (Z)YX classes."""


@dataclass(frozen=True)
class RepairPlan:
    """What becomes of all label images of a data set."""

    repairs: dict[Path, LabelRepair]
    """The label images that can be made sound, or are."""
    hopeless: dict[Path, str]
    """Those that cannot, and what was seen."""
    ignore_index: int | None
    """Value of pixels without annotation in what is written."""
    colours: dict[int, int]
    """Class of each packed colour; empty without colour-coded labels."""


@dataclass(frozen=True)
class _Rewriting:
    """The first step for one file: stored pixels -> whole numbers."""

    seen: tuple[str, ...]
    done: tuple[str, ...]
    rewrite: Callable[[Array], Array]
    counts: dict[int, int]
    marks_ignored: bool = False


def plan_repairs(train: Summaries, others: Summaries, *, num_classes: int | None, ignore_index: int | None) -> RepairPlan:
    """Decide over the training labels what the values of all label images become.

    Parameters
    ----------
    train : label images of the training, or of the test where nothing is trained
    others : all other label images
    num_classes, ignore_index : DATA.N_CLASSES and LOSS.IGNORE_INDEX; None where they are not set
    """
    everything = [*train, *others]
    named = colours_can_be_classes(everything)
    named = named and is_colour_coded(everything)
    colours = _decide_colours([summary for _, summary in everything], num_classes) if named else {}
    snapped = _true_values(everything, num_classes, ignore_index)
    rewritings: dict[Path, _Rewriting] = {}
    hopeless: dict[Path, str] = {}
    for path, summary in everything:
        found = _rewrite(path, summary, colours, snapped, num_classes)
        if found is None:
            hopeless[path] = "no class values can be told from what is in it"
        else:
            rewritings[path] = found
    learnt = [(path, rewritings[path]) for path, _ in train if path in rewritings]
    mapping = _decide_mapping(learnt, num_classes, ignore_index)
    mappings: dict[Path, dict[int, int]] = {}
    for path, found in rewritings.items():
        known = _mapping_of(found, mapping, num_classes, ignore_index) if mapping is not None else None
        if known is None:
            hopeless[path] = f"the values {show_values(sorted(found.counts))} do not say which classes they are"
        else:
            mappings[path] = known
    # Classes that are written anew could meet the value that is ignored, which is then written as one that is no class.
    is_changed = any(rewritings[path].seen or _moved(rewritings[path], known, ignore_index) for path, known in mappings.items())
    written = IGNORED
    if ignore_index is not None and ignore_index < IGNORED and not is_changed:
        written = ignore_index
    repairs = {path: _complete(rewritings[path], known, ignore_index, written) for path, known in mappings.items()}
    has_ignored = ignore_index is not None or any(found.marks_ignored for found in rewritings.values())
    return RepairPlan(repairs, hopeless, written if has_ignored else None, colours)


def _rewrite(
    path: Path, summary: LabelSummary, colours: dict[int, int], snapped: tuple[int, ...], num_classes: int | None
) -> _Rewriting | None:
    """The first step for one file, or None."""
    if summary.channels == "different" or (colours and colours_of(summary)):
        return _recolour(summary, colours)
    found = _reduce(summary)
    faulty = summary.num_nan or summary.num_fractional or any(value < 0 for value in summary.values)
    if faulty:
        return _make_whole(found, summary) if fix_of(summary) else None
    if is_lossy(path, summary, num_classes or 2):
        return _snap(found, summary, snapped) if len(snapped) > 1 else None
    return found


def _reduce(summary: LabelSummary) -> _Rewriting:
    """One channel of the stored ones."""
    counts = dict(summary.counts)
    if summary.channels == "equal":
        seen = f"{summary.num_channels} equal channels"
        return _Rewriting((seen,), ("the first is kept",), lambda block: block[0], counts)
    if summary.channels == "one-hot":
        seen = f"one-hot, {summary.num_channels} channels"
        return _Rewriting((seen,), ("the index of the channel is the class",), lambda block: block.argmax(axis=0), counts)
    return _Rewriting((), (), lambda block: block[0], counts)


def _recolour(summary: LabelSummary, colours: dict[int, int]) -> _Rewriting | None:
    held = colours_of(summary)
    if not colours or not held:
        return None
    packed = np.array(sorted(colours))
    classes = np.array([colours[colour] for colour in packed.tolist()])

    def classify(found: NDArray[np.int64]) -> NDArray[np.int64]:
        return np.asarray(classes[_squared_distances(found, packed).argmin(axis=1)])

    def rewrite(block: Array) -> Array:
        found, inverse = np.unique(pack_colours(block), return_inverse=True)
        return classify(found)[inverse].reshape(block.shape[1:])

    stored, numbers = zip(*held, strict=True)
    counts = _add_up(classify(np.array(stored)), numbers)
    number = summary.num_colours or len(held)
    exact = all(colour in colours for colour, _ in held) and number <= len(held)
    done = f"each of {len(colours)} colours becomes a class (colours.csv)"
    done += "" if exact else "; other colours go to the nearest of them"
    return _Rewriting((f"colour-coded, {plural(number, 'colour')}",), (done,), rewrite, counts)


def _squared_distances(colours: NDArray[np.int64], others: NDArray[np.int64]) -> NDArray[np.int64]:
    """Of each packed colour from each of `others`, in red, green and blue."""
    first, second = (np.stack([packed >> 16, (packed >> 8) & 255, packed & 255], axis=-1) for packed in (colours, others))
    return np.asarray(np.square(first[:, None, :] - second[None]).sum(axis=2))


def _add_up(values: NDArray[np.int64], numbers: Iterable[int]) -> dict[int, int]:
    """The sum of the numbers of equal values."""
    counts: Counter[int] = Counter()
    for value, number in zip(values.tolist(), numbers, strict=True):
        counts[value] += number
    return dict(counts)


def _decide_colours(summaries: Sequence[LabelSummary], num_classes: int | None) -> dict[int, int]:
    """Class of each colour that occurs often: black (else the commonest) is 0, the others follow by red, green, blue."""
    counts: Counter[int] = Counter()
    for summary in summaries:
        counts.update(dict(colours_of(summary)))
    most = num_classes or MAX_UNSTATED_CLASSES
    exact = len(counts) <= most and all((summary.num_colours or 0) <= most for summary in summaries)
    chosen: list[int] = []
    for colour, count in counts.most_common():
        distances = _squared_distances(np.array([colour]), np.array(chosen, np.int64))
        far = bool((distances >= LEAST_COLOUR_DISTANCE**2).all())
        if len(chosen) < most and (exact or (far and count >= LEAST_SHARE * counts.total())):
            chosen.append(colour)
    if len(chosen) < 2:
        return {}
    background = 0 if 0 in chosen else chosen[0]
    return {colour: index for index, colour in enumerate([background, *sorted(set(chosen) - {background})])}


def _make_whole(found: _Rewriting, summary: LabelSummary) -> _Rewriting:
    """NaN and negative values become `NOT_ANNOTATED`, soft values the nearest class value."""
    negative = [value for value in summary.values if value < 0]
    soft = bool(summary.num_fractional)
    values = [value for value in summary.values if value >= 0]
    known = np.array(values if soft and len(values) > 1 else [0, 1])
    seen, done = list(found.seen), list(found.done)
    if soft:
        seen.append(f"{summary.num_fractional} soft (non-integer) values, e.g. {summary.fractional_example:g}")
        done.append(f"thresholded: the nearest of {show_values(known.tolist())}")
    for count, what in (
        (summary.num_nan, "NaN or infinite values"),
        (sum(summary.counts[v] for v in negative), "negative values"),
    ):
        if count:
            seen.append(f"{count} {what}")
            done.append(f"written as {IGNORED} (not annotated)")

    def rewrite(block: Array) -> Array:
        pixels = found.rewrite(block)
        finite = np.isfinite(pixels)
        filled = np.where(finite, pixels, 0).astype(np.float64)
        whole = _nearest(filled, known) if soft else filled.astype(np.int64)
        return np.asarray(np.where(finite & (filled >= 0), whole, NOT_ANNOTATED))

    counts = {value: summary.counts.get(value, 0) for value in (known.tolist() if soft else values)}
    return _Rewriting(tuple(seen), tuple(done), rewrite, counts, bool(summary.num_nan or negative))


def _snap(found: _Rewriting, summary: LabelSummary, known: tuple[int, ...]) -> _Rewriting:
    seen = f"{summary.num_values} distinct values, {summary.values[0]} to {summary.values[-1]}: JPEG, smoothing or interpolation"
    done = f"each pixel gets the nearest of {show_values(known)}"
    true = np.array(known)
    counts = _add_up(_nearest(np.array(list(summary.counts), np.float64), true), summary.counts.values())

    def rewrite(block: Array) -> Array:
        return _nearest(found.rewrite(block).astype(np.float64), true)

    return _Rewriting((*found.seen, seen), (*found.done, done), rewrite, counts)


def _nearest(pixels: NDArray[np.float64], known: NDArray[np.int64]) -> NDArray[np.int64]:
    """The nearest of the increasing values `known`; halfway between two goes to the lower one."""
    borders = (known[1:] + known[:-1]) / 2
    return np.asarray(known[np.searchsorted(borders, pixels, side="left")])


def _true_values(summaries: Summaries, num_classes: int | None, ignore_index: int | None) -> tuple[int, ...]:
    """The values that damaged label images had before: those of the sound files, else their own commonest ones."""
    bad = [(path, summary) for path, summary in summaries if is_lossy(path, summary, num_classes or 2)]
    if not bad:
        return ()
    counts: Counter[int] = Counter()
    for _, summary in bad:
        counts.update(summary.counts)
    damaged = {path for path, _ in bad}
    sound = sorted({value for path, summary in summaries if path not in damaged for value in summary.values if value >= 0})
    alike = 1 < len(sound) <= (num_classes or MAX_UNSTATED_CLASSES) and 2 * sound[-1] >= max(counts)
    if alike:
        return tuple(sound)
    span = max(counts) - min(counts)
    chosen: list[int] = []
    most = (num_classes or MAX_UNSTATED_CLASSES) + (ignore_index is not None)
    for value, count in counts.most_common():
        far = all(abs(value - other) * LEAST_DISTANCE >= span for other in chosen)
        if far and len(chosen) < most and count >= LEAST_SHARE * counts.total():
            chosen.append(value)
    return tuple(sorted(chosen))


def _decide_mapping(
    learnt: Sequence[tuple[Path, _Rewriting]], num_classes: int | None, ignore_index: int | None
) -> dict[int, int] | None:
    """Class of each value of the training labels; or `ANY_OBJECT`."""
    if not learnt:
        return None
    summaries = [(Path(), _as_summary(found.counts)) for _, found in learnt]  # what was a JPEG is mended by now
    decision = decide_coding(summaries, num_classes=num_classes, ignore_index=ignore_index, where="")
    if decision.coding is not None:
        return decision.coding.class_of
    values = {value for _, found in learnt for value in found.counts} - {ignore_index}
    binary = num_classes in (None, 2)
    if binary and (_differ_in_their_foreground(learnt, ignore_index) or _are_instances(values, learnt)):
        return {0: 0, ANY_OBJECT: 1}
    return None


def _differ_in_their_foreground(learnt: Iterable[tuple[Path, _Rewriting]], ignore_index: int | None) -> bool:
    return all(len(set(found.counts) - {0, ignore_index}) <= 1 for _, found in learnt)


def _are_instances(values: set[int], learnt: Iterable[tuple[Path, _Rewriting]]) -> bool:
    return max(len(values), *(len(found.counts) for _, found in learnt)) > MAX_UNSTATED_CLASSES


def _mapping_of(
    found: _Rewriting, mapping: dict[int, int], num_classes: int | None, ignore_index: int | None
) -> dict[int, int] | None:
    """The mapping that serves one file: the one of the training, or, with two classes, its own foreground value."""
    values = set(found.counts) - {ignore_index}
    if ANY_OBJECT in mapping or values <= set(mapping):
        return mapping
    count = len(set(mapping.values()) - {IGNORED})
    if count == 2 and len(values - {0}) == 1:
        return {0: 0, next(iter(values - {0})): 1}
    plain = {index: index for index in range(num_classes or count)}
    return plain if values <= set(plain) else None


def _moved(found: _Rewriting, mapping: dict[int, int], ignore_index: int | None) -> bool:
    """Whether a value is not its class already."""
    return any(mapping.get(value, int(value > 0)) != value for value in found.counts if value != ignore_index)


def _complete(found: _Rewriting, mapping: dict[int, int], ignore_index: int | None, written: int) -> LabelRepair:
    """Both steps as one; `written` is what pixels without annotation become."""
    values = sorted(set(found.counts) - {ignore_index})
    seen, done = list(found.seen), list(found.done)
    if _moved(found, mapping, ignore_index):
        seen.append(_describe(values))
        arrows = ", ".join(f"{value} -> {mapping.get(value, 1)}" for value in values)
        done.append("every value above 0 becomes class 1" if ANY_OBJECT in mapping else arrows)
    if ignore_index in found.counts and ignore_index != written:
        seen.append(f"{ignore_index} where nothing is annotated")
        done.append(f"written as {written}")

    def apply(block: Array) -> NDArray[np.uint8]:
        numbers = found.rewrite(block)
        classes = np.zeros(numbers.shape, np.uint8)
        if ANY_OBJECT in mapping:
            classes[numbers > 0] = 1
        else:
            for value, index in mapping.items():
                classes[numbers == value] = index
        for ignored in (NOT_ANNOTATED, ignore_index):
            if ignored is not None:
                classes[numbers == ignored] = written
        return classes

    return LabelRepair(tuple(seen), tuple(done), apply)


def _describe(values: Sequence[int]) -> str:
    """``looks like 0/255``, ``labels {0, 2, 5} have gaps``, ``12 values: instance ids``."""
    if len(values) > MAX_UNSTATED_CLASSES:
        more = "more than " if len(values) >= MAX_VALUES else ""
        return f"{more}{len(values)} values: looks like instance ids"
    if len(values) <= 2:
        return f"looks like {'/'.join(map(str, values))}"
    return f"labels {show_values(values)} have gaps"


def _as_summary(counts: Values) -> LabelSummary:
    """A summary of values in whole objects."""
    ordered = dict(sorted(counts.items()))
    runs = {value: max(1, count // 100) for value, count in ordered.items()}
    return LabelSummary(ordered, runs, min(len(ordered), MAX_VALUES + 1), 0, 0, None, "one", 1)
