"""Store: where the blocks of a large image lie until all are there: OME-Zarr under a hidden name beside the results."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

from crista.geometry.axes import Region
from crista.geometry.tiles import whole
from crista.images.atomic import atomic_write, remove_at_once, remove_folder
from crista.images.image import ImagePair
from crista.images.ome_zarr import create_ome_zarr, open_level, write_block
from crista.images.pyramid import Pyramid
from crista.inference.predicted import PredictedBlock
from crista.inference.task import LABELS_STORE, OutputFolders, keeps_probabilities, labels_pyramid, probabilities_pyramid
from crista.plan.plan import Plan


@dataclass(frozen=True)
class ImageStore:
    """The label image and the probabilities of one image on disk, written block by block, by several processes if need be."""

    folder: Path
    pair: ImagePair
    plan: Plan

    @property
    def labels_path(self) -> Path:
        """The label image."""
        return self.folder / LABELS_STORE

    @property
    def probabilities_path(self) -> Path:
        """The probabilities, one channel per class."""
        return self.folder / "probabilities.zarr"

    @property
    def filtered_path(self) -> Path:
        """The label image after the median filters."""
        return self.folder / "filtered.zarr"

    @property
    def finishing(self) -> Path:
        """What is known once all blocks are there: from then on the stores may have their final names already."""
        return self.folder / "finish.json"

    @property
    def labels(self) -> Any:
        """The label image (Z)YX, as a Zarr array."""
        return open_level(self.labels_path, 0)

    @property
    def probabilities(self) -> Any | None:
        """Probabilities K(Z)YX, as a Zarr array; None where they are not kept."""
        return open_level(self.probabilities_path, 0) if keeps_probabilities(self.plan) else None

    def create(self) -> None:
        """Make the stores that are missing; none of an image that is being finished, whose label image may lie there already."""
        if self.finishing.is_file():
            return
        make_label_store(self.labels_path, self.pair, self.plan)
        if keeps_probabilities(self.plan):
            pyramid, names = probabilities_pyramid(self.pair.image, self.plan), self.plan.classes.names
            _make_store(self.probabilities_path, pyramid, is_label=False, name=self.pair.name, channel_names=names)

    def write(self, block: Region, predicted: PredictedBlock) -> None:
        """Write one block."""
        write_block(self.labels_path, 0, block, predicted.labels)
        if predicted.probabilities is not None:
            channels = whole(predicted.probabilities.shape[:1])
            write_block(self.probabilities_path, 0, (*channels, *block), predicted.probabilities)


def remove_stale_work(folders: OutputFolders, wanted: set[Path]) -> int:
    """Remove the work on images that is not `wanted`: begun with other settings, or done with; returns on how many."""
    stale = [folder for folder in (folders.state / "work").glob("*") if folder not in wanted]
    for folder in stale:
        remove_at_once(folder)
    return len(stale)


class Done:
    """Which steps of a list are done, kept in a file with a line for each; a line that a kill cut short does not count."""

    def __init__(self, path: Path) -> None:
        self._path = path
        text = path.read_text() if path.is_file() else ""
        self._steps = set(text.splitlines()[: text.count("\n")])
        if text and not text.endswith("\n"):
            atomic_write(path, "".join(f"{step}\n" for step in sorted(self._steps)))

    def left_of(self, steps: Iterator[tuple[str, Any]]) -> Iterator[Any]:
        """The steps (name, what it is) that are not done; each is noted as done when the next is asked for."""
        for name, step in steps:
            if name in self._steps:
                continue
            yield step
            with self._path.open("a") as file:
                file.write(f"{name}\n")


def make_label_store(path: Path, pair: ImagePair, plan: Plan) -> None:
    """Make an empty store for a label image of `pair`, unless it is there."""
    _make_store(path, labels_pyramid(pair.image, plan), is_label=True, name=pair.name)


def _make_store(path: Path, pyramid: Pyramid, **described: Any) -> None:
    """Make an empty store, unless it is there; of several processes that do so at once, one wins.

    A folder that is no store is what a slow worker wrote where the store of a finished image had been: it is removed.
    """
    if _is_store(path):
        return
    if path.is_dir():
        remove_folder(path)
    part = path.with_name(f".{path.name}.{uuid4().hex}.part")
    create_ome_zarr(part, pyramid, **described)
    try:
        part.rename(path)
    except OSError:
        if not _is_store(path):
            raise
        remove_folder(part)


def _is_store(path: Path) -> bool:
    return (path / "zarr.json").is_file()
