"""Losses and confusion matrices of many batches."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from crista.metrics.confusion import compute_confusion
from crista.plan.plan import Classes
from crista.training.tally import Tally, count_pairs, predicted_classes


def classes_of(number: int, ignore_index: int | None) -> Classes:
    return Classes(names=tuple(f"class {k}" for k in range(number)), ignore_index=ignore_index)


@pytest.mark.parametrize("ignore_index", [None, 255, 0])
@pytest.mark.parametrize("number", [2, 3, 7])
def test_pairs_counted_on_the_device_are_the_confusion_matrix(number: int, ignore_index: int | None) -> None:
    generator = torch.Generator().manual_seed(0)
    targets = torch.randint(0, number, (2, 9, 11), generator=generator).to(torch.uint8)
    predicted = torch.randint(0, number, (2, 9, 11), generator=generator).to(torch.uint8)
    if ignore_index is not None:
        targets[0, :4] = ignore_index
    counts = count_pairs(targets, predicted, classes_of(number, ignore_index))
    expected = compute_confusion(targets.numpy(), predicted.numpy(), num_classes=number, ignore_index=ignore_index)
    np.testing.assert_array_equal(counts.numpy(), expected)


def test_batches_add_up() -> None:
    tally = Tally(classes_of(2, None))
    truth = torch.tensor([[[0, 1], [1, 1]]], dtype=torch.uint8)
    tally.add(torch.tensor(0.5), torch.tensor([[[[-1.0, 1.0], [1.0, -1.0]]]]), truth, weight=3)
    tally.add(torch.tensor(0.25), torch.tensor([[[[1.0, 1.0], [1.0, 1.0]]]]), truth)
    total, weight, confusion = tally.read()
    assert (total, weight) == (1.75, 4)
    np.testing.assert_array_equal(confusion, [[1, 1], [1, 5]])


class OnAppleGpu(torch.Tensor):
    """A tensor on a device without float64."""

    def double(self, *_: Any, **__: Any) -> torch.Tensor:
        raise TypeError("the MPS framework doesn't support float64")

    def cpu(self, *_: Any, **__: Any) -> torch.Tensor:
        return self.as_subclass(torch.Tensor)


def test_losses_are_added_up_where_there_is_float64() -> None:
    tally = Tally(classes_of(2, None))
    for loss in (0.5, 0.25):
        tally.add(torch.tensor(loss).as_subclass(OnAppleGpu), torch.zeros(1, 1, 1, 2), torch.zeros(1, 1, 2, dtype=torch.uint8))
    assert tally.read()[:2] == (0.75, 2)


def test_an_empty_tally_is_zero() -> None:
    total, weight, confusion = Tally(classes_of(3, None)).read()
    assert (total, weight, confusion.tolist()) == (0.0, 0, [[0] * 3] * 3)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_the_class_of_the_largest_logit_and_of_equal_ones_the_first(layout: torch.memory_format) -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randint(0, 3, (2, 4, 8, 8), generator=generator).float().contiguous(memory_format=layout)  # many are equal
    assert torch.equal(predicted_classes(logits).long(), logits.argmax(dim=1))


def test_one_logit_has_a_threshold() -> None:
    logits = torch.tensor([-1.0, 0.1, 2.0]).view(1, 1, 1, 3)
    assert predicted_classes(logits).tolist() == [[[0, 1, 1]]]
    assert predicted_classes(logits, threshold=0.8).tolist() == [[[0, 0, 1]]]
