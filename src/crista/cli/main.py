"""The command `crista`: which commands there are, and how errors end."""

from __future__ import annotations

import difflib
import errno
import io
import os
import re
import sys
from collections.abc import Sequence
from typing import Annotated, Any, cast

import typer

import crista
from crista.cli import checking, inspection, jobs, new, options
from crista.cli.cluster import jobscript, with_workers
from crista.cli.flags import with_budget, with_start
from crista.cli.note import note
from crista.errors import CristaError
from crista.plan.allocator import spare_addresses

USAGE_ERROR = cast("type[Exception]", typer.BadParameter.__mro__[1])
"""The base of all errors in the use of flags; typer does not name it itself."""
USERS_ERRNO = {
    *(errno.EACCES, errno.EPERM, errno.ENOSPC, errno.EROFS, errno.EDQUOT, errno.ENOTDIR, errno.EISDIR, errno.EIO),
    *(errno.EFBIG, errno.ENAMETOOLONG, errno.ESTALE),
}
"""Failures of the file system that are no fault of the program."""
NO_MEMORY = re.compile(r"can't allocate memory|not enough memory: you|out of memory|bad[_ ]alloc|[Ff]ailed to allocate memory")
"""What PyTorch (on Windows and on an Apple GPU in other words), OpenVINO and ONNX Runtime say: errors of no kind of their own."""
LONG_PATH = 240
"""Characters from which on a file that Windows does not find may have too long a path."""
LAUNCHER_FLAGS = ("--world_size", "--local_rank", "--dist_url", "--dist_backend", "--dist_on_itp")
"""Flags of BiaPy for several processes."""
SPINS = "10000"
"""How often a thread without work looks for some before it sleeps. The 300 000 of GNU OpenMP gain nothing measurable over it,
and make two programs on the same cores hold each other up: both took 4.5 times as long, where their fair share is 2."""

