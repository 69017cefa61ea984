"""Perform: tasks through the network, each written, measured and reported; doing one twice is harmless."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from crista.errors import PredictionError
from crista.geometry.tiles import whole
from crista.images.atomic import aside
from crista.inference.clean import filter_block, filter_source
from crista.inference.cover import whole_image_assembler
from crista.inference.measure import (
    Counts,
    ReadLabel,
    image_boundary,
    intersection,
    label_reader,
    patch_score,
    predicted_region,
    region_confusion,
)
from crista.inference.outputs import filtered_file, stage_files
from crista.inference.predicted import PredictedBlock
from crista.inference.predictor import Piece, Predictor, Progress
from crista.inference.record import forget_other_record
from crista.inference.statistics import StatisticsCache
from crista.inference.store import ImageStore
from crista.inference.task import OutputFolders, Task, TaskReport, keeps_probabilities, stack_takes_probabilities
from crista.inference.uncertainty import EntropyCells, choose_cells
from crista.plan.allocator import let_freed_arrays_go_back
from crista.plan.plan import Plan

T = TypeVar("T")


def perform(
    predictor: Predictor,
    folders: OutputFolders,
    tasks: Sequence[Task],
    conclude: Callable[[Task, TaskReport], T],
    statistics: StatisticsCache | None = None,
) -> Iterator[tuple[Task, Progress[T]]]:
    """Predict the blocks of `tasks` in order; yields after each batch of tiles, and with the last one what `conclude` returned.

    It is called in the thread that writes, with the report of each task whose files are written. `statistics` are those that are
    known from other tasks, if any are.
    """
    known = statistics if statistics is not None else StatisticsCache(folders.state, predictor.plan)
    owners: dict[int, Task] = {}

    def pieces() -> Iterator[Piece[T]]:
        for task in tasks:
            piece = _piece_of(predictor, folders, task, known, conclude)
            owners[id(piece)] = task
            yield piece

    if any(task.block_shape is not None for task in tasks):
        let_freed_arrays_go_back()
    for progress in predictor.predict(pieces()):
        task = owners[id(progress.piece)] if progress.result is None else owners.pop(id(progress.piece))
        yield task, progress


def _piece_of(
    predictor: Predictor,
    folders: OutputFolders,
    task: Task,
    statistics: StatisticsCache,
    conclude: Callable[[Task, TaskReport], T],
) -> Piece[T]:
    image, plan = task.pair.image, predictor.plan
    shape, found = image.spatial_shape, statistics.of(task.name, image)
    predicted = PredictedBlock(
        task.block,
        plan.classes.num_classes,
        plan.config.test.threshold,
        keep_probabilities=keeps_probabilities(plan),
        uncertainty=EntropyCells(choose_cells(shape), task.block) if "per_image" in task.stages else None,
    )
    wanted = intersection(task.block, predicted_region(shape, plan))
    if task.stages == ("full_image",):
        assembler = whole_image_assembler(shape, predictor.multiple, wanted)
    else:
        assembler = predictor.tiles_of(shape, wanted, task.block_shape)

    def finish(predicted: PredictedBlock) -> T:
        started = time.perf_counter()
        entropy = predicted.uncertainty.sums if predicted.uncertainty is not None else None
        _check_numbers(task, entropy)
        finish_one = _finish_image if task.block_shape is None else _finish_block
        report = finish_one(task, predicted, plan, folders)
        rest = time.perf_counter() - started - sum(report.seconds.values())
        seconds = {task.stages[0]: predicted.network_seconds, "writing": rest, **report.seconds}
        return conclude(task, replace(report, seconds=seconds, entropy=entropy, is_blank=found.leaves_nothing))

    return Piece(image, found, assembler, predicted, finish)


def _check_numbers(task: Task, entropy: NDArray[np.float64] | None) -> None:
    """Labels are made of anything, also of scores that are no numbers; their entropy, looked at in passing, is none then."""
    if entropy is not None and not np.isfinite(entropy).all():
        raise PredictionError(
            f"{task.pair.image.path}: what the network gives for this image are not numbers, so it is not written\n"
            "    -> on a GPU, where half precision has the smaller range, try the processor (--set SYSTEM.DEVICE=cpu); if that "
            "is no better, the weights of the network are damaged: train it again"
        )


def _finish_block(task: Task, predicted: PredictedBlock, plan: Plan, folders: OutputFolders) -> TaskReport:
    """One of several blocks of an image: it goes into the image's store."""
    ImageStore(folders.work(task.name, task.key), task.pair, plan).write(task.block, predicted)
    read = _reader(task, plan)
    if read is None:
        return TaskReport(task.key)
    counts = region_confusion(predicted.labels, task.block, task.pair.image.spatial_shape, read, plan)
    return TaskReport(task.key, dict.fromkeys(task.stages, counts))


