"""crista and BiaPy on the same YAML files and real data, one after the other, in one run.

    python benchmarks/compare_biapy.py --data DATA --biapy ENV/bin/biapy --out OUT [--seeds 0 1 2] [--sets vnc_mito_3d …]

DATA is the folder of the data sets that the YAML files in `benchmarks/configs` name; ENV an environment with BiaPy 3.7.1. Each
line of OUT/runs.jsonl is one run; OUT/table.md is the table. Runs that are in the file already are not repeated, so that an
interrupted benchmark goes on.

IoU of both tools is computed here, by one function, from the probabilities that BiaPy saves (threshold 0.5, or the largest) and
from the label images that crista saves. Memory is the largest resident set of any single process of a run.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from measuring.process import kill_session

from crista.images.coding import decide_coding
from crista.images.labels import read_label, summarise_label
from crista.images.listing import list_images
from crista.images.open import open_image
from crista.metrics import compute_confusion, iou

CONFIGS = Path(__file__).parent / "configs"
SETS = ("isbi2012_membrane_2d", "nuclei_dsb2018_3class", "nuclei_dsb2018_rgb", "hippocampus_3d", "vnc_mito_3d")


def measure_process(command: list[str], log: Path) -> dict[str, float]:
    """Wall and processor seconds and peak memory (bytes) of a whole command."""
    started = time.perf_counter()
    with log.open("w") as file:
        process = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT, start_new_session=True)
        try:
            _, status, usage = os.wait4(process.pid, 0)
        finally:
            kill_session(process.pid)  # nnU-Net leaves workers behind
    if status:
        raise SystemExit(f"{command[0]} failed, see {log}")
    cpu = usage.ru_utime + usage.ru_stime
    return {"wall": time.perf_counter() - started, "cpu": cpu, "memory": usage.ru_maxrss * 1024.0}


def prepare_config(name: str, seed: int, data: Path, out: Path) -> Path:
    """The YAML of a set with the data folder and the seed filled in."""
    text = (CONFIGS / f"{name}.yaml").read_text().replace("/path/to/data", str(data)).replace("SEED: 0", f"SEED: {seed}")
    path = out / f"{name}_seed{seed}.yaml"
    path.write_text(text)
    return path


def rescaled_copy(data: Path, name: str, out: Path) -> Path:
    """BiaPy refuses images whose maxima lie in different ranges; z-scores do not depend on a factor, so give it one range."""
    import tifffile

    copy = out / "rescaled"
    for path in sorted((data / name).glob("*/[xy]/*.tif")):
        target = copy / path.relative_to(data)
        target.parent.mkdir(parents=True, exist_ok=True)
        pixels = tifffile.imread(path)
        scaled = (pixels / pixels.max() * 60000).astype(np.float32) if path.parent.name == "x" else pixels
        tifffile.imwrite(target, scaled)
    return copy


def class_iou(labels: Path, predictions: Path, *, probabilities: bool) -> list[float]:
    """IoU of each class over all pixels of a test folder."""
    true = [open_image(path, is_label=True) for path in list_images(labels)]
    coding = decide_coding(
        [(image.path, summarise_label(image)) for image in true], num_classes=None, ignore_index=None, where=str(labels)
    ).coding
    assert coding is not None
    counts = np.zeros((coding.num_classes,) * 2, np.int64)
    for image in true:
        label = read_label(image, coding)
        predicted = read_prediction(predictions / image.path.name, label.shape, coding.num_classes, probabilities)
        counts += compute_confusion(label, predicted, num_classes=coding.num_classes)
    return [float(value) for value in iou(counts)]


def read_prediction(path: Path, shape: tuple[int, ...], num_classes: int, probabilities: bool) -> np.ndarray:
    """Classes of a saved prediction."""
    import tifffile

    pixels = np.squeeze(tifffile.imread(path))
    if not probabilities or num_classes == 2:
        return (pixels > 0.5 if probabilities else pixels).astype(np.uint8).reshape(shape)
    axis = next(i for i in range(pixels.ndim) if pixels.shape[i] == num_classes and tuple(np.delete(pixels.shape, i)) == shape)
    return np.moveaxis(pixels, axis, 0).argmax(axis=0).astype(np.uint8)


def run_crista(name: str, seed: int, data: Path, out: Path) -> dict[str, object]:
    """One run of crista."""
    config = prepare_config(name, seed, data, out)
    command = [sys.executable, "-m", "crista", "--config", str(config), "--result_dir", str(out / "crista"), "--name", name]
    figures = measure_process([*command, "--run_id", str(seed)], out / f"{name}_{seed}_crista.log")
    results = out / "crista" / name / "results" / f"{name}_{seed}"
    log = np.genfromtxt(results / "train_logs" / f"{name}_{seed}.csv", delimiter=",", names=True)
    figures["training"] = float(np.sum(log["seconds"]))
    filtered = results / "full_post_processing"
    return {
        **figures,
        "iou": class_iou(data / name / "test/y", results / "per_image_binarized", probabilities=False),
        "iou_filtered": class_iou(data / name / "test/y", filtered, probabilities=False) if filtered.is_dir() else None,
    }


def run_biapy(name: str, seed: int, data: Path, out: Path, biapy: Path) -> dict[str, object]:
    """One run of BiaPy."""
    source = rescaled_copy(data, name, out) if name == "hippocampus_3d" else data
    config = prepare_config(name, seed, source, out)
    log = out / f"{name}_{seed}_biapy.log"
    command = [str(biapy), "--config", str(config), "--result_dir", str(out / "biapy"), "--name", name, "--run_id", str(seed)]
    figures = measure_process(command, log)
    hours, minutes, seconds = re.findall(r"Training time: (\d+):(\d+):(\d+)", log.read_text())[-1]
    figures["training"] = 3600 * float(hours) + 60 * float(minutes) + float(seconds)
    results = out / "biapy" / name / "results" / f"{name}_{seed}"
    filtered = results / "per_image_post_processing"
    return {
        **figures,
        "iou": class_iou(data / name / "test/y", results / "per_image", probabilities=True),
        "iou_filtered": class_iou(data / name / "test/y", filtered, probabilities=True) if filtered.is_dir() else None,
    }


def write_table(rows: list[dict[str, object]], path: Path) -> None:
    """Mean IoU over the seeds (± sd), median time and memory."""
    lines = [
        "| set | tool | runs | IoU per class, mean (sd) | after the filter | training s | all the rest s | CPU s | peak MB |",
        "|---|---|---:|---|---|---:|---:|---:|---:|",
    ]
    for name in SETS:
        for tool in ("crista", "biapy"):
            runs = [row for row in rows if row["set"] == name and row["tool"] == tool]
            if not runs:
                continue
            cells = [
                name,
                tool,
                str(len(runs)),
                _spread([row["iou"] for row in runs]),
                _spread([row["iou_filtered"] for row in runs if row["iou_filtered"]]),
                f"{statistics.median(row['training'] for row in runs):.0f}",
                f"{statistics.median(row['wall'] - row['training'] for row in runs):.0f}",
                f"{statistics.median(row['cpu'] for row in runs):.0f}",
                f"{statistics.median(row['memory'] for row in runs) / 2**20:.0f}",
            ]
            lines.append("| " + " | ".join(cells) + " |")
    path.write_text("\n".join(lines) + "\n")


def _spread(values: list[list[float]]) -> str:
    if not values:
        return ""
    columns = list(zip(*values, strict=True))
    return ", ".join(f"{statistics.fmean(c):.3f} ({statistics.stdev(c) if len(c) > 1 else 0:.3f})" for c in columns)


def main() -> None:
    """Run what is missing, tools in turn, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--biapy", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--sets", nargs="+", default=list(SETS))
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    record = arguments.out / "runs.jsonl"
    rows = [json.loads(line) for line in record.read_text().splitlines()] if record.is_file() else []
    done = {(row["set"], row["tool"], row["seed"]) for row in rows}
    tools = {"crista": lambda n, s: run_crista(n, s, arguments.data, arguments.out)}
    if arguments.biapy:
        tools["biapy"] = lambda n, s: run_biapy(n, s, arguments.data, arguments.out, arguments.biapy)
    for seed in arguments.seeds:
        for name in arguments.sets:
            for tool, run in tools.items():
                if (name, tool, seed) in done:
                    continue
                row = {"set": name, "tool": tool, "seed": seed, **run(name, seed)}
                rows.append(row)
                with record.open("a") as file:
                    file.write(json.dumps(row) + "\n")
                print(json.dumps(row), flush=True)
                write_table(rows, arguments.out / "table.md")


if __name__ == "__main__":
    main()
