"""Finish: from the reports of an image's tasks to its record; large images are filtered, get their pyramid, and are published."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from functools import reduce
from pathlib import Path

import numpy as np

from crista.geometry.tiles import grid_blocks
from crista.images.atomic import aside, remove_at_once
from crista.images.downsampling import downsample_region, iter_blocks_of_level
from crista.images.ome_zarr import open_level, read_pyramid, write_block
from crista.inference.clean import filter_block, filter_source
from crista.inference.measure import Counts, image_boundary, image_confusion, label_reader, patch_score, predicted_region
from crista.inference.outputs import choose_format, filtered_file, stage_files
from crista.inference.perform import filters_of
from crista.inference.record import ImageRecord, forget_other_record
from crista.inference.store import Done, ImageStore, make_label_store
from crista.inference.task import OutputFolders, Task, TaskReport, kept_report, load_report, stack_takes_probabilities
from crista.inference.uncertainty import choose_cells, join_cells
from crista.plan.plan import Plan


def finish_kept(tasks: Sequence[Task], plan: Plan, folders: OutputFolders) -> ImageRecord:
    """The record of an image, by the reports of its tasks on disk."""
    reports = [report for task in tasks if (report := kept_report(task, folders)) is not None]
    if len(reports) < len(tasks):
        raise RuntimeError(f"{tasks[0].name}: not all of its blocks are done")
    return finish_image(tasks, reports, plan, folders)


def finish_image(tasks: Sequence[Task], reports: Sequence[TaskReport], plan: Plan, folders: OutputFolders) -> ImageRecord:
    """The record of an image, by the report of each of its tasks, written; what was unfinished is removed."""
    report = reduce(_add, reports)
    if tasks[0].block_shape is not None:
        report = _add(report, _Large(tasks, plan, folders).finish())
    record = ImageRecord(
        name=tasks[0].name,
        key=report.key,
        seconds=report.seconds,
        confusions=report.confusions,
        patch_iou=report.patch_iou,
        boundaries=report.boundaries,
        uncertainty=_join_uncertainty(tasks, reports, folders),
        files=report.files,
        is_blank=report.is_blank,
    )
    record.save(folders.state)
    with suppress(OSError):  # a slow worker may write there still; then the next run removes it
        remove_at_once(folders.work(tasks[0].name, tasks[0].key))
    return record


def _join_uncertainty(tasks: Sequence[Task], reports: Sequence[TaskReport], folders: OutputFolders) -> float | None:
    """Write the map of the entropy of an image; returns its mean, None where no task gathered it."""
    pairs = zip(tasks, reports, strict=True)
    parts = [(task.block, report.entropy) for task, report in pairs if report.entropy is not None]
    if not parts:
        return None
    cells, mean = join_cells(choose_cells(tasks[0].pair.image.spatial_shape), parts)
    with aside(folders.uncertainty(tasks[0].name)) as part:
        np.save(part, cells, allow_pickle=False)
    return mean if np.isfinite(mean) else None


def _add(one: TaskReport, other: TaskReport) -> TaskReport:
    """Both reports of parts of one image as one."""
    confusions = {
        stage: sum((r.confusions[stage] for r in (one, other) if stage in r.confusions), start=np.int64(0))
        for stage in {**one.confusions, **other.confusions}
    }
    seconds = {key: one.seconds.get(key, 0.0) + other.seconds.get(key, 0.0) for key in {**one.seconds, **other.seconds}}
    score = one.patch_iou if one.patch_iou is not None else other.patch_iou
    boundaries, files = {**one.boundaries, **other.boundaries}, one.files + other.files
    is_blank = one.is_blank or other.is_blank
    return TaskReport(one.key, confusions, seconds, score, boundaries, files, is_blank=is_blank)  # type: ignore[arg-type]


class _Large:
    """An image of several blocks, all predicted: every step is taken up where a kill left it."""

    def __init__(self, tasks: Sequence[Task], plan: Plan, folders: OutputFolders) -> None:
        self.task = tasks[0]
        self.image = self.task.pair.image
        self.plan = plan
        self.folders = folders
        self.work = folders.work(self.task.name, self.task.key)
        self.store = ImageStore(self.work, self.task.pair, plan)
        self.filters = filters_of(plan) if self.task.is_last else ()

    def finish(self) -> TaskReport:
        """Filter and measure, make the pyramids, give everything its final name."""
        path, started, filtering = self.store.finishing, time.perf_counter(), 0.0
        report = load_report(path, self.task.key)
        if report is None:  # once this is written, the stores may already have their final names
            report = self._clean_and_measure()
            report.save(path)
            filtering = report.seconds.get("post_processing", 0.0)
        if choose_format(self.image, self.plan).zarr:
            published = [self.store.labels_path, self.store.filtered_path]
            for store in published + [self.store.probabilities_path] * self.plan.save_probabilities:
                _build_pyramid(store, self.work)
        self._keep_for_stack()
        files = tuple(map(str, self._publish()))
        seconds = {**report.seconds, "writing": time.perf_counter() - started - filtering}
        return replace(report, seconds=seconds, files=files)

    def _clean_and_measure(self) -> TaskReport:
        pair, plan, started = self.task.pair, self.plan, time.perf_counter()
        if self.filters:
            self._filter()
        seconds = {"post_processing": time.perf_counter() - started} if self.filters else {}
        if pair.label is None:
            return TaskReport(self.task.key, {}, seconds)
        read = label_reader(pair.label, plan)
        cleaned = open_level(self.store.filtered_path, 0) if self.filters else None
        confusions = {"post_processing": image_confusion(cleaned, read, plan)} if cleaned is not None else {}
        spacing = self.image.spacing
        boundaries: dict[str, Counts] = {}
        boundaries |= dict.fromkeys(self.task.stages, image_boundary(self.store.labels, read, plan, spacing))
        if cleaned is not None:
            boundaries["post_processing"] = image_boundary(cleaned, read, plan, spacing)
        return TaskReport(self.task.key, confusions, seconds, patch_score(self.store.labels, read, plan), boundaries)

    def _filter(self) -> None:
        """The median filters, block by block into a store of their own."""
        store = self.store
        make_label_store(store.filtered_path, self.task.pair, self.plan)
        source = filter_source(store.labels, store.probabilities, self.plan)
        predicted = predicted_region(self.image.spatial_shape, self.plan)
        assert self.task.block_shape is not None
        blocks = grid_blocks(self.image.spatial_shape, self.task.block_shape)
        numbered = ((str(number), block) for number, block in enumerate(blocks))
        for block in Done(self.work / "filtered.txt").left_of(numbered):
            write_block(store.filtered_path, 0, block, filter_block(source, block, self.filters, predicted))

    def _keep_for_stack(self) -> None:
        """The probabilities of a slice, where the filters of the stack need them, before their store gets its final name."""
        if not stack_takes_probabilities(self.plan) or not self.store.probabilities_path.is_dir():
            return
        source = self.store.probabilities
        assert source is not None
        with aside(self.folders.slice_probabilities(self.task.name)) as part:
            kept = np.lib.format.open_memmap(part, mode="w+", dtype=np.float32, shape=source.shape)
            for block in grid_blocks(self.image.spatial_shape, self.task.block_shape or self.image.spatial_shape):
                kept[(slice(None), *block)] = source[(slice(None), *block)]
            del kept

    def _publish(self) -> list[Path]:
        """The label image of the last stage comes last: it stands for the image."""
        forget_other_record(self.folders.state, self.task.name, self.task.key)
        first, *others = (stage_files(self.task.name, self.image, self.plan, self.folders, s) for s in self.task.stages)
        files = first.publish(self.store.labels_path, self.store.probabilities_path)
        files += [path for other in others for path in first.copy_to(other)]
        if self.filters:
            files += filtered_file(self.task.name, self.image, self.plan, self.folders).publish(self.store.filtered_path)
        return files


def _build_pyramid(store: Path, work: Path) -> None:
    """The lower resolutions of a store, block by block; nothing to do once it has its final name."""
    if not store.is_dir():
        return
    blocks = (
        (f"{level} {number}", (level, block))
        for level in range(1, len(read_pyramid(store).levels))
        for number, block in enumerate(iter_blocks_of_level(store, level))
    )
    for level, block in Done(work / f"{store.stem}_pyramid.txt").left_of(blocks):
        downsample_region(store, level, block)
