"""Provenance: which versions, machine, seed, command and inputs a result comes from."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from crista.images.atomic import atomic_write

PACKAGES = (
    "torch",
    "numpy",
    "scipy",
    "pydantic",
    "tifffile",
    "imagecodecs",
    "zarr",
    "h5py",
    "nibabel",
    "matplotlib",
    "openvino",
    "onnxruntime",
)
HASHED_BYTES = 1_000_000
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class InputFile:
    """One file that a run has read."""

    path: str
    bytes: int
    modified: str
    """ISO 8601, UTC."""
    sha1: str
    """Of the first megabyte; of a Zarr or N5 folder, of its metadata file. Says whether it is the same file, not who made it."""


@dataclass(frozen=True)
class Provenance:
    """Where a result comes from; written as JSON."""

    versions: dict[str, str]
    """Of crista, Python and the packages that compute or read."""
    platform: str
    processor: str
    num_cpus: int
    device: str
    """What the network ran on."""
    threads: int
    seed: int
    command: tuple[str, ...]
    """The command line."""
    started: str
    """ISO 8601, UTC."""
    finished: str
    seconds: float
    inputs: tuple[InputFile, ...]


def build_provenance(
    *, inputs: Iterable[Path], seed: int, device: str, threads: int, command: Sequence[str], started: datetime
) -> Provenance:
    """Gather the facts now, at the end of a run that began at `started` (with time zone)."""
    finished = datetime.now(UTC)
    return Provenance(
        versions=installed_versions(),
        platform=platform.platform(),
        processor=platform.processor() or platform.machine(),
        num_cpus=os.cpu_count() or 1,
        device=device,
        threads=threads,
        seed=seed,
        command=tuple(command),
        started=_iso(started),
        finished=_iso(finished),
        seconds=round((finished - started).total_seconds(), 3),
        inputs=tuple(describe_input(path) for path in inputs),
    )


def peak_memory() -> int | None:
    """Most bytes that the system has on record for this process; None where it does not say (Windows)."""
    try:
        import resource
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def installed_versions() -> dict[str, str]:
    """Version of crista, Python and the packages that compute or read; ``not installed`` where one is missing."""
    versions = {"crista": version("crista"), "python": platform.python_version()}
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = "not installed"
    return versions


def describe_input(path: Path) -> InputFile:
    """Size, time and checksum of one input. Of a Zarr or N5 folder the size is that of its metadata file."""
    file = _metadata_file(path) if path.is_dir() else path
    facts = file.stat()
    with Path(file if file.is_file() else os.devnull).open("rb") as stream:
        digest = hashlib.sha1(stream.read(HASHED_BYTES), usedforsecurity=False).hexdigest()
    modified = EPOCH + timedelta(seconds=facts.st_mtime)  # Windows makes no date of a time before it, which some files have
    return InputFile(str(path), facts.st_size, _iso(modified), digest)


def _metadata_file(folder: Path) -> Path:
    candidates = (folder / name for name in ("zarr.json", ".zattrs", ".zgroup", ".zarray", "attributes.json"))
    return next((file for file in candidates if file.is_file()), folder)


def write_provenance(path: Path, provenance: Provenance) -> None:
    """Write the facts as JSON."""
    atomic_write(path, json.dumps(asdict(provenance), indent=2, ensure_ascii=False) + "\n")


def _iso(time: datetime) -> str:
    return time.astimezone(UTC).isoformat(timespec="seconds")
