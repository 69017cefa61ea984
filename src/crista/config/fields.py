"""Every key of the configuration with its type in words: what the loader, `explain` and the reference page ask."""

from __future__ import annotations

import types
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from crista.config.base import Section
from crista.config.root import Config


@dataclass(frozen=True)
class Key:
    """One key, ``TRAIN.EPOCHS``."""

    path: str
    annotation: Any
    default: Any
    description: str

    @property
    def words(self) -> str:
        """The type and range in words: ``a whole number, at least 1``."""
        return describe_type(self.annotation)

    @property
    def choices(self) -> tuple[str, ...]:
        """The allowed texts of a key that chooses among names (also of a list of names); else none."""
        return tuple(value for option in _members(self.annotation) for value in _names(option))

    @property
    def takes_bool(self) -> bool:
        """Whether True and False are values of this key (or of its elements)."""
        return any(option is bool for option in _flat(self.annotation))

    @property
    def takes_text(self) -> bool:
        """Whether free text is a value of this key (or of its elements)."""
        return any(option is str for option in _flat(self.annotation))

    @property
    def takes_none(self) -> bool:
        """Whether the key may be left out so that it is decided later."""
        return any(option is type(None) for option in _members(self.annotation))

    @property
    def is_list(self) -> bool:
        """Whether the key takes several values."""
        return any(get_origin(option) is tuple for option in _members(self.annotation))


@cache
def all_keys() -> dict[str, Key]:
    """Every key by its dotted path, in the order of the sections. MODEL holds the keys of all architectures."""
    keys: dict[str, Key] = {}
    for path, field in _walk(Config, ""):
        key = Key(path, field.annotation, field.default, _one_paragraph(field.description))
        for part in field.metadata:
            key = replace(key, annotation=Annotated[key.annotation, part])
        known = keys.get(path)
        if known is not None and known.annotation != key.annotation:
            key = replace(known, annotation=known.annotation | key.annotation)
        keys[path] = key
    return keys


@cache
def all_sections() -> dict[str, str]:
    """Every section by its dotted path, with what it is about."""
    sections: dict[str, str] = {}
    for path, field in _sections(Config, ""):
        sections.setdefault(path, _one_paragraph(field.description))
    return sections


def section_classes(annotation: Any) -> list[type[Section]]:
    """The section classes of an annotation: one, several for MODEL, none for a plain value."""
    members = _members(annotation)
    return [member for member in members if isinstance(member, type) and issubclass(member, Section)]


def describe_type(annotation: Any) -> str:
    """An annotation in words that need no Python."""
    if hasattr(annotation, "__metadata__"):
        inner, *metadata = get_args(annotation)
        limits = ", ".join(filter(None, (_limit(part) for part in _constraints(metadata))))
        return f"{describe_type(inner)}, {limits}" if limits else describe_type(inner)
    origin = get_origin(annotation)
    if origin in (Union, types.UnionType):
        options = [option for option in get_args(annotation) if option is not type(None)]
        if len(options) > 1 and all(get_origin(option) is Literal for option in options):
            return _one_of([name for option in options for name in _names(option)])
        return " or ".join(dict.fromkeys(describe_type(option) for option in options))
    if origin is Literal:
        return _one_of([str(value) for value in get_args(annotation)])
    if origin is tuple:
        return _describe_tuple(get_args(annotation))
    plain = {bool: "True or False", int: "a whole number", float: "a number", str: "text", type(None): "nothing"}
    return plain.get(annotation, "a section")


def show_value(value: Any, limit: int = 60) -> str:
    """A value as one would write it in the file, shortened."""
    if value is None:
        return "left out"
    if isinstance(value, list | tuple):
        inside = ", ".join(show_value(item, limit) for item in value)
        numbers = len(value) > 1 and all(isinstance(item, int | float) for item in value)
        text = f"({inside})" if numbers else f"[{inside}]"
    elif isinstance(value, str):
        text = repr(value)
    elif isinstance(value, float) and not isinstance(value, bool):
        text = f"{value:g}"
    else:
        text = str(value)
    return text if len(text) <= limit else f"{text[: limit - 1]}…"


def _walk(section: type[BaseModel], prefix: str) -> Iterator[tuple[str, FieldInfo]]:
    for name, field in section.model_fields.items():
        path = f"{prefix}{name.upper()}"
        classes = section_classes(field.annotation)
        if not classes:
            yield path, field
        for below in classes:
            yield from _walk(below, f"{path}.")


def _sections(section: type[BaseModel], prefix: str) -> Iterator[tuple[str, FieldInfo]]:
    for name, field in section.model_fields.items():
        for below in section_classes(field.annotation):
            yield f"{prefix}{name.upper()}", field
            yield from _sections(below, f"{prefix}{name.upper()}.")


def _members(annotation: Any) -> list[Any]:
    """The members of a union, `Annotated` stripped."""
    if hasattr(annotation, "__metadata__"):
        return _members(get_args(annotation)[0])
    if get_origin(annotation) in (Union, types.UnionType):
        return [option for member in get_args(annotation) for option in _members(member)]
    return [annotation]


def _flat(annotation: Any) -> list[Any]:
    """The members of a union and, for lists, of their elements."""
    found: list[Any] = []
    for option in _members(annotation):
        found.append(option)
        if get_origin(option) is tuple:
            found.extend(inner for part in get_args(option) if part is not Ellipsis for inner in _flat(part))
    return found


def _names(option: Any) -> list[str]:
    if get_origin(option) is tuple:
        return [name for part in get_args(option) if part is not Ellipsis for name in _names(part)]
    if hasattr(option, "__metadata__"):
        return _names(get_args(option)[0])
    return [str(value) for value in get_args(option)] if get_origin(option) is Literal else []


def _one_of(names: list[str]) -> str:
    shown = [name or "'' (empty)" for name in dict.fromkeys(names)]
    return shown[0] if len(shown) == 1 else f"one of {', '.join(shown)}"


def _describe_tuple(parts: tuple[Any, ...]) -> str:
    element = describe_type(parts[0])
    if element.startswith("one of"):
        return f"a list, each {element}"
    many = {"a whole number": "whole numbers", "a number": "numbers", "text": "texts", "True or False": "True or False each"}
    head, _, limits = element.partition(", ")
    plural = many.get(head)
    words = element if plural is None else f"{plural}{', each ' + limits if limits else ''}"
    return f"a list of {words}" if parts[-1] is Ellipsis else f"{len(parts)} {words}"


def _constraints(metadata: list[Any]) -> Iterator[Any]:
    for part in metadata:
        yield from part.metadata if isinstance(part, FieldInfo) else [part]


def _limit(part: Any) -> str:
    if isinstance(part, Ge):
        return f"at least {part.ge}"
    if isinstance(part, Gt):
        return f"above {part.gt}"
    if isinstance(part, Le):
        return f"at most {part.le}"
    return f"below {part.lt}" if isinstance(part, Lt) else ""


def _one_paragraph(text: str | None) -> str:
    return " ".join((text or "").split())
