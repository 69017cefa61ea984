"""Time to quality: what each tool has learnt in so many minutes on this machine, measured on the test folders.

    python benchmarks/time_to_quality.py --data DATA --biapy ENV/bin/biapy --others ENV/bin/python --out OUT
        [--minutes 5 10 20] [--seeds 0 1 2] [--sets …] [--tools crista biapy nnunet]

* crista: `crista train DATA/train/x DATA/train/y --minutes N`, nothing else; then `crista predict` on the test folder.
* BiaPy: the YAML of `benchmarks/configs` (its U-Net, AdamW 1e-3 with one cycle, flips and rotations; a better start than its
  template's 1e-4), with as many EPOCHS as fit into N minutes. A pilot run of two epochs, whose time does not count, tells how
  many those are.
* nnU-Net: its planner, preprocessing and trainer (2d or 3d_fullres) with its epochs cut to the budget (`peers/nnunet_train.py`).

The budget counts from the start of the command to the trained network: planning, preprocessing and imports included;
prediction of the test folder is not. Runs of one set, budget and seed follow each other, so that they share what else the
machine does. IoU is computed here, by one function, over all pixels of the test folder. What is in
OUT/time_to_quality.jsonl already is not run again.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import statistics
import subprocess
import sys
import time
from datetime import datetime
from pathlib import Path

import numpy as np
from compare_biapy import CONFIGS, class_iou, measure_process, rescaled_copy

SETS = {
    "isbi2012_membrane_2d": "2d",
    "nuclei_dsb2018_3class": "2d",
    "nuclei_dsb2018_rgb": "2d",
    "vnc_5class_2d": "2d",
    "vnc_mito_3d": "3d_fullres",
    "sbem_mito_3d": "3d_fullres",
    "hippocampus_3d": "3d_fullres",
}
"""Each set and nnU-Net's configuration for it."""
PILOT = 2
"""Epochs of BiaPy that are timed; the first of them is slower."""


def run_crista(name: str, minutes: float, seed: int, arguments: argparse.Namespace) -> dict[str, object]:
    """Train on two folders, predict the test folder."""
    data, out = arguments.data / name, arguments.out / "crista"
    job = f"{name}_{minutes:g}min_{seed}"
    log = arguments.out / f"{job}_crista.log"
    for left in (out / job, out / f"{job}_test"):
        shutil.rmtree(left, ignore_errors=True)  # of a run that was stopped: the training would go on from it
    command = [sys.executable, "-m", "crista", "train", str(data / "train/x"), str(data / "train/y"), "--minutes", f"{minutes:g}"]
    where = ["--result_dir", str(out), "--name", job]
    started = time.time()
    figures = measure_process([*command, *where, "--set", f"SYSTEM.SEED={seed}"], log)
    checkpoint = out / job / "checkpoints" / f"{job}_1-checkpoint-last.pth"
    figures["trained"] = checkpoint.stat().st_mtime - started
    command = [sys.executable, "-m", "crista", "predict", str(out / job), str(data / "test/x"), "--name", f"{job}_test"]
    measure_process([*command, "--result_dir", str(out)], log.with_suffix(".predict.log"))
    predicted = out / f"{job}_test/results/{job}_test_1/per_image_binarized"
    return {**figures, "iou": class_iou(data / "test/y", predicted, probabilities=False)}


def run_biapy(name: str, minutes: float, seed: int, arguments: argparse.Namespace) -> dict[str, object]:
    """As many epochs as fit."""
    source = rescaled_copy(arguments.data, name, arguments.out) if name == "hippocampus_3d" else arguments.data
    trained = _biapy(name, PILOT, seed, source, arguments)[0]["trained"]
    epoch = _last_epoch_seconds((arguments.out / f"{name}_{PILOT}epochs_{seed}_biapy.log").read_text())
    epochs = max(1, int((60 * minutes - (trained - PILOT * epoch)) / epoch))
    figures, results = _biapy(name, epochs, seed, source, arguments)
    return {**figures, "epochs": epochs, "iou": class_iou(arguments.data / name / "test/y", results, probabilities=True)}


def _last_epoch_seconds(log: str) -> float:
    """Of a pilot run, by the clock that BiaPy writes before each line."""
    begun, ended = (
        datetime.strptime(re.findall(rf"\[([\d:.]+)\] {what}", log)[-1], "%H:%M:%S.%f") for what in ("~~~ Epoch", "Training time")
    )
    return max(1e-3, (ended - begun).total_seconds() % 86400)


def _biapy(name: str, epochs: int, seed: int, data: Path, arguments: argparse.Namespace) -> tuple[dict[str, float], Path]:
    """One run; its figures and the folder of its probabilities."""
    text = (CONFIGS / f"{name}.yaml").read_text().replace("/path/to/data", str(data)).replace("SEED: 0", f"SEED: {seed}")
    text = re.sub(r"(EPOCHS|PATIENCE): \d+", rf"\1: {epochs}", text)
    job = f"{name}_{epochs}epochs"
    config = arguments.out / f"{job}_{seed}.yaml"
    config.write_text(text)
    log, out = arguments.out / f"{job}_{seed}_biapy.log", arguments.out / "biapy"
    command = [str(arguments.biapy), "--config", str(config), "--result_dir", str(out), "--name", job, "--run_id", str(seed)]
    started = time.time()
    figures = measure_process(command, log)
    checkpoints = list((out / job / "checkpoints").glob("*"))
    figures["trained"] = max(path.stat().st_mtime for path in checkpoints) - started
    return figures, out / job / "results" / f"{job}_{seed}" / "per_image"


