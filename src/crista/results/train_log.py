"""The training log: one row per epoch in a CSV file that resuming never doubles."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path

from crista.errors import DataError, Problem
from crista.images.atomic import atomic_write

Row = Mapping[str, float]
"""``epoch`` (from 1) and the metrics of that epoch."""


class TrainLog:
    """The rows of a run, on disk after every `append`.

    Parameters
    ----------
    path :
        The CSV file; rows of an earlier start are read from it.
    last_epoch :
        The epoch after which training goes on: later rows, of epochs that a kill undid, are dropped. 0: a new start.
    """

    def __init__(self, path: Path, *, last_epoch: int = 0) -> None:
        self.path = path
        earlier = read_train_log(path) if last_epoch > 0 and path.exists() else []
        self.rows: list[dict[str, float]] = [row for row in earlier if row["epoch"] <= last_epoch]

    def append(self, epoch: int, metrics: Mapping[str, float]) -> None:
        """Add the row of `epoch` (replacing one of the same epoch) and write the file."""
        self.rows = [row for row in self.rows if row["epoch"] != epoch]
        self.rows.append({"epoch": epoch, **metrics})
        atomic_write(self.path, _render(self.rows))


def read_train_log(path: Path) -> list[dict[str, float]]:
    """The rows of a training log; a cell without a value is left out of its row.

    Raises
    ------
    DataError
        If the file is no training log.
    """
    with path.open(newline="", encoding="utf-8") as file:
        lines = list(csv.DictReader(file))
    rows = []
    for number, line in enumerate(lines, 2):
        try:
            row = {key: float(value) for key, value in line.items() if value}
            row["epoch"] = int(row["epoch"])
        except (KeyError, TypeError, ValueError) as error:
            what = f"is no row of a training log ({error}); each has numbers and an epoch"
            advice = "restore the file, or delete it: training goes on and starts a new log"
            raise DataError("with the training log", [Problem(f"{path} line {number}", what, advice)]) from error
        rows.append(row)
    return rows


def _render(rows: Sequence[Row]) -> str:
    columns = list(dict.fromkeys(key for row in rows for key in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n", restval="")
    writer.writeheader()
    writer.writerows({key: format_number(value) for key, value in row.items()} for row in rows)
    return text.getvalue()


def format_number(value: float) -> str:
    """Up to 8 digits; whole numbers without a point."""
    return f"{value:.8g}"
