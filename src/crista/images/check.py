"""The check of a whole data set: every problem at once, before anything is trained or predicted."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from crista.config.data import TestData, TrainData, ValidationData
from crista.config.root import Config
from crista.errors import DataError, ImageReadError, Problem
from crista.images.coding import class_counts, decide_coding
from crista.images.consistency import (
    check_channels,
    check_dtypes,
    check_patch_axes,
    check_shapes,
    check_sizes,
    check_spacings,
    effective_channels,
    gather_notes,
)
from crista.images.dataset import OpenedPairs, Role, as_problem, merge_equal, open_pairs
from crista.images.fingerprint import Fingerprint, build_fingerprint
from crista.images.image import Image, ImagePair
from crista.images.label_faults import check_summaries, check_values, empty_label_warnings
from crista.images.labels import LabelCoding, LabelSummary, make_coding, summarise_label
from crista.images.scan import ImageScan, scan_image
from crista.images.wording import list_files, list_names

SCAN_LIMIT = 2**31
"""Test images above so many bytes are not read in advance; prediction meets their pixels tile by tile."""
MAX_THREADS = 4

Found = TypeVar("Found")


@dataclass(frozen=True)
class DatasetReport:
    """What the check found."""

    ndim: int | None
    """Spatial axes, 2 or 3; None if that could not be seen."""
    train: tuple[ImagePair, ...] = ()
    val: tuple[ImagePair, ...] = ()
    """Only with DATA.VAL.FROM_TRAIN: False."""
    test: tuple[ImagePair, ...] = ()
    problems: tuple[Problem, ...] = ()
    """What makes the data unusable."""
    warnings: tuple[Problem, ...] = ()
    """What the user should know; the data are usable."""
    notices: tuple[str, ...] = ()
    """How files were paired and axes were guessed."""
    fingerprint: Fingerprint | None = None
    """None without training images, or with problems."""

    def raise_if_problems(self) -> None:
        """Raise a `DataError` that lists all problems, if there are any."""
        if self.problems:
            raise DataError("with the data", self.problems)


@dataclass(frozen=True)
class _Split:
    """One split, read: `scans` and `summaries` stand beside `pairs` (None where nothing was read)."""

    role: Role
    pairs: tuple[ImagePair, ...] = ()
    scans: tuple[ImageScan | None, ...] = ()
    summaries: tuple[LabelSummary | None, ...] = ()

    @property
    def labelled(self) -> list[tuple[Path, LabelSummary]]:
        """Paths and values of the label images that were read."""
        return [
            (pair.label.path, summary)
            for pair, summary in zip(self.pairs, self.summaries, strict=True)
            if pair.label is not None and summary is not None
        ]

    @property
    def scanned(self) -> list[tuple[ImagePair, ImageScan]]:
        """Pairs whose image was read."""
        return [(pair, scan) for pair, scan in zip(self.pairs, self.scans, strict=True) if scan is not None]


@dataclass
class _Findings:
    problems: list[Problem] = field(default_factory=list)
    warnings: list[Problem] = field(default_factory=list)
    notices: list[str] = field(default_factory=list)


def check_dataset(config: Config, *, need_train: bool, need_test: bool, coding: LabelCoding | None = None) -> DatasetReport:
    """Open, read and compare everything that a run will need.

    Parameters
    ----------
    need_train : check DATA.TRAIN (and DATA.VAL where it has its own folders)
    need_test : check DATA.TEST, with labels where DATA.TEST.LOAD_GT
    coding : what label values mean, where a trained network has settled it
        None: decided over all training labels (over the test labels where nothing is trained).

    Unreadable files, wrong pairs, odd values: nothing raises, everything is in the report.
    """
    findings = _Findings()
    opened = _open_splits(config, need_train=need_train, need_test=need_test, findings=findings)
    pairs = [pair for found in opened.values() for pair in found.pairs]
    _compare(config, opened, findings)
    splits = {role: _read_split(config, role, found.pairs, findings) for role, found in opened.items()}
    for split in splits.values():
        _check_pixels(split, findings)
    _check_copies(splits, findings)
    decision = _decide(config, splits, coding, findings)
    fingerprint = None
    train = splits.get("train")
    if train is not None and train.scanned and decision is not None and not findings.problems:
        fingerprint = _fingerprint(config, train, decision)
    by_role = {role: split.pairs for role, split in splits.items()}
    return DatasetReport(
        ndim=pairs[0].image.ndim if pairs else None,
        train=by_role.get("train", ()),
        val=by_role.get("val", ()),
        test=by_role.get("test", ()),
        problems=tuple(findings.problems),
        warnings=tuple(findings.warnings),
        notices=tuple(dict.fromkeys(findings.notices)),
        fingerprint=fingerprint,
    )


def _open_splits(config: Config, *, need_train: bool, need_test: bool, findings: _Findings) -> dict[Role, OpenedPairs]:
    """Open the splits in turn; the first one settles the number of axes for the others."""
    data = config.data
    ndim = int(config.problem.ndim[0]) if config.problem.ndim else None
    wanted: list[Role] = ["train"] if need_train else []
    if need_train and not data.val.from_train:
        wanted.append("val")
    if need_test and not data.test.use_val_as_test:
        wanted.append("test")
    opened: dict[Role, OpenedPairs] = {}
    for role in wanted:
        section = _section(config, role)
        with_labels = role != "test" or data.test.load_gt
        found = open_pairs(section, ndim=ndim, with_labels=with_labels, role=role)
        findings.problems.extend(found.problems)
        findings.notices.extend(found.notices)
        if found.pairs:
            ndim = found.pairs[0].image.ndim
        opened[role] = found
    return opened


def _section(config: Config, role: Role) -> TrainData | ValidationData | TestData:
    sections: dict[Role, TrainData | ValidationData | TestData] = {
        "train": config.data.train,
        "val": config.data.val,
        "test": config.data.test,
    }
    return sections[role]


def _compare(config: Config, opened: dict[Role, OpenedPairs], findings: _Findings) -> None:
    """What the headers tell."""
    data = config.data
    everything = [pair for found in opened.values() for pair in found.pairs]
    learnt = [pair for role, found in opened.items() if role != "test" for pair in found.pairs]
    findings.problems.extend(check_shapes(everything))
    findings.problems.extend(check_channels(everything, data))
    findings.problems.extend(check_patch_axes(everything, data))
    small = check_sizes(learnt or everything, data)
    (findings.warnings if data.reflect_to_complete_shape else findings.problems).extend(small)
    findings.warnings.extend(check_dtypes(everything, data))
    findings.warnings.extend(check_spacings(everything))
    warnings, notices = gather_notes(everything)
    findings.warnings.extend(warnings)
    findings.notices.extend(notices)
    if "train" in opened and len(opened["train"].pairs) == 1 and data.val.from_train:
        findings.notices.append("one training image: validation is done on a part of it that is not trained on")


def _read_split(config: Config, role: Role, pairs: tuple[ImagePair, ...], findings: _Findings) -> _Split:
    """One pass over every image, and over every label image that has to be read."""
    large = [pair for pair in pairs if role == "test" and pair.image.nbytes > SCAN_LIMIT]
    if large:
        names = list_files([pair.image.path for pair in large])
        findings.notices.append(f"not read in advance, larger than {SCAN_LIMIT >> 30} GB: {names}")
    read_labels = _needs_label_values(config, role)

    unreadable: list[tuple[Path, Problem]] = []

    def read(image: Image | None, measure: Callable[[Image], Found]) -> Found | None:
        if image is None:
            return None
        try:
            return measure(image)
        except ImageReadError as error:
            unreadable.append((image.path, as_problem(image.path, error)))
            return None

    images = [pair.image if pair not in large else None for pair in pairs]
    labels = [pair.label if read_labels else None for pair in pairs]
    with ThreadPoolExecutor(min(MAX_THREADS, os.cpu_count() or 1)) as pool:
        scans = tuple(pool.map(lambda image: read(image, scan_image), images))
        summaries = tuple(pool.map(lambda label: read(label, summarise_label), labels))
    findings.problems.extend(merge_equal(sorted(unreadable, key=lambda item: str(item[0]))))
    return _Split(role, pairs, scans, summaries)


def _needs_label_values(config: Config, role: Role) -> bool:
    data = config.data
    if role == "test":
        return data.test.load_gt and data.test.check_data
    counted = data.n_classes is None or config.loss.class_rebalance == "auto"
    return data.train.check_data or (counted and role == "train")


def _check_pixels(split: _Split, findings: _Findings) -> None:
    """NaN and constant images."""
    for pair, scan in split.scanned:
        path = str(pair.image.path)
        if scan.is_empty_of_values:
            what = f"holds no finite value: all {scan.num_nonfinite} pixels are NaN or infinite"
            findings.problems.append(Problem(path, what, "remove it, or export it again"))
        elif scan.num_nonfinite:
            what = f"holds NaN or infinite values ({scan.num_nonfinite} pixels): "
            what += "they are replaced by 0 after normalisation"
            findings.warnings.append(Problem(path, what, "check where they come from"))
    constant = [(pair, scan) for pair, scan in split.scanned if scan.is_constant]
    if constant:
        pair, scan = constant[0]
        value = f"every pixel is {scan.channels[0].min:g}"
        many = f"{len(constant)} images are constant: {list_files([other.image.path for other, _ in constant])}"
        what = many if len(constant) > 1 else f"the image is constant: {value}"
        where = str(pair.image.path.parent if len(constant) > 1 else pair.image.path)
        findings.warnings.append(Problem(where, what, "nothing can be seen in it; remove it if that is not meant"))


def _check_copies(splits: dict[Role, _Split], findings: _Findings) -> None:
    """Images with the same pixels: within the training images, and between them and validation or test."""
    seen: dict[str, list[ImagePair]] = defaultdict(list)
    learnt = splits.get("train", _Split("train"))
    for pair, scan in learnt.scanned:
        seen[scan.digest].append(pair)
    for group in seen.values():
        if len(group) > 1:
            what = f"identical images (duplicates): {list_files([pair.image.path for pair in group])}"
            next_step = "keep one of each: copies in training and validation make the validation look too good"
            findings.warnings.append(Problem(str(group[0].image.path.parent), what, next_step))
    for role in ("val", "test"):
        found = list(_shared(seen, splits.get(role, _Split(role))))
        if found:
            word = "validation" if role == "val" else "test"
            listed = list_names([f"{copy.image.path.name} = {pair.image.path.name}" for copy, pair in found])
            what = f"{len(found)} {word} images are training images too: {listed}"
            where = str(found[0][0].image.path.parent)
            findings.warnings.append(Problem(where, what, f"the {word} figures will be too good: use other images"))


def _shared(seen: dict[str, list[ImagePair]], split: _Split) -> Iterator[tuple[ImagePair, ImagePair]]:
    for pair, scan in split.scanned:
        if scan.digest in seen:
            yield pair, seen[scan.digest][0]


def _decide(config: Config, splits: dict[Role, _Split], coding: LabelCoding | None, findings: _Findings) -> LabelCoding | None:
    """What label values mean, settled on the training labels and held against all others."""
    data = config.data
    num_classes = None if data.n_classes is None else max(2, data.n_classes)
    ignored = config.loss.ignored_values
    role: Role = "train" if "train" in splits else "test"
    source = splits.get(role)
    plain = make_coding(num_classes or 2, ignored)
    if coding is None and source is not None and source.labelled and not _is_empty_test(source, plain):
        section = _section(config, role)
        where = str(section.gt_path or section.path)
        decision = decide_coding(source.labelled, num_classes=num_classes, ignore_index=ignored, where=where)
        findings.problems.extend(decision.problems)
        findings.warnings.extend(decision.warnings)
        coding = decision.coding
    else:
        unread = source is not None and not source.labelled and num_classes is None
        coding, source = coding or (None if unread else plain), None
    for split in splits.values():
        if split is not source:
            _check_against(split, coding, findings)
    return coding


def _is_empty_test(split: _Split, plain: LabelCoding) -> bool:
    """Whether these are test labels without any foreground: nothing to train on, but a fair test."""
    values = {value for _, summary in split.labelled for value in summary.values}
    return split.role == "test" and values <= {0, *plain.ignored_values} and not check_summaries(split.labelled)


def _check_against(split: _Split, coding: LabelCoding | None, findings: _Findings) -> None:
    if coding is None:
        findings.problems.extend(check_summaries(split.labelled))
        return
    found = [problem for path, summary in split.labelled if (problem := check_values(path, summary, coding))]
    findings.problems.extend(found)
    if not found:
        findings.warnings.extend(empty_label_warnings(split.labelled, coding))


def _fingerprint(config: Config, train: _Split, coding: LabelCoding) -> Fingerprint:
    counts = class_counts([summary.counts for _, summary in train.labelled], coding) if train.labelled else None
    return build_fingerprint(
        train.pairs,
        [scan for _, scan in train.scanned],
        num_channels=effective_channels(train.pairs[0].image, config.data),
        coding=coding,
        class_counts=counts,
    )
