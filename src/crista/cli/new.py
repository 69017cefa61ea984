"""New: make the configuration of a job, from flags or by asking questions in a terminal."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from crista.cli.screen import Screen

if TYPE_CHECKING:
    from crista.images.check import DatasetReport
    from crista.workflow.new import Folders

Folder = Annotated[Path | None, typer.Option(metavar="DIR")]


def new(
    path: Annotated[Path | None, typer.Argument(metavar="YAML", help="The file to write.")] = None,
    ndim: Annotated[str | None, typer.Option(metavar="2D|3D", help="Images or volumes. Default: seen from the data.")] = None,
    classes: Annotated[
        str | None,
        typer.Option(metavar="N|NAMES", help="Number of classes, background included, or names: background,cell."),
    ] = None,
    train_images: Folder = None,
    train_labels: Folder = None,
    test_images: Folder = None,
    test_labels: Folder = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite the file.")] = False,
) -> None:
    """Make a configuration; without flags in a terminal it asks."""
    from crista.workflow.new import Folders
    from crista.workflow.new import new as write_new

    screen = Screen()
    folders = Folders(train_images, train_labels, test_images, test_labels)
    spatial, named = _read_ndim(ndim), _read_classes(classes)
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
    screen.line(f"next: crista check {written}")
    screen.line(f"then: crista --config {written} --result_dir crista_results --name {written.stem}")


def ask(path: Path | None, screen: Screen, *, force: bool) -> tuple[Path, Folders, int, int | Sequence[str]]:
    """File, folders, dimensions and classes as the user answers; what the images tell is offered as the answer."""
    from crista.workflow.new import Folders, check_target

    screen.line("A new job. Enter takes the answer in brackets; Ctrl-C stops, and nothing is written.")
    if path is None:
        path = Path(str(typer.prompt("File to write", default="job.yaml")))
    check_target(path, force=force)
    train_images = _ask_folder("Folder of training images", screen)
    train_labels = _ask_folder("Folder of their label images", screen) if train_images else None
    test_images = _ask_folder("Folder of images to predict", screen, optional=train_images is not None)
    test_labels = _ask_folder("Folder of their label images, to measure", screen, optional=True) if test_images else None
    folders = Folders(train_images, train_labels, test_images, test_labels)
    seen = _look(folders, screen)
    ndim = _ask_ndim(seen)
    return path, folders, ndim, _ask_classes(seen)


def _ask_folder(question: str, screen: Screen, *, optional: bool = False) -> Path | None:
    """A folder with images; asks again until there is one."""
    from crista.errors import DataError
    from crista.images.listing import list_images

    while True:
        suffix = " (Enter: none)" if optional else ""
        answer = str(typer.prompt(f"{question}{suffix}", default="", show_default=False)).strip().strip("'\"")
        if not answer:
            if optional:
                return None
            continue
        folder = Path(answer).expanduser()
        try:
            found = list_images(folder)
        except DataError as error:
            for problem in error.problems:
                screen.problem(str(problem))
            continue
        last = f" … {found[-1].name}" if len(found) > 1 else ""
        screen.notice(f"  {len(found)} image{'s' * (len(found) != 1)}: {found[0].name}{last}")
        return folder


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


def _ask_ndim(seen: DatasetReport) -> int:
    default = f"{seen.ndim}D" if seen.ndim else "2D"
    while True:
        answer = str(typer.prompt("Images (2D) or volumes (3D)", default=default)).strip().upper()
        if answer.rstrip("D") in ("2", "3"):
            return int(answer[0])


def _ask_classes(seen: DatasetReport) -> int | Sequence[str]:
    from crista.workflow.new import count_classes

    while True:
        default = str(count_classes(seen) or 2)
        answer = str(typer.prompt("Classes, background included (their number, or their names with commas)", default=default))
        try:
            classes = _read_classes(answer)
        except typer.BadParameter as error:
            typer.echo(error.message)
            continue
        if classes is not None:
            return classes


def _read_ndim(text: str | None) -> int | None:
    if text is None:
        return None
    if text.strip().upper() not in ("2", "3", "2D", "3D"):
        raise typer.BadParameter(f"{text!r} is neither 2D (images) nor 3D (volumes)", param_hint="'--ndim'")
    return int(text.strip()[0])


def _read_classes(text: str | None) -> int | Sequence[str] | None:
    if text is None:
        return None
    names = [name.strip() for name in text.split(",") if name.strip()]
    if len(names) == 1 and names[0].isdecimal() and int(names[0]) >= 2:
        return int(names[0])
    if len(names) < 2:
        what = f"{text!r}: at least 2 classes are needed, the background is one; e.g. 2, or background,cell"
        raise typer.BadParameter(what, param_hint="'--classes'")
    return names
