"""New: write the configuration of a job, with what the images themselves tell. PyTorch is not needed for it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from crista.config.load import config_from_dict
from crista.config.new import new_config_text
from crista.errors import ConfigError, DataError, Problem
from crista.images.atomic import atomic_write
from crista.images.check import DatasetReport, check_dataset
from crista.images.listing import expand_home, list_images
from crista.images.wording import plural
from crista.workflow.check import check_names
from crista.workflow.targets import obstacle

WORDS = {
    "set LOSS.IGNORE_INDEX: ": "give --ndim and --classes, and in the file that is written set LOSS.IGNORE_INDEX: ",
    "set DATA.N_CLASSES: ": "give --classes ",
    "set DATA.N_CLASSES": "set --classes",
    "DATA.N_CLASSES: ": "--classes ",
    "DATA.N_CLASSES": "--classes",
}
"""How `crista new`, which writes the configuration, calls its keys."""


@dataclass(frozen=True)
class Folders:
    """Where the images and labels of a job are; None for those it does without."""

    train_images: Path | str | None = None
    train_labels: Path | str | None = None
    test_images: Path | str | None = None
    test_labels: Path | str | None = None


def new(
    path: Path | str,
    *,
    folders: Folders | None = None,
    ndim: int | None = None,
    classes: int | Sequence[str] | None = None,
    force: bool = False,
) -> Path:
    """Write the configuration of a new job to `path` and return `path`.

    Parameters
    ----------
    folders : images and labels; None: placeholders to fill in
    ndim : 2 for images, 3 for volumes; None: seen from the data
    classes : their number, background included, or their names, background first; None: counted in the labels
    force : overwrite an existing file

    Raises
    ------
    ConfigError
        `path` exists, or the dimensions or classes are neither given nor to be seen, or are none.
    DataError
        A folder is missing or without images, or the data cannot be used.
    """
    path, folders = expand_home(path), folders or Folders()
    check_target(path, force=force)
    _check_kinds(ndim, classes)
    check_folders(folders)
    if ndim is None or classes is None:
        counted = classes if classes is None or isinstance(classes, int) else len(classes)
        report = look(folders, counted or None)
        if report.problems:
            raise DataError("with the data", [problem.reworded(WORDS) for problem in report.problems])
        ndim = ndim or report.ndim
        classes = classes or count_classes(report)
    _require(ndim, classes)
    assert ndim is not None
    assert classes is not None
    path.parent.mkdir(parents=True, exist_ok=True)
    atomic_write(path, new_config_text(ndim=3 if ndim == 3 else 2, classes=classes, name=path.stem, **vars(folders)))
    return path


def _check_kinds(ndim: object, classes: object) -> None:
    """Raise a `ConfigError` for dimensions as BiaPy writes them, and for names in one text, to Python a list of letters."""
    problems = []
    if ndim not in (None, 2, 3):
        problems.append(Problem("--ndim", f"{ndim!r} is neither 2 (images) nor 3 (volumes)", "give one of these numbers"))
    if isinstance(classes, str):
        problems.extend(check_names("--classes", classes))
    if problems:
        raise ConfigError("with the new configuration", problems)


def check_target(path: Path, *, force: bool) -> None:
    """Raise a `ConfigError` if a configuration cannot be written to `path`."""
    if path.is_dir():
        problem = Problem(str(path), "is a folder", f"name a file, e.g. {path / 'job.yaml'}")
    elif path.suffix.lower() not in (".yaml", ".yml"):
        problem = Problem(str(path), "is no name of a YAML file", f"e.g. {path.name or 'job'}.yaml")
    elif path.exists() and not force:
        problem = Problem(str(path), "exists already", "choose another name, or overwrite it with --force")
    elif why := obstacle(path):
        problem = Problem(str(path), why, "choose another folder")
    else:
        return
    raise ConfigError("with the new configuration", [problem])


def check_folders(folders: Folders) -> None:
    """Raise a `DataError` with every folder that is missing or without images, and every label folder without its images."""
    problems: list[Problem] = []
    for name, folder in vars(folders).items():
        try:
            if folder is not None:
                list_images(expand_home(folder))
        except DataError as error:
            problems.extend(error.problems)
        if folder is not None and name.endswith("labels") and getattr(folders, name.replace("labels", "images")) is None:
            flag = f"--{name.replace('_', '-')}"
            problems.append(Problem(flag, f"{folder}: labels without images", f"give {flag.replace('labels', 'images')} too"))
    if folders.train_images is not None and folders.train_labels is None:
        problems.append(Problem("--train-images", "training needs labels too", "give --train-labels"))
    if problems:
        raise DataError("with the folders", problems)


def look(folders: Folders, num_classes: int | None = None) -> DatasetReport:
    """Read the images and labels once and say what they are like; without `num_classes` the classes are counted."""
    data: dict[str, Any] = {} if num_classes is None else {"N_CLASSES": num_classes}
    if folders.train_images is not None:
        data["TRAIN"] = {"PATH": str(folders.train_images), "GT_PATH": str(folders.train_labels)}
    if folders.test_images is not None:
        data["TEST"] = {"PATH": str(folders.test_images), "LOAD_GT": folders.test_labels is not None}
        data["TEST"].update({} if folders.test_labels is None else {"GT_PATH": str(folders.test_labels)})
    tree = {
        "DATA": data,
        "TRAIN": {"ENABLE": folders.train_images is not None},
        "TEST": {"ENABLE": folders.test_images is not None},
    }
    config = config_from_dict(tree).config
    return check_dataset(config, need_train=config.train.enable, need_test=config.test.enable)


def count_classes(report: DatasetReport) -> int | None:
    """Classes of the training labels, background included; None if no labels were read."""
    return report.fingerprint.coding.num_classes if report.fingerprint is not None else None


def describe_data(report: DatasetReport) -> str:
    """What the images are like, in one line: ``24 training images with labels, 2D, 512 × 512, 1 channel, uint8``."""
    parts = []
    images = [pair.image for pair in report.train or report.test]
    if report.train:
        parts.append(f"{plural(len(report.train), 'training image')} with labels")
    if report.test:
        parts.append(plural(len(report.test), "test image"))
    if images:
        parts += [f"{images[0].ndim}D", _sizes([image.spatial_shape for image in images])]
        parts.append(plural(images[0].num_channels, "channel"))
        parts.append(", ".join(sorted({image.dtype.name for image in images})))
    return ", ".join(parts)


def _sizes(shapes: Sequence[tuple[int, ...]]) -> str:
    """``512 × 512``, or the range of each axis."""
    ranges = [(min(axis), max(axis)) for axis in zip(*shapes, strict=True)]
    return " × ".join(str(low) if low == high else f"{low}–{high}" for low, high in ranges)


def _require(ndim: int | None, classes: int | Sequence[str] | None) -> None:
    problems = []
    if ndim is None:
        problems.append(Problem("--ndim", "is not given, and no images are given that would tell", "give --ndim 2D or 3D"))
    if classes is None:
        what = "is not given, and no training labels are given in which to count"
        problems.append(Problem("--classes", what, "give their number, background included, or their names"))
    elif (classes if isinstance(classes, int) else len(classes)) < 2:
        problems.append(Problem("--classes", "at least 2 are needed: the background is one", "e.g. --classes 2"))
    elif not isinstance(classes, int):
        problems.extend(check_names("--classes", classes))
    if problems:
        raise ConfigError("with the new configuration", problems)
