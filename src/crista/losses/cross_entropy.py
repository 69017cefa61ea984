"""Cross-entropy: the mean surprise per annotated pixel, weighted by class."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from crista.losses.annotated import Annotated, Term
from crista.losses.reduction import ReduceSum


class CrossEntropyLoss(Term):
    """Σ w·ce / Σ w over the annotated pixels of the batch, w being the weight of a pixel's class.

    One logit: binary cross-entropy of its sigmoid; K logits: cross-entropy of their softmax. `class_weights` has one
    value per class, background first, in the binary case too (two values). A batch without annotated pixels, or whose
    classes all have weight 0, gives 0 with a gradient of 0.

    Numerator and denominator pass through `reduce_sum`, so that the mean is over the pixels of all processes.
    """

    def __init__(
        self,
        *,
        num_logits: int,
        ignore_index: int | None,
        class_weights: Sequence[float] | None,
        reduce_sum: ReduceSum,
    ) -> None:
        super().__init__()
        self.num_logits = num_logits
        self.ignore_index = ignore_index
        self.reduce_sum = reduce_sum
        num_classes = max(2, num_logits)
        if class_weights is not None and len(class_weights) != num_classes:
            raise ValueError(f"{len(class_weights)} class weights for {num_classes} classes; give one per class")
        self.class_weights: Tensor | None
        weights = None if class_weights is None else torch.tensor(class_weights, dtype=torch.float32)
        self.register_buffer("class_weights", weights, persistent=False)

    def of(self, pixels: Annotated) -> Tensor:
        """Scalar, at least 0."""
        if self.num_logits == 1:
            surprise = F.binary_cross_entropy_with_logits(
                pixels.logits[:, 0], pixels.target.to(pixels.logits.dtype), reduction="none"
            )
        else:
            surprise = F.nll_loss(pixels.log_probabilities, pixels.target, reduction="none")
        weights = torch.ones_like(surprise) if self.class_weights is None else self.class_weights[pixels.target]
        if pixels.valid is not None:
            weights = weights * pixels.valid
        total = self.reduce_sum((weights * surprise).sum())
        weight = self.reduce_sum(weights.sum())
        return total / torch.where(weight > 0, weight, torch.ones_like(weight))
