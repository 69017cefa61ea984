"""Words that messages share; lists of names, values and shapes are short, however long they are."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

LISTED = 10

SPECIAL = frozenset(" \t&|<>^();,%'[]{}\"")
"""Signs that mean something to the shells of Windows outside of double quotes."""

LEFT_OUT = "image and label are left out"
"""What the fix does about files that cannot be used."""


def list_names(names: Sequence[str], limit: int = LISTED) -> str:
    """``a.tif, b.tif and 12 more``."""
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more


def list_files(paths: Sequence[Path], limit: int = LISTED) -> str:
    """The same of file names."""
    return list_names([path.name for path in paths], limit)


def place_of(paths: Sequence[Path]) -> str:
    """Where a finding is: the file, or the folders of several files."""
    return str(paths[0]) if len(paths) == 1 else ", ".join(dict.fromkeys(str(path.parent) for path in paths))


def show_values(values: Sequence[int]) -> str:
    """``{0, 1, 255}``; of long sets the first ones and the last."""
    shown = [str(value) for value in values]
    if len(shown) > LISTED:
        shown = [*shown[: LISTED - 2], "…", shown[-1]]
    return "{" + ", ".join(shown) + "}"


def show_shape(shape: Sequence[int]) -> str:
    """``96 × 128``."""
    return " × ".join(map(str, shape))


def plural(count: int, word: str) -> str:
    """``1 channel``, ``3 channels``."""
    return f"{count} {word}{'s' if count != 1 else ''}"


def command_line(words: Sequence[str]) -> str:
    """Words as they are typed: the shells of Windows know double quotes, cmd no single ones, and a backslash needs none."""
    if sys.platform != "win32":
        return shlex.join(words)
    quoted = ('"' + word.replace('"', '\\"') + '"' for word in words)
    return " ".join(q if not word or set(word) & SPECIAL else word for word, q in zip(words, quoted, strict=True))
