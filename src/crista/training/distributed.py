"""Distributed training: who this process is among those that torchrun started."""

from __future__ import annotations

import os
import shutil
import warnings
from dataclasses import dataclass
from datetime import timedelta

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import nn

from crista.errors import ConfigError, Problem, TrainingError

LONGEST_WAIT = timedelta(days=7)
"""One process may check data, draw or predict for hours while its peers wait (the default, 10 minutes with NCCL, would end
them); torchrun sees by itself when one dies."""


@dataclass(frozen=True)
class Processes:
    """This process and its peers."""

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0

    @property
    def is_main(self) -> bool:
        """Whether this process writes files and reports."""
        return self.rank == 0

    def barrier(self) -> None:
        """Wait for the peers."""
        if self.world_size > 1:
            dist.barrier()


def join_processes(device: torch.device) -> Processes:
    """Join the peers named by torchrun's environment (NCCL on GPUs where it is, else gloo); alone if there are none."""
    world_size = int(os.environ.get("WORLD_SIZE", "1"))
    if world_size == 1 or "RANK" not in os.environ:
        return Processes()
    # a first layer of one channel has the same strides in both layouts; it is a few numbers
    warnings.filterwarnings("ignore", message="Grad strides do not match bucket view strides")
    if not dist.is_initialized():
        nccl = device.type == "cuda" and dist.is_nccl_available()  # not on Windows
        dist.init_process_group("nccl" if nccl else "gloo", timeout=LONGEST_WAIT)
    return Processes(dist.get_rank(), dist.get_world_size(), int(os.environ.get("LOCAL_RANK", "0")))


def leave_processes() -> None:
    """Leave the process group, if this process joined one."""
    if dist.is_available() and dist.is_initialized():
        dist.destroy_process_group()


def sum_over_processes(values: NDArray[np.float64], processes: Processes, device: torch.device) -> NDArray[np.float64]:
    """The sum of `values` over all processes (no gradient)."""
    if processes.world_size == 1:
        return values
    tensor = torch.from_numpy(values).to(device)
    dist.all_reduce(tensor)
    summed: NDArray[np.float64] = tensor.cpu().numpy()
    return summed


def least_of_processes(value: int, processes: Processes, device: torch.device) -> int:
    """The smallest `value` of all processes."""
    if processes.world_size == 1:
        return value
    tensor = torch.tensor(value, device=device)
    dist.all_reduce(tensor, op=dist.ReduceOp.MIN)
    return int(tensor)


@torch.no_grad()
def share_buffers(model: nn.Module, processes: Processes) -> None:
    """Give the buffers of `model` in all processes the values of the first one.

    Batch norms that do not put the processes together have statistics of their own in each; weights are equal anyway.
    """
    if processes.world_size > 1:
        for buffer in model.buffers():
            dist.broadcast(buffer, src=0)


def text_of_first(text: str, processes: Processes, device: torch.device) -> str:
    """The `text` of the first process, in all of them."""
    if processes.world_size == 1:
        return text
    held = [text]
    dist.broadcast_object_list(held, src=0, device=device)
    return held[0]


def require_equal(own: str, what: str, processes: Processes, device: torch.device) -> None:
    """Raise TrainingError, in all processes, unless `own` is the same text in each; `what` says what they must have in common."""
    first = text_of_first(own, processes, device)
    if sum_over_processes(np.array([own != first], np.float64), processes, device)[0]:
        here = "another one does not" if own == first else f"this one has {own}"
        raise TrainingError(f"the processes of this training do not have the same {what}: the first one has {first}, {here}")


def choose_device(wanted: str | None) -> tuple[torch.device, str]:
    """The device for `wanted` (``cpu``, ``cuda``, ``cuda:1``, ``mps``; None: a GPU if there is one) and why, in one line.

    A GPU becomes the current one of this process: NCCL's barriers, and whatever asks for "the GPU", would else take the first.

    Raises
    ------
    ConfigError
        If the wanted device does not exist here.
    """
    device, why = _find_device(wanted)
    if device.type == "cuda" and device.index is not None:
        torch.cuda.set_device(device)
    return device, why


def _find_device(wanted: str | None) -> tuple[torch.device, str]:
    local = int(os.environ.get("LOCAL_RANK", "0"))
    if wanted is None:
        if torch.cuda.is_available():
            device = torch.device("cuda", local % torch.cuda.device_count())
            return device, f"device: {torch.cuda.get_device_name(device)} (use --gpu or SYSTEM.DEVICE to choose another)"
        if torch.backends.mps.is_available() and "LOCAL_RANK" not in os.environ:  # PyTorch cannot join processes on it
            return torch.device("mps"), "device: Apple GPU (use SYSTEM.DEVICE: cpu to choose the processor)"
        return torch.device("cpu"), f"device: CPU, {torch.get_num_threads()} threads ({_why_no_gpu()})"
    try:
        device = torch.device(wanted)
    except RuntimeError as error:
        raise _refusal(wanted, "is no device; it can be cpu, cuda, cuda:1 or mps") from error
    if device.type == "cuda" and "LOCAL_RANK" in os.environ:
        device = torch.device("cuda", local)  # torchrun: one GPU per process
    if device.type == "cuda" and (not torch.cuda.is_available() or (device.index or 0) >= torch.cuda.device_count()):
        found = torch.cuda.device_count() if torch.cuda.is_available() else 0
        raise _refusal(wanted, f"was asked for, but {found} GPUs can be used here")
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise _refusal(wanted, "was asked for, but there is no Apple GPU here")
    return device, f"device: {device}"


def _why_no_gpu() -> str:
    """That there is none, or that this PyTorch cannot use it: pip's usual one for Windows is built without support for GPUs."""
    if torch.version.cuda or torch.version.hip or shutil.which("nvidia-smi") is None:
        return "no GPU found"
    return "there is an NVIDIA driver, but this PyTorch was built without support for GPUs: see pytorch.org/get-started/locally"


def _refusal(wanted: str, what: str) -> ConfigError:
    step = "leave it (and --gpu) out to use what is there, or set SYSTEM.DEVICE: cpu"
    return ConfigError("with the device", [Problem("SYSTEM.DEVICE", f"{wanted} {what}", step)])
