"""Label images that hold something else than classes, and what is odd about the others."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from crista.errors import Problem
from crista.images.labels import IGNORED, MAX_VALUES, LabelCoding, LabelSummary, class_counts
from crista.images.wording import list_files, list_names, place_of, show_values

RARE = 1e-3
"""A class with a smaller share of the pixels is rare."""
MAX_SOFT_VALUES = 8
"""Soft labels between so many whole numbers at most are snapped to them."""

LEAST_GREY = 28
"""Equal channels below are numbers of classes; a grey above is as far from black as colours are from each other."""
MAX_COLOURED_GREYS = 8

LEAST_NUMBERED = 3
"""Fewer objects are not told from classes."""

OBJECTS_STEP = "if they number objects of one kind, write 1 for all of them (label > 0) and 0 elsewhere"
COLOURS_FIX = "each colour becomes a class (colours.csv keeps which)"

Summaries = Sequence[tuple[Path, LabelSummary]]
"""The label images of a set, each with its values."""


def colours_can_be_classes(summaries: Summaries) -> bool:
    """Whether colours may become classes: not beside label images of several numbers, for nobody knows which colour is which."""
    colours = {colour for _, summary in summaries for colour, _ in colours_of(summary)}
    numbers = any(len(set(summary.values) - {0}) > 1 for _, summary in summaries if not colours_of(summary))
    return len(colours) <= 2 or not numbers


def colours_of(summary: LabelSummary) -> tuple[tuple[int, int], ...]:
    """(packed colour, pixels) of a picture: of differing channels, or of equal ones that hold bright greys.

    In a set of colour-coded label images a file without a colour, all white say, has equal channels. What is as dark as 0 and 1
    is no picture: three slices of a volume, saved as red, green and blue.
    """
    if summary.channels == "different":
        brightest = max((max(colour.to_bytes(3, "big")) for colour, _ in summary.colours), default=0)
        return summary.colours if brightest >= LEAST_GREY else ()
    greys = [value for value in summary.values if value]
    is_grey = summary.channels == "equal" and summary.num_channels == 3 and summary.num_values <= MAX_COLOURED_GREYS
    if not is_grey or summary.num_nan or summary.num_fractional or any(not LEAST_GREY <= value <= 255 for value in greys):
        return ()
    return tuple((value * 0x010101, count) for value, count in summary.counts.items())


def is_colour_coded(summaries: Summaries) -> bool:
    """Whether colours stand for classes in some of these label images."""
    return any(summary.channels == "different" and colours_of(summary) for _, summary in summaries)


def check_values(path: Path, summary: LabelSummary, coding: LabelCoding, *, is_trained: bool = False) -> Problem | None:
    """What is wrong with a label image (of validation or test) under a coding that is already decided.

    `is_trained`: by a network that is there already, and does not change with the copies of the labels.
    """
    broken = _broken(summary)
    if broken is not None:
        return Problem(str(path), *broken, fix=fix_of(summary))
    unknown = [value for value in summary.values if value not in coding.class_of]
    if not unknown and summary.num_values <= MAX_VALUES:
        return None
    known = show_values(sorted(coding.class_of))
    next_step = "bring the values of all label images into the same form"
    if coding.num_classes == 2 and len(set(unknown) - {IGNORED}) > 1:
        next_step += f"; {OBJECTS_STEP}"
    if IGNORED in unknown:
        ignored = sorted({*coding.ignored_values, IGNORED})  # those of the training stay
        key = str(ignored) if len(ignored) > 1 else str(IGNORED)
        next_step += f"; if {IGNORED} means 'not annotated', train with LOSS.IGNORE_INDEX: {key}, "
        next_step += f"or measure with `crista evaluate … --ignore-index {','.join(map(str, ignored))}`"
    what = f"holds {show_values(unknown)}; the label values of this training are {known}"
    return Problem(str(path), what, next_step, fix=_fix_of_values(summary, coding, is_trained=is_trained))


def _fix_of_values(summary: LabelSummary, coding: LabelCoding, *, is_trained: bool) -> str:
    """What is done about values that `coding` does not know, in words; empty where nothing can be."""
    if coding.mapping is not None and is_trained:
        return ""  # copies hold 0, 1, 2…, which the network does not know
    values = set(summary.values) - set(coding.ignored_values)
    if coding.num_classes == 2 and len(values - {0}) == 1:
        return f"{next(iter(values - {0}))} becomes class 1"
    if coding.mapping is not None and values <= set(range(coding.num_classes)):
        return f"kept, because the training labels are written as {show_values(range(coding.num_classes))} too"
    return ""


def check_summaries(summaries: Summaries) -> list[Problem]:
    """Files that are no label image at all: NaN, fractions, negative values, differing channels.

    The same finding in many files is one problem.
    """
    groups: dict[tuple[str, str], list[tuple[Path, str]]] = defaultdict(list)
    for path, summary in summaries:
        broken = _broken(summary)
        if broken is not None:
            groups[broken[1] + _or_slices(path, summary), fix_of(summary)].append((path, broken[0]))
    problems = []
    for (next_step, fix), found in groups.items():
        path, what = found[0]
        others = [other.name for other, _ in found[1:]]
        more = f" (the same kind in {len(others)} more: {list_names(others)})" if others else ""
        problems.append(Problem(str(path), what + more, next_step, fix=fix))
    return problems


def _or_slices(path: Path, summary: LabelSummary) -> str:
    """What to do where channels are none: in Python a stack of three slices is easily written as a TIFF of red, green, blue."""
    if summary.channels != "different" or path.suffix.lower() not in (".tif", ".tiff"):
        return ""
    keys = "DATA.TRAIN.INPUT_IMG_AXES_ORDER and DATA.TRAIN.INPUT_MASK_AXES_ORDER"
    return f"; if the {summary.num_channels} channels are slices of a volume, say so of images and labels with {keys}: ZYX"


def is_broken(summary: LabelSummary) -> bool:
    """Whether a file is no label image."""
    return _broken(summary) is not None


def fix_of(summary: LabelSummary) -> str:
    """What is done about a label image that is none, in words; empty where nothing can be."""
    if summary.channels == "different":
        return COLOURS_FIX if colours_of(summary) else ""
    steps = []
    if summary.num_fractional:
        if not threshold_is_known(summary):
            return ""
        steps.append("soft values go to the nearest class value")
    if summary.num_nan:
        steps.append(f"NaN becomes {IGNORED}, and LOSS.IGNORE_INDEX leaves it out")
    negative = [value for value in summary.values if value < 0]
    if len(negative) > 1:
        return ""
    if negative:
        steps.append(f"{negative[0]} becomes {IGNORED}, and LOSS.IGNORE_INDEX leaves it out")
    return "; ".join(steps)


def threshold_is_known(summary: LabelSummary) -> bool:
    """Whether soft values can be told apart: they lie in [0, 1], or between a few whole numbers."""
    soft = summary.low is not None and summary.high is not None and summary.low >= 0 and summary.high <= 1
    soft = soft and set(summary.values) <= {0, 1}
    return soft or 2 <= summary.num_values <= MAX_SOFT_VALUES


def _broken(summary: LabelSummary) -> tuple[str, str] | None:
    """(what, next step) for one file."""
    if summary.channels == "different":
        is_picture = bool(colours_of(summary))
        colours = f" ({summary.num_colours} distinct colours: colour-coded?)" if summary.num_colours and is_picture else ""
        return (
            f"the label image has {summary.num_channels} channels that differ{colours}; "
            "it must have one channel with a class per pixel (equal and one-hot channels are understood)",
            "save it with one channel and classes 0, 1, 2…",
        )
    if summary.num_nan:
        return (
            f"the label image holds NaN or infinite values ({summary.num_nan} pixels)",
            "give these pixels a class, or 255 for 'not annotated' with LOSS.IGNORE_INDEX: 255",
        )
    if summary.num_fractional:
        return (
            f"the label image holds non-integer values, e.g. {summary.fractional_example:g} "
            f"({summary.num_fractional} pixels): soft or interpolated labels",
            "threshold it (e.g. label > 0.5), and resize label images with nearest-neighbour interpolation",
        )
    if summary.values and summary.values[0] < 0:
        return (
            f"the label image holds the negative value {summary.values[0]}; classes start at 0",
            "write 255 where there is no annotation and set LOSS.IGNORE_INDEX: 255",
        )
    return None


def channel_warnings(summaries: Summaries) -> list[Problem]:
    """Label images with equal or one-hot channels, one warning for each kind."""
    warnings = []
    for kind, text in (
        ("equal", "{n} equal channels reduced to one"),
        ("one-hot", "one-hot label image: the index of the channel ({n} channels) is the class"),
    ):
        found = [(path, summary) for path, summary in summaries if summary.channels == kind]
        if found:
            path, summary = found[0]
            more = f" ({len(found)} files)" if len(found) > 1 else ""
            what = text.format(n=summary.num_channels) + more
            warnings.append(Problem(str(path), what, effect="they are read as said", fix="written with one channel of classes"))
    return warnings


def empty_label_warnings(summaries: Summaries, coding: LabelCoding) -> list[Problem]:
    """A warning that lists the label images without a pixel of foreground, and one for those without any annotation."""
    none = {None, coding.ignore_index}
    classes = [(path, {coding.class_of.get(value) for value in summary.values} - none) for path, summary in summaries]
    found = (
        ("foreground", "nothing but background is learnt or measured there", [path for path, held in classes if held == {0}]),
        ("annotated pixel", "the image is neither trained on nor measured", [path for path, held in classes if not held]),
    )
    return [Problem(place_of(paths), f"no {what} in {_these(paths)}", effect=effect) for what, effect, paths in found if paths]


def numbered_objects_warnings(summaries: Summaries, where: str) -> list[Problem]:
    """A warning where the values look like the numbers of a few objects: 1 to n, each in one piece, n by the label image."""
    held = [[value for value in summary.values if value] for _, summary in summaries]
    pieces = [len(found) for _, summary in summaries for value, found in summary.diameters if value]
    most = max(map(len, held), default=0)
    counts_on = all(values == list(range(1, len(values) + 1)) for values in held) and len({*map(len, held)} - {0}) > 1
    in_one_piece = max(pieces, default=0) == 1 and 2 * len(pieces) >= sum(map(len, held))
    if most < LEAST_NUMBERED or not counts_on or not in_one_piece:
        return []
    what = (
        f"the values 1 to {most} look like the numbers of objects (instance ids): each is one piece wherever it occurs, and each "
        "label image holds those from 1 to as many as it has objects"
    )
    return [Problem(where, what, OBJECTS_STEP, "each number is taken for a class of its own")]


def _these(paths: Sequence[Path]) -> str:
    return f"{len(paths)} label images: {list_files(paths)}" if len(paths) > 1 else "this label image"


def rare_class_warnings(
    summaries: Summaries, coding: LabelCoding | None, names: Sequence[str] | None, where: str
) -> list[Problem]:
    """Classes with so few pixels that few patches show them."""
    if coding is None:
        return []
    counts = class_counts([summary.counts for _, summary in summaries], coding)
    total = sum(counts)
    warnings = []
    for index in range(1, coding.num_classes):
        if 0 < counts[index] < RARE * total:
            named = f" ({names[index]})" if names and index < len(names) else ""
            files = sum(any(coding.class_of[value] == index for value in summary.values) for _, summary in summaries)
            share = f"{100 * counts[index] / total:.2g} % of the pixels, in {files} of {len(summaries)} label images"
            effect = "few patches show it: it is learnt slowly, and its figures rest on few pixels"
            step = "annotate more of it, or merge it with another class; LOSS.CLASS_REBALANCE: auto weighs it higher"
            warnings.append(Problem(where, f"class {index}{named} in {share}", step, effect))
    return warnings
