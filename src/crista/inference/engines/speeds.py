"""What is known of this machine: how fast each engine was with a network of some shape; kept for later runs."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping, Sequence
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch

from crista.images.atomic import atomic_write
from crista.inference.engines.base import EngineSource, installed

VERSION = 1
MOST_ENTRIES = 200
Speeds = dict[str, float]
"""Milliseconds per engine."""


def machine_file() -> Path:
    """`crista/engines.json` in the user's cache folder.

    Raises
    ------
    RuntimeError
        If the user has no home folder, as under a number without a name in a container.
    """
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "crista" / "engines.json"


def speed_key(source: EngineSource, shape: Sequence[int], engines: Sequence[str]) -> str:
    """A digest of what the speed depends on: network (not its weights), tile, processor, cores, versions, and who competes."""
    plan = source.plan
    versions = [torch.__version__, *(installed(package) for package in ("openvino", "onnxruntime"))]
    network = [plan.ndim, plan.num_channels, plan.classes.num_logits, plan.model.model_dump_json()]
    parts = [network, list(shape), processor(), source.num_threads, versions, sorted(engines)]
    return sha256(json.dumps(parts).encode()).hexdigest()[:32]


def load_speeds(key: str) -> Speeds | None:
    """What was measured for `key`; None if nothing was, or the file cannot be read."""
    entry = _load_all().get(key)
    if not isinstance(entry, dict) or not all(isinstance(value, int | float) and value > 0 for value in entry.values()):
        return None
    return {str(name): float(value) for name, value in entry.items()}


def save_speeds(key: str, speeds: Mapping[str, float]) -> None:
    """Remember `speeds`; a folder that cannot be written, or is not there, is done without."""
    known = _load_all()
    known.pop(key, None)
    kept = dict([*known.items(), (key, dict(speeds))][-MOST_ENTRIES:])
    with suppress(OSError, RuntimeError):
        atomic_write(machine_file(), json.dumps({"version": VERSION, "milliseconds": kept}, indent=1))


def _load_all() -> dict[str, Any]:
    try:
        content = json.loads(machine_file().read_text(encoding="utf-8"))
    except (OSError, RuntimeError, ValueError):
        return {}
    fits = isinstance(content, dict) and content.get("version") == VERSION and isinstance(content.get("milliseconds"), dict)
    return dict(content["milliseconds"]) if fits else {}


def processor() -> str:
    """What the processor is and can, as far as the system says."""
    wanted = ("vendor_id", "cpu family", "model", "model name", "stepping", "flags", "Features")
    try:
        first = Path("/proc/cpuinfo").read_text(encoding="utf-8").partition("\n\n")[0]
    except OSError:
        return f"{platform.machine()} {platform.processor()}"
    pairs = (line.split(":", 1) for line in first.splitlines() if ":" in line)
    return " ".join(value.strip() for name, value in pairs if name.strip() in wanted)
