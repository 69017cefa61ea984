"""The training and the prediction whose figures are kept in curve.json; ``python -m tests.golden.curve`` writes them anew.

Write them anew only for a change that is meant to change results, and say so in the change log.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from crista.images.write import write_image
from crista.workflow.api import run
from tests.jobs import job, log_rows, pixels

FILE = Path(__file__).with_name("curve.json")


def draw(phase: float) -> tuple[np.ndarray, np.ndarray]:
    """An image of waves and the label of their crests; by formula, so that no generator of random numbers matters."""
    y, x = np.mgrid[:48, :48]
    waves = np.sin(y / 5 + phase) * np.cos(x / 7 - phase)
    return (128 + 80 * waves + 20 * np.sin(3 * x + 5 * y)).astype(np.uint8), (waves > 0.3).astype(np.uint8)


def compute_figures(folder: Path) -> dict[str, Any]:
    """Losses of three epochs, and the probability of the foreground on a grid of a test image.

    SGD: the first steps of Adam follow the sign of a gradient, so that rounding would decide them where it is nearly 0.
    """
    for part, phases in (("train", (0.0, 1.0, 2.0)), ("test", (4.0,))):
        for index, phase in enumerate(phases):
            image, label = draw(phase)
            write_image(folder / "data" / part / "x" / f"{index}.tif", image, "YX")
            write_image(folder / "data" / part / "y" / f"{index}.tif", label, "YX")
    settings = {
        "SYSTEM": {"SEED": 7, "DEVICE": "cpu"},
        "DATA": {"PATCH_SIZE": (48, 48, 1), "VAL": {"RANDOM": False}, "TEST": {"ARGMAX_TO_OUTPUT": False}},
        "AUGMENTOR": {"ENABLE": True, "VFLIP": True, "HFLIP": True, "ROT90": True, "AUG_SAMPLES": False},
        # what the plan decides by itself may get better; these are given, so that only a change of the computation shows
        "MODEL": {"NORMALIZATION": "bn", "ACTIVATION": "relu"},
        "LOSS": {"TYPE": ["DICE", "CE"]},
        "TRAIN": {
            "LR_SCHEDULER": {"NAME": "onecycle"},
            "EPOCHS": 3,
            "BATCH_SIZE": 2,
            "OPTIMIZER": "SGD",
            "LR": 0.1,
            "AMP": False,
        },
    }
    outcome = run(job(folder / "data", settings), result_dir=folder / "results", name="golden")
    rows = log_rows(outcome)
    probability = pixels(outcome.folder.per_image / "0.tif", 2)[1]
    return {
        "loss": [row["loss"] for row in rows],
        "val_loss": [row["val_loss"] for row in rows],
        "lr": [row["lr"] for row in rows],
        "probability": probability[4::8, 4::8].round(6).tolist(),
        "mean_probability": float(probability.mean()),
    }


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        FILE.write_text(json.dumps(compute_figures(Path(scratch)), indent=1) + "\n")
