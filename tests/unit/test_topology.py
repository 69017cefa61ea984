"""Strides and receptive fields that are computed equal those of networks that are built."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from torch import nn

from crista.config.model import AttentionUNet, ResidualUNet, UNet
from crista.models import build_model
from crista.models.blocks import EncoderStage
from crista.plan.topology import compute_levels, nearest_multiples, network_stride, receptive_field_radius

BASE: dict[str, Any] = {
    "feature_maps": (2, 2, 2),
    "dropout_values": (0.0, 0.0, 0.0),
    "normalization": "none",
    "activation": "linear",
    "yx_down": (2, 2),
    "z_down": (1, 2),
    "isotropy": (False, True, True),
    "conv_layers": (2, 2, 2),
}


def measure_radius(config: Any, ndim: int, *, linear: bool) -> tuple[int, ...]:
    """Largest distance of a nonzero gradient, over all positions of the output voxel within one voxel of the bottleneck.

    `linear`: average instead of maximum pooling and positive weights, so that no dependence is hidden.
    """
    torch.manual_seed(0)
    model = build_model(config, num_channels=1, num_logits=1, ndim=ndim).double().eval()
    if linear:
        make_transparent(model, ndim)
    stride = network_stride(config, ndim)
    predicted = receptive_field_radius(config, ndim)
    # Room for one more than predicted, so that a larger field would be seen.
    centre = [-(-(radius + 1) // step) * step for radius, step in zip(predicted, stride, strict=True)]
    image = torch.rand(1, 1, *(2 * c + s for c, s in zip(centre, stride, strict=True)), dtype=torch.float64)
    image.requires_grad_()
    logits = model(image)
    radius = [0] * ndim
    for phase in range(max(stride)):
        position = [c + min(phase, s - 1) for c, s in zip(centre, stride, strict=True)]
        (gradient,) = torch.autograd.grad(logits[(0, 0, *position)], image, retain_graph=True)
        touched = gradient[0, 0].nonzero()
        for axis in range(ndim):
            reach = (touched[:, axis] - position[axis]).abs().max().item()
            radius[axis] = max(radius[axis], int(reach))
    return tuple(radius)


def make_transparent(model: nn.Module, ndim: int) -> None:
    average = {2: nn.AvgPool2d, 3: nn.AvgPool3d}[ndim]
    for module in model.modules():
        if isinstance(module, EncoderStage) and not isinstance(module.pool, nn.Identity):
            module.pool = average(module.pool.kernel_size)
    for parameter in model.parameters():
        parameter.data.uniform_(0.001, 0.01)


CASES = [
    (UNet, 2, {}),
    (UNet, 3, {}),
    (UNet, 2, {"upsample_layer": "upsampling"}),
    (UNet, 3, {"upsample_layer": "upsampling", "conv_layers": (1, 1, 1)}),
    (UNet, 2, {"larger_io": True, "conv_layers": (1, 2, 3)}),
    (UNet, 3, {"larger_io": True, "conv_layers": (1, 1, 1)}),
    (UNet, 2, {"kernel_size": 5, "yx_down": (2, 1)}),
    (
        UNet,
        2,
        {
            "feature_maps": (2, 2),
            "yx_down": (2,),
            "z_down": (1,),
            "isotropy": (True,),
            "dropout_values": (0.0,),
            "conv_layers": (1,),
            "kernel_size": 1,
        },
    ),
    (UNet, 2, {"conv_block_order": "norm_act_conv"}),
    (ResidualUNet, 2, {}),
    (ResidualUNet, 3, {"conv_layers": (1, 1, 1)}),
    (AttentionUNet, 2, {}),
    (AttentionUNet, 2, {"upsample_layer": "upsampling", "larger_io": True}),
]


@pytest.mark.parametrize(("architecture", "ndim", "keys"), CASES)
def test_receptive_field_is_exact(architecture, ndim, keys):
    config = architecture(**(BASE | keys))
    assert measure_radius(config, ndim, linear=True) == receptive_field_radius(config, ndim)


@pytest.mark.parametrize(("architecture", "ndim"), list(itertools.product([UNet, ResidualUNet, AttentionUNet], [2, 3])))
def test_receptive_field_bounds_that_of_a_real_network(architecture, ndim):
    convs = (2, 2, 2) if ndim == 2 else (1, 1, 1)
    config = architecture(**(BASE | {"activation": "elu", "normalization": "bn", "conv_layers": convs}))
    measured = measure_radius(config, ndim, linear=False)
    predicted = receptive_field_radius(config, ndim)
    for seen, bound, step in zip(measured, predicted, network_stride(config, ndim), strict=True):
        assert seen <= bound <= seen + step


def test_hand_computed_radius():
    """One level of pooling by 2, one 3-convolution per block: 1 (decoder) + 1·2 (bottleneck) + 1 (encoder) + 1 (pooling)."""
    keys = {
        "feature_maps": (2, 2),
        "yx_down": (2,),
        "z_down": (1,),
        "isotropy": (True,),
        "dropout_values": (0.0,),
        "conv_layers": (1,),
    }
    assert receptive_field_radius(UNet(**(BASE | keys)), 2) == (5, 5)


def test_strides_and_levels():
    config = UNet(**(BASE | {"feature_maps": (2, 4, 8)}))
    assert network_stride(config, 2) == (4, 4)
    assert network_stride(config, 3) == (2, 4, 4)
    levels = compute_levels(config, 3)
    assert [level.kernel for level in levels] == [(1, 3, 3), (3, 3, 3), (3, 3, 3)]
    assert [level.factor for level in levels] == [(1, 2, 2), (2, 2, 2), (1, 1, 1)]
    assert [level.channels for level in levels] == [2, 4, 8]


def test_one_value_serves_all_levels():
    config = UNet(
        **(BASE | {"yx_down": (2,), "z_down": (1,), "isotropy": (True,), "conv_layers": (3,), "dropout_values": (0.1,)})
    )
    assert network_stride(config, 3) == (1, 4, 4)
    assert {level.num_convs for level in compute_levels(config, 3)} == {3}


@pytest.mark.parametrize("key", ["z_down", "isotropy"])
def test_keys_of_the_third_axis_are_needed_in_3d_only(key):
    config = UNet(**(BASE | {key: None}))
    assert network_stride(config, 2) == (4, 4)
    with pytest.raises(ValueError, match=f"MODEL.{key.upper()} is not filled in"):
        network_stride(config, 3)


def test_unresolved_and_contradicting_values_are_refused():
    with pytest.raises(ValueError, match=r"MODEL.YX_DOWN \[2, 0\] holds a 0, .* give 1 or 2"):
        network_stride(UNet(**(BASE | {"yx_down": (2, 0)})), 2)
    config = UNet(**(BASE | {"feature_maps": None, "conv_layers": (1, 2, 3, 4)}))
    config = config.model_copy(update={"feature_maps": (2, 2, 2)})
    with pytest.raises(ValueError, match="CONV_LAYERS has 4 values for 3 levels"):
        network_stride(config, 2)


def test_nearest_multiples():
    assert nearest_multiples(18, 4) == (16, 20)
    assert nearest_multiples(3, 4) == (4,)
