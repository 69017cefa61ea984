"""The test stage: every image predicted, cleaned, written and measured, as events; a killed run goes on where it was."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path

from crista.images.image import ImagePair
from crista.images.wording import plural
from crista.inference.distribution import shard_of
from crista.inference.finish import finish_image, finish_kept
from crista.inference.outputs import choose_format
from crista.inference.perform import perform
from crista.inference.predictor import Predictor
from crista.inference.record import ImageRecord, has_other_record, load_record, record_key
from crista.inference.stack import finish_stack, will_take_probabilities
from crista.inference.store import ImageStore, remove_stale_work
from crista.inference.task import OutputFolders, Task, TaskReport, apart, keep_apart, keep_report, load_report, plan_tasks
from crista.metrics.overlap import foreground_iou
from crista.plan.events import Event, FileWritten, ImageFinished, Said, StageStarted, TileFinished
from crista.plan.plan import Plan

OTHER_RECORDS = (
    "{} {} finished before, with another network or engine, other settings, files or tiles (halo and size are measured on the "
    "largest image): predicted anew"
)

STALE_WORK = (
    "what a run or a shard with another network or engine, other settings, files or tiles had predicted of {} is of no use here: "
    "removed"
)

Elsewhere = Callable[[Sequence[Task]], Iterable[Task | Event]]
"""Has tasks done by other processes; yields each when its report is on disk, in any order, and what there is to say."""


@dataclass(frozen=True)
class PredictionJob:
    """Which images to predict with what, and where to."""

    predictor: Predictor
    pairs: Sequence[ImagePair]
    """Labels, where there are any, are measured against."""
    folders: OutputFolders
    digest: str
    """Digest of the network's weights."""
    names: Sequence[str]
    """Name of the results of each image, all different."""
    full_image: bool = False
    """Predict whole images without patches as well."""
    elsewhere: Elsewhere | None = None
    """Who does the tasks; None: this process."""

    @property
    def plan(self) -> Plan:
        """The plan of the network."""
        return self.predictor.plan

    @cached_property
    def keys(self) -> Sequence[str]:
        """What the record of each image depends on."""
        return [record_key(self.digest, self.plan, pair) for pair in self.pairs]

    @cached_property
    def slices_are_needed(self) -> bool:
        """Whether a record is worth nothing without the probabilities that it was made of: the stack is filtered by them."""
        return will_take_probabilities(self.names, self.keys, self.plan, self.folders)


@dataclass
class _Image:
    """One image of the job on its way to a record."""

    index: int
    tasks: list[Task] = field(default_factory=list)
    undone: list[Task] = field(default_factory=list)
    """Those that were not done when the image was taken up."""
    left: int = 0
    """How many of them are still not done."""
    record: ImageRecord | None = None

    @property
    def is_one_task(self) -> bool:
        """Whether all of it is in memory at once: its record follows from its only task, and nothing lies on disk between."""
        return len(self.tasks) == 1 and self.tasks[0].block_shape is None


def predict_images(job: PredictionJob) -> Generator[Event, None, list[ImageRecord]]:
    """Predict all images; returns their records in the order of the images.

    With TEST.ANALIZE_2D_IMGS_AS_3D_STACK the last record is that of the stack.
    """
    yield StageStarted("predict", len(job.pairs))
    formats = sorted({choose_format(pair.image, job.plan).names for pair in job.pairs})
    yield Said(f"predictions are written as {', '.join(formats)}")
    before = [name for name, key in zip(job.names, job.keys, strict=True) if has_other_record(job.folders.state, name, key)]
    if before:
        yield Said(OTHER_RECORDS.format(plural(len(before), "image"), "was" if len(before) == 1 else "were"))
    # Before any image gets its final name: their reports may vouch for what lies there.
    others = remove_stale_work(job.folders, {job.folders.work(*entry) for entry in zip(job.names, job.keys, strict=True)})
    if others:
        yield Said(STALE_WORK.format(plural(others, "image")))
    images = {}
    for index, name in enumerate(job.names):
        images[name] = yield from _take_up(job, index)
        if images[name].record is None and not images[name].left:
            yield from _finish(job, images[name])  # killed between its last block and its record
    work = {job.folders.work(name, image.tasks[0].key) for name, image in images.items() if image.tasks}
    remove_stale_work(job.folders, work)  # what a late worker has left of images that are finished
    yield from _predict_left(job, images)
    records = [image.record for image in images.values() if image.record is not None]
    if job.plan.config.test.analize_2d_imgs_as_3d_stack:
        records.append((yield from finish_stack(job.pairs, job.names, records, job.plan, job.folders)))
    return records


