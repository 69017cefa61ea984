"""Engines: what computes the network in prediction, and the choice among them.

Each is a class of `crista.config.engine` with a builder registered in `ENGINES`; whoever imports this package has them all.
"""

from crista.inference.engines.base import ENGINES, EngineSource
from crista.inference.engines.choice import EngineChoice, build_chosen, choose_engine
from crista.inference.engines.int8 import quantize_engine
from crista.inference.engines.int8_record import Int8Record, int8_model_path
from crista.inference.engines.onnx_engine import OnnxRuntimeEngine
from crista.inference.engines.openvino_engine import OpenVINOEngine
from crista.inference.engines.torch_engine import TorchEngine

__all__ = [
    "ENGINES",
    "EngineChoice",
    "EngineSource",
    "Int8Record",
    "OnnxRuntimeEngine",
    "OpenVINOEngine",
    "TorchEngine",
    "build_chosen",
    "choose_engine",
    "int8_model_path",
    "quantize_engine",
]
