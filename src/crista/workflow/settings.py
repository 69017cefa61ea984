"""Settings: NumPy and PyTorch as they come, whatever a notebook has set them to."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import numpy as np


@contextmanager
def as_they_come() -> Iterator[None]:
    """Inside, small numbers may vanish in a sum, gradients are computed, and new numbers have 32 bits and lie on the processor.

    crista counts on that. Users set it otherwise for the whole process (``numpy.seterr``, ``torch.set_grad_enabled``,
    ``torch.set_default_dtype``, ``torch.set_default_device``); outside it is as they want it.
    """
    torch: Any = sys.modules.get("torch")  # who has not imported it has set nothing
    with np.errstate(divide="warn", over="warn", under="ignore", invalid="warn"):
        if torch is None:
            yield
            return
        number, elsewhere = torch.get_default_dtype(), torch.get_default_device().type != "cpu"
        torch.set_default_dtype(torch.float32)
        try:
            with torch.inference_mode(mode=False), torch.enable_grad(), torch.device("cpu") if elsewhere else nullcontext():
                yield
        finally:
            torch.set_default_dtype(number)
