"""Settings: NumPy and PyTorch as they come, whatever a notebook has set them to."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np


@contextmanager
def as_they_come() -> Iterator[None]:
    """Inside, small numbers may vanish in a sum, gradients are computed and new numbers have 32 bits, as crista counts on.

    Users turn all of that off for the whole process (``numpy.seterr``, ``torch.set_grad_enabled``, ``torch.set_default_dtype``);
    outside it is as they want it.
    """
    torch: Any = sys.modules.get("torch")  # who has not imported it has set nothing
    with np.errstate(divide="warn", over="warn", under="ignore", invalid="warn"):
        if torch is None:
            yield
            return
        number = torch.get_default_dtype()
        torch.set_default_dtype(torch.float32)
        try:
            with torch.inference_mode(mode=False), torch.enable_grad():
                yield
        finally:
            torch.set_default_dtype(number)
