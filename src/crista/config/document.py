"""A configuration as people write it: YAML text, a dictionary or KEY=VALUE, read into dotted keys with line numbers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from crista.config.base import plain
from crista.errors import Problem

MOST_VALUES = 20_000
"""A configuration has some hundred values; more means that aliases were nested to fill the memory."""


class Override(str):
    """``KEY=VALUE``, a change of the configuration, with the flag that was typed for it; plain text was given in Python."""

    __slots__ = ("flag",)

    flag: str
    """``--set``, or ``--minutes``, which stands for a key."""

    def __new__(cls, change: str, flag: str) -> Override:
        """`change` is as it would stand after --set."""
        made = super().__new__(cls, change)
        made.flag = flag
        return made


@dataclass(frozen=True)
class Entry:
    """One value and where it came from."""

    value: Any
    line: int | None = None
    written_as: str = ""
    """The key as it was given, in capitals; an old name keeps it after the renaming."""
    given_by: str = ""
    """The flag, or ``override``, by which it was given beside the file; empty: it stands in the file."""

    @property
    def is_override(self) -> bool:
        """Whether it was given beside the file."""
        return bool(self.given_by)


@dataclass
class Document:
    """All given keys of one configuration."""

    name: str = ""
    """File name for messages; empty for a dictionary."""
    entries: dict[str, Entry] = field(default_factory=dict)
    """Dotted key in capitals, ``TRAIN.EPOCHS``, to its value."""
    sections: dict[str, int | None] = field(default_factory=dict)
    """Dotted section to the line on which it starts."""

    def place(self, key: str) -> str:
        """Where `key` (or section) was given, for messages: ``job.yaml line 7, TRAIN.EPOCHS``."""
        entry = self.entries.get(key) or self._first_below(key)
        line = self.sections.get(key) if key in self.sections else entry.line if entry else None
        if entry is not None and key in self.entries and entry.written_as != key:
            key = f"{entry.written_as} (now {key})"
        if entry is not None and entry.is_override:
            return _place_beside(entry.given_by, key)
        if line is not None:
            return f"{self.name} line {line}, {key}"
        return f"{self.name}, {key}" if self.name else key

    def says(self, key: str, text: str) -> str:
        """A notice about `key`, with its line where it has one."""
        entry = self.entries.get(key)
        if entry is not None and entry.is_override:
            return f"{entry.given_by}: {text}"
        return f"line {entry.line}: {text}" if entry is not None and entry.line is not None else text

    def value(self, key: str, default: Any = None) -> Any:
        """The given value of `key`, or `default`."""
        entry = self.entries.get(key)
        return default if entry is None else entry.value

    def tree(self) -> dict[str, Any]:
        """The keys as nested dictionaries; a key below one that has a value of its own stays dotted."""
        tree: dict[str, Any] = {}
        for key, entry in self.entries.items():
            *parents, leaf = key.split(".")
            if any(".".join(parents[:depth]) in self.entries for depth in range(1, len(parents) + 1)):
                tree[key] = entry.value
                continue
            section = tree
            for parent in parents:
                section = section.setdefault(parent, {})
            section[leaf] = entry.value
        return tree

    def overlay(self, other: Document) -> None:
        """Take over the keys of `other`; where both have one, the other's wins."""
        self.entries.update(other.entries)
        for section, line in other.sections.items():
            self.sections.setdefault(section, line)

    def _first_below(self, section: str) -> Entry | None:
        return next((entry for key, entry in self.entries.items() if key.startswith(f"{section}.")), None)


class _Pairs(list[tuple[str, "int | None", Any]]):
    """(key, line, value) of one mapping; unlike a dictionary it keeps duplicates."""


def read_text(text: str, name: str) -> tuple[Document, list[Problem]]:
    """Read YAML 1.2 (tabs count as two spaces, as in BiaPy). A syntax error leaves the document empty."""
    document = Document(name)
    try:
        root = YAML(typ="safe", pure=True).compose(text.removeprefix("\ufeff").replace("\t", "  "))
    except YAMLError as error:
        return document, [_syntax_problem(error, text, name)]
    except RecursionError:
        return document, [Problem(name, "is nested too deeply for a configuration", "check its brackets")]
    reader = _NodeReader(name)
    value = reader.read(root) if root is not None else None
    problems = list(reader.problems)
    if isinstance(value, _Pairs):
        problems += _flatten(value, "", document)
    elif value is not None:
        problems.append(
            Problem(
                f"{name} line {root.start_mark.line + 1}",
                "holds no keys; a configuration is made of lines such as `TRAIN:` and, indented below it, `EPOCHS: 20`",
                "check that every key is followed by a colon and a space",
            )
        )
    return document, problems


