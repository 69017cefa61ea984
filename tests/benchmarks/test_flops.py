"""Arithmetic of networks: by hand, and against PyTorch's own counter."""

from __future__ import annotations

import pytest
import torch
from measuring.flops import count_flops
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from crista.config.model import UNet
from crista.models import build_model


def unet(ndim: int) -> nn.Module:
    """A U-Net of three levels."""
    config = UNet(
        feature_maps=(4, 8, 16),
        dropout_values=(0.0,) * 3,
        normalization="bn",
        activation="relu",
        z_down=(1, 2),
        yx_down=(2, 2),
        isotropy=(True,) * 3,
        conv_layers=(2,) * 3,
    )
    return build_model(config, num_channels=1, num_logits=1, ndim=ndim)


def test_one_convolution_by_hand() -> None:
    """3 x 3 kernel, 2 -> 5 channels, on 7 x 6 pixels: 2 * 9 * 2 operations for each of 5 * 42 outputs."""
    assert count_flops(nn.Conv2d(2, 5, 3, padding=1), (1, 2, 7, 6)) == 2 * 9 * 2 * 5 * 42


def test_one_transposed_convolution_by_hand() -> None:
    """Each of the 4 * 12 inputs is multiplied with a 2 x 2 kernel for each of 3 outputs."""
    assert count_flops(nn.ConvTranspose2d(4, 3, 2, stride=2), (1, 4, 3, 4)) == 2 * 4 * 3 * 4 * 12


@pytest.mark.parametrize(("ndim", "shape"), [(2, (1, 1, 32, 48)), (3, (2, 1, 8, 16, 24))])
def test_a_unet_as_torch_counts_it(ndim: int, shape: tuple[int, ...]) -> None:
    """PyTorch counts the operators that really run."""
    network = unet(ndim).eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(torch.zeros(shape))
    assert count_flops(network, shape) == counter.get_total_flops()


def test_the_network_stays_as_it_was() -> None:
    """Counting moves a copy to where there are no data."""
    network = unet(2)
    before = network.state_dict()["head.weight"].clone()
    count_flops(network, (1, 1, 16, 16))
    assert network.training
    assert torch.equal(network.state_dict()["head.weight"], before)
