"""The text of a new configuration: few keys, each with a line that says what it is for."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

_HEAD = """\
# {name}: semantic segmentation of {what} with crista
#
# Every image goes with the label image of the same name (or number) in the folder beside it.
# Lines that start with # are switched off: crista decides these from your images and says why in plan.json.
# Remove the # to decide yourself. `crista explain TRAIN.EPOCHS` tells what a key means.
"""

_TRAIN_DATA = """
  TRAIN:
    # Images to learn from.
    PATH: {images}
    # Their label images: the value of a pixel is the number of its class.
    GT_PATH: {labels}
  VAL:
    # Share of these images that is kept aside to choose the best network.
    SPLIT_TRAIN: 0.1"""

_TEST_DATA = """
  TEST:
    # Images to predict.
    PATH: {images}"""

_TEST_LABELS = """
    # Their label images, so that the prediction can be measured.
    LOAD_GT: True
    GT_PATH: {labels}"""

_OUTPUT = """
    # True: label images, one number per class. False: probabilities from 0 to 1, one channel per class.
    ARGMAX_TO_OUTPUT: True"""

_TRAINING = """
AUGMENTOR:
  # Show the network turned and mirrored copies of the images; it learns more from few images.
  ENABLE: True
  VFLIP: True
  HFLIP: True
  ROT90: True{flip_z}

MODEL:
  # The network: unet, resunet or attention_unet.
  ARCHITECTURE: unet
  # Channels per level; more levels see a larger surrounding.
  # FEATURE_MAPS: [32, 64, 128, 256]

TRAIN:
  ENABLE: True
  # How often the network sees all images.
  # EPOCHS: 100
  # Patches per step; lower it when the memory is full.
  # BATCH_SIZE: {batch}
  # Size of the learning steps.
  # LR: 0.001
"""

_PREDICTION = """
TEST:
  # Predict the images of DATA.TEST.
  ENABLE: True
"""

_LOAD = """
MODEL:
  # Predict with a network that is trained already; what it is like stands in its file, which goes to PATHS.CHECKPOINT_FILE.
  # Left out, it is the best checkpoint of the run of this name.
  LOAD_CHECKPOINT: True
"""


def new_config_text(
    *,
    ndim: Literal[2, 3],
    classes: int | Sequence[str],
    train_images: str | Path | None = None,
    train_labels: str | Path | None = None,
    test_images: str | Path | None = None,
    test_labels: str | Path | None = None,
    name: str = "my_segmentation",
) -> str:
    """The YAML text of a new job.

    `ndim` is 2 for images and 3 for volumes. `classes` is the number of classes, background included, or their names with the
    background first. With no folder at all, placeholders stand for the training and test folders. Without training folders
    the job only predicts; without test folders it only trains.
    """
    count = classes if isinstance(classes, int) else len(classes)
    if count < 2:
        raise ValueError(f"{count} classes; at least 2 are needed, background included")
    if not (train_images or test_images):
        train_images, train_labels = "/path/to/train/images", "/path/to/train/labels"
        test_images, test_labels = "/path/to/test/images", "/path/to/test/labels"
    train = _TRAIN_DATA.format(images=_quoted(train_images), labels=_quoted(train_labels or "/path/to/train/labels"))
    test = _TEST_DATA.format(images=_quoted(test_images))
    test += _TEST_LABELS.format(labels=_quoted(test_labels)) if test_labels else ""
    flip_z = "\n  ZFLIP: True" if ndim == 3 else ""
    parts = [
        _HEAD.format(name=" ".join(name.split()), what="volumes" if ndim == 3 else "images"),
        _problem_and_classes(ndim, classes, count),
        train if train_images else "",
        test + _OUTPUT if test_images else "",
        "\n",
        _TRAINING.format(flip_z=flip_z, batch=2 if ndim == 3 else 8) if train_images else _LOAD,
        _PREDICTION if test_images else "",
    ]
    return "".join(parts)


def _problem_and_classes(ndim: int, classes: int | Sequence[str], count: int) -> str:
    patch, order = ("(32, 128, 128, 1)", "z, y, x") if ndim == 3 else ("(256, 256, 1)", "y, x")
    lines = [
        "",
        "PROBLEM:",
        "  # 2D for images, 3D for volumes.",
        f"  NDIM: {ndim}D",
        "",
        "DATA:",
        "  # Number of classes, background included.",
        f"  N_CLASSES: {count}",
    ]
    if not isinstance(classes, int):
        names = ", ".join(_quoted(name) for name in classes)
        lines += ["  # Their names in tables and charts, background first.", f"  CLASS_NAMES: [{names}]"]
    lines += [f"  # Piece of an image that the network sees at once: ({order}, channels).", f"  # PATCH_SIZE: {patch}"]
    return "\n".join(lines)


def _quoted(text: str | Path | None) -> str:
    """Text in YAML single quotes, in which backslashes are plain."""
    return "'" + str(text).replace("'", "''") + "'"