app = typer.Typer(
    name="crista",
    help="Semantic segmentation for microscopy: folders of images and labels in; network, label images and figures out.",
    epilog="Start: crista train IMAGES LABELS; or crista new job.yaml, then crista --config job.yaml. See it work: crista demo.",
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["--help", "-h"]},
)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"crista {crista.__version__}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
@with_workers
@with_budget
def start(
    context: typer.Context,
    config: options.ConfigOption = None,
    result_dir: options.ResultDir = None,
    name: options.Name = None,
    run_id: options.RunId = 1,
    gpu: options.Gpu = None,
    override: options.Overrides = None,
    version: Annotated[  # noqa: ARG001 - typer calls its callback
        bool, typer.Option("--version", "-v", callback=_show_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Without a command: run the job that --config describes."""
    flags = [result_dir, name, gpu, override, run_id if run_id != 1 else None]
    if context.invoked_subcommand is None:
        if config is None and not any(flag is not None for flag in flags):
            typer.echo(context.get_help())
            return
        jobs.run(None, config, result_dir, name, run_id, gpu, override)
    elif config is not None or any(flag is not None for flag in flags):
        command = context.invoked_subcommand
        raise typer.BadParameter(f"give flags after the command: crista {command} …", param_hint=f"'{command}'")


for command in (
    with_workers(with_budget(jobs.run)),
    with_start(with_budget(jobs.train)),
    with_workers(jobs.predict),
    inspection.evaluate,
    new.new,
    checking.check,
    with_start(with_budget(inspection.plan)),
    inspection.explain,
    jobscript,
    jobs.demo,
):
    app.command()(command)

COMMANDS = tuple(command.callback.__name__ for command in app.registered_commands if command.callback is not None)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code: 0, 1 after an error, 2 after wrong flags, 130 after Ctrl-C.

    What is no error of the user is raised, with a note that says so.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a µ or × must not end a run where the terminal has none
    _let_threads_sleep()
    spare_addresses()
    given = list(sys.argv[1:] if arguments is None else arguments)
    if given and not given[0].startswith("-") and given[0] not in COMMANDS:
        return _refuse_command(given[0])
    try:
        with note(_bug_note):
            code = typer.main.get_command(app).main(args=given, prog_name="crista", standalone_mode=False)
    except CristaError as error:
        return _complain(str(error))
    except USAGE_ERROR as error:
        return _complain_usage(error)
    except typer.Abort:
        print("\nstopped, nothing was written", file=sys.stderr)
        return 130
    except (OSError, RuntimeError, MemoryError) as error:
        message = _explain_machine(error)
        if not message:
            raise
        return _complain(message)
    return code if isinstance(code, int) else 0


def _explain_machine(error: Exception) -> str:
    """Words for a full disk, missing rights, or a full memory; empty for anything else."""
    if isinstance(error, OSError) and error.errno in USERS_ERRNO:
        named = error.filename2 or error.filename  # a file is written aside and renamed: to the second
        where = f"{named}: " if named else ""
        small = " (disks formatted as FAT32 hold files of up to 4 GB)" if error.errno == errno.EFBIG else ""
        busy = "close the programs that have it open (Excel, Fiji, a preview); or " if _may_be_open(error) else ""
        return f"{where}{error.strerror}\n    -> {busy}check the folder, its rights, and the room on the disk{small}"
    if isinstance(error, FileNotFoundError) and sys.platform == "win32" and len(str(error.filename)) > LONG_PATH:
        what = f"{error.filename}: the path has {len(str(error.filename))} characters, and Windows takes 260 as a rule"
        return f"{what}\n    -> put results and images in folders with shorter names (--result_dir C:\\results)"
    if isinstance(error, OSError) and re.search(r"\d+ requested and \d+ written", str(error)):  # NumPy keeps why to itself
        return f"an array could not be written whole ({error})\n    -> check the room on the disk of the results"
    on_gpu = type(error).__name__ == "OutOfMemoryError" or str(error).startswith(("CUDA", "MPS"))
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError" or _has_no_memory(error):
        what = str(error).partition("\n")[0] or "no more memory"
        # Tiles on a GPU go by what is free there.
        to_predict = "the processor (SYSTEM.DEVICE: cpu)" if on_gpu else "TEST.MAX_MEMORY"
        step = f"lower TRAIN.BATCH_SIZE or DATA.PATCH_SIZE to train, {to_predict} to predict, or close other programs"
        return f"the memory is full: {what}\n    -> {step}"
    return ""


def _may_be_open(error: OSError) -> bool:
    """Whether another program may be in the way: Windows replaces and removes no file that is open."""
    return sys.platform == "win32" and isinstance(error, PermissionError)


def _has_no_memory(error: Exception) -> bool:
    """Whether an error of no kind of its own is one of memory."""
    return error.errno == errno.ENOMEM if isinstance(error, OSError) else bool(NO_MEMORY.search(str(error)))


def _bug_note() -> str:
    return (
        "This is a bug of crista, not a mistake of yours. Please report it with the lines above, the command and the "
        f"version (crista {crista.__version__})."
    )


def _complain(message: str) -> int:
    print(f"error: {message}", file=sys.stderr)
    return 1


def _complain_usage(error: Any) -> int:
    error.show()
    if any(f" {flag}" in error.format_message() for flag in LAUNCHER_FLAGS):
        print("Processes that torchrun started are recognised without flags: leave this one out.", file=sys.stderr)
    return 2


def _let_threads_sleep() -> None:
    """Tell GNU OpenMP, which PyTorch uses on Linux and which reads this when it is loaded, not to spin for long."""
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", SPINS)


def _refuse_command(word: str) -> int:
    """A word that is no command: a YAML file, or a slip of the finger."""
    print(f"error: there is no command {word!r}", file=sys.stderr)
    near = difflib.get_close_matches(word.lower(), COMMANDS, 1, 0.5)
    if word.lower().endswith((".yaml", ".yml")):
        print(f"    -> to run a configuration: crista --config {word}", file=sys.stderr)
    elif near:
        print(f"    -> did you mean {near[0]}?", file=sys.stderr)
    else:
        print(f"    -> choose one of {', '.join(COMMANDS)}, or see crista --help", file=sys.stderr)
    return 2
