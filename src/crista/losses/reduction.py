"""How sums over the batch become sums over the batches of all processes."""

from __future__ import annotations

from collections.abc import Callable

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
    from torch.distributed.nn.functional import all_reduce

    summed: Tensor = all_reduce(tensor.contiguous())  # type: ignore[no-untyped-call]
    return summed
