"""Every benchmark, one after the other, into one table.

    python benchmarks/all.py --data DATA --biapy ENV/bin/biapy --others ENV/bin/python --out OUT

OUT/table.md holds all tables, OUT/rows.jsonl all rows with the name of their benchmark. Every part goes on where it was
stopped: the same command again measures only what is missing. About half a day on two quiet cores, half of it for time to
quality (one budget and one seed; `--minutes 5 10 20 --seeds 0 1 2` take days); `--parts` and the flags of the parts make it
shorter. A part whose peer is not given leaves that peer out.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fixed_memory
import inference_speed
import random_kills
import time_to_quality
import training_speed
from measuring.process import stop_in_order
from measuring.records import read_rows
from prepare import add_arguments


def run_inference(arguments: Any, out: Path) -> None:
    """Speed beside the peers, roofline, quality."""
    named = {"data": arguments.data, "biapy": arguments.biapy, "others": arguments.others, "jobs": arguments.jobs, "tools": None}
    inference_speed.run(argparse.Namespace(out=out, seconds=arguments.seconds, repetitions=arguments.repetitions, **named))


def run_training(arguments: Any, out: Path) -> None:
    """Steps per second beside BiaPy and beside the bare network."""
    training_speed.run_rounds(
        argparse.Namespace(
            data=arguments.data,
            biapy=arguments.biapy,
            out=out,
            rounds=arguments.repetitions,
            epochs=4,
            sets=list(training_speed.EDITS),
            kinds=list(training_speed.KINDS),
        )
    )


def run_quality(arguments: Any, out: Path) -> None:
    """What each tool has learnt after so many minutes."""
    tools = ["crista"] + ["biapy"] * (arguments.biapy is not None) + ["nnunet"] * (arguments.others is not None)
    named = {"data": arguments.data, "biapy": arguments.biapy, "others": arguments.others, "tools": tools}
    time_to_quality.run(
        argparse.Namespace(out=out, minutes=arguments.minutes, seeds=arguments.seeds, sets=list(time_to_quality.SETS), **named)
    )


def run_memory(arguments: Any, out: Path) -> None:
    """Volumes of 1, 4 and 16 GB."""
    limited = max(arguments.sizes)
    fixed_memory.run(argparse.Namespace(out=out, sizes=arguments.sizes, limited=limited, biapy=arguments.biapy, keep=False))


def run_kills(arguments: Any, out: Path) -> None:
    """Kills at random moments."""
    random_kills.run(argparse.Namespace(out=out, kills=arguments.kills, seed=0))


PARTS: dict[str, tuple[Callable[[Any, Path], None], str]] = {
    "inference": (run_inference, "inference"),
    "training": (run_training, "training_speed"),
    "memory": (run_memory, "fixed_memory"),
    "kills": (run_kills, "random_kills"),
    "quality": (run_quality, "time_to_quality"),
}
"""What runs a part, and the name of its rows and its table in the part's folder."""


def gather(out: Path) -> None:
    """One table and one file of rows of all parts that have any."""
    tables, rows = [], []
    for part, (_, name) in PARTS.items():
        table = out / part / f"{name}.md"
        if table.is_file():
            tables.append(table.read_text(encoding="utf-8"))
        rows += [{"benchmark": part, **row} for row in read_rows(out / part / f"{name}.jsonl")]
    (out / "table.md").write_text("\n".join(tables), encoding="utf-8")
    (out / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def main() -> None:
    """Run the parts and gather their tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_arguments(parser)
    parser.add_argument("--parts", nargs="+", choices=tuple(PARTS), default=list(PARTS))
    parser.add_argument("--seconds", type=float, default=20.0, help="inference: seconds that the images of a measurement take")
    parser.add_argument("--repetitions", type=int, default=3, help="inference, training: interleaved repetitions")
    parser.add_argument("--sizes", type=int, nargs="+", choices=(1, 4, 16), default=[1, 4, 16], help="memory: GB of the volumes")
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--minutes", type=float, nargs="+", default=[5], help="quality: budgets")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="quality")
    arguments = parser.parse_args()
    stop_in_order()
    for part in arguments.parts:
        out = arguments.out / part
        out.mkdir(parents=True, exist_ok=True)
        try:
            PARTS[part][0](arguments, out)
        finally:
            gather(arguments.out)
    print((arguments.out / "table.md").read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
