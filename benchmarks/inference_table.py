"""Tables of the prediction benchmark, made from its rows alone."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from math import prod
from pathlib import Path

from measuring.records import Records, Row, markdown_table, significant, spread

CRISTA = "crista"
ENGINE_NAMES = {"openvino-int8": "openvino int8"}
"""Names of crista that are others in the rows of `roofline.py`."""


def write_tables(records: Records, path: Path) -> None:
    """All tables in one Markdown file."""
    parts = []
    for job in dict.fromkeys(row["job"] for row in records.rows):
        speeds = {name: rows for name in tools_of(records, job) if (rows := records.select(kind="speed", job=job, tool=name))}
        if not speeds:
            continue
        parts += [f"## Prediction, {job}\n", speed_table(speeds), absent_lines(records, job)]
        parts += ["How many times longer than each way to run crista (median, smallest and largest of the repetitions):\n"]
        parts += [ratio_table(speeds, "per_image"), "The same of processor seconds:\n", ratio_table(speeds, "cpu_per_image")]
        parts += [efficiency_table(speeds, records.select(kind="ceiling", job=job))]
        parts += [profile_table(row) for row in records.select(kind="profile", job=job)]
    path.write_text("\n".join(part for part in parts if part), encoding="utf-8")


def tools_of(records: Records, job: str) -> list[str]:
    """Tools in the order in which they first ran."""
    return list(dict.fromkeys(row["tool"] for row in records.select(job=job) if "tool" in row))


def column(rows: Sequence[Row], name: str) -> list[float]:
    """One figure of every row that has it."""
    return [row[name] for row in rows if name in row]


def speed_table(speeds: dict[str, list[Row]]) -> str:
    """Seconds, memory and quality of every tool."""
    titles = ["tool", "runs", "images", "s per image", "Mvoxel/s", "start-up s", "CPU s per image", "engine", "peak MB"]
    titles += ["all processes MB", "IoU", "differs from eager %"]
    rows = []
    for name, measured in speeds.items():
        rates = [row["voxels"] / row["per_image"] / 1e6 for row in measured]
        differs = column(measured, "differs")
        rows.append(
            [
                name,
                len(measured),
                measured[-1]["images"],
                spread(column(measured, "per_image")),
                spread(rates),
                significant(statistics.median(column(measured, "startup")), 2),
                spread(column(measured, "cpu_per_image")),
                measured[-1].get("engine"),
                f"{max(column(measured, 'peak_process')) / 2**20:.0f}",
                f"{max(column(measured, 'peak_tree')) / 2**20:.0f}",
                f"{measured[-1]['iou']:.4f}",
                f"{max(differs):.4f}" if differs else None,
            ]
        )
    return markdown_table(titles, rows)


def absent_lines(records: Records, job: str) -> str:
    """Tools that could not be had, with their own words."""
    absent = records.select(kind="count", job=job, images=0)
    return "".join(f"Not there: {row['tool']} ({row['reason']})\n" for row in absent)


def ratio_table(speeds: dict[str, list[Row]], figure: str) -> str:
    """A figure of each tool over that of each way to run crista, of the same repetition."""
    ours = [name for name in speeds if name.startswith(CRISTA)]
    rows = []
    for name, measured in speeds.items():
        cells: list[object] = [name]
        for own in ours:
            base = {row["repetition"]: row[figure] for row in speeds[own]}
            cells.append(spread([row[figure] / base[row["repetition"]] for row in measured if row["repetition"] in base]))
        rows.append(cells)
    return markdown_table(["tool", *ours], rows)


def efficiency_table(speeds: dict[str, list[Row]], ceilings: list[Row]) -> str:
    """Roofline: the engine against the matrix product of the same minute, the command against its engine, and why.

    Kernel: GFLOP/s of the engine alone over those of the matrix product. Tiling: voxels of the image per voxel through the
    network. Pipeline: seconds in the network over seconds of the command. Of the engine alone: voxels per second of the whole
    command over those of the engine alone on the shape that suits it best; where that is the tile, tiling x pipeline.
    """
    if not ceilings:
        return ""
    titles = ["tool", "engine alone GFLOP/s", "kernel", "tiling", "pipeline", "whole command GFLOP/s", "of the engine alone"]
    rows = []
    for name, measured in speeds.items():
        alone, kernel, ratios = [], [], []
        for row in measured:
            ceiling = next((c for c in ceilings if c["repetition"] == row["repetition"]), None)
            best = engine_rate(ceiling, engine_of(row)) if ceiling else None
            if ceiling and best:
                alone.append(best * flops_per_voxel(ceiling) / 1e9)
                kernel.append(alone[-1] / max(ceiling["gemm"], ceiling["gemm_after"]))
                ratios.append(row["voxels"] / row["per_image"] / best)
        tiling = [1 / factor for row in measured if (factor := work_factor(row))]
        pipeline = [row["network_per_image"] / row["per_image"] for row in measured if "network_per_image" in row]
        useful = [row["voxels"] / row["per_image"] * flops_per_voxel(ceilings[0]) / 1e9 for row in measured]
        shares = [percent(kernel), percent(tiling), percent(pipeline)]
        rows.append([name, spread(alone), *shares, spread(useful), percent(ratios)])
    machine = (
        f"Matrix product {spread(column(ceilings, 'gemm'))} GFLOP/s, triad {spread(column(ceilings, 'triad'))} GB/s; the network "
        f"takes {flops_per_voxel(ceilings[0]) / 1e3:.1f} kFLOP per voxel.\n\n"
    )
    return machine + markdown_table(titles, rows) + "\n" + engines_table(ceilings)


def work_factor(row: Row) -> float | None:
    """Voxels through the network per voxel of the image, where the tool counted them."""
    if "work_factor" in row:
        return float(row["work_factor"])
    return float(row["network_voxels"] / row["voxels"]) if "network_voxels" in row else None


def engine_of(row: Row) -> str:
    """The engine alone that belongs to a row: what crista said that it ran; eager for the peers."""
    if row["tool"].startswith(CRISTA):
        said = row.get("engine", "torch")
        return ENGINE_NAMES.get(said, said)
    return "eager"


def engines_table(ceilings: list[Row]) -> str:
    """Seconds of one pass of each engine alone."""
    titles = ["engine alone", *("x".join(map(str, shape["shape"][2:])) + ", ms" for shape in ceilings[0]["shapes"])]
    rows = []
    for engine in ceilings[0]["shapes"][0]["engines"]:
        taken = [[1000 * c["shapes"][i]["engines"][engine]["median"] for c in ceilings] for i in range(len(titles) - 1)]
        rows.append([engine, *(spread(values) for values in taken)])
    return markdown_table(titles, rows)


def engine_rate(ceiling: Row, engine: str) -> float | None:
    """Voxels per second of an engine alone, on the shape that suits it best; None if it was not measured."""
    rates = [prod(s["shape"]) / s["engines"][engine]["best"] for s in ceiling["shapes"] if engine in s["engines"]]
    return max(rates, default=None)


def flops_per_voxel(ceiling: Row) -> float:
    """Arithmetic of the network per voxel of the image."""
    shape = ceiling["shapes"][0]
    return float(shape["flops"] / prod(shape["shape"]))


def percent(values: Sequence[float]) -> str:
    """A median share in %, with the range."""
    return f"{spread([100 * value for value in values], 2)} %" if values else ""


def profile_table(row: Row) -> str:
    """Where BiaPy's test phase spends its time, per image; parts within parts count in both."""
    count = row["images"]
    whole = row["seconds"].get("test", row["whole"])
    rows = [
        [name, row["calls"].get(name), significant(seconds / count), f"{100 * seconds / whole:.1f} %"]
        for name, seconds in sorted(row["seconds"].items(), key=lambda item: -item[1])
    ]
    head = f"BiaPy's test phase from inside, {count} images, {row.get('flops_per_voxel', 0) / 1e3:.1f} kFLOP per voxel:\n\n"
    return head + markdown_table(["part", "calls", "s per image", "of the test phase"], rows)
