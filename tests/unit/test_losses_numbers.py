"""Losses in numbers that were worked out by hand."""

from __future__ import annotations

from math import log

import pytest
import torch
import torch.multiprocessing
from torch import Tensor

from crista.config.loss import CrossEntropy, Dice
from crista.losses import all_reduce_sum, build_loss, identity
from crista.plan.plan import Classes, LossTerm

TWO = Classes(names=("background", "cell"), ignore_index=255)
THREE = Classes(names=("background", "cell", "nucleus"))


def logit(probability: float) -> float:
    return log(probability / (1 - probability))


def binary(*probabilities: float) -> Tensor:
    """(1, 1, 1, X) logits of foreground probabilities."""
    return torch.tensor([[[[logit(p) for p in probabilities]]]])


def evaluate(term: CrossEntropy | Dice, logits: Tensor, target: list[int], classes: Classes = TWO, **keys: object) -> float:
    loss = build_loss([LossTerm(term=term, weight=1.0)], classes=classes, **({"class_weights": None} | keys))
    return float(loss(logits, torch.tensor([[target]])))


def test_binary_cross_entropy():
    expected = -(log(0.9) + log(1 - 0.2) + log(0.5)) / 3
    assert evaluate(CrossEntropy(), binary(0.9, 0.2, 0.5), [1, 0, 1]) == pytest.approx(expected, rel=1e-6)


def test_binary_cross_entropy_with_class_weights_and_ignored_pixels():
    expected = -(3 * log(0.9) + 0.5 * log(1 - 0.2)) / 3.5
    value = evaluate(CrossEntropy(), binary(0.9, 0.2, 0.999), [1, 0, 255], class_weights=(0.5, 3.0))
    assert value == pytest.approx(expected, rel=1e-6)


def test_multi_class_cross_entropy_with_class_weights():
    """Softmax of log-probabilities gives them back."""
    probabilities = torch.tensor([[0.7, 0.1], [0.2, 0.3], [0.1, 0.6]])
    logits = probabilities.log().reshape(1, 3, 1, 2)
    expected = -(1 * log(0.7) + 4 * log(0.6)) / 5
    value = evaluate(CrossEntropy(), logits, [0, 2], THREE, class_weights=(1.0, 2.0, 4.0))
    assert value == pytest.approx(expected, rel=1e-6)


def test_weights_of_zero_for_all_that_is_there_give_zero():
    assert evaluate(CrossEntropy(), binary(0.9, 0.2), [1, 1], class_weights=(1.0, 0.0)) == 0


def test_binary_dice_is_that_of_the_foreground():
    expected = 1 - (2 * (0.9 + 0.5) + 1) / ((0.9 + 0.2 + 0.5) + 2 + 1)
    assert evaluate(Dice(smooth=1.0), binary(0.9, 0.2, 0.5), [1, 0, 1]) == pytest.approx(expected, rel=1e-6)
    assert evaluate(Dice(smooth=1.0), binary(0.9, 0.2, 0.5, 0.7), [1, 0, 1, 255]) == pytest.approx(expected, rel=1e-6)


def test_multi_class_dice_is_the_mean_over_all_classes():
    """The third class is neither there nor (nearly) predicted: its Dice is 1."""
    probabilities = torch.tensor([[0.75, 0.25], [0.25, 0.75], [1e-30, 1e-30]])
    background = (2 * 0.75) / (1.0 + 1.0)
    expected = 1 - (background + background + 1) / 3
    assert evaluate(Dice(), probabilities.log().reshape(1, 3, 1, 2), [0, 1], THREE) == pytest.approx(expected, rel=1e-4)


def test_dice_sums_over_the_whole_batch():
    """An image without foreground does not count as a case of its own."""
    logits = torch.cat([binary(0.5, 0.5), binary(0.25, 0.25)])
    loss = build_loss([LossTerm(term=Dice(), weight=1.0)], classes=TWO, class_weights=None)
    value = float(loss(logits, torch.tensor([[[1, 1]], [[0, 0]]])))
    assert value == pytest.approx(1 - 2 * 1.0 / (1.5 + 2), rel=1e-4)


def test_wrong_number_of_class_weights_is_refused():
    with pytest.raises(ValueError, match="1 class weights for 2 classes; give one per class"):
        evaluate(CrossEntropy(), binary(0.5), [1], class_weights=(1.0,))


def test_class_weights_are_no_part_of_a_checkpoint():
    loss = build_loss([LossTerm(term=CrossEntropy(), weight=1.0)], classes=TWO, class_weights=(1.0, 2.0))
    assert loss.state_dict() == {}
    assert [buffer.tolist() for buffer in loss.buffers()] == [[1.0, 2.0]]


def test_one_process_sums_nothing():
    tensor = torch.tensor([1.0, 2.0])
    assert identity(tensor) is tensor
    assert all_reduce_sum(tensor) is tensor


def global_gradient(rank: int, size: int, folder: str) -> None:
    """One process of a group: the gradient of a shared weight, averaged over the processes as DDP does."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/group", rank=rank, world_size=size)
    images, target = make_global_batch()
    weight = torch.tensor([0.7], requires_grad=True)
    mine = slice(0, 1) if rank == 0 else slice(1, None)
    value = make_both(all_reduce_sum)(weight * images[mine], target[mine])
    value.backward()
    torch.distributed.all_reduce(weight.grad)
    torch.save((value.detach(), weight.grad / size), f"{folder}/{rank}.pt")
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()


def make_global_batch() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(5)
    images = torch.randn(3, 1, 4, 4, generator=generator)
    target = torch.randint(0, 2, (3, 4, 4), generator=generator)
    target[0, :2] = 255
    return images, target


def make_both(reduce_sum: object) -> torch.nn.Module:
    terms = [LossTerm(term=CrossEntropy(), weight=1.0), LossTerm(term=Dice(), weight=0.5)]
    return build_loss(terms, classes=TWO, class_weights=(1.0, 3.0), reduce_sum=reduce_sum)


def test_two_processes_train_as_one_with_the_global_batch(tmp_path):
    images, target = make_global_batch()
    weight = torch.tensor([0.7], requires_grad=True)
    expected = make_both(identity)(weight * images, target)
    expected.backward()
    torch.multiprocessing.spawn(global_gradient, (2, str(tmp_path)), nprocs=2)
    for rank in range(2):
        value, gradient = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        torch.testing.assert_close(value, expected.detach())
        torch.testing.assert_close(gradient, weight.grad)
