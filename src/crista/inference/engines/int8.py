"""Quantisation: float32 to 8-bit integers after training, accepted only where the validation images do not suffer."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crista.config.engine import OpenVINO
from crista.errors import CristaError, EngineError
from crista.inference.engine import Engine, Labels
from crista.inference.engines.base import EngineSource, check_installed, installed
from crista.inference.engines.conversion import load_converted
from crista.inference.engines.int8_record import Attempt, Int8Record, Ious, is_intact, load_record, save_model, save_record
from crista.inference.engines.libraries import import_nncf
from crista.inference.engines.openvino_engine import compile_engine, read_model
from crista.inference.turn import turn_at
from crista.metrics import compute_confusion, iou
from crista.patches.dataset import PatchSamples

LIMIT = 0.003
"""The IoU of each class must fall by less than this."""
NUM_CALIBRATION = 64
CALIBRATION_VOXELS = 2**24
VALIDATION_VOXELS = 2**26
"""At most so many voxels are looked at, in patches spread evenly over all."""

Counts = NDArray[np.int64]
NetworkInput = NDArray[np.float32]
"""One normalised patch, (1, C, [Z,] Y, X)."""
Convolutions = Sequence[str]
"""Names of a model's convolutions in the order of the data flow."""


@dataclass(frozen=True)
class Recipe:
    """One way to quantise."""

    name: str
    in_float32: Callable[[Convolutions], Sequence[str]] = lambda _: ()
    """Which convolutions stay as they are."""
    exact_bias_correction: bool = False
    """Correct biases layer by layer on the calibration images, instead of in one go."""


RECIPES = (
    Recipe("all layers"),
    Recipe("first and last convolution in float32", lambda convolutions: [convolutions[0], convolutions[-1]]),
    Recipe("finest level in float32", lambda convolutions: [*convolutions[:2], *convolutions[-3:]]),
    Recipe(
        "finest level in float32, exact bias correction",
        lambda convolutions: [*convolutions[:2], *convolutions[-3:]],
        exact_bias_correction=True,
    ),
)
"""From the fastest to the most careful; the first that is accepted is taken."""


def quantize_engine(
    source: EngineSource, train: PatchSamples, validation: PatchSamples, *, recipes: Sequence[Recipe] = RECIPES
) -> Int8Record:
    """Make an 8-bit model of the network, calibrated on `train`, and keep it if `validation` accepts it.

    It is written to `source.int8_model`, with its record beside it; a refusal is recorded too. What was decided for the same
    weights before is not done again.

    Parameters
    ----------
    train : patches (without augmentation) that the ranges of intensities in the network are taken from
    validation : patches with labels; the IoU of each class over all of them must fall by less than `LIMIT`

    Raises
    ------
    EngineError
        If a library is missing, or fails, or the folder cannot be written.
    """
    assert source.int8_model is not None
    known = known_record(source)
    if known is not None:
        return known
    folder = source.int8_model.parent
    if not os.access(folder, os.W_OK):  # known before the minutes that it takes to make it
        raise EngineError(f"there is no 8-bit model: it would lie beside the checkpoint, and {folder} cannot be written")
    nncf = _import_nncf()
    check_installed(OpenVINO())
    record = source.int8_model.with_suffix(".json")
    try:
        with turn_at(record, lambda: known_record(source) is not None):  # shards begin at once
            return known_record(source) or _quantize_network(nncf, source, train, validation, recipes)
    except CristaError:
        raise
    except Exception as error:  # whatever a library raises, the network predicts without it
        raise EngineError(_failure("making an 8-bit model", error)) from error


def _quantize_network(
    nncf: Any, source: EngineSource, train: PatchSamples, validation: PatchSamples, recipes: Sequence[Recipe]
) -> Int8Record:
    assert source.int8_model is not None
    images = [_image(train, index) for index in spread(train, NUM_CALIBRATION, CALIBRATION_VOXELS)]
    judge = _Judge(source, validation, compile_engine("openvino", _float_model(source), num_threads=source.num_threads))
    record = Int8Record(
        weights=source.digest,
        accepted=False,
        classes=source.plan.classes.names,
        iou=judge.iou,
        attempts=(),
        limit=LIMIT,
        versions=_versions(),
        threshold=source.plan.config.test.threshold,
    )
    for recipe in recipes:
        started = time.perf_counter()
        model = _quantize(nncf, _float_model(source), images, recipe)
        after, agreement = judge.measure(compile_engine("openvino-int8", model, num_threads=source.num_threads))
        attempt = Attempt(recipe.name, after, agreement, round(time.perf_counter() - started, 1))
        record = replace(record, attempts=(*record.attempts, attempt), accepted=is_acceptable(judge.iou, after))
        if record.accepted:
            record = replace(record, model=save_model(source.int8_model, model))
            break
    save_record(source.int8_model, record)
    return record


