"""The documentation tells the truth: paths, keys, commands, flags, YAML and names in it exist."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
import typer

import crista
from crista.cli.main import COMMANDS, app
from crista.config.fields import all_keys, all_sections
from crista.config.known_keys import find_known
from crista.config.load import parse_config
from crista.config.renamed_keys import find_action

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src" / "crista"
PAGES = [
    *sorted(ROOT.glob("*.md")),
    *sorted((ROOT / "docs").glob("*.md")),
    *sorted((ROOT / "templates").rglob("*.md")),
]
PARTS = {path.name for path in SOURCE.iterdir() if path.is_dir() and (path / "__init__.py").is_file()}
FOLDERS = {"src", "tests", "docs", "templates", "benchmarks", ".ci"}

FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"`([^`\n]+)`")
SECTIONS = "SYSTEM|PROBLEM|DATA|AUGMENTOR|MODEL|LOSS|TRAIN|TEST|PATHS|LOG"
KEY = re.compile(rf"\b(?:{SECTIONS})\.[A-Z][A-Z0-9_.]*[A-Z0-9](?![A-Z0-9_.*]*\*)")
COMMAND = re.compile(r"(?:^|[\s`$;&])crista[ \t]+([^\n`|;&]*)")
LINK = re.compile(r"\]\(([^)#\s]+)(?:#[^)]*)?\)")


def blocks(text: str, language: str) -> list[str]:
    """The fenced blocks of one language."""
    return [body for found, body in FENCE.findall(text) if found == language]


def inline_code(text: str) -> list[str]:
    """What stands in single backticks outside of fenced blocks."""
    found: list[str] = INLINE.findall(FENCE.sub("", text))
    return found


def code_of(text: str) -> str:
    """All code of a page, inline and fenced, line by line."""
    return "\n".join([*inline_code(text), *(body for _, body in FENCE.findall(text))])


def path_of(span: str) -> Path | None:
    """The path that a piece of inline code names, within the repository or within the package; None if it is none."""
    if not re.fullmatch(r"[\w.][\w./-]*", span) or span.startswith("..."):
        return None
    first, _, rest = span.partition("/")
    if (first in FOLDERS and "/" in span) or re.fullmatch(r"[A-Z]+\.md|Makefile|LICENSE|pyproject\.toml|constraints\.txt", span):
        return ROOT / span
    if first in PARTS and (not rest or rest.endswith(".py")) and "/" in span:
        return SOURCE / span
    if "/" not in span and span.endswith(".py"):
        return SOURCE / span
    return None


def words_of(call: str) -> list[str]:
    """The words of a command line, without a comment and what follows an ellipsis of the page."""
    return re.split(r"\s#", call)[0].replace("…", " ").split()


def iter_calls() -> Iterator[tuple[str, str, list[str]]]:
    """(page, command or empty, words) of every call of `crista` in the code of the pages."""
    for page in PAGES:
        for call in COMMAND.findall(code_of(page.read_text(encoding="utf-8"))):
            words = words_of(call)
            yield page.name, words[0] if words and not words[0].startswith("-") else "", words


def test_every_path_exists() -> None:
    """Inline code that looks like a file or folder of the repository, and relative links."""
    missing, count = [], 0
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        named = [(span, path) for span in inline_code(text) if (path := path_of(span)) is not None]
        links = [(link, page.parent / link) for link in LINK.findall(FENCE.sub("", text)) if "://" not in link]
        count += len(named) + len(links)
        missing += [f"{page.name}: {span}" for span, path in (*named, *links) if not path.exists()]
    assert missing == []
    assert count >= 60


def test_every_key_exists() -> None:
    """Keys of crista, of BiaPy (with a known fate here), and old names."""
    wrong, count = [], 0
    for page in PAGES:
        for key in set(KEY.findall(page.read_text(encoding="utf-8"))):
            count += 1
            known = key in all_keys() or key in all_sections() or find_action(key) is not None or find_known(key) is not None
            if not known:
                wrong.append(f"{page.name}: {key}")
    assert wrong == []
    assert count >= 60


def test_every_command_and_flag_exists() -> None:
    """Sub-commands and flags of every call that is shown."""
    group = typer.main.get_command(app)
    assert isinstance(group, click.Group) or hasattr(group, "commands")
    flags = {name: {flag for p in command.params for flag in p.opts} for name, command in group.commands.items()}
    flags[""] = {flag for p in group.params for flag in p.opts}
    wrong, used = [], set()
    for page, command, words in iter_calls():
        if command and command not in COMMANDS:
            if command.isalpha() and command.islower():
                wrong.append(f"{page}: crista {command}")
            continue
        used.add(command)
        given = {word.partition("=")[0] for word in words if word.startswith("--")} - {"--help"}
        wrong += [f"{page}: crista {command} {flag}" for flag in given - flags[command]]
    assert wrong == []
    assert used >= {"", *COMMANDS}


def test_every_yaml_block_is_a_configuration() -> None:
    """What is shown as YAML can be pasted into a file and loads."""
    count = 0
    for page in PAGES:
        for body in blocks(page.read_text(encoding="utf-8"), "yaml"):
            parse_config(body, page.name)
            count += 1
    assert count >= 3


def test_every_python_block_uses_what_there_is() -> None:
    """Python examples parse, and the names that they take from `crista` and its modules exist."""
    count = 0
    for page in PAGES:
        for body in blocks(page.read_text(encoding="utf-8"), "python"):
            for node in ast.walk(ast.parse(body)):
                if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "crista":
                    assert hasattr(crista, node.attr), f"{page.name}: crista.{node.attr}"
                    count += 1
                if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("crista"):
                    module = __import__(str(node.module), fromlist=["*"])
                    for alias in node.names:
                        assert hasattr(module, alias.name), f"{page.name}: {node.module}.{alias.name}"
                        count += 1
    assert count >= 5


@pytest.mark.parametrize("page", ["README.md", "ARCHITECTURE.md"])
def test_the_source_tree_names_every_part(page: str) -> None:
    """Each package of the source has a line in the tree, and each line a package."""
    text = (ROOT / page).read_text(encoding="utf-8")
    tree = next(body for body in blocks(text, "text") if body.startswith("src/crista/"))
    named = set(re.findall(r"^ *[├└]── (\w+)/", tree, re.MULTILINE))
    assert named == PARTS
    assert len(named) >= 15


def test_architecture_stays_short() -> None:
    """A page that a newcomer reads in one go."""
    assert len((ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8").splitlines()) <= 200
