"""Inspection: the commands that look and tell, and change nothing: check, plan, evaluate, explain."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from crista.cli import options
from crista.cli.progress import listener
from crista.cli.screen import Screen

if TYPE_CHECKING:
    from crista.config.root import Config
    from crista.workflow.evaluate import Evaluation


def check(job: options.ConfigArgument = None, config: options.ConfigOption = None, override: options.Overrides = None) -> None:
    """Check a configuration and its data; nothing is trained."""
    from crista.workflow import api
    from crista.workflow.new import describe_data

    screen = Screen()
    settings = _load(options.one_config(job, config), override, screen)
    if not settings.train.enable and not settings.test.enable:
        screen.warn("TRAIN.ENABLE and TEST.ENABLE are both False: there is nothing to do, and no data to check")
        return
    with listener(screen) as show:
        report = api.check(settings, on_event=show)
    for problem in report.problems:
        screen.problem(str(problem))
    count, warnings = len(report.problems), len(report.warnings)
    summary = f"{count or 'no'} problem{'s' * (count != 1)}, {warnings or 'no'} warning{'s' * (warnings != 1)}"
    screen.line(f"{describe_data(report) or 'no images'}: {summary}", "red" if count else "green")
    if count:
        raise typer.Exit(1)


def plan(
    job: Annotated[
        Path | None, typer.Argument(metavar="YAML|IMAGES", help="The configuration; or the folder of the training images.")
    ] = None,
    labels: Annotated[Path | None, typer.Argument(metavar="LABELS", help="With IMAGES: the folder of their labels.")] = None,
    config: options.ConfigOption = None,
    minutes: options.Minutes = None,
    quality: options.QualityOption = None,
    override: options.Overrides = None,
) -> None:
    """Show every number of a training and the reason of each."""
    from crista.workflow import api
    from crista.workflow.request import request_automatic

    screen = Screen()
    if job is not None and not options.is_yaml(job):
        images, truth = options.two_folders(job, labels, config)
        make = partial(request_automatic, images, truth, minutes=minutes, quality=(quality or options.Quality.STANDARD).value)
        settings = make(result_dir=options.DEFAULT_RESULTS, overrides=override or ()).config
    else:
        options.refuse_labels(labels)
        settings = _load(options.one_config(job, config), options.with_budget(minutes, quality, override), screen)
    with listener(screen) as show:
        made = api.plan(settings, on_event=show)
    screen.line("")
    screen.table(("Key", "Value", "Reason"), [(item.key, item.value, item.reason) for item in made.decisions])


def evaluate(
    labels: Annotated[Path, typer.Argument(metavar="LABELS", help="The true label images: a folder, or one file.")],
    predictions: Annotated[Path, typer.Argument(metavar="PREDICTIONS", help="The predicted ones.")],
    classes: Annotated[int | None, typer.Option(min=2, help="Classes, background included. Default: counted.")] = None,
    ignore_index: Annotated[
        int | None, typer.Option("--ignore-index", "--ignore_index", help="Value of pixels that are not measured.")
    ] = None,
    csv: Annotated[Path | None, typer.Option(metavar="FILE", help="Write the table to a CSV file.")] = None,
) -> None:
    """Measure predicted label images against the true ones."""
    from crista.workflow import api

    screen = Screen()
    with listener(screen) as show:
        found = api.evaluate(labels, predictions, num_classes=classes, ignore_index=ignore_index, on_event=show)
    screen.line("")
    headers, rows = score_table(found)
    screen.table(headers, rows)
    if csv is not None:
        _write_csv(csv, headers, rows)
        screen.line(f"written: {csv}")


def explain(
    key: Annotated[str, typer.Argument(metavar="KEY", help="e.g. TRAIN.EPOCHS, or a section. None: all sections.")] = "",
) -> None:
    """Tell what a key of the configuration means."""
    from crista.config.explain import explain_key

    Screen().line(explain_key(key))


def _load(path: Path, override: Sequence[str] | None, screen: Screen) -> Config:
    """The configuration; what there is to say about it goes to the screen."""
    from crista.workflow.request import load_any

    loaded = load_any(path, override or ())
    for notice in loaded.notices:
        screen.notice(notice)
    return loaded.config


def score_table(found: Evaluation) -> tuple[list[str], list[list[str]]]:
    """Header and rows: each image, their mean, and all pixels pooled; IoU of each class where there are several."""
    from crista.metrics import iou
    from crista.metrics.summary import IMAGE_SCORES, compute_image_scores

    num_classes = len(found.class_iou)
    per_class = [f"iou_class_{index}" for index in range(num_classes)] if num_classes > 2 else []
    rows = []
    for name, confusion in (*zip(found.names, found.confusions, strict=True), ("all pixels pooled", found.pooled)):
        scores = compute_image_scores(confusion)
        classes = iou(confusion) if per_class else ()
        rows.append([name, *(f"{scores[key]:.4f}" for key in IMAGE_SCORES), *(f"{value:.4f}" for value in classes)])
    means = [f"{found.summary[key]:.4f}" for key in IMAGE_SCORES]
    rows.insert(-1, ["mean over images", *means, *("" for _ in per_class)])
    return ["file", *IMAGE_SCORES, *per_class], rows


def _write_csv(path: Path, headers: list[str], rows: list[list[str]]) -> None:
    import csv
    import io

    from crista.images.atomic import atomic_write

    stream = io.StringIO()
    csv.writer(stream, lineterminator="\n").writerows([headers, *rows])
    atomic_write(path, stream.getvalue())