def _finish_image(task: Task, predicted: PredictedBlock, plan: Plan, folders: OutputFolders) -> TaskReport:
    """A whole image in memory: written, measured and filtered."""
    labels, read = predicted.labels, _whole_reader(task, plan)
    if not folders.are_apart:
        forget_other_record(folders.state, task.name, task.key)
    first, *others = (stage_files(task.name, task.pair.image, plan, folders, stage) for stage in task.stages)
    files = first.write(labels, predicted.probabilities)
    files += [path for other in others for path in first.copy_to(other)]
    _keep_for_stack(task, predicted, plan, folders)
    confusions: dict[str, Counts] = {}
    boundaries: dict[str, Counts] = {}
    score = None
    if read is not None:
        confusions |= dict.fromkeys(task.stages, region_confusion(labels, whole(labels.shape), labels.shape, read, plan))
        boundaries |= dict.fromkeys(task.stages, image_boundary(labels, read, plan, task.pair.image.spacing))
        score = patch_score(labels, read, plan) if "per_image" in task.stages else None
    report = TaskReport(task.key, confusions, {}, score, boundaries, tuple(map(str, files)))
    return _filtered(report, task, predicted, plan, folders, read) if task.is_last and filters_of(plan) else report


def _filtered(
    report: TaskReport, task: Task, predicted: PredictedBlock, plan: Plan, folders: OutputFolders, read: ReadLabel | None
) -> TaskReport:
    """The report with what the median filters add."""
    started, shape = time.perf_counter(), predicted.labels.shape
    source = filter_source(predicted.labels, predicted.probabilities, plan)
    cleaned = filter_block(source, whole(shape), filters_of(plan), predicted_region(shape, plan))
    seconds = {"post_processing": time.perf_counter() - started}
    written = filtered_file(task.name, task.pair.image, plan, folders).write(cleaned)
    confusions, boundaries = dict(report.confusions), dict(report.boundaries)
    if read is not None:
        confusions["post_processing"] = region_confusion(cleaned, whole(shape), shape, read, plan)
        boundaries["post_processing"] = image_boundary(cleaned, read, plan, task.pair.image.spacing)
    files = (*report.files, *map(str, written))
    return replace(report, confusions=confusions, boundaries=boundaries, seconds=seconds, files=files)


def filters_of(plan: Plan) -> tuple[tuple[str, int], ...]:
    """The median filters of each image by itself; with TEST.ANALIZE_2D_IMGS_AS_3D_STACK they follow on the stack."""
    test = plan.config.test
    return () if test.analize_2d_imgs_as_3d_stack else test.post_processing.filters_for(plan.ndim)


def _keep_for_stack(task: Task, predicted: PredictedBlock, plan: Plan, folders: OutputFolders) -> None:
    """Write the probabilities of a slice, where the filters of the stack need them."""
    if stack_takes_probabilities(plan):
        assert predicted.probabilities is not None
        with aside(folders.slice_probabilities(task.name)) as part:
            np.save(part, predicted.probabilities, allow_pickle=False)


def _reader(task: Task, plan: Plan) -> ReadLabel | None:
    return label_reader(task.pair.label, plan) if task.pair.label is not None else None


def _whole_reader(task: Task, plan: Plan) -> ReadLabel | None:
    """The same of a label image that is read once and kept while its image is measured."""
    read = _reader(task, plan)
    if read is None:
        return None
    truth = read(whole(task.pair.image.spatial_shape))
    return lambda region: truth[region]