def predict_shard(job: PredictionJob, index: int, count: int) -> Generator[Event, None, None]:
    """Predict every `count`-th block only; nothing is put together, other processes do the rest."""
    yield StageStarted("predict", len(job.pairs))
    images = []
    for number in range(len(job.pairs)):
        images.append((yield from _take_up(job, number)))
    tasks = shard_of([task for image in images for task in image.tasks], index, count)
    left = [task for task in tasks if not is_done(job, task)]
    with apart(job.folders) as own:
        steps = perform(job.predictor, own, left, partial(keep_apart, folders=job.folders, own=own))
        number = 0
        for task, progress in steps:
            yield from job.predictor.take_notices()
            if progress.result is not None:
                number += 1
                yield TileFinished(task.name, number, len(left))
    total = sum(len(image.tasks) for image in images)
    yield Said(
        f"shard {index}/{count}: its {len(tasks)} of {total} blocks are done. When all shards are, run the same command without "
        "--shard: it puts the images together and measures them"
    )


def _take_up(job: PredictionJob, index: int) -> Generator[Event, None, _Image]:
    """What is left to do for an image."""
    pair, name, plan, folders = job.pairs[index], job.names[index], job.plan, job.folders
    key = job.keys[index]
    is_enough = not job.slices_are_needed or folders.slice_probabilities(name).is_file()
    record = load_record(folders.state, name, key) if is_enough else None
    if record is not None:
        yield Said(f"{name}: predicted before with the same network and settings, kept")
        yield _finished(job, index, record)
        return _Image(index, record=record)
    tasks = plan_tasks(plan, pair, name, key, full_image=job.full_image)
    if tasks[0].block_shape is not None:
        ImageStore(folders.work(name, key), pair, plan).create()
    undone = [task for task in tasks if not is_done(job, task)]
    done = len(tasks) - len(undone)
    if done:
        yield Said(f"{name}: {done} of {len(tasks)} blocks were predicted before with the same settings, kept")
    return _Image(index, tasks, undone, len(undone))


def is_done(job: PredictionJob, task: Task) -> bool:
    """Whether the report of a task is on disk."""
    return load_report(task.report_path(job.folders), task.key) is not None


def _predict_left(job: PredictionJob, images: dict[str, _Image]) -> Generator[Event, None, None]:
    tasks = [task for image in images.values() for task in image.undone]
    if job.elsewhere is not None:
        for step in job.elsewhere(tasks):
            yield from _task_done(job, images[step.name]) if isinstance(step, Task) else (step,)
        return
    if not tasks:
        return

    def conclude(task: Task, report: TaskReport) -> ImageRecord | TaskReport:
        if images[task.name].is_one_task:
            return finish_image([task], [report], job.plan, job.folders)
        return keep_report(task, report, job.folders)

    for task, progress in perform(job.predictor, job.folders, tasks, conclude):
        yield from job.predictor.take_notices()
        if task.num_blocks == 1:
            yield TileFinished(task.name, progress.done, len(progress.piece.assembler.tiles))
        if isinstance(progress.result, ImageRecord):
            images[task.name].record = progress.result
        if progress.result is not None:
            yield from _task_done(job, images[task.name])
    yield Said(f"prediction: {job.predictor.clock.describe()}")


def _task_done(job: PredictionJob, image: _Image) -> Generator[Event, None, None]:
    image.left -= 1
    total = len(image.tasks)
    if total > 1:
        yield TileFinished(image.tasks[0].name, total - image.left, total)
    if not image.left:
        yield from _finish(job, image)


def _finish(job: PredictionJob, image: _Image) -> Generator[Event, None, None]:
    if image.record is None:
        image.record = finish_kept(image.tasks, job.plan, job.folders)
    for file in image.record.files:
        yield FileWritten(Path(file), "prediction")
    yield _finished(job, image.index, image.record)


def _finished(job: PredictionJob, index: int, record: ImageRecord) -> ImageFinished:
    scores = {stage: foreground_iou(counts) for stage, counts in record.confusions.items()}
    return ImageFinished(record.name, index + 1, len(job.pairs), scores)
