"""The network of a crista checkpoint, rebuilt in any interpreter that has PyTorch and pydantic.

The folder of the package `crista` must be on PYTHONPATH. The module that comes out is the plain one: float32, usual memory
order, batch normalisation as layers of their own; whoever runs it may change that.
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import torch
from torch import nn

NETWORK_SECONDS = "NETWORK_SECONDS"
"""Environment variable: a file to which the seconds spent in the network are written."""


def load_network(checkpoint: Path) -> nn.Module:
    """The network with its weights, in evaluation mode; (N, C, [Z,] Y, X) -> logits (N, L, [Z,] Y, X)."""
    from pydantic import TypeAdapter

    from crista.config.model import Model
    from crista.models import build_model

    content = torch.load(checkpoint, map_location="cpu", weights_only=True)
    plan = json.loads(content["plan"])
    network = build_model(
        TypeAdapter(Model).validate_python(_key(plan, "model")),
        num_channels=_key(plan, "num_channels"),
        num_logits=content["weights"]["head.weight"].shape[0],
        ndim=_key(plan, "ndim"),
    )
    network.load_state_dict(dict(content["weights"]))
    return network.eval()


def _key(section: dict[str, Any], name: str) -> Any:
    """An entry of a section, whose keys may be written in upper case."""
    return section[name] if name in section else section[name.upper()]


class TimedNetwork(nn.Module):
    """A network that keeps count of the seconds spent in it, and of the voxels that went through."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.seconds = 0.0
        self.voxels = 0

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Logits of `image`."""
        started = time.perf_counter()
        logits: torch.Tensor = self.network(image)
        self.seconds += time.perf_counter() - started
        self.voxels += image.shape[0] * image[0, 0].numel()
        return logits

    def report(self) -> None:
        """Write the count to the file that the environment names, if it names one."""
        if path := os.environ.get(NETWORK_SECONDS):
            Path(path).write_text(json.dumps({"seconds": self.seconds, "voxels": self.voxels}))
