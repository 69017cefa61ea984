"""The configuration of a training that nobody configured: two folders and a time."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Quality = Literal["fast", "standard", "best"]

_OF_VALIDATION = "not trained on: it chooses the best network and is what the report measures, less surely the smaller it is"
_OF_AUGMENTATION = "turned, mirrored, brighter or darker, an image is as likely, and its labels are the same"

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
  HFLIP: True
  ZFLIP: auto
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


@dataclass(frozen=True)
class AutomaticConfig:
    """A configuration that nobody wrote."""

    text: str
    """In YAML."""
    reasons: dict[str, str]
    """Why it says what it says, by key or section."""


def make_automatic_config(images: Path | str, labels: Path | str, *, minutes: float | None, quality: Quality) -> AutomaticConfig:
    """The configuration of a training on two folders, in so many minutes if they are given."""
    time = "" if minutes is None else f"\n  MAX_MINUTES: {minutes:g}"
    text = _TEXT.format(images=_quoted(images), labels=_quoted(labels), minutes=time, quality=quality)
    return AutomaticConfig(text, {"DATA.VAL.SPLIT_TRAIN": _OF_VALIDATION, "AUGMENTOR": _OF_AUGMENTATION})


def _quoted(path: Path | str) -> str:
    """A path in YAML single quotes, in which backslashes are plain."""
    return "'" + str(path).replace("'", "''") + "'"
