"""What Dask does first in each worker process of this machine."""

from __future__ import annotations

import signal


def dask_setup(worker: object) -> None:
    """Ctrl-C is for the process that the user started, which then ends its workers in order (Dask calls this by its name)."""
    del worker
    signal.signal(signal.SIGINT, signal.SIG_IGN)
