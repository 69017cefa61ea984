"""Targets: can a file or folder be made where somebody wants it?"""

from __future__ import annotations

from pathlib import Path


def obstacle(path: Path) -> str:
    """What keeps a file or folder from being made at `path`: one of the folders above it is a file. Empty: nothing does."""
    above = next((folder for folder in path.expanduser().absolute().parents if folder.exists()), None)
    return f"{above} is a file, not a folder" if above is not None and not above.is_dir() else ""
