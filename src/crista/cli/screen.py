"""Screen: lines, colours and tables; plain text where the output is not a terminal."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

PLAIN_WIDTH = 140
"""Characters of a line of a wrapped table where there is no terminal."""


class Screen:
    """Writes to standard output, or nothing if `silent`; `console` is None unless the output is a terminal."""

    def __init__(self, *, silent: bool = False) -> None:
        self.silent = silent
        self.console: Console | None = None
        if sys.stdout.isatty() and not silent:
            from rich.console import Console  # slow to import

            console = Console(highlight=False, soft_wrap=True)
            self.console = console if console.is_terminal and not console.is_dumb_terminal else None

    def line(self, text: str, style: str = "") -> None:
        """One line; `style` only where there are colours. Never taken for markup."""
        if self.console is None and not self.silent:
            print(text, flush=True)
        elif self.console is not None:
            self.console.print(text, style=style or None, markup=False, emoji=False)

    def notice(self, text: str) -> None:
        """Something to know."""
        self.line(one_line(text), "dim")

    def warn(self, text: str) -> None:
        """Something to look at."""
        self.line(f"warning: {one_line(text)}", "yellow")

    def problem(self, text: str) -> None:
        """Something that has to be mended."""
        self.line(f"problem: {one_line(text)}", "red")

    def heading(self, text: str) -> None:
        """A new stage."""
        self.line(text, "bold")

    def table(self, headers: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """Columns side by side; without a terminal no cell is ever cut or wrapped."""
        if self.console is not None:
            self.console.print(_rich_table(headers, rows))
            return
        content = [headers, *rows]
        widths = [max(map(len, column)) for column in zip(*content, strict=True)]
        for row in content:
            self.line("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())

    def wrapped_table(self, headers: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """Columns of sentences: wrapped between words, also without a terminal (to `PLAIN_WIDTH` columns)."""
        from rich.console import Console

        console = self.console
        if console is None and not self.silent:
            console = Console(file=sys.stdout, width=PLAIN_WIDTH, color_system=None, force_terminal=False, highlight=False)
        if console is not None:
            console.print(_rich_table(headers, rows, leading=1))


def _rich_table(headers: Sequence[str], rows: Sequence[Sequence[str]], leading: int = 0) -> Table:
    """With `leading` empty lines between the rows."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, leading=leading)
    for header in headers:
        table.add_column(header, overflow="fold")
    for row in rows:
        table.add_row(*map(Text, row))
    return table


def one_line(text: str) -> str:
    """Line breaks become single spaces."""
    return re.sub(r"\s*\n\s*", " ", text)
