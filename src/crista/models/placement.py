"""Placement: a network on a device, in the memory layout that convolutions are fastest in."""

from __future__ import annotations

import torch
from torch import nn


def memory_layout(ndim: int) -> torch.memory_format:
    """Channels last, for 2D or 3D."""
    return torch.channels_last if ndim == 2 else torch.channels_last_3d


def to_layout(model: nn.Module, device: torch.device, ndim: int) -> nn.Module:
    """`model` on `device`, its convolution weights channels-last."""
    layout = memory_layout(ndim)
    model = model.to(device)
    for parameter in model.parameters():
        if parameter.ndim == ndim + 2:
            parameter.data = parameter.data.contiguous(memory_format=layout)
    return model


def half_precision(device: torch.device) -> torch.dtype | None:
    """What mixed precision computes in on `device`: bfloat16 where a GPU has it, else float16; None where it is no faster."""
    if device.type != "cuda":
        return None
    # Older GPUs (T4, V100, RTX 20) emulate bfloat16, slower than float32, and PyTorch counts that unless it is told not to.
    return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16


def training_half_precision(device: torch.device) -> torch.dtype | None:
    """The same for training: also bfloat16 on a processor with instructions for it (AVX512-BF16; all with AMX have them too).

    There a step takes 0.56 to 0.58 of the time of one in float32, measured on a U-Net in 2D and in 3D; without the
    instructions it takes longer.
    """
    if device.type == "cpu":
        has_instructions = getattr(torch.cpu, "_is_avx512_bf16_supported", None)  # PyTorch has no public name for it
        return torch.bfloat16 if has_instructions is not None and has_instructions() else None
    return half_precision(device)
