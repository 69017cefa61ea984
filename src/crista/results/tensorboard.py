"""Scalars for TensorBoard, one value per epoch."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from math import isfinite
from pathlib import Path


class ScalarLog:
    """Writes the metrics of each epoch to `folder`.

    Parameters
    ----------
    last_epoch :
        The epoch after which training goes on. TensorBoard forgets later values of an earlier start, so no step is
        shown twice.
    """

    def __init__(self, folder: Path, *, last_epoch: int = 0) -> None:
        from tensorboardX import SummaryWriter

        folder.mkdir(parents=True, exist_ok=True)
        if last_epoch == 0:
            for stale in folder.glob("events.out.tfevents.*"):
                with suppress(PermissionError):  # on Windows, while TensorBoard shows it
                    stale.unlink()
        purge_step = last_epoch + 1 if last_epoch else None
        # The name of an event file has seconds only; the suffix keeps a quick restart from overwriting the file before it.
        suffix = f".{last_epoch:06d}"
        self._writer = SummaryWriter(str(folder), purge_step=purge_step, flush_secs=20, filename_suffix=suffix)

    def write(self, epoch: int, metrics: Mapping[str, float]) -> None:
        """Add the values of `epoch`: ``val_iou`` becomes ``iou/validation``, ``loss`` becomes ``loss/training``."""
        for key, value in metrics.items():
            if key != "epoch" and isfinite(value):  # an IoU of a validation without foreground is not
                self._writer.add_scalar(tag(key), value, global_step=epoch)
        self._writer.flush()

    def close(self) -> None:
        """Finish the file."""
        self._writer.close()


SINGLE = ("lr", "seconds", "steps_per_second", "data_wait_percent")
"""Figures that belong to the run, not to training or validation data."""


def tag(key: str) -> str:
    """Name of a metric in TensorBoard; training and validation values of one metric share a group."""
    if key in SINGLE:
        return f"run/{key}"
    return f"{key.removeprefix('val_')}/validation" if key.startswith("val_") else f"{key}/training"
