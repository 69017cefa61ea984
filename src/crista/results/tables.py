"""Tables of numbers: per test image, confusion matrix, and over the runs of a job."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from math import isnan
from pathlib import Path
from statistics import fmean, stdev

import numpy as np
from numpy.typing import NDArray

from crista.images.atomic import atomic_write
from crista.metrics import Estimate
from crista.results.run_folder import RunFolder

Cell = str | float | int
MEAN = "mean"
ESTIMATE_COLUMNS = ("measure", "of", "over", "value", "low", "high", "num_images")


def write_test_metrics(path: Path, rows: Sequence[Mapping[str, Cell]], mean: Mapping[str, Cell]) -> None:
    """Write one row per image and the last row ``mean``.

    Each row has ``file`` and the metrics of that image; `mean` has the metrics only. Columns come in the order in which
    they first occur. A value that is not a number (a class without any pixel) stays empty.
    """
    atomic_write(path, _render([*({"file": "", **row} for row in rows), {"file": MEAN, **mean}]))


def read_mean(path: Path) -> dict[str, float]:
    """The ``mean`` row of a table of `write_test_metrics`, empty cells left out; empty if the file has none."""
    with path.open(newline="", encoding="utf-8") as file:
        lines = list(csv.DictReader(file))
    if not lines or lines[-1].get("file") != MEAN:
        return {}
    return {key: float(value) for key, value in lines[-1].items() if key != "file" and value}


def write_confusion(path: Path, confusion: NDArray[np.int64], names: Sequence[str]) -> None:
    """Write a confusion matrix in voxels: a row per true class, a column per predicted class."""
    rows: list[dict[str, Cell]] = [
        {"truth": name, **{f"predicted {other}": int(count) for other, count in zip(names, counts, strict=True)}}
        for name, counts in zip(names, confusion, strict=True)
    ]
    atomic_write(path, _render(rows))


def write_estimates(path: Path, estimates: Mapping[str, Sequence[Estimate]]) -> None:
    """Write figures over a set of images: one row for each stage, measure, class and way to average.

    Columns: stage, measure, of, over, value, low and high (95 % interval; empty where there is none), num_images.
    """
    rows: list[dict[str, Cell]] = [
        {"stage": stage, **{name: getattr(figure, name) for name in ESTIMATE_COLUMNS}}
        for stage, found in estimates.items()
        for figure in found
    ]
    atomic_write(path, _render(rows))


def write_label_next(path: Path, rows: Sequence[Mapping[str, Cell]]) -> None:
    """Write the regions to label next, the most uncertain first (see `crista.results.ranking.label_next_rows`)."""
    atomic_write(path, _render(rows))


def write_runs_table(folder: RunFolder) -> str:
    """Collect the mean rows of all runs of the job into ``runs_summary.csv``; returns the table as text.

    One row per run in the order of the run numbers, then ``mean`` and ``sd`` (sample standard deviation, n - 1; empty for
    a single run). Runs without measurement are left out; without any, nothing is written and the text is empty.
    """
    runs = {run_id: read_mean(path) for run_id, path in _iter_tables(folder)}
    runs = {run_id: values for run_id, values in sorted(runs.items()) if values}
    if not runs:
        return ""
    columns = list(dict.fromkeys(key for values in runs.values() for key in values))
    rows: list[dict[str, Cell]] = [{"run_id": run_id, **values} for run_id, values in runs.items()]
    known = {key: [values[key] for values in runs.values() if key in values] for key in columns}
    rows.append({"run_id": MEAN, **{key: fmean(values) for key, values in known.items()}})
    rows.append({"run_id": "sd", **{key: stdev(values) for key, values in known.items() if len(values) > 1}})
    atomic_write(folder.runs_summary, _render(rows))
    return render_text(rows)


def _iter_tables(folder: RunFolder) -> list[tuple[int, Path]]:
    """(run number, table of test metrics) of every run of this job."""
    found = []
    for path in folder.all_results.iterdir() if folder.all_results.is_dir() else ():
        number = path.name.removeprefix(f"{folder.name}_")
        if path.name.startswith(f"{folder.name}_") and number.isdecimal():
            table = RunFolder(folder.result_dir, folder.name, int(number), folder.paths).test_results_metrics
            found += [(int(number), table)] if table.is_file() else []
    return found


def render_text(rows: Sequence[Mapping[str, Cell]]) -> str:
    """A table for the terminal: columns aligned, four decimals."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    lines = [columns] + [[_text(row.get(key, "")) for key in columns] for row in rows]
    widths = [max(len(line[i]) for line in lines) for i in range(len(columns))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if i == 0 else cell.rjust(width) for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def _text(value: Cell) -> str:
    if isinstance(value, float):
        return "" if isnan(value) else f"{value:.4f}"
    return str(value)


def _render(rows: Sequence[Mapping[str, Cell]]) -> str:
    columns = list(dict.fromkeys(key for row in rows for key in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n", restval="")
    writer.writeheader()
    writer.writerows({key: _exact(value) for key, value in row.items()} for row in rows)
    return text.getvalue()


def _exact(value: Cell) -> str:
    """Floats with six decimals at least, none for NaN."""
    if isinstance(value, float):
        return "" if isnan(value) else f"{value:.6f}" if abs(value) >= 1e-3 or value == 0 else f"{value:.6g}"
    return str(value)
