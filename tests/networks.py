"""Plans and weights of small networks, without data and without a training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn.modules.batchnorm import _BatchNorm

from crista.config.root import Config
from crista.inference.engines import EngineSource
from crista.inference.engines.torch_engine import build_network
from crista.models import build_model
from crista.plan.plan import Classes, InferencePlan, Plan


def network_plan(ndim: int = 2, *, num_classes: int = 2, num_channels: int = 1, engine: str = "auto", **model: Any) -> Plan:
    """A plan with a network of two levels; `model` replaces its keys."""
    keys: dict[str, Any] = {
        "architecture": "unet",
        "feature_maps": (4, 8),
        "dropout_values": (0.0, 0.0),
        "normalization": "bn",
        "activation": "leaky_relu",
        "z_down": (1,),
        "yx_down": (2,),
        "isotropy": (True, True),
        "conv_layers": (1, 1),
    }
    inference = InferencePlan(mode="halo", tile_size=(32,) * ndim, halo=(0,) * ndim, overlap=(0.0,) * ndim, batch_size=1)
    return Plan(
        config=Config(test={"engine": engine}),
        ndim=ndim,
        num_channels=num_channels,
        classes=Classes(names=tuple("abcdefgh"[:num_classes])),
        spacing=None,
        patch_size=(32,) * ndim,
        model=keys | model,
        loss=(),
        class_weights=None,
        optimizer={"name": "sgd", "lr": 0.1, "weight_decay": 0.0},
        schedule={"name": "constant"},
        batch_size=2,
        epochs=1,
        patience=None,
        amp=None,
        inference=inference,
        save_probabilities=True,
    )


def drawn_weights(plan: Plan, *, seed: int = 0) -> dict[str, torch.Tensor]:
    """Weights as after a training: no statistic of a norm is trivial, and the head tells pixels apart."""
    torch.manual_seed(seed)
    network = build_model(plan.model, num_channels=plan.num_channels, num_logits=plan.classes.num_logits, ndim=plan.ndim)
    for module in network.modules():
        if isinstance(module, _BatchNorm):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
    with torch.no_grad():
        network.head.weight.mul_(3)
    return network.state_dict()


def source_of(plan: Plan, cache: Path, weights: dict[str, torch.Tensor] | None = None, **settings: Any) -> EngineSource:
    """What engines are made from, on the processor."""
    given = {"device": torch.device("cpu"), "num_threads": 1} | settings
    return EngineSource(plan, weights if weights is not None else drawn_weights(plan), cache=cache, **given)


def eager_scores(source: EngineSource, images: np.ndarray) -> np.ndarray:
    """Plain PyTorch: nothing folded, nothing converted, the memory layout of NumPy."""
    network = build_network(source.plan, source.weights).eval()
    with torch.no_grad():
        logits = network(torch.from_numpy(images))
    scores = logits.sigmoid() if logits.shape[1] == 1 else logits.softmax(dim=1)
    return scores.numpy()


def draw_images(plan: Plan, shape: tuple[int, ...], *, batch: int = 1, seed: int = 0) -> np.ndarray:
    """Normalised images (N, C, [Z,] Y, X) of noise."""
    rng = np.random.default_rng(seed)
    return rng.normal(size=(batch, plan.num_channels, *shape)).astype(np.float32)
