"""Layers that compute what torch's compute, sooner: for training on a processor with channels-last tensors.

`quicken` turns the layers of a network into these where that pays; names, parameters and state stay.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from crista.models.placement import memory_layout
from crista.training.weight_gradients import convolution_weight_gradient, transposed_weight_gradient

FEWEST_CHANNELS = 32
"""Input channels from which on the weight gradient is quicker as matrix products than by oneDNN (AVX2)."""


def quicken(model: nn.Module) -> nn.Module:
    """`model`, its layers changed in place to those of this module where they are quicker.

    Norms on any processor; convolutions on those with AVX2 and no AVX-512, whose kernels for weight gradients of
    channels-last tensors are slow. The choice depends on the processor alone, so that a training gives the same bits again.
    """
    slow_gradients = torch.backends.cpu.get_cpu_capability() == "AVX2" and torch.backends.mkl.is_available()  # type: ignore[no-untyped-call]
    for module in model.modules():
        quick = QUICK_NORMS.get(type(module))
        if quick is None and slow_gradients:
            quick = _quick_convolution(module)
        if quick is not None:
            module.__class__ = quick  # parameters, buffers and hooks stay those of the layer
    return model


def _quick_convolution(module: nn.Module) -> type[nn.Module] | None:
    """The class that `module` can become; None for a layer that stays as it is."""
    if isinstance(module, nn.ConvTranspose2d | nn.ConvTranspose3d):
        plain = module.kernel_size == module.stride and not any((*module.padding, *module.output_padding))
        return QUICK_TRANSPOSED[type(module)] if plain and _is_ordinary(module) else None
    if not isinstance(module, nn.Conv2d | nn.Conv3d) or not _is_ordinary(module):
        return None
    if set(module.stride) != {1} or module.padding != tuple(side // 2 for side in module.kernel_size):
        return None
    if set(module.kernel_size) == {1}:
        return QUICK_POINTWISE[type(module)]
    return QUICK_CONVOLUTIONS[type(module)] if module.in_channels >= FEWEST_CHANNELS else None


def _is_ordinary(module: nn.Conv2d | nn.Conv3d | nn.ConvTranspose2d | nn.ConvTranspose3d) -> bool:
    return module.groups == 1 and set(module.dilation) == {1} and module.padding_mode == "zeros"


class _Convolution(torch.autograd.Function):
    """Convolution of stride 1 that keeps the shape."""

    @staticmethod
    def forward(ctx: Any, image: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(image, weight)
        return torch.convolution(image, weight, bias, *_geometry(weight.shape[2:]))

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        image, weight = ctx.saved_tensors
        needs_image, needs_weight, needs_bias = ctx.needs_input_grad
        gradient = gradient.contiguous(memory_format=memory_layout(image.ndim - 2))
        to_image = _image_gradient(gradient, image, weight, _geometry(weight.shape[2:])) if needs_image else None
        to_weight = _weight_gradient(gradient, image, weight) if needs_weight else None
        return to_image, to_weight, _bias_gradient(gradient) if needs_bias else None


class _Transposed(torch.autograd.Function):
    """Transposed convolution whose kernels do not overlap."""

    @staticmethod
    def forward(ctx: Any, image: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(image, weight)
        return torch.convolution(image, weight, bias, *_transposed_geometry(weight.shape[2:]))

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        image, weight = ctx.saved_tensors
        needs_image, needs_weight, needs_bias = ctx.needs_input_grad
        gradient = gradient.contiguous(memory_format=memory_layout(image.ndim - 2))
        to_image = _image_gradient(gradient, image, weight, _transposed_geometry(weight.shape[2:])) if needs_image else None
        to_weight = transposed_weight_gradient(gradient, image, weight.shape[2:]) if needs_weight else None
        return to_image, to_weight, _bias_gradient(gradient) if needs_bias else None


def _geometry(kernel: tuple[int, ...]) -> tuple[Any, ...]:
    """Stride, padding, dilation, transposed, output padding, groups."""
    ones, zeros = [1] * len(kernel), [0] * len(kernel)
    return ones, [side // 2 for side in kernel], ones, False, zeros, 1


def _transposed_geometry(factor: tuple[int, ...]) -> tuple[Any, ...]:
    ones, zeros = [1] * len(factor), [0] * len(factor)
    return list(factor), zeros, ones, True, zeros, 1


def _image_gradient(gradient: Tensor, image: Tensor, weight: Tensor, geometry: tuple[Any, ...]) -> Tensor:
    only_image = [True, False, False]
    result: Tensor = torch.ops.aten.convolution_backward(gradient, image, weight, None, *geometry, only_image)[0]
    return result


def _weight_gradient(gradient: Tensor, image: Tensor, weight: Tensor) -> Tensor:
    """As matrix products, but where a kernel is so wide that it reaches across whole rows of a narrow image."""
    kernel = weight.shape[2:]
    if kernel[-1] <= 2 * image.shape[-1] + 1:
        return convolution_weight_gradient(gradient, image, kernel)
    only_weight = [False, True, False]
    result: Tensor = torch.ops.aten.convolution_backward(gradient, image, weight, None, *_geometry(kernel), only_weight)[1]
    return result


def _bias_gradient(gradient: Tensor) -> Tensor:
    return gradient.sum([0, *range(2, gradient.ndim)])


def _in_mixed_precision() -> bool:
    """Whether autocast chooses the precision, as it does for torch's own layers only."""
    return torch.is_autocast_enabled("cpu")


