"""Tiles and halo, measured on a network and an image: what is found can always be used."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.networks import network_plan, source_of

from crista.config.engine import Torch
from crista.images.open import open_image
from crista.images.write import write_image
from crista.inference import tuning
from crista.inference.cover import build_assembler
from crista.inference.engines import ENGINES
from crista.inference.engines.base import ScoringEngine
from crista.inference.predictor import Predictor, fitted
from crista.patches.normalization import compute_statistics


class Undecided(ScoringEngine):
    """Says one thing of the whole frame, which it sees first, and another of every tile: no halo is ever wide enough."""

    name = "undecided"

    def __init__(self) -> None:
        self.calls = 0

    def scores(self, images: np.ndarray) -> torch.Tensor:
        self.calls += 1
        return torch.full((len(images), 1, *images.shape[2:]), float(self.calls > 1))


DEEP: dict[str, Any] = {
    "feature_maps": (4, 8, 16),
    "dropout_values": (0.0,) * 3,
    "z_down": (2, 2),
    "yx_down": (2, 2),
    "isotropy": (True,) * 3,
    "conv_layers": (2,) * 3,
}


@pytest.mark.parametrize("most", [4**3, 16**3, 24**3, 36**3, 60**3])
def test_a_halo_that_is_never_enough_still_fits_the_tiles(tmp_path: Path, most: int) -> None:
    write_image(tmp_path / "a.tif", np.random.default_rng(0).integers(0, 255, (64, 72, 80)).astype(np.uint8), "ZYX")
    image = open_image(tmp_path / "a.tif", ndim=3)
    plan = network_plan(3, **DEEP)
    inference = plan.inference.model_copy(update={"max_tile_voxels": most, "exact": False})
    predictor = Predictor(plan.model_copy(update={"inference": inference}), Undecided())
    exact = tuning.exact_halo(predictor)
    assert exact == (24, 24, 24)
    statistics = compute_statistics(image, plan.config.data.normalization)
    tuned = tuning._with_halo(predictor, tuning._Tuned(inference, ()), image, statistics)
    tile = fitted(tuned.inference, image.spatial_shape, None, predictor.multiple).tile_size
    assert np.prod(tile) <= most
    assert tuned.inference.exact == (tuned.inference.halo == exact) == (most == 60**3)
    assert tuned.inference.halo != (0, 0, 0) or most < 16**3
    [decision] = tuned.decisions
    assert ("more TEST.MAX_MEMORY makes room" in decision.reason) == (not tuned.inference.exact)


def test_a_halo_too_wide_for_the_tiles_of_a_volume_of_another_shape() -> None:
    """A flat volume, the largest, decides on a halo for which no tile of a thick one has room: those grow, and cover it."""
    plan = network_plan(3, **DEEP)
    inference = plan.inference.model_copy(update={"max_tile_voxels": 24**3, "halo": (24, 24, 24)})
    flat, thick = (4, 2000, 40), (50, 80, 72)
    assert np.prod(fitted(inference, flat, None, (4, 4, 4)).tile_size) <= 24**3
    tiles = build_assembler(fitted(inference, thick, None, (4, 4, 4)), thick, (4, 4, 4)).tiles
    written = np.zeros(thick, np.uint8)
    for tile in tiles:
        written[tile.write] += 1
    assert (written == 1).all()


@pytest.mark.parametrize("there", [None, "", "{"], ids=["nothing", "empty", "cut short"])
@pytest.mark.parametrize("links", [True, False], ids=["hard links", "no hard links"])
def test_findings_are_kept_on_any_file_system(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, there: str | None, links: bool
) -> None:
    path = tmp_path / "tuning.json"
    if there is not None:
        path.write_text(there)  # a machine lost its power

    def refused(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    if not links:
        monkeypatch.setattr("os.link", refused)
    tuned = tuning._Tuned(network_plan().inference, ())
    assert tuning._load(path) is None
    assert tuning._save(path, tuned, replace_kept=False) == tuned
    assert tuning._load(path) == tuned
    other = tuning._Tuned(tuned.inference.model_copy(update={"batch_size": 7}), ())
    assert tuning._save(path, other, replace_kept=False) == tuned  # the first one counts
    assert [entry.name for entry in tmp_path.iterdir()] == ["tuning.json"]


def test_findings_are_those_of_the_images_at_hand(tmp_path: Path) -> None:
    """The same images again are not measured again; larger ones, or others in their place, are."""
    plan = network_plan()
    inference = plan.inference.model_copy(update={"max_tile_voxels": 10**6})
    plan = plan.model_copy(update={"inference": inference})
    source = source_of(plan, tmp_path / "engines")
    predictor = Predictor(plan, ENGINES.build(Torch(), source=source))

    def tuned(side: int, seed: int = 0) -> list[str]:
        pixels = np.random.default_rng(seed).integers(0, 255, (side, 64)).astype(np.uint8)
        if not (tmp_path / f"{side}-{seed}.tif").exists():
            write_image(tmp_path / f"{side}-{seed}.tif", pixels, "YX")
        image = open_image(tmp_path / f"{side}-{seed}.tif", ndim=2)
        list(tuning.tune(predictor, {"a": image}, state=tmp_path / "state", digest="", device=torch.device("cpu")))
        return sorted(path.name for path in (tmp_path / "state").glob("tuning-*.json"))

    first = tuned(64)
    assert len(first) == 1
    assert tuned(64) == first
    assert len(tuned(96)) == 2
    assert len(tuned(96, seed=1)) == 3


@pytest.mark.parametrize("times", [1.05, 3, 26.4, 1000])
@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_an_image_for_which_there_is_memory_is_one_tile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, device: str, times: float
) -> None:
    """However often it would fit: what the network sees of it is a little larger than the image."""
    write_image(tmp_path / "a.tif", np.zeros((53, 61), np.uint8), "YX")
    image, plan = open_image(tmp_path / "a.tif", ndim=2), network_plan(**DEEP)
    predictor = Predictor(plan, Undecided())
    padded = 56 * 64
    per_voxel = tuning.estimated_bytes_per_voxel(plan.model, 1, 1) + tuning.pipeline_bytes_per_voxel(1, 1, tuning.AHEAD)
    monkeypatch.setattr(tuning, "peak_bytes", lambda *_: None)
    monkeypatch.setattr(tuning, "_budget", lambda *_: int(times * padded * per_voxel))
    statistics = compute_statistics(image, plan.config.data.normalization)
    found = tuning._fit_memory(predictor, image, statistics, torch.device(device)).inference
    assert found.max_tile_voxels is not None
    assert found.max_tile_voxels >= padded
    assert found.batch_size == 1


@pytest.mark.parametrize(("device", "limited"), [("cpu", False), ("cuda", True)])
def test_no_tile_is_larger_than_convolutions_on_gpus_take(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, device: str, limited: bool
) -> None:
    """A GPU of 140 GB has memory for a tile of 200 million voxels, whose largest layer has more numbers than 32 bits count."""
    write_image(tmp_path / "a.tif", np.zeros((53, 61), np.uint8), "YX")
    image, plan = open_image(tmp_path / "a.tif", ndim=2), network_plan(**DEEP)
    monkeypatch.setattr(tuning, "peak_bytes", lambda *_: None)
    monkeypatch.setattr(tuning, "_budget", lambda *_: 10**13)
    statistics = compute_statistics(image, plan.config.data.normalization)
    found = tuning._fit_memory(Predictor(plan, Undecided()), image, statistics, torch.device(device)).inference
    assert plan.model.feature_maps is not None
    assert found.max_tile_voxels is not None
    assert (2 * plan.model.feature_maps[0] * found.max_tile_voxels < 2**31) is limited
