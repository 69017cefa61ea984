"""Placement: a network on a device, in the memory layout that convolutions are fastest in."""

from __future__ import annotations

import re

import torch
from torch import nn

CPU = torch.device("cpu")


def memory_layout(ndim: int, device: torch.device = CPU) -> torch.memory_format:
    """Channels last, for 2D or 3D.

    Not on Apple's GPUs: in most versions of PyTorch the gradients of batch norms are wrong there for channels-last images
    (github.com/pytorch/pytorch/issues/175189), or computing them fails.
    """
    if device.type == "mps":
        return torch.contiguous_format
    return torch.channels_last if ndim == 2 else torch.channels_last_3d


def to_device(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """A batch on `device`, in a layout that is safe there. A GPU fetches page-locked memory while the processor goes on.

    Apple's GPUs are waited for: they may read memory that has been released by then (github.com/pytorch/pytorch/issues/189690).
    """
    if device.type == "mps":
        return tensor.contiguous().to(device)
    return tensor.to(device, non_blocking=device.type == "cuda")


def to_layout(model: nn.Module, device: torch.device, ndim: int) -> nn.Module:
    """`model` on `device`, its convolution weights in the layout of the device."""
    layout = memory_layout(ndim, device)
    model = model.to(device)
    for parameter in model.parameters():
        if parameter.ndim == ndim + 2:
            parameter.data = parameter.data.contiguous(memory_format=layout)
    return model


TURING_WITHOUT_TENSOR_CORES = re.compile(r"GTX 16\d\d|\bMX\d{3}\b|\bT(400|500|550|600|1000|1200|2000)\b")
"""GPUs of laptops and small workstations on which convolutions in float16 often give what is no number."""


def half_precision(device: torch.device) -> torch.dtype | None:
    """What mixed precision computes in on `device`: bfloat16 where a GPU has it, else float16 where it has tensor cores.

    None where it is no faster, or gives what is no number.
    """
    if device.type != "cuda":
        return None
    # Older GPUs (T4, V100, RTX 20) emulate bfloat16, slower than float32, and PyTorch counts that unless it is told not to.
    if torch.cuda.is_bf16_supported(including_emulation=False):
        return torch.bfloat16
    has_tensor_cores = torch.cuda.get_device_capability(device) >= (7, 0)
    return (
        torch.float16 if has_tensor_cores and not TURING_WITHOUT_TENSOR_CORES.search(torch.cuda.get_device_name(device)) else None
    )


def training_half_precision(device: torch.device) -> torch.dtype | None:
    """The same for training: also bfloat16 on a processor with instructions for it (AVX512-BF16; all with AMX have them too).

    There a step takes 0.56 to 0.58 of the time of one in float32, measured on a U-Net in 2D and in 3D; without the
    instructions it takes longer.
    """
    if device.type == "cpu":
        has_instructions = getattr(torch.cpu, "_is_avx512_bf16_supported", None)  # PyTorch has no public name for it
        return torch.bfloat16 if has_instructions is not None and has_instructions() else None
    return half_precision(device)
