"""What every registered network promises, and what the U-Net family promises beyond that."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from crista.config.model import AttentionUNet, Model, ResidualUNet, UNet
from crista.models import MODELS, build_model, describe_model, fold_batch_norm
from crista.models.blocks import ConvUnit
from crista.models.layers import ACTIVATIONS, build_norm
from crista.plan.topology import network_stride

ARCHITECTURES = sorted(MODELS, key=lambda config_class: config_class.__name__)
NORMS = ("bn", "sync_bn", "in", "gn", "ln", "none")
SIZES = {2: ((8, 12), (20, 8)), 3: ((4, 8, 12), (8, 12, 8))}

each_architecture = pytest.mark.parametrize("architecture", ARCHITECTURES, ids=lambda c: c.__name__)
each_ndim = pytest.mark.parametrize("ndim", [2, 3])


def make_config(architecture: Any, **keys: Any) -> Model:
    defaults: dict[str, Any] = {
        "feature_maps": (4, 6, 8),
        "dropout_values": (0.0,),
        "normalization": "bn",
        "activation": "elu",
        "z_down": (1, 2),
        "yx_down": (2, 2),
        "isotropy": (False, True, True),
    }
    return architecture(**(defaults | keys))


def make_model(architecture: Any, ndim: int, *, num_channels: int = 2, num_logits: int = 3, **keys: Any) -> nn.Module:
    torch.manual_seed(0)
    config = make_config(architecture, **keys)
    return build_model(config, num_channels=num_channels, num_logits=num_logits, ndim=ndim)


def make_image(shape: tuple[int, ...], *, batch: int = 2, num_channels: int = 2, seed: int = 1) -> Tensor:
    return torch.randn(batch, num_channels, *shape, generator=torch.Generator().manual_seed(seed))


def randomise_statistics(model: nn.Module) -> None:
    """Batch norms as after a training: none of scale, shift, mean and variance is trivial."""
    generator = torch.Generator().manual_seed(7)
    for module in model.modules():
        if hasattr(module, "running_mean") and module.running_mean is not None:
            for values, low in (
                (module.weight, 0.5),
                (module.running_var, 0.5),
                (module.bias, -0.5),
                (module.running_mean, -0.5),
            ):
                values.data.copy_(low + torch.rand(values.shape, generator=generator))


def test_the_registry_is_what_these_tests_cover():
    assert [c.__name__ for c in ARCHITECTURES] == ["AttentionUNet", "ResidualUNet", "UNet"]


@each_architecture
@each_ndim
def test_logits_have_the_shape_of_the_image(architecture, ndim):
    model = make_model(architecture, ndim).eval()
    for shape in SIZES[ndim]:
        logits = model(make_image(shape))
        assert logits.shape == (2, 3, *shape)
        assert logits.dtype == torch.float32


@each_architecture
@each_ndim
def test_gradient_reaches_every_parameter(architecture, ndim):
    model = make_model(architecture, ndim, larger_io=True).eval()
    randomise_statistics(model)
    model(make_image(SIZES[ndim][0])).square().sum().backward()
    dead = [name for name, parameter in model.named_parameters() if parameter.grad is None or not parameter.grad.any()]
    assert dead == []


@each_architecture
@each_ndim
def test_evaluation_is_deterministic_with_dropout(architecture, ndim):
    model = make_model(architecture, ndim, dropout_values=(0.5, 0.5, 0.5))
    image = make_image(SIZES[ndim][0])
    model.train()
    assert not torch.equal(model(image), model(image))
    model.eval()
    assert torch.equal(model(image), model(image))


@each_architecture
@each_ndim
def test_state_round_trips(architecture, ndim, tmp_path):
    model = make_model(architecture, ndim)
    randomise_statistics(model)
    torch.save(model.state_dict(), tmp_path / "state.pth")
    torch.manual_seed(99)
    other = build_model(make_config(architecture), num_channels=2, num_logits=3, ndim=ndim)
    image = make_image(SIZES[ndim][0])
    assert not torch.equal(other.eval()(image), model.eval()(image))
    other.load_state_dict(torch.load(tmp_path / "state.pth", weights_only=True), strict=True)
    assert torch.equal(other(image), model(image))


@each_architecture
@each_ndim
@pytest.mark.parametrize("norm", NORMS)
def test_batch_elements_are_independent_in_evaluation(architecture, ndim, norm):
    model = make_model(architecture, ndim, normalization=norm).eval()
    image = make_image(SIZES[ndim][0])
    together, alone = model(image), torch.cat([model(image[:1]), model(image[1:])])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-5)


@each_architecture
@pytest.mark.parametrize("norm", NORMS)
def test_every_combination_of_keys_trains(architecture, norm):
    choices = itertools.product(("conv_norm_act", "norm_act_conv"), ("convtranspose", "upsampling"), (False, True), (2, 3))
    seen = 0
    for order, upsample, larger_io, ndim in choices:
        keys = {"normalization": norm, "conv_block_order": order, "upsample_layer": upsample, "larger_io": larger_io}
        model = make_model(architecture, ndim, feature_maps=(2, 3, 4), conv_layers=(1, 2, 1), **keys).train()
        image = make_image(SIZES[ndim][0])
        loss = model(image).square().mean()
        loss.backward()
        assert torch.isfinite(loss)
        assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in model.parameters())
        seen += 1
    assert seen == 16


@each_architecture
@pytest.mark.parametrize("activation", sorted(ACTIVATIONS))
def test_every_activation_trains(architecture, activation):
    model = make_model(architecture, 2, activation=activation, normalization="none", conv_block_order="norm_act_conv")
    logits = model(make_image((8, 8)))
    logits.square().mean().backward()
    assert torch.isfinite(logits).all()


@each_architecture
@each_ndim
def test_unfit_sizes_are_refused_with_the_nearest_ones(architecture, ndim):
    model = make_model(architecture, ndim)
    shape = (5, 12, 18)[-ndim:]
    with pytest.raises(ValueError, match="axis X has 18 voxels and must be a multiple of 4; nearest: 16 or 20") as error:
        model(make_image(shape))
    assert ("axis Z has 5 voxels and must be a multiple of 2; nearest: 4 or 6" in str(error.value)) == (ndim == 3)
    assert "axis Y" not in str(error.value)
    with pytest.raises(ValueError, match=f"a {ndim}D network takes"):
        model(torch.zeros(2, *shape))


def test_a_side_below_the_stride_has_one_nearest_size():
    with pytest.raises(ValueError, match=r"axis Y has 3 voxels and must be a multiple of 4; nearest: 4$"):
        make_model(UNet, 2)(make_image((3, 8)))


@each_architecture
@each_ndim
@pytest.mark.parametrize("upsample", ["convtranspose", "upsampling"])
@pytest.mark.parametrize("order", ["conv_norm_act", "norm_act_conv"])
def test_folded_batch_norm_gives_the_same_logits(architecture, ndim, upsample, order):
    keys = {"upsample_layer": upsample, "conv_block_order": order, "larger_io": True}
    model = make_model(architecture, ndim, **keys).train()
    randomise_statistics(model)
    folded = fold_batch_norm(model)
    image = make_image(SIZES[ndim][0])
    assert model.training
    assert not folded.training
    torch.testing.assert_close(folded(image), model.eval()(image), atol=1e-5, rtol=1e-5)
    units = [module for module in folded.modules() if isinstance(module, ConvUnit)]
    assert units
    assert all(isinstance(unit.norm, nn.Identity) for unit in units)


def test_folding_leaves_other_norms_alone():
    model = make_model(UNet, 2, normalization="in").eval()
    image = make_image((8, 8))
    assert torch.equal(fold_batch_norm(model)(image), model(image))


@each_architecture
def test_all_batch_norms_of_a_plain_network_fold(architecture):
    folded = fold_batch_norm(make_model(architecture, 2))
    left = [module for module in folded.modules() if isinstance(module, nn.BatchNorm2d)]
    # One in front of each residual block but the first: two more encoder levels and two decoder levels.
    assert len(left) == (4 if architecture is ResidualUNet else 0)


@each_architecture
@each_ndim
def test_channels_last_gives_the_same_logits(architecture, ndim):
    memory_format = torch.channels_last if ndim == 2 else torch.channels_last_3d
    model = make_model(architecture, ndim).eval()
    image = make_image(SIZES[ndim][0])
    expected = model(image)
    logits = model.to(memory_format=memory_format)(image.to(memory_format=memory_format))
    torch.testing.assert_close(logits, expected, atol=1e-5, rtol=1e-5)


@each_architecture
@each_ndim
@pytest.mark.parametrize("norm", ["bn", "none"])
def test_first_logits_are_of_order_one(architecture, ndim, norm):
    """Whatever the depth: a network that starts with logits in the tens starts with a loss in the tens."""
    keys = {"feature_maps": (16, 32, 64, 128), "yx_down": (2,), "z_down": (1,), "isotropy": (True,)}
    model = make_model(architecture, ndim, normalization=norm, **keys).train()
    with torch.no_grad():
        spread = model(make_image((8, 32, 32)[-ndim:])).std().item()
    assert 0.1 < spread < 3


@each_architecture
def test_networks_can_be_traced_symbolically(architecture):
    model = make_model(architecture, 2).eval()
    traced = torch.fx.symbolic_trace(model)
    image = make_image((8, 12))
    assert torch.equal(traced(image), model(image))


@pytest.mark.parametrize(
    ("architecture", "ndim", "parameters"),
    [
        (UNet, 2, 1_953_297),
        (UNet, 3, 5_688_913),
        (ResidualUNet, 2, 2_433_217),
        (ResidualUNet, 3, 6_734_593),
        (AttentionUNet, 2, 1_975_669),
        (AttentionUNet, 3, 5_711_285),
    ],
)
def test_parameter_counts_are_those_of_biapy(architecture, ndim, parameters):
    """BiaPy's default networks have the wider convolutions; so that its checkpoints fit, ours must have as many numbers."""
    config = make_config(
        architecture,
        feature_maps=(16, 32, 64, 128, 256),
        normalization="in",
        larger_io=True,
        z_down=(2,),
        yx_down=(2,),
        isotropy=(True,),
    )
    with torch.device("meta"):
        model = build_model(config, num_channels=1, num_logits=1, ndim=ndim)
    assert sum(p.numel() for p in model.parameters()) == parameters


