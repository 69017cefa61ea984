"""The libraries behind the engines, imported when they are needed, and without the reports that they would send to their makers.

OpenVINO (when it is imported) and NNCF (when it works) send what runs where, and how often, to a server for statistics, without
asking first. ONNX Runtime hands such events to Windows.
"""

from __future__ import annotations

import sys
from typing import Any

REPORTING = "openvino_telemetry"
"""The package by which OpenVINO and NNCF report; both do without where it cannot be imported."""


def import_openvino() -> Any:
    """OpenVINO; it reports nothing unless the program that uses crista has imported what reports."""
    _do_not_report()
    import openvino

    return openvino


def import_nncf() -> Any:
    """NNCF; the same."""
    _do_not_report()
    import nncf

    return nncf


def import_onnxruntime() -> Any:
    """ONNX Runtime; it reports nothing."""
    import onnxruntime

    onnxruntime.disable_telemetry_events()
    return onnxruntime


def _do_not_report() -> None:
    sys.modules.setdefault(REPORTING, None)  # type: ignore[arg-type]  # importing it is an ImportError now
