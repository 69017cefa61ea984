"""Record: what is known of a finished image; its presence means that its files are complete."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from crista.images.atomic import atomic_write, read_json
from crista.images.digest import files_of
from crista.images.image import Image, ImagePair
from crista.plan.plan import InferencePlan, Plan

RECORD_FORMAT = "5: boundaries, uncertainty, blocks normalised like their images, emptied by clipping, axes"
"""Part of every key: what an earlier version kept is made anew."""


@dataclass(frozen=True)
class ImageRecord:
    """The measurement of one predicted image."""

    name: str
    key: str
    """Identifies the network, the settings and the input that it was made with."""
    seconds: Mapping[str, float]
    """Time of each stage."""
    confusions: Mapping[str, NDArray[np.int64]] = field(default_factory=dict)
    """(K, K) counts per stage: ``per_image``, ``full_image``, ``post_processing``, ``stack``; empty without label images."""
    patch_iou: float | None = None
    """Mean foreground IoU over the tiles of the image."""
    boundaries: Mapping[str, NDArray[np.int64]] = field(default_factory=dict)
    """(K, 4) edge counts per stage, see `crista.metrics.boundary`."""
    uncertainty: float | None = None
    """Mean entropy of the scores, 0 to 1; None where it was not gathered."""
    files: tuple[str, ...] = ()
    """Every file written for it."""
    is_blank: bool = False
    """Whether clipping leaves one value of several in a channel (`ImageStatistics.leaves_nothing`)."""

    def save(self, folder: Path) -> None:
        """Write the record aside and rename it."""
        content = {
            "name": self.name,
            "key": self.key,
            "seconds": dict(self.seconds),
            "confusions": {stage: counts.tolist() for stage, counts in self.confusions.items()},
            "patch_iou": self.patch_iou,
            "boundaries": {stage: counts.tolist() for stage, counts in self.boundaries.items()},
            "uncertainty": self.uncertainty,
            "files": list(self.files),
            "is_blank": self.is_blank,
        }
        atomic_write(folder / f"{self.name}.json", json.dumps(content))


def load_record(folder: Path, name: str, key: str) -> ImageRecord | None:
    """The record of an image finished earlier with the same key and all its files still there, else None."""
    content = read_json(folder / f"{name}.json")
    if content is None or content["key"] != key or not all(Path(file).exists() for file in content["files"]):
        return None
    confusions, boundaries = (
        {stage: np.asarray(counts, np.int64) for stage, counts in content[kind].items()} for kind in ("confusions", "boundaries")
    )
    return ImageRecord(
        name=content["name"],
        key=key,
        seconds=content["seconds"],
        confusions=confusions,
        patch_iou=content["patch_iou"],
        boundaries=boundaries,
        uncertainty=content["uncertainty"],
        files=tuple(content["files"]),
        is_blank=content["is_blank"],
    )


def has_other_record(folder: Path, name: str, key: str) -> bool:
    """Whether `name` was finished before with another key, so that what is there will be replaced."""
    content = read_json(folder / f"{name}.json")
    return content is not None and content["key"] != key


def forget_other_record(folder: Path, name: str, key: str) -> None:
    """Remove the record of `name` with another key than this: the files that it vouches for are about to be replaced."""
    if load_record(folder, name, key) is None:
        (folder / f"{name}.json").unlink(missing_ok=True)


def weights_digest(weights: Mapping[str, torch.Tensor]) -> str:
    """A digest of the values of all weights."""
    digest = sha256()
    for name in sorted(weights):
        digest.update(name.encode())
        digest.update(weights[name].detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def record_key(digest: str, plan: Plan, pair: ImagePair) -> str:
    """A digest of everything that the prediction of `pair` depends on."""
    members = [member for member in (pair.image, pair.label) if member is not None]
    # Of one file the whole may be predicted, or one part that validates, or another; and what its axes are may be given anew.
    stats = [(*state_of_image(member), member.cut_at, str(member.spacing)) for member in members]
    settings = [
        RECORD_FORMAT,
        _tiling_key(plan.inference),
        plan.classes.model_dump_json(),
        plan.config.test.model_dump_json(exclude={"max_memory", "verbose", "reduce_memory"}),
        plan.config.data.normalization.model_dump_json(),
        plan.config.data.test.model_dump_json(),
        plan.config.paths.result_dir.model_dump_json(),
        str(plan.save_probabilities),
    ]
    return sha256(json.dumps([digest, stats, settings]).encode()).hexdigest()


def _tiling_key(inference: InferencePlan) -> str:
    """What the labels depend on: exact tiles of any size give the same, and so does any batch."""
    if inference.exact:
        return f"exact {inference.engine}"
    return inference.model_dump_json(exclude={"batch_size"})


def state_of_image(image: Image) -> tuple[Any, ...]:
    """The state of its file, and which part of it the image is: of one file there may be the whole and a part (validation)."""
    return state_of(image.path), image.inner, image.axes, image.shape


def state_of(path: Path) -> tuple[str, int, int, int]:
    """Path, number of files (a Zarr folder has many), bytes, and time of the last change."""
    stats = [file.stat() for file in files_of(path)]
    changed = max((stat.st_mtime_ns for stat in stats), default=0)
    return str(path), len(stats), sum(stat.st_size for stat in stats), changed
