"""Trial: an engine is made and its numbers are compared with those of PyTorch; whatever goes wrong becomes one line."""

from __future__ import annotations

from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray

from crista.config.engine import EngineConfig
from crista.errors import EngineError
from crista.inference.engine import Engine
from crista.inference.engines.base import ENGINES, EngineSource, check_available, tolerance_of
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
            engine, wrong = build_or_say(config, self.source)
            if engine is not None:
                wrong = self._check(config, engine)
            self._engines[config.name] = None if wrong else engine
            if wrong:
                self.notices.append(f"{wrong}; predicting without it")
        return self._engines[config.name]

    def give_up(self, config: EngineConfig, error: Exception) -> None:
        """Do without an engine that failed after its numbers were found right."""
        self._engines[config.name] = None
        self.notices.append(f"{describe_failure(config, error)}; predicting without it")

    def fresh(self, config: EngineConfig) -> Engine:
        """An engine whose numbers are right, made anew: it holds no memory of the trial, so that its own can be measured."""
        engine, _ = build_or_say(config, self.source)
        return engine or self._engines[config.name] or self.pytorch

    def agreement(self, name: str) -> str:
        """How far the probabilities of an engine were from PyTorch's."""
        return f"its probabilities differ from PyTorch's by at most {self._differences[name]:.0e}"

    def _check(self, config: EngineConfig, engine: Engine) -> str:
        """What is wrong with what an engine makes of the part; empty if nothing is."""
        expected, allowed = self.reference, tolerance_of(config, self.source)
        try:
            scores = engine.scores(self.part)
        except Exception as error:  # noqa: BLE001 - as below
            return describe_failure(config, error)
        difference = float((scores - expected).abs().max())
        if not difference <= allowed.difference:  # also what is not a number
            figures = f"{difference:.1e} from PyTorch's (allowed: {allowed.difference:g})"
            return f"{config.title} gives probabilities that differ by {figures}"
        threshold = self.source.plan.config.test.threshold
        unequal = batch_labels(scores, threshold) != batch_labels(expected, threshold)
        count = int(unequal.sum())
        if count > max(1.0, allowed.unequal * unequal.numel()):
            figures = f"{count / unequal.numel():.2%} of the pixels (allowed: {allowed.unequal:.2%})"
            return f"{config.title} gives another class than PyTorch at {figures}"
        self._differences[config.name] = difference
        return ""


def build_or_say(config: EngineConfig, source: EngineSource) -> tuple[Engine | None, str]:
    """An engine, or None and why it cannot be had, in one line."""
    try:
        check_available(config, source)
        return ENGINES.build(config, source=source), ""
    except EngineError as error:
        return None, str(error)
    except Exception as error:  # noqa: BLE001 - whatever another library raises, PyTorch still predicts
        return None, describe_failure(config, error)


def describe_failure(config: EngineConfig, error: Exception) -> str:
    """What a library raised, in one line."""
    first = (str(error).strip().splitlines() or [""])[0]
    return f"{config.title} failed ({type(error).__name__}: {first[:200]})"
