"""Prediction of volumes of 1, 4 and 16 GB: does the memory stay the same, and the speed per voxel?

    python benchmarks/fixed_memory.py --out OUT [--sizes 1 4 16] [--limited 16] [--biapy ENV/bin/biapy]

A synthetic OME-Zarr (uint16, chunks of 128 voxels, blobs and noise) of each size is written chunk by chunk, a very small 3D
network is trained on pieces of it, and `crista predict` writes the labels of each volume. Recorded: the largest resident set
of any process (VmHWM), the largest sums over the process tree, sampled every 0.1 s (all resident pages, and the anonymous
ones alone), voxels per second without start-up (that of a volume of one chunk is subtracted), and the IoU of some blocks of
the result, since a wrong volume is made quickly too.

The volume of `--limited` GB is then predicted under hard limits of 2 GB: of a control group (memory with page cache) where the
machine allows one, and of the address space (`ulimit -v`). BiaPy predicts the smallest one by chunks, with its own network of
the same layers.
"""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from measuring.limits import group_peak, join_group, limit_address_space, memory_group
from measuring.process import Usage, measure, require, stop_in_order
from measuring.records import Records, Row, markdown_table, significant
from measuring.tools import CRISTA
from measuring.volume import CHUNK, iter_chunks, true_labels, write_training_set, write_volume

CONFIG = Path(__file__).parent / "configs" / "volume.yaml"
LIMIT = 2 * 2**30
ALLOWED_PEAK = 1.5 * 2**30
ALLOWED_SPREAD = 0.05
SHAPES = {0: (CHUNK,) * 3, 1: (512, 1024, 1024), 4: (1024, 1024, 2048), 16: (2048, 2048, 2048)}
"""Voxels (z, y, x) by GB (2**30 bytes) of uint16; 0 is one chunk, for the start-up."""
PROBED_BLOCKS = 8


@dataclass(frozen=True)
class Bench:
    """Where everything is."""

    out: Path
    records: Records
    keep: bool
    """Leave results and volumes on disk."""

    def volume(self, size: int) -> Path:
        """The volume of so many GB, written if need be."""
        return write_volume(self.out / f"volume_{size}.ome.zarr", SHAPES[size])

    @property
    def checkpoint(self) -> Path:
        """The small network."""
        return self.out / "crista/small/checkpoints/small_1-checkpoint-best.pth"


def train_small(bench: Bench, command: list[str], env: dict[str, str] | None = None) -> None:
    """Train the small network with crista, or with another tool of the same dialect."""
    data = write_training_set(bench.out / "pieces", (64, 128, 128), 4)
    config = bench.out / "volume.yaml"
    config.write_text(CONFIG.read_text().replace("/path/to/data", str(data)))
    log = bench.out / f"train_{Path(command[0]).name}.log"
    tool = "biapy" if env is not None else "crista"
    names = ["--result_dir", str(bench.out / tool), "--name", "small", "--run_id", "1"]
    require(measure([*command, "--config", str(config), *names], log, env=env), log, "the training of the small network")


def predict(bench: Bench, size: int, limit: Callable[[list[str]], list[str]] = lambda command: command) -> Usage:
    """`crista predict` of one volume, anew, perhaps under a limit."""
    results = bench.out / "results"
    shutil.rmtree(results, ignore_errors=True)
    names = ["--result_dir", str(results), "--name", "volume"]
    command = [*CRISTA, "predict", str(bench.checkpoint), str(bench.volume(size)), *names]
    return measure(limit(command), log_of(bench, size))


def log_of(bench: Bench, size: int) -> Path:
    """What crista said last about a volume."""
    return bench.out / f"predict_{size}.log"


def measure_size(bench: Bench, size: int) -> None:
    """One volume without a limit."""
    if bench.records.find(kind="free", size=size) is not None:
        return
    usage = require(predict(bench, size), log_of(bench, size), f"the prediction of {size} GB")
    bench.records.add({"kind": "free", "size": size, **usage.as_row(), **probe_labels(bench, size)})


