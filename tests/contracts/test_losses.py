"""What every registered loss promises, alone and in a sum, for two and for more classes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from crista.losses import LOSSES, build_loss
from crista.plan.plan import Classes, LossTerm

TERMS = sorted(LOSSES, key=lambda config_class: config_class.__name__)
IGNORE = 255

each_term = pytest.mark.parametrize("term", TERMS, ids=lambda c: c.__name__)
each_count = pytest.mark.parametrize("num_classes", [2, 3])


def make_classes(num_classes: int, ignore_index: int | None = IGNORE) -> Classes:
    return Classes(names=tuple(f"class {k}" for k in range(num_classes)), ignore_index=ignore_index)


def make_loss(*terms: Any, num_classes: int = 3, weights: Sequence[float] | None = None, **classes: Any) -> nn.Module:
    pairs = [LossTerm(term=term(), weight=1.0) for term in terms]
    return build_loss(pairs, classes=make_classes(num_classes, **classes), class_weights=weights)


def make_batch(num_classes: int, shape: tuple[int, ...] = (6, 8), seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    num_logits = make_classes(num_classes).num_logits
    logits = torch.randn(2, num_logits, *shape, generator=generator)
    target = torch.randint(0, num_classes, (2, *shape), generator=generator)
    return logits, target


def perfect_logits(target: Tensor, num_classes: int, confidence: float = 50.0) -> Tensor:
    if num_classes == 2:
        return (confidence * (2.0 * target - 1)).unsqueeze(1)
    one_hot = torch.nn.functional.one_hot(target, num_classes).movedim(-1, 1)
    return confidence * (2.0 * one_hot - 1)


def test_the_registry_is_what_these_tests_cover():
    assert [c.__name__ for c in TERMS] == ["CrossEntropy", "Dice"]


@each_term
@each_count
@pytest.mark.parametrize("shape", [(6, 8), (3, 4, 5)])
def test_the_loss_is_a_finite_scalar_with_gradient(term, num_classes, shape):
    logits, target = make_batch(num_classes, shape)
    logits.requires_grad_()
    value = make_loss(term, num_classes=num_classes)(logits, target)
    value.backward()
    assert value.shape == ()
    assert value.item() > 0
    assert torch.isfinite(logits.grad).all()
    assert logits.grad.abs().min() > 0


@each_term
@each_count
def test_a_perfect_prediction_has_the_least_loss(term, num_classes):
    logits, target = make_batch(num_classes)
    loss = make_loss(term, num_classes=num_classes)
    best = loss(perfect_logits(target, num_classes), target)
    assert best.item() == pytest.approx(0.0, abs=1e-6)
    for step in (0.5, 2.0, 8.0):
        assert loss(perfect_logits(target, num_classes, step) + 0.1 * logits, target) > best


@each_term
@each_count
def test_descent_leads_to_the_target(term, num_classes):
    logits, target = make_batch(num_classes)
    logits.requires_grad_()
    loss = make_loss(term, num_classes=num_classes)
    optimizer = torch.optim.Adam([logits], lr=0.3)
    for _ in range(100):
        optimizer.zero_grad()
        loss(logits, target).backward()
        optimizer.step()
    predicted = (logits[:, 0] > 0).long() if num_classes == 2 else logits.argmax(1)
    assert torch.equal(predicted, target)


@each_term
@each_count
def test_ignored_pixels_have_no_say(term, num_classes):
    """Neither their logits, not even NaN, nor their number changes loss or gradient; their own gradient is exactly 0."""
    logits, target = make_batch(num_classes)
    loss = make_loss(term, num_classes=num_classes)
    ignored = torch.zeros_like(target, dtype=torch.bool)
    ignored[:, 2:4, 1:7] = True
    target = target.masked_fill(ignored, IGNORE)

    first = logits.clone().requires_grad_()
    expected = loss(first, target)
    expected.backward()
    for filling in (1e4, float("inf"), float("nan")):
        wild = torch.where(ignored.unsqueeze(1), torch.tensor(filling), logits).requires_grad_()
        value = loss(wild, target)
        value.backward()
        assert value.item() == expected.item()
        assert torch.equal(wild.grad, first.grad)
    assert not first.grad[ignored.unsqueeze(1).expand_as(first)].any()
    assert first.grad[~ignored.unsqueeze(1).expand_as(first)].all()


@each_term
@each_count
def test_ignored_pixels_are_as_good_as_absent(term, num_classes):
    logits, target = make_batch(num_classes)
    loss = make_loss(term, num_classes=num_classes, weights=[1.0, 2.0, 3.0][:num_classes])
    masked = target.clone()
    masked[:, 4:] = IGNORE
    torch.testing.assert_close(loss(logits, masked), loss(logits[:, :, :4], target[:, :4]))


@each_term
@each_count
def test_a_batch_without_annotation_has_no_loss(term, num_classes):
    logits, target = make_batch(num_classes)
    logits.requires_grad_()
    value = make_loss(term, num_classes=num_classes)(logits, torch.full_like(target, IGNORE))
    value.backward()
    assert value.item() == 0
    assert not logits.grad.any()


@each_term
@each_count
@pytest.mark.parametrize("present", [0, 1])
def test_absent_classes_leave_the_loss_finite(term, num_classes, present):
    logits, target = make_batch(num_classes)
    logits.requires_grad_()
    target = torch.full_like(target, present)
    loss = make_loss(term, num_classes=num_classes)
    value = loss(logits, target)
    value.backward()
    assert torch.isfinite(value)
    assert torch.isfinite(logits.grad).all()
    assert loss(perfect_logits(target, num_classes, 200.0), target).item() == pytest.approx(0.0, abs=1e-5)


@each_term
def test_the_order_of_classes_does_not_matter(term):
    logits, target = make_batch(3)
    order = torch.tensor([2, 0, 1])
    plain = make_loss(term, weights=[1.0, 2.0, 3.0])(logits, target)
    inverse = torch.argsort(order)
    permuted = make_loss(term, weights=[3.0, 1.0, 2.0])(logits[:, order], inverse[target])
    torch.testing.assert_close(permuted, plain)


@each_term
@each_count
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_logits_are_computed_in_single(term, num_classes, dtype):
    logits, target = make_batch(num_classes)
    logits = (20 * logits).to(dtype)
    loss = make_loss(term, num_classes=num_classes)
    value = loss(logits, target)
    assert value.dtype == torch.float32
    assert value.item() == loss(logits.float(), target).item()


@each_term
def test_targets_of_any_integer_type_are_the_same(term):
    logits, target = make_batch(3)
    loss = make_loss(term)
    assert loss(logits, target.to(torch.uint8)).item() == loss(logits, target).item()


@each_term
@each_count
def test_shapes_that_do_not_fit_are_refused(term, num_classes):
    logits, target = make_batch(num_classes)
    loss = make_loss(term, num_classes=num_classes)
    for wrong in (target[:, :5], target[:1], target.unsqueeze(1)):
        with pytest.raises(ValueError, match=r"do not fit a target \(N, \[Z,\] Y, X\) of shape"):
            loss(logits, wrong)


@each_term
@each_count
def test_sums_over_processes_make_the_loss_of_the_global_batch(term, num_classes):
    """Two unequal halves, each of which gets the sums of the other through `reduce_sum`."""
    logits, target = make_batch(num_classes)
    target[0, :3] = IGNORE
    whole = make_loss(term, num_classes=num_classes)(logits, target)

    def split_loss(part: slice, others: list[Tensor], seen: list[Tensor]) -> Tensor:
        def reduce_sum(local: Tensor) -> Tensor:
            seen.append(local)
            return local + others.pop(0) if others else local

        loss = build_loss(
            [LossTerm(term=term(), weight=1.0)],
            classes=make_classes(num_classes),
            class_weights=None,
            reduce_sum=reduce_sum,
        )
        return loss(logits[part], target[part])

    seen: list[Tensor] = []
    split_loss(slice(0, 1), [], seen)
    torch.testing.assert_close(split_loss(slice(1, 2), list(seen), []), whole)


def test_terms_are_added_with_their_weights():
    logits, target = make_batch(3)
    parts = [make_loss(term)(logits, target).item() for term in TERMS]
    pairs = [LossTerm(term=term(), weight=weight) for term, weight in zip(TERMS, (0.25, 3.0), strict=True)]
    both = build_loss(pairs, classes=make_classes(3), class_weights=None)(logits, target)
    assert both.item() == pytest.approx(0.25 * parts[0] + 3.0 * parts[1])
    with pytest.raises(ValueError, match="at least one term"):
        build_loss([], classes=make_classes(3), class_weights=None)
