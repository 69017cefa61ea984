"""OpenVINO: the fastest engine on processors; float32, or 8-bit integers for a model that was accepted."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from crista.config.engine import OpenVINO, OpenVINOInt8
from crista.inference.engine import Engine
from crista.inference.engines.base import (
    ENGINES,
    EngineSource,
    ScoringEngine,
    Tolerance,
    as_input,
    check_available,
    check_installed,
    tolerance_of,
)
from crista.inference.engines.conversion import load_converted
from crista.inference.engines.int8_record import accepted_model
from crista.inference.engines.libraries import import_openvino


class OpenVINOEngine(ScoringEngine):
    """A compiled model with one request, whose memory serves every batch; any batch size and spatial shape.

    Shapes stay dynamic: here that costs nothing measurable against a model compiled for one shape (the results are equal to
    the bit), and the tiles at the border of an image need no model of their own.
    """

    def __init__(self, name: str, compiled: Any, tensor: Any) -> None:
        self.name = name
        self._request = compiled.create_infer_request()
        self._tensor = tensor
        self._held: tuple[NDArray[np.float32], ...] = ()
        self._num_logits = int(compiled.output(0).get_partial_shape()[1].get_length())

    def scores(self, images: NDArray[np.float32]) -> torch.Tensor:
        """Scores of one batch, written by OpenVINO into memory of their own."""
        batch = as_input(images)
        scores = np.empty((batch.shape[0], self._num_logits, *batch.shape[2:]), np.float32)
        self._held = (batch, scores)  # the request keeps their addresses until it gets the next ones
        self._request.set_input_tensor(self._tensor(batch, shared_memory=True))
        self._request.set_output_tensor(self._tensor(scores, shared_memory=True))
        self._request.infer()
        return torch.from_numpy(scores)


def compile_engine(name: str, model: Any, *, num_threads: int) -> OpenVINOEngine:
    """An engine of an OpenVINO model.

    Float32 stays float32 where the processor has bfloat16. Threads are not bound to cores: they share them with those that
    read and write, and several processes on one machine would all be bound to the same ones.
    """
    openvino = import_openvino()
    settings = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": "f32",
        "INFERENCE_NUM_THREADS": num_threads,
        "ENABLE_CPU_PINNING": False,
    }
    return OpenVINOEngine(name, openvino.Core().compile_model(model, "CPU", settings), openvino.Tensor)


def read_model(content: bytes) -> Any:
    """An OpenVINO model of an ONNX file."""
    return import_openvino().Core().read_model(io.BytesIO(content))


@ENGINES.register(OpenVINO)
def build_openvino(config: OpenVINO, *, source: EngineSource) -> Engine:
    """OpenVINO in float32."""
    check_installed(config)
    model = load_converted(source, read_model)
    return compile_engine(config.name, model, num_threads=source.num_threads)


@ENGINES.register(OpenVINOInt8)
def build_openvino_int8(config: OpenVINOInt8, *, source: EngineSource) -> Engine:
    """OpenVINO with the 8-bit model beside the checkpoint, if there is one that was accepted for these weights."""
    check_installed(config)
    path, _ = accepted_model(source)
    return compile_engine(config.name, import_openvino().Core().read_model(path), num_threads=source.num_threads)


@check_available.register
def check_int8(config: OpenVINOInt8, source: EngineSource) -> None:
    """There must be a model that was accepted for these weights."""
    check_installed(config)
    accepted_model(source)


@tolerance_of.register
def int8_tolerance(config: OpenVINOInt8, source: EngineSource) -> Tolerance:  # noqa: ARG001
    """Any probability may differ; the classes by twice the share of the validation images and 1 % more.

    That tells a processor on which the model computes something else from one that computes what was accepted.
    """
    _, record = accepted_model(source)
    return Tolerance(difference=1.0, unequal=0.01 + 2 * (1 - record.agreement))
