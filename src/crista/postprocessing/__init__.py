"""CLEAN: median filters over a prediction."""

from crista.postprocessing.median import median_filter

__all__ = ["median_filter"]
