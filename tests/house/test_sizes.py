"""Files and functions stay small enough to be read in one go."""

from __future__ import annotations

import ast
from pathlib import Path

SOURCE = Path(__file__).parents[2] / "src" / "crista"
MAX_FILE, MAX_FUNCTION, MAX_PARAMETERS = 500, 60, 8
AT_LEAST_FILES, AT_LEAST_FUNCTIONS = 100, 800
"""What there was when this was written, rounded down: a test that looks at nothing proves nothing."""

Function = ast.FunctionDef | ast.AsyncFunctionDef


def num_parameters(function: Function) -> int:
    """Parameters that a caller gives; `self` and `cls` do not count."""
    arguments = function.args
    named = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
    return len([argument for argument in named if argument.arg not in ("self", "cls")])


def test_files_functions_and_signatures_are_short() -> None:
    """Nothing is over the hard limits; everything that is gets listed at once."""
    too_large: list[str] = []
    num_files = num_functions = 0
    for path in sorted(SOURCE.rglob("*.py")):
        text, name = path.read_text(encoding="utf-8"), path.relative_to(SOURCE)
        num_files += 1
        if text.count("\n") > MAX_FILE:
            too_large.append(f"{name}: {text.count(chr(10))} lines")
        for node in ast.walk(ast.parse(text)):
            if not isinstance(node, Function):
                continue
            num_functions += 1
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            if length > MAX_FUNCTION:
                too_large.append(f"{name}:{node.lineno} {node.name}: {length} lines")
            if num_parameters(node) > MAX_PARAMETERS:
                too_large.append(f"{name}:{node.lineno} {node.name}: {num_parameters(node)} parameters")
    assert too_large == []
    assert num_files >= AT_LEAST_FILES
    assert num_functions >= AT_LEAST_FUNCTIONS
