"""Average: a moving average of the weights, which is validated and kept in their place.

It does for a training of any length what a low learning rate does at its end (Polyak and Juditsky 1992, doi:10.1137/0330046;
Morales-Brotons et al. 2024, arXiv:2411.18704), so a network that is stopped early is usable too.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

FIRST_STEPS = 10
"""So many steps the first weights count less than the horizon would give them."""


class WeightAverage:
    """The average of the weights, and of the statistics of batch norms, of `model` over about `horizon` steps."""

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._names, self._live = _averaged(model)
        self._average = [tensor.detach().clone() for tensor in self._live]

    @torch.no_grad()
    def update(self, step: int, horizon: float) -> None:
        """Take in the weights after optimizer step number `step` (from 0)."""
        share = max(1 / max(1.0, horizon), (FIRST_STEPS - 1) / (FIRST_STEPS + step))
        torch._foreach_lerp_(self._average, [tensor.detach() for tensor in self._live], min(1.0, share))

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """While the context lasts the model holds the average."""
        self._exchange()
        try:
            yield
        finally:
            self._exchange()

    @torch.no_grad()
    def _exchange(self) -> None:
        for tensor, average in zip(self._live, self._average, strict=True):
            held = tensor.detach().clone()
            tensor.copy_(average)
            average.copy_(held)

    def state(self) -> dict[str, Tensor]:
        """The averages by name."""
        return dict(zip(self._names, self._average, strict=True))

    @torch.no_grad()
    def load(self, state: Mapping[str, Tensor]) -> None:
        """Continue from the averages of `state`."""
        for name, average in zip(self._names, self._average, strict=True):
            average.copy_(state[name])


def _averaged(model: nn.Module) -> tuple[list[str], list[Tensor]]:
    """Names and tensors of all that a step changes and that is a real number."""
    changed = [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
    found = [*changed, *((name, buffer) for name, buffer in model.named_buffers() if buffer.is_floating_point())]
    return [name for name, _ in found], [tensor for _, tensor in found]