def test_same_seed_same_weights_and_the_spread_is_that_of_he():
    first, second = (make_model(UNet, 2, feature_maps=(32, 64), z_down=(1,), yx_down=(2,), isotropy=(True,)) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    conv = first.encoder[0].block.units[1].conv
    assert conv.weight.std().item() == pytest.approx((2 / (32 * 9)) ** 0.5, rel=0.03)
    up = first.decoder[0].up.conv
    assert up.weight.std().item() == pytest.approx((2 / 64) ** 0.5, rel=0.03)
    assert not conv.bias.any()


def test_missing_keys_are_named():
    for key in ("normalization", "activation", "feature_maps", "yx_down", "dropout_values"):
        with pytest.raises(ValueError, match=f"MODEL.{key.upper()} is not filled in"):
            make_model(UNet, 2, **{key: None})


def test_norms_and_groups():
    assert build_norm("gn", 12, 2).num_groups == 6
    assert build_norm("gn", 32, 3).num_groups == 8
    assert build_norm("gn", 7, 3).num_groups == 7
    assert build_norm("ln", 12, 2).num_groups == 1
    assert build_norm("in", 4, 3).running_mean is None


@each_architecture
@each_ndim
@pytest.mark.parametrize("larger_io", [False, True])
def test_description_has_a_row_per_block(architecture, ndim, larger_io):
    config = make_config(architecture, larger_io=larger_io)
    model = make_model(architecture, ndim, larger_io=larger_io)
    shape = SIZES[ndim][0]
    rows = describe_model(model, config, input_shape=(2, *shape))
    names = ["encoder 1", "encoder 2", "bottleneck", "decoder 2", "decoder 1", "head"]
    assert [row.name for row in rows] == (["input", *names[:-1], "output", "head"] if larger_io else names)
    assert sum(row.parameters for row in rows) == sum(p.numel() for p in model.parameters())
    by_name = {row.name: row for row in rows}
    stride = network_stride(config, ndim)
    assert by_name["bottleneck"].shape == (8, *(side // step for side, step in zip(shape, stride, strict=True)))
    assert by_name["encoder 1"].shape == (4, *shape)
    assert by_name["head"].shape == (3, *shape)
    assert [by_name[name].level for name in names] == [0, 1, 2, 1, 0, 0]
    sides = "×".join("1333"[-ndim - 1 :][:ndim]) if ndim == 3 else "3×3"
    assert sides in by_name["encoder 1"].kind
    assert by_name["decoder 1"].side == "decoder"


def test_only_networks_of_the_family_are_described():
    with pytest.raises(TypeError, match="got Conv2d"):
        describe_model(nn.Conv2d(1, 1, 1), make_config(UNet), input_shape=(1, 8, 8))
