"""The training log: one row per epoch in a CSV file that resuming never doubles."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

from crista.errors import DataError, Problem
from crista.results.tables import write_rows

Row = Mapping[str, float]
"""``epoch`` (from 1) and the metrics of that epoch."""


class TrainLog:
    """The rows of a run, on disk from the start and after every `append`.

    Parameters
    ----------
    path :
        The CSV file. What an earlier start has left in it, also of epochs that a kill undid, is replaced.
    rows :
        The epochs that are done already.
    """

    def __init__(self, path: Path, rows: Sequence[Row] = ()) -> None:
        self.path = path
        self.rows = list(rows)
        if rows:
            self.write()

    def append(self, epoch: int, metrics: Mapping[str, float]) -> None:
        """Add the row of `epoch`, in place of it and later ones after a training went back, and write the file."""
        self.rows = [*(row for row in self.rows if row["epoch"] < epoch), {"epoch": epoch, **metrics}]
        self.write()

    def write(self) -> None:
        """Write the file."""
        write_rows(self.path, self.rows, format_number)


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


def format_number(value: float) -> str:
    """Up to 8 digits; whole numbers without a point."""
    return f"{value:.8g}"
