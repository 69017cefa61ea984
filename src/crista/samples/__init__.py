"""Procedural data sets with exact labels (2D, 3D, several classes) for `crista demo`, tests and the documentation."""

from crista.samples.catalogue import SAMPLES, SampleSet, draw_sample, write_sample

__all__ = ["SAMPLES", "SampleSet", "draw_sample", "write_sample"]
