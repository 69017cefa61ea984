"""Prediction beside the peers: seconds per image of whole commands without their start-up, memory, and how good the labels are.

    python benchmarks/inference_speed.py --data DATA --biapy ENV/bin/biapy --others ENV/bin/python --out OUT

Two jobs: a 2D U-Net 16..256 on 10 images of 512 x 512, a 3D U-Net 16..128 on a volume of 20 x 368 x 160. Every tool reads
the TIFF files of a folder and writes its label images into another:

* crista: `crista predict`, with the engine that it chooses, and with each engine that can be named;
* BiaPy: its test phase on the same YAML with its default tiles (patch, padding), its own weights of one epoch;
* MONAI: `sliding_window_inference`, overlap 0.25, Gaussian weights; nnU-Net: `nnUNetv2_predict_from_modelfolder` with all
  its defaults (half a patch of overlap, Gaussian weights, mirroring). Both run crista's network with crista's weights.

crista and BiaPy measure against the labels as well, since their users' commands do; MONAI and nnU-Net do not.

Time: each command runs on N copies of the test images and on n = N / 8 of them (at least one); the time per image is
(wall of N - wall of n) / (N - n). What is done once (imports, compiling, probing engines, worker processes, report) is start-up
for every tool alike, what is done for each image is not. N is chosen per tool so that the images take at least `--seconds`;
where the runs that this needs had N images already, they are the first repetition. Repetitions are interleaved; right before each
the speed of a matrix product is measured. What is measured already in OUT is not measured again.
"""

from __future__ import annotations

import argparse
import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from inference_table import write_tables
from measuring.crista_log import read_split
from measuring.jobs import Job, all_jobs, iter_copies, make_copies
from measuring.labels import Labels, differing_percent, foreground_iou, read_labels
from measuring.machine import gemm_gflops
from measuring.process import Usage, measure, require, stop_in_order
from measuring.records import Records
from measuring.timing import few_of, images_for, split_startup
from measuring.tools import CRISTA, PEERS, Interpreters, Tool, biapy_tool, build_tools, checkpoint_of, peer_env
from prepare import add_arguments, prepare, reference_of

MOST_IMAGES = 400


@dataclass(frozen=True)
class Bench:
    """Where everything is."""

    out: Path
    records: Records
    seconds: float

    @property
    def prepared(self) -> Path:
        """Checkpoints and configurations."""
        return self.out / "prepared"

    def results_of(self, job: Job, tool: Tool) -> Path:
        """What a tool wrote last."""
        return self.out / "results" / f"{job.name}_{tool.name.replace(' ', '_')}"

    def log_of(self, job: Job, tool: Tool) -> Path:
        """What a tool said last."""
        return self.out / "logs" / f"{job.name}_{tool.name.replace(' ', '_')}.log"


def run_tool(bench: Bench, job: Job, tool: Tool, count: int) -> Usage:
    """Run a tool on `count` images, with nothing left of its last run."""
    images, labels = make_copies(job, count, bench.out / "copies", nnunet_names=tool.nnunet_names)
    results = bench.results_of(job, tool)
    shutil.rmtree(results, ignore_errors=True)
    results.mkdir(parents=True)
    env = {**tool.env, "NETWORK_SECONDS": str(results / "network.json")}
    return measure(tool.command(images, labels, results), bench.log_of(job, tool), env=env)


def choose_count(bench: Bench, job: Job, tool: Tool) -> int:
    """How many images a tool gets in every repetition; 0 if this tool cannot be had."""
    known = bench.records.find(kind="count", job=job.name, tool=tool.name)
    if known is not None:
        return int(known["images"])
    key = {"kind": "count", "job": job.name, "tool": tool.name}
    one, least = run_tool(bench, job, tool, 1), len(job.images) + 1
    if one.code and tool.optional:
        reason = why_absent(bench.log_of(job, tool).read_text(errors="replace"))
        bench.records.add({**key, "images": 0, "reason": reason})
        return 0
    require(one, bench.log_of(job, tool), tool.name)
    some = require(run_tool(bench, job, tool, least), bench.log_of(job, tool), tool.name)
    per_image = split_startup((1, one.wall), (least, some.wall)).per_image
    count = images_for(bench.seconds, per_image, least=least, most=MOST_IMAGES)
    bench.records.add({**key, "images": count})
    if count == least:
        bench.records.add(speed_row(bench, job, tool, (1, one), (count, some)) | {"repetition": 1, "gemm": None})
    return count


def why_absent(log: str) -> str:
    """The line of a log that speaks of the engine, else its last one."""
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    return next((line for line in lines if "ENGINE" in line), lines[-1] if lines else "it said nothing")


def repeat(bench: Bench, job: Job, tool: Tool, repetition: int) -> None:
    """One measurement of one tool: on one image and on many."""
    key = {"kind": "speed", "job": job.name, "tool": tool.name, "repetition": repetition}
    count = choose_count(bench, job, tool)
    if not count or bench.records.find(**key) is not None:
        return
    gemm, log, few = gemm_gflops(), bench.log_of(job, tool), few_of(count)
    shorter = require(run_tool(bench, job, tool, few), log, tool.name)
    longer = require(run_tool(bench, job, tool, count), log, tool.name)
    row = speed_row(bench, job, tool, (few, shorter), (count, longer))
    bench.records.add(row | {"repetition": repetition, "gemm": gemm})
    shutil.rmtree(bench.results_of(job, tool))


