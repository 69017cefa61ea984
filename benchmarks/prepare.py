"""Train the networks whose prediction is measured: one of crista and one of BiaPy per job, and nnU-Net's folder around crista's.

    python benchmarks/prepare.py --data DATA --biapy ENV/bin/biapy --others ENV/bin/python --out OUT

crista trains for the few epochs that `configs/inference_*.yaml` says, BiaPy for one: speed does not depend on how good the
weights are, and the other tools get crista's. What is there already is kept.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

from measuring.jobs import Job, all_jobs
from measuring.process import measure, require
from measuring.tools import CRISTA, PEERS, Interpreters, biapy_checkpoint_of, checkpoint_of, peer_env


def prepare(job: Job, data: Path, interpreters: Interpreters, prepared: Path) -> None:
    """Train what is missing for one job, and predict the reference labels."""
    once(prepared / f"done_crista_{job.name}", lambda: train_crista(job, data, prepared))
    once(prepared / f"done_eager_{job.name}", lambda: predict_eager(job, prepared))
    if interpreters.biapy is not None:
        biapy = interpreters.biapy
        once(prepared / f"done_biapy_{job.name}", lambda: train_biapy(job, data, biapy, prepared))
    if interpreters.others is not None:
        python = interpreters.others
        once(prepared / f"done_nnunet_{job.name}", lambda: make_nnunet_folder(job, python, prepared))


def once(mark: Path, work: Callable[[], None]) -> None:
    """Do `work` unless the file `mark` says that it is done."""
    if not mark.is_file():
        work()
        mark.parent.mkdir(parents=True, exist_ok=True)
        mark.touch()


def train_crista(job: Job, data: Path, prepared: Path) -> None:
    """crista's weights, which the other tools get too."""
    config = job.write_config(data, prepared / f"crista_{job.name}.yaml")
    names = ["--result_dir", str(prepared / "crista"), "--name", job.name]
    run([*CRISTA, "--config", str(config), *names], prepared / f"train_crista_{job.name}.log")


def train_biapy(job: Job, data: Path, biapy: Path, prepared: Path) -> None:
    """BiaPy's weights, after one epoch."""
    config = job.write_config(data, prepared / f"biapy_{job.name}.yaml")
    lines = ["  EPOCHS: 1" if line.startswith("  EPOCHS:") else line for line in config.read_text().splitlines()]
    config.write_text("\n".join(lines) + "\n")
    names = ["--result_dir", str(prepared / "biapy"), "--name", job.name, "--run_id", "1"]
    log = prepared / f"train_biapy_{job.name}.log"
    run([str(biapy), "--config", str(config), *names], log, {"PYTHONPATH": ""})
    if not biapy_checkpoint_of(job, prepared).is_file():
        raise SystemExit(f"BiaPy left no checkpoint, see {log}")


def predict_eager(job: Job, prepared: Path) -> None:
    """Labels of the plain network in eager float32, whole images: what every other engine is compared with."""
    command = [CRISTA[0], str(PEERS / "eager_predict.py"), str(checkpoint_of(job, prepared)), str(job.folder / "test" / "x")]
    run([*command, str(reference_of(job, prepared))], prepared / f"eager_{job.name}.log", peer_env(prepared))


def make_nnunet_folder(job: Job, python: Path, prepared: Path) -> None:
    """The model folder that nnU-Net's command takes."""
    command = [
        str(python),
        str(PEERS / "nnunet_network.py"),
        str(checkpoint_of(job, prepared)),
        str(prepared / f"nnunet_{job.name}"),
    ]
    run([*command, "--patch", *map(str, job.patch)], prepared / f"nnunet_{job.name}.log", peer_env(prepared))


def reference_of(job: Job, prepared: Path) -> Path:
    """Folder of the reference labels."""
    return prepared / f"eager_{job.name}"


def run(command: Sequence[str], log: Path, env: dict[str, str] | None = None) -> None:
    """Run a command that has to succeed."""
    print(f"{log.stem} …", flush=True)
    require(measure(command, log, env=env), log, log.stem)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags that all benchmarks of prediction share."""
    parser.add_argument("--data", type=Path, required=True, help="folder of the data sets")
    parser.add_argument("--biapy", type=Path, help="the command biapy of an environment with BiaPy 3.7.1")
    parser.add_argument("--others", type=Path, help="the Python of an environment with nnU-Net v2 and MONAI")
    parser.add_argument("--out", type=Path, required=True, help="folder of everything that is made")
    parser.add_argument("--jobs", nargs="+", choices=("2d", "3d"), default=["2d", "3d"])


def main() -> None:
    """Prepare the jobs."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_arguments(parser)
    arguments = parser.parse_args()
    jobs = all_jobs(arguments.data)
    for name in arguments.jobs:
        prepare(jobs[name], arguments.data, Interpreters(arguments.biapy, arguments.others), arguments.out / "prepared")


if __name__ == "__main__":
    main()
