"""Trial: an engine is made and its numbers are compared with those of PyTorch; whatever goes wrong becomes one line."""

from __future__ import annotations

from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray

from crista.config.engine import EngineConfig
from crista.errors import EngineError
from crista.inference.engine import Engine
from crista.inference.engines.base import ENGINES, EngineSource, Tolerance, check_available, tolerance_of
from crista.inference.scores import batch_labels


class Trial:
    """PyTorch, and a part of a real tile on which other engines must give what it gives."""

    def __init__(self, source: EngineSource, pytorch: Engine, part: NDArray[np.float32]) -> None:
        self.source = source
        self.pytorch = pytorch
        self.part = part
        self.notices: list[str] = []
        self._engines: dict[str, Engine | None] = {}
        self._differences: dict[str, float] = {}

    @cached_property
    def reference(self) -> torch.Tensor:
        """What PyTorch makes of the part."""
        return self.pytorch.scores(self.part)

    def attempt(self, config: EngineConfig) -> Engine | None:
        """The engine, if it can be had and its numbers are right; else None and a notice. Tried once."""
        if config.name not in self._engines:
            engine, wrong = self._build(config)
            self._engines[config.name] = None if wrong else engine
            if wrong:
                self.notices.append(f"{wrong}; predicting without it")
        return self._engines[config.name]

    def agreement(self, name: str) -> str:
        """How far the probabilities of an engine were from PyTorch's."""
        return f"its probabilities differ from PyTorch's by at most {self._differences[name]:.0e}"

    def _build(self, config: EngineConfig) -> tuple[Engine | None, str]:
        """An engine, and what is wrong with it; empty if nothing is."""
        try:
            check_available(config, self.source)
            engine = ENGINES.build(config, source=self.source)
            wrong = self._compare(config.name, engine.scores(self.part), tolerance_of(config, self.source))
        except EngineError as error:
            return None, str(error)
        except Exception as error:  # noqa: BLE001 - whatever another library raises, PyTorch still predicts
            first = (str(error).strip().splitlines() or [""])[0]
            return None, f"{config.title} failed ({type(error).__name__}: {first[:200]})"
        return engine, f"{config.title} {wrong}" if wrong else ""

    def _compare(self, name: str, scores: torch.Tensor, allowed: Tolerance) -> str:
        """What is wrong with scores; empty if nothing is."""
        difference = float((scores - self.reference).abs().max())
        if not difference <= allowed.difference:  # also what is not a number
            return f"gives probabilities that differ from PyTorch's by {difference:.1e} (allowed: {allowed.difference:g})"
        threshold = self.source.plan.config.test.threshold
        unequal = batch_labels(scores, threshold) != batch_labels(self.reference, threshold)
        count = int(unequal.sum())
        if count > max(1.0, allowed.unequal * unequal.numel()):
            share = count / unequal.numel()
            return f"gives another class than PyTorch at {share:.2%} of the pixels (allowed: {allowed.unequal:.2%})"
        self._differences[name] = difference
        return ""
