"""The check of a whole data set: every problem at once, before anything is trained or predicted."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from crista.config.data import TestData, TrainData, ValidationData
from crista.config.root import Config
from crista.errors import DataError, ImageReadError, Problem
from crista.images.class_names import find_class_names
from crista.images.coding import decide_coding
from crista.images.consistency import (
    check_channels,
    check_dtypes,
    check_orientations,
    check_patch_axes,
    check_shapes,
    check_sizes,
    check_spacings,
    check_test_spacing,
    effective_channels,
    gather_notes,
)
from crista.images.copies import check_copies
from crista.images.dataset import OpenedPairs, Pairing, Role, as_problem, merge_equal, open_pairs
from crista.images.fingerprint import Fingerprint, build_fingerprint
from crista.images.foreground import in_other_form, other_form, other_form_warning, read_as
from crista.images.image import ImagePair
from crista.images.label_faults import (
    COLOURS_FIX,
    Summaries,
    check_summaries,
    check_values,
    colours_can_be_classes,
    empty_label_warnings,
    rare_class_warnings,
)
from crista.images.labels import LabelCoding, LabelSummary, class_counts, make_coding
from crista.images.look_cache import forget_oldest, look_at_label
from crista.images.object_size import median_diameter
from crista.images.pairing import pair_files
from crista.images.pixel_faults import check_pixels, check_swapped, check_unlike
from crista.images.split import Split, read_split
from crista.images.wording import LEFT_OUT, list_files, place_of

ONE_IMAGE = (
    "one training image: a part of it validates and is not trained on, unless it is too small for that or annotated in one place "
    "only"
)
SCAN_LIMIT = 2**31
"""Test images above so many bytes are not read in advance; prediction meets their pixels tile by tile."""


@dataclass(frozen=True)
class Finding:
    """One row of the table of a check."""

    severity: Literal["problem", "warning"]
    files: str
    """The file, the folder with the names of the files in `seen`, or the key."""
    seen: str
    effect: str
    """What will happen."""
    problem: Problem
    """With the next step, and with what `crista check --fix` does."""

    @property
    def fix(self) -> str:
        """What the user can do, and what ``--fix`` does: it may leave out an image that a key would make readable."""
        steps = [self.problem.next_step] if self.problem.next_step else []
        steps += [f"--fix: {self.problem.fix}"] if self.problem.fix else []
        return "; or ".join(steps) or "nothing has to be done"


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
    splits: tuple[Split, ...] = ()
    """What was read, split by split."""
    coding: LabelCoding | None = None
    """What label values mean; None where that could not be settled."""

    @property
    def findings(self) -> tuple[Finding, ...]:
        """Everything in one table: problems first, then warnings."""
        stops, goes_on = "nothing is trained or predicted until it is mended", "the data are used as they are"
        return (
            *(Finding("problem", found.where, found.what, found.effect or stops, found) for found in self.problems),
            *(Finding("warning", found.where, found.what, found.effect or goes_on, found) for found in self.warnings),
        )

    def raise_if_problems(self) -> None:
        """Raise a `DataError` that lists all problems, if there are any."""
        if self.problems:
            raise DataError("with the data", self.problems)


@dataclass
class _Findings:
    problems: list[Problem] = field(default_factory=list)
    warnings: list[Problem] = field(default_factory=list)
    notices: list[str] = field(default_factory=list)


def check_dataset(
    config: Config, *, need_train: bool, need_test: bool, coding: LabelCoding | None = None, pairing: Pairing = pair_files
) -> DatasetReport:
    """Open, read and compare everything that a run will need.

    Parameters
    ----------
    need_train : check DATA.TRAIN (and DATA.VAL where it has its own folders)
    need_test : check DATA.TEST, with labels where DATA.TEST.LOAD_GT
    coding : what label values mean, where a trained network has settled it
        None: decided over all training labels (over the test labels where nothing is trained).
    pairing : which label belongs to which image

    Unreadable files, wrong pairs, odd values: nothing raises, everything is in the report.
    """
    findings = _Findings()
    wanted = _wanted(config, need_train=need_train, need_test=need_test)
    opened = _open_splits(config, wanted, pairing, findings)
    pairs = [pair for found in opened.values() for pair in found.pairs]
    _compare(config, opened, findings)
    splits = {role: _read(config, role, found.pairs, findings) for role, found in opened.items()}
    forget_oldest()
    findings.warnings.extend(check_copies(splits))
    findings.warnings.extend(check_unlike(splits.get("train", Split("train")), splits.get("test", Split("test")), config.data))
    lonely = [item for role, found in opened.items() for item in _read_lonely(config, role, found, findings)]
    decision = _decide(config, splits, coding, findings, lonely=lonely)
    _refuse_colours(splits, findings)
    _withdraw_fixes(splits, findings)
    fingerprint = None
    train = splits.get("train")
    if train is not None and train.scanned and decision is not None and not findings.problems:
        fingerprint = _fingerprint(config, train, decision)
    by_role = {role: _as_trained(split, decision) for role, split in splits.items()}
    return DatasetReport(
        ndim=pairs[0].image.ndim if pairs else None,
        train=by_role.get("train", ()),
        val=by_role.get("val", ()),
        test=by_role.get("test", ()),
        problems=tuple(findings.problems),
        warnings=tuple(findings.warnings),
        notices=tuple(dict.fromkeys(findings.notices)),
        fingerprint=fingerprint,
        splits=tuple(splits.values()),
        coding=decision,
    )


def _wanted(config: Config, *, need_train: bool, need_test: bool) -> list[Role]:
    wanted: list[Role] = ["train"] if need_train else []
    if need_train and not config.data.val.from_train:
        wanted.append("val")
    if need_test and not config.data.test.use_val_as_test:
        wanted.append("test")
    return wanted


def _open_splits(config: Config, wanted: list[Role], pairing: Pairing, findings: _Findings) -> dict[Role, OpenedPairs]:
    """Open the splits in turn; the first one settles the number of axes for the others."""
    ndim = int(config.problem.ndim[0]) if config.problem.ndim else None
    opened: dict[Role, OpenedPairs] = {}
    for role in wanted:
        found = open_pairs(
            _section(config, role),
            ndim=ndim,
            with_labels=role != "test" or config.data.test.load_gt,
            role=role,
            pairing=pairing,
            to_predict=wanted == ["test"],
        )
        findings.problems.extend(found.problems)
        findings.notices.extend(found.notices)
        if found.pairs:
            ndim = found.pairs[0].image.ndim
        opened[role] = found
    return opened


def _section(config: Config, role: Role) -> TrainData | ValidationData | TestData:
    section: TrainData | ValidationData | TestData = getattr(config.data, role)
    return section


def _compare(config: Config, opened: dict[Role, OpenedPairs], findings: _Findings) -> None:
    """What the headers tell."""
    data = config.data
    everything = [pair for found in opened.values() for pair in found.pairs]
    learnt = [pair for role, found in opened.items() if role != "test" for pair in found.pairs]
    findings.problems.extend(check_shapes(everything))
    findings.problems.extend(check_channels(everything, data, to_predict=list(opened) == ["test"]))
    findings.problems.extend(check_patch_axes(everything, data))
    small = check_sizes(learnt or everything, data)
    (findings.warnings if data.reflect_to_complete_shape else findings.problems).extend(small)
    tested = [pair for role, found in opened.items() if role == "test" for pair in found.pairs]
    for pairs in (learnt, tested):
        findings.warnings.extend(check_dtypes(pairs, data))
        findings.warnings.extend(check_spacings(pairs))
    findings.warnings.extend(check_test_spacing(learnt, tested))
    findings.warnings.extend(check_orientations(everything))
    warnings, notices = gather_notes(everything)
    findings.warnings.extend(warnings)
    findings.notices.extend(notices)
    if "train" in opened and len(opened["train"].pairs) == 1 and data.val.from_train:
        findings.notices.append(ONE_IMAGE)


def _read(config: Config, role: Role, pairs: tuple[ImagePair, ...], findings: _Findings) -> Split:
    split, broken, large = read_split(role, pairs, read_labels=_needs_label_values(config, role), limit=SCAN_LIMIT)
    if large:
        findings.notices.append(f"not read in advance, larger than {SCAN_LIMIT >> 30} GB: {list_files(large)}")
    findings.problems.extend(replace(problem, fix=problem.fix or LEFT_OUT) for problem in broken)
    problems, warnings = check_pixels(split, config.data)
    findings.problems.extend(problems)
    findings.warnings.extend(warnings)
    return split


def _read_lonely(config: Config, role: Role, found: OpenedPairs, findings: _Findings) -> list[tuple[Path, LabelSummary]]:
    """What is wrong with files whose partner cannot be opened, and what their label images hold."""
    alone = tuple(ImagePair(image) for image in found.lonely_images)
    split, broken, _ = read_split(role, alone, read_labels=False, limit=SCAN_LIMIT)
    broken += check_pixels(split, config.data)[0]
    summaries: list[tuple[Path, LabelSummary]] = []
    for label in found.lonely_labels if _needs_label_values(config, role) else ():
        try:
            summaries.append((label.path, look_at_label(label)))
        except ImageReadError as error:
            broken.append(as_problem(label.path, error))
    findings.problems.extend(replace(problem, fix=LEFT_OUT) for problem in broken)
    return summaries


def _needs_label_values(config: Config, role: Role) -> bool:
    data = config.data
    if role == "test":
        return data.test.load_gt and data.test.check_data
    counted = data.n_classes is None or config.loss.class_rebalance == "auto"
    return data.train.check_data or (counted and role == "train")


def _decide(
    config: Config, splits: dict[Role, Split], coding: LabelCoding | None, findings: _Findings, *, lonely: Summaries
) -> LabelCoding | None:
    """What label values mean, settled on the training labels and held against all others; `lonely` ones settle nothing."""
    data = config.data
    num_classes = None if data.n_classes is None else max(2, data.n_classes)
    ignored = config.loss.ignored_values
    role: Role = "train" if "train" in splits else "test"
    source = splits.get(role)
    plain, is_trained = make_coding(num_classes or 2, ignored), coding is not None
    swapped = [problem for split in splits.values() if (problem := check_swapped(split)) is not None]
    if swapped:
        findings.problems.extend(swapped)
        return None
    if coding is None and source is not None and source.labelled and not _is_empty_test(source, plain):
        section = _section(config, role)
        where = str(section.gt_path or section.path)
        decision = decide_coding(source.labelled, num_classes=num_classes, ignore_index=ignored, where=where)
        findings.problems.extend(decision.problems)
        findings.warnings.extend(decision.warnings)
        coding, likely = decision.coding, decision.likely
        findings.warnings.extend(rare_class_warnings(source.labelled, coding, config.data.class_names, where))
    else:
        unread = source is not None and not source.labelled and num_classes is None
        coding, source, likely = coding or (None if unread else plain), None, None
    for split in splits.values():
        if split is not source:
            _check_against(split, coding or likely, findings, is_trained=is_trained)
    known = coding or likely
    found = [(path, check_values(path, summary, known)) for path, summary in lonely] if known is not None else []
    faults = merge_equal((path, problem) for path, problem in found if problem is not None)
    findings.problems.extend(replace(problem, fix=LEFT_OUT) for problem in faults or check_summaries(lonely))
    return coding


def _refuse_colours(splits: dict[Role, Split], findings: _Findings) -> None:
    """Take back the fix of colour-coded label images where other ones, of any split, hold the numbers of classes."""
    if colours_can_be_classes([item for split in splits.values() for item in split.labelled]):
        return
    why = "; which colour is which number of the other label images, only you know"
    findings.problems = [
        replace(problem, next_step=problem.next_step + why, fix="") if problem.fix == COLOURS_FIX else problem
        for problem in findings.problems
    ]


def _withdraw_fixes(splits: dict[Role, Split], findings: _Findings) -> None:
    """Where no pair of a split can be used, no copies are written, whatever could be mended in them."""
    if all(len(split.unusable) < len(split.pairs) for split in splits.values()) or any(map(check_swapped, splits.values())):
        return
    findings.problems = [replace(problem, fix="") for problem in findings.problems]
    findings.warnings = [replace(warning, fix="") for warning in findings.warnings]


def _is_empty_test(split: Split, plain: LabelCoding) -> bool:
    """Whether these are test labels without any foreground: nothing to train on, but a fair test."""
    values = {value for _, summary in split.labelled for value in summary.values}
    return split.role == "test" and values <= {0, *plain.ignored_values} and not check_summaries(split.labelled)


def _check_against(split: Split, coding: LabelCoding | None, findings: _Findings, *, is_trained: bool) -> None:
    if coding is None:
        findings.problems.extend(check_summaries(split.labelled))
        return
    labelled = split.labelled
    if (form := other_form(labelled, coding)) is not None:
        findings.warnings.append(other_form_warning(place_of([path for path, _ in labelled]), *form))
        labelled = [(path, in_other_form(summary, *form)) for path, summary in labelled]
    found = [
        (path, problem)
        for path, summary in labelled
        if (problem := check_values(path, summary, coding, is_trained=is_trained)) is not None
    ]
    findings.problems.extend(merge_equal(found))
    if not found:
        findings.warnings.extend(empty_label_warnings(labelled, coding))


def _as_trained(split: Split, coding: LabelCoding | None) -> tuple[ImagePair, ...]:
    """The pairs, with the foreground read as the value that it has in the training."""
    form = None if coding is None else other_form(split.labelled, coding)
    return split.pairs if form is None else tuple(read_as(pair, *form) for pair in split.pairs)


def _fingerprint(config: Config, train: Split, coding: LabelCoding) -> Fingerprint:
    counts = class_counts([summary.counts for _, summary in train.labelled], coding) if train.labelled else None
    label = train.pairs[0].label
    return build_fingerprint(
        train.pairs,
        [scan for _, scan in train.scanned],
        num_channels=effective_channels(train.pairs[0].image, config.data),
        coding=coding,
        class_counts=counts,
        object_diameter=median_diameter(
            [summary.diameters for _, summary in train.labelled], coding.class_of, train.pairs[0].image.ndim, coding.ignore_index
        ),
        named=None if label is None else find_class_names(label.path.parent, coding),
    )
