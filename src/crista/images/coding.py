"""Which class each label value is, decided over all training label images at once."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

from crista.errors import Problem
from crista.images.label_faults import (
    OBJECTS_STEP,
    Summaries,
    channel_warnings,
    check_summaries,
    colours_of,
    empty_label_warnings,
    fix_of,
    is_broken,
    is_colour_coded,
    numbered_objects_warnings,
)
from crista.images.labels import IGNORED, MAX_VALUES, LabelCoding, LabelSummary, class_counts, make_coding
from crista.images.wording import list_names, show_values

MAX_UNSTATED_CLASSES = 8
"""More values than this are taken for classes only when DATA.N_CLASSES says so."""
LOSSY_RUN = 2.0
"""Values whose runs along x are shorter than this (median, without the two commonest values) are no objects:
they are the grey values of a border that was smoothed or compressed."""
STROKES = 0.8
"""Unless more than this share of their runs (median) has the same value on both sides: then they are thin strokes, as scribbles
and outlines are. Of smoothed and resized objects it is 0 of the runs, of JPEG at most 0.7; of strokes of one pixel nearly all."""
MOSTLY = 0.5
"""A value in more than this share of the pixels, far above the classes, is taken for "not annotated"."""
FAR = 4
"""Far: at least so many times the number of the other values."""
MAX_CONSECUTIVE = 32
"""Up to so many values without a gap are thin objects rather than grey values."""


@dataclass(frozen=True)
class CodingDecision:
    """The outcome: a coding, or the problems that prevent one."""

    coding: LabelCoding | None
    problems: tuple[Problem, ...] = ()
    warnings: tuple[Problem, ...] = ()
    likely: LabelCoding | None = None
    """Without a coding: the one that there would be once damaged files are mended."""


@dataclass(frozen=True)
class _Seen:
    """All values of the training labels, the ignore value left out."""

    values: tuple[int, ...]
    summaries: Summaries
    num_classes: int | None
    ignored: tuple[int, ...]
    where: str

    @property
    def share_of_last(self) -> float:
        """Share of the highest value among all pixels."""
        counts = sum((Counter(summary.counts) for _, summary in self.summaries), Counter())
        return counts[self.values[-1]] / max(1, counts.total())

    @property
    def allowed(self) -> int:
        """Number of classes the request allows, 2 where it does not say."""
        return self.num_classes if self.num_classes is not None else 2

    def with_ignored(self, value: int) -> str:
        """LOSS.IGNORE_INDEX that leaves `value` out as well, as one would write it."""
        return str(sorted({*self.ignored, value})) if self.ignored else str(value)


def decide_coding(
    summaries: Summaries, *, num_classes: int | None, ignore_index: int | Sequence[int] | None, where: str
) -> CodingDecision:
    """Decide what the values of all label images mean together.

    Parameters
    ----------
    summaries : one per label image
    num_classes : classes, background included
        DATA.N_CLASSES; None: counted here.
    ignore_index : stored values of pixels without annotation
        LOSS.IGNORE_INDEX; in the coding they are all `IGNORED`.
    where : the folder (or key) that messages about the whole set name

    Returns
    -------
    CodingDecision
        Values 0 to K-1 stay; two values (0 and 255) become 0 and 1, and K values with gaps become 0 to K-1 in
        their order, each with a warning. Everything else is a problem that names the values and the files. Beside files
        that are no label images, what is wrong with the others is said as well.
    """
    broken = check_summaries(summaries)
    union = {value for _, summary in summaries for value in summary.values}
    ignored = () if ignore_index is None else (ignore_index,) if isinstance(ignore_index, int) else tuple(ignore_index)
    seen = _Seen(tuple(sorted(union - set(ignored))), summaries, num_classes, ignored, where)
    if broken or not summaries:
        return _beside_broken(tuple(broken), seen)
    for attempt in (_no_foreground, _plain_classes, _ignore_suspected, _mixed_codings, _lossy, _instances, _mixed_sets, _mapped):
        decision = attempt(seen)
        if decision is not None:
            extra = (*channel_warnings(summaries), *_set_warnings(seen, decision))
            return CodingDecision(decision.coding, decision.problems, (*decision.warnings, *extra))
    return CodingDecision(None, (_unexpected(seen),))


def _beside_broken(broken: tuple[Problem, ...], seen: _Seen) -> CodingDecision:
    """The problems of files that are no label images, and what is to be mended in the others."""
    coloured = is_colour_coded(seen.summaries)
    sound = [(path, summary) for path, summary in seen.summaries if not (coloured and colours_of(summary))]
    known = [(path, mended) for path, summary in sound if (mended := _as_mended(summary)) is not None]
    if not known:
        return CodingDecision(None, broken)
    others = decide_coding(known, num_classes=seen.num_classes, ignore_index=seen.ignored, where=seen.where)
    likely = others.coding
    if likely is not None and any(summary.num_nan or min(summary.values, default=0) < 0 for _, summary in seen.summaries):
        likely = make_coding(likely.num_classes, (*seen.ignored, IGNORED), likely.mapping)  # what NaN becomes
    warnings = tuple(warning for warning in others.warnings if warning.fix)
    return CodingDecision(None, (*broken, *others.problems), warnings, likely)


def _as_mended(summary: LabelSummary) -> LabelSummary | None:
    """The classes that can be told of a file, also where it is no label image because of NaN, fractions or negative values."""
    if summary.channels == "different" or (is_broken(summary) and not fix_of(summary)):
        return None
    counts, runs = ({value: n for value, n in of.items() if value >= 0} for of in (summary.counts, summary.runs))
    left_out = len(summary.counts) - len(counts)
    return replace(summary, counts=counts, runs=runs, num_values=summary.num_values - left_out, num_nan=0, num_fractional=0)


def _no_foreground(seen: _Seen) -> CodingDecision | None:
    """Nothing but background can be read and predicted; the plan of a training refuses it."""
    if set(seen.values) - {0}:
        return None
    what = "no label image holds foreground: every pixel is 0"
    if seen.ignored:
        what += f" or the ignore value {', '.join(map(str, seen.ignored))}"
    advice = "nothing can be learnt from such a set alone: check that these are the label images"
    coding = make_coding(seen.allowed, seen.ignored)
    return CodingDecision(coding, warnings=(Problem(seen.where, what, advice),))


def _plain_classes(seen: _Seen) -> CodingDecision | None:
    """Values that are classes already."""
    count = seen.values[-1] + 1
    if seen.num_classes is not None:
        fits = count <= seen.num_classes
        return CodingDecision(make_coding(seen.num_classes, seen.ignored)) if fits else None
    consecutive = len(seen.values) == count or seen.values == (1,)
    if not consecutive or count > MAX_UNSTATED_CLASSES:
        return None
    return CodingDecision(make_coding(max(2, count), seen.ignored))


def _ignore_suspected(seen: _Seen) -> CodingDecision | None:
    """Classes plus 255, or plus a value far from them in most pixels, which nobody asked to ignore."""
    last, rest = seen.values[-1], seen.values[:-1]
    share = seen.share_of_last
    usual = last == 255 and rest == tuple(range(len(rest)))
    filling = share > MOSTLY and last >= FAR * len(rest) and rest in (tuple(range(len(rest))), tuple(range(1, len(rest) + 1)))
    if len(rest) < 2 or not (usual or filling):
        return None
    if len(rest) > (seen.num_classes or MAX_UNSTATED_CLASSES) or len(seen.values) == seen.num_classes:
        return None
    mixed = _mixed_codings(seen)
    if mixed is not None:
        return mixed
    files = _files_with(seen.summaries, lambda value: value == last)
    most = f" and fills {share:.1%} of the pixels" if share > MOSTLY else ""
    problem = Problem(
        _first(seen.summaries, lambda value: value == last),
        f"the value {last} occurs beside the classes {show_values(rest)} (in {files}){most}; often it marks pixels without "
        "annotation",
        f"set LOSS.IGNORE_INDEX: {seen.with_ignored(last)} to leave these pixels out; "
        f"if it is a class, set DATA.N_CLASSES: {len(seen.values)}",
    )
    return CodingDecision(None, (problem,))


def _mixed_codings(seen: _Seen) -> CodingDecision | None:
    """Some files 0 and 1, others 0 and 255 (or another pair)."""
    kinds: dict[int, list[str]] = defaultdict(list)
    if 0 in seen.ignored:
        return None
    for path, summary in seen.summaries:
        values = [value for value in summary.values if value != 0 and value not in seen.ignored]
        if len(values) > 1:
            return None
        if values:
            kinds[values[0]].append(path.name)
    if len(kinds) < 2 or (seen.num_classes is not None and seen.num_classes > 2):
        return None
    listed = "; ".join(f"{show_values((0, value))} in {list_names(names)}" for value, names in sorted(kinds.items()))
    count = len(kinds) + 1
    next_step = "write all label images with the classes 0 and 1 (e.g. label > 0)"
    next_step += f"; if these are {count} classes, set DATA.N_CLASSES: {count}"
    what = f"label values differ between files: {listed}"
    return CodingDecision(None, (Problem(seen.where, what, next_step, fix="every value above 0 becomes class 1"),))


def _lossy(seen: _Seen) -> CodingDecision | None:
    """Grey values between the classes: JPEG, smoothing, or resizing with interpolation."""
    bad = [(path, summary) for path, summary in seen.summaries if is_lossy(path, summary, seen.allowed)]
    if not bad:
        return None
    path, summary = bad[0]
    good = [(other.name, str(fine.num_values)) for other, fine in seen.summaries if (other, fine) not in bad]
    what = "JPEG-damaged label: " if path.suffix.lower() in (".jpg", ".jpeg") else ""
    what += f"{summary.num_values} distinct values, from {summary.values[0]} to {summary.values[-1]}: "
    what += "a lossy label image is likely (JPEG, smoothed borders, or resized with interpolation)"
    if len(bad) > 1:
        what += f"; the same in {list_names([other.name for other, _ in bad[1:]])}"
    if good:
        what += "; the other files differ: " + list_names([f"{name} holds {count} values" for name, count in good])
    half = (summary.values[0] + summary.values[-1]) // 2
    next_step = f"for two classes threshold it (label > {half}) and save it losslessly (TIFF or PNG); "
    next_step += "better, export it anew"
    fix = "each pixel gets the nearest of the commonest values, saved losslessly"
    return CodingDecision(None, (Problem(str(path), what, next_step, fix=fix),))


def is_lossy(path: Path, summary: LabelSummary, allowed: int) -> bool:
    """Whether a label image holds grey values between its classes; `allowed` classes were asked for."""
    if summary.num_values <= max(allowed, 3) or summary.num_values > 256 or summary.values[-1] > 255:
        return False
    if path.suffix.lower() in (".jpg", ".jpeg"):
        return True
    if summary.num_values <= MAX_CONSECUTIVE and summary.values == tuple(range(summary.num_values)):
        return False
    common = sorted(summary.counts, key=lambda value: -summary.counts[value])[2:]
    if median(summary.counts[value] / summary.runs[value] for value in common) >= LOSSY_RUN:
        return False
    return median(summary.enclosed.get(value, 0) / summary.runs[value] for value in common) <= STROKES


def _instances(seen: _Seen) -> CodingDecision | None:
    """Too many values for classes."""
    most = max(seen.summaries, key=lambda item: item[1].num_values)
    count = max(len(seen.values), most[1].num_values)
    if count <= max(MAX_UNSTATED_CLASSES, seen.num_classes or 0):
        return None
    shown = f"more than {MAX_VALUES}" if most[1].num_values > MAX_VALUES else str(count)
    limit = f"DATA.N_CLASSES is {seen.num_classes}" if seen.num_classes else "DATA.N_CLASSES is not set"
    stated = f"; if they are classes, set DATA.N_CLASSES: {count}" if count <= 255 else ""
    problem = Problem(
        str(most[0]),
        f"{shown} label values ({show_values(seen.values)}), too many for semantic classes ({limit}): it looks like instance ids",
        f"binarise them for foreground against background (label > 0), or write one value per class{stated}",
        fix="" if seen.num_classes and seen.num_classes > 2 else "every object becomes class 1 (label > 0)",
    )
    return CodingDecision(None, (problem,))


def _mixed_sets(seen: _Seen) -> CodingDecision | None:
    """Files of several classes each that have no value but 0 in common with the others, where nobody says how many there are."""
    kinds: list[tuple[set[int], list[str]]] = []
    for path, summary in seen.summaries:
        values, names = set(summary.values) - {0, *seen.ignored}, [path.name]
        for kind in [kind for kind in kinds if kind[0] & values]:
            kinds.remove(kind)
            values, names = values | kind[0], [*kind[1], *names]
        kinds.append((values, names))
    kinds = [kind for kind in kinds if kind[0]]
    if seen.num_classes is not None or len(kinds) < 2 or min(len(values) for values, _ in kinds) < 2:
        return None
    ordered = sorted(kinds, key=lambda kind: min(kind[0]))
    listed = "; ".join(f"{show_values((0, *sorted(values)))} in {list_names(names)}" for values, names in ordered)
    next_step = "write the same value for the same class in all label images"
    next_step += f"; if these are {len(seen.values)} classes, set DATA.N_CLASSES: {len(seen.values)}"
    return CodingDecision(None, (Problem(seen.where, f"label values differ between files: {listed}", next_step),))


def _mapped(seen: _Seen) -> CodingDecision | None:
    """Two values, or as many values as classes, with gaps: they become 0, 1, 2… in their order."""
    values = seen.values
    if seen.num_classes in (None, 2) and len(values) == 1:
        values = (0, values[0])
    if len(values) > MAX_UNSTATED_CLASSES and seen.num_classes is None:
        return None
    if seen.num_classes is not None and len(values) != seen.num_classes:
        return None
    mapping = tuple((value, index) for index, value in enumerate(values))
    arrows = ", ".join(f"{value} -> {index}" for value, index in mapping)
    counted = "" if seen.num_classes else f" ({len(values)} classes)"
    looks = f"looks like {values[0]}/{values[1]}" if len(values) == 2 else f"labels {', '.join(map(str, values))} have gaps"
    what = f"{looks}: label values {show_values(values)} are not consecutive classes; they are mapped to "
    what += f"{show_values(range(len(values)))}: {arrows}{counted}"
    if values[-1] == 255 and len(values) > 2:
        what += f". 255 is used as a class here; LOSS.IGNORE_INDEX: {seen.with_ignored(255)} would leave these pixels out"
    coding = make_coding(len(values), seen.ignored, mapping)
    next_step = "if a class occurs in no label image, or the values mean something else, write 0, 1, 2… yourself"
    effect = f"the values are read as {arrows}, in training, prediction and measurement"
    problem = Problem(seen.where, what, next_step if len(values) > 2 else "", effect, f"they are written as {arrows}")
    return CodingDecision(coding, (), (problem,))


def _unexpected(seen: _Seen) -> Problem:
    allowed = range(seen.num_classes or 2)
    outside = [value for value in seen.values if value not in allowed]
    next_step = f"set DATA.N_CLASSES: {seen.values[-1] + 1}, or correct the label images"
    if seen.values[-1] >= MAX_UNSTATED_CLASSES:
        next_step = f"write the classes {show_values(allowed)}, "
        next_step += f"or set DATA.N_CLASSES to the number of values ({len(seen.values)})"
    if seen.num_classes == 2 and len(outside) > 1:
        next_step += f"; {OBJECTS_STEP}"
    if 255 in outside:
        next_step += f"; if 255 means 'not annotated', set LOSS.IGNORE_INDEX: {seen.with_ignored(255)}"
    return Problem(
        _first(seen.summaries, lambda value: value in outside),
        f"label values {show_values(seen.values)}, "
        f"but DATA.N_CLASSES: {seen.num_classes} allows {show_values(allowed)}; "
        f"{show_values(outside)} occur in {_files_with(seen.summaries, lambda value: value in outside)}",
        next_step,
    )


def _set_warnings(seen: _Seen, decision: CodingDecision) -> list[Problem]:
    """Classes and ignore values that never occur, and files without foreground."""
    coding = decision.coding
    if coding is None:
        return []
    warnings = []
    counts = class_counts([summary.counts for _, summary in seen.summaries], coding)
    absent = [str(index) for index, count in enumerate(counts) if not count]
    if absent:
        what = f"class {list_names(absent)} occurs in no label image"
        warnings.append(Problem(seen.where, what, "check DATA.N_CLASSES", "it cannot be learnt, and is never predicted"))
    absent = [str(value) for value in seen.ignored if not any(value in summary.counts for _, summary in seen.summaries)]
    if absent:
        nothing = ": nothing is ignored" if len(absent) == len(seen.ignored) else ""
        what = (
            f"{list_names(absent)} occurs in no label image of {seen.where}{nothing}; their values are {show_values(seen.values)}"
        )
        warnings.append(Problem("LOSS.IGNORE_INDEX", what, "correct it, or leave it out"))
    if seen.num_classes is None and not seen.ignored:
        warnings += numbered_objects_warnings(seen.summaries, seen.where)
    return warnings + empty_label_warnings(seen.summaries, coding)


def _first(summaries: Summaries, wanted: Callable[[int], bool]) -> str:
    return str(next(path for path, summary in summaries if any(map(wanted, summary.values))))


def _files_with(summaries: Summaries, wanted: Callable[[int], bool]) -> str:
    found = [path.name for path, summary in summaries if any(map(wanted, summary.values))]
    return list_names(found) if len(found) <= 3 else f"{len(found)} files: {list_names(found, 3)}"
