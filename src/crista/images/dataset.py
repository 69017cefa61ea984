"""The pairs of one split, opened: unreadable files and mismatches are collected, none stops the others."""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from crista.config.data import TestData, TrainData, ValidationData
from crista.errors import DataError, ImageReadError, Problem
from crista.geometry.spacing import Spacing
from crista.images.content import CONTAINERS, identify_content
from crista.images.image import Image, ImagePair
from crista.images.listing import expand_home, list_images
from crista.images.open import open_image
from crista.images.pairing import find_labels_beside, pair_files, pair_what_matches
from crista.images.wording import LEFT_OUT, list_files, list_names

Role = Literal["train", "val", "test"]
PathPair = tuple[Path, Path | None]
Pairing = Callable[[Sequence[Path], Sequence[Path]], tuple[list[tuple[Path, Path]], list[str]]]


@dataclass(frozen=True)
class OpenedPairs:
    """What could be opened of one split, and what could not."""

    pairs: tuple[ImagePair, ...]
    """Every image has the number of spatial axes of the task; labels are None where none were asked for."""
    problems: list[Problem] = field(default_factory=list)
    notices: list[str] = field(default_factory=list)
    lonely_images: tuple[Image, ...] = ()
    """Of pairs whose label image cannot be opened."""
    lonely_labels: tuple[Image, ...] = ()
    """Of pairs whose image cannot be opened."""


def open_pairs(
    section: TrainData | ValidationData | TestData,
    *,
    ndim: int | None,
    with_labels: bool,
    role: Role,
    pairing: Pairing = pair_files,
    to_predict: bool = False,
) -> OpenedPairs:
    """List, pair and open the files of DATA.TRAIN, DATA.VAL or DATA.TEST. Pixels are not read.

    Parameters
    ----------
    ndim : spatial axes of the task
        None: seen from the files. A label image tells a stack from channels where the image has no metadata;
        files of different dimensions are a problem, and those that are fewer are left out.
    with_labels : whether label images are opened too
    role : which section it is; messages name its keys
    pairing : which label belongs to which image; raises a `DataError` where that cannot be told
    to_predict : the images are for a network that is trained: what messages advise can still be done then
    """
    found = _Opener(section, f"DATA.{role.upper()}", with_labels, pairing, to_predict=to_predict)
    opened = [pair for files in found.list_pairs() if (pair := found.open(files, ndim)) is not None]
    if ndim is None and opened:
        ndim = found.infer_ndim(opened)
        alike = [pair for pair in opened if _vote(pair) in (None, ndim)] if ndim else []
        opened = [again for pair in alike if ndim and (again := found.reopen(pair, ndim)) is not None]
    pairs = found.apply_resolution(opened)
    fix = LEFT_OUT if pairs else ""
    unreadable = [replace(problem, fix=fix) for problem in merge_equal(found.unreadable)]
    lonely = tuple(found.lonely_images), tuple(found.lonely_labels)
    return OpenedPairs(pairs, [*found.problems, *unreadable], found.notices, *lonely)


