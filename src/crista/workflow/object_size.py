"""Objects of another size than those that were learnt: a warning after prediction, with the factor."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from math import prod
from pathlib import Path

from crista.errors import Problem
from crista.geometry.spacing import Spacing
from crista.images.consistency import rescaling_step
from crista.images.image import Image, ImagePair
from crista.images.labels import read_label
from crista.images.object_size import Diameters, measure_diameters, median_diameter, middle_region
from crista.images.open import open_written
from crista.inference.record import ImageRecord
from crista.patches.prepare import coding_of
from crista.plan.events import Event, Warned
from crista.plan.plan import Plan
from crista.results.run_folder import RunFolder

FAR = 1.6
"""A median diameter that differs by more than this factor is far from training."""


def warn_of_object_size(
    records: Sequence[ImageRecord], pairs: Sequence[ImagePair], plan: Plan, folder: RunFolder
) -> Iterator[Event]:
    """A warning if the predicted objects are of another size in pixels than those of the training.

    Where the pixel sizes explain the factor nothing is said: the check of the images has warned already. Where there are label
    images, nothing unless their objects are of another size too: else the prediction is wrong, and no rescaling would mend it.
    """
    if plan.object_diameter is None:
        return
    places = [path.resolve() for path in (folder.per_image_binarized, folder.full_image_binarized)]
    diameter = _median((found for record in records if (found := _measure(record, places, plan.ndim)) is not None), plan)
    if diameter is None:
        return
    factor = diameter / plan.object_diameter
    images = [pair.image for pair in pairs]
    if _is_near(factor) or _is_near(factor / _explained(images, plan.spacing)):
        return
    labels = [pair.label for pair in pairs if pair.label is not None]
    true = _median(_iter_true(labels, plan), plan)
    if labels and (true is None or _is_near(true / plan.object_diameter)):
        return
    what = f"predicted objects are {factor:.2g} times as large as those of the training "
    what += f"(median diameter {diameter:.3g} pixels, training {plan.object_diameter:.3g})"
    step = (
        f"if the images show the same kind of objects, {rescaling_step(images[0], (1 / factor,) * plan.ndim)}; then predict again"
    )
    yield Warned(str(Problem(str(images[0].path.parent), what, step)))


def _median(measured: Iterable[Diameters], plan: Plan) -> float | None:
    classes = {index: index for index in range(plan.classes.num_classes)}
    return median_diameter(measured, classes, plan.ndim, plan.classes.ignore_index)


def _iter_true(labels: Sequence[Image], plan: Plan) -> Iterator[Diameters]:
    """The diameters in the label images that the prediction is measured against."""
    for label in labels:
        yield measure_diameters(read_label(label, coding_of(plan), middle_region(label.spatial_shape)))


def _is_near(factor: float) -> bool:
    return 1 / FAR <= factor <= FAR


def _measure(record: ImageRecord, places: Sequence[Path], ndim: int) -> Diameters | None:
    """The diameters in the label image that was written, if one was."""
    for place in places:
        for file in map(Path, record.files):
            if file.parent.resolve() != place:
                continue
            label = open_written(file, ndim)
            return measure_diameters(label.read(middle_region(label.spatial_shape))[0])
    return None


def _explained(images: Sequence[Image], learnt: tuple[float, ...] | None) -> float:
    """The factor that the pixel sizes alone make, geometric mean of the axes; 1 where they are not known."""
    known: list[Spacing] = [image.spacing for image in images if image.spacing is not None]
    if learnt is None or not known:
        return 1.0
    return float(prod(size / own for size, own in zip(learnt, known[0].values, strict=True)) ** (1 / len(learnt)))
