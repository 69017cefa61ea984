"""The losses that can be asked for, and their weighted sum."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from crista.config.loss import CrossEntropy, Dice
from crista.losses.annotated import Term, select_annotated
from crista.losses.cross_entropy import CrossEntropyLoss
from crista.losses.dice import DiceLoss
from crista.losses.reduction import ReduceSum, identity
from crista.plan.plan import Classes, LossTerm
from crista.registry import Registry

LOSSES: Registry[Term] = Registry("loss")
"""Builders of loss terms, called with the config, `classes`, `class_weights` and `reduce_sum`."""


def build_loss(
    terms: Sequence[LossTerm],
    *,
    classes: Classes,
    class_weights: Sequence[float] | None,
    reduce_sum: ReduceSum = identity,
) -> nn.Module:
    """The weighted sum of `terms`.

    It is called as ``loss(logits, target)`` with logits (N, K, [Z,] Y, X) of any float type, K =
    `classes.num_logits`, and target (N, [Z,] Y, X) of classes and `classes.ignore_index`, and gives a float32 scalar.
    `class_weights` (background first) are those of the cross-entropy; Dice balances the classes by itself.
    `reduce_sum` adds a tensor up over all processes: give `all_reduce_sum` in distributed training, and the loss is
    that of the global batch.
    """
    context = {"classes": classes, "class_weights": class_weights, "reduce_sum": reduce_sum}
    built = [LOSSES.build(term.term, **context) for term in terms]
    return WeightedSum(built, [term.weight for term in terms], ignore_index=classes.ignore_index)


class WeightedSum(nn.Module):
    """Σ weight · term(logits, target); what the terms share is computed once."""

    def __init__(self, terms: Sequence[Term], weights: Sequence[float], *, ignore_index: int | None) -> None:
        super().__init__()
        if not terms:
            raise ValueError("a loss needs at least one term, e.g. CE")
        self.terms = nn.ModuleList(terms)
        self._in_order = tuple(terms)
        self.weights = tuple(weights)
        self.ignore_index = ignore_index

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Scalar float32 from `logits` (N, K, [Z,] Y, X) and classes (N, [Z,] Y, X)."""
        pixels = select_annotated(logits, target, self.ignore_index)
        values = [weight * term.of(pixels) for weight, term in zip(self.weights, self._in_order, strict=True)]
        return torch.stack(values).sum()


@LOSSES.register(CrossEntropy)
def build_cross_entropy(
    config: CrossEntropy,  # noqa: ARG001
    *,
    classes: Classes,
    class_weights: Sequence[float] | None,
    reduce_sum: ReduceSum,
) -> Term:
    """Cross-entropy with class weights."""
    return CrossEntropyLoss(
        num_logits=classes.num_logits,
        ignore_index=classes.ignore_index,
        class_weights=class_weights,
        reduce_sum=reduce_sum,
    )


@LOSSES.register(Dice)
def build_dice(
    config: Dice,
    *,
    classes: Classes,
    class_weights: Sequence[float] | None,  # noqa: ARG001
    reduce_sum: ReduceSum,
) -> Term:
    """Soft Dice; has no use for class weights."""
    return DiceLoss(
        num_logits=classes.num_logits,
        ignore_index=classes.ignore_index,
        smooth=config.smooth,
        reduce_sum=reduce_sum,
    )
