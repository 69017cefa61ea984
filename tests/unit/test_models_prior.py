"""The bias of the head: an untrained network expects each class as often as it occurs."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from crista.models.initialization import expect_frequencies


def test_two_classes_by_hand() -> None:
    head = nn.Conv2d(4, 1, 1)
    expect_frequencies(head, (0.75, 0.25))
    assert head.bias is not None
    assert head.bias.sigmoid().item() == pytest.approx(0.25)


def test_several_classes_by_hand() -> None:
    head = nn.Conv3d(4, 3, 1)
    expect_frequencies(head, (0.7, 0.2, 0.1))
    assert head.bias is not None
    torch.testing.assert_close(head.bias.softmax(dim=0), torch.tensor([0.7, 0.2, 0.1]))


def test_a_class_that_is_nearly_absent_keeps_a_gradient() -> None:
    head = nn.Conv2d(4, 1, 1)
    expect_frequencies(head, (1.0, 0.0))
    assert head.bias is not None
    assert head.bias.sigmoid().item() == pytest.approx(0.01)