class _Opener:
    """Opens the files of one section and keeps what went wrong."""

    def __init__(
        self,
        section: TrainData | ValidationData | TestData,
        key: str,
        with_labels: bool,
        pairing: Pairing,
        *,
        to_predict: bool = False,
    ) -> None:
        self.section = section
        self.to_predict = to_predict
        self.pairing = pairing
        self.key = key
        self.with_labels = with_labels
        self.problems: list[Problem] = []
        self.unreadable: list[tuple[Path, Problem]] = []
        self.notices: list[str] = []
        self.lonely_images: list[Image] = []
        self.lonely_labels: list[Image] = []

    def list_pairs(self) -> list[PathPair]:
        """Paths of images and labels, paired as far as that can be done; empty if something is wrong with the folders."""
        images = self._list("PATH", self.section.path)
        if not self.with_labels:
            return [(path, None) for path in images]
        if self.section.input_zarr_multiple_data:
            return [(path, path) for path in images] if self._has_inner_paths() else []
        labels = self._list("GT_PATH", self.section.gt_path)
        if not images or not labels:
            return []
        try:
            pairs, notices = self.pairing(images, labels)
        except DataError as error:
            self.problems.extend(error.problems)
            pairs, notices = pair_what_matches(images, labels)  # what is wrong with those is to be said as well
        self.notices.extend(notices)
        return [] if self._are_the_same(pairs) else [(image, label) for image, label in pairs]

    def _list(self, name: str, path: str | None) -> list[Path]:
        if not path:
            what = "is not set: the folder of the images" if name == "PATH" else "is not set: the folder of the labels"
            self.problems.append(Problem(f"{self.key}.{name}", what, f"set {self.key}.{name} to a folder or a file"))
            return []
        try:
            return list_images(expand_home(path))
        except DataError as error:
            key = f"{self.key}.{name}"
            self.problems.extend(replace(problem, where=f"{key} {problem.where}") for problem in error.problems)
            return []

    def _are_the_same(self, pairs: Sequence[tuple[Path, Path]]) -> bool:
        """Whether images are given as their own labels; that is a problem."""
        apart = self._inner(False) != self._inner(True)
        same = [image for image, label in pairs if _is_same_file(image, label) and not (apart and _is_container(image))]
        if same:
            what = f"{list_files(same)}: image and label are the same file, so the image would be its own label"
            next_step = "give the folder of the label images" + _beside(same)
            if _is_container(same[0]):
                inside = [f"labels/{path.name}" for path in sorted(same[0].glob("labels/*")) if path.is_dir()]
                found = f" (found: {list_names(inside)})" if inside else ""
                next_step += (
                    f"; for image and label inside one file{found} set "
                    f"{self.key}.INPUT_ZARR_MULTIPLE_DATA: True and the two inner paths, "
                    "…_RAW_PATH and …_GT_PATH"
                )
                # Opening it says which arrays there are, if there are several.
                self._open_one(same[0], None, is_label=False)
            self.problems.append(Problem(f"{self.key}.GT_PATH", what, next_step))
        return bool(same)

    def _has_inner_paths(self) -> bool:
        missing = [
            f"{self.key}.INPUT_ZARR_MULTIPLE_DATA_{name}_PATH"
            for name, inner in (("RAW", self._inner(False)), ("GT", self._inner(True)))
            if inner is None
        ]
        for key in missing:
            what = f"is not set, and {self.key}.INPUT_ZARR_MULTIPLE_DATA is True"
            self.problems.append(Problem(key, what, "give the path inside the file, e.g. volumes/raw"))
        return not missing

    def _inner(self, is_label: bool) -> str | None:
        section = self.section
        inner = section.input_zarr_multiple_data_gt_path if is_label else section.input_zarr_multiple_data_raw_path
        return inner or None

    def open(self, files: PathPair, ndim: int | None) -> ImagePair | None:
        """Both files of a pair; None (and a problem for each) if one cannot be read."""
        image = self._open_one(files[0], ndim, is_label=False)
        label = self._open_one(files[1], ndim, is_label=True) if files[1] is not None else None
        if image is None or (label is None and files[1] is not None):
            self.lonely_images += [image] if image is not None else []
            self.lonely_labels += [label] if label is not None else []
            return None
        return ImagePair(image, label)

    def _open_one(self, path: Path, ndim: int | None, *, is_label: bool) -> Image | None:
        section = self.section
        axes = section.input_mask_axes_order if is_label else section.input_img_axes_order
        inner = self._inner(is_label) if _is_container(path) else None
        try:
            return open_image(path, ndim=ndim, axes=axes, inner=inner, is_label=is_label, to_predict=self.to_predict)
        except ImageReadError as error:
            own_keys = {"DATA.TRAIN.INPUT_ZARR": f"{self.key}.INPUT_ZARR"}  # readers do not know for whom they read
            self.unreadable.append((path, as_problem(path, error).reworded(own_keys)))
            return None

    def infer_ndim(self, pairs: Sequence[ImagePair]) -> int | None:
        """2 or 3, the same for all pairs; otherwise a problem that lists both kinds, and what most are (None: neither)."""
        votes = [(pair, _vote(pair)) for pair in pairs]
        counts = Counter(vote for _, vote in votes if vote is not None)
        if len(counts) <= 1:
            return next(iter(counts), 2)
        flat = [pair.image.path.name for pair, vote in votes if vote == 2]
        deep = [pair.image.path.name for pair, vote in votes if vote == 3]
        what = f"files with different dimensions: {list_names(flat)} 2D, {list_names(deep)} 3D"
        next_step = "keep images and volumes in separate folders, or set PROBLEM.NDIM and remove the others"
        fix = "" if counts[2] == counts[3] else f"the {2 if counts[2] < counts[3] else 3}D ones are left out, with their labels"
        self.problems.append(Problem(f"{self.key}.PATH {pairs[0].image.path.parent}", what, next_step, fix=fix))
        return counts.most_common()[0][0] if fix else None

    def reopen(self, pair: ImagePair, ndim: int) -> ImagePair | None:
        """The pair with every file at the inferred number of axes; None if one does not allow that."""
        if all(member is None or member.ndim == ndim for member in (pair.image, pair.label)):
            return pair
        return self.open((pair.image.path, pair.label.path if pair.label is not None else None), ndim)

    def apply_resolution(self, pairs: Sequence[ImagePair]) -> tuple[ImagePair, ...]:
        """The pairs with the voxel size of the RESOLUTION key, where that is set."""
        given = self.section.resolution
        if given is None or not pairs or all(value == -1 for value in given):
            return tuple(pairs)
        ndim = pairs[0].image.ndim
        values = given * ndim if len(given) == 1 else given[-ndim:]
        if len(values) != ndim or not all(value > 0 for value in values):
            form = "(z, y, x)" if ndim == 3 else "(y, x)"
            what = f"{tuple(given)} is no voxel size; it takes {ndim} positive values in micrometres, {form}"
            self.problems.append(Problem(f"{self.key}.RESOLUTION", what, "correct it, or leave it out"))
            return tuple(pairs)
        spacing = Spacing(tuple(float(value) for value in values))
        stored = [pair.image for pair in pairs if pair.image.spacing and not _close(pair.image.spacing, spacing)]
        if stored:
            files = list_files([image.path for image in stored])
            replaced = f"the voxel size stored in {files} ({stored[0].spacing})"
            self.notices.append(f"{self.key}.RESOLUTION ({spacing}) replaces {replaced}")
        return tuple(_with_spacing(pair, spacing) for pair in pairs)


