"""The pictures of a run's report: which images are shown, and what is read and drawn of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from math import isfinite, prod
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from crista.geometry.axes import Region
from crista.images.image import ImagePair
from crista.images.labels import read_label
from crista.images.open import open_written
from crista.inference.measure import predicted_region
from crista.inference.record import ImageRecord
from crista.patches.prepare import coding_of
from crista.plan.events import Event, FileWritten
from crista.plan.plan import Plan
from crista.plan.sparse_labels import SPARSE
from crista.results.examples import Example, Pixels, build_slices, crop_cells
from crista.results.outcome import Measurement, image_stage
from crista.results.overlays import OverlayText, draw_overlay, to_picture
from crista.results.pictures import encode_picture
from crista.results.ranking import Labelled, UncertainRegion, UncertaintyMap, rank_regions
from crista.results.report import Suggestion
from crista.results.run_folder import RunFolder

MAX_OVERLAY_VOXELS = 2**23
"""Of a larger image the middle is drawn, so that it need not be read whole."""

PICTURE_BUDGET = 9_000_000
"""Characters of the example pictures of a report; the page stays under 15 MB."""

LISTED = 20
"""Regions in label_next.csv."""

PICTURED = 9
"""Those of them in the report."""

THUMBNAIL = 120
"""Pixels of the longer side of a picture in the list."""

Chosen = tuple[str, ImageRecord, str]
"""Caption, record, and its figure in words."""


def rank_images(records: Sequence[ImageRecord], stage: str, measurement: Measurement) -> list[Chosen]:
    """Worst, median and best image by foreground IoU; where nothing was measured the least sure, a typical and the surest one.

    Each image once. Slices of a stack are ranked by themselves.
    """
    rows = {str(row["file"]): row for row in measurement.rows}
    own = image_stage(records, stage)
    scores = {record.name: float(rows.get(record.name, {}).get(f"{own}_iou", "nan")) for record in records}
    measured = [record for record in records if isfinite(scores[record.name])]
    if measured:
        ranked = sorted(measured, key=lambda record: scores[record.name])
        return [(word, r, f"foreground IoU {scores[r.name]:.4f}") for word, r in _three(ranked, ("worst", "median", "best"))]
    unsure = {record.name: record.uncertainty for record in records if record.uncertainty is not None}
    if not unsure:
        return [("", record, "") for record in records[:3]]
    ranked = sorted((r for r in records if r.name in unsure), key=lambda record: -unsure[record.name])
    return [(w, r, f"uncertainty {unsure[r.name]:.3f}") for w, r in _three(ranked, ("least sure", "typical", "surest"))]


def _three(ranked: Sequence[ImageRecord], words: tuple[str, str, str]) -> list[tuple[str, ImageRecord]]:
    places = {0: words[0], len(ranked) - 1: words[2]} if len(ranked) > 1 else {0: ""}
    if len(ranked) > 2:
        places[(len(ranked) - 1) // 2] = words[1]
    return [(places[place], ranked[place]) for place in sorted(places)]


def draw_overlays(
    folder: RunFolder, plan: Plan, pairs: Mapping[str, ImagePair], records: Sequence[ImageRecord]
) -> Iterator[Event]:
    """Write the overlays of some images as PNG files; those of the others in `pairs` are of an earlier network, and go."""
    for name in pairs.keys() - {record.name for record in records}:
        (folder.overlays / f"{name}.png").unlink(missing_ok=True)
    for record in records:
        pixels = _read(folder, plan, pairs[record.name], record)
        path = folder.overlays / f"{record.name}.png"
        text = OverlayText(record.name, plan.classes.names, plan.classes.ignore_index, pixels.first_slice)
        draw_overlay(pixels.image, pixels.prediction, pixels.label, path, text=text)
        yield FileWritten(path, "overlay")


def build_examples(folder: RunFolder, plan: Plan, pairs: Mapping[str, ImagePair], chosen: Sequence[Chosen]) -> list[Example]:
    """The chosen images as panels, each with its share of the budget."""
    examples = []
    for caption, record, score in chosen:
        pixels = _read(folder, plan, pairs[record.name], record)
        slices, shown = build_slices(pixels, PICTURE_BUDGET // len(chosen))
        examples.append(Example(caption, record.name, slices, score, shown))
    return examples


def _read(folder: RunFolder, plan: Plan, pair: ImagePair, record: ImageRecord) -> Pixels:
    """What is shown of an image: all of it that was predicted, or the middle of that if it is large."""
    shape = pair.image.spatial_shape
    region = middle_of_region(predicted_region(shape, plan), MAX_OVERLAY_VOXELS)
    cells = load_uncertainty(folder, record.name, shape)
    return Pixels(
        image=pair.image.read(region),
        prediction=open_written(_label_file(folder, record), plan.ndim).read(region)[0],
        label=read_label(pair.label, coding_of(plan), region) if pair.label is not None else None,
        uncertainty=crop_cells(cells, region, shape) if cells is not None else None,
        first_slice=region[0].start + (pair.image.cut_at or (0,))[0],
        ignore_index=plan.classes.ignore_index,
    )


def _label_file(folder: RunFolder, record: ImageRecord) -> Path:
    """The label image that stands for an image: that of the last stage.

    The folder of results may have been named in another way when the files were written.
    """
    raw = {path.resolve() for path in (folder.per_image, folder.full_image)}
    written = [Path(file) for file in record.files]
    return ([file for file in written if file.parent.resolve() not in raw] or written)[-1]


def load_uncertainty(folder: RunFolder, name: str, shape: Sequence[int]) -> NDArray[np.float32] | None:
    """The map of the entropy that the prediction of an image left; None where there is none."""
    path = folder.state / "uncertainty" / f"{name}.npy"
    if not path.is_file():
        return None
    cells: NDArray[np.float32] = np.load(path, allow_pickle=False)
    return cells if cells.ndim == len(shape) else None


def suggest(
    folder: RunFolder, plan: Plan, pairs: Mapping[str, ImagePair], records: Sequence[ImageRecord]
) -> list[UncertainRegion]:
    """The regions to label next."""
    maps = []
    for record in records:
        shape = pairs[record.name].image.spatial_shape if record.name in pairs else ()
        cells = load_uncertainty(folder, record.name, shape) if shape else None
        if cells is not None:
            maps.append(UncertaintyMap(record.name, tuple(shape), cells, pairs[record.name].image.cut_at))
    return rank_regions(maps, plan.patch_size, LISTED)


def how_labelled(pair: ImagePair, region: Region, plan: Plan) -> Labelled:
    """Whether a region of an image is labelled already; of a scribbled image most regions are in part or not at all."""
    if pair.label is None:
        return "no"
    ignored = plan.classes.ignore_index
    if ignored is None:
        return "yes"
    share = np.mean(read_label(pair.label, coding_of(plan), middle_of_region(region, MAX_OVERLAY_VOXELS)) != ignored)
    return "yes" if share >= SPARSE else "partly" if share > 0 else "no"


def suggestion_pictures(
    pairs: Mapping[str, ImagePair], regions: Sequence[UncertainRegion], labelled: Sequence[Labelled]
) -> list[Suggestion]:
    """The first of the list, each with a small picture of its region (of volumes: of its middle slice)."""
    suggestions = []
    for entry, word in zip(regions[:PICTURED], labelled, strict=False):
        pair = pairs[entry.name]
        plane = tuple(
            slice((r.start + r.stop) // 2, (r.start + r.stop) // 2 + 1) if len(entry.region) == 3 and axis == 0 else r
            for axis, r in enumerate(entry.region)
        )
        pixels = pair.image.read(middle_of_region(plane, MAX_OVERLAY_VOXELS))
        flat = pixels[:, 0] if len(entry.region) == 3 else pixels
        step = max(1, -(-max(flat.shape[-2:]) // THUMBNAIL))
        suggestions.append(Suggestion(entry, word, encode_picture(to_picture(flat[:, ::step, ::step]))))
    return suggestions


def middle_of_region(region: Region, max_voxels: int) -> Region:
    """All of a region of up to `max_voxels`; else the middle of it."""
    inner = middle_of([r.stop - r.start for r in region], max_voxels)
    return tuple(slice(r.start + i.start, r.start + i.stop) for r, i in zip(region, inner, strict=True))


def middle_of(shape: Sequence[int], max_voxels: int) -> Region:
    """All of an image of up to `max_voxels`; else the middle of it: fewer slices first, then less of each."""
    size = list(shape)
    for axis in range(len(size)):
        rest = prod(size) // size[axis]
        size[axis] = max(1, min(size[axis], max_voxels // rest)) if axis < len(size) - 2 else size[axis]
    while prod(size) > max_voxels:
        size[size.index(max(size))] //= 2
    starts = [(n - s) // 2 for n, s in zip(shape, size, strict=True)]
    return tuple(slice(start, start + s) for start, s in zip(starts, size, strict=True))
