"""Quick layers compute what torch's compute: outputs, all gradients, and the state of a network."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from crista.config.model import AttentionUNet, Model, ResidualUNet, UNet
from crista.models import build_model
from crista.models.placement import memory_layout, to_layout
from crista.training import cpu_layers
from crista.training.cpu_layers import quicken


@pytest.fixture(autouse=True)
def old_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    """The processor that the convolutions are meant for, whatever the one of the test."""
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX2")
    monkeypatch.setattr(torch.backends.mkl, "is_available", lambda: True)


LAYERS = [
    (nn.Conv2d(32, 5, 3, padding=1), "QuickConv2d"),
    (nn.Conv2d(32, 5, (5, 3), padding=(2, 1), bias=False), "QuickConv2d"),
    (nn.Conv3d(32, 5, (1, 3, 3), padding=(0, 1, 1)), "QuickConv3d"),
    (nn.Conv3d(32, 5, 3, padding=1), "QuickConv3d"),
    (nn.Conv2d(6, 3, 1), "PointwiseConv2d"),
    (nn.Conv3d(6, 1, 1), "PointwiseConv3d"),
    (nn.Conv2d(6, 3, 1, bias=False), "PointwiseConv2d"),
    (nn.ConvTranspose2d(6, 3, 2, stride=2), "QuickConvTranspose2d"),
    (nn.ConvTranspose3d(6, 3, (1, 2, 2), stride=(1, 2, 2)), "QuickConvTranspose3d"),
    (nn.InstanceNorm2d(6, affine=True), "QuickInstanceNorm2d"),
    (nn.InstanceNorm3d(6, affine=True), "QuickInstanceNorm3d"),
    (nn.GroupNorm(2, 6), "QuickGroupNorm"),
]


@pytest.mark.parametrize(("layer", "quick"), LAYERS, ids=lambda value: value if isinstance(value, str) else "")
@pytest.mark.parametrize("training", [True, False])
def test_outputs_and_gradients_are_those_of_the_layer(layer: nn.Module, quick: str, training: bool) -> None:
    torch.manual_seed(0)
    layer = copy.deepcopy(layer).double().train(training)
    ndim = 3 if "3d" in quick else 2
    channels = getattr(layer, "in_channels", 6)
    image = torch.randn(3, channels, *(4, 6, 8)[-ndim:], dtype=torch.float64).contiguous(memory_format=memory_layout(ndim))
    other = quicken(copy.deepcopy(layer))
    assert type(other).__name__ == quick
    results = []
    for module in (layer, other):
        seen = image.clone().requires_grad_()
        out = module(seen)
        out.backward(torch.cos(torch.arange(out.numel(), dtype=torch.float64)).view(out.shape))
        results.append([out.detach(), seen.grad, *(parameter.grad for parameter in module.parameters())])
    for expected, value in zip(*results, strict=True):
        torch.testing.assert_close(value, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(("kernel", "width"), [(5, 1), (7, 1), (7, 2), (9, 3), (7, 3)])
def test_kernels_that_are_wider_than_the_image(kernel: int, width: int) -> None:
    """As at the bottleneck of a small patch with KERNEL_SIZE: 5 or 7."""
    torch.manual_seed(0)
    layer = nn.Conv2d(32, 3, kernel, padding=kernel // 2).double()
    other = quicken(copy.deepcopy(layer))
    assert type(other).__name__ == "QuickConv2d"
    image = torch.randn(2, 32, 4, width, dtype=torch.float64).contiguous(memory_format=memory_layout(2))
    for module in (layer, other):
        module(image).square().sum().backward()
    torch.testing.assert_close(other.weight.grad, layer.weight.grad, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(("layer", "quick"), LAYERS, ids=lambda value: value if isinstance(value, str) else "")
def test_mixed_precision_is_that_of_the_layer(layer: nn.Module, quick: str) -> None:
    """bfloat16 where ATEN_CPU_CAPABILITY hides from torch what the processor has: about the same, and no error."""
    torch.manual_seed(0)
    ndim = 3 if "3d" in quick else 2
    channels = getattr(layer, "in_channels", 6)
    image = torch.randn(3, channels, *(4, 6, 8)[-ndim:]).bfloat16().contiguous(memory_format=memory_layout(ndim))
    results = []
    for module in (copy.deepcopy(layer), quicken(copy.deepcopy(layer))):
        seen = image.clone().requires_grad_()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            out = module(seen)
        out.float().square().mean().backward()
        results.append([out.detach().float(), *(parameter.grad for parameter in module.parameters())])
    for expected, value in zip(*results, strict=True):
        torch.testing.assert_close(value, expected, rtol=0.05, atol=0.05)


def test_frozen_weights_get_no_gradient() -> None:
    layer = quicken(nn.Conv2d(32, 4, 3, padding=1))
    layer.weight.requires_grad_(False)
    layer(torch.randn(1, 32, 6, 6)).sum().backward()
    assert layer.weight.grad is None
    assert layer.bias.grad is not None


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(16, 4, 3, padding=1),  # few channels: oneDNN is as quick
        nn.Conv2d(32, 4, 3),  # the shape shrinks
        nn.Conv2d(32, 4, 3, padding=1, stride=2),
        nn.Conv2d(32, 4, 3, padding=2, dilation=2),
        nn.Conv2d(32, 32, 3, padding=1, groups=2),
        nn.Conv2d(32, 4, 3, padding=1, padding_mode="reflect"),
        nn.Conv2d(32, 4, 3, padding="same"),
        nn.ConvTranspose2d(4, 4, 3, stride=2),
        nn.BatchNorm2d(4),
    ],
)
def test_other_layers_stay(layer: nn.Module) -> None:
    assert type(quicken(copy.deepcopy(layer))) is type(layer)


def test_convolutions_stay_on_newer_processors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX512")
    network = quicken(nn.Sequential(nn.Conv2d(32, 4, 3, padding=1), nn.InstanceNorm2d(4, affine=True)))
    assert [type(layer).__name__ for layer in network] == ["Conv2d", "QuickInstanceNorm2d"]


def filled(config_class: type[Model], norm: str, ndim: int) -> Model:
    per_level = {"dropout_values": (0.0, 0.0, 0.0), "conv_layers": (2, 2, 2), "isotropy": (False, True, True)}
    shape = {"feature_maps": (16, 32, 64), "z_down": (1, 2), "yx_down": (2, 2), **per_level}
    return config_class(normalization=norm, activation="leaky_relu", kernel_size=3, **shape)


@pytest.mark.parametrize("norm", ["bn", "in", "gn", "none"])
@pytest.mark.parametrize("config_class", [UNet, ResidualUNet, AttentionUNet])
@pytest.mark.parametrize("ndim", [2, 3])
def test_a_quick_network_learns_as_the_network_does(config_class: type[Model], norm: str, ndim: int) -> None:
    """Three steps of SGD in float64: the same losses and weights, under the same names."""
    torch.manual_seed(0)
    model = build_model(filled(config_class, norm, ndim), num_channels=2, num_logits=3, ndim=ndim).double()
    network = to_layout(model, torch.device("cpu"), ndim)
    image = torch.randn(2, 2, *(4, 8, 12)[-ndim:], dtype=torch.float64).contiguous(memory_format=memory_layout(ndim))
    target = torch.randint(0, 3, (2, *image.shape[2:]))
    ends = []
    for model in (network, quicken(copy.deepcopy(network))):
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        for _ in range(3):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(image), target).backward()
            optimizer.step()
        ends.append(model.state_dict())
    assert ends[0].keys() == ends[1].keys()
    for name, value in ends[0].items():
        torch.testing.assert_close(ends[1][name], value, rtol=1e-7, atol=1e-9, msg=name)


def test_activations_stay_channels_last() -> None:
    """Each change of the layout on the way would cost a pass over the memory."""
    network = quicken(to_layout(build_model(filled(UNet, "bn", 2), num_channels=1, num_logits=1, ndim=2), torch.device("cpu"), 2))
    seen: list[tuple[str, bool]] = []
    for name, module in network.named_modules():
        if not list(module.children()) and not isinstance(module, nn.Identity):
            module.register_forward_hook(
                lambda _m, _i, out, name=name: seen.append((name, out.is_contiguous(memory_format=torch.channels_last)))
            )
    network(torch.randn(2, 16, 24, 1).movedim(-1, 1))  # as the loader makes them
    assert len(seen) > 20
    assert not [name for name, last in seen if not last]


def test_every_quick_layer_is_tested() -> None:
    tables = (
        cpu_layers.QUICK_NORMS,
        cpu_layers.QUICK_CONVOLUTIONS,
        cpu_layers.QUICK_POINTWISE,
        cpu_layers.QUICK_TRANSPOSED,
    )
    assert {quick.__name__ for table in tables for quick in table.values()} == {name for _, name in LAYERS}