def _beside(paths: Sequence[Path]) -> str:
    """What to do where a folder of images holds their label images too."""
    found = find_labels_beside(paths)
    if not found:
        return ""
    image, label = found[0]
    return (
        f"; {len(found)} of these files look like the label images of others ({label.name} of {image.name}): move them to a "
        "folder of their own, and give that one"
    )


def _with_spacing(pair: ImagePair, spacing: Spacing) -> ImagePair:
    label = replace(pair.label, spacing=spacing) if pair.label is not None else None
    return ImagePair(replace(pair.image, spacing=spacing), label)


def _is_same_file(one: Path, other: Path) -> bool:
    # Not `Path.resolve`: it raises where links lead in a circle.
    return os.path.realpath(one) == os.path.realpath(other)


def _is_container(path: Path) -> bool:
    try:
        return identify_content(path) in CONTAINERS
    except ImageReadError:
        return False  # opening it says why


def _vote(pair: ImagePair) -> int | None:
    """Spatial axes of a pair; None for a stack of one slice.

    Where image and label disagree, what was read from metadata beats a guess, and of two guesses the smaller
    wins (the third axis is channels then).
    """
    members = [member for member in (pair.image, pair.label) if member is not None]
    if all("Z" in member.axes and member.shape[member.axes.index("Z")] == 1 for member in members):
        return None
    known = {member.ndim for member in members if member.axes_reason in ("metadata", "given")}
    return min(known or {member.ndim for member in members})


def as_problem(path: Path, error: ImageReadError) -> Problem:
    """The error as a problem of `path`, which its message names already."""
    what, _, next_step = str(error).removeprefix(f"{path}: ").partition("\n    -> ")
    return Problem(str(path), what, next_step)


def merge_equal(problems: Iterable[tuple[Path, Problem]]) -> list[Problem]:
    """The same problem of many files of a folder as one, with the names of the files."""
    groups: dict[tuple[Path, str, str], list[tuple[Path, Problem]]] = defaultdict(list)
    for path, problem in problems:
        groups[path.parent, problem.what, problem.next_step].append((path, problem))
    merged = []
    for (folder, _, _), found in groups.items():
        files = f"{folder} ({len(found)} files: {list_files([path for path, _ in found])})"
        merged.append(found[0][1] if len(found) == 1 else replace(found[0][1], where=files))
    return merged


def _close(one: Spacing, other: Spacing) -> bool:
    return all(abs(a - b) <= 0.01 * max(a, b) for a, b in zip(one.values, other.values, strict=True))
