"""What every loss is and does first: float32 logits, and nothing that comes from pixels without annotation."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True)
class Annotated:
    """Logits and target, harmless where there is no annotation."""

    logits: Tensor
    """(N, K, [Z,] Y, X) float32, contiguous; 0 and without gradient where `valid` is False."""
    target: Tensor
    """(N, [Z,] Y, X) int64 classes; 0 where `valid` is False."""
    valid: Tensor | None
    """(N, [Z,] Y, X) bool; None if every pixel counts."""

    @cached_property
    def log_probabilities(self) -> Tensor:
        """Logarithm of the softmax over K > 1 logits, (N, K, [Z,] Y, X); computed once for all terms of a loss."""
        return F.log_softmax(self.logits, dim=1)


class Term(nn.Module):
    """One term of a loss."""

    ignore_index: int | None

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Scalar float32, at least 0, from `logits` (N, K, [Z,] Y, X) and classes (N, [Z,] Y, X)."""
        return self.of(select_annotated(logits, target, self.ignore_index))

    @abstractmethod
    def of(self, pixels: Annotated) -> Tensor:
        """The same from pixels whose annotation has been looked at."""


def select_annotated(logits: Tensor, target: Tensor, ignore_index: int | None) -> Annotated:
    """Check the shapes, and cut pixels whose target is `ignore_index` off.

    Their logits are replaced before anything is computed, so that not even a NaN there reaches the loss or a
    gradient. Raises ValueError if the shapes do not fit.
    """
    if logits.ndim != target.ndim + 1 or logits.shape[0] != target.shape[0] or logits.shape[2:] != target.shape[1:]:
        raise ValueError(
            f"logits (N, K, [Z,] Y, X) of shape {tuple(logits.shape)} do not fit a target (N, [Z,] Y, X) of shape "
            f"{tuple(target.shape)}"
        )
    # Half precision holds neither exp() of a logit nor a sum over many pixels; the softmax is quicker class by class.
    precise, classes = logits.float().contiguous(), target.long()
    if ignore_index is None:
        return Annotated(precise, classes, None)
    valid = classes != ignore_index
    zero = torch.zeros((), dtype=precise.dtype, device=precise.device)
    return Annotated(torch.where(valid.unsqueeze(1), precise, zero), classes.masked_fill(~valid, 0), valid)
