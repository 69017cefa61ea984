"""What one key means, in plain text: the answer of `crista explain KEY`."""

from __future__ import annotations

import textwrap

from crista.config.fields import Key, all_keys, all_sections, show_value
from crista.config.known_keys import KNOWN, Kind, find_known, is_known_section
from crista.config.messages import nearest_key
from crista.config.renamed_keys import Moved, Removed, Rewritten, find_action, old_names
from crista.errors import ConfigError, Problem

WIDTH = 100


def explain_key(key: str) -> str:
    """Type, default, range and meaning of a key; the keys of a section; what became of an old name.

    `key` is dotted, in any case: ``TRAIN.EPOCHS``, ``train.epochs``, or its last part where only one key has it. An empty
    text lists the sections. Raises `ConfigError` with the nearest key for an unknown one.
    """
    name = key.strip().strip(".").upper()
    if not name:
        return _list_sections("")
    if name in all_keys():
        return _describe(all_keys()[name])
    if name in all_sections():
        return _describe_section(name)
    action = find_action(name)
    if isinstance(action, Moved):
        below = explain_key(action.new)
        return f"{name} is an old name of {action.new}.\n\n{below}"
    if isinstance(action, Removed):
        return f"{name} was a key of older releases. It has no effect any more: {action.why}."
    if isinstance(action, Rewritten):
        return f"{name} was a key of older releases. {action.step.__doc__}"
    known = find_known(name)
    if known is not None:
        return _describe_known(name, known.kind, known.advice)
    if is_known_section(name):
        return _describe_known_section(name)
    alone = [path for path in all_keys() if path.rpartition(".")[2] == name]
    if len(alone) == 1:
        return _describe(all_keys()[alone[0]])
    raise ConfigError("with the key", [Problem(name, "there is no such key", nearest_key(name) or "see: crista explain")])


def default_in_words(key: Key) -> str:
    """The default of a key; `left out` where the plan decides."""
    if key.default is None:
        return "left out"
    if key.default in ((), ""):
        return "empty"
    return show_value(key.default)


def _describe(key: Key) -> str:
    lines = [
        key.path,
        textwrap.fill(key.description, WIDTH, initial_indent="  ", subsequent_indent="  "),
        f"  takes:    {key.words}",
        f"  default:  {default_in_words(key)}",
    ]
    old = old_names(key.path)
    if old:
        lines.append(f"  old name: {', '.join(old)}")
    return "\n".join(lines)


def _describe_section(section: str) -> str:
    keys = [key for path, key in all_keys().items() if path.rpartition(".")[0] == section]
    width = max((len(key.path.rpartition(".")[2]) for key in keys), default=0)
    lines = [f"{section}: {all_sections()[section]}"]
    for key in keys:
        text = f"  {key.path.rpartition('.')[2]:<{width}}  {key.description}"
        lines.append(textwrap.fill(text, WIDTH, subsequent_indent=" " * (width + 4)))
    below = _list_sections(f"{section}.")
    return "\n".join([*lines, *([below] if below else [])])


def _list_sections(prefix: str) -> str:
    sections = {name: text for name, text in all_sections().items() if name.startswith(prefix)}
    inside = {name: text for name, text in sections.items() if "." not in name[len(prefix) :]}
    return "\n".join(f"  {name}: {text}" for name, text in inside.items())


def _describe_known_section(name: str) -> str:
    below = ", ".join(key.removeprefix(f"{name}.") for key in KNOWN if key.startswith(f"{name}."))
    listed = textwrap.fill(below, WIDTH, initial_indent="  ", subsequent_indent="  ")
    return f"{name} is a section of BiaPy of which crista has no key; crista explain {name}.… tells of each:\n{listed}"


def _describe_known(name: str, kind: Kind, advice: str) -> str:
    if kind is Kind.UNSUPPORTED:
        return f"{name} is known in BiaPy but not supported by crista yet. Instead: {advice}."
    if kind is Kind.NO_EFFECT:
        return f"{name} is a key of BiaPy without effect here: {advice}."
    if kind is Kind.DEAD:
        return f"{name} is a key of BiaPy that has no effect, nor has it in BiaPy."
    return f"{name} belongs to a feature of BiaPy that crista does not have."
