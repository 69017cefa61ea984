"""The test stage: every image predicted, cleaned, written and measured, as events; a killed run goes on where it was."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from crista.geometry.tiles import whole
from crista.images.image import ImagePair
from crista.images.write import write_image
from crista.inference.clean import filter_prediction
from crista.inference.measure import Counts, PatchScores, ReadLabel, image_confusion, label_reader
from crista.inference.predictor import Predictor
from crista.inference.record import ImageRecord, load_record, record_key
from crista.inference.sink import PredictionSink, Scratch
from crista.metrics.overlap import foreground_iou
from crista.plan.events import Event, FileWritten, ImageFinished, Said, StageStarted, TileFinished
from crista.plan.plan import Plan


@dataclass(frozen=True)
class OutputFolders:
    """Where predictions go."""

    per_image: Path
    per_image_binarized: Path
    full_image: Path
    full_image_binarized: Path
    full_post_processing: Path
    as_3d_stack: Path
    state: Path
    """Records of finished images."""


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

    @property
    def plan(self) -> Plan:
        """The plan of the network."""
        return self.predictor.plan


def predict_images(job: PredictionJob) -> Generator[Event, None, list[ImageRecord]]:
    """Predict all images; returns their records in the order of the images.

    With TEST.ANALIZE_2D_IMGS_AS_3D_STACK the last record is that of the stack.
    """
    yield StageStarted("predict", len(job.pairs))
    if not job.plan.config.test.analize_2d_imgs_as_3d_stack:
        return (yield from _predict_each(job, None))
    with Scratch(job.folders.state) as scratch:
        stack = _Stack(job, scratch)
        records = yield from _predict_each(job, stack)
        return [*records, (yield from stack.finish())]


def _predict_each(job: PredictionJob, stack: _Stack | None) -> Generator[Event, None, list[ImageRecord]]:
    records = []
    for index, (pair, name) in enumerate(zip(job.pairs, job.names, strict=True), 1):
        key = record_key(job.digest, job.plan, pair)
        record = load_record(job.folders.state, name, key) if stack is None else None
        if record is not None:
            yield Said(f"{name}: predicted before with the same network and settings, kept")
        else:
            record = yield from _predict_image(job, _Output(job, pair, name), key, stack)
            record.save(job.folders.state)
        records.append(record)
        scores = {stage: foreground_iou(counts) for stage, counts in record.confusions.items()}
        yield ImageFinished(name, index, len(job.pairs), scores)
    return records


class _Output:
    """What is gathered about one image while it is predicted."""

    def __init__(self, job: PredictionJob, pair: ImagePair, name: str) -> None:
        self.pair = pair
        self.name = name
        self.read: ReadLabel | None = label_reader(pair.label, job.plan) if pair.label is not None else None
        self.plan = job.plan
        self.confusions: dict[str, Counts] = {}
        self.seconds: dict[str, float] = {}
        self.files: list[str] = []

    def measure(self, stage: str, labels: NDArray[np.uint8]) -> None:
        """Count the confusions of a label image, if there is a true one."""
        if self.read is not None:
            self.confusions[stage] = image_confusion(labels, self.read, self.plan)

    def write(self, folder: Path, array: NDArray[np.generic]) -> FileWritten:
        """Write a label image (Z)YX or probabilities K(Z)YX."""
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{self.name}.tif"
        axes = "ZYX"[-self.plan.ndim :] if array.ndim == self.plan.ndim else "C" + "ZYX"[-self.plan.ndim :]
        write_image(path, array, axes, spacing=self.pair.image.spacing)
        self.files.append(str(path))
        return FileWritten(path, "prediction")


def _predict_image(job: PredictionJob, output: _Output, key: str, stack: _Stack | None) -> Generator[Event, None, ImageRecord]:
    shape = output.pair.image.spatial_shape
    patches = PatchScores(job.plan, shape, output.read) if output.read is not None else None
    with Scratch(job.folders.state) as scratch:
        sink = yield from _predict_into_sink(job, output, scratch, patches)
        if stack is not None:
            stack.add(output.pair, sink, output.read)
        if job.full_image:
            sink = yield from _predict_into_sink(job, output, scratch, None, whole_image=True)
        if job.plan.config.test.post_processing.filters_for(job.plan.ndim) and stack is None:
            started = time.perf_counter()
            cleaned = filter_prediction(sink, job.plan, scratch)
            output.seconds["post_processing"] = time.perf_counter() - started
            output.measure("post_processing", cleaned)
            yield output.write(job.folders.full_post_processing, cleaned)
    return ImageRecord(
        output.name,
        key,
        output.seconds,
        output.confusions,
        patches.mean if patches is not None else None,
        tuple(output.files),
    )


def _predict_into_sink(
    job: PredictionJob,
    output: _Output,
    scratch: Scratch,
    patches: PatchScores | None,
    *,
    whole_image: bool = False,
) -> Generator[Event, None, PredictionSink]:
    """Predict one image from patches or as a whole, measure and write it."""
    stage = "full_image" if whole_image else "per_image"
    folders = job.folders
    raw, binarized = (
        (folders.full_image, folders.full_image_binarized) if whole_image else (folders.per_image, folders.per_image_binarized)
    )
    plan, started = job.plan, time.perf_counter()
    image = output.pair.image
    sink = PredictionSink(
        image.spatial_shape,
        plan.classes.num_classes,
        plan.config.test.threshold,
        scratch=scratch,
        keep_probabilities=plan.save_probabilities or _filters_need_probabilities(plan),
    )
    for done, total in job.predictor.predict(image, sink, whole_image=whole_image, on_tile=patches):
        yield TileFinished(output.name, done, total)
    output.seconds[stage] = time.perf_counter() - started
    output.measure(stage, sink.labels)
    started = time.perf_counter()
    kept = sink.probabilities if plan.save_probabilities else None
    yield output.write(raw, kept if kept is not None else sink.labels)
    yield output.write(binarized, sink.labels)
    output.seconds["writing"] = output.seconds.get("writing", 0.0) + time.perf_counter() - started
    return sink


def _filters_need_probabilities(plan: Plan) -> bool:
    """Two classes: the median of labels is the label of the median. More: probabilities are filtered."""
    ndim = 3 if plan.config.test.analize_2d_imgs_as_3d_stack else plan.ndim
    return plan.classes.num_classes > 2 and bool(plan.config.test.post_processing.filters_for(ndim))


class _Stack:
    """2D predictions as the slices of one volume (TEST.ANALIZE_2D_IMGS_AS_3D_STACK)."""

    def __init__(self, job: PredictionJob, scratch: Scratch) -> None:
        self._job = job
        self._scratch = scratch
        self._name = "stack"
        while self._name in job.names:  # an image may be called so
            self._name += "_3d"
        self._sink: PredictionSink | None = None
        self._truth: NDArray[np.uint8] | None = None
        self._count = 0

    def add(self, pair: ImagePair, sink: PredictionSink, read: ReadLabel | None) -> None:
        """Put the prediction of one image at the next slice."""
        plan, shape = self._job.plan, (len(self._job.pairs), *pair.image.spatial_shape)
        if self._sink is None:
            keep = _filters_need_probabilities(plan)
            self._sink = PredictionSink(shape, plan.classes.num_classes, 0.5, scratch=self._scratch, keep_probabilities=keep)
            self._truth = self._scratch.empty(shape, np.uint8) if read is not None else None
        self._sink.labels[self._count] = sink.labels
        if self._sink.probabilities is not None and sink.probabilities is not None:
            self._sink.probabilities[:, self._count] = sink.probabilities
        if self._truth is not None and read is not None:
            self._truth[self._count] = read(whole(pair.image.spatial_shape))
        self._count += 1

    def finish(self) -> Generator[Event, None, ImageRecord]:
        """Filter, write and measure the volume."""
        assert self._sink is not None
        confusions = dict(self._measured("stack", self._sink.labels))
        folders, files = self._job.folders, []
        before = folders.as_3d_stack / "stack.tif"
        yield self._write(before, self._sink.labels)
        files.append(str(before))
        if self._job.plan.config.test.post_processing.filters_for(3):
            cleaned = filter_prediction(self._sink, self._job.plan, self._scratch)
            confusions.update(self._measured("post_processing", cleaned))
            after = folders.full_post_processing / "stack.tif"
            yield self._write(after, cleaned)
            files.append(str(after))
        return ImageRecord(self._name, "", {}, confusions, None, tuple(files))

    def _measured(self, stage: str, labels: NDArray[np.uint8]) -> Iterator[tuple[str, Counts]]:
        truth = self._truth
        if truth is not None:
            yield stage, image_confusion(labels, lambda region: truth[region], _without_crop(self._job.plan))

    def _write(self, path: Path, labels: NDArray[np.uint8]) -> FileWritten:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_image(path, labels, "ZYX", spacing=None)
        return FileWritten(path, "prediction")


def _without_crop(plan: Plan) -> Plan:
    """The border crop is given for single images; a stack of them is measured whole."""
    test = plan.config.test.model_copy(update={"eval_border_crop": ()})
    return plan.model_copy(update={"config": plan.config.model_copy(update={"test": test})})
