"""An engine that fails in the middle of a prediction: PyTorch goes on, one line says so, and the labels are the same."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from tests.jobs import job, labels, predict_only, run_and_listen, write_data
from tests.networks import draw_images, drawn_weights, eager_scores, network_plan, source_of

from crista.config.engine import OpenVINO
from crista.inference.engine import Engine
from crista.inference.engines import ENGINES, EngineSource, base
from crista.inference.engines.base import ScoringEngine
from crista.inference.engines.fallback import ReplaceableEngine
from crista.inference.engines.torch_engine import TorchEngine, build_network
from crista.results.log import read_warnings
from crista.workflow.api import Outcome, run
from crista.workflow.engine import build_chosen_engine

pytestmark = pytest.mark.usefixtures("no_drawings_in_module")
SAID = (
    "OpenVINO failed (RuntimeError: out of something) in the middle of the prediction: PyTorch does that batch again, "
    "and the rest"
)
FLIPS = {"TEST": {"AUGMENTATION": True, "AUGMENTATION_GROUP": "flips"}}


class Failing(ScoringEngine):
    """PyTorch's scores so many times, then an error each time."""

    name = "openvino"
    good = 4

    def __init__(self, source: EngineSource) -> None:
        self._engine = TorchEngine(build_network(source.plan, source.weights), source.plan, source.device)
        self.asked = 0

    def scores(self, images: NDArray[np.float32]) -> torch.Tensor:
        self.asked += 1
        if self.asked > self.good:
            raise RuntimeError("out of something\nand more")
        return self._engine.scores(images)


@pytest.fixture
def built(monkeypatch: pytest.MonkeyPatch) -> list[Failing]:
    """Every OpenVINO that is built; each works `Failing.good` times."""
    engines: list[Failing] = []

    def build(_config: OpenVINO, *, source: EngineSource) -> Engine:
        engines.append(Failing(source))
        return engines[-1]

    monkeypatch.setitem(ENGINES._builders, OpenVINO, build)
    monkeypatch.setattr(base, "installed", lambda _: "1.0")
    return engines


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, no_drawings_in_module: None) -> tuple[Path, Outcome]:
    folder = tmp_path_factory.mktemp("job")
    data = write_data(folder / "data", test=4)
    return data, run(job(data, {"TEST": {"ENGINE": "torch"}}), result_dir=folder, name="job")


@pytest.mark.parametrize("changes", [{}, FLIPS], ids=["as it is", "with orientations"])
def test_a_run_goes_on_with_pytorch(
    trained: tuple[Path, Outcome], built: list[Failing], tmp_path: Path, changes: dict[str, Any]
) -> None:
    data, first = trained
    where, only = tmp_path / "out", predict_only(first.folder.checkpoint_best)
    outcome, said = run_and_listen(job(data, only, changes, {"TEST": {"ENGINE": "openvino"}}), where)
    assert said.count(SAID) == 1
    assert [engine.asked for engine in built] == [1, 5], "the trial; then what fails is asked no more"
    expected, _ = run_and_listen(job(data, only, changes, {"TEST": {"ENGINE": "torch"}}), tmp_path / "torch")
    assert outcome.metrics == expected.metrics
    for path in expected.folder.per_image_binarized.iterdir():
        np.testing.assert_array_equal(labels(outcome.folder.per_image_binarized / path.name, 2), labels(path, 2))
    assert read_warnings(outcome.folder.log_txt).count(SAID) == 1, "which the report shows"
    again = run_and_listen(job(data, only, changes, {"TEST": {"ENGINE": "openvino"}}), where)[1]
    assert sum("predicted before with the same network and settings, kept" in line for line in again) == 4


def test_a_shard_goes_on_with_pytorch(trained: tuple[Path, Outcome], built: list[Failing], tmp_path: Path) -> None:
    data, first = trained
    changes = predict_only(first.folder.checkpoint_best), {"TEST": {"ENGINE": "openvino"}}
    Failing.good = 3
    try:
        said = [run_and_listen(job(data, *changes, of_shard(index)), tmp_path)[1] for index in range(2)]
    finally:
        Failing.good = 4
    assert [lines.count(SAID) for lines in said] == [1, 0], "the second one finds what was measured, and asks less"
    joined, _ = run_and_listen(job(data, *changes), tmp_path)
    assert joined.metrics == first.metrics


def of_shard(index: int) -> dict[str, Any]:
    return {"SYSTEM": {"CLUSTER": {"SHARD": f"{index}/2"}}}


def test_a_worker_goes_on_with_pytorch_and_tells_what_it_predicts_with(
    built: list[Failing], tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = logging.getLogger("crista")
    monkeypatch.setattr(log, "disabled", False)  # as tools that set up logging may leave it in the process of these tests
    monkeypatch.setattr(log, "propagate", True)
    caplog.set_level(logging.WARNING, logger="crista")
    plan = network_plan()
    inference = plan.inference.model_copy(update={"engine": "openvino"})
    plan = plan.model_copy(update={"inference": inference})
    weights, images = drawn_weights(plan), draw_images(plan, (32, 32))
    engine = build_chosen_engine(plan, weights, torch.device("cpu"), state=tmp_path, checkpoint=tmp_path / "a.pth")
    expected = eager_scores(source_of(plan, tmp_path, weights), images)
    for _ in range(6):
        np.testing.assert_allclose(engine.scores(images), expected, atol=1e-6)
    assert engine.name == "torch"
    assert [record.getMessage() for record in caplog.records if record.name == "crista"] == [SAID]  # threads of others log too
    assert built[0].asked == 5


def test_a_failure_of_pytorch_is_its_own(tmp_path: Path) -> None:
    source = source_of(network_plan(), tmp_path)
    failing, said = Failing(source), list[str]()
    failing.name, failing.good = "torch", 0
    with pytest.raises(RuntimeError, match="out of something"):
        ReplaceableEngine(failing, source, said.append).scores(draw_images(source.plan, (32, 32)))
    assert said == []
