"""Training steps per second of crista and BiaPy: same data, network, patch and batch, in turns, beside a ceiling.

    python benchmarks/training_speed.py --data DATA --biapy ENV/bin/biapy --out OUT [--rounds 3] [--epochs 4] [--sets …]
    python benchmarks/training_speed.py --layers

DATA is the folder of the data sets, ENV an environment with BiaPy 3.7.1. Sets: `isbi2012_membrane_2d` (2D U-Net 16..256, patch
256 × 256, batch 6) and `vnc_mito_3d` (3D U-Net 16..128, patch 20 × 128 × 128, batch 2). Two kinds of YAML file, each given to
both tools:

same        normalisation, activation, kernels and loss are given: batch norm, leaky ReLU, 3 × 3 (× 3), cross-entropy
defaults    these keys are left out: each tool takes its own (BiaPy: instance norm, ELU)

Every run is a command of its own; one round is a run of each tool, one after the other, so that what else the machine does meets
all of them. The first epoch, in which memory and caches fill, is left out; each later epoch is one value.

* crista: `steps_per_second` of its log: from the first batch asked for to the last update, data waited for, metrics and events
  included; validation, checkpoints and charts not.
* BiaPy: the line "Total time: … (… s / it)" that it prints for the training part of each epoch (the first of two per epoch; the
  second is the validation): time of the loop over the loader, data, metrics and its own log lines included, validation,
  checkpoints and charts not. So the same is counted in both.
* ceiling: crista's network, loss and optimizer on one fixed batch, nothing else. "of ceiling" is what loader, augmentation,
  metrics and log leave of it.
* plain: the same network as a plain PyTorch loop has it: torch's own layers, contiguous, optimizer not fused.

OUT/training_speed.jsonl holds every value, OUT/training_speed.md medians and ranges; rounds that are in the former are not run
again. `--layers` needs no data: it times the two kinds of weight gradient per layer on this machine, to see whether the rule by
which crista chooses (`training/cpu_layers.py`) holds on it.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import torch
from measuring.records import read_rows

from crista.losses import build_loss
from crista.models import build_model
from crista.models.placement import memory_layout, to_layout
from crista.plan.plan import Plan
from crista.training.cpu_layers import quicken
from crista.training.memory import reused_memory
from crista.training.optimizer import OPTIMIZERS
from crista.training.precision import Precision
from crista.training.weight_gradients import convolution_weight_gradient

CONFIGS = Path(__file__).parent / "configs"
EDITS = {
    "isbi2012_membrane_2d": [("[16, 32, 64, 128]", "[16, 32, 64, 128, 256]")],
    "vnc_mito_3d": [
        ("[16, 32, 64]", "[16, 32, 64, 128]"),
        ("Z_DOWN: [1, 1]", "Z_DOWN: [1, 1, 1]"),
        ("(20, 96, 96, 1)", "(20, 128, 128, 1)"),
    ],
}
SAME = "  NORMALIZATION: bn\n  ACTIVATION: leaky_relu\n  ISOTROPY: [True, True, True, True, True]\n"
KINDS = ("same", "defaults")
STEPS = 8
"""Timed steps of the ceilings, after two that are not."""

Values = dict[str, list[float]]


def write_config(name: str, kind: str, arguments: argparse.Namespace) -> Path:
    """The YAML file of one set and kind."""
    text = (CONFIGS / f"{name}.yaml").read_text().replace("/path/to/data", str(arguments.data))
    edits = [*EDITS[name], ("TEST:\n  ENABLE: True", "TEST:\n  ENABLE: False")]
    if kind == "same":
        edits += [("MODEL:\n", "LOSS:\n  TYPE: ['CE']\nMODEL:\n" + SAME)]
    for old, new in edits:
        if old not in text:
            raise SystemExit(f"{name}.yaml holds no {old!r} any more")
        text = text.replace(old, new)
    text = re.sub(r"(EPOCHS|PATIENCE): \d+", rf"\1: {arguments.epochs}", text)
    path = arguments.out / f"{name}_{kind}.yaml"
    path.write_text(text)
    return path


def run_command(command: list[str], log: Path) -> str:
    """What the command printed, which is also kept in `log`."""
    with log.open("w") as file:
        status = subprocess.run(command, stdout=file, stderr=subprocess.STDOUT, check=False).returncode
    if status:
        raise SystemExit(f"{command[0]} failed, see {log}")
    return log.read_text()


def run_crista(config: Path, job: str, out: Path) -> tuple[Values, Path]:
    """Steps per second and data wait of the epochs after the first, and the plan of the run."""
    folder = out / "crista" / job / "results" / f"{job}_1"
    run_command(
        [*(sys.executable, "-m", "crista", "--config", str(config), "--result_dir", str(out / "crista"), "--name", job)],
        out / f"{job}_crista.log",
    )
    rows = np.genfromtxt(folder / "train_logs" / f"{job}_1.csv", delimiter=",", names=True)
    waits = rows["data_wait_percent"][1:].tolist()
    return {"steps/s": rows["steps_per_second"][1:].tolist(), "data wait %": waits}, folder / "plan.json"


def run_biapy(config: Path, job: str, out: Path, biapy: Path) -> Values:
    """Steps per second of the epochs after the first."""
    command = [str(biapy), "--config", str(config), "--result_dir", str(out / "biapy"), "--name", job, "--run_id", "1"]
    printed = run_command(command, out / f"{job}_biapy.log")
    seconds = [float(value) for value in re.findall(r"Total time: \S+ \(([\d.]+) s / it\)", printed)]
    return {"steps/s": [1 / value for value in seconds[2::2]]}


def run_ceiling(plan: Path, *, plain: bool) -> Values:
    """Steps per second of the bare network, in a process of its own."""
    command = [sys.executable, __file__, "--plain" if plain else "--ceiling", str(plan)]
    return {"steps/s": json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)}


def time_steps(plan: Plan, *, plain: bool) -> list[float]:
    """Steps per second of forward, loss, backward and update on one batch of noise, one value per step."""
    torch.manual_seed(0)
    model = build_model(plan.model, num_channels=plan.num_channels, num_logits=plan.classes.num_logits, ndim=plan.ndim)
    if not plain:
        model = quicken(to_layout(model, torch.device("cpu"), plan.ndim))
    optimizer = OPTIMIZERS.build(plan.optimizer, model=model)
    if plain:
        optimizer = torch.optim.AdamW(model.parameters(), lr=plan.optimizer.lr)
    loss = build_loss(plan.loss, classes=plan.classes, class_weights=plan.class_weights)
    images = torch.randn(plan.batch_size, *plan.patch_size, plan.num_channels).movedim(-1, 1)
    images = images.contiguous() if plain else images
    targets = torch.randint(0, plan.classes.num_classes, (plan.batch_size, *plan.patch_size), dtype=torch.uint8)
    precision = Precision(False if plain else plan.amp, torch.device("cpu"))
    speeds = []
    for _ in range(STEPS + 2):
        started = time.perf_counter()
        optimizer.zero_grad()
        with precision.autocast():
            logits = model(images)
        loss(logits.float(), targets).backward()
        optimizer.step()
        speeds.append(1 / (time.perf_counter() - started))
    return speeds[2:]


def measure(name: str, kind: str, turn: int, arguments: argparse.Namespace) -> list[dict[str, object]]:
    """One round of one set and kind: every tool once."""
    config, out = write_config(name, kind, arguments), arguments.out
    job = f"{name}_{kind}_{turn}"
    values, plan = run_crista(config, job, out)
    rows = {"crista": values}
    if arguments.biapy:
        rows["BiaPy"] = run_biapy(config, job, out, arguments.biapy)
    rows["ceiling"] = run_ceiling(plan, plain=False)
    rows["plain"] = run_ceiling(plan, plain=True)
    return [{"set": name, "kind": kind, "round": turn, "tool": tool, **row} for tool, row in rows.items()]


def write_table(rows: list[dict[str, object]], path: Path) -> None:
    """Medians and ranges over all epochs of all rounds."""
    lines = [
        "| set | YAML | tool | steps/s, median (range) | values | × BiaPy | of ceiling | data wait |",
        "|---|---|---|---:|---:|---:|---:|---:|",
    ]
    for name, kind in dict.fromkeys((row["set"], row["kind"]) for row in rows):
        here = [row for row in rows if (row["set"], row["kind"]) == (name, kind)]
        speeds = {tool: [v for row in here if row["tool"] == tool for v in row["steps/s"]] for tool in {r["tool"] for r in here}}
        middle = {tool: statistics.median(values) for tool, values in speeds.items()}
        waits = [v for row in here for v in row.get("data wait %", [])]
        for tool in ("crista", "BiaPy", "ceiling", "plain"):
            if tool not in speeds:
                continue
            values = speeds[tool]
            ratio = f"{middle[tool] / middle['BiaPy']:.2f}" if "BiaPy" in middle else ""
            share = f"{middle[tool] / middle['ceiling']:.0%}" if tool == "crista" else ""
            wait = f"{statistics.median(waits):.1f} %" if tool == "crista" else ""
            shown = f"{middle[tool]:.3f} ({min(values):.3f}–{max(values):.3f})"
            lines.append(f"| {name} | {kind} | {tool} | {shown} | {len(values)} | {ratio} | {share} | {wait} |")
    path.write_text("## Training steps\n\n" + "\n".join(lines) + "\n")


def time_layers() -> None:
    """Print both kinds of weight gradient for typical layers: processor milliseconds, the least of nine."""
    print(f"processor: {torch.backends.cpu.get_cpu_capability()}, {torch.get_num_threads()} threads")
    cases = [(6, 16, 16, (256, 256)), (6, 32, 16, (256, 256)), (6, 32, 32, (128, 128)), (6, 64, 32, (128, 128))]
    cases += [(6, 128, 64, (64, 64)), (6, 128, 128, (32, 32)), (2, 16, 16, (20, 128, 128)), (2, 32, 16, (20, 128, 128))]
    cases += [(2, 64, 32, (20, 64, 64)), (2, 128, 64, (20, 32, 32)), (2, 128, 128, (20, 16, 16))]
    print("batch, channels in, out, shape        products ms  oneDNN channels-last ms  oneDNN contiguous ms")
    for batch, inner, outer, shape in cases:
        ndim = len(shape)
        image, gradient = (torch.randn(batch, *shape, c).movedim(-1, 1) for c in (inner, outer))
        best = [1e9] * 3
        for _ in range(9):
            for index, layout in enumerate((None, memory_layout(ndim), torch.contiguous_format)):
                best[index] = min(best[index], time_weight_gradient(gradient, image, layout))
        print(f"{batch:3} {inner:4} {outer:4} {shape!s:20} " + " ".join(f"{1e3 * value:20.1f}" for value in best))


def time_weight_gradient(gradient: torch.Tensor, image: torch.Tensor, layout: torch.memory_format | None) -> float:
    """Processor seconds of the weight gradient of a 3 × 3 (× 3) convolution: by products (None) or by oneDNN in a layout."""
    ndim = image.ndim - 2
    if layout is None:
        started = time.process_time()
        convolution_weight_gradient(gradient, image, (3,) * ndim)
        return time.process_time() - started
    weight = torch.zeros(gradient.shape[1], image.shape[1], *[3] * ndim).contiguous(memory_format=layout)
    tensors = [tensor.contiguous(memory_format=layout) for tensor in (gradient, image)]
    ones, zeros = [1] * ndim, [0] * ndim
    started = time.process_time()
    torch.ops.aten.convolution_backward(*tensors, weight, None, ones, ones, ones, False, zeros, 1, [False, True, False])
    return time.process_time() - started


def main() -> None:
    """Run all rounds and write the table after each."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path)
    parser.add_argument("--biapy", type=Path)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--sets", nargs="+", default=list(EDITS))
    parser.add_argument("--kinds", nargs="+", default=list(KINDS))
    parser.add_argument("--layers", action="store_true", help="time the weight gradients of single layers")
    parser.add_argument("--ceiling", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--plain", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.layers:
        time_layers()
    elif arguments.plain:
        print(json.dumps(time_steps(Plan.model_validate_json(arguments.plain.read_text()), plain=True)))
    elif arguments.ceiling:
        with reused_memory(torch.device("cpu")):
            print(json.dumps(time_steps(Plan.model_validate_json(arguments.ceiling.read_text()), plain=False)))
    elif arguments.data and arguments.out:
        run_rounds(arguments)
    else:
        parser.error("--data and --out are needed, or --layers")


def run_rounds(arguments: argparse.Namespace) -> None:
    """All rounds that are missing; the table is written after each run of a set."""
    arguments.out.mkdir(parents=True, exist_ok=True)
    record, table = arguments.out / "training_speed.jsonl", arguments.out / "training_speed.md"
    rows: list[dict[str, object]] = list(read_rows(record))
    done = {(row["set"], row["kind"], row["round"]) for row in rows}
    jobs = [(n, k, turn) for turn in range(1, arguments.rounds + 1) for n in arguments.sets for k in arguments.kinds]
    for name, kind, turn in jobs:
        if (name, kind, turn) in done:
            continue
        rows += measure(name, kind, turn, arguments)
        record.write_text("".join(json.dumps(row) + "\n" for row in rows))
        write_table(rows, table)
        print(table.read_text(), flush=True)


if __name__ == "__main__":
    main()
