"""Task: one block of one image to predict, and the report that its presence on disk means it is done."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from math import prod
from pathlib import Path
from typing import Literal
from uuid import uuid4

import numpy as np
from numpy.typing import NDArray

from crista.geometry.axes import Region
from crista.geometry.tiles import grid_blocks, round_up, whole
from crista.images.atomic import aside, atomic_write, publish_folder, read_json
from crista.images.image import Image, ImagePair
from crista.images.pyramid import SHARD_BYTES, Pyramid, choose_pyramid
from crista.inference.measure import Counts, intersection, predicted_region
from crista.inference.record import forget_other_record
from crista.plan.plan import Plan
from crista.plan.topology import input_multiple

Stage = Literal["per_image", "full_image"]
"""Put together from tiles, or the whole image in one piece."""

IN_MEMORY_BYTES = 64 * 2**20
"""Labels, and probabilities where they are kept, of images up to this size are one block and stay in memory until they are
written."""

BLOCK_BYTES = 32 * 2**20
"""The same of one block of a larger image."""

SLICES = "slices"
APART = ("per_image", "per_image_binarized", "full_image", "full_image_binarized", "full_post_processing", SLICES)
"""The folders that a process which shares the work has for itself, see `apart`."""

LABELS_STORE = "labels.zarr"
"""In the work folder of an image of several blocks: its label image."""

UNPUBLISHED = ".unpublished"
"""In the work folder of an image: its files that have no final name yet, a folder for each attempt."""


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
    """Records of finished images, and what is not finished yet."""
    slices: Path | None = None
    """Probabilities of slices until the stack is filtered; None: in `state`."""

    @property
    def are_apart(self) -> bool:
        """Whether what is written here gets its final name later, from another process (`apart`)."""
        return self.slices is not None

    def work(self, name: str, key: str) -> Path:
        """Where an image lies while it is not finished; `key` says what it is made with."""
        return self.state / "work" / f"{name}-{key[:12]}"

    def uncertainty(self, name: str) -> Path:
        """Where the map of the entropy of a finished image lies."""
        return self.state / "uncertainty" / f"{name}.npy"

    def slice_probabilities(self, name: str) -> Path:
        """Where the probabilities of one slice lie until the stack is filtered."""
        return (self.slices or self.state / "stack") / f"{name}.npy"


@dataclass(frozen=True)
class Task:
    """One block to predict."""

    name: str
    """Name of the results of the image."""
    pair: ImagePair
    stages: tuple[Stage, ...]
    """What the prediction stands for: both stages where tiles give exactly what the whole image gives."""
    is_last: bool
    """Whether the median filters follow on it."""
    key: str
    """Identifies the network, the settings and the input."""
    index: int
    """Number of the block."""
    num_blocks: int
    block: Region
    block_shape: tuple[int, ...] | None
    """Usual shape of the image's blocks; None where it is one block."""

    def report_path(self, folders: OutputFolders) -> Path:
        """Where the report of the finished task lies."""
        return folders.work(self.name, self.key) / f"{self.stages[0]}-{self.index}.json"

    def entropy_path(self, folders: OutputFolders) -> Path:
        """Where its sums of the entropy lie (see `crista.inference.uncertainty`)."""
        return self.report_path(folders).with_suffix(".npy")


@dataclass(frozen=True)
class TaskReport:
    """What is known of a finished task."""

    key: str
    confusions: Mapping[str, Counts] = field(default_factory=dict)
    """(K, K) counts per stage; empty without label images."""
    seconds: Mapping[str, float] = field(default_factory=dict)
    patch_iou: float | None = None
    boundaries: Mapping[str, Counts] = field(default_factory=dict)
    """(K, 4) edge counts per stage, of whole images only: an edge is judged by what lies around it."""
    files: tuple[str, ...] = ()
    entropy: NDArray[np.float64] | None = None
    """Sums of the entropy in its cells (see `crista.inference.uncertainty`), in a file of their own; None where not gathered."""
    is_blank: bool = False
    """Whether clipping leaves one value of several in a channel of its image (`ImageStatistics.leaves_nothing`)."""
    engine: str = ""
    """What a worker computed it with; not kept."""

    def save(self, path: Path) -> None:
        """Write it aside and rename it."""
        content = {
            "key": self.key,
            "confusions": {stage: counts.tolist() for stage, counts in self.confusions.items()},
            "seconds": dict(self.seconds),
            "patch_iou": self.patch_iou,
            "boundaries": {stage: counts.tolist() for stage, counts in self.boundaries.items()},
            "files": list(self.files),
            "is_blank": self.is_blank,
        }
        atomic_write(path, json.dumps(content))