def read_mapping(tree: Mapping[str, Any]) -> tuple[Document, list[Problem]]:
    """Read a nested dictionary; keys in capitals, in lower case, or dotted."""
    document = Document()
    return document, _flatten(_pairs(tree), "", document)


def read_overrides(overrides: Sequence[str]) -> tuple[Document, list[Problem]]:
    """Read ``TRAIN.EPOCHS=20``; the value is YAML. The last one of a key wins."""
    if isinstance(overrides, str):  # a sequence of letters, to Python
        raise TypeError(f"overrides takes a list of KEY=VALUE, here [{str(overrides)!r}], not one text")
    document, problems = Document(), []
    for override in overrides:
        key, equals, text = override.partition("=")
        key, given_by = key.strip().upper(), override.flag if isinstance(override, Override) else "override"
        if not equals or not key:
            problems.append(Problem(f"{given_by} {override!r}", "has no KEY=VALUE form", "write e.g. TRAIN.EPOCHS=20"))
            continue
        one, found = read_text(f"value: {text}", "override")
        if found:
            problems.append(Problem(_place_beside(given_by, key), f"the value {text!r} is not YAML", "quote it: KEY='text'"))
            continue
        value = _nested(one.tree()["VALUE"]) if "VALUE" in one.tree() else None
        changed = Document()
        problems += _flatten(_Pairs([(key, None, value)]), "", changed, given_by)
        problems += _contradictions(document, changed)
        document.entries.pop(key, None)
        document.overlay(changed)
    return document, problems


def _contradictions(before: Document, changed: Document) -> Iterator[Problem]:
    """Keys that two flags set to different values: neither is to be dropped in silence. Of one flag the last counts."""
    for key, entry in changed.entries.items():
        first = before.entries.get(key)
        if first is not None and first.given_by != entry.given_by and first.value != entry.value:
            what = f"is {entry.value}, but {_place_beside(first.given_by, key)} is {first.value}"
            yield Problem(_place_beside(entry.given_by, key), what, "give one of them")


def _place_beside(given_by: str, key: str) -> str:
    """Where a key was given beside the file: as it was typed after --set, or the flag that stands for it."""
    return f"{given_by} {key}" if given_by == "--set" else f"{given_by}, {key}"


def _nested(value: Any) -> Any:
    return _pairs(value) if isinstance(value, Mapping) else value


def _pairs(tree: Mapping[Any, Any]) -> _Pairs:
    return _Pairs(
        [(str(key), None, _pairs(value) if isinstance(value, Mapping) else plain(value)) for key, value in tree.items()]
    )


def _flatten(pairs: _Pairs, prefix: str, document: Document, given_by: str = "") -> list[Problem]:
    problems: list[Problem] = []
    own: dict[str, int | None] = {}
    for written, line, value in pairs:
        key = f"{prefix}{_capitals(written)}"
        if key in own or (key in document.entries and not given_by):
            first = own[key] if key in own else document.entries[key].line
            lines = f" on line {first} and on line {line}" if line is not None else ""
            problems.append(
                Problem(f"{document.name}{f' line {line}' if line else ''}, {key}", f"is given twice{lines}", "keep one")
            )
            continue
        own[key] = line
        if isinstance(value, _Pairs):
            document.sections.setdefault(key, line)
            problems += _flatten(value, f"{key}.", document, given_by)
        else:
            document.entries[key] = Entry(value, line, key, given_by)
    return problems


