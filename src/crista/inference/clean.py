"""Clean: the median filters of TEST.POST_PROCESSING over a whole prediction."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from crista.inference.sink import PredictionSink, Scratch
from crista.plan.plan import Plan
from crista.postprocessing.median import median_filter


def filter_prediction(sink: PredictionSink, plan: Plan, scratch: Scratch) -> NDArray[np.uint8]:
    """Labels (Z)YX after the median filters, slab by slab.

    With two classes the label image is filtered, which equals filtering the probabilities and then applying the threshold
    (the median keeps the order of values). With more classes each probability is filtered and the largest chosen: a median of
    class numbers would invent classes.
    """
    filters = plan.config.test.post_processing.filters_for(sink.labels.ndim)
    source: NDArray[Any] = sink.labels if sink.probabilities is None else sink.probabilities
    by_labels = plan.classes.num_classes == 2
    if by_labels:
        source = sink.labels
    cleaned: NDArray[np.uint8] = scratch.empty(sink.labels.shape, np.uint8)
    reach = sum(size // 2 for _, size in filters)
    length = sink.labels.shape[0]
    rows = max(1, 2**24 // max(1, int(np.prod(sink.labels.shape[1:]))))
    for start in range(0, length, rows):
        low, high = max(0, start - reach), min(length, start + rows + reach)
        slab = np.asarray(source[low:high] if by_labels else source[:, low:high])
        for axes, size in filters:
            slab = median_filter(slab, axes, size)
        labels = slab if by_labels else slab.argmax(axis=0)
        stop = min(length, start + rows)
        cleaned[start:stop] = labels[start - low : stop - low]
    return cleaned
