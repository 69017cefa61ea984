"""The page of a check: the table of what was found, and pictures of pairs with their labels drawn in. One file, no network."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from html import escape
from pathlib import Path

import numpy as np

from crista.errors import ImageReadError
from crista.geometry.axes import Array, Region
from crista.images.atomic import atomic_write
from crista.images.check import DatasetReport
from crista.images.image import Image, ImagePair
from crista.images.labels import LabelCoding, read_label
from crista.images.wording import plural
from crista.results.overlays import Picture, colour_classes, to_picture
from crista.results.pictures import encode_picture

MOST_PAIRS = 12
LONGEST_SIDE = 320
"""Pixels of a thumbnail."""
BAND_PIXELS = 2**24
"""Pixels that are read at a time."""

_STYLE = """
:root { color-scheme: light; }
body { font: 15px/1.5 system-ui, sans-serif; color: #22303c; margin: 0 auto; max-width: 1100px; padding: 1.2rem; }
h1 { font-size: 1.4rem; } h2 { font-size: 1.1rem; margin-top: 2rem; }
table { border-collapse: collapse; width: 100%; } td, th { text-align: left; vertical-align: top; padding: .5rem .6rem; }
th { border-bottom: 2px solid #9aa5ad; } td { border-bottom: 1px solid #dfe4e8; overflow-wrap: anywhere; }
.problem { color: #b3261e; font-weight: 600; } .warning { color: #8a5a00; font-weight: 600; }
.pairs { display: grid; grid-template-columns: repeat(auto-fill, minmax(300px, 1fr)); gap: 1rem; }
figure { margin: 0; } figure img { width: 49%; image-rendering: pixelated; } figcaption { font-size: .85rem; color: #5b6a77; }
@media (max-width: 700px) { thead { display: none; } td { display: block; border: 0; padding: .15rem 0; }
  tr { display: block; border-bottom: 1px solid #dfe4e8; padding: .7rem 0; }
  td::before { content: attr(data-name); color: #5b6a77; font-size: .8rem; display: block; } }
"""
_COLUMNS = ("File", "What was seen", "What will happen", "The fix")


def write_check_page(report: DatasetReport, path: Path) -> None:
    """Write one HTML file with everything inside, also the pictures of up to `MOST_PAIRS` pairs."""
    parts = [
        '<!DOCTYPE html><html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1"><title>Data check</title>',
        f"<style>{_STYLE}</style></head><body><h1>Data check</h1>",
        f"<p>{len(report.train)} training, {len(report.val)} validation and {len(report.test)} test images: ",
        f"{plural(len(report.problems), 'problem')}, {plural(len(report.warnings), 'warning')}.</p>",
        findings_table(report),
        check_thumbnails(report),
        "</body></html>\n",
    ]
    atomic_write(path, "".join(parts))


def findings_table(report: DatasetReport) -> str:
    """The table of all findings as HTML; a sentence if there are none."""
    if not report.findings:
        return "<p>Nothing is wrong with the files.</p>"
    rows = []
    for finding in report.findings:
        first = f'<span class="{finding.severity}">{finding.severity}</span><br>{escape(finding.files)}'
        cells = (first, *(escape(text) for text in (finding.seen, finding.effect, finding.fix)))
        named = zip(_COLUMNS, cells, strict=True)
        rows.append("<tr>" + "".join(f'<td data-name="{name}">{cell}</td>' for name, cell in named) + "</tr>")
    head = "".join(f"<th>{name}</th>" for name in _COLUMNS)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"


def check_thumbnails(report: DatasetReport, most: int = MOST_PAIRS) -> str:
    """Images beside the same with their labels drawn in, as HTML: those of files with findings first; empty without labels."""
    told = " ".join(str(finding.problem) for finding in report.findings)
    labelled = [pair for pair in (*report.train, *report.val, *report.test) if pair.label is not None]
    ordered = sorted(labelled, key=lambda pair: pair.image.path.name not in told)
    figures = [_figure(pair, report.coding) for pair in ordered[:most]]
    if not figures:
        return ""
    shown = f"{len(figures)} of {len(labelled)} pairs" if len(figures) < len(labelled) else "All pairs"
    return f'<h2>{shown}, labels drawn in</h2><div class="pairs">{"".join(figures)}</div>'


def _figure(pair: ImagePair, coding: LabelCoding | None) -> str:
    assert pair.label is not None
    name = escape(pair.image.path.name)
    try:
        pictures = draw_pair(pair.image, pair.label, coding)
    except ImageReadError as error:
        return f"<figure><figcaption>{name}: {escape(str(error))}</figcaption></figure>"
    images = "".join(f'<img alt="{name}" src="{encode_picture(picture)}">' for picture in pictures)
    return f"<figure>{images}<figcaption>{name} with {escape(pair.label.path.name)}</figcaption></figure>"


def draw_pair(image: Image, label: Image, coding: LabelCoding | None) -> Sequence[Picture]:
    """The image, and the image with its classes coloured; of a volume the middle slice.

    Without a coding, or with values that it does not know, the values are coloured in their order, ignored ones grey.

    Raises
    ------
    ImageReadError
        If one of them cannot be read.
    """
    plane = _read_plane(image)
    picture = to_picture(plane)
    if label.spatial_shape != image.spatial_shape:
        return [picture, to_picture(_read_plane(label))]
    ignored = coding.ignore_index if coding is not None else None
    return [picture, colour_classes(picture, _read_classes(label, coding), ignored)]


def _read_classes(label: Image, coding: LabelCoding | None) -> Array:
    if coding is not None:
        try:
            return _thinned(label, lambda band: read_label(label, coding, band))
        except ImageReadError:
            pass  # values that the coding does not know are part of what the page shows
    values = np.nan_to_num(_read_plane(label).astype(np.float64)).max(axis=0)
    ranks = np.unique(values, return_inverse=True)[1].reshape(values.shape)
    if coding is None or coding.ignore_index is None:
        return np.asarray(ranks)
    ranks += ranks >= coding.ignore_index  # the 256th value is not what has no annotation
    return np.where(np.isin(values, coding.ignored_values), coding.ignore_index, ranks)


def _read_plane(image: Image) -> Array:
    """C × Y × X of the middle slice, thinned out."""
    return _thinned(image, image.read)


def _thinned(image: Image, read: Callable[[Region], Array]) -> Array:
    """[C ×] Y × X of the middle slice, thinned out; a slide is read band by band."""
    *deep, height, width = image.spatial_shape
    step = max(1, -(-max(height, width) // LONGEST_SIDE))
    rows = step * max(1, BAND_PIXELS // (step * width))
    middle = tuple(slice(n // 2, n // 2 + 1) for n in deep)
    bands = []
    for start in range(0, height, rows):
        band = read((*middle, slice(start, min(height, start + rows)), slice(0, width)))
        flat = band.reshape(*band.shape[: band.ndim - 2 - len(deep)], *band.shape[-2:])
        bands.append(flat[..., ::step, ::step].copy())
    return np.concatenate(bands, axis=-2)
