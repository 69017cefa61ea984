"""From a YAML file, a text or a dictionary to a checked `Config`, with every problem found in one pass."""

from __future__ import annotations

import difflib
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePath
from typing import Any

from pydantic import ValidationError
from ruamel.yaml import YAML

from crista.config.base import coerce
from crista.config.document import Document, read_mapping, read_overrides, read_text
from crista.config.effects import idle_keys
from crista.config.fields import Key, all_keys, all_sections, show_value
from crista.config.known_keys import check_architecture, find_known, is_known_section, judge_known_key
from crista.config.messages import (
    key_path,
    line_of,
    mentioned_keys,
    scalar_for_section,
    unknown_keys,
    value_problem,
    wrong_value,
)
from crista.config.old_values import as_switch
from crista.config.renamed_keys import apply_renamed_keys
from crista.config.root import Config, check_across_sections
from crista.errors import ConfigError, Problem

TITLE = "in the configuration"
ROUNDS = 6
"""Checks inside a section run only once its values are right, so validation repeats without the wrong values."""


@dataclass(frozen=True)
class LoadedConfig:
    """A configuration and what there is to say about it."""

    config: Config
    text: str
    """The YAML as given (made from the dictionary where one was given)."""
    notices: tuple[str, ...] = ()
    """One line for each old name, old value, and key without effect."""
    path: Path | None = None
    """The file, if there is one."""
    overrides: tuple[str, ...] = ()
    """``TRAIN.EPOCHS=20`` given beside the file."""


def load_config(path: Path, overrides: Sequence[str] = ()) -> LoadedConfig:
    """Read a YAML file.

    `overrides` are ``KEY=VALUE`` with the value in YAML; they win over the file. Raises `ConfigError` with all problems,
    each with its line.
    """
    path = Path(path)
    if not path.is_file():
        raise ConfigError("with the configuration file", [_missing_file(path)])
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        problem = Problem(str(path), f"is not a text file in UTF-8 ({error.reason})", "save it as UTF-8 text")
        raise ConfigError("with the configuration file", [problem]) from error
    except OSError as error:
        problem = Problem(str(path), f"cannot be read ({error.strerror})", "check the rights of the file")
        raise ConfigError("with the configuration file", [problem]) from error
    return replace(parse_config(text, path.name, overrides), path=path)


def parse_config(text: str, name: str = "configuration", overrides: Sequence[str] = ()) -> LoadedConfig:
    """Read a YAML text; `name` stands for the file in messages. Raises `ConfigError` with all problems."""
    document, problems = read_text(text, name)
    config, notices = _check(document, problems, overrides)
    return LoadedConfig(config, text, notices, overrides=tuple(overrides))


def config_from_dict(tree: Mapping[str, Any], overrides: Sequence[str] = ()) -> LoadedConfig:
    """Read a nested dictionary: keys in capitals, in lower case, or dotted (``{"train.epochs": 20}``), values as in YAML.

    Raises `ConfigError` with all problems.
    """
    document, problems = read_mapping(tree)
    text = as_yaml(document.tree())
    config, notices = _check(document, problems, overrides)
    return LoadedConfig(config, text, notices, overrides=tuple(overrides))


def _check(document: Document, problems: list[Problem], overrides: Sequence[str]) -> tuple[Config, tuple[str, ...]]:
    """The checked configuration and its notices; raises `ConfigError`."""
    given, found = read_overrides(overrides)
    problems = [*problems, *found]
    document.overlay(given)
    problems += unknown_keys(document, _unknown_empty_sections(document))
    renamed, found = apply_renamed_keys(document)
    problems += found
    if as_switch(document.value("PROBLEM.PRINT_OLD_KEY_CHANGES", True)) is False:
        renamed = []
    notices = [*renamed, *_sort_out(document, problems)]
    architecture = check_architecture(document)
    if architecture is not None:
        problems.append(architecture)
        del document.entries["MODEL.ARCHITECTURE"]
    notices += _prepare_values(document, problems)
    config = _validate(document, problems)
    if problems:
        raise ConfigError(TITLE, sorted(problems, key=line_of))
    return config, (*notices, *idle_keys(config, document))


def _sort_out(document: Document, problems: list[Problem]) -> list[str]:
    """Take out of the document whatever is not one of crista's keys; notices, and problems for the unknown."""
    notices, unknown, idle = [], [], []
    for key in list(document.entries):
        known = find_known(key)
        if key in all_keys():
            continue
        if key in all_sections():
            if document.value(key) is not None:
                problems.append(scalar_for_section(document, key))
        elif known is None and not (document.value(key) is None and is_known_section(key)):
            unknown.append(key)
            continue
        elif known is not None:
            outcome = judge_known_key(document, key, known)
            problems += [outcome] if isinstance(outcome, Problem) else []
            notices += [outcome] if isinstance(outcome, str) else []
        idle.append(key)
    problems += unknown_keys(document, unknown)
    for key in (*unknown, *idle):
        del document.entries[key]
    return notices


def _unknown_empty_sections(document: Document) -> list[str]:
    """Sections such as ``TRIAN: {}`` that hold nothing and exist nowhere."""
    empty = [name for name in document.sections if not any(key.startswith(f"{name}.") for key in document.entries)]
    return [name for name in empty if name not in all_sections() and not is_known_section(name)]


