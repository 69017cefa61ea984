"""Kill a run at random moments, start the same command again, and compare with an undisturbed run: the same bytes?

    python benchmarks/random_kills.py --out OUT [--kills 100] [--seed 0]

One command trains a small 3D network with augmentation and dropout and predicts two TIFF volumes and an OME-Zarr of many blocks.
It runs once undisturbed. Then in cycles: it is started, killed (SIGKILL to the whole process group) after a random time, and
started again, until it ends by itself; the next cycle begins with an empty folder, until `--kills` kills have hit. After each
cycle:

* the weights of both checkpoints must be equal bit for bit;
* label images, Zarr stores (every chunk, every metadata file) and tables must be equal byte for byte;
* chunks of the results that lay on disk at a kill must still be the same files at the end: the same inode, written at the same
  time. Others were done again, and are counted.

Each kill is counted for the stage that the log of the run names last: training, prediction, or neither (start, check, report).
"""

from __future__ import annotations

import argparse
import random
import shutil
import signal
import subprocess
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from measuring.process import kill_session, stop_in_order
from measuring.records import Records, markdown_table
from measuring.tools import CRISTA
from measuring.volume import iter_chunks, true_labels, voxels, write_training_set, write_volume

CONFIG = Path(__file__).parent / "configs" / "kills.yaml"
NAME = "kills"
PIECE, TEST_PIECES, VOLUME, VOLUME_CHUNK = (48, 96, 96), 2, (64, 256, 256), 32
COMPARED = {".tif", ".csv"}
STAGES = {"train": "training", "predict": "prediction"}

Files = dict[tuple[int, int], str]
"""Name of each chunk by inode and time of writing (ns)."""


@dataclass(frozen=True)
class Bench:
    """Where everything is."""

    out: Path
    records: Records

    def folder(self, name: str) -> Path:
        """Results of one cycle, or of the undisturbed run."""
        return self.out / name

    def results(self, name: str) -> Path:
        """The results tree in it."""
        return self.out / name / NAME / "results" / f"{NAME}_1"


def make_data(out: Path) -> Path:
    """Pieces to train on; two TIFF volumes and one OME-Zarr to predict."""
    import tifffile

    data = out / "data"
    if (data / "complete").is_file():
        return data
    write_training_set(data, PIECE, 6)
    for name, fill, dtype in (("x", voxels, "uint16"), ("y", true_labels, "uint8")):
        folder = data / "test" / name
        folder.mkdir(parents=True, exist_ok=True)
        for index in range(TEST_PIECES):
            region = tuple(slice(500 * (index + 1), 500 * (index + 1) + n) for n in PIECE)
            tifffile.imwrite(folder / f"piece_{index}.tif", fill(region), metadata={"axes": "ZYX"})
        made = write_volume(out / f"volume_{name}.ome.zarr", VOLUME, fill, dtype=dtype, chunk=VOLUME_CHUNK)
        shutil.move(made, folder / "volume.ome.zarr")
    (data / "complete").touch()
    return data


def start(bench: Bench, name: str) -> subprocess.Popen[bytes]:
    """Start the command in a session of its own."""
    command = [*CRISTA, "--config", str(bench.out / "kills.yaml"), "--result_dir", str(bench.folder(name)), "--name", NAME]
    with (bench.out / f"{name}.log").open("ab") as log:
        return subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, start_new_session=True)


def wait_or_kill(process: subprocess.Popen[bytes], seconds: float | None = None) -> int:
    """The exit code, that of SIGKILL if it was killed after `seconds`, with all that it started."""
    try:
        return process.wait(timeout=seconds)
    except subprocess.TimeoutExpired:
        kill_session(process.pid)
        return process.wait()
    except BaseException:
        kill_session(process.pid)  # a benchmark that is stopped leaves nothing running
        raise


def undisturbed_seconds(bench: Bench) -> float:
    """Seconds of the undisturbed run, which is made if it is not there."""
    known = bench.records.find(kind="undisturbed")
    if known is not None:
        return float(known["seconds"])
    shutil.rmtree(bench.folder("undisturbed"), ignore_errors=True)
    began = time.perf_counter()
    if wait_or_kill(start(bench, "undisturbed")):
        raise SystemExit(f"the undisturbed run failed, see {bench.out / 'undisturbed.log'}")
    seconds = time.perf_counter() - began
    bench.records.add({"kind": "undisturbed", "seconds": seconds, "blocks": len(list(iter_chunks(VOLUME, VOLUME_CHUNK)))})
    return seconds


def run_cycle(bench: Bench, number: int, chance: random.Random, most: int) -> int:
    """Kill at most `most` times until the command ends by itself, and compare; returns how many kills hit."""
    name = f"cycle_{number}"
    shutil.rmtree(bench.folder(name), ignore_errors=True)
    (bench.out / f"{name}.log").unlink(missing_ok=True)
    stages, written = kill_until_done(bench, name, chance, most)
    final, differences = chunk_files(bench.results(name)), compare(bench, name)
    again = sum(len(files.keys() - final.keys()) for files in written)
    chunks = {"chunks_at_kills": sum(map(len, written)), "chunks_again": again}
    row = {"kind": "cycle", "cycle": number, "kills": len(stages), "stages": dict(Counter(stages)), **chunks}
    bench.records.add({**row, "kept_lines": log_of(bench, name).count("kept"), "differences": differences})
    if not differences:
        shutil.rmtree(bench.folder(name))
    return len(stages)


