"""TEST.ENGINE: what computes the network in prediction."""

from __future__ import annotations

from typing import ClassVar, Literal

from crista.config.base import Section


class Torch(Section):
    """PyTorch, on every device."""

    title: ClassVar[str] = "PyTorch"
    packages: ClassVar[tuple[str, ...]] = ()
    """What must be installed besides crista."""
    extra: ClassVar[str] = ""
    """The extra of crista that installs it."""
    expected_gain: ClassVar[float] = 0.0
    """Share of PyTorch's time that it saves, for all that is known before measuring."""

    name: Literal["torch"] = "torch"


class OpenVINO(Section):
    """OpenVINO in float32, on processors."""

    title: ClassVar[str] = "OpenVINO"
    packages: ClassVar[tuple[str, ...]] = ("openvino", "onnx")
    extra: ClassVar[str] = "openvino"
    expected_gain: ClassVar[float] = 0.4

    name: Literal["openvino"] = "openvino"


class OnnxRuntime(Section):
    """ONNX Runtime in float32, on processors."""

    title: ClassVar[str] = "ONNX Runtime"
    packages: ClassVar[tuple[str, ...]] = ("onnxruntime", "onnx")
    extra: ClassVar[str] = "onnx"
    expected_gain: ClassVar[float] = 0.4

    name: Literal["onnxruntime"] = "onnxruntime"


class OpenVINOInt8(Section):
    """OpenVINO with 8-bit integers, on processors: a model that was accepted on validation images."""

    title: ClassVar[str] = "OpenVINO with 8-bit integers"
    packages: ClassVar[tuple[str, ...]] = ("openvino",)
    extra: ClassVar[str] = "openvino"
    expected_gain: ClassVar[float] = 0.6

    name: Literal["openvino-int8"] = "openvino-int8"


EngineConfig = Torch | OpenVINO | OnnxRuntime | OpenVINOInt8
EngineName = Literal["auto", "fastest", "torch", "openvino", "onnxruntime"]

CANDIDATES: dict[EngineName, tuple[EngineConfig, ...]] = {
    "auto": (OpenVINO(), OnnxRuntime()),
    "fastest": (OpenVINOInt8(), OpenVINO(), OnnxRuntime()),
    "torch": (),
    "openvino": (OpenVINO(),),
    "onnxruntime": (OnnxRuntime(),),
}
"""What is tried for each value of TEST.ENGINE besides PyTorch, which is always there."""

CHOOSING = ("auto", "fastest")
"""The values that leave the choice to a measurement; the others name an engine."""


def engine_named(name: str) -> EngineConfig:
    """The config of an engine by its name; PyTorch for a name that is not known."""
    known: dict[str, EngineConfig] = {config.name: config for config in (OpenVINO(), OnnxRuntime(), OpenVINOInt8())}
    return known.get(name, Torch())
