"""New: make the configuration of a job, from flags or by asking questions in a terminal."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from crista.cli.screen import Screen

if TYPE_CHECKING:
    from crista.images.check import DatasetReport
    from crista.workflow.new import Folders

Answer = TypeVar("Answer")


def new(
    path: Annotated[Path | None, typer.Argument(metavar="YAML", help="The file to write. Default: job.yaml.")] = None,
    ndim: Annotated[str | None, typer.Option(metavar="2D|3D", help="Images or volumes. Default: seen from the data.")] = None,
    classes: Annotated[
        str | None,
        typer.Option(metavar="N|NAMES", help="Number of classes, background included, or names: background,cell."),
    ] = None,
    train_images: Annotated[Path | None, typer.Option(metavar="DIR", help="Images to learn from.")] = None,
    train_labels: Annotated[Path | None, typer.Option(metavar="DIR", help="Their label images, of the same names.")] = None,
    test_images: Annotated[Path | None, typer.Option(metavar="DIR", help="Images to predict.")] = None,
    test_labels: Annotated[Path | None, typer.Option(metavar="DIR", help="Their label images, to measure against.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite the file.")] = False,
) -> None:
    """Make a configuration; without flags in a terminal it asks."""
    from crista.images.wording import command_line
    from crista.workflow.new import Folders
    from crista.workflow.new import new as write_new

    screen = Screen()
    folders = Folders(train_images, train_labels, test_images, test_labels)
    spatial = None if ndim is None else _read_ndim(ndim)
    named = None if classes is None else _read_classes(classes)
    if spatial is None and named is None and not any(vars(folders).values()):
        if not sys.stdin.isatty():
            raise typer.BadParameter(
                "nothing to ask in here (no terminal): give --train-images and --train-labels, or --ndim and --classes; "
                "see crista new --help",
                param_hint="'crista new'",
            )
        path, folders, spatial, named = ask(path, screen, force=force)
    written = write_new(path or Path("job.yaml"), folders=folders, ndim=spatial, classes=named, force=force)
    screen.line(f"written: {written}", "green")
    if not any(vars(folders).values()):
        screen.line("fill in the folders: every /path/to/… in it stands for one of yours")
    then = ["crista", "--config", str(written), "--result_dir", "crista_results", "--name", written.stem]
    screen.line(f"next: {command_line(['crista', 'check', str(written)])}")
    screen.line(f"then: {command_line(then)}")


def ask(path: Path | None, screen: Screen, *, force: bool) -> tuple[Path, Folders, int, int | Sequence[str]]:
    """File, folders, dimensions and classes as the user answers; what the images tell is offered as the answer."""
    from crista.workflow.new import Folders, check_target, count_classes

    screen.line("A new job. Enter takes the answer in brackets; Ctrl-C stops, and nothing is written.")

    def read_target(answer: str) -> Path:
        target = Path(answer).expanduser()
        check_target(target, force=force)
        return target

    if path is None:
        path = _ask("File to write", read_target, screen, default="job.yaml")
    check_target(path, force=force)
    train_images = _ask_folder("Folder of training images", screen)
    train_labels = _ask_folder("Folder of their label images", screen) if train_images else None
    test_images = _ask_folder("Folder of images to predict", screen, optional=train_images is not None)
    test_labels = _ask_folder("Folder of their label images, to measure", screen, optional=True) if test_images else None
    folders = Folders(train_images, train_labels, test_images, test_labels)
    seen = _look(folders, screen)
    ndim = _ask("Images (2D) or volumes (3D)", _read_ndim, screen, default=f"{seen.ndim or 2}D")
    question = "Classes, background included (their number, or their names with commas)"
    return path, folders, ndim, _ask(question, _read_classes, screen, default=str(count_classes(seen) or 2))


def _ask(question: str, read: Callable[[str], Answer], screen: Screen, default: str = "") -> Answer:
    """The answer as `read` understands it; what it raises is told, and asked again."""
    from crista.errors import ProblemsError

    while True:
        text = str(typer.prompt(question, default=default, show_default=bool(default))).strip().strip("'\"")
        try:
            return read(text)
        except typer.BadParameter as error:
            screen.problem(error.message)
        except ProblemsError as error:
            for problem in error.problems:
                screen.problem(str(problem))


def _ask_folder(question: str, screen: Screen, *, optional: bool = False) -> Path | None:
    """A folder with images; None only if it is optional."""
    from crista.images.listing import list_images
    from crista.images.wording import plural

    def read(answer: str) -> Path | None:
        if not answer and not optional:
            raise typer.BadParameter("name a folder, or an image")
        if not answer:
            return None
        folder = Path(answer).expanduser()
        found = list_images(folder)
        last = f" … {found[-1].name}" if len(found) > 1 else ""
        screen.notice(f"  {plural(len(found), 'image')}: {found[0].name}{last}")
        return folder

    return _ask(f"{question}{' (Enter: none)' if optional else ''}", read, screen)


def _look(folders: Folders, screen: Screen) -> DatasetReport:
    from crista.workflow.new import describe_data, look

    screen.notice("  reading …")
    seen = look(folders)
    for problem in seen.problems:
        screen.problem(str(problem))
    for warning in seen.warnings:
        screen.warn(str(warning))
    screen.notice(f"  {describe_data(seen) or 'no image could be read'}")
    return seen


def _read_ndim(text: str) -> int:
    if text.strip().upper() not in ("2", "3", "2D", "3D"):
        raise typer.BadParameter(f"{text!r} is neither 2D (images) nor 3D (volumes)", param_hint="'--ndim'")
    return int(text.strip()[0])


def _read_classes(text: str) -> int | Sequence[str]:
    from crista.workflow.check import check_names

    names = [name.strip() for name in text.split(",") if name.strip()]
    if len(names) == 1 and names[0].isdecimal() and int(names[0]) >= 2:
        return int(names[0])
    if len(names) < 2:
        what = f"{text!r}: at least 2 classes are needed, the background is one; e.g. 2, or background,cell"
        raise typer.BadParameter(what, param_hint="'--classes'")
    for problem in check_names("", names):
        raise typer.BadParameter(str(problem), param_hint="'--classes'")
    return names
