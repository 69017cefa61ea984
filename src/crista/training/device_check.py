"""Device check: on an Apple GPU a step of the network is compared with that of the processor before anything counts on it.

PyTorch lacks operators there (3D pooling before 2.9, transposed 3D convolutions before 2.8), and some give other numbers without
an error, depending on the versions of PyTorch and macOS (github.com/pytorch/pytorch/issues/175189 and 197114).
"""

from __future__ import annotations

from collections.abc import Iterator
from math import inf, isnan

import torch
from torch import Tensor, nn
from torch.nn.modules.dropout import _DropoutNd

from crista.losses import build_loss
from crista.models import build_model
from crista.models.placement import CPU, to_device, to_layout
from crista.plan.plan import Plan
from crista.plan.topology import input_multiple
from crista.training.average import WeightAverage
from crista.training.idle_biases import freeze_idle_biases
from crista.training.optimizer import OPTIMIZERS

ALLOWED = 0.05
"""Relative difference of any result: another order of additions gives a thousandth at most, wrong operators give 1 and more."""
NEGLIGIBLE = 0.01
"""Share of the whole gradient below which that of one layer is not asked to be right by itself."""


def fault_of(device: torch.device, plan: Plan) -> str:
    """What is wrong with a step of the network of `plan` on `device`, in a few words; empty if nothing is."""
    expected = _step(CPU, plan)
    try:
        found = _step(device, plan)
    except Exception as error:  # noqa: BLE001 - PyTorch says in many ways that it lacks an operator
        first = (str(error).strip().splitlines() or [""])[0]
        return f"a step of this network fails there ({type(error).__name__}: {first[:160]})"
    difference = max(_differences(expected, found), key=lambda value: inf if isnan(value) else value)
    return (
        ""
        if difference <= ALLOWED
        else f"a step of this network gives other numbers there than on the processor ({difference:.0%})"
    )


def _differences(expected: dict[str, list[Tensor]], found: dict[str, list[Tensor]]) -> Iterator[float]:
    """How far each tensor is from what is expected, relative to that."""
    least = NEGLIGIBLE * float(torch.stack([value.norm() for value in expected["gradient"]]).norm())
    for kind, values in expected.items():
        for right, seen in zip(values, found[kind], strict=True):
            yield float((seen - right).norm()) / max(float(right.norm()), least if kind == "gradient" else 1e-6)


def _step(device: torch.device, plan: Plan) -> dict[str, list[Tensor]]:
    """Logits in training and in prediction, loss and gradients of noise, the same on every device. An update is made too: that
    it can be made is seen here, and what becomes of small gradients is not to be compared."""
    torch.manual_seed(0)
    model = build_model(plan.model, num_channels=plan.num_channels, num_logits=plan.classes.num_logits, ndim=plan.ndim)
    shape = [2 * multiple for multiple in input_multiple(plan.model, plan.ndim)]
    images = to_device(torch.randn(2, plan.num_channels, *shape), device)
    targets = to_device(torch.randint(0, plan.classes.num_classes, (2, *shape), dtype=torch.uint8), device)
    model = freeze_idle_biases(to_layout(model, device, plan.ndim)).train()
    loss = build_loss(plan.loss, classes=plan.classes, class_weights=plan.class_weights).to(device)
    for module in model.modules():
        if isinstance(module, _DropoutNd):
            module.eval()
    logits = model(images)
    value = loss(logits.float(), targets)
    torch.autograd.backward(value)
    gradient = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    results = {"logits": [logits], "loss": [value], "gradient": gradient, "prediction": [_predict(model, images)]}
    fetched = {kind: [tensor.detach().cpu() for tensor in tensors] for kind, tensors in results.items()}
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    OPTIMIZERS.build(plan.optimizer, model=model).step()
    WeightAverage(model).update(0, 1.0)
    return fetched


@torch.no_grad()
def _predict(model: nn.Module, images: Tensor) -> Tensor:
    predicted: Tensor = model.eval()(images)
    return predicted
