"""How sums over the batch become sums over the batches of all processes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch.distributed
from torch import Tensor

ReduceSum = Callable[[Tensor], Tensor]
"""Sum of a tensor over all processes, differentiable."""


def identity(tensor: Tensor) -> Tensor:
    """The sum over one process."""
    return tensor


def all_reduce_sum(tensor: Tensor) -> Tensor:
    """Sum over all processes of the default group, the same on each; `tensor` itself where there is no group.

    Differentiable: the gradient is summed over the processes too. With DistributedDataParallel, which averages
    gradients over the processes, a loss made of such sums trains as if the batches of all processes were one.
    """
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return tensor
    summed: Tensor = _AllReduceSum.apply(tensor)  # type: ignore[no-untyped-call]
    return summed


class _AllReduceSum(torch.autograd.Function):
    """Each process' output depends on each process' input with factor 1, so that the backward pass is the same sum."""

    @staticmethod
    def forward(_ctx: Any, tensor: Tensor) -> Tensor:
        return _sum_over_processes(tensor)

    @staticmethod
    def backward(_ctx: Any, gradient: Tensor) -> Tensor:
        return _sum_over_processes(gradient)


def _sum_over_processes(tensor: Tensor) -> Tensor:
    total = tensor.clone(memory_format=torch.contiguous_format)
    torch.distributed.all_reduce(total)
    return total
