"""Statistics of the images to predict; those of large images are kept on disk, so that they are computed once."""

from __future__ import annotations

import json
from pathlib import Path

from crista.images.atomic import atomic_write, read_json
from crista.images.image import Image
from crista.inference.record import state_of_image
from crista.inference.turn import turn_at
from crista.patches.normalization import ImageStatistics, compute_statistics
from crista.plan.plan import Plan

KEPT_BYTES = 64 * 2**20
"""Reading an image up to this size again is quicker than looking it up."""


class StatisticsCache:
    """What normalisation needs to know of each image, the last one in memory."""

    def __init__(self, state: Path, plan: Plan) -> None:
        self._folder = state / "statistics"
        self._settings = plan.config.data.normalization
        self._last: tuple[Image, ImageStatistics] | None = None

    def of(self, name: str, image: Image) -> ImageStatistics:
        """Statistics of all pixels of `image`; of a block that validated those of its whole image, as in training."""
        whole = image.cut_from or image
        if self._last is None or self._last[0] != whole:
            self._last = (whole, self._find(name, whole))
        return self._last[1]

    def _find(self, name: str, image: Image) -> ImageStatistics:
        if image.nbytes <= KEPT_BYTES:
            return compute_statistics(image, self._settings)
        path = self._folder / f"{name}.json"
        key = json.dumps([*state_of_image(image), self._settings.model_dump(mode="json")])
        with turn_at(path, lambda: _load(path, key) is not None):
            kept = _load(path, key)
            if kept is not None:
                return kept
            statistics = compute_statistics(image, self._settings)
            atomic_write(path, json.dumps({"key": key, "statistics": statistics.to_json()}))
            return statistics


def _load(path: Path, key: str) -> ImageStatistics | None:
    content = read_json(path)
    return ImageStatistics.from_json(content["statistics"]) if content is not None and content["key"] == key else None
