"""Soft Dice: how far prediction and target are from covering each other, class by class."""

from __future__ import annotations

import torch
from torch import Tensor

from crista.losses.annotated import Annotated, Term
from crista.losses.reduction import ReduceSum


class DiceLoss(Term):
    """1 - mean over the classes of (2·Σpt + s) / (Σp + Σt + s), sums over batch and space of the annotated pixels.

    p are probabilities, t is 1 where the target is the class, s is `smooth` (voxels). One logit: the foreground only.
    K logits: all classes, background included. A class that is neither in the target nor predicted has s / s = 1 and
    adds no loss; one that is predicted only has nearly 0 and adds nearly all its share, as it should. A batch without
    annotated pixels gives 0.

    The three sums per class pass through `reduce_sum`, so that they are over the batches of all processes.

    References: Milletari, Navab, Ahmadi (2016), doi:10.1109/3DV.2016.79; the sums below are plain, not of squares.
    """

    def __init__(self, *, num_logits: int, ignore_index: int | None, smooth: float, reduce_sum: ReduceSum) -> None:
        super().__init__()
        self.num_logits = num_logits
        self.ignore_index = ignore_index
        self.smooth = smooth
        self.reduce_sum = reduce_sum

    def of(self, pixels: Annotated) -> Tensor:
        """Scalar in [0, 1]."""
        ndim = pixels.target.ndim - 1
        classes = torch.arange(self.num_logits, device=pixels.target.device)
        if self.num_logits == 1:
            probabilities, classes = pixels.logits.sigmoid(), classes + 1
        else:
            probabilities = pixels.log_probabilities.exp()
        truth = pixels.target.unsqueeze(1) == classes.view(-1, *[1] * ndim)
        if pixels.valid is not None:
            valid = pixels.valid.unsqueeze(1)
            probabilities, truth = probabilities * valid, truth & valid
        dims = [0, *range(2, ndim + 2)]
        sums = torch.stack([(probabilities * truth).sum(dims), probabilities.sum(dims), truth.sum(dims).to(probabilities.dtype)])
        both, predicted, present = self.reduce_sum(sums)
        dice = (2 * both + self.smooth) / (predicted + present + self.smooth)
        loss: Tensor = 1 - dice.mean()
        return loss
