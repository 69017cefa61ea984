"""Engine: what runs the trained network in a prediction."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from crista.inference.engine import Engine, build_engine
from crista.inference.orientations import OrientedEngine
from crista.plan.plan import Plan


def build_predicting_engine(plan: Plan, weights: Mapping[str, torch.Tensor], device: torch.device) -> Engine:
    """The trained network, over several orientations with TEST.AUGMENTATION."""
    engine = build_engine(plan, weights, device)
    test = plan.config.test
    if not test.augmentation:
        return engine
    return OrientedEngine(engine, ndim=plan.ndim, group=test.augmentation_group, mode=test.augmentation_mode)