class _NodeReader:
    """Turns YAML nodes into plain values: text, numbers, booleans, lists and `_Pairs`; never an object."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.problems: list[Problem] = []
        self._open: set[int] = set()
        self._values = 0

    def read(self, node: Node) -> Any:
        self._values += 1
        if id(node) in self._open or self._values > MOST_VALUES:
            if self._values <= MOST_VALUES + 1:
                self._report(node, "is an alias that contains itself or is nested without end", "write the values out")
            return None
        if not str(node.tag).startswith("tag:yaml.org,2002:") or "python" in str(node.tag):
            self._report(node, f"has the tag {node.tag}; a configuration holds plain values only", "remove the tag")
            return None
        self._open.add(id(node))
        value = self._value(node)
        self._open.discard(id(node))
        return value

    def _value(self, node: Node) -> Any:
        if isinstance(node, MappingNode):
            return _Pairs(self._items(node))
        if isinstance(node, SequenceNode):
            return [_as_dict(self.read(item)) for item in node.value]
        return _scalar(node) if isinstance(node, ScalarNode) else None

    def _items(self, node: MappingNode) -> Iterator[tuple[str, int | None, Any]]:
        given = {_capitals(key.value) for key, _ in node.value}
        for key, value in node.value:
            if not isinstance(key, ScalarNode):
                what = "has a list or a section where the name of a key should be"
                self._report(key, what, "put text with brackets or braces in quotes; fill in a {{placeholder}}")
                continue
            read = self.read(value)
            if str(key.tag).endswith(":merge") and isinstance(read, _Pairs):
                yield from (pair for pair in read if _capitals(pair[0]) not in given)
            else:
                yield str(key.value), key.start_mark.line + 1, read

    def _report(self, node: Node, what: str, next_step: str) -> None:
        self.problems.append(Problem(f"{self.name} line {node.start_mark.line + 1}", what, next_step))


def _capitals(key: Any) -> str:
    """A key as it is compared."""
    return str(key).strip().upper()


def _as_dict(value: Any) -> Any:
    return {key: _as_dict(below) for key, _, below in value} if isinstance(value, _Pairs) else value


def _scalar(node: ScalarNode) -> Any:
    text, kind = str(node.value), str(node.tag).rpartition(":")[2]
    try:
        if kind == "null":
            return None
        if kind == "bool":
            return text.lower() in ("true", "yes", "on", "y")
        if kind == "int":
            digits = text.replace("_", "")
            return int(digits, 0) if digits.lstrip("+-")[:2].lower() in ("0x", "0o", "0b") else int(digits)
        if kind == "float":
            return float(text.lower().replace("_", "").replace(".inf", "inf").replace(".nan", "nan"))
    except ValueError:
        return text
    return text


_SYNTAX = (
    (
        "mapping values are not allowed",
        "a colon stands where none can be",
        "indent the line like its neighbours; put text that contains ': ' in quotes",
    ),
    ("could not find expected ':'", "a key without a colon", "write `KEY: value`"),
    *(
        (sign, "a backslash in double quotes is an escape sign", "use single quotes, or / in paths")
        for sign in ("found unknown escape character", "expected escape sequence")  # C:\\data, C:\\Users
    ),
    ("unexpected end of stream", "a quote is opened and not closed", "add the closing quote"),
    ("expected ',' or", "a bracket is not closed, or a comma is missing", "write it as [1, 2, 3]"),
    (
        "expected <block end>",
        "the line is not indented like the lines above it",
        "give all keys of a section the same indentation",
    ),
    ("found another document", "a second document starts here", "keep one configuration per file; remove the line ---"),
    ("cannot start any token", "this sign cannot start a value", "put the value in quotes"),
    ("found undefined alias", "an alias (*name) without its anchor (&name)", "put text that starts with * in quotes"),
)
"""What ruamel.yaml says, what that means, and what to do."""


def _syntax_problem(error: YAMLError, text: str, name: str) -> Problem:
    mark = None
    what, next_step = "is not YAML", "check the indentation, colons, quotes and brackets near this line"
    if isinstance(error, MarkedYAMLError):
        detail = str(error.problem or error.context or "")
        what = f"is not YAML: {detail}"
        started_earlier = "could not find expected" in detail or "unexpected end of stream" in detail
        mark = error.context_mark if started_earlier and error.context_mark else error.problem_mark
        for sign, human, advice in _SYNTAX:
            if sign in detail:
                what, next_step = f"is not YAML: {human}", advice
                break
    else:
        what = f"is not YAML: {str(error).splitlines()[0] if str(error) else 'a control character'}"
    if mark is None:
        return Problem(name, what, next_step)
    lines = text.splitlines()
    shown = lines[mark.line].strip() if mark.line < len(lines) else "(end of the file)"
    return Problem(f"{name} line {mark.line + 1}, column {mark.column + 1}", f"{what}: {shown}", next_step)
