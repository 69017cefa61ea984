"""Precision of training: what convolutions compute in on which device, and that weights stay float32."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from crista.models.placement import training_half_precision
from crista.training.precision import Precision

CPU = torch.device("cpu")


@pytest.fixture(params=[True, False], ids=["with_instructions", "without"])
def has_instructions(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """A processor with instructions for bfloat16, or without."""
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: request.param, raising=False)
    return bool(request.param)


def test_a_processor_trains_in_bfloat16_if_it_has_instructions_for_it(has_instructions: bool) -> None:
    expected = torch.bfloat16 if has_instructions else None
    assert training_half_precision(CPU) is expected
    for wanted in (None, True):
        precision = Precision(wanted, CPU)
        assert precision.half is expected
        assert not precision.scales
        assert ("bfloat16" in precision.notice) is has_instructions


def test_amp_that_has_no_effect_is_said(has_instructions: bool) -> None:
    assert ("AMP: True has no effect" in Precision(True, CPU).notice) is not has_instructions
    assert "no effect" not in Precision(None, CPU).notice


@pytest.mark.usefixtures("has_instructions")
def test_amp_false_is_float32_everywhere() -> None:
    assert Precision(False, CPU).half is None
    assert not Precision(False, CPU).notice


def test_an_older_pytorch_that_cannot_tell_trains_in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(torch.cpu, "_is_avx512_bf16_supported", raising=False)
    assert training_half_precision(CPU) is None


def test_gpus_take_what_they_have(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (7, 5))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "Tesla T4")
    for has, expected in ((True, torch.bfloat16), (False, torch.float16)):
        # a T4 has none, and emulates it
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True, has=has: has or including_emulation)
        assert training_half_precision(torch.device("cuda")) is expected
    assert training_half_precision(torch.device("mps")) is None


@pytest.mark.parametrize(
    ("name", "capability", "expected"),
    [
        ("NVIDIA GeForce GTX 1650", (7, 5), None),
        ("NVIDIA GeForce GTX 1660 Ti", (7, 5), None),
        ("NVIDIA GeForce MX450", (7, 5), None),
        ("NVIDIA T1000 8GB", (7, 5), None),
        ("Quadro T2000 with Max-Q Design", (7, 5), None),
        ("NVIDIA GeForce GTX 1080 Ti", (6, 1), None),
        ("Tesla P100-PCIE-16GB", (6, 0), None),
        ("Tesla T4", (7, 5), torch.float16),
        ("Tesla V100-SXM2-16GB", (7, 0), torch.float16),
        ("NVIDIA GeForce RTX 2060", (7, 5), torch.float16),
        ("Quadro RTX 4000", (7, 5), torch.float16),
        ("NVIDIA TITAN RTX", (7, 5), torch.float16),
    ],
)
def test_float16_is_for_tensor_cores(
    name: str, capability: tuple[int, int], expected: torch.dtype | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Older GPUs are slower with it than with float32, and those of the GTX 16 series give NaN."""
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: including_emulation)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: name)
    assert training_half_precision(torch.device("cuda")) is expected


def test_weights_gradients_and_updates_are_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    """One step of the same network in both precisions: logits in bfloat16, all that is kept in float32, and close updates."""
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True, raising=False)
    image, after = torch.randn(2, 1, 16, 16, generator=torch.Generator().manual_seed(0)), []
    for wanted, expected in ((None, torch.bfloat16), (False, torch.float32)):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 1, 1))
        optimizer, precision = torch.optim.SGD(model.parameters(), lr=0.1), Precision(wanted, CPU)
        with precision.autocast():
            logits = model(image)
        assert logits.dtype == expected
        precision.backward(logits.float().square().mean())
        assert {value.grad.dtype for value in model.parameters() if value.grad is not None} == {torch.float32}
        precision.gradient_norm(optimizer, model, 1.0)
        precision.step(optimizer)
        assert {value.dtype for value in model.parameters()} == {torch.float32}
        after.append(torch.cat([value.detach().ravel() for value in model.parameters()]))
    difference = (after[0] - after[1]).abs().max()
    assert 0 < difference < 0.01