def load_report(path: Path, key: str) -> TaskReport | None:
    """The report of a task finished earlier with the same key and all its files still there, else None."""
    content = read_json(path)
    if content is None or content["key"] != key or not all(Path(file).exists() for file in content["files"]):
        return None
    confusions, boundaries = (
        {stage: np.asarray(counts, np.int64) for stage, counts in content[kind].items()} for kind in ("confusions", "boundaries")
    )
    files, is_blank = tuple(content["files"]), content["is_blank"]
    return TaskReport(key, confusions, content["seconds"], content["patch_iou"], boundaries, files, is_blank=is_blank)


def keep_report(task: Task, report: TaskReport, folders: OutputFolders) -> TaskReport:
    """Put the report of a finished task on disk: from now on the task is done.

    A block is of no use to anybody once its image is finished, and what lay beside it removed (another worker was faster): a
    report that came then would vouch for a block of a store that is made anew.
    """
    store = task.report_path(folders).with_name(LABELS_STORE)
    if task.block_shape is not None and not (store / "zarr.json").is_file():  # the folder may be there: the block made it again
        return report
    if report.entropy is not None:
        with aside(task.entropy_path(folders)) as part:
            np.save(part, report.entropy, allow_pickle=False)
    report.save(task.report_path(folders))
    return report


@contextmanager
def apart(folders: OutputFolders) -> Iterator[OutputFolders]:
    """Folders that a process which shares the work writes images to; what is still there at the end is removed.

    A process may come late, and predict an image that has been finished meanwhile, with another network perhaps: it must not
    write where the images lie that others vouch for. `keep_apart` takes over what it has written.
    """
    scratch = folders.state / f".scratch-{uuid4().hex}"
    try:
        yield replace(folders, **{name: scratch / name for name in APART})
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def keep_apart(task: Task, report: TaskReport, folders: OutputFolders, own: OutputFolders) -> TaskReport:
    """`keep_report` of a task whose files were written to `own` (see `apart`): they come beside the report.

    `kept_report` gives them their final names, once the image is put together.
    """
    if task.block_shape is None:
        slices = own.slice_probabilities(task.name)
        written = [*map(Path, report.files), *([slices] if slices.is_file() else [])]
        attempt = folders.work(task.name, task.key) / UNPUBLISHED / uuid4().hex[:8]
        files = [attempt / file.parent.name / file.name for file in written]
        for file, moved in zip(written, files, strict=True):
            moved.parent.mkdir(parents=True, exist_ok=True)
            file.replace(moved)
        report = replace(report, files=tuple(map(str, files)))
    return keep_report(task, report, folders)


def kept_report(task: Task, folders: OutputFolders) -> TaskReport | None:
    """The report of a task that is done, its files under their final names; else None."""
    report = load_report(task.report_path(folders), task.key)
    entropy = task.entropy_path(folders)
    if report is None:
        return None
    report = replace(report, files=tuple(map(str, _published(task, [Path(file) for file in report.files], folders))))
    try:
        return replace(report, entropy=np.load(entropy, allow_pickle=False))
    except (OSError, ValueError, EOFError):  # not gathered, or damaged: a ranking is not worth a prediction
        return report


def _published(task: Task, files: Sequence[Path], folders: OutputFolders) -> list[Path]:
    """The files of a task under their final names. After a kill it is done again, or the task is."""
    published = []
    for file in files:
        if file.parts[-4:-3] != (UNPUBLISHED,):  # written by the process that puts the images together
            published.append(file)
            continue
        forget_other_record(folders.state, task.name, task.key)
        if file.parent.name == SLICES:
            _publish(file, folders.slice_probabilities(task.name))
        else:
            published.append(_publish(file, getattr(folders, file.parent.name) / file.name))
    return published


def _publish(file: Path, final: Path) -> Path:
    """Give a file or a Zarr folder its final name. A file stays where it is as well, and so does what the report says of it."""
    if file.is_dir():
        publish_folder(file, final)
        return final
    with aside(final) as part:
        try:
            os.link(file, part)
        except OSError:  # not every file system has hard links
            shutil.copyfile(file, part)
    return final


def bytes_per_voxel(plan: Plan) -> int:
    """What a voxel of the result takes in memory: its label, and its probabilities where they are kept."""
    return 1 + (4 * plan.classes.num_classes if keeps_probabilities(plan) else 0)


