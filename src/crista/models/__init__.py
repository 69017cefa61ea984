"""MODEL: batch -> logits. U-Nets of 2D and 3D, assembled from one set of blocks."""

from crista.models.architectures import MODELS, build_model
from crista.models.fold import fold_batch_norm
from crista.models.placement import to_layout
from crista.models.summary import LayerSummary, describe_model

__all__ = ["MODELS", "LayerSummary", "build_model", "describe_model", "fold_batch_norm", "to_layout"]