def run_nnunet(name: str, minutes: float, seed: int, arguments: argparse.Namespace) -> dict[str, object]:
    """Its planner and trainer with a cut number of iterations."""
    data, out = arguments.data / name, arguments.out / "nnunet" / f"{name}_{minutes:g}min_{seed}"
    script = Path(__file__).parent / "peers/nnunet_train.py"
    command = [str(arguments.others), str(script), str(data), str(out), "--configuration", SETS[name]]
    figures = measure_process(
        [*command, "--seconds", f"{60 * minutes:g}", "--seed", str(seed)], arguments.out / f"{out.name}_nnunet.log"
    )
    return {**figures, "iou": class_iou(data / "test/y", out / "predictions", probabilities=False)}


TOOLS = {"crista": run_crista, "biapy": run_biapy, "nnunet": run_nnunet}


def write_table(rows: list[dict[str, object]], path: Path) -> None:
    """Mean foreground IoU of each set, budget and tool, over the seeds."""
    lines = ["| set | minutes | " + " | ".join(TOOLS) + " |", "|---|---:|" + "---|" * len(TOOLS)]
    for name, minutes in sorted({(row["set"], row["minutes"]) for row in rows}):
        cells = [name, f"{minutes:g}"]
        for tool in TOOLS:
            runs = [row for row in rows if (row["set"], row["minutes"], row["tool"]) == (name, minutes, tool)]
            means = [float(np.nanmean(row["iou"][1:])) if "iou" in row else 0.0 for row in runs]
            spread = f" ± {statistics.stdev(means):.3f}" if len(means) > 1 else ""
            failed = " (failed)" if any("error" in row for row in runs) else ""
            cells.append(f"{statistics.fmean(means):.3f}{spread} ({len(runs)}){failed}" if runs else "–")
        lines.append("| " + " | ".join(cells) + " |")
    path.write_text("## Time to quality\n\n" + "\n".join(lines) + "\n")


def draw_plot(rows: list[dict[str, object]], path: Path) -> None:
    """A panel for each budget: sets from top to bottom, a dot for the mean of each tool, small ones for its seeds."""
    from matplotlib.figure import Figure

    budgets = sorted({row["minutes"] for row in rows})
    names = [name for name in SETS if any(row["set"] == name for row in rows)][::-1]
    colours = dict(zip(TOOLS, ("#0072b2", "#d55e00", "#009e73"), strict=True))
    figure = Figure(figsize=(2.2 + 3.8 * len(budgets), 1.2 + 0.42 * len(names)), layout="constrained")
    panels = figure.subplots(1, len(budgets), sharey=True, squeeze=False)[0]
    for axes, minutes in zip(panels, budgets, strict=True):
        for height, name in enumerate(names):
            for tool, colour in colours.items():
                runs = [row for row in rows if (row["set"], row["minutes"], row["tool"]) == (name, minutes, tool)]
                values = [float(np.nanmean(row["iou"][1:])) for row in runs if "iou" in row]
                if values:
                    axes.plot(values, [height] * len(values), ".", color=colour, alpha=0.5, markersize=5)
                    axes.plot(statistics.fmean(values), height, "o", color=colour, markersize=8)
        axes.set(
            title=f"{minutes:g} minutes", xlim=(0, 1), xlabel="mean foreground IoU, test images", ylim=(-0.6, len(names) - 0.4)
        )
        axes.set_yticks(range(len(names)), names)
        axes.grid(axis="y", color="#dddddd")
        axes.spines[["top", "right", "left"]].set_visible(False)
        axes.tick_params(axis="y", length=0)
    for tool, colour in colours.items():
        panels[0].plot([], [], "o", color=colour, label={"biapy": "BiaPy", "nnunet": "nnU-Net"}.get(tool, tool))
    figure.legend(*panels[0].get_legend_handles_labels(), frameon=False, loc="outside lower center", ncols=len(colours))
    figure.savefig(path, metadata={"Date": None})


def main() -> None:
    """Read the flags and run what is missing."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--biapy", type=Path)
    parser.add_argument("--others", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, nargs="+", default=[5, 10, 20])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--sets", nargs="+", default=list(SETS))
    parser.add_argument("--tools", nargs="+", default=list(TOOLS))
    run(parser.parse_args())


def run(arguments: argparse.Namespace) -> None:
    """Every run that is missing; table and plot are written after each."""
    arguments.out.mkdir(parents=True, exist_ok=True)
    record = arguments.out / "time_to_quality.jsonl"
    rows = [json.loads(line) for line in record.read_text().splitlines()] if record.is_file() else []
    done = {(row["set"], row["minutes"], row["seed"], row["tool"]) for row in rows}
    jobs = [(n, m, s, t) for m in arguments.minutes for s in arguments.seeds for n in arguments.sets for t in arguments.tools]
    for name, minutes, seed, tool in jobs:
        if (name, minutes, seed, tool) in done:
            continue
        row: dict[str, object] = {"set": name, "minutes": minutes, "seed": seed, "tool": tool}
        try:
            row |= TOOLS[tool](name, minutes, seed, arguments)
        except (SystemExit, OSError, subprocess.SubprocessError) as error:  # a peer that fails is a result too
            row["error"] = str(error)
        rows.append(row)
        with record.open("a") as file:
            file.write(json.dumps(row) + "\n")
        print(json.dumps(row), flush=True)
        write_table(rows, arguments.out / "time_to_quality.md")
        draw_plot(rows, arguments.out / "time_to_quality.svg")


if __name__ == "__main__":
    main()
