"""Every public module, class, function and method of the package says what it is."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

SOURCE = Path(__file__).parents[2] / "src" / "crista"
SHORTEST = 8
"""Characters below which a docstring says nothing."""

Documented = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


def iter_public(node: ast.Module | ast.ClassDef, name: str) -> Iterator[tuple[str, Documented]]:
    """`node` and the public names in it; functions within functions are nobody's business."""
    yield name, node
    for below in node.body:
        if not isinstance(below, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) or below.name.startswith("_"):
            continue
        if isinstance(below, ast.ClassDef):
            yield from iter_public(below, f"{name}:{below.name}")
        else:
            yield f"{name}:{below.name}", below


def test_everything_public_has_a_docstring() -> None:
    """What has none, or an empty one, is listed."""
    missing, count = [], 0
    for path in sorted(SOURCE.rglob("*.py")):
        module = str(path.relative_to(SOURCE))
        for name, node in iter_public(ast.parse(path.read_text(encoding="utf-8")), module):
            count += 1
            if len((ast.get_docstring(node) or "").strip()) < SHORTEST:
                missing.append(name)
    assert missing == []
    assert count >= 900
