"""Check: all problems of all files in one table, and corrected copies where they are asked for."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from crista.cli import options
from crista.cli.inspection import load_settings, tell
from crista.cli.progress import listener
from crista.cli.screen import Screen, one_line
from crista.images.wording import command_line

if TYPE_CHECKING:
    from crista.config.root import Config
    from crista.images.check import DatasetReport
    from crista.plan.events import Event
    from crista.workflow.fix import FixReport

HEADERS = ("File", "What was seen", "What will happen", "The fix")


def check(
    data: Annotated[
        Path | None, typer.Argument(metavar="YAML|IMAGES", help="The configuration; or the folder of the training images.")
    ] = None,
    labels: Annotated[Path | None, typer.Argument(metavar="LABELS", help="With IMAGES: the folder of their labels.")] = None,
    config: options.ConfigOption = None,
    override: options.Overrides = None,
    fix: Annotated[
        Path | None, typer.Option("--fix", metavar="OUT", help="Write corrected copies and check.yaml to this new folder.")
    ] = None,
    report: Annotated[
        Path | None,
        typer.Option(
            "--report", metavar="FILE.html", callback=options.writable_file, help="Write the table and pictures of the pairs."
        ),
    ] = None,
) -> None:
    """Check images and labels: everything that is wrong or odd in one table. Nothing is trained."""
    from crista.workflow import api

    screen = Screen()
    source: Path
    if data is not None and not options.is_yaml(data):
        source, labels = options.two_folders(data, labels, config)
        settings = _settings_of(source, labels, override, screen)
    else:
        options.refuse_labels(labels)
        source = options.one_config(data, config)
        settings = load_settings(source, override, screen)
        if not settings.train.enable and not settings.test.enable:
            screen.warn("TRAIN.ENABLE and TEST.ENABLE are both False: there is nothing to do, and no data to check")
            return
    with listener(screen) as show:
        found = api.check(settings, on_event=_without_warnings(show))
    _show_findings(screen, found)
    if not options.is_yaml(source) and options.names_a_key(*(finding.problem for finding in found.findings)):
        screen.notice(options.HOW_TO_SET)
    if report is not None:
        _write_page(screen, found, report)
    mended = False
    if fix is not None:
        with listener(screen) as show:
            done = api.fix(settings, out=fix, on_event=_without_warnings(show))
        _show_fix(screen, done, report is not None)
        mended = not done.after.problems
    elif any(finding.problem.fix for finding in found.findings):
        words = [str(word) for word in (source, labels) if word is not None]
        changes = [word for change in override or () for word in ("--set", change)]
        screen.line(f"to mend what can be: {command_line(['crista', 'check', *words, *changes])} --fix NEW_FOLDER")
    if found.problems and not mended:
        raise typer.Exit(1)


def _settings_of(images: Path, labels: Path, override: Sequence[str] | None, screen: Screen) -> Config:
    """The configuration of a training on two folders; what there is to say about it goes to the screen."""
    from crista.workflow.request import request_automatic

    request = request_automatic(images, labels, result_dir=options.DEFAULT_RESULTS, overrides=override or ())
    tell(request.notices, screen)
    return request.config


def _without_warnings(show: Callable[[Event], object]) -> Callable[[Event], object]:
    """Warnings stand in the table."""
    from crista.plan.events import Warned

    return lambda event: None if isinstance(event, Warned) else show(event)


def _show_findings(screen: Screen, found: DatasetReport) -> None:
    from crista.images.wording import plural
    from crista.workflow.new import describe_data

    root = common_folder([finding.files for finding in found.findings])
    rows = [
        (
            f"{finding.severity}: {finding.files.removeprefix(root) or finding.files}",
            one_line(finding.seen),
            one_line(finding.effect),
            one_line(finding.fix),
        )
        for finding in found.findings
    ]
    if rows:
        if root:
            screen.notice(f"files are below {root}")
        screen.wrapped_table(HEADERS, rows)
    counts = ((len(found.problems), "problem"), (len(found.warnings), "warning"))
    summary = ", ".join(plural(count, word) if count else f"no {word}s" for count, word in counts)
    screen.line(f"{describe_data(found) or 'no images'}: {summary}", "red" if found.problems else "green")


def common_folder(names: Sequence[str]) -> str:
    """The folder, with the last slash, that all absolute paths among `names` share; empty if they share none worth saying."""
    paths = [name for name in names if Path(name).is_absolute()]
    if len({Path(path).anchor for path in paths}) != 1:
        return ""  # none, or on several drives
    shared = os.path.commonpath([str(Path(path).parent.parent) for path in paths])
    return f"{shared}{os.sep}" if len(Path(shared).parts) > 1 else ""


def _show_fix(screen: Screen, done: FixReport, with_page: bool) -> None:
    screen.line("")
    screen.line(f"corrected copies: {done.folder} (changes.csv lists what was changed)", "green")
    if done.after.findings:
        screen.heading("What is left")
        _show_findings(screen, done.after)
    if with_page:
        _write_page(screen, done.after, done.folder / "check.html")
    screen.line(f"next: {command_line(['crista', 'check', str(done.config)])}")


def _write_page(screen: Screen, found: DatasetReport, path: Path) -> None:
    from crista.results.check_page import write_check_page

    write_check_page(found, path)
    screen.line(f"written: {path}")
