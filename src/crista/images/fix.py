"""Corrected copies of a data set: what can be mended is, what cannot be used is left out, everything is listed."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from crista.config.data import TestData, TrainData, ValidationData
from crista.errors import DataError
from crista.geometry.axes import Array, canonical_axes
from crista.geometry.spacing import Spacing
from crista.geometry.tiles import shape_of
from crista.images.check import DatasetReport
from crista.images.copies import exact_copies, shared_images
from crista.images.dataset import Role
from crista.images.downsampling import build_pyramid
from crista.images.image import Image
from crista.images.label_repair import LabelRepair, RepairPlan
from crista.images.listing import expand_home, list_images
from crista.images.ome_zarr import create_ome_zarr, write_block
from crista.images.pyramid import choose_pyramid
from crista.images.scan import ImageScan
from crista.images.split import Split
from crista.images.stored import lies_in_several_files
from crista.images.write import write_image

WHOLE = 2**29
"""Bytes up to which an image that is rewritten is read at once; larger ones go plane by plane."""

Section = TrainData | ValidationData | TestData


@dataclass(frozen=True)
class Change:
    """One row of the list of changes."""

    file: str
    seen: str
    done: str


@dataclass(frozen=True)
class CopyJob:
    """One split to be copied to `folder`/x and `folder`/y."""

    split: Split
    section: Section
    folder: Path
    left_out: Mapping[Path, str]
    """Images that are not copied, with the reason."""
    repairs: RepairPlan

    def name_of(self, image: Image) -> str:
        """What an image, or its label, is called where it is written anew: no two of the split are the same."""
        alike = sum(pair.image.name == image.name for pair in self.split.pairs)
        return image.path.name if alike > 1 else image.name


def choose_left_out(report: DatasetReport) -> dict[Path, str]:
    """Images that cannot be used, or that must not be twice in the data, with the reason."""
    out: dict[Path, str] = {}
    splits = splits_of(report)
    for split in report.splits:
        out |= split.unusable
    learnt = splits.get("train", Split("train"))
    for group in exact_copies(learnt):
        sound = [pair for pair in group if pair.image.path not in out]
        out |= {pair.image.path: f"the same pixels as {sound[0].image.path.name}" for pair in sound[1:]}
    for role in ("val", "test"):
        split = splits.get(role, Split(role))
        shared = {pair.image.path: f"the training image {known.image.path.name}" for pair, known in shared_images(learnt, split)}
        if set(shared) | set(out) < {pair.image.path for pair in split.pairs} | set(out):
            out |= shared
    return out


def copy_split(job: CopyJob) -> Iterator[Change]:
    """Copy the split; yields what was changed, left out, or could not be mended."""
    yield from _unpaired(job)
    for pair, scan in zip(job.split.pairs, job.split.scans, strict=True):
        reason = job.left_out.get(pair.image.path)
        if reason is not None:
            yield Change(str(pair.image.path), reason, "left out, with its label" if pair.label else "left out")
            continue
        yield from _copy_image(job, pair.image, scan)
        if pair.label is not None:
            yield from _copy_label(job, pair.label)


def _unpaired(job: CopyJob) -> Iterator[Change]:
    """Files of the two folders that are in no pair."""
    known = {image.path for pair in job.split.pairs for image in (pair.image, pair.label) if image is not None}
    with_labels = any(pair.label is not None for pair in job.split.pairs)
    for folder in (job.section.path, job.section.gt_path if with_labels else None):
        try:
            listed = list_images(expand_home(folder)) if folder else []
        except DataError:
            listed = []
        for path in listed:
            if path not in known:
                yield Change(str(path), "cannot be read, is of other dimensions, or has no partner of its name", "left out")


def _copy_image(job: CopyJob, image: Image, scan: ImageScan | None) -> Iterator[Change]:
    folder = job.folder / "x"
    target = folder / f"{job.name_of(image)}.tif"
    if scan is not None and scan.num_nonfinite:
        means = [channel.mean for channel in scan.channels]
        _rewrite(image, target, lambda block: _fill(block, means), is_label=False)
        shown = ", ".join(f"{mean:.6g}" for mean in means)
        done = f"replaced by the mean of the finite pixels of the channel ({shown})"
        yield Change(str(image.path), f"{scan.num_nonfinite} NaN or infinite pixels", done)
    elif _must_be_rewritten(job.section, image, is_label=False):
        _rewrite(image, target, lambda block: block, is_label=False)
    else:
        _copy_file(image.path, folder)


def _fill(block: Array, means: list[float]) -> Array:
    filled = block.astype(np.float32) if block.dtype.itemsize < 4 else block.copy()
    for channel, mean in zip(filled, means, strict=True):
        channel[~np.isfinite(channel)] = mean
    return filled


def _copy_label(job: CopyJob, label: Image) -> Iterator[Change]:
    folder, path = job.folder / "y", label.path
    target = folder / f"{job.name_of(label)}.tif"
    repair = job.repairs.repairs.get(path)
    if repair is None and path in job.repairs.hopeless:
        yield Change(str(path), job.repairs.hopeless[path], "copied as it is: `crista check` says what you can do")
    if repair is not None and (repair.seen or label.dtype.kind == "f"):
        _rewrite(label, target, repair.apply, is_label=True)
        yield from _list_changes(path, label, repair)
    elif _must_be_rewritten(job.section, label, is_label=True):
        _rewrite(label, target, repair.apply if repair is not None else lambda block: block[0], is_label=True)
    else:
        _copy_file(path, folder)


def _list_changes(path: Path, label: Image, repair: LabelRepair) -> Iterator[Change]:
    for seen, done in zip(repair.seen, repair.done, strict=True):
        yield Change(str(path), seen, done)
    if not repair.seen:
        yield Change(str(path), f"whole numbers stored as {label.dtype.name}", "written as uint8")


def _must_be_rewritten(section: Section, image: Image, *, is_label: bool) -> bool:
    """Whether a copy of the file would not be the image.

    A key of the configuration says how to read it (what is written says that itself), or its pixels lie in other files too.
    """
    axes = section.input_mask_axes_order if is_label else section.input_img_axes_order
    inner = section.input_zarr_multiple_data_gt_path if is_label else section.input_zarr_multiple_data_raw_path
    is_named = section.input_zarr_multiple_data or (bool(inner) and image.inner is not None)
    return bool(axes) or is_named or lies_in_several_files(image.notes)


def _copy_file(path: Path, folder: Path) -> None:
    """Copy a file, or a store file by file: the first that cannot be written ends it."""
    folder.mkdir(parents=True, exist_ok=True)
    if not path.is_dir():
        shutil.copyfile(path, folder / path.name)
        return
    for inside, _, names in os.walk(path, onerror=_raise, followlinks=True):
        target = folder / path.name / Path(inside).relative_to(path)
        target.mkdir(parents=True)
        for name in names:
            shutil.copyfile(Path(inside) / name, target / name)


def _raise(error: OSError) -> None:
    raise error


def _rewrite(image: Image, path: Path, change: Callable[[Array], Array], *, is_label: bool) -> None:
    """Write with the axes and the voxel size of the image, as TIFF; `change` makes C(Z)YX or (Z)YX of C(Z)YX."""
    lazy = _Changed(image, change)
    array = lazy if image.nbytes > WHOLE else lazy[(slice(None),) * len(lazy.shape)]
    axes = canonical_axes(image.ndim)[-len(lazy.shape) :]
    if image.ndim == 3 and image.spatial_shape[0] == 1:
        _write_store(path.with_suffix(".ome.zarr"), np.asarray(array), axes, image.spacing, is_label=is_label)
    else:
        write_image(path, array, axes, spacing=image.spacing)


def _write_store(path: Path, array: Array, axes: str, spacing: Spacing | None, *, is_label: bool) -> None:
    """Write a volume of one slice as OME-Zarr: in a TIFF it would be an image."""
    array = array.astype(np.float32) if array.dtype == np.float16 else array
    pyramid = choose_pyramid(axes, array.shape, array.dtype, spacing)
    create_ome_zarr(path, pyramid, is_label=is_label)
    for region in pyramid.levels[0].iter_blocks():
        write_block(path, 0, region, array[region])
    build_pyramid(path)


class _Changed:
    """An image whose pixels are changed when they are read, as `write_image` takes it; a single channel is no axis."""

    def __init__(self, image: Image, change: Callable[[Array], Array]) -> None:
        self._image, self._change = image, change
        first = change(image.read(tuple(slice(0, 1) for _ in image.spatial_shape)))
        # TIFF holds no integers of 64 bits.
        self.dtype = np.dtype(np.float64) if first.dtype.kind in "iu" and first.dtype.itemsize > 4 else first.dtype
        channels = (len(first),) if first.ndim > image.ndim and len(first) > 1 else ()
        self.shape = (*channels, *image.spatial_shape)
        self.chunks = (*channels, *(image.chunks or (1,) * image.ndim))

    def __getitem__(self, index: tuple[slice, ...]) -> Array:
        spatial = index[-self._image.ndim :]
        region = tuple(slice(*part.indices(n)[:2]) for part, n in zip(spatial, self._image.spatial_shape, strict=True))
        pixels = self._change(self._image.read(region)).astype(self.dtype, copy=False)
        return pixels[index[0]] if len(index) > len(region) else pixels.reshape(shape_of(region))


def changed_keys(report: DatasetReport, folder: Path, plan: RepairPlan, *, ignore_index: int | None) -> dict[str, Any]:
    """The configuration keys that change with the copies in `folder`, as a tree."""
    data: dict[str, Any] = {}
    for split in report.splits:
        labels = any(pair.label is not None for pair in split.pairs)
        data[split.role.upper()] = {
            "PATH": str(folder / split.role / "x"),
            **({"GT_PATH": str(folder / split.role / "y")} if labels else {}),
        }
    tree: dict[str, Any] = {"DATA": data}
    if plan.ignore_index != ignore_index:
        tree["LOSS"] = {"IGNORE_INDEX": plan.ignore_index}
    return tree


OBSOLETE_KEYS = (
    "INPUT_IMG_AXES_ORDER",
    "INPUT_MASK_AXES_ORDER",
    "INPUT_ZARR_MULTIPLE_DATA",
    "INPUT_ZARR_MULTIPLE_DATA_RAW_PATH",
    "INPUT_ZARR_MULTIPLE_DATA_GT_PATH",
)
"""Keys of DATA.TRAIN, DATA.VAL and DATA.TEST that do not hold for the copies."""


def splits_of(report: DatasetReport) -> dict[Role, Split]:
    """The splits by their role."""
    return {split.role: split for split in report.splits}
