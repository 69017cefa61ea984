"""ONNX Runtime: light to install, fast in 2D."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from crista.config.engine import OnnxRuntime
from crista.inference.engine import Engine
from crista.inference.engines.base import ENGINES, EngineSource, ScoringEngine, as_input, check_installed
from crista.inference.engines.conversion import INPUT, OUTPUT, load_converted
from crista.inference.engines.libraries import import_onnxruntime


class OnnxRuntimeEngine(ScoringEngine):
    """A session of ONNX Runtime on the processor; any batch size and spatial shape."""

    def __init__(self, name: str, session: Any) -> None:
        self.name = name
        self._session = session

    def scores(self, images: NDArray[np.float32]) -> torch.Tensor:
        """Scores of one batch."""
        return torch.from_numpy(self._session.run([OUTPUT], {INPUT: as_input(images)})[0])


@ENGINES.register(OnnxRuntime)
def build_onnxruntime(config: OnnxRuntime, *, source: EngineSource) -> Engine:
    """ONNX Runtime in float32."""
    check_installed(config)
    onnxruntime = import_onnxruntime()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = source.num_threads
    options.log_severity_level = 4
    options.enable_mem_pattern = False  # no faster here, and holds 1.7 times the memory

    def load(content: bytes) -> OnnxRuntimeEngine:
        session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        return OnnxRuntimeEngine(config.name, session)

    return load_converted(source, load)
