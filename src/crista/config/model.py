"""MODEL: the network. One class per architecture; the registry of networks is keyed by them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, model_validator

from crista.config.base import Section

Activation = Literal["relu", "elu", "leaky_relu", "gelu", "silu", "tanh", "sigmoid", "softmax", "linear", "none"]
NormalizationLayer = Literal["bn", "sync_bn", "in", "gn", "ln", "none"]
LEFT_OUT = "architecture left out"
"""Stands among the given keys of a network whose name was not."""
Factor = Annotated[int, Field(ge=0, le=8)]


class UNetFamily(Section):
    """Keys of the U-Net family."""

    feature_maps: tuple[Annotated[int, Field(ge=1)], ...] | None = None
    """Channels per level, the last is the bottleneck. Left out: decided from the data."""

    dropout_values: tuple[Annotated[float, Field(ge=0, le=1)], ...] | None = None
    """Dropout probability per level. Left out: none."""

    normalization: NormalizationLayer | None = None
    """Normalisation layer: batch (`bn`), batch over all processes (`sync_bn`), instance (`in`), group (`gn`, at most 8 groups),
    layer (`ln`, one group), or none. Left out: decided."""

    activation: Activation | None = None
    """Activation after each normalisation. Left out: decided."""

    kernel_size: Annotated[int, Field(ge=1, le=7)] = 3
    """Convolution kernel, odd."""

    upsample_layer: Literal["convtranspose", "upsampling"] = "convtranspose"
    """Learned transposed convolution, or linear interpolation followed by a 1×1 convolution."""

    z_down: tuple[Factor, ...] | None = None
    """Pooling along z per level, usually 1 or 2 (3D); 0 leaves a level open. Left out: decided from the voxel size and the
    patch."""

    yx_down: tuple[Factor, ...] | None = None
    """Pooling along y and x per level, usually 1 or 2; 0 leaves a level open. Left out: 2 at each level."""

    isotropy: tuple[bool, ...] | None = None
    """False at a level: its kernels have depth 1 in z (3D). Left out: decided."""

    conv_layers: tuple[Annotated[int, Field(ge=1)], ...] = (2,)
    """Convolutions per block and level; one value serves all levels."""

    conv_block_order: Literal["conv_norm_act", "norm_act_conv"] = "conv_norm_act"
    """Order of the layers in a block."""

    larger_io: bool = False
    """An extra convolution at the input and the output, with a kernel wider by 2 than KERNEL_SIZE."""

    load_checkpoint: bool = False
    """Start from a checkpoint (PATHS.CHECKPOINT_FILE, or this run's own): its network, patch and normalisation where these
    keys are left out, any classes and channels. Without training the checkpoint is loaded in any case."""

    load_checkpoint_epoch: Literal["best_on_val", "last_on_train"] = "best_on_val"
    """Which of this run's own checkpoints is loaded when PATHS.CHECKPOINT_FILE is empty."""

    skip_unmatched_layers: bool = False
    """Load the layers whose name and shape fit, and list the others. Other classes or channels than the checkpoint's need
    no such key."""

    @property
    def architecture_given(self) -> bool:
        """Whether the request names the network; it is the default otherwise."""
        return LEFT_OUT not in self.model_fields_set

    @model_validator(mode="after")
    def _name_the_network(self) -> UNetFamily:
        # `ResidualUNet()` in Python sets no key, and dumped without its name it would come back as the default network
        if "architecture" not in self.model_fields_set:
            self.model_fields_set.update(("architecture", *([LEFT_OUT] if isinstance(self, UNet) else [])))
        return self

    @model_validator(mode="after")
    def _check_levels(self) -> UNetFamily:
        if self.kernel_size % 2 == 0:
            raise ValueError(f"KERNEL_SIZE {self.kernel_size} must be odd, e.g. 3")
        if self.feature_maps is None:
            return self
        levels = len(self.feature_maps)
        if levels < 2:
            raise ValueError(f"FEATURE_MAPS {list(self.feature_maps)} needs at least two levels")
        for key, values, wanted in (
            ("DROPOUT_VALUES", self.dropout_values, levels),
            ("Z_DOWN", self.z_down, levels - 1),
            ("YX_DOWN", self.yx_down, levels - 1),
            ("ISOTROPY", self.isotropy, levels),
            ("CONV_LAYERS", self.conv_layers, levels),
        ):
            uniform = values is not None and len(set(values)) == 1
            if values is not None and not uniform and len(values) != wanted:
                raise ValueError(f"{key} has {len(values)} values; with {levels} FEATURE_MAPS it takes {wanted} (or one for all)")
        return self


class UNet(UNetFamily):
    """Plain U-Net (Ronneberger et al. 2015, doi:10.1007/978-3-319-24574-4_28)."""

    architecture: Literal["unet"] = "unet"
    """The network."""


class ResidualUNet(UNetFamily):
    """U-Net of pre-activated residual blocks (Zhang et al. 2018, doi:10.1109/LGRS.2018.2802944)."""

    architecture: Literal["resunet"] = "resunet"
    """The network."""


class AttentionUNet(UNetFamily):
    """U-Net with attention gates on the skip connections (Oktay et al. 2018, arXiv:1804.03999)."""

    architecture: Literal["attention_unet"] = "attention_unet"
    """The network."""


ARCHITECTURES = ("unet", "resunet", "attention_unet")


def _architecture(values: Any) -> str:
    if isinstance(values, dict):
        name = values.get("ARCHITECTURE", values.get("architecture", "unet"))
        return str(name[0] if isinstance(name, list | tuple) and len(name) == 1 else name)
    return str(getattr(values, "architecture", "unet"))


Model = Annotated[
    Annotated[UNet, Tag("unet")] | Annotated[ResidualUNet, Tag("resunet")] | Annotated[AttentionUNet, Tag("attention_unet")],
    Discriminator(_architecture),
]