def measure_limited(bench: Bench, size: int) -> None:
    """One volume under each limit that the machine knows."""
    if bench.records.find(kind="ulimit -v", size=size) is None:
        usage = predict(bench, size, lambda command: limit_address_space(command, LIMIT))
        bench.records.add({"kind": "ulimit -v", "size": size, **usage.as_row(), **outcome(bench, size, usage)})
    if bench.records.find(kind="control group", size=size) is None:
        with memory_group(LIMIT) as group:
            if group is None:
                bench.records.add({"kind": "control group", "size": size, "code": None, "said": "not allowed on this machine"})
                return
            usage = predict(bench, size, lambda command: join_group(command, group))
            held = {"group_peak": group_peak(group)}
        bench.records.add({"kind": "control group", "size": size, **usage.as_row(), **held, **outcome(bench, size, usage)})


def outcome(bench: Bench, size: int, usage: Usage) -> dict[str, Any]:
    """The quality of a result, or the last line of a failure."""
    if usage.code == 0:
        return probe_labels(bench, size)
    return {"said": "".join(log_of(bench, size).read_text(errors="replace").strip().splitlines()[-1:])}


def probe_labels(bench: Bench, size: int) -> dict[str, Any]:
    """IoU of some blocks, spread over the volume, and the format of the result."""
    path, labels = open_labels(bench.out / "results/volume/results/volume_1/per_image_binarized")
    assert labels.shape == SHAPES[size], f"{path} has shape {labels.shape}"
    blocks = list(iter_chunks(SHAPES[size]))
    both = either = 0
    for region in blocks[:: max(1, len(blocks) // PROBED_BLOCKS)]:
        true, predicted = true_labels(region) > 0, np.asarray(labels[region]) > 0
        both, either = both + int((true & predicted).sum()), either + int((true | predicted).sum())
    if not bench.keep:
        shutil.rmtree(bench.out / "results")
    return {"iou": both / either, "output": "".join(path.suffixes)}


def open_labels(folder: Path) -> tuple[Path, Any]:
    """The label volume in a folder of results, Zarr or TIFF, without reading it."""
    import tifffile
    import zarr

    path = next(path for path in sorted(folder.iterdir()) if not path.name.startswith("."))
    if path.suffix in (".tif", ".tiff"):
        return path, zarr.open(tifffile.imread(path, aszarr=True), mode="r")
    found = zarr.open(path, mode="r")
    return path, found if isinstance(found, zarr.Array) else found["0"]


def measure_biapy(bench: Bench, size: int, biapy: Path) -> None:
    """BiaPy by chunks on one volume; it gets the array itself, since it knows no OME-Zarr groups."""
    if bench.records.find(kind="BiaPy", size=size) is not None:
        return
    train_small(bench, [str(biapy)], {"PYTHONPATH": ""})
    folder = bench.out / f"array_{size}"
    folder.mkdir(exist_ok=True)
    array = folder / "volume.zarr"
    array.unlink(missing_ok=True)
    array.symlink_to(bench.volume(size).resolve() / "0")
    config, results, log = bench.out / "biapy_chunks.yaml", bench.out / "biapy_results", bench.out / "biapy_chunks.log"
    shutil.rmtree(results, ignore_errors=True)
    config.write_text(biapy_config(bench, folder))
    names = ["--result_dir", str(results), "--name", "volume", "--run_id", "1"]
    usage = measure([str(biapy), "--config", str(config), *names], log, env={"PYTHONPATH": ""}, timeout=2 * 3600)
    said = "".join(log.read_text(errors="replace").strip().splitlines()[-1:]) if usage.code else ""
    shutil.rmtree(results, ignore_errors=True)
    bench.records.add({"kind": "BiaPy", "size": size, **usage.as_row(), "said": said})


def biapy_config(bench: Bench, folder: Path) -> str:
    """The YAML of the training, changed to prediction by chunks; context of 8 voxels at each border of a patch."""
    text = (bench.out / "volume.yaml").read_text()
    text = text.replace("TRAIN:\n  ENABLE: True", "TRAIN:\n  ENABLE: False").replace(
        "LOAD_CHECKPOINT: False", "LOAD_CHECKPOINT: True"
    )
    checkpoint = bench.out / "biapy/small/checkpoints/small_1-checkpoint-best.pth"
    test = f"  TEST:\n    PATH: {folder}\n    INPUT_IMG_AXES_ORDER: ZYX\n    PADDING: (8, 8, 8)\n"
    text = text.replace("  VAL:\n", test + "  VAL:\n")
    text = text.replace("TEST:\n  ENABLE: False", "TEST:\n  ENABLE: True\n  VERBOSE: False\n  BY_CHUNKS:\n    ENABLE: True")
    return text + f"PATHS:\n  CHECKPOINT_FILE: {checkpoint}\n"


def write_table(records: Records, path: Path) -> None:
    """One row per run, and whether memory and speed are flat."""
    titles = ["run", "GB", "ended", "wall s", "Mvoxel/s", "CPU s", "peak MB", "all processes MB", "anonymous MB", "IoU", "output"]
    start = records.find(kind="free", size=0)
    rows = [table_row(row, start) for row in records.rows if row["size"] or row["kind"] != "free"]
    text = (
        "## Volumes of any size\n\n" + markdown_table(titles, rows) + "\n" + "".join(f"* {line}\n" for line in verdicts(records))
    )
    path.write_text(text, encoding="utf-8")


def table_row(row: Row, start: Row | None) -> list[object]:
    """The cells of one run."""
    if "wall" not in row:
        return [row["kind"], row["size"], row["said"], *[None] * 8]
    ended = "well" if row["code"] == 0 else f"code {row['code']}: {row.get('said', '')}"
    megabytes = [f"{row[name] / 2**20:.0f}" for name in ("peak_process", "peak_tree", "peak_anonymous")]
    rate = significant(rate_of(row, start)) if row["code"] == 0 else None
    quality = [f"{row['iou']:.3f}" if "iou" in row else None, row.get("output")]
    return [row["kind"], row["size"], ended, f"{row['wall']:.0f}", rate, f"{row['cpu']:.0f}", *megabytes, *quality]


def rate_of(row: Row, start: Row | None) -> float:
    """Mvoxel/s; crista's start-up is that of the volume of one chunk."""
    seconds = row["wall"] - (start["wall"] if start is not None and row["kind"] != "BiaPy" else 0)
    return float(prod(SHAPES[row["size"]]) / seconds / 1e6)


def verdicts(records: Records) -> list[str]:
    """Is it flat, and below what is allowed?"""
    runs = [row for row in records.select(kind="free") if row["size"]]
    if len(runs) < 2:
        return []
    start = records.find(kind="free", size=0)
    peaks, rates = [row["peak_process"] for row in runs], [rate_of(row, start) for row in runs]
    spread, slow = max(peaks) / min(peaks) - 1, 1 - min(rates) / max(rates)
    flat = "flat" if spread <= ALLOWED_SPREAD else "NOT FLAT"
    low = "below" if max(peaks) < ALLOWED_PEAK else "NOT BELOW"
    return [
        f"peak memory differs by {100 * spread:.1f} % over the sizes: {flat} (5 % allowed)",
        f"largest peak {max(peaks) / 2**20:.0f} MB: {low} 1.5 GB",
        f"the slowest size has {100 * slow:.1f} % fewer voxels per second than the fastest",
    ]


def run(arguments: Any) -> None:
    """Measure what is missing and write the table."""
    bench = Bench(arguments.out, Records(arguments.out / "fixed_memory.jsonl"), arguments.keep)
    if not bench.checkpoint.is_file():
        train_small(bench, list(CRISTA))
    for size in (0, *arguments.sizes):
        measure_size(bench, size)
        write_table(bench.records, arguments.out / "fixed_memory.md")
    measure_limited(bench, arguments.limited)
    if arguments.biapy is not None:
        measure_biapy(bench, min(arguments.sizes), arguments.biapy)
    write_table(bench.records, arguments.out / "fixed_memory.md")


def main() -> None:
    """Read the flags and measure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--sizes", type=int, nargs="+", choices=(1, 4, 16), default=[1, 4, 16], help="GB")
    parser.add_argument("--limited", type=int, choices=(1, 4, 16), default=16, help="GB of the volume under a limit")
    parser.add_argument("--biapy", type=Path, help="the command biapy")
    parser.add_argument("--keep", action="store_true", help="leave the results on disk")
    stop_in_order()
    run(parser.parse_args())


if __name__ == "__main__":
    main()
