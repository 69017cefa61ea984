"""A bias in front of a norm that subtracts it has no gradient, and is left alone."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from crista.config.model import AttentionUNet, Model, ResidualUNet, UNet
from crista.models import build_model
from crista.training.idle_biases import freeze_idle_biases


def build(config_class: type[Model], norm: str, upsampling: str = "convtranspose") -> nn.Module:
    torch.manual_seed(0)
    levels = {"feature_maps": (4, 8), "dropout_values": (0.0, 0.0), "conv_layers": (2, 2), "isotropy": (True, True)}
    config = config_class(
        normalization=norm, activation="elu", kernel_size=3, upsample_layer=upsampling, z_down=(1,), yx_down=(2,), **levels
    )
    return build_model(config, num_channels=1, num_logits=1, ndim=2).double()


def backward(model: nn.Module) -> torch.Tensor:
    image = torch.randn(2, 1, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    out: torch.Tensor = model(image)
    (out**2).sum().backward()
    return out.detach()


@pytest.mark.parametrize("upsampling", ["convtranspose", "upsampling"])
@pytest.mark.parametrize("norm", ["bn", "in"])
@pytest.mark.parametrize("config_class", [UNet, ResidualUNet, AttentionUNet])
def test_their_gradient_is_zero_and_the_others_are_kept(config_class: type[Model], norm: str, upsampling: str) -> None:
    model = build(config_class, norm, upsampling)
    frozen = freeze_idle_biases(copy.deepcopy(model))
    out, same = backward(model), backward(frozen)
    assert torch.equal(out, same)
    names = [name for name, parameter in frozen.named_parameters() if not parameter.requires_grad]
    assert names
    assert all(name.endswith("conv.bias") for name in names)
    gradients = dict(model.named_parameters())
    largest = max(parameter.grad.abs().max() for parameter in gradients.values())
    for name in names:
        assert gradients[name].grad.abs().max() < 1e-12 * largest, name
    for name, parameter in frozen.named_parameters():
        if parameter.requires_grad:
            torch.testing.assert_close(parameter.grad, gradients[name].grad, msg=name)


@pytest.mark.parametrize("norm", ["gn", "ln", "none"])
def test_other_norms_leave_something_of_it(norm: str) -> None:
    assert all(parameter.requires_grad for parameter in freeze_idle_biases(build(UNet, norm)).parameters())


def test_a_plain_unet_trains_the_bias_of_its_head() -> None:
    frozen = freeze_idle_biases(build(UNet, "bn"))
    trained = [name for name, p in frozen.named_parameters() if p.requires_grad and name.endswith("conv.bias")]
    assert trained == []
    assert frozen.get_submodule("head").bias.requires_grad  # type: ignore[union-attr]
