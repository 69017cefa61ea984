"""Rows of results as JSON lines, kept from one start to the next, and tables in Markdown."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable, Mapping, Sequence
from math import floor, log10
from pathlib import Path
from typing import Any

Row = Mapping[str, Any]


class Records:
    """The rows of one benchmark in a file; what is in it is not measured again."""

    def __init__(self, path: Path) -> None:
        self._path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        self.rows: list[Row] = read_rows(path)

    def find(self, **key: object) -> Row | None:
        """The row whose fields equal `key`, if there is one."""
        return next(iter(self.select(**key)), None)

    def select(self, **key: object) -> list[Row]:
        """All rows whose fields equal `key`."""
        return [row for row in self.rows if all(row.get(name) == value for name, value in key.items())]

    def add(self, row: Row) -> Row:
        """Keep a row, and print it."""
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        print(json.dumps(row), flush=True)
        self.rows.append(row)
        return row


def read_rows(path: Path) -> list[Row]:
    """Rows of a file; the last line is left out if a kill cut it, and the file is mended."""
    if not path.is_file():
        return []
    lines = path.read_text(encoding="utf-8").split("\n")
    if lines[-1]:
        path.write_text("".join(f"{line}\n" for line in lines[:-1]), encoding="utf-8")
    return [json.loads(line) for line in lines[:-1] if line]


def markdown_table(titles: Sequence[str], rows: Iterable[Sequence[object]], *, left: int = 1) -> str:
    """A table whose first `left` columns are text; None is an empty cell and `|` in a cell is escaped."""
    lines = ["| " + " | ".join(titles) + " |", "|" + "---|" * left + "---:|" * (len(titles) - left)]
    for row in rows:
        if len(row) != len(titles):
            raise ValueError(f"a row has {len(row)} cells, the table {len(titles)} columns: {row}")
        lines.append("| " + " | ".join("" if cell is None else str(cell).replace("|", "\\|") for cell in row) + " |")
    return "\n".join(lines) + "\n"


def spread(values: Sequence[float], digits: int = 3) -> str:
    """`median (smallest–largest)` to so many significant digits."""
    if not values:
        return ""
    middle, low, high = (significant(value, digits) for value in (statistics.median(values), min(values), max(values)))
    return middle if low == high else f"{middle} ({low}–{high})"


def significant(value: float, digits: int = 3) -> str:
    """A number with so many significant digits, without an exponent between 0.0001 and 100000."""
    if value == 0 or not 1e-4 <= abs(value) < 1e5:
        return f"{value:.{digits}g}"
    decimals = max(0, digits - 1 - floor(log10(abs(value))))
    return f"{value:.{decimals}f}"
