"""Nothing that is committed names a machine on which crista happened to be written."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
FORBIDDEN = tuple("".join(parts) for parts in (("/wo", "rk/"), ("farm", "-bench"), (".lib", "rary"), ("/tmp/", "crista")))
"""In pieces, so that this file does not hold them itself."""
GENERATED = ("__pycache__", "build", "dist", "crista_demo", "crista_results")


def iter_texts() -> Iterator[tuple[Path, str]]:
    """Every text file of the repository: what is hidden (but for `.ci`), generated or not UTF-8 is left out."""
    waiting = [ROOT]
    while waiting:
        for path in sorted(waiting.pop().iterdir()):
            if path.name in GENERATED or path.name.endswith(".egg-info"):
                continue
            if path.name.startswith(".") and path.name not in (".ci", ".gitignore", ".gitattributes", ".github"):
                continue
            if path.is_dir():
                waiting.append(path)
                continue
            try:
                yield path.relative_to(ROOT), path.read_text(encoding="utf-8")
            except UnicodeDecodeError:
                continue


def test_no_text_names_the_workplace() -> None:
    """Each file that does is listed with its line."""
    found, num_files = [], 0
    for path, text in iter_texts():
        num_files += 1
        for number, line in enumerate(text.splitlines(), 1):
            found += [f"{path}:{number} {name}" for name in FORBIDDEN if name in line]
    assert found == []
    assert num_files >= 200
