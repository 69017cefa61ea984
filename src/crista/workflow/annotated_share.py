"""The annotated share of what was measured: a warning where figures are of a few pixels that somebody chose."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from math import prod

from crista.geometry.tiles import shape_of
from crista.images.image import ImagePair
from crista.inference.measure import evaluated
from crista.inference.record import ImageRecord
from crista.plan.events import Event, Warned
from crista.plan.plan import Plan
from crista.plan.sparse_labels import SPARSE


def warn_of_few_annotated(records: Sequence[ImageRecord], pairs: Mapping[str, ImagePair], plan: Plan) -> Iterator[Event]:
    """A warning if fewer pixels than the share `SPARSE` of what was measured of the images are annotated."""
    measured = [record for record in records if record.confusions and record.name in pairs]
    pixels = sum(prod(shape_of(evaluated(pairs[record.name].image.spatial_shape, plan))) for record in measured)
    annotated = sum(int(next(iter(record.confusions.values())).sum()) for record in measured)
    if not annotated or annotated >= SPARSE * pixels:
        return
    yield Warned(
        f"the figures are of the {annotated / pixels:.1%} of the pixels that are annotated: rare classes are a larger part of "
        "them than of whole images, and borders between classes are hardly among them. Of whole images they are usually lower\n"
        "    -> to know them, label an image or two in full and measure on these "
        "(crista predict MODEL IMAGES --labels LABELS)"
    )
