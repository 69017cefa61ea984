"""Random changes of training samples: one class per augmentation, and the pipeline that applies them."""

from crista.augmentations.base import AUGMENTATIONS, Augment
from crista.augmentations.pipeline import Pipeline, build_pipeline

__all__ = ["AUGMENTATIONS", "Augment", "Pipeline", "build_pipeline"]
