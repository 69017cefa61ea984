"""Fix: corrected copies of the data of a run, with the configuration that uses them. PyTorch is not needed for it."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from crista.config.data import TestData, TrainData, ValidationData
from crista.config.load import as_yaml, config_from_dict
from crista.config.root import Config
from crista.errors import ConfigError, DataError, Problem
from crista.images.atomic import atomic_write, folder_aside, publish_folder, remove_folder
from crista.images.check import DatasetReport, check_dataset
from crista.images.class_names import find_class_names
from crista.images.dataset import Role
from crista.images.fix import OBSOLETE_KEYS, Change, CopyJob, changed_keys, choose_left_out, copy_split, splits_of
from crista.images.label_repair import RepairPlan, plan_repairs
from crista.images.pixel_faults import check_swapped
from crista.images.wording import plural
from crista.plan.events import Event, FileWritten, Said, StageStarted
from crista.results.tables import write_table
from crista.workflow.check import require_a_stage
from crista.workflow.targets import obstacle

HEAD = """\
# Corrected copies of the data of a job, written by crista check --fix; changes.csv lists what was changed.
"""


@dataclass(frozen=True)
class FixReport:
    """What `fix` has done."""

    folder: Path
    config: Path
    """The configuration that uses the copies."""
    before: DatasetReport
    after: DatasetReport
    """The check of the copies: what is left is for the user to decide."""
    changes: tuple[Change, ...]


def fix(config: Config, out: Path) -> Generator[Event, None, FixReport]:
    """Write corrected copies of all images and label images of a run to `out`, and ``check.yaml`` and ``changes.csv``.

    The originals are not touched. `out` appears when it is complete. What cannot be mended is copied as it is, or left out
    where it cannot be used at all; both are listed.

    Raises
    ------
    ConfigError
        `out` exists and is not empty, or nothing is to be done with the data.
    DataError
        No pair of images and labels is left to copy.
    """
    require_a_stage(config)
    out = out.expanduser().absolute()
    _require_empty(out)
    yield StageStarted("check")
    before = _check(config)
    config, swapped = _exchange_swapped(config, before)
    report = _check(config) if swapped else before
    left_out = choose_left_out(report)
    _require_pairs(report, left_out)
    plan = _plan_repairs(config, report)
    tree = _new_tree(config, report, out, plan)
    changes = list(swapped)
    with _filled_aside(out) as part:
        for role, split in splits_of(report).items():
            job = CopyJob(split, _section(config, role), part / role, left_out, plan)
            for change in copy_split(job):
                changes.append(change)
                yield Said(f"{change.file}: {change.seen}: {change.done}")
        changes += [
            Change(row.where, row.what, f"not changed: {row.next_step or 'nothing has to be done'}") for row in _open(before)
        ]
        _write_lists(part, changes, plan, tree)
    yield FileWritten(out / "check.yaml", "configuration of the copies")
    after = _check(config_from_dict(tree).config)
    if not plan.colours:  # their classes are in the order of the colours, not of anybody's names
        yield from _keep_class_names(report, after, out)
    yield Said(f"checked again: {plural(len(after.problems), 'problem')}, {plural(len(after.warnings), 'warning')}")
    return FixReport(out, out / "check.yaml", before, after, tuple(changes))


@contextmanager
def _filled_aside(out: Path) -> Iterator[Path]:
    """A hidden folder that becomes `out` at the end; after an error it is removed, for the disk may be full."""
    part = folder_aside(out)
    remove_folder(part)
    try:
        yield part
        publish_folder(part, out)
    finally:
        remove_folder(part)


def _require_empty(out: Path) -> None:
    what = obstacle(out / "check.yaml")
    if out.is_dir() and any(out.iterdir()):
        what = f"{out} exists and is not empty"
    if what:
        raise ConfigError("with the folder of the copies", [Problem("--fix", what, "name a new folder; nothing is overwritten")])


def _check(config: Config) -> DatasetReport:
    return check_dataset(config, need_train=config.train.enable, need_test=config.test.enable)


def _require_pairs(report: DatasetReport, left_out: Mapping[Path, str]) -> None:
    """Each split must keep an image."""
    empty = [split for split in report.splits if all(pair.image.path in left_out for pair in split.pairs)]
    if empty or not report.splits:
        problems = report.problems or [Problem("", "no image was found", "check the folders")]
        where = f" in {' and '.join(f'DATA.{split.role.upper()}' for split in empty)}" if empty else ""
        raise DataError(f"with the data; no image is left to copy{where}", problems)


def _exchange_swapped(config: Config, report: DatasetReport) -> tuple[Config, list[Change]]:
    """Exchange PATH and GT_PATH of the splits whose folders look swapped."""
    data, changes = config.data, []
    for split in report.splits:
        found = check_swapped(split)
        if found is None:
            continue
        section = _section(config, split.role)
        other = section.model_copy(update={"path": section.gt_path, "gt_path": section.path})
        data = data.model_copy(update={split.role: other})
        changes.append(Change(found.where, found.what, found.fix))
    return config.model_copy(update={"data": data}), changes


def _plan_repairs(config: Config, report: DatasetReport) -> RepairPlan:
    splits = splits_of(report)
    learnt: Role = "train" if "train" in splits else "test"
    others = [item for role, split in splits.items() if role != learnt for item in split.labelled]
    num_classes = None if config.data.n_classes is None else max(2, config.data.n_classes)
    return plan_repairs(splits[learnt].labelled, others, num_classes=num_classes, ignore_index=_ignore_index(config))


def _ignore_index(config: Config) -> int | None:
    """The value of pixels without annotation; None if there is none.

    Raises ConfigError for several: the copies have one.
    """
    values = config.loss.ignored_values
    if len(values) > 1:
        what = f"has {len(values)} values ({', '.join(map(str, values))}), and corrected copies are written with one"
        next_step = "write one value for all pixels without annotation first, e.g. 255"
        raise ConfigError("in the configuration", [Problem("LOSS.IGNORE_INDEX", what, next_step)])
    return values[0] if values else None


def _section(config: Config, role: Role) -> TrainData | ValidationData | TestData:
    found: TrainData | ValidationData | TestData = getattr(config.data, role)
    return found


def _open(report: DatasetReport) -> list[Problem]:
    """What only the user can decide."""
    return [problem for problem in (*report.problems, *report.warnings) if not problem.fix]


def _new_tree(config: Config, report: DatasetReport, out: Path, plan: RepairPlan) -> dict[str, Any]:
    """All keys of the configuration, with those that the copies change."""
    tree: dict[str, Any] = config.given()
    changed = changed_keys(report, out, plan, ignore_index=_ignore_index(config))
    for role in changed["DATA"]:
        section = tree.setdefault("DATA", {}).setdefault(role, {})
        for key in OBSOLETE_KEYS:
            section.pop(key, None)
    _merge(tree, changed)
    tree.setdefault("TRAIN", {})["ENABLE"] = config.train.enable
    tree.setdefault("TEST", {})["ENABLE"] = config.test.enable
    return tree


def _merge(into: dict[str, Any], tree: Mapping[str, Any]) -> None:
    for key, value in tree.items():
        if isinstance(value, Mapping):
            _merge(into.setdefault(key, {}), value)
        else:
            into[key] = value


def _keep_class_names(report: DatasetReport, after: DatasetReport, out: Path) -> Iterator[Event]:
    """The class names that lie beside the training labels, written beside their copies: they are found by their place."""
    train, coding = splits_of(report).get("train"), report.coding or after.coding
    labels = [pair.label for pair in train.pairs if pair.label is not None] if train is not None else []
    named = find_class_names(labels[0].path.parent, coding) if labels and coding is not None else None
    if named is not None:
        kept = out / "train" / "y" / "classes.txt"
        atomic_write(kept, "".join(f"{name}\n" for name in named.names))
        yield FileWritten(kept, "names of the classes")


def _write_lists(folder: Path, changes: list[Change], plan: RepairPlan, tree: Mapping[str, Any]) -> None:
    write_table(folder / "changes.csv", ["file", "seen", "done"], [[row.file, row.seen, row.done] for row in changes])
    if plan.colours:
        rows = [[str(c >> 16), str((c >> 8) & 255), str(c & 255), str(index)] for c, index in plan.colours.items()]
        write_table(folder / "colours.csv", ["red", "green", "blue", "class"], rows)
    atomic_write(folder / "check.yaml", HEAD + as_yaml(tree))
