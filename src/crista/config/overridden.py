"""The text of a configuration with what was changed on the command line, its comments kept."""

from __future__ import annotations

import io
from collections.abc import MutableMapping, Sequence
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq

from crista.config.document import read_overrides


def overridden_text(text: str, overrides: Sequence[str]) -> str:
    """The YAML `text`, whose keys are in capitals, with the values of `overrides` (``TRAIN.EPOCHS=20``) in it.

    Run again it is the same job, without the changes on the command line. They have been read before: those that are no
    ``KEY=VALUE`` are left out.
    """
    given, _ = read_overrides(overrides)
    if not given.entries:
        return text
    yaml = YAML()
    yaml.preserve_quotes = True
    tree = yaml.load(text) or CommentedMap()
    for key, entry in given.entries.items():
        _set(tree, key.split("."), entry.value)
    stream = io.StringIO()
    yaml.dump(tree, stream)
    return stream.getvalue()


def _set(section: MutableMapping[str, Any], names: Sequence[str], value: Any) -> None:
    *parents, leaf = names
    for parent in parents:
        below = section.get(parent)
        if not isinstance(below, MutableMapping):
            below = section[parent] = CommentedMap()
        section = below
    section[leaf] = _in_one_line(value)


def _in_one_line(value: Any) -> Any:
    if not isinstance(value, list | tuple):
        return value
    line = CommentedSeq([_in_one_line(item) for item in value])
    line.fa.set_flow_style()
    return line
