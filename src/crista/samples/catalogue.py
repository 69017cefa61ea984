"""The sample data sets, and how one is written to a folder as train/x, train/y, test/x, test/y."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crista.errors import DataError, Problem
from crista.geometry.axes import spatial_axes
from crista.geometry.spacing import Spacing
from crista.images.listing import is_hidden
from crista.images.write import write_image
from crista.samples.electron import draw_cells
from crista.samples.fluorescence import draw_nuclei

Draw = Callable[[np.random.Generator, Sequence[int]], tuple[NDArray[Any], NDArray[np.uint8]]]


@dataclass(frozen=True)
class SampleSet:
    """One procedural data set."""

    name: str
    title: str
    class_names: tuple[str, ...]
    """Background first."""
    spacing: Spacing
    shape: tuple[int, ...]
    """Usual shape of an image, (Z)YX."""
    num_train: int
    """Usual number of training images."""
    num_test: int
    draw: Draw
    """(random generator, shape) -> image (Z)YX, label (Z)YX uint8."""

    @property
    def ndim(self) -> int:
        """Number of spatial axes."""
        return len(self.shape)


SAMPLES: dict[str, SampleSet] = {
    sample.name: sample
    for sample in (
        SampleSet(
            name="cells_2d",
            title="mitochondria in cells, as of an electron microscope",
            class_names=("background", "mitochondrion"),
            spacing=Spacing((0.016, 0.016)),
            shape=(256, 256),
            num_train=16,
            num_test=8,
            draw=partial(draw_cells, z_step=1.0),
        ),
        SampleSet(
            name="cells_3d",
            title="mitochondria in a stack of slices, four times coarser along z, as of an electron microscope",
            class_names=("background", "mitochondrion"),
            spacing=Spacing((0.064, 0.016, 0.016)),
            shape=(16, 160, 160),
            num_train=3,
            num_test=2,
            draw=partial(draw_cells, z_step=4.0),
        ),
        SampleSet(
            name="nuclei_2d",
            title="stained nuclei and their outlines, as of a fluorescence microscope",
            class_names=("background", "outline", "nucleus"),
            spacing=Spacing((0.5, 0.5)),
            shape=(256, 256),
            num_train=16,
            num_test=8,
            draw=draw_nuclei,
        ),
    )
}


def draw_sample(
    name: str, *, seed: int, index: int, split: str = "train", shape: Sequence[int] | None = None
) -> tuple[NDArray[Any], NDArray[np.uint8]]:
    """Image `index` of a split and its label, (Z)YX; the same for the same arguments, whatever else is drawn.

    Raises
    ------
    DataError
        If there is no set of that name, or `shape` does not fit its axes.
    """
    sample = _find(name)
    size = tuple(shape) if shape is not None else sample.shape
    _check_shape(sample, size)
    rng = np.random.default_rng([seed, ("train", "test").index(split), index])
    return sample.draw(rng, size)


def write_sample(
    name: str,
    folder: Path,
    *,
    num_train: int | None = None,
    num_test: int | None = None,
    shape: Sequence[int] | None = None,
    seed: int = 0,
) -> Path:
    """Write a data set as TIFF files into `folder` and return `folder`.

    Parameters
    ----------
    num_train, num_test : images
        None: the usual number of that set.
    shape : (Z)YX voxels
        None: the usual shape of that set.
    seed :
        The same seed gives the same files. An image does not depend on how many there are.

    Raises
    ------
    DataError
        If there is no set of that name, `shape` does not fit it, or `folder` holds other images already.
    """
    sample = _find(name)
    counts = {
        "train": sample.num_train if num_train is None else num_train,
        "test": sample.num_test if num_test is None else num_test,
    }
    size = tuple(shape) if shape is not None else sample.shape
    _check_shape(sample, size)
    files = {split: [f"{name}_{index:03d}.tif" for index in range(count)] for split, count in counts.items()}
    _check_room(folder, files)
    for split, names in files.items():
        for index, file_name in enumerate(names):
            image, label = draw_sample(name, seed=seed, index=index, split=split, shape=size)
            for kind, pixels in (("x", image), ("y", label)):
                path = folder / split / kind / file_name
                path.parent.mkdir(parents=True, exist_ok=True)
                write_image(path, pixels, spatial_axes(sample.ndim), spacing=sample.spacing)
    return folder


def _find(name: str) -> SampleSet:
    if name not in SAMPLES:
        problem = Problem("sample data", f"there is no set {name!r}", f"choose one of {', '.join(SAMPLES)}")
        raise DataError("in the request for sample data", [problem])
    return SAMPLES[name]


def _check_shape(sample: SampleSet, shape: tuple[int, ...]) -> None:
    if len(shape) != sample.ndim or min(shape[-2:]) < 32 or min(shape) < 1:
        letters = ", ".join(spatial_axes(sample.ndim).lower())
        what = f"shape {shape} does not fit {sample.name}, which takes ({letters}) with at least 32 pixels in y and x"
        raise DataError("in the request for sample data", [Problem("shape", what, f"e.g. {sample.shape}")])


def _check_room(folder: Path, files: dict[str, list[str]]) -> None:
    """Other files would become part of the data set: refuse, all folders at once."""
    problems = []
    for split, names in files.items():
        for kind in ("x", "y"):
            target = folder / split / kind
            there = [path for path in target.iterdir() if not is_hidden(path)] if target.is_dir() else []
            others = sorted(path.name for path in there if path.name not in names)
            if others:
                what = f"holds {len(others)} other files ({', '.join(others[:3])}{'…' if len(others) > 3 else ''})"
                problems.append(Problem(str(target), what, "choose an empty folder, or remove them"))
    if problems:
        raise DataError("with the folder for the sample data", problems)
