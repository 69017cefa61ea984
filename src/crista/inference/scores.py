"""Scores: what a network's logits become, and what is made of them, on whatever device they are."""

from __future__ import annotations

import torch


def scores_of(logits: torch.Tensor) -> torch.Tensor:
    """Probabilities (N, L, [Z,] Y, X): the sigmoid of a single logit (of class 1), the softmax over several."""
    return logits.sigmoid() if logits.shape[1] == 1 else logits.softmax(dim=1)


def labels_of(scores: torch.Tensor, threshold: float) -> torch.Tensor:
    """Classes ([Z,] Y, X), uint8, of scores (L, [Z,] Y, X): above `threshold` for L = 1, else the largest (the first of
    equals)."""
    return batch_labels(scores[None], threshold)[0]


def batch_labels(scores: torch.Tensor, threshold: float) -> torch.Tensor:
    """`labels_of` each of N images: (N, L, [Z,] Y, X) -> (N, [Z,] Y, X)."""
    if scores.shape[1] == 1:
        return (scores[:, 0] > threshold).to(torch.uint8)
    return scores.argmax(dim=1).to(torch.uint8)


def probabilities_of(scores: torch.Tensor) -> torch.Tensor:
    """One channel per class (K, [Z,] Y, X): the background's probability is added for two classes."""
    return torch.cat([1 - scores, scores]) if scores.shape[0] == 1 else scores
