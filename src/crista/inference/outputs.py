"""Outputs: the files of finished predictions: TIFF, or OME-Zarr with a pyramid; complete, or not there."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from crista.geometry.tiles import whole
from crista.images.atomic import aside, folder_aside, publish_folder
from crista.images.content import identify_content
from crista.images.downsampling import build_pyramid
from crista.images.image import Image
from crista.images.ome_zarr import create_ome_zarr, open_level
from crista.images.pyramid import choose_pyramid
from crista.images.write import write_image
from crista.inference.task import OutputFolders, Stage
from crista.plan.plan import Plan


@dataclass(frozen=True)
class OutputFormat:
    """Which files a prediction becomes."""

    tiff: bool
    zarr: bool

    @property
    def names(self) -> str:
        """What they are called."""
        return " and ".join(["OME-Zarr"] * self.zarr + ["TIFF"] * self.tiff)


def choose_format(image: Image, plan: Plan) -> OutputFormat:
    """OME-Zarr for Zarr and N5 and with TEST.BY_CHUNKS.ENABLE, else TIFF; both with TEST.BY_CHUNKS.SAVE_OUT_TIF."""
    chunks = plan.config.test.by_chunks
    if chunks.enable:
        return OutputFormat(tiff=chunks.save_out_tif, zarr=True)
    stored_in_chunks = identify_content(image.path) in ("Zarr", "N5")
    return OutputFormat(tiff=not stored_in_chunks, zarr=stored_in_chunks)


@dataclass(frozen=True)
class OutputFile:
    """Where one array of an image goes."""

    folder: Path
    name: str
    axes: str
    """``YX``, ``ZYX``, ``CYX`` or ``CZYX``."""
    image: Image
    """The image that was predicted; its voxel size is kept."""
    format: OutputFormat
    channel_names: Sequence[str] = ()

    @property
    def tiff(self) -> Path:
        """The TIFF."""
        return self.folder / f"{self.name}.tif"

    @property
    def zarr(self) -> Path:
        """The OME-Zarr."""
        return self.folder / f"{self.name}.zarr"

    def write(self, array: Any) -> list[Path]:
        """Write an array in memory; returns the files, those that show the labels first."""
        if self.format.zarr:
            part = folder_aside(self.zarr)
            pyramid = choose_pyramid(self.axes, array.shape, np.dtype(array.dtype), self.image.spacing)
            names = {"is_label": "C" not in self.axes, "name": self.name, "channel_names": self.channel_names}
            create_ome_zarr(part, pyramid, **names)  # type: ignore[arg-type]
            open_level(part, 0)[whole(array.shape)] = array
            build_pyramid(part)
            publish_folder(part, self.zarr)
        return [*([self.zarr] if self.format.zarr else []), *self._write_tiff(array)]

    def publish(self, store: Path) -> list[Path]:
        """Give a store whose pyramid is complete its final name; with TIFF output it becomes a TIFF too.

        May be called again after a kill.
        """
        files: list[Path] = []
        if store.is_dir():
            files = self._write_tiff(open_level(store, 0))
            if self.format.zarr:
                publish_folder(store, self.zarr)
        elif self.format.tiff:
            files = [self.tiff]
        return [*([self.zarr] if self.format.zarr else []), *files]

    def _write_tiff(self, array: Any) -> list[Path]:
        if not self.format.tiff:
            return []
        write_image(self.tiff, array, self.axes, spacing=self.image.spacing)
        return [self.tiff]

    def copy_to(self, folder: Path) -> list[Path]:
        """The same TIFF in another folder. A Zarr is not copied: volumes are large, and one is enough."""
        if not self.format.tiff:
            return []
        folder.mkdir(parents=True, exist_ok=True)
        with aside(folder / self.tiff.name) as part:
            shutil.copyfile(self.tiff, part)
        return [folder / self.tiff.name]


@dataclass(frozen=True)
class StageFiles:
    """The files of one stage of an image."""

    labels: OutputFile
    probabilities: OutputFile | None
    """None where they are not saved; the label image then stands in both folders."""
    raw_folder: Path

    def write(self, labels: Any, probabilities: Any | None) -> list[Path]:
        """Write arrays in memory; returns the files, label images first."""
        files = self.labels.write(labels)
        if self.probabilities is None:
            return files + self.labels.copy_to(self.raw_folder)
        return files + self.probabilities.write(probabilities)

    def publish(self, labels: Path, probabilities: Path) -> list[Path]:
        """Give the stores of a large image their final names."""
        files = self.labels.publish(labels)
        if self.probabilities is None:
            return files + self.labels.copy_to(self.raw_folder)
        return files + self.probabilities.publish(probabilities)

    def copy_to(self, other: StageFiles) -> list[Path]:
        """The same files for a stage that is the same prediction."""
        files = self.labels.copy_to(other.labels.folder)
        source = self.probabilities if self.probabilities is not None else self.labels
        return files + source.copy_to(other.raw_folder)


def stage_files(name: str, image: Image, plan: Plan, folders: OutputFolders, stage: Stage) -> StageFiles:
    """Where a stage of an image goes."""
    raw, binarized = {
        "per_image": (folders.per_image, folders.per_image_binarized),
        "full_image": (folders.full_image, folders.full_image_binarized),
    }[stage]
    axes, form = "ZYX"[-image.ndim :], choose_format(image, plan)
    labels = OutputFile(binarized, name, axes, image, form)
    probabilities = OutputFile(raw, name, f"C{axes}", image, form, plan.classes.names) if plan.save_probabilities else None
    return StageFiles(labels, probabilities, raw)


def filtered_file(name: str, image: Image, plan: Plan, folders: OutputFolders) -> OutputFile:
    """Where an image goes after the median filters."""
    return OutputFile(folders.full_post_processing, name, "ZYX"[-image.ndim :], image, choose_format(image, plan))