class QuickConv2d(nn.Conv2d):
    """Weight gradient as matrix products."""

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if _in_mixed_precision():
            return super()._conv_forward(input, weight, bias)  # type: ignore[no-any-return]
        return _Convolution.apply(input, weight, bias)  # type: ignore[no-any-return, no-untyped-call]


class QuickConv3d(nn.Conv3d):
    """Weight gradient as matrix products."""

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if _in_mixed_precision():
            return super()._conv_forward(input, weight, bias)  # type: ignore[no-any-return]
        return _Convolution.apply(input, weight, bias)  # type: ignore[no-any-return, no-untyped-call]


class PointwiseConv2d(nn.Conv2d):
    """1×1 convolution as one matrix product, and its gradients too."""

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return _pointwise(input, weight, bias)


class PointwiseConv3d(nn.Conv3d):
    """1×1×1 convolution as one matrix product, and its gradients too."""

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return _pointwise(input, weight, bias)


def _pointwise(image: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return F.linear(image.movedim(1, -1), weight.flatten(1), bias).movedim(-1, 1)


class QuickConvTranspose2d(nn.ConvTranspose2d):
    """Weight gradient as one matrix product."""

    def forward(self, input: Tensor, output_size: list[int] | None = None) -> Tensor:
        """(N, C_in, Y, X) -> (N, C_out, Y·f, X·f)."""
        if _in_mixed_precision():
            return super().forward(input, output_size)
        return _Transposed.apply(input, self.weight, self.bias)  # type: ignore[no-any-return, no-untyped-call]


class QuickConvTranspose3d(nn.ConvTranspose3d):
    """Weight gradient as one matrix product."""

    def forward(self, input: Tensor, output_size: list[int] | None = None) -> Tensor:
        """(N, C_in, Z, Y, X) -> (N, C_out, Z·f, Y·f, X·f)."""
        if _in_mixed_precision():
            return super().forward(input, output_size)
        return _Transposed.apply(input, self.weight, self.bias)  # type: ignore[no-any-return, no-untyped-call]


class QuickInstanceNorm2d(nn.InstanceNorm2d):
    """Batch norm of one sample after the other: torch's own leaves the channels-last layout and comes back to it."""

    def forward(self, input: Tensor) -> Tensor:
        """Shape is kept."""
        return _instance_norm(input, self.weight, self.bias, self.eps)


class QuickInstanceNorm3d(nn.InstanceNorm3d):
    """Batch norm of one sample after the other: torch's own leaves the channels-last layout and comes back to it."""

    def forward(self, input: Tensor) -> Tensor:
        """Shape is kept."""
        return _instance_norm(input, self.weight, self.bias, self.eps)


def _instance_norm(image: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    samples = [F.batch_norm(sample, None, None, weight, bias, training=True, eps=eps) for sample in image.split(1)]  # type: ignore[no-untyped-call]
    return torch.cat(samples)


class QuickGroupNorm(nn.GroupNorm):
    """Group norm of a contiguous copy: torch's gradient of channels-last tensors is several times slower."""

    def forward(self, input: Tensor) -> Tensor:
        """Shape is kept."""
        normed = F.group_norm(input.contiguous(), self.num_groups, self.weight, self.bias, self.eps)
        return normed.contiguous(memory_format=memory_layout(input.ndim - 2))


QUICK_NORMS: dict[type[nn.Module], type[nn.Module]] = {
    nn.InstanceNorm2d: QuickInstanceNorm2d,
    nn.InstanceNorm3d: QuickInstanceNorm3d,
    nn.GroupNorm: QuickGroupNorm,
}
QUICK_CONVOLUTIONS: dict[type[nn.Module], type[nn.Module]] = {nn.Conv2d: QuickConv2d, nn.Conv3d: QuickConv3d}
QUICK_POINTWISE: dict[type[nn.Module], type[nn.Module]] = {nn.Conv2d: PointwiseConv2d, nn.Conv3d: PointwiseConv3d}
QUICK_TRANSPOSED: dict[type[nn.Module], type[nn.Module]] = {
    nn.ConvTranspose2d: QuickConvTranspose2d,
    nn.ConvTranspose3d: QuickConvTranspose3d,
}
