"""Packages that are only needed by those who have several machines."""

from __future__ import annotations

from importlib import import_module
from types import ModuleType

from crista.errors import ConfigError, Problem


def import_dask(name: str) -> ModuleType:
    """The module `name` of Dask or of what it needs; raises a `ConfigError` that says how to install it."""
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        problem = Problem(
            "SYSTEM.CLUSTER",
            f"work is to be shared among processes, and the package {error.name} for it is not installed",
            'install it: pip install "crista[cluster]" (SHARD and torchrun need nothing)',
        )
        raise ConfigError("with the workers", [problem]) from error
