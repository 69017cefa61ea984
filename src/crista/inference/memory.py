"""Memory: what prediction may use, and what the network takes per voxel of a tile, measured."""

from __future__ import annotations

from collections.abc import Callable
from math import ceil, log2
from pathlib import Path

import torch

from crista.config.model import Model
from crista.plan.allocator import give_back_free_memory
from crista.plan.machine import free_bytes, resident_bytes, status_bytes

PEAK_RESET = Path("/proc/self/clear_refs")

RESERVE = 256 * 2**20
"""Bytes for everything but the tiles: decoded chunks that are kept (128 MB), the block that is written, compression."""

USUAL_MEMORY = 1.5
"""GB of the whole process where TEST.MAX_MEMORY is left out."""

WHOLE_SHARE = 0.25
MOST_FOR_WHOLE = 4_000_000_000
"""Share of the free memory, and bytes, that an image in one piece may take where TEST.MAX_MEMORY is left out."""

LEAST_FOR_TILES = 64 * 2**20
"""Bytes for a tile even where nothing seems to be left: less would not finish in a lifetime."""

HELD_ANYWAY = 500_000_000
"""Bytes that Python, PyTorch and an engine hold once they work; what they hold before that differs from run to run."""

STEP = 100_000_000
"""Bytes for tiles are a multiple of this where there is more: two runs whose libraries take a few MB more or less cut alike."""

SHARE_OF_FREE = 0.8
"""Of the memory that the machine has to give, others need some too."""


def bytes_for_tiles(max_memory: float, num_processes: int = 1) -> int:
    """Bytes that the network may take for one tile, if the whole process is to stay within `max_memory` GB (10⁹ bytes).

    The limit is lowered to what the machine, its container and ``ulimit -v`` have to give; of `num_processes` that predict on
    it at once each gets its share, of which it holds HELD_ANYWAY (this process does already).
    """
    give_back_free_memory()
    share = int(free_bytes() * SHARE_OF_FREE) // num_processes - (HELD_ANYWAY if num_processes > 1 else 0)
    allowed = min(int(max_memory * 1e9) - max(HELD_ANYWAY, resident_bytes()), share)
    left = max(LEAST_FOR_TILES, allowed - RESERVE)
    return left // STEP * STEP or left


def bytes_for_whole_image(num_processes: int) -> int:
    """Bytes that the network may take for an image in one piece where no limit is set; `num_processes` predict at once."""
    return min(MOST_FOR_WHOLE, int(free_bytes() * min(WHOLE_SHARE, SHARE_OF_FREE / num_processes)))


def peak_bytes(work: Callable[[], object], device: torch.device) -> int | None:
    """Bytes that `work` took at its peak beyond what was held before; None where the system cannot tell."""
    if device.type == "cuda":
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        work()
        return torch.cuda.max_memory_allocated(device) - before
    try:
        give_back_free_memory()
        PEAK_RESET.write_text("5")  # sets the peak (VmHWM) back to what is held now, see proc(5)
    except OSError:
        return None
    before = resident_bytes()
    work()
    return max(0, status_bytes("VmHWM") - before)


def estimated_bytes_per_voxel(model: Model, num_channels: int, num_logits: int) -> int:
    """Bytes per voxel of a tile that the network takes at least.

    At full resolution the skip connection, the upsampled features, what they are joined to and the output of a convolution are
    held together: about ten times the channels of the first level in float32, beside the image and the scores.
    """
    channels = (model.feature_maps or (16,))[0]
    return 4 * (10 * channels + num_channels + 3 * num_logits)


def most_voxels_on_gpu(model: Model) -> int:
    """Voxels of a tile up to which 32 bits count the numbers of the largest layer, the skip connection joined to the upsampled
    features: PyTorch's convolutions on GPUs refuse more, or take far more memory for it."""
    return (2**31 - 1) // (2 * (model.feature_maps or (16,))[0])


def pipeline_bytes_per_voxel(num_channels: int, num_logits: int, ahead: int) -> int:
    """Bytes per voxel of the tiles that are read ahead, and of the scores that are not yet labels, `ahead` of each."""
    return 4 * ((ahead + 2) * num_channels + (ahead + 1) * num_logits)


def rounded_up(value: float) -> int:
    """The next power of √√2, so that two measurements that differ a little lead to the same tiles."""
    return ceil(2 ** (ceil(4 * log2(max(1.0, value))) / 4))
