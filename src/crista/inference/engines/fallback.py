"""Fallback: where an engine fails in the middle of a prediction, PyTorch does that batch again, and all that follow."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray

from crista.config.engine import Torch, engine_named
from crista.inference.engine import Engine
from crista.inference.engines.base import ENGINES, EngineSource, ScoringEngine
from crista.inference.engines.trial import describe_failure

FAILED = "{} in the middle of the prediction: PyTorch does that batch again, and the rest"


class ReplaceableEngine(ScoringEngine):
    """Another engine's scores; from its first failure on those of PyTorch, which it was compared with before it was chosen.

    What the failed engine held is let go before PyTorch is made, for a full memory may be why it failed.
    """

    def __init__(self, engine: Engine, source: EngineSource, say: Callable[[str], object]) -> None:
        self._engine = engine
        self._source = source
        self._say = say

    @property
    def name(self) -> str:  # type: ignore[override]
        """What computes from now on."""
        return self._engine.name

    def scores(self, images: NDArray[np.float32]) -> torch.Tensor:
        """Scores of one batch."""
        try:
            return self._engine.scores(images)
        except Exception as error:
            if self._engine.name == Torch().name:
                raise
            failure = describe_failure(engine_named(self._engine.name), error)
        del self._engine
        self._engine = ENGINES.build(Torch(), source=self._source)
        self._say(FAILED.format(failure))
        return self._engine.scores(images)
