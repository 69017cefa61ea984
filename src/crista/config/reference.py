"""The reference of all keys as Markdown, made from the sections: ``python -m crista.config.reference [FILE]``."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

from crista.config.explain import default_in_words
from crista.config.fields import Key, all_keys, all_sections
from crista.config.renamed_keys import RENAMED, Moved, Removed, old_names

INTRODUCTION = """\
# Configuration reference

<!-- Made by `python -m crista.config.reference`; change the docstrings in src/crista/config instead. -->

A configuration is a YAML file of sections and keys, in the dialect of BiaPy:

```yaml
DATA:
  TRAIN:
    PATH: images
    GT_PATH: labels
TRAIN:
  ENABLE: True
```

Every key may be left out. Where the default is *left out*, the plan decides from the data and writes its reason to
`plan.json`. In Python the same keys are in lower case: `config.data.train.path`. On the command line,
`crista explain TRAIN.EPOCHS` prints one entry of this page.

Tuples may be written as in BiaPy, `(256, 256, 1)`, or as YAML lists, `[256, 256, 1]`; one value serves as a list of one.
"""

OLD_KEYS = """
## Old names

Files written for older releases run as they are; each old name is reported once with what it became.

| Old | Now |
|---|---|
"""


def render_reference() -> str:
    """The whole page: one table per section, then the old names."""
    parts = [INTRODUCTION]
    for section, description in all_sections().items():
        keys = [key for path, key in all_keys().items() if path.rpartition(".")[0] == section]
        parts.append(f"\n## {section}\n\n{description}\n")
        if keys:
            parts.append("\n| Key | Takes | Default | Meaning |\n|---|---|---|---|\n")
            parts.extend(_row(key) for key in keys)
    return "".join([*parts, OLD_KEYS, *_old_rows()])


def write_reference(path: Path) -> None:
    """Write the page to `path`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(render_reference(), encoding="utf-8")


def _row(key: Key) -> str:
    names = old_names(key.path)
    meaning = f"{key.description} Old name: {', '.join(f'`{name}`' for name in names)}." if names else key.description
    cells = (f"`{key.path.rpartition('.')[2]}`", key.words, default_in_words(key), meaning)
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |\n"


def _old_rows() -> Iterator[str]:
    for old, action in RENAMED.items():
        if isinstance(action, Moved):
            yield f"| `{old}` | `{action.new}` |\n"
        elif isinstance(action, Removed):
            yield f"| `{old}` | no effect any more: {action.why} |\n"
        else:
            yield f"| `{old}` (old values) | {action.step.__doc__} |\n"


if __name__ == "__main__":
    write_reference(Path(sys.argv[1] if len(sys.argv) > 1 else "docs/configuration.md"))
