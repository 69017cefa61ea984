"""Options: flags and arguments that several commands share, and what is done with them before PyTorch is imported."""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from crista.cli.screen import Screen
from crista.errors import ConfigError, Problem, ProblemsError

DEFAULT_RESULTS = Path("crista_results")
MODEL = "a checkpoint (….pth), or the results folder of a job"
"""How a trained network is named."""

ConfigArgument = Annotated[Path | None, typer.Argument(metavar="YAML", help="The configuration; the same as --config.")]
ConfigOption = Annotated[Path | None, typer.Option("--config", metavar="YAML", help="The configuration file.")]
ResultDir = Annotated[
    Path | None,
    typer.Option(
        "--result_dir", "--result-dir", metavar="DIR", help=f"Folder of the results of all jobs. Default: ./{DEFAULT_RESULTS}"
    ),
]
Name = Annotated[
    str | None, typer.Option("--name", help="Name of the job. Default: that of the configuration file, or of the data folder.")
]
RunId = Annotated[int, typer.Option("--run_id", "--run-id", help="Number of the run; each has its own results.")]
Gpu = Annotated[
    str | None, typer.Option("--gpu", metavar="0|0,1", help="GPUs to use, as nvidia-smi counts. Default: one, if there is one.")
]


def _as_typed(changes: list[str] | None) -> list[str] | None:
    """What follows --set, which messages name."""
    if changes is None:
        return None
    from crista.config.document import Override

    return [Override(change, "--set") for change in changes]


def change_of(flag: str, key: str, value: object) -> list[str]:
    """The change of a key that `flag` stands for; none where the flag was not given."""
    if value is None:
        return []
    from crista.config.document import Override

    return [Override(f"{key}={value}", flag)]


Overrides = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        callback=_as_typed,
        help="Change one key of the configuration, e.g. TRAIN.EPOCHS=20. Repeatable.",
    ),
]


HOW_TO_SET = "keys are set with --set KEY=VALUE"
"""What is said where keys are named and no configuration was given."""


def names_a_key(*problems: Problem) -> bool:
    """Whether a key is what may have to be changed."""
    return any(re.search(r"\b[A-Z]{4,}\.[A-Z]", f"{problem.what} {problem.next_step}") for problem in problems)


@contextmanager
def telling_how_to_set() -> Iterator[None]:
    """Problems that name keys say how these are set, for commands without a configuration."""
    try:
        yield
    except ProblemsError as error:
        if not names_a_key(*error.problems):
            raise
        raise type(error)(f"{error.title}; {HOW_TO_SET}", error.problems) from error


def writable_file(path: Path | None) -> Path | None:
    """`path`; raises a usage error if no file can be written there. The callback of flags that name one."""
    from crista.images.listing import expand_home
    from crista.workflow.targets import obstacle

    if path is None:
        return None
    path = expand_home(path)  # the shell leaves the ~ of --report=~/check.html
    if path.is_dir():
        raise typer.BadParameter(f"{path} is a folder: name a file in it")
    if why := obstacle(path):
        raise typer.BadParameter(f"{path}: {why}")
    return path


def whole_numbers(flag: str, texts: Sequence[str] | None) -> list[int] | None:
    """What follows `flag`, which may be repeated: ``254,255`` or ``[254, 255]``, as the configuration reads a list."""
    if not texts:
        return None
    from crista.config.base import coerce

    numbers: list[Any] = [number for text in texts for number in coerce(text, tuple[int, ...]) or (text,)]
    wrong = [number for number in numbers if not isinstance(number, int) or isinstance(number, bool)]
    if wrong:
        text = f"{wrong[0]!r} is no whole number; write one, or several as 254,255"
        raise typer.BadParameter(text, param_hint=f"'{flag}'")
    return numbers


def is_yaml(path: Path) -> bool:
    """Whether `path` is called as a configuration is."""
    return path.suffix.lower() in (".yaml", ".yml")


def two_folders(images: Path, labels: Path | None, config: Path | None) -> tuple[Path, Path]:
    """Images and labels; raises a usage error if one is missing or a configuration is given too."""
    if config is not None:
        raise typer.BadParameter(f"{images} and a configuration: give one of them", param_hint="'--config'")
    if labels is None:
        text = f"{images} is no YAML file; if it is a folder of images, name the folder of their label images after it"
        raise typer.BadParameter(text, param_hint="'LABELS'")
    return images, labels


