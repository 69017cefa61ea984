"""Images of which clipping left nothing: a warning after prediction; those of a training are named before it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from crista.inference.record import ImageRecord
from crista.patches.normalization import clipped_to_nothing
from crista.plan.events import Event, Warned


def warn_of_clipped_images(records: Sequence[ImageRecord]) -> Iterator[Event]:
    """A warning if the network saw one value in a channel of some images."""
    names = [record.name for record in records if record.is_blank]
    if names:
        yield Warned(
            f"{clipped_to_nothing(names)}: their labels mean little. A network keeps the clipping that it was trained with\n"
            "    -> train one with UPPER_PERC nearer to 100, or with PERC_CLIP.ENABLE: False"
        )
