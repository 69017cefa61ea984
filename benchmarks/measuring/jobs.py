"""The two tasks whose prediction is timed: their data, copies of it to fill the time, and the configurations of all tools."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from math import prod
from pathlib import Path

import tifffile

CONFIGS = Path(__file__).parents[1] / "configs"


@dataclass(frozen=True)
class Job:
    """One data set and the network for it."""

    name: str
    """`2d` or `3d`; its configuration is configs/inference_<name>.yaml."""
    folder: Path
    """Folder of the data set, with test/x and test/y."""
    patch: tuple[int, ...]
    """([z,] y, x) for tools that predict patch by patch."""
    paddings: dict[str, tuple[int, ...]]
    """BiaPy's context at each border of a patch, by the name of the tool in the tables; the first is that of its templates."""

    @cached_property
    def images(self) -> list[Path]:
        """The test images."""
        return sorted((self.folder / "test" / "x").glob("*.tif"))

    def label_of(self, image: Path) -> Path:
        """The label image of a test image."""
        return self.folder / "test" / "y" / image.name

    @cached_property
    def shape(self) -> tuple[int, ...]:
        """Shape of an image, the same for all."""
        with tifffile.TiffFile(self.images[0]) as file:
            return tuple(file.series[0].shape)

    @property
    def voxels(self) -> int:
        """Pixels or voxels of one image."""
        return prod(self.shape)

    def write_config(self, data: Path, path: Path) -> Path:
        """The YAML of the training with its paths."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text((CONFIGS / f"inference_{self.name}.yaml").read_text().replace("/path/to/data", str(data)))
        return path


def all_jobs(data: Path) -> dict[str, Job]:
    """The jobs by name; `data` is the folder of the data sets."""
    volume = {"BiaPy": (4, 16, 16), "BiaPy, no padding in z": (0, 16, 16)}
    return {
        "2d": Job("2d", data / "isbi2012_membrane_2d", (256, 256), {"BiaPy": (32, 32)}),
        "3d": Job("3d", data / "vnc_mito_3d", (20, 128, 128), volume),
    }


def make_copies(job: Job, count: int, out: Path, *, nnunet_names: bool = False) -> tuple[Path, Path]:
    """Folders x and y with `count` images, the test images repeated (0000.tif …); nnU-Net wants 0000_0000.tif and a spacing."""
    root = out / f"{job.name}_{count}{'_nnunet' if nnunet_names else ''}"
    if (root / "complete").is_file():
        return root / "x", root / "y"
    shutil.rmtree(root, ignore_errors=True)
    for name in ("x", "y"):
        (root / name).mkdir(parents=True)
    for index, image in iter_copies(job, count):
        shutil.copyfile(image, root / "x" / f"{index:04}{'_0000' if nnunet_names else ''}.tif")
        shutil.copyfile(job.label_of(image), root / "y" / f"{index:04}.tif")
        if nnunet_names and len(job.shape) == 3:
            (root / "x" / f"{index:04}.json").write_text('{"spacing": [1.0, 1.0, 1.0]}')
    (root / "complete").touch()
    return root / "x", root / "y"


def iter_copies(job: Job, count: int) -> Iterator[tuple[int, Path]]:
    """(index, test image) of each of `count` copies."""
    for index in range(count):
        yield index, job.images[index % len(job.images)]
