"""What is wrong with keys and values, in words that need no Python: unknown keys, wrong types, ranges, names."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from typing import Any

from pydantic_core import ErrorDetails

from crista.config.base import coerce
from crista.config.document import Document
from crista.config.fields import Key, all_keys, all_sections, show_value
from crista.errors import Problem


def unknown_keys(document: Document, keys: Iterable[str]) -> list[Problem]:
    """One problem for each unknown key; a whole unknown section is one problem."""
    problems: dict[str, Problem] = {}
    for key in keys:
        root = _unknown_root(key)
        if root not in problems:
            problems[root] = _unknown(document, root)
    return list(problems.values())


def nearest_key(key: str) -> str:
    """Where a misspelt or misplaced `key` belongs, as a hint that ends a sentence; empty if nothing is near."""
    known = [*all_keys(), *all_sections()]
    section, _, leaf = key.rpartition(".")
    elsewhere = [name for name in known if name.rpartition(".")[2] == leaf]
    if elsewhere and (len(elsewhere) <= 3 or "." not in key):
        return f"{leaf} is {' or '.join(elsewhere[:4])}{' …' if len(elsewhere) > 4 else ''}"
    siblings = [name for name in known if name.rpartition(".")[0] == section]
    near = difflib.get_close_matches(key, siblings, 1, 0.75) or difflib.get_close_matches(key, known, 1, 0.8)
    if near:
        return f"did you mean {near[0]}?"
    leaves = difflib.get_close_matches(leaf, [name.rpartition(".")[2] for name in known], 1, 0.8)
    if leaves:
        matches = [name for name in known if name.rpartition(".")[2] == leaves[0]]
        return f"did you mean {' or '.join(matches[:3])}?"
    return ""


def scalar_for_section(document: Document, section: str) -> Problem:
    """A value (or a list) stands where a section begins."""
    example = next((key for key in all_keys() if key.startswith(f"{section}.")), section)
    leaf, given = example[len(section) + 1 :], document.value(section)
    glued = re.match(r"\s*([A-Za-z_]\w*)[:：](?=\S)", given) if isinstance(given, str) else None
    return Problem(
        document.place(section),
        f"is a section and takes no value of its own, but is {show_value(given)}",
        f"put a space after the colon: {glued[1]}: …" if glued else f"put its keys below it, indented, e.g. {leaf}: …",
    )


def value_problem(document: Document, error: ErrorDetails) -> Problem:
    """A pydantic error about one value or one section."""
    path = key_path(error)
    if error["type"] == "value_error":
        return _section_problem(document, path, str(error.get("ctx", {}).get("error", error["msg"])))
    key = all_keys().get(path)
    if key is None or error["type"] == "extra_forbidden":
        return Problem(document.place(path), "has no effect with this MODEL.ARCHITECTURE", "leave it out")
    return wrong_value(document, key, error)


def key_path(error: ErrorDetails) -> str:
    """The dotted key of a pydantic error; the tag of the architecture and the indices of lists are left out."""
    return ".".join(part for part in error["loc"] if isinstance(part, str) and part.isupper())


def line_of(problem: Problem) -> float:
    """The line of a problem, for sorting; problems without a line go last."""
    line = re.search(r" line (\d+)", problem.where)
    return int(line[1]) if line else float("inf")


def wrong_value(document: Document, key: Key, error: ErrorDetails | None = None) -> Problem:
    """The value of `key` is of the wrong type, out of range, or not among the choices."""
    given = _as_read(key, document.value(key.path))
    indices = [part for part in error["loc"] if isinstance(part, int)] if error is not None else []
    item = ""
    if indices and isinstance(given, list | tuple) and len(given) > 1 and indices[0] < len(given):
        item = f"; value {indices[0] + 1} is {show_value(given[indices[0]])}"
        given_item = given[indices[0]]
    else:
        given_item = given
    hint = nearest_choice(key, given_item)
    if isinstance(given, str) and given.startswith("(") and not given.endswith(")"):
        hint = "between { and } a list takes square brackets: [1, 2]"
    if key.takes_text and isinstance(given_item, int | float) and not isinstance(given_item, bool):
        hint = "put text that looks like a number in quotes: '2024_01'"
    return Problem(
        document.place(key.path),
        f"must be {_requirement(key, error)}, but is {show_value(given)}{item}",
        hint or f"see: crista explain {key.path}",
    )


def nearest_choice(key: Key, value: Any) -> str:
    """``did you mean ADAMW?`` for a misspelt name."""
    if len(key.choices) < 2 or isinstance(value, list | tuple | dict):  # INSTANCE_SEG does not mean the one that there is
        return ""
    by_lower = {choice.lower(): choice for choice in key.choices}
    near = difflib.get_close_matches(str(value).lower(), by_lower, 1, 0.5)
    return f"did you mean {by_lower[near[0]]}?" if near else ""


def mentioned_keys(section: str, message: str) -> list[str]:
    """The keys of `section` that a message of its own check names, in order."""
    words = re.findall(r"[A-Z][A-Z0-9_]*(?:\.[A-Z0-9_]+)*", message)
    paths = [word if word in all_keys() else f"{section}.{word}" for word in words]
    return [path for path in dict.fromkeys(paths) if path in all_keys()]


def _as_read(key: Key, value: Any) -> Any:
    """``(256, 0, 1)`` given as text is shown as the numbers that it was read as."""
    read = coerce(value, key.annotation) if isinstance(value, str) else value
    return value if read == [value] else read


def _requirement(key: Key, error: ErrorDetails | None) -> str:
    """The type of the key; for a range the limit alone."""
    limits = {
        "greater_than_equal": ("ge", "at least"),
        "greater_than": ("gt", "above"),
        "less_than_equal": ("le", "at most"),
        "less_than": ("lt", "below"),
    }
    if error is not None and error["type"] in limits:
        name, words = limits[error["type"]]
        return f"{words} {show_value(error.get('ctx', {})[name])}"
    return key.words


def _section_problem(document: Document, section: str, message: str) -> Problem:
    """A check inside a section speaks of its keys; point at the first one that the file holds."""
    given = [key for key in mentioned_keys(section, message) if key in document.entries]
    place = document.place(given[0]) if given else document.place(section)
    return Problem(place, message)


def _unknown_root(key: str) -> str:
    """The shortest beginning of `key` that no section has."""
    parts = key.split(".")
    for length in range(1, len(parts)):
        section = ".".join(parts[:length])
        if section not in all_sections():
            return section
    return key


def _unknown(document: Document, root: str) -> Problem:
    if root in all_keys():
        key, leaf = all_keys()[root], root.rpartition(".")[2]
        default = (
            f"write {leaf}: {show_value(key.default)}" if key.default not in (None, "", ()) else f"write a value after {leaf}:"
        )
        next_step = f"{default}, or leave it out" if key.takes_none else default
        return Problem(document.place(root), f"takes a value ({key.words}), not keys of its own", next_step)
    hint = nearest_key(root)
    kind = "section" if root in document.sections else "key"
    return Problem(document.place(root), f"there is no such {kind}", hint or "remove it, or see: crista explain")
