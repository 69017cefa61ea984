"""The libraries behind the engines send nothing to anybody."""

from __future__ import annotations

import logging
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import crista
from crista.inference.engines import int8
from crista.inference.engines.base import installed

IMPORTING = """
import sys
from crista.inference.engines.libraries import import_nncf, import_openvino
import_openvino()
import_nncf()
print(sorted(name for name, module in sys.modules.items() if name.startswith("openvino_telemetry") and module is not None))
"""


def test_nothing_that_reports_is_loaded(tmp_path: Path) -> None:
    missing = [package for package in ("openvino", "nncf", "openvino-telemetry") if installed(package) is None]
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)}")
    # In a process of its own: pytest switches the reports of NNCF off, and CI those of OpenVINO.
    env = {name: value for name, value in os.environ.items() if name not in ("CI", "NNCF_CI")} | {"HOME": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", IMPORTING], env=env, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
    assert not (tmp_path / "intel").exists(), "where OpenVINO keeps the number by which it reports"


def test_they_are_imported_nowhere_else() -> None:
    source = Path(crista.__file__).parent
    found = re.compile(r"^\s*(import|from) (openvino|nncf|onnxruntime)\b", re.MULTILINE)
    assert [path.name for path in source.rglob("*.py") if found.search(path.read_text(encoding="utf-8"))] == ["libraries.py"]


def test_nncf_is_quiet_and_handlers_of_others_are_as_they_were() -> None:
    """Pytest, for one, hands it the handler that shows what all programs log."""
    pytest.importorskip("nncf")
    log, handler = logging.getLogger("nncf"), logging.StreamHandler()
    log.addHandler(handler)
    try:
        int8._import_nncf()
        assert (log.level, handler.level) == (logging.ERROR, logging.NOTSET)
    finally:
        log.removeHandler(handler)