def is_acceptable(before: Ious, after: Ious) -> bool:
    """Whether the IoU of every class that occurs fell by less than `LIMIT`."""
    falls = [b - (0.0 if a is None else a) for b, a in zip(before, after, strict=True) if b is not None]
    return all(fall < LIMIT for fall in falls)


def spread(samples: PatchSamples, most: int, most_voxels: int) -> list[int]:
    """Indices of samples spread evenly over all: at most `most`, at most `most_voxels` voxels, at least one."""
    size = samples.placer.place(0, samples.rng(0, 0))[1].size
    count = max(1, min(len(samples), most, most_voxels // max(1, prod(size))))
    return [int(index) for index in np.linspace(0, len(samples) - 1, count).round()]


class _Judge:
    """The validation patches, and what float32 makes of them."""

    def __init__(self, source: EngineSource, samples: PatchSamples, reference: Engine) -> None:
        self._plan = source.plan
        self._samples = samples
        self._indices = spread(samples, len(samples), VALIDATION_VOXELS)
        self._expected: list[Labels] = []
        self._expected = list(self._predict(reference))
        self.iou = self._iou(self._expected)

    def measure(self, engine: Engine) -> tuple[Ious, float]:
        """IoU of each class, and the share of pixels whose class is that of float32."""
        predicted = list(self._predict(engine))
        equal = sum(int((a == b).sum()) for a, b in zip(predicted, self._expected, strict=True))
        return self._iou(predicted), equal / sum(labels.size for labels in predicted)

    def _predict(self, engine: Engine) -> Iterator[Labels]:
        for index in self._indices:
            yield engine.labels(_image(self._samples, index), self._plan.config.test.threshold)[0]

    def _iou(self, predicted: Sequence[Labels]) -> Ious:
        classes = self._plan.classes
        counts: Counts = np.zeros((classes.num_classes,) * 2, np.int64)
        for index, labels in zip(self._indices, predicted, strict=True):
            truth = self._samples.cut(index, self._samples.rng(index, 0))[0].label
            counts += compute_confusion(truth, labels, num_classes=classes.num_classes, ignore_index=classes.ignore_index)
        return tuple(None if np.isnan(value) else float(value) for value in iou(counts))


def _image(samples: PatchSamples, index: int) -> NetworkInput:
    return samples.cut(index, samples.rng(index, 0))[0].image[None]


def _float_model(source: EngineSource) -> Any:
    return load_converted(source, read_model)


def known_record(source: EngineSource) -> Int8Record | None:
    """What was decided before, if it still holds."""
    assert source.int8_model is not None
    record = load_record(source.int8_model)
    return record if record is not None and _still_holds(record, source) else None


def _still_holds(record: Int8Record, source: EngineSource) -> bool:
    """Whether the record is of this network and threshold: its model is there, or these versions of the libraries made none."""
    assert source.int8_model is not None
    if not record.is_of(source):
        return False
    return is_intact(source.int8_model, record) if record.accepted else record.versions == _versions()


def _versions() -> dict[str, str]:
    return {package: installed(package) or "" for package in ("nncf", "openvino")}


def _quantize(nncf: Any, model: Any, images: Sequence[NetworkInput], recipe: Recipe) -> Any:
    """The 8-bit model; `EngineError` for whatever NNCF raises."""
    kinds = ("Convolution", "ConvolutionBackpropData")
    convolutions = [node.get_friendly_name() for node in model.get_ordered_ops() if node.get_type_name() in kinds]
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # its progress bars
            return nncf.quantize(
                model,
                nncf.Dataset(list(images)),
                preset=nncf.QuantizationPreset.MIXED,  # activations that are not symmetric about 0 use all 256 values
                subset_size=len(images),
                fast_bias_correction=not recipe.exact_bias_correction,
                ignored_scope=nncf.IgnoredScope(names=list(dict.fromkeys(recipe.in_float32(convolutions)))),
            )
    except Exception as error:
        raise EngineError(_failure("NNCF", error)) from error


def _failure(who: str, error: Exception) -> str:
    first = (str(error).strip().splitlines() or [""])[0]
    return f"{who} failed ({type(error).__name__}: {first[:200]}); there is no 8-bit model"


def _import_nncf() -> Any:
    try:
        nncf = import_nncf()
    except ImportError as error:
        raise EngineError('NNCF, which makes 8-bit models, is not installed: pip install "crista[int8]"') from error
    logging.getLogger("nncf").setLevel(logging.ERROR)  # its own function sets handlers too, which may be those of others
    return nncf
