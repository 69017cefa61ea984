"""Demo: the main job on built-in sample data, in about two minutes on two processor cores."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from crista.config.load import parse_config
from crista.config.new import new_config_text
from crista.errors import ConfigError, Problem
from crista.workflow.request import Request


@dataclass(frozen=True)
class DemoSettings:
    """How much sample data to make, and how long to train."""

    num_train: int
    num_test: int
    shape: tuple[int, ...]
    classes: int
    overrides: tuple[str, ...]


IN_2D = ("DATA.PATCH_SIZE=(128, 128, 1)", "MODEL.FEATURE_MAPS=[16, 32, 64, 128]", "TRAIN.BATCH_SIZE=4", "TRAIN.EPOCHS=28")
IN_3D = ("DATA.PATCH_SIZE=(16, 80, 80, 1)", "MODEL.FEATURE_MAPS=[16, 32, 64]", "TRAIN.BATCH_SIZE=2", "TRAIN.EPOCHS=24")

SETTINGS = {
    "cells_2d": DemoSettings(16, 4, (256, 256), 2, IN_2D),
    "nuclei_2d": DemoSettings(16, 4, (256, 256), 3, IN_2D),
    "cells_3d": DemoSettings(2, 1, (24, 160, 160), 2, IN_3D),
}
"""Sizes of the demo per sample."""


def settings_of(sample: str) -> DemoSettings:
    """The sizes of a sample; raises a `ConfigError` that names the samples there are."""
    if sample not in SETTINGS:
        problem = Problem("sample", f"{sample!r} is no sample data set", f"choose one of {', '.join(SETTINGS)}")
        raise ConfigError("with the demo", [problem])
    return SETTINGS[sample]


def request_demo(folder: Path, data: Path, sample: str) -> Request:
    """The run of the demo on the sample data in `data`; results go to `folder`."""
    settings = settings_of(sample)
    text = new_config_text(
        ndim=3 if len(settings.shape) == 3 else 2,
        classes=settings.classes,
        train_images=str(data / "train" / "x"),
        train_labels=str(data / "train" / "y"),
        test_images=str(data / "test" / "x"),
        test_labels=str(data / "test" / "y"),
    )
    loaded = parse_config(text, f"{sample}.yaml", settings.overrides)
    text = loaded.text + "".join(f"\n# changed for the demo: {change}" for change in settings.overrides)
    return Request(loaded.config, folder, f"demo_{sample}", 1, text, loaded.notices)