def _prepare_values(document: Document, problems: list[Problem]) -> list[str]:
    """Empty values, names in another case and nested lists are understood; True is not taken for the number 1."""
    notices = []
    for path, entry in list(document.entries.items()):
        key = all_keys()[path]
        value = _in_its_own_case(key, _without_outer_list(key, entry.value))
        document.entries[path] = replace(entry, value=value)
        if value is None and not key.takes_none:
            notices.append(document.says(path, f"{path} is empty and taken as left out ({show_value(key.default)})"))
        if value is None:
            del document.entries[path]
        elif _is_broken_path(path, value):
            problems.append(_control_character(document, path))
            del document.entries[path]
        elif _holds_bool(value) and not key.takes_bool:
            problems.append(wrong_value(document, key))
            del document.entries[path]
    return notices


def _validate(document: Document, problems: list[Problem]) -> Config:
    """Validate in rounds: what is wrong is taken out, so that the next round sees the rest. Fills `problems`."""
    removed: set[str] = set()
    for _ in range(ROUNDS):
        try:
            config = Config.model_validate(document.tree())
        except ValidationError as error:
            removed |= _blame(document, error, problems, removed)
            for key in [key for key in document.entries if key in removed or _inside(key, removed)]:
                del document.entries[key]
            continue
        for problem in check_across_sections(config):
            if not removed.intersection(mentioned_keys("", f"{problem.where} {problem.what} {problem.next_step}")):
                _add(problems, replace(problem, where=document.place(problem.where)))
        return config
    return Config()


def _blame(document: Document, error: ValidationError, problems: list[Problem], removed: set[str]) -> set[str]:
    """Append the problems that do not follow from keys removed before; the keys to remove now."""
    blamed: set[str] = set()
    for detail in error.errors():
        path = key_path(detail)
        keys = [path] if path in document.entries else mentioned_keys(path, detail["msg"])
        if not removed.intersection(keys):
            _add(problems, value_problem(document, detail))
        blamed.update(keys or [path])
    return blamed


def _inside(key: str, sections: set[str]) -> bool:
    return any(section in all_sections() and key.startswith(f"{section}.") for section in sections)


def _add(problems: list[Problem], problem: Problem) -> None:
    """Append once."""
    if problem not in problems:
        problems.append(problem)


def _without_outer_list(key: Key, value: Any) -> Any:
    """``[[0.9, 0.999]]``, BiaPy's form of several optimizers, is one pair here."""
    coerced = coerce(value, key.annotation)
    if key.is_list and isinstance(coerced, list) and len(coerced) == 1 and isinstance(coerced[0], list | tuple):
        return list(coerced[0])
    return value


def _in_its_own_case(key: Key, value: Any) -> Any:
    """``adamw`` for ``ADAMW``: a name that differs by its capitals only is meant."""
    if not key.choices:
        return value
    if isinstance(value, list | tuple):
        return [_in_its_own_case(key, item) for item in value]
    by_lower = {choice.lower(): choice for choice in key.choices}
    return by_lower.get(value.strip().lower(), value) if isinstance(value, str) else value


def _holds_bool(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return any(_holds_bool(item) for item in value)
    return isinstance(value, bool)


def _is_broken_path(path: str, value: Any) -> bool:
    names_a_file = path.endswith(("PATH", "_FILE", "_DIR")) or path.startswith("PATHS.")
    return names_a_file and isinstance(value, str) and any(ord(character) < 32 for character in value)


def _control_character(document: Document, path: str) -> Problem:
    return Problem(
        document.place(path),
        f"holds a control character: {document.value(path)!r}; in double quotes \\t and \\n are signs, not folders",
        r"use single quotes ('C:\new\train') or / (C:/new/train)",
    )


def _missing_file(path: Path) -> Problem:
    if path.is_dir():
        inside = sorted(file.name for file in path.iterdir() if file.suffix in (".yaml", ".yml"))
        return Problem(str(path), "is a folder", f"name a file in it: {', '.join(inside[:5]) or '(no YAML inside)'}")
    if not path.parent.is_dir():
        return Problem(str(path), f"does not exist, nor does the folder {path.parent}", "check the path")
    files = sorted(file.name for file in path.parent.iterdir() if file.suffix in (".yaml", ".yml"))
    near = difflib.get_close_matches(path.name, files, 3, 0.5) or files[:3]
    hint = f"did you mean {' or '.join(near)}?" if near else "check the path (the folder holds no YAML file)"
    return Problem(str(path), "does not exist", hint)


def as_yaml(tree: Mapping[str, Any]) -> str:
    """A tree of keys as the text of a YAML file."""
    if not tree:
        return ""
    yaml = YAML()
    yaml.default_flow_style = None
    stream = io.StringIO()
    yaml.dump(_plain(tree), stream)
    return stream.getvalue()


def _plain(value: Any) -> Any:
    """Lists for tuples, Python numbers for numpy's, text for paths."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if hasattr(value, "tolist"):
        return _plain(value.tolist())
    return str(value) if isinstance(value, PurePath) else value
