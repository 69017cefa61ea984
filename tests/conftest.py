"""Shared fixtures: tiny image folders, tiny configurations, the folder of the real data sets."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from crista.images.write import write_image

MakeData = Callable[..., Path]


@pytest.fixture(autouse=True, scope="session")
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What crista remembers of the machine is kept apart from what the user's own runs remember."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        patch.setenv("CRISTA_CACHE", str(tmp_path_factory.mktemp("looks")))
        yield


@pytest.fixture
def data_folder() -> Path:
    """The real data sets; the test is skipped, saying so, where CRISTA_DATA is unset."""
    folder = os.environ.get("CRISTA_DATA")
    if not folder:
        pytest.skip("CRISTA_DATA is not set: the real data sets are not here")
    return Path(folder)


def draw_blobs(shape: tuple[int, ...], num_classes: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """A noisy uint8 image of bright boxes on a dark ground, and its classes."""
    label = np.zeros(shape, np.uint8)
    for number in range(3 * (num_classes - 1)):
        box = tuple(slice(s := int(rng.integers(0, max(1, n - n // 3))), s + max(2, n // 3)) for n in shape)
        label[box] = 1 + number % (num_classes - 1)
    image = 40 + 150 * label / (num_classes - 1) + rng.normal(0, 8, shape)
    return image.clip(0, 255).astype(np.uint8), label


@pytest.fixture
def make_data(tmp_path: Path) -> MakeData:
    """Make `train/x`, `train/y`, `test/x`, `test/y` of tiny images and return their parent folder."""

    def make(*, shape: tuple[int, ...] = (48, 48), train: int = 4, test: int = 2, num_classes: int = 2, seed: int = 0) -> Path:
        rng = np.random.default_rng(seed)
        axes = "ZYX"[-len(shape) :]
        for part, count in (("train", train), ("test", test)):
            for kind in "xy":
                (tmp_path / "data" / part / kind).mkdir(parents=True, exist_ok=True)
            for index in range(count):
                image, label = draw_blobs(shape, num_classes, rng)
                write_image(tmp_path / "data" / part / "x" / f"{index:02d}.tif", image, axes)
                write_image(tmp_path / "data" / part / "y" / f"{index:02d}.tif", label, axes)
        return tmp_path / "data"

    return make


def tiny_config(data: Path, *, ndim: int = 2, num_classes: int = 2, **changes: dict[str, Any]) -> dict[str, Any]:
    """A job of seconds on the images of `make_data`; `changes` replace keys of whole sections (``train={"EPOCHS": 1}``)."""
    patch = (32, 32, 1) if ndim == 2 else (8, 32, 32, 1)
    tree: dict[str, Any] = {
        "PROBLEM": {"NDIM": f"{ndim}D"},
        "DATA": {
            "PATCH_SIZE": patch,
            "N_CLASSES": num_classes,
            "TRAIN": {"PATH": str(data / "train/x"), "GT_PATH": str(data / "train/y")},
            "VAL": {"SPLIT_TRAIN": 0.25},
            "TEST": {"PATH": str(data / "test/x"), "GT_PATH": str(data / "test/y"), "LOAD_GT": True},
        },
        "MODEL": {"FEATURE_MAPS": [4, 8]},
        "TRAIN": {"ENABLE": True, "EPOCHS": 2, "BATCH_SIZE": 4, "LR": 1e-2},
        "TEST": {"ENABLE": True},
    }
    for section, values in changes.items():
        merge(tree.setdefault(section.upper(), {}), values)
    return tree


def merge(into: dict[str, Any], values: dict[str, Any]) -> None:
    """Put `values` into a tree of keys, branch by branch."""
    for key, value in values.items():
        if isinstance(value, dict):
            merge(into.setdefault(key, {}), value)
        else:
            into[key] = value
