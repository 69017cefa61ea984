"""The configuration of a training that nobody configured: two folders and a time."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

Quality = Literal["fast", "standard", "best"]
LONG = 10.0
"""Minutes from which z is flipped in few volumes. Validation IoU of mitochondria in one volume, without and with: 0.79 and 0.86
after 1600 and 1350 steps, 0.78 and 0.74 after 400."""

_TEXT = """\
# Made by `crista train`: what is not written here is decided from the images; plan.json says what, and why.
# Change it and run it: crista --config FILE
DATA:
  TRAIN:
    PATH: {images}
    GT_PATH: {labels}
  VAL:
    # This share of the images is not trained on: it chooses the best network, and it is what the report measures.
    SPLIT_TRAIN: 0.2
  TEST:
    USE_VAL_AS_TEST: True

AUGMENTOR:
  ENABLE: True
  VFLIP: True
  HFLIP: True{flip_z}
  ROT90: True
  BRIGHTNESS: True
  BRIGHTNESS_PROB: 0.3
  BRIGHTNESS_FACTOR: [-0.3, 0.3]
  CONTRAST: True
  CONTRAST_PROB: 0.3
  CONTRAST_FACTOR: [-0.25, 0.25]

TRAIN:
  ENABLE: True
  QUALITY: {quality}{minutes}

TEST:
  ENABLE: True
"""


def automatic_config_text(
    images: Path | str, labels: Path | str, *, few_volumes: bool, minutes: float | None, quality: Quality
) -> str:
    """The YAML text of a training on two folders, in so many minutes if they are given.

    `few_volumes`: the images are volumes, and so few that a training of `LONG` minutes or more flips their z too.
    """
    time = "" if minutes is None else f"\n  MAX_MINUTES: {minutes:g}"
    flip_z = "\n  ZFLIP: True" if few_volumes and minutes is not None and minutes >= LONG else ""
    return _TEXT.format(images=_quoted(images), labels=_quoted(labels), flip_z=flip_z, minutes=time, quality=quality)


def _quoted(path: Path | str) -> str:
    """A path in YAML single quotes, in which backslashes are plain."""
    return "'" + str(path).replace("'", "''") + "'"
