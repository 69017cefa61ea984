"""8-bit models of small networks."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from crista.inference.engines import EngineSource
from crista.inference.engines.base import installed
from crista.inference.engines.conversion import load_converted
from crista.inference.engines.int8 import RECIPES, _import_nncf, _quantize
from crista.inference.engines.int8_record import Attempt, Int8Record, save_model, save_record
from crista.inference.engines.openvino_engine import read_model
from tests.networks import draw_images


def accept_int8(source: EngineSource, folder: Path) -> EngineSource:
    """`source` with an 8-bit model that is said to be accepted; made once per network."""
    if installed("nncf") is None:
        pytest.skip("NNCF is not installed")
    path = folder / f"{source.digest[:16]}-checkpoint-best.int8.xml"
    if not path.is_file():
        save_record(path, record_of(source, model=save_model(path, quantised(source))))
    return replace(source, int8_model=path)


def quantised(source: EngineSource) -> Any:
    """The OpenVINO model with all layers in 8 bits."""
    images = [draw_images(source.plan, (16,) * source.plan.ndim, seed=seed) for seed in range(4)]
    return _quantize(_import_nncf(), load_converted(source, read_model), images, RECIPES[0])


def record_of(source: EngineSource, **changes: Any) -> Int8Record:
    """A record of an accepted model."""
    classes = source.plan.classes.names
    attempt = Attempt("all layers", tuple(0.9 for _ in classes), agreement=0.999, seconds=1.0)
    iou = tuple(0.901 for _ in classes)
    return replace(Int8Record(source.digest, True, classes, iou, (attempt,), 0.003, {}), **changes)