def refuse_labels(labels: Path | None) -> None:
    """Raise a usage error if label images are named beside a configuration."""
    if labels is not None:
        raise typer.BadParameter(f"{labels}: a configuration names the labels itself (DATA.TRAIN.GT_PATH)", param_hint="'LABELS'")


def one_config(positional: Path | None, option: Path | None) -> Path:
    """The configuration, however it was given; raises a usage error unless it was given once."""
    if positional is not None and option is not None:
        raise typer.BadParameter(f"given twice: {option} and {positional}", param_hint="'--config'")
    config = option or positional
    if config is None:
        text = "no configuration was given: name a YAML file, or make one with `crista new job.yaml`"
        raise typer.BadParameter(text, param_hint="'--config'")
    return config


def make_results_folder(result_dir: Path | None, screen: Screen) -> None:
    """Make the folder of the results, and say which it is if none was given; raises a `ConfigError` if it cannot be made."""
    if result_dir is None:
        screen.notice(f"results go to {DEFAULT_RESULTS.resolve()} (--result_dir chooses another folder)")
    from crista.images.listing import expand_home

    folder = expand_home(result_dir or DEFAULT_RESULTS)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        from crista.workflow.targets import obstacle

        what = obstacle(folder / "job") or f"{folder} cannot be made: {error.strerror}"
        raise ConfigError(
            "with the folder of the results", [Problem("--result_dir", what, "choose a folder that you may write to")]
        ) from error


def select_gpus(gpu: str | None, overrides: Sequence[str] | None) -> tuple[str, ...]:
    """Let PyTorch, which must not have used CUDA yet, see only the wanted GPUs; the overrides that follow from it.

    Each process that torchrun starts takes the GPU of its own rank.
    """
    given = tuple(overrides or ())
    if gpu is None:
        return given
    if not re.fullmatch(r"\d+(,\d+)*", gpu.replace(" ", "")):
        text = f"{gpu!r} is no list of GPU numbers, e.g. 0 or 0,1. For the processor use --set SYSTEM.DEVICE=cpu"
        raise typer.BadParameter(text, param_hint="'--gpu'")
    if any(override.upper().replace(" ", "").startswith("SYSTEM.DEVICE=") for override in given):
        raise typer.BadParameter("contradicts --set SYSTEM.DEVICE=…: give one of them", param_hint="'--gpu'")
    if not machine_has_gpus():
        return given  # `require_gpus` says that the processor is used
    os.environ["CUDA_DEVICE_ORDER"] = "PCI_BUS_ID"
    os.environ["CUDA_VISIBLE_DEVICES"] = gpu.replace(" ", "")
    return (*given, *change_of("--gpu", "SYSTEM.DEVICE", f"cuda:{os.environ.get('LOCAL_RANK', '0')}"))


def machine_has_gpus() -> bool:
    """Whether there is a GPU or a driver for one, NVIDIA's or AMD's; PyTorch is not asked, it would have to be imported."""
    return shutil.which("nvidia-smi") is not None or any(Path(device).exists() for device in ("/dev/nvidia0", "/dev/kfd"))


def require_gpus(gpu: str | None, screen: Screen) -> None:
    """Raise a `ConfigError` unless all GPUs that `select_gpus` chose are there.

    A machine without any GPU is no error: a command that names one runs there too, on the processor, and says so.
    """
    if gpu is None:
        return
    if not machine_has_gpus():
        apple = " with a number; Apple's is used if there is one (--set SYSTEM.DEVICE=cpu for the processor)"
        screen.warn(f"--gpu {gpu}: this machine has no GPU{apple if sys.platform == 'darwin' else ', the processor is used'}")
        return
    import torch  # slow, and only after CUDA_VISIBLE_DEVICES is set

    wanted = gpu.replace(" ", "").split(",")
    found = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if found < len(wanted):
        built = "" if torch.version.cuda or torch.version.hip else "; this PyTorch was installed without support for GPUs"
        what = f"{gpu} was asked for, but {found} of {len(wanted)} can be used here{built}"
        step = "`nvidia-smi` lists the GPUs of this machine; leave --gpu out to use what is there"
        raise ConfigError("with the GPU", [Problem("--gpu", what, step)])
    if len(wanted) > 1 and "RANK" not in os.environ:
        screen.warn(
            f"one process uses one GPU: only GPU {wanted[0]} of {gpu} is used. For training on all of them: "
            f"torchrun --nproc-per-node {len(wanted)} -m crista … (the same flags)"
        )
