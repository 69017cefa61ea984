"""Apple's GPUs, which no test machine has: where images are put for them, and that a network is tried on them first."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.conftest import MakeData, tiny_config
from tests.networks import draw_images, drawn_weights, network_plan
from tests.unit.test_plan import facts

import crista
from crista.config.load import config_from_dict
from crista.inference.engines import TorchEngine
from crista.inference.engines.torch_engine import build_network
from crista.models.placement import memory_layout, to_device
from crista.plan.events import Event, Warned
from crista.plan.make import make_plan
from crista.plan.plan import Plan
from crista.training import device_check
from crista.training.device_check import fault_of
from crista.training.distributed import choose_device
from crista.workflow import run

CPU, MPS = torch.device("cpu"), torch.device("mps")


def full_plan(**model: Any) -> Plan:
    """A plan of two levels with all that a training has."""
    loss = make_plan(config_from_dict({}, ["DATA.N_CLASSES=3"]).config, facts()).loss
    return network_plan(num_classes=3, **model).model_copy(update={"loss": loss})


class _Batch:
    """Stands for a tensor, and keeps how it was moved."""

    def __init__(self) -> None:
        self.done: list[Any] = []

    def to(self, device: torch.device, *, non_blocking: bool = False) -> _Batch:
        self.done.append((device.type, non_blocking))
        return self

    def contiguous(self) -> _Batch:
        self.done.append("contiguous")
        return self


def test_images_are_contiguous_there_and_are_waited_for() -> None:
    """Gradients of batch norms of channels-last images are wrong there, and images that nobody waits for may be overwritten."""
    moved = {}
    for name in ("cpu", "cuda", "mps"):
        moved[name] = _Batch()
        to_device(moved[name], torch.device(name))  # type: ignore[arg-type]
    assert moved["cpu"].done == [("cpu", False)]
    assert moved["cuda"].done == [("cuda", True)]
    assert moved["mps"].done == ["contiguous", ("mps", False)]
    for ndim in (2, 3):
        assert memory_layout(ndim, MPS) is torch.contiguous_format
        assert memory_layout(ndim, torch.device("cuda")) is memory_layout(ndim)
        assert memory_layout(ndim) in (torch.channels_last, torch.channels_last_3d)


def test_scores_come_to_the_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another thread puts them together, while the next tile is predicted; an Apple GPU serves one thread."""
    plan = network_plan()
    engine, images, fetched = TorchEngine(build_network(plan, drawn_weights(plan)), plan, CPU), draw_images(plan, (32, 32)), []
    expected = engine.scores(images)
    engine._device = MPS
    monkeypatch.setattr(torch.Tensor, "to", lambda self, *_: self)
    monkeypatch.setattr(torch.Tensor, "cpu", lambda self: fetched.append(self.shape) or self)
    assert torch.equal(engine.scores(images), expected)
    assert fetched == [expected.shape]


def test_torchrun_does_not_take_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """PyTorch cannot join processes there."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    assert choose_device(None)[0] == MPS
    monkeypatch.setenv("LOCAL_RANK", "0")
    assert choose_device(None)[0] == CPU


@pytest.mark.parametrize("ndim", [2, 3])
@pytest.mark.parametrize("normalization", ["bn", "in", "gn", "none"])
def test_another_layout_is_no_fault(ndim: int, normalization: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Five levels computed with other kernels, which add in another order."""
    levels: dict[str, Any] = {"z_down": (1,) * 4, "yx_down": (2,) * 4, "isotropy": (True,) * 5, "conv_layers": (2,) * 5}
    plan = full_plan(feature_maps=(8, 8, 16, 16, 32), dropout_values=(0.1,) * 5, normalization=normalization, **levels)
    plan = plan.model_copy(update={"ndim": ndim})
    layouts = iter(["channels last", "contiguous"])
    to_layout = device_check.to_layout

    def other_layout(model: torch.nn.Module, device: torch.device, ndim: int) -> torch.nn.Module:
        return to_layout(model, device, ndim) if next(layouts) == "channels last" else model

    monkeypatch.setattr(device_check, "to_layout", other_layout)
    assert fault_of(CPU, plan) == ""


def _gradient_times(factor: float) -> Callable[[dict[str, list[torch.Tensor]]], None]:
    def spoil(found: dict[str, list[torch.Tensor]]) -> None:
        found["gradient"][1] *= factor

    return spoil


def _logits_shifted(found: dict[str, list[torch.Tensor]]) -> None:
    found["prediction"][0] = found["prediction"][0].roll(1, -1)


@pytest.mark.parametrize("spoil", [_gradient_times(7.0), _gradient_times(float("nan")), _logits_shifted])
def test_wrong_numbers_are_a_fault(spoil: Callable[[Any], None], monkeypatch: pytest.MonkeyPatch) -> None:
    step, calls = device_check._step, []

    def spoilt(device: torch.device, plan: Plan) -> dict[str, list[torch.Tensor]]:
        found = step(device, plan)
        calls.append(device)
        if len(calls) == 2:
            spoil(found)
        return found

    monkeypatch.setattr(device_check, "_step", spoilt)
    assert "gives other numbers there than on the processor" in fault_of(CPU, full_plan())


def test_what_cannot_be_computed_is_a_fault() -> None:
    assert "fails there (NotImplementedError: " in fault_of(torch.device("meta"), full_plan())


def test_a_job_goes_on_with_the_processor(make_data: MakeData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Training and a prediction after it, on a machine whose GPU fails: here there is none."""
    monkeypatch.setattr(run, "choose_device", lambda _: (MPS, "device: Apple GPU"))
    data, seen = make_data(train=3, test=1), list[Event]()
    outcome = crista.run(tiny_config(data), result_dir=tmp_path / "results", name="mac", on_event=seen.append)
    crista.predict(outcome.folder.checkpoint_best, data / "test/x", result_dir=tmp_path / "more", on_event=seen.append)
    warned = [event.text for event in seen if isinstance(event, Warned) and "Apple GPU" in event.text]
    assert len(warned) == 2
    assert warned[0].startswith("the Apple GPU is not used, the processor is: a step of this network fails there (")
