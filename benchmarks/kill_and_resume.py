"""Kill a run at random moments, start the same command again, and compare with an undisturbed run.

    python benchmarks/kill_and_resume.py --data DATA --out OUT [--set hippocampus_3d] [--kills 6] [--change TRAIN.EPOCHS=3]

Every kill is a SIGKILL. The final weights must be equal bit for bit and the label images and tables byte for byte.
"""

from __future__ import annotations

import argparse
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import torch

from crista.training.checkpoint import load_checkpoint

CONFIGS = Path(__file__).parent / "configs"


def start(config: Path, out: Path, name: str, changes: list[str], log: Path) -> subprocess.Popen[bytes]:
    """Start the run in a process of its own."""
    command = [sys.executable, "-m", "crista", "--config", str(config), "--result_dir", str(out), "--name", name]
    for change in changes:
        command += ["--set", change]
    with log.open("ab") as file:
        return subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT)


def compare(whole: Path, killed: Path, name: str) -> list[str]:
    """What differs between two job folders; empty if nothing does."""
    differences = []
    for kind in ("best", "last"):
        weights = [load_checkpoint(root / f"checkpoints/{name}_1-checkpoint-{kind}.pth").weights for root in (whole, killed)]
        differences += [f"{kind}: {key}" for key in weights[0] if not torch.equal(weights[0][key], weights[1][key])]
    results = whole / "results" / f"{name}_1"
    for path in sorted([*results.rglob("*.tif"), results / "test_results_metrics.csv"]):
        other = killed / "results" / f"{name}_1" / path.relative_to(results)
        if not other.is_file() or other.read_bytes() != path.read_bytes():
            differences.append(str(path.relative_to(results)))
    return differences


def main() -> None:
    """Run once undisturbed and once killed, and compare."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--set", dest="name", default="hippocampus_3d")
    parser.add_argument("--kills", type=int, default=6)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--change", action="append", default=[])
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    config = arguments.out / f"{arguments.name}.yaml"
    config.write_text((CONFIGS / config.name).read_text().replace("/path/to/data", str(arguments.data)))
    log, name = arguments.out / "log.txt", arguments.name
    began = time.perf_counter()
    if start(config, arguments.out / "whole", name, arguments.change, log).wait():
        raise SystemExit(f"the undisturbed run failed, see {log}")
    seconds = time.perf_counter() - began
    print(f"undisturbed: {seconds:.0f} s", flush=True)
    chance = random.Random(arguments.seed)
    for number in range(1, arguments.kills + 1):
        process = start(config, arguments.out / "killed", name, arguments.change, log)
        wait = 3 + chance.random() * seconds * 0.6
        try:
            process.wait(timeout=wait)
            print(f"start {number}: finished by itself within {wait:.1f} s", flush=True)
            break
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
            print(f"start {number}: killed after {wait:.1f} s", flush=True)
    if start(config, arguments.out / "killed", name, arguments.change, log).wait():
        raise SystemExit(f"the last start failed, see {log}")
    differences = compare(arguments.out / "whole" / name, arguments.out / "killed" / name, name)
    print("equal: weights, label images and table" if not differences else "DIFFERENT:\n" + "\n".join(differences))
    raise SystemExit(bool(differences))


if __name__ == "__main__":
    main()
