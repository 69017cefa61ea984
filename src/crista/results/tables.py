"""Tables of numbers: per test image, confusion matrix, and over the runs of a job."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from math import isnan
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crista.images.atomic import atomic_write
from crista.metrics import Estimate
from crista.results.run_folder import RunFolder

Cell = str | float | int
MEAN = "mean"
ESTIMATE_COLUMNS = ("measure", "of", "over", "value", "low", "high", "num_images")


def exact(value: Cell) -> str:
    """Floats with six decimals at least, none for NaN."""
    if isinstance(value, float):
        return "" if isnan(value) else f"{value:.6f}" if abs(value) >= 1e-3 or value == 0 else f"{value:.6g}"
    return str(value)


def write_rows(path: Path, rows: Sequence[Mapping[str, Cell]], show: Callable[[Any], str] = exact) -> None:
    """Write a CSV file; columns come in the order in which they first occur, cells that a row lacks are empty."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    write_table(path, columns, [[show(row[key]) if key in row else "" for key in columns] for row in rows])


def write_table(path: Path, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Write a CSV file, complete or not at all."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([columns, *rows])
    atomic_write(path, text.getvalue())


def write_test_metrics(path: Path, rows: Sequence[Mapping[str, Cell]], mean: Mapping[str, Cell]) -> None:
    """Write one row per image and the last row ``mean``.

    Each row has ``file`` and the metrics of that image; `mean` has the metrics only. Columns come in the order in which
    they first occur. A value that is not a number (a class without any pixel) stays empty.
    """
    write_rows(path, [*({"file": "", **row} for row in rows), {"file": MEAN, **mean}])


def read_mean(path: Path) -> dict[str, float]:
    """The ``mean`` row of a table of `write_test_metrics`, empty cells left out; empty if the file has none, or was changed so
    that it is no such table or holds no numbers."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:  # a spreadsheet puts a mark at the start
            lines = list(csv.DictReader(file))
        if not lines or lines[-1].get("file") != MEAN:
            return {}
        return {key: float(value) for key, value in lines[-1].items() if key != "file" and value}
    except (TypeError, ValueError, csv.Error):
        return {}


def write_confusion(path: Path, confusion: NDArray[np.int64], names: Sequence[str]) -> None:
    """Write a confusion matrix in voxels: a row per true class, a column per predicted class."""
    rows: list[dict[str, Cell]] = [
        {"truth": name, **{f"predicted {other}": int(count) for other, count in zip(names, counts, strict=True)}}
        for name, counts in zip(names, confusion, strict=True)
    ]
    write_rows(path, rows)


def write_estimates(path: Path, estimates: Mapping[str, Sequence[Estimate]]) -> None:
    """Write figures over a set of images: one row for each stage, measure, class and way to average.

    Columns: stage, measure, of, over, value, low and high (95 % interval; empty where there is none), num_images.
    """
    rows: list[dict[str, Cell]] = [
        {"stage": stage, **{name: getattr(figure, name) for name in ESTIMATE_COLUMNS}}
        for stage, found in estimates.items()
        for figure in found
    ]
    write_rows(path, rows)


def write_runs_table(folder: RunFolder) -> bool:
    """Collect the mean rows of all runs of the job into ``runs_summary.csv``; False if no run was measured.

    One row per run in the order of the run numbers, then ``mean`` and ``sd`` (sample standard deviation, n - 1; empty for
    a single run). Runs without measurement are left out; without any, nothing is written.
    """
    runs = {run_id: read_mean(path) for run_id, path in _iter_tables(folder)}
    runs = {run_id: values for run_id, values in sorted(runs.items()) if values}
    if not runs:
        return False
    columns = list(dict.fromkeys(key for values in runs.values() for key in values))
    rows: list[dict[str, Cell]] = [{"run_id": run_id, **values} for run_id, values in runs.items()]
    known = {key: [values[key] for values in runs.values() if key in values] for key in columns}
    rows.append({"run_id": MEAN, **{key: fmean(values) for key, values in known.items()}})
    rows.append({"run_id": "sd", **{key: stdev(values) for key, values in known.items() if len(values) > 1}})
    write_rows(folder.runs_summary, rows)
    return True


def _iter_tables(folder: RunFolder) -> list[tuple[int, Path]]:
    """(run number, table of test metrics) of every run of this job."""
    found = []
    for path in folder.all_results.iterdir() if folder.all_results.is_dir() else ():
        number = path.name.removeprefix(f"{folder.name}_")
        if path.name.startswith(f"{folder.name}_") and number.isdecimal():
            table = RunFolder(folder.result_dir, folder.name, int(number), folder.paths).test_results_metrics
            found += [(int(number), table)] if table.is_file() else []
    return found
