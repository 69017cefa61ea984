"""Device: an Apple GPU is used for a network that it computes right; else the processor is."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import replace

import torch

from crista.images.check import DatasetReport
from crista.plan.events import Event, Warned
from crista.plan.make import make_plan
from crista.training.checkpoint import Checkpoint
from crista.training.device_check import fault_of
from crista.workflow.request import Request


def trusted_device(
    request: Request, device: torch.device, report: DatasetReport, trained: Checkpoint | None
) -> Generator[Event, None, tuple[Request, torch.device]]:
    """`device`, or the processor with a warning; the request names it then, for processes that help.

    `trained` is the network that predicts or that a training starts from.
    """
    if device.type != "mps":
        return request, device
    if trained is not None:
        plan = trained.plan
    else:
        assert report.fingerprint is not None
        plan = make_plan(request.config, report.fingerprint)
    fault = fault_of(device, plan)
    if not fault:
        return request, device
    yield Warned(f"the Apple GPU is not used, the processor is: {fault}. A newer PyTorch may do (pip install --upgrade torch)")
    system = request.config.system.model_copy(update={"device": "cpu"})
    return replace(request, config=request.config.model_copy(update={"system": system})), torch.device("cpu")
