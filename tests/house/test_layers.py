"""Imports point downwards only: the contracts of pyproject.toml, checked as `make layers` does."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
NUM_CONTRACTS = 3


def test_imports_keep_to_the_layers(tmp_path: Path) -> None:
    """import-linter reads the source and keeps every contract."""
    code = "import sys; from importlinter.cli import lint_imports_command; sys.exit(lint_imports_command())"
    command = [sys.executable, "-c", code, "--config", str(ROOT / "pyproject.toml"), "--cache-dir", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"Contracts: {NUM_CONTRACTS} kept, 0 broken." in done.stdout
