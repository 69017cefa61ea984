"""Which label belongs to which image: by name, never by position alone."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import TypeVar

from crista.errors import DataError, Problem
from crista.images.image import stem
from crista.images.wording import list_names, plural

Units = tuple[str, ...]
"""A name cut into units: each run of digits (without leading zeros) is one, each other character is one."""

Key = TypeVar("Key", bound=Hashable)

LISTED = 20
BESIDE = 0.8
"""Share of the files of a folder that must be images or their labels for it to be said that it holds both."""
SAMPLED = 40
"""Names per side among which the constant difference between image and label names is looked for."""


@dataclass(frozen=True)
class _Match:
    """One way of pairing; `partner[i]` is the label of image i."""

    partner: dict[int, int]
    notice: str


def pair_files(images: Sequence[Path], labels: Sequence[Path]) -> tuple[list[tuple[Path, Path]], list[str]]:
    """Pairs in the order of `images`, and notices about pairs whose names are not the same.

    Tried in this order: equal names; names equal but for capitals or the Unicode form; names equal but for
    leading zeros (1 and 01); names that differ by one constant part (image_001 and mask_001). One image and
    one label are a pair whatever their names. Every pairing but the first is told in a notice that lists the
    first pairs.

    Raises
    ------
    DataError
        Names occur twice, counts differ, or names do not match: each leftover image and label is listed.
    """
    doubles = _describe_doubles(images, labels)
    images, labels = _first_of_each(images), _first_of_each(labels)
    best = _best_match(images, labels)
    if len(images) == len(labels) == 1 and not best.partner:
        best = _Match({0: 0}, "one image and one label, paired although their names differ")
    is_complete = len(best.partner) == len(images) == len(labels)
    problems = doubles if is_complete else [*doubles, *_describe_leftovers(best, images, labels, counted=not doubles)]
    if problems:
        raise DataError("with the pairing of images and labels", problems)
    return _pairs(best, images, labels)


def pair_what_matches(images: Sequence[Path], labels: Sequence[Path]) -> tuple[list[tuple[Path, Path]], list[str]]:
    """The pairs that names leave no doubt about, and the notices of `pair_files`; files without a partner are left out."""
    images, labels = _without_doubles(images), _without_doubles(labels)
    return _pairs(_best_match(images, labels), images, labels)


def find_labels_beside(paths: Sequence[Path]) -> list[tuple[Path, Path]]:
    """(image, label) of a folder that holds both, told by a part that is added to the names: img_1.tif and img_1_mask.png.

    Empty unless most of `paths` are such pairs; what is added must hold a letter, for img_1 and img_10 are two images.
    """
    of_name = {stem(path): path for path in paths}
    found: dict[tuple[str, str], list[tuple[Path, Path]]] = defaultdict(list)
    for name, path in of_name.items():
        for cut in range(1, len(name)):
            for part, rest, form in ((name[cut:], name[:cut], "end"), (name[:cut], name[cut:], "start")):
                if rest in of_name and any(map(str.isalpha, part)):
                    found[part, form].append((of_name[rest], path))
    most = max(found.values(), key=len, default=[])
    return most if len(most) >= BESIDE * len(paths) / 2 else []


def _best_match(images: Sequence[Path], labels: Sequence[Path]) -> _Match:
    """The first way of pairing that finds most partners."""
    attempts = (_match_exactly, _match_folded, _match_numbers, _match_renamed)
    return max((attempt(images, labels) for attempt in attempts), key=lambda match: len(match.partner))


def _without_doubles(paths: Sequence[Path]) -> list[Path]:
    """Those whose names do not differ from others in the extension only."""
    return [path for same in _by_stem(paths).values() if len(same) == 1 for path in same]


def _first_of_each(paths: Sequence[Path]) -> list[Path]:
    """One of those whose names differ in the extension only."""
    return [same[0] for same in _by_stem(paths).values()]


def _by_stem(paths: Sequence[Path]) -> dict[str, list[Path]]:
    groups: dict[str, list[Path]] = defaultdict(list)
    for path in paths:
        groups[unicodedata.normalize("NFC", stem(path))].append(path)
    return groups


def _pairs(match: _Match, images: Sequence[Path], labels: Sequence[Path]) -> tuple[list[tuple[Path, Path]], list[str]]:
    pairs = [(images[image], labels[label]) for image, label in sorted(match.partner.items())]
    differing = [(image.name, label.name) for image, label in pairs if stem(image) != stem(label)]
    if not match.notice or not differing:
        return pairs, []
    listed = ", ".join(f"{image} with {label}" for image, label in differing[:3])
    more = f" and {len(differing) - 3} more" if len(differing) > 3 else ""
    return pairs, [f"{match.notice}: {listed}{more}"]


def _fold(path: Path) -> str:
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", stem(path)).casefold())


def _units(path: Path) -> Units:
    return tuple(unit.lstrip("0") or "0" if unit.isdecimal() else unit for unit in re.findall(r"\d+|\D", _fold(path)))


def _match_by(key: Callable[[Path], Hashable], notice: str, images: Sequence[Path], labels: Sequence[Path]) -> _Match:
    """Images and labels with equal keys."""
    image_at, label_at = _unique_positions(map(key, images)), _unique_positions(map(key, labels))
    return _Match({index: label_at[name] for name, index in image_at.items() if name in label_at}, notice)


def _unique_positions(keys: Iterable[Key]) -> dict[Key, int]:
    """The position of each key; one that occurs twice matches nothing."""
    keys = list(keys)
    counts = Counter(keys)
    return {key: index for index, key in enumerate(keys) if counts[key] == 1}


def _match_exactly(images: Sequence[Path], labels: Sequence[Path]) -> _Match:
    return _match_by(stem, "", images, labels)


def _match_folded(images: Sequence[Path], labels: Sequence[Path]) -> _Match:
    notice = "images and labels are paired although their names differ in capitals or in the Unicode form"
    return _match_by(_fold, notice, images, labels)


def _match_numbers(images: Sequence[Path], labels: Sequence[Path]) -> _Match:
    return _match_by(_units, "images and labels are paired by their numbers (natural order)", images, labels)


def _match_renamed(images: Sequence[Path], labels: Sequence[Path]) -> _Match:
    """Pair by the one replacement of a part of the image name by a part of the label name that fits most."""
    image_units, label_units = [_units(path) for path in images], [_units(path) for path in labels]
    counts = Counter(
        difference
        for image in image_units[:SAMPLED]
        for label in label_units[:SAMPLED]
        if (difference := _difference(image, label)) is not None
    )
    if not counts:
        return _Match({}, "")
    # Ties go to "nothing is replaced", then to the shortest replacement.
    rank = {pair: (count, pair == ((), ()), -len(pair[0]) - len(pair[1])) for pair, count in counts.items()}
    old, new = max(rank, key=lambda pair: rank[pair])
    is_weak = counts[old, new] == 1 or list(rank.values()).count(rank[old, new]) > 1
    if is_weak and _is_ambiguous((old, new), image_units, label_units):
        return _Match({}, "")
    label_at = _unique_positions(label_units)
    claims: dict[int, int] = {}
    for index, units in enumerate(image_units):
        found = {label_at[name] for name in _replacements(units, old, new) if name in label_at}
        if len(found) == 1:
            claims[index] = found.pop()
    claimed = Counter(claims.values())
    partner = {index: label for index, label in claims.items() if claimed[label] == 1}
    shown = f"'{''.join(old)}' in the image names for '{''.join(new)}' in the label names"
    return _Match(partner, f"images and labels are paired by name, taking {shown}")


def _difference(image: Units, label: Units) -> tuple[Units, Units] | None:
    """What is left of two names without their common start and end; None if they share nothing."""
    shorter = min(len(image), len(label))
    start = next((i for i in range(shorter) if image[i] != label[i]), shorter)
    rest = shorter - start
    end = next((i for i in range(rest) if image[-1 - i] != label[-1 - i]), rest)
    if start + end == 0:
        return None
    return image[start : len(image) - end], label[start : len(label) - end]


def _is_ambiguous(replaced: tuple[Units, Units], images: Sequence[Units], labels: Sequence[Units]) -> bool:
    """Whether what the first pair with this difference has in common is in other names too: img_A and img_C, beside img_B."""
    image, label = next(pair for pair in product(images[:SAMPLED], labels[:SAMPLED]) if _difference(*pair) == replaced)
    common = len(image) - len(replaced[0])
    start = next((i for i in range(common) if image[i] != label[i]), common)
    end = common - start

    def has_it(name: Units) -> bool:
        return len(name) >= common and name[:start] == image[:start] and name[len(name) - end :] == image[len(image) - end :]

    return sum(map(has_it, images)) > 1 or sum(map(has_it, labels)) > 1


def _replacements(units: Units, old: Units, new: Units) -> set[Units]:
    """`units` with `old` replaced by `new` at each place where it occurs."""
    size = len(old)
    places = [i for i in range(len(units) - size + 1) if units[i : i + size] == old]
    return {units[:i] + new + units[i + size :] for i in places}


def _describe_doubles(images: Sequence[Path], labels: Sequence[Path]) -> list[Problem]:
    """Files whose names differ in the extension only: which of them is meant cannot be known."""
    problems = [*_find_doubles(images, "images"), *_find_doubles(labels, "labels")]
    if problems and _best_match(_without_doubles(images), _without_doubles(labels)).partner:
        return [replace(problem, fix="none of them is used") for problem in problems]
    return problems


def _find_doubles(paths: Sequence[Path], kind: str) -> list[Problem]:
    """One problem for all, with the files of the first."""
    doubles = {name: same for name, same in _by_stem(paths).items() if len(same) > 1}
    if not doubles:
        return []
    (name, same), *others = doubles.items()
    what = f'{"two" if len(same) == 2 else len(same)} {kind} with the stem "{name}": {", ".join(path.name for path in same)}'
    if others:
        what += f" (and {plural(len(others), 'more stem')}: {list_names([name for name, _ in others], LISTED)})"
    return [Problem(str(same[0].parent), what, "keep one of them")]


def _describe_leftovers(best: _Match, images: Sequence[Path], labels: Sequence[Path], *, counted: bool) -> list[Problem]:
    image_folder, label_folder = images[0].parent, labels[0].parent
    taken = set(best.partner.values())
    lonely_images = [path.name for index, path in enumerate(images) if index not in best.partner]
    lonely_labels = [path.name for index, path in enumerate(labels) if index not in taken]
    problems = []
    fix = "files without a partner are left out" if taken else ""
    if counted and len(images) != len(labels):
        what = f"{plural(len(images), 'image')} in {image_folder}, "
        what += f"{plural(len(labels), 'label')} in {label_folder}"
        problems.append(Problem("", what, "there must be one label per image, of the same name", fix=fix))
    if lonely_images:
        what = f"without a label of the same name in {label_folder}: {list_names(lonely_images, LISTED)}"
        next_step = "add the labels, rename them like the images, or move these images away"
        problems.append(Problem(str(image_folder), what, next_step, fix=fix))
    if lonely_labels:
        what = f"without an image of the same name in {image_folder}: {list_names(lonely_labels, LISTED)}"
        next_step = "add the images, rename the labels like them, or move these labels away"
        problems.append(Problem(str(label_folder), what, next_step, fix=fix))
    return problems
