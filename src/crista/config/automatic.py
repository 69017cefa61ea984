"""The configuration of a training that nobody configured: two folders and a time."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

Quality = Literal["fast", "standard", "best"]

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
  # The kinds and about the probabilities of nnU-Net: new images may be turned, larger, paler or blurred.
  ENABLE: True
  VFLIP: True
  HFLIP: True
  ROT90: True
  BRIGHTNESS: True
  BRIGHTNESS_PROB: 0.3
  BRIGHTNESS_FACTOR: [-0.3, 0.3]
  CONTRAST: True
  CONTRAST_PROB: 0.3
  CONTRAST_FACTOR: [-0.25, 0.25]
  GAMMA_CONTRAST: True
  GAMMA_CONTRAST_PROB: 0.3
  GC_GAMMA: [0.7, 1.5]
  RANDOM_ROT: True
  RANDOM_ROT_PROB: 0.2
  ZOOM: True
  ZOOM_PROB: 0.2
  ZOOM_RANGE: [0.7, 1.4]
  G_BLUR: True
  G_BLUR_PROB: 0.1
  G_SIGMA: [0.5, 1.0]
  GAUSSIAN_NOISE: True
  GAUSSIAN_NOISE_PROB: 0.1
  GAUSSIAN_NOISE_VAR: 0.005

TRAIN:
  ENABLE: True
  QUALITY: {quality}{minutes}

TEST:
  ENABLE: True
"""


def automatic_config_text(images: Path | str, labels: Path | str, *, minutes: float | None, quality: Quality) -> str:
    """The YAML text of a training on two folders, in so many minutes if they are given."""
    time = "" if minutes is None else f"\n  MAX_MINUTES: {minutes:g}"
    return _TEXT.format(images=_quoted(images), labels=_quoted(labels), minutes=time, quality=quality)


def _quoted(path: Path | str) -> str:
    """A path in YAML single quotes, in which backslashes are plain."""
    return "'" + str(path).replace("'", "''") + "'"
