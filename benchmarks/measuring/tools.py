"""The tools beside each other: how each is started on a folder of images, and where its label images are afterwards."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from measuring.jobs import Job

PEERS = Path(__file__).parents[1] / "peers"
CRISTA = (sys.executable, "-m", "crista")
ENGINES = ("torch", "openvino", "onnxruntime", "fastest")
"""Values of TEST.ENGINE beside the default."""


@dataclass(frozen=True)
class Tool:
    """One tool on one job."""

    name: str
    command: Callable[[Path, Path, Path], list[str]]
    """Called with the folders of the images, of their labels, and of the results."""
    prediction: Callable[[Path, int], Path]
    """The file with the prediction of image number i, in the folder of the results."""
    env: Mapping[str, str] = field(default_factory=dict)
    probabilities: bool = False
    """The file holds probabilities of the foreground."""
    nnunet_names: bool = False
    same_weights: bool = True
    """It runs crista's network with crista's weights."""
    least: int = 2
    """Images of a measurement at the least. crista decides by the size of a job what is worth probing, so it gets more."""
    optional: bool = False
    """It may be missing: an engine that is not installed or that this crista does not know."""


@dataclass(frozen=True)
class Interpreters:
    """Where the other tools live."""

    biapy: Path | None
    """The command biapy."""
    others: Path | None
    """The Python with MONAI and nnU-Net; their commands are beside it."""


def build_tools(job: Job, interpreters: Interpreters, prepared: Path) -> list[Tool]:
    """All tools for a job; `prepared` holds checkpoints and configurations (see `prepare.py`)."""
    tools = [crista_tool(job, prepared, None), *(crista_tool(job, prepared, engine) for engine in ENGINES)]
    if interpreters.biapy is not None:
        tools += [biapy_tool(job, interpreters.biapy, prepared, name) for name in job.paddings]
    if interpreters.others is not None:
        tools += [monai_tool(job, interpreters.others, prepared), nnunet_tool(job, interpreters.others, prepared)]
    return tools


def crista_tool(job: Job, prepared: Path, engine: str | None) -> Tool:
    """`crista predict`, with the engine that it chooses or one that is named."""
    checkpoint = checkpoint_of(job, prepared)
    choice = ["--set", f"TEST.ENGINE={engine}"] if engine else []

    def command(images: Path, labels: Path, out: Path) -> list[str]:
        names = ["--labels", str(labels), "--result_dir", str(out), "--name", "timed"]
        return [*CRISTA, "predict", str(checkpoint), str(images), *names, *choice]

    def prediction(out: Path, index: int) -> Path:
        return out / f"timed/results/timed_1/per_image_binarized/{index:04}.tif"

    return Tool(f"crista {engine}" if engine else "crista", command, prediction, least=9, optional=engine is not None)


def biapy_tool(job: Job, biapy: Path, prepared: Path, name: str = "BiaPy") -> Tool:
    """BiaPy's test phase with its own network of the same layers, and one of the paddings of the job."""

    def command(images: Path, labels: Path, out: Path) -> list[str]:
        out.mkdir(parents=True, exist_ok=True)
        config = write_biapy_test(job, prepared, (images, labels), job.paddings[name], out / "test.yaml")
        return [str(biapy), "--config", str(config), "--result_dir", str(out), "--name", "timed", "--run_id", "1"]

    def prediction(out: Path, index: int) -> Path:
        return out / f"timed/results/timed_1/per_image/{index:04}.tif"

    return Tool(name, command, prediction, env={"PYTHONPATH": ""}, probabilities=True, same_weights=False)


def write_biapy_test(job: Job, prepared: Path, folders: tuple[Path, Path], padding: tuple[int, ...], path: Path) -> Path:
    """The YAML of the training, changed to test only, on folders of images and labels."""
    from ruamel.yaml import YAML

    yaml = YAML(typ="safe")
    yaml.default_flow_style = False
    tree = yaml.load(prepared / f"biapy_{job.name}.yaml")
    tree["TRAIN"]["ENABLE"] = False
    tree["TEST"] = {"ENABLE": True}
    tree["DATA"]["TEST"] = {"PATH": str(folders[0]), "GT_PATH": str(folders[1]), "LOAD_GT": True, "PADDING": str(padding)}
    tree["MODEL"]["LOAD_CHECKPOINT"] = True
    tree["PATHS"] = {"CHECKPOINT_FILE": str(biapy_checkpoint_of(job, prepared))}
    yaml.dump(tree, path)
    return path


def monai_tool(job: Job, python: Path, prepared: Path) -> Tool:
    """MONAI's sliding window over crista's network."""

    def command(images: Path, _labels: Path, out: Path) -> list[str]:
        start = [
            str(python),
            str(PEERS / "monai_predict.py"),
            str(checkpoint_of(job, prepared)),
            str(images),
            str(out / "labels"),
        ]
        return [*start, "--window", *map(str, job.patch)]

    return Tool("MONAI", command, lambda out, index: out / f"labels/{index:04}.tif", env=peer_env(prepared))


def nnunet_tool(job: Job, python: Path, prepared: Path) -> Tool:
    """nnU-Net's predict command with its defaults over crista's network."""

    def command(images: Path, _labels: Path, out: Path) -> list[str]:
        model = prepared / f"nnunet_{job.name}"
        start = [str(python.parent / "nnUNetv2_predict_from_modelfolder"), "-i", str(images), "-o", str(out / "labels")]
        return [*start, "-m", str(model), "-f", "0", "-device", "cpu"]

    def prediction(out: Path, index: int) -> Path:
        return out / f"labels/{index:04}.tif"

    return Tool("nnU-Net", command, prediction, env=peer_env(prepared), nnunet_names=True)


def checkpoint_of(job: Job, prepared: Path) -> Path:
    """crista's network of a job."""
    return prepared / f"crista/{job.name}/checkpoints/{job.name}_1-checkpoint-best.pth"


def biapy_checkpoint_of(job: Job, prepared: Path) -> Path:
    """BiaPy's network of a job."""
    return prepared / f"biapy/{job.name}/checkpoints/{job.name}_1-checkpoint-best.pth"


def peer_env(prepared: Path) -> dict[str, str]:
    """Lets another interpreter import the package crista and nothing else from crista's environment, and nnU-Net be silent."""
    import crista

    folder = prepared / "crista_source"
    folder.mkdir(parents=True, exist_ok=True)
    link, source = folder / "crista", Path(crista.__file__).parent
    if not link.is_symlink() or link.readlink() != source:
        link.unlink(missing_ok=True)
        link.symlink_to(source)
    paths = {f"nnUNet_{kind}": str(folder) for kind in ("raw", "preprocessed", "results")}
    return {"PYTHONPATH": f"{folder}:{PEERS}", "PYTHONDONTWRITEBYTECODE": "1", **paths}
