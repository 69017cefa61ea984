"""The 8-bit model beside a checkpoint: `<checkpoint>.int8.xml` and `.bin`, and in `.int8.json` what is known of it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from crista.errors import EngineError
from crista.images.atomic import aside, atomic_write
from crista.inference.engines.base import EngineSource
from crista.inference.engines.libraries import import_openvino

VERSION = 1
Ious = tuple[float | None, ...]
"""IoU of each class; None for a class that does not occur."""


@dataclass(frozen=True)
class Attempt:
    """One way to quantise, and what became of the validation images."""

    name: str
    iou: Ious
    agreement: float
    """Share of the validation pixels whose class is that of float32."""
    seconds: float


@dataclass(frozen=True)
class Int8Record:
    """How an 8-bit model was made, and whether it may be used."""

    weights: str
    """Digest of the weights that it was made of."""
    accepted: bool
    classes: tuple[str, ...]
    iou: Ious
    """In float32, on the validation images."""
    attempts: tuple[Attempt, ...]
    """In the order in which they were made; an accepted model is the last one."""
    limit: float
    """What the IoU of a class may fall by."""
    versions: Mapping[str, str]
    model: str = ""
    """Digest of the two files of the accepted model."""
    threshold: float = 0.5
    """TEST.THRESHOLD that the validation images were judged with; of no effect with more than two classes."""

    def is_of(self, source: EngineSource) -> bool:
        """Whether it was judged as `source` predicts: the same weights, made into classes in the same way."""
        has_threshold = source.plan.classes.num_classes == 2
        return self.weights == source.digest and (not has_threshold or self.threshold == source.plan.config.test.threshold)

    @property
    def agreement(self) -> float:
        """Of the last attempt."""
        return self.attempts[-1].agreement

    @property
    def summary(self) -> str:
        """One sentence with the figures."""
        last = self.attempts[-1]
        shown = ", ".join(
            f"{name} {before:.4f} -> {after:.4f}"
            for name, before, after in zip(self.classes, self.iou, last.iou, strict=True)
            if before is not None and after is not None
        )
        verdict = f"accepted ({last.name})" if self.accepted else f"refused after {len(self.attempts)} attempts"
        return f"8-bit model {verdict}: IoU on the validation images {shown}; a class may lose less than {self.limit:g}"


def int8_model_path(checkpoint: Path) -> Path:
    """The model beside `checkpoint`."""
    return checkpoint.with_suffix(".int8.xml")


def save_record(path: Path, record: Int8Record) -> None:
    """Write the record of the model at `path` (`.int8.xml`)."""
    atomic_write(path.with_suffix(".json"), json.dumps({"version": VERSION, **asdict(record)}, indent=1))


def load_record(path: Path) -> Int8Record | None:
    """The record of the model at `path`; None if there is none or it cannot be read."""
    try:
        content = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
        if content.pop("version") != VERSION:
            return None
        content["attempts"] = tuple(Attempt(**(attempt | {"iou": tuple(attempt["iou"])})) for attempt in content["attempts"])
        content |= {key: tuple(content[key]) for key in ("classes", "iou")}
        return Int8Record(**content) if content["attempts"] else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def save_model(path: Path, model: Any) -> str:
    """Write an OpenVINO model to `path` and its `.bin`, each aside and renamed; returns the digest of both.

    Until the new record is there, an old one does not fit: a kill in between leaves no model that could be used.
    """
    with aside(path) as part:
        weights = part.with_suffix(".bin")  # OpenVINO's choice
        try:
            import_openvino().save_model(model, part, compress_to_fp16=False)
            weights.replace(path.with_suffix(".bin"))
        finally:
            weights.unlink(missing_ok=True)
    return _files_digest(path)


def is_intact(path: Path, record: Int8Record) -> bool:
    """Whether the files of the model at `path` are those that were accepted."""
    return path.is_file() and path.with_suffix(".bin").is_file() and _files_digest(path) == record.model


def _files_digest(path: Path) -> str:
    return sha256(path.read_bytes() + path.with_suffix(".bin").read_bytes()).hexdigest()


def accepted_model(source: EngineSource) -> tuple[Path, Int8Record]:
    """The 8-bit model for the weights of `source`, and its record.

    Raises
    ------
    EngineError
        If there is none, it was refused, it belongs to other weights or was judged with another threshold, or its files are
        not those that were accepted.
    """
    path = source.int8_model
    record = load_record(path) if path is not None else None
    if path is None or record is None:
        raise EngineError("there is no 8-bit model beside the checkpoint; a training with TEST.ENGINE: fastest makes one")
    if record.weights != source.digest:
        raise EngineError(f"{path} was made of other weights; a training with TEST.ENGINE: fastest makes it anew")
    if not record.is_of(source):
        thresholds = f"{record.threshold:g}, and now it is {source.plan.config.test.threshold:g}"
        raise EngineError(
            f"{path} was judged with TEST.THRESHOLD: {thresholds}; a job with TEST.ENGINE: fastest that has the training images "
            "makes it anew"
        )
    if not record.accepted:
        raise EngineError(record.summary)
    if not is_intact(path, record):
        raise EngineError(f"{path} or its .bin is missing or damaged; delete {path.with_suffix('.json').name} to make them anew")
    return path, record
