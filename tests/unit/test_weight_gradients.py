"""Weight gradients as matrix products equal those of torch, for every shape, kernel and way of cutting into blocks."""

from __future__ import annotations

import pytest
import torch

from crista.models.placement import memory_layout
from crista.training import weight_gradients
from crista.training.weight_gradients import convolution_weight_gradient, tall_product, transposed_weight_gradient

SHAPES_2D = [(2, 3, 5, 7), (1, 2, 1, 9), (3, 1, 6, 1), (2, 3, 2, 2)]
SHAPES_3D = [(2, 3, 4, 5, 6), (1, 2, 1, 8, 8), (2, 3, 4, 1, 1), (2, 2, 2, 3, 2)]
KERNELS_2D = [(3, 3), (1, 1), (5, 3), (3, 1)]
KERNELS_3D = [(3, 3, 3), (1, 3, 3), (3, 1, 1), (5, 5, 3)]
CASES = [(s, k) for s in SHAPES_2D for k in KERNELS_2D] + [(s, k) for s in SHAPES_3D for k in KERNELS_3D]


def draw(shape: tuple[int, ...]) -> torch.Tensor:
    """Standard normal float64, channels last."""
    return torch.randn(shape, dtype=torch.float64).contiguous(memory_format=memory_layout(len(shape) - 2))


@pytest.mark.parametrize(("voxels", "cache"), [(1, 1), (7, 200), (4096, 1 << 21)])
@pytest.mark.parametrize(("shape", "kernel"), CASES)
def test_of_a_convolution(
    shape: tuple[int, ...], kernel: tuple[int, ...], voxels: int, cache: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(weight_gradients, "ROW_VOXELS", voxels)
    monkeypatch.setattr(weight_gradients, "BLOCK_BYTES", cache)
    torch.manual_seed(0)
    image, gradient = draw(shape), draw((shape[0], 4, *shape[2:]))
    weight = torch.zeros(4, shape[1], *kernel, dtype=torch.float64)
    ones, zeros = [1] * len(kernel), [0] * len(kernel)
    padding = [side // 2 for side in kernel]
    _, expected, _ = torch.ops.aten.convolution_backward(
        gradient, image, weight, None, ones, padding, ones, False, zeros, 1, [False, True, False]
    )
    torch.testing.assert_close(convolution_weight_gradient(gradient, image, kernel), expected, rtol=0, atol=1e-11)


@pytest.mark.parametrize("voxels", [3, 7, 4096])
@pytest.mark.parametrize(
    ("shape", "factor"), [((2, 3, 4, 5), (2, 2)), ((2, 3, 4, 5, 6), (1, 2, 2)), ((1, 3, 2, 5, 6), (2, 3, 2))]
)
def test_of_a_transposed_convolution(
    shape: tuple[int, ...], factor: tuple[int, ...], voxels: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(weight_gradients, "ROW_VOXELS", voxels)
    torch.manual_seed(0)
    image = draw(shape)
    gradient = draw((shape[0], 4, *(n * f for n, f in zip(shape[2:], factor, strict=True))))
    weight = torch.zeros(3, 4, *factor, dtype=torch.float64)
    ones, zeros = [1] * len(factor), [0] * len(factor)
    _, expected, _ = torch.ops.aten.convolution_backward(
        gradient, image, weight, None, list(factor), zeros, ones, True, zeros, 1, [False, True, False]
    )
    torch.testing.assert_close(transposed_weight_gradient(gradient, image, factor), expected, rtol=0, atol=1e-11)


@pytest.mark.parametrize("length", [1, 4095, 4096, 10000])
def test_tall_products(length: int) -> None:
    torch.manual_seed(0)
    left, right = torch.randn(length, 3, dtype=torch.float64), torch.randn(length, 5, dtype=torch.float64)
    torch.testing.assert_close(tall_product(left, right), left.T @ right)


def test_the_same_tensors_give_the_same_bits() -> None:
    """Resumed trainings equal uninterrupted ones, bit for bit."""
    torch.manual_seed(0)
    image = torch.randn(2, 32, 40, 40).contiguous(memory_format=torch.channels_last)
    gradient = torch.randn(2, 16, 40, 40).contiguous(memory_format=torch.channels_last)
    first = convolution_weight_gradient(gradient, image, (3, 3))
    again = convolution_weight_gradient(gradient.clone(), image.clone(), (3, 3))
    assert torch.equal(first, again)