def keeps_probabilities(plan: Plan) -> bool:
    """Whether probabilities are needed: to be written, or for filters of more than two classes.

    With two classes the median of the labels is the label of the median of the probabilities.
    """
    filtered = plan.classes.num_classes > 2 and bool(plan.config.test.post_processing.filters_for(plan.ndim))
    return plan.save_probabilities or stack_takes_probabilities(plan) or filtered


def stack_takes_probabilities(plan: Plan) -> bool:
    """Whether the stack of TEST.ANALIZE_2D_IMGS_AS_3D_STACK is filtered by the probabilities of its slices."""
    test = plan.config.test
    return test.analize_2d_imgs_as_3d_stack and plan.classes.num_classes > 2 and bool(test.post_processing.filters_for(3))


def choose_block_shape(image: Image, plan: Plan) -> tuple[int, ...] | None:
    """The shape of the blocks of an image, whole units of writing of its stores; None if it is one block in memory."""
    shape = image.spatial_shape
    voxel = bytes_per_voxel(plan)
    if prod(shape) * voxel <= IN_MEMORY_BYTES:
        return None
    pyramids = (labels_pyramid(image, plan), probabilities_pyramid(image, plan))
    units = [pyramid.levels[0].block_shape[-len(shape) :] for pyramid in pyramids]
    unit = [max(sizes) for sizes in zip(*units, strict=True)]  # powers of two, or all of an axis
    block = list(unit)
    while True:
        growing = [axis for axis in range(len(block)) if block[axis] < shape[axis]]
        if not growing or 2 * prod(block) * voxel > BLOCK_BYTES:
            return tuple(block)
        shortest = min(growing, key=lambda axis: (block[axis], axis))
        block[shortest] *= 2


def labels_pyramid(image: Image, plan: Plan) -> Pyramid:
    """How the label image of `image` lies on disk: where probabilities are kept, in smaller files, for a block is a whole one."""
    axes = "ZYX"[-image.ndim :]
    shard_bytes = min(SHARD_BYTES, BLOCK_BYTES // bytes_per_voxel(plan))
    return choose_pyramid(axes, image.spatial_shape, np.dtype(np.uint8), image.spacing, shard_bytes=shard_bytes)


def probabilities_pyramid(image: Image, plan: Plan) -> Pyramid:
    """How the probabilities of `image` lie on disk."""
    shape = (plan.classes.num_classes, *image.spatial_shape)
    return choose_pyramid("C" + "ZYX"[-image.ndim :], shape, np.dtype(np.float32), image.spacing)


def plan_tasks(plan: Plan, pair: ImagePair, name: str, key: str, *, full_image: bool) -> list[Task]:
    """The blocks of an image that are to be predicted.

    `full_image` asks for the whole image in one piece too; that is a task of its own only where tiles would differ from it.
    """
    image = pair.image
    block_shape = choose_block_shape(image, plan)
    wanted = predicted_region(image.spatial_shape, plan)
    blocks = list(grid_blocks(image.spatial_shape, block_shape)) if block_shape is not None else [whole(image.spatial_shape)]
    blocks = [b for b in blocks if all(axis.stop > axis.start for axis in intersection(b, wanted))]
    twice = full_image and not is_exact(plan, image)
    stages: tuple[Stage, ...] = ("per_image", "full_image") if full_image and not twice else ("per_image",)
    tasks = [
        Task(name, pair, stages, not twice, key, index, len(blocks), block, block_shape) for index, block in enumerate(blocks)
    ]
    if twice:
        tasks.append(Task(name, pair, ("full_image",), True, key, 0, 1, whole(image.spatial_shape), None))
    return tasks


def is_exact(plan: Plan, image: Image) -> bool:
    """Whether tiles give what the whole image gives: the halo covers the receptive field, or the image is one tile."""
    inference = plan.inference
    if inference.mode == "blended":
        shape = [round_up(n, m) for n, m in zip(image.spatial_shape, input_multiple(plan.model, plan.ndim), strict=True)]
        return all(t >= n for t, n in zip(inference.tile_size, shape, strict=True))
    if inference.exact:
        return True
    padded = prod(round_up(n, m) for n, m in zip(image.spatial_shape, input_multiple(plan.model, plan.ndim), strict=True))
    return padded <= (inference.max_tile_voxels or prod(inference.tile_size)) and choose_block_shape(image, plan) is None
