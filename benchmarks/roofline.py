"""How fast each engine runs the network alone: the ceiling of a prediction, and its share of the machine's arithmetic.

    python benchmarks/roofline.py CHECKPOINT --shape 1 1 512 512 [--shape …]

Prints one JSON object: GFLOP/s of a matrix product and GB/s of a triad in the same minute, and per engine and shape the
shortest and the median seconds of several calls, engines in turn. No image is read, cut or written: random numbers through
the network. Engines: `eager` (PyTorch, the module as it was trained), `torch` (norms folded, channels last), `onnxruntime`,
`openvino`, `openvino int8` (NNCF; accuracy is nobody's concern here). One that is not installed is left out.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from measuring.flops import count_flops
from measuring.machine import gemm_gflops, triad_gigabytes
from numpy.typing import NDArray
from torch import nn

sys.path.insert(0, str(Path(__file__).parent / "peers"))

Run = Callable[[], object]


def build_eager(network: nn.Module, tile: NDArray[np.float32]) -> Run:
    """The module as it was trained."""
    tensor = torch.from_numpy(tile)
    return lambda: network(tensor)


def build_torch(network: nn.Module, tile: NDArray[np.float32]) -> Run:
    """Norms folded, channels last."""
    layout = torch.channels_last if tile.ndim == 4 else torch.channels_last_3d
    folded = folded_copy(network).to(memory_format=layout)  # type: ignore[call-overload]
    tensor = torch.from_numpy(tile).to(memory_format=layout)
    return lambda: folded(tensor)


def build_onnxruntime(network: nn.Module, tile: NDArray[np.float32]) -> Run:
    """ONNX Runtime on the CPU."""
    import onnxruntime

    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/network.onnx"
        torch.onnx.export(folded_copy(network), (torch.from_numpy(tile),), path, dynamo=False)
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda: session.run(None, {name: tile})


def build_openvino(network: nn.Module, tile: NDArray[np.float32]) -> Run:
    """OpenVINO in float32, compiled for this shape."""
    return compile_openvino(convert(network, tile), tile)


def build_int8(network: nn.Module, tile: NDArray[np.float32]) -> Run:
    """OpenVINO in int8."""
    import nncf

    quantised = nncf.quantize(convert(network, tile), nncf.Dataset([tile]), subset_size=1, fast_bias_correction=True)
    return compile_openvino(quantised, tile)


BUILDERS: dict[str, Callable[[nn.Module, NDArray[np.float32]], Run]] = {
    "eager": build_eager,
    "torch": build_torch,
    "onnxruntime": build_onnxruntime,
    "openvino": build_openvino,
    "openvino int8": build_int8,
}


def folded_copy(network: nn.Module) -> nn.Module:
    """The network with its norms in its convolutions."""
    from crista.models import fold_batch_norm

    return fold_batch_norm(network).eval()


def convert(network: nn.Module, tile: NDArray[np.float32]) -> Any:
    """OpenVINO's form of the network for one shape."""
    import openvino

    model = openvino.convert_model(folded_copy(network), example_input=torch.from_numpy(tile))
    model.reshape(list(tile.shape))
    return model


def compile_openvino(model: Any, tile: NDArray[np.float32]) -> Run:
    """Ready to run, in float32 where nothing is quantised."""
    import openvino

    options = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}
    compiled = openvino.Core().compile_model(model, "CPU", options)
    return lambda: compiled(tile)


def iter_runs(network: nn.Module, shape: Sequence[int]) -> Iterator[tuple[str, Run]]:
    """Every engine that is there, ready for a tile of `shape`."""
    tile = np.random.default_rng(0).standard_normal(shape, np.float32)
    for name, build in BUILDERS.items():
        try:
            yield name, build(network, tile)
        except ImportError:
            continue


def time_engines(network: nn.Module, shape: Sequence[int], rounds: int) -> dict[str, dict[str, float]]:
    """Shortest and median seconds of each engine over `rounds` rounds, engines in turn; the first round does not count."""
    runs = dict(iter_runs(network, shape))
    taken: dict[str, list[float]] = {name: [] for name in runs}
    with torch.inference_mode():
        for _ in range(rounds + 1):
            for name, run in runs.items():
                started = time.perf_counter()
                run()
                taken[name].append(time.perf_counter() - started)
    return {name: {"best": min(values[1:]), "median": statistics.median(values[1:])} for name, values in taken.items()}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--shape", type=int, nargs="+", action="append", required=True, help="N C [Z] Y X")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, help="write the JSON there instead")
    arguments = parser.parse_args()
    from crista_network import load_network

    network = load_network(arguments.checkpoint)
    report: dict[str, Any] = {"gemm": gemm_gflops(), "triad": triad_gigabytes(), "shapes": []}
    for shape in arguments.shape:
        engines = time_engines(network, shape, arguments.rounds)
        report["shapes"].append({"shape": shape, "flops": count_flops(network, shape), "engines": engines})
    report["gemm_after"] = gemm_gflops()
    text = json.dumps(report, indent=2)
    print(text)
    if arguments.out is not None:
        arguments.out.write_text(text)


if __name__ == "__main__":
    main()