def speed_row(bench: Bench, job: Job, tool: Tool, few: tuple[int, Usage], many: tuple[int, Usage]) -> dict[str, Any]:
    """What a run on few images and a run on many, whose results lie there, say about a tool."""
    count, usage = many
    split = split_startup((few[0], few[1].wall), (count, usage.wall))
    processor = split_startup((few[0], few[1].cpu), (count, usage.cpu))
    return {
        "kind": "speed",
        "job": job.name,
        "tool": tool.name,
        "images": count,
        "per_image": split.per_image,
        "startup": split.startup,
        "cpu_per_image": processor.per_image,
        "voxels": job.voxels,
        "few": few[0],
        "wall_few": few[1].wall,
        "wall_many": usage.wall,
        "peak_process": usage.peak_process,
        "peak_tree": usage.peak_tree,
        "peak_anonymous": usage.peak_anonymous,
        **quality(bench, job, tool, count),
        **network_seconds(bench.results_of(job, tool), count),
    }


def quality(bench: Bench, job: Job, tool: Tool, count: int) -> dict[str, float]:
    """IoU of the foreground over the test images; for the same weights also the pixels that differ from eager float32."""
    pairs: list[tuple[Labels, Labels]] = []
    reference: list[tuple[Labels, Labels]] = []
    for index, image in list(iter_copies(job, count))[: len(job.images)]:
        path = tool.prediction(bench.results_of(job, tool), index)
        predicted = read_labels(path, job.shape, probabilities=tool.probabilities)
        pairs.append(((np.asarray(tifffile.imread(job.label_of(image))) > 0).astype(np.uint8), predicted))
        if tool.same_weights:
            reference.append((read_labels(reference_of(job, bench.prepared) / image.name, job.shape), predicted))
    scores = {"iou": foreground_iou(pairs)}
    return {**scores, "differs": differing_percent(reference)} if reference else scores


def network_seconds(results: Path, count: int) -> dict[str, Any]:
    """Seconds per image inside the network, and voxels through it per voxel of the image, where a tool counted them."""
    log, counted = results / "timed/results/timed_1/log.txt", results / "network.json"
    if log.is_file():
        split = read_split(log.read_text(encoding="utf-8"))
        if split is None:
            return {}
        return {"network_per_image": split.network / count, "work_factor": split.work_factor, "engine": split.engine}
    if counted.is_file():
        figures = json.loads(counted.read_text())
        return {"network_per_image": figures["seconds"] / count, "network_voxels": figures["voxels"] / count}
    return {}


def measure_ceilings(bench: Bench, job: Job, repetition: int) -> None:
    """The engines alone, on a whole image and on a patch, in the middle of a repetition."""
    key = {"kind": "ceiling", "job": job.name, "repetition": repetition}
    if bench.records.find(**key) is not None:
        return
    out = bench.out / f"logs/ceilings_{job.name}.json"
    shapes = [word for shape in (job.shape, job.patch) for word in ("--shape", "1", "1", *map(str, shape))]
    script = str(Path(__file__).parent / "roofline.py")
    command = [CRISTA[0], script, str(checkpoint_of(job, bench.prepared)), *shapes, "--out", str(out)]
    require(measure(command, out.with_suffix(".log")), out.with_suffix(".log"), "roofline.py")
    bench.records.add({**key, **json.loads(out.read_text())})


def profile_biapy(bench: Bench, job: Job, biapy: Path) -> None:
    """One run of BiaPy with clocks inside, for what is network and what is not."""
    key = {"kind": "profile", "job": job.name}
    if bench.records.find(**key) is not None:
        return
    tool = biapy_tool(job, biapy, bench.prepared)
    count = choose_count(bench, job, tool)
    images, labels = make_copies(job, count, bench.out / "copies")
    results, log = bench.out / f"results/{job.name}_profile", bench.out / f"logs/{job.name}_profile.log"
    shutil.rmtree(results, ignore_errors=True)
    report = results / "profile.json"
    flags = tool.command(images, labels, results)[1:]
    command = [str(biapy.parent / "python"), str(PEERS / "biapy_profile.py"), str(report), *flags]
    require(measure(command, log, env=tool.env), log, "biapy_profile.py")
    bench.records.add({**key, "images": count, **json.loads(report.read_text())})


def run_all(bench: Bench, jobs: list[Job], interpreters: Interpreters, repetitions: int, only: list[str] | None) -> None:
    """All repetitions of all tools on all jobs, and the tables after each."""
    for repetition in range(1, repetitions + 1):
        for job in jobs:
            tools = build_tools(job, interpreters, bench.prepared)
            measure_ceilings(bench, job, repetition)
            for tool in tools:
                if only is None or tool.name in only:
                    repeat(bench, job, tool, repetition)
                    write_tables(bench.records, bench.out / "inference.md")
            if interpreters.biapy is not None and (only is None or "BiaPy" in only):
                profile_biapy(bench, job, interpreters.biapy)
    write_tables(bench.records, bench.out / "inference.md")


def main() -> None:
    """Prepare and measure what is missing."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_arguments(parser)
    parser.add_argument("--seconds", type=float, default=20.0, help="seconds that the images of a measurement take at least")
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--tools", nargs="+", help="only these, e.g. crista 'crista openvino' BiaPy MONAI nnU-Net")
    stop_in_order()
    run(parser.parse_args())


def run(arguments: Any) -> None:
    """Prepare and measure what is missing, as the flags say."""
    interpreters = Interpreters(arguments.biapy, arguments.others)
    bench = Bench(arguments.out, Records(arguments.out / "inference.jsonl"), arguments.seconds)
    jobs = [all_jobs(arguments.data)[name] for name in arguments.jobs]
    for job in jobs:
        peer_env(bench.prepared)
        prepare(job, arguments.data, interpreters, bench.prepared)
    run_all(bench, jobs, interpreters, arguments.repetitions, arguments.tools)


if __name__ == "__main__":
    main()