def kill_until_done(bench: Bench, name: str, chance: random.Random, most: int) -> tuple[list[str], list[Files]]:
    """Start and kill the command until it ends by itself; the stage of each kill, and the chunks that lay on disk then."""
    longest = undisturbed_seconds(bench)
    stages: list[str] = []
    written: list[Files] = []
    while True:
        starts = count_starts(bench, name)
        seconds = chance.uniform(0.05, 0.7) * longest if len(stages) < most else None
        code = wait_or_kill(start(bench, name), seconds)
        if code == 0:
            return stages, written
        if code != -signal.SIGKILL:
            raise SystemExit(f"the command failed after {len(stages)} kills, see {bench.out / f'{name}.log'}")
        stages.append(stage_of(bench, name, starts))
        written.append(chunk_files(bench.results(name)))


def log_of(bench: Bench, name: str) -> str:
    """The log of all starts of a run."""
    path = bench.results(name) / "log.txt"
    return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""


def count_starts(bench: Bench, name: str) -> int:
    """Starts that came as far as writing a log; each writes a rule of dashes."""
    return sum(line.startswith("---- ") for line in log_of(bench, name).splitlines())


def stage_of(bench: Bench, name: str, starts_before: int) -> str:
    """The stage in which the last start was killed."""
    if count_starts(bench, name) == starts_before:
        return "start"
    last = log_of(bench, name).rpartition("\n---- ")[2]
    named = [line.rpartition("== ")[2].strip() for line in last.splitlines() if " == " in line]
    return STAGES.get(named[-1], named[-1]) if named else "start"


def chunk_files(results: Path) -> Files:
    """Finished chunks of Zarr stores under the results, wherever they lie now; what is written aside has a dot or `part`."""
    found: Files = {}
    for path in results.rglob("*"):
        name = path.name
        inside = any(".zarr" in part for part in path.relative_to(results).parts[:-1])
        if inside and path.is_file() and name != "zarr.json" and not name.startswith(".") and "part" not in name:
            status = path.stat()
            found[status.st_ino, status.st_mtime_ns] = str(path.relative_to(results))
    return found


def compare(bench: Bench, name: str) -> list[str]:
    """What differs between a run and the undisturbed one; empty if nothing does."""
    differences = []
    for kind in ("best", "last"):
        files = [bench.folder(run) / NAME / f"checkpoints/{NAME}_1-checkpoint-{kind}.pth" for run in ("undisturbed", name)]
        weights = [torch.load(path, weights_only=True)["weights"] for path in files]
        differences += [f"{kind}: {key}" for key in weights[0] if not torch.equal(weights[0][key], weights[1][key])]
    whole, resumed = (compared_files(bench.results(run)) for run in ("undisturbed", name))
    differences += [f"only in one: {path}" for path in sorted(whole.keys() ^ resumed.keys())]
    differences += [
        path for path in sorted(whole.keys() & resumed.keys()) if whole[path].read_bytes() != resumed[path].read_bytes()
    ]
    return differences


def compared_files(results: Path) -> dict[str, Path]:
    """Label images, tables and all files of Zarr stores; the log of training holds seconds and is left out."""
    return {
        str(path.relative_to(results)): path
        for path in results.rglob("*")
        if path.is_file()
        and (path.suffix in COMPARED or any(part.endswith(".zarr") for part in path.parts))
        and not {"train_logs", ".state"} & set(path.relative_to(results).parts)
    }


def write_table(records: Records, path: Path) -> None:
    """How many kills, where, and what differed."""
    cycles = records.select(kind="cycle")
    stages: Counter[str] = sum((Counter(row["stages"]) for row in cycles), Counter())
    compared = records.find(kind="compared") or {}
    different = [row for row in cycles if row["differences"]]
    chunks, again = (sum(row[name] for row in cycles) for name in ("chunks_at_kills", "chunks_again"))
    rows: list[tuple[str, object]] = [
        ("kills", sum(stages.values())),
        *sorted((f"… in {stage}", count) for stage, count in stages.items()),
        ("runs that were killed and resumed to their end", len(cycles)),
        ("… of which differ from the undisturbed run", len(different)),
        ("files compared in each, beside the weights", compared.get("files")),
        ("chunks on disk at the kills, summed", chunks),
        ("… of which were written again later", again),
    ]
    text = "## Killed at random\n\n" + markdown_table(["", "number"], rows)
    text += "".join(f"\nCycle {row['cycle']} differs: {', '.join(row['differences'][:10])}\n" for row in different)
    path.write_text(text, encoding="utf-8")


def run(arguments: Any) -> None:
    """Make the cycles that are missing, and the table."""
    bench = Bench(arguments.out, Records(arguments.out / "random_kills.jsonl"))
    data = make_data(arguments.out)
    (arguments.out / "kills.yaml").write_text(CONFIG.read_text().replace("/path/to/data", str(data)))
    undisturbed_seconds(bench)
    if bench.records.find(kind="compared") is None:
        bench.records.add({"kind": "compared", "files": len(compared_files(bench.results("undisturbed")))})
    done = bench.records.select(kind="cycle")
    hits, number = sum(row["kills"] for row in done), len(done)
    while hits < arguments.kills:
        number += 1
        hits += run_cycle(bench, number, random.Random(f"{arguments.seed} {number}"), arguments.kills - hits)
        write_table(bench.records, arguments.out / "random_kills.md")
    write_table(bench.records, arguments.out / "random_kills.md")


def main() -> None:
    """Read the flags and run; the exit code is 1 if anything differed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    stop_in_order()
    run(arguments)
    raise SystemExit(any(row["differences"] for row in Records(arguments.out / "random_kills.jsonl").select(kind="cycle")))


if __name__ == "__main__":
    main()
