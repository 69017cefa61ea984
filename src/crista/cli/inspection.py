"""Inspection: the commands that look and tell, and change nothing: plan, evaluate, explain."""

from __future__ import annotations

from collections.abc import Sequence
from math import nan
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from crista.cli import options
from crista.cli.progress import listener
from crista.cli.screen import Screen

if TYPE_CHECKING:
    from crista.config.root import Config
    from crista.workflow.evaluate import Evaluation


def plan(
    job: Annotated[
        Path | None, typer.Argument(metavar="YAML|IMAGES", help="The configuration; or the folder of the training images.")
    ] = None,
    labels: Annotated[Path | None, typer.Argument(metavar="LABELS", help="With IMAGES: the folder of their labels.")] = None,
    config: options.ConfigOption = None,
    override: options.Overrides = None,
) -> None:
    """Show every number of a training and the reason of each; nothing is trained, and nothing is timed."""
    from crista.workflow import api

    screen, changes = Screen(), override or ()
    with listener(screen) as show:
        if job is not None and not options.is_yaml(job):
            images, truth = options.two_folders(job, labels, config)
            with options.telling_how_to_set():
                made = api.plan(images, truth, overrides=changes, on_event=show)
        else:
            options.refuse_labels(labels)
            made = api.plan(options.one_config(job, config), overrides=changes, on_event=show)
    screen.line("")
    screen.table(("Key", "Value", "Reason"), [(item.key, item.value, item.reason) for item in made.decisions])


def evaluate(
    labels: Annotated[Path, typer.Argument(metavar="LABELS", help="The true label images: a folder, or one file.")],
    predictions: Annotated[Path, typer.Argument(metavar="PREDICTIONS", help="The predicted ones.")],
    classes: Annotated[
        int | None, typer.Option(min=2, metavar="N", help="Classes, background included. Default: counted.")
    ] = None,
    ignore_index: Annotated[
        list[str] | None,
        typer.Option(
            "--ignore-index",
            "--ignore_index",
            metavar="N|N,N",
            help="Value of pixels that are not measured, or several: 254,255.",
        ),
    ] = None,
    csv: Annotated[
        Path | None,
        typer.Option(metavar="FILE", callback=options.writable_file, help="Write the table to FILE, the intervals beside it."),
    ] = None,
) -> None:
    """Measure predicted label images against the true ones."""
    from crista.workflow import api

    screen, ignored = Screen(), options.whole_numbers("--ignore-index", ignore_index)
    with listener(screen) as show:
        found = api.evaluate(labels, predictions, num_classes=classes, ignore_index=ignored, on_event=show)
    screen.line("")
    rows = score_rows(found)
    screen.table(list(rows[0]), [[_shown(value) for value in row.values()] for row in rows])
    screen.line("")
    screen.table(*estimate_table(found))
    for text in definitions_of(found):
        screen.notice(text)
    if csv is not None:
        from crista.results.tables import write_estimates, write_rows

        write_rows(csv, rows)
        summary = csv.with_name(f"{csv.stem}_summary.csv")
        write_estimates(summary, {"evaluate": found.estimates})
        screen.line(f"written: {csv}, {summary}")


def explain(
    key: Annotated[str, typer.Argument(metavar="KEY", help="e.g. TRAIN.EPOCHS, or a section. Left out: all sections.")] = "",
) -> None:
    """Tell what a key of the configuration means."""
    from crista.config.explain import explain_key

    Screen().line(explain_key(key))


def load_settings(path: Path, override: Sequence[str] | None, screen: Screen) -> Config:
    """The configuration; what there is to say about it goes to the screen."""
    from crista.workflow.request import load_any

    loaded = load_any(path, override or ())
    tell(loaded.notices, screen)
    return loaded.config


def tell(notices: Sequence[str], screen: Screen) -> None:
    """What there is to say about a configuration."""
    for notice in notices:
        screen.notice(notice)


def score_rows(found: Evaluation) -> list[dict[str, str | float]]:
    """A row for each image, their mean, and all pixels pooled; with the IoU of each class where there are several."""
    from crista.metrics import FOREGROUND, find_estimate, foreground_nsd, iou
    from crista.metrics.summary import IMAGE_SCORES, compute_image_scores

    rows: list[dict[str, str | float]] = []
    names, edges = (*found.names, "all pixels pooled"), (*found.boundaries, found.pooled_boundary)
    for name, confusion, boundary in zip(names, (*found.confusions, found.pooled), edges, strict=True):
        classes = {f"iou_class_{index}": float(value) for index, value in enumerate(iou(confusion))}
        scores = {**compute_image_scores(confusion), "foreground_nsd": foreground_nsd(boundary)}
        if not confusion.any():  # all of it without annotation: the means leave it out
            scores = dict.fromkeys(scores, nan)
        rows.append({"file": name, **scores, **(classes if len(classes) > 2 else {})})
    nsd = find_estimate(found.estimates, "nsd", FOREGROUND, "images")
    means = {key: found.summary[key] for key in IMAGE_SCORES} | {"foreground_nsd": nsd.value if nsd is not None else nan}
    rows.insert(-1, dict.fromkeys(rows[0], "") | {"file": "mean over images"} | means)
    return rows


def _shown(value: str | float) -> str:
    from crista.metrics import show_score

    return value if isinstance(value, str) else show_score(value)


def estimate_table(found: Evaluation) -> tuple[list[str], list[list[str]]]:
    """Header and rows: IoU, Dice and NSD of the foreground and each class, with 95 % intervals, over images and pooled."""
    from crista.metrics import DEFINITIONS

    kinds = {"images": DEFINITIONS["images"].title, "pixels": DEFINITIONS["pixels"].title}
    cells: dict[tuple[str, str, str], str] = {(e.measure, e.of, e.over): str(e) for e in found.estimates}
    rows = [
        [f"{DEFINITIONS[measure].title} of {of}", *(cells[measure, of, over] for over in kinds)]
        for measure, of, over in cells
        if over == "images"
    ]
    return ["95 % intervals", *kinds.values()], rows


def definitions_of(found: Evaluation) -> list[str]:
    """What the numbers mean, a line each."""
    from crista.metrics import DEFINITIONS

    shown = [DEFINITIONS[key] for key in ("iou", "dice", "nsd", "foreground", "accuracy", "biapy_iou", "interval")]
    lines = [f"{entry.title}: {entry.text}" + (f" ({entry.formula})" if entry.formula else "") for entry in shown]
    return [*lines, f"tolerance of NSD: {found.tolerance}"]
