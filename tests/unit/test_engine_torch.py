"""PyTorch as an engine: precision, and the way to a GPU."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from tests.networks import draw_images, drawn_weights, eager_scores, network_plan, source_of

from crista.inference.engine import build_engine
from crista.inference.engines import TorchEngine
from crista.inference.engines.torch_engine import build_network
from crista.inference.orientations import OrientedEngine, orientations
from crista.models.placement import half_precision

FLIPS: tuple[tuple[tuple[int, ...], int, int], ...] = (((), 1, 1), ((3,), -1, 1), ((4,), 1, -1), ((3, 4), -1, -1))
"""Axes of (N, C, Z, Y, X), and the steps along y and x that undo it."""
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU here")


def test_half_precision_is_for_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    assert half_precision(torch.device("cpu")) is None
    assert half_precision(torch.device("mps")) is None
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (7, 5))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "Tesla T4")
    for has, expected in ((True, torch.bfloat16), (False, torch.float16)):
        # a T4 has none, and emulates it
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True, has=has: has or including_emulation)
        assert half_precision(torch.device("cuda")) is expected


@pytest.mark.parametrize("num_classes", [2, 3])
def test_half_precision_changes_little(num_classes: int) -> None:
    """Convolutions in bfloat16, which a processor can do too; scores are float32 all the same."""
    plan = network_plan(num_classes=num_classes)
    images = draw_images(plan, (32, 48), batch=2)
    network = build_network(plan, drawn_weights(plan))
    full = TorchEngine(network, plan, torch.device("cpu"))
    half = TorchEngine(network, plan, torch.device("cpu"), half=torch.bfloat16)
    difference = np.abs(half(images) - full(images))
    assert half.scores(images).dtype == torch.float32
    assert 1e-4 < difference.max() < 0.1
    assert (half.labels(images, 0.5) != full.labels(images, 0.5)).mean() < 0.05


def test_scores_are_contiguous_arrays(tmp_path: Path) -> None:
    """Although the network computes channels-last."""
    plan = network_plan(num_classes=3)
    engine = build_engine(plan, drawn_weights(plan), torch.device("cpu"))
    scores = engine(draw_images(plan, (16, 24)))
    assert scores.flags.c_contiguous
    np.testing.assert_allclose(scores, eager_scores(source_of(plan, tmp_path), draw_images(plan, (16, 24))), atol=1e-6)


def test_a_volume_of_one_slice_is_turned_too() -> None:
    """Turned along z it is what it was, and PyTorch takes it."""
    plan = network_plan(3)
    engine = build_engine(plan, drawn_weights(plan), torch.device("cpu"))
    images = draw_images(plan, (1, 16, 24))
    expected = np.mean([engine(np.flip(images, axes).copy())[:, :, :, ::y, ::x] for axes, y, x in FLIPS], axis=0)
    oriented = OrientedEngine(engine, orientations=orientations(3, "flips"), mode="mean")
    np.testing.assert_allclose(oriented(images), expected, atol=1e-6)


@needs_gpu
@pytest.mark.parametrize("num_classes", [2, 3])
def test_a_gpu_gives_the_same(num_classes: int) -> None:
    """In float32 to 1e-3 (it may use TensorFloat-32), in half precision to 0.1; batches that follow at once do not mix."""
    plan = network_plan(num_classes=num_classes)
    network = build_network(plan, drawn_weights(plan))
    expected = TorchEngine(network, plan, torch.device("cpu"))
    batches = [draw_images(plan, (64, 48), batch=3, seed=seed) for seed in range(8)]
    for amp, tolerance in ((False, 1e-3), (None, 0.1)):
        engine = TorchEngine(network, plan.model_copy(update={"amp": amp}), torch.device("cuda"))
        on_gpu = [engine.scores(batch) for batch in batches]
        assert all(scores.is_cuda for scores in on_gpu)
        for scores, batch in zip(on_gpu, batches, strict=True):
            np.testing.assert_allclose(scores.cpu().numpy(), expected(batch), atol=tolerance)
            np.testing.assert_array_equal(
                engine.labels(batch, 0.5), engine(batch).argmax(1) if num_classes > 2 else engine(batch)[:, 0] > 0.5
            )
