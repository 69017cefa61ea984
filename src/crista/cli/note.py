"""Note: a line that an exception carries below its traceback."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def note(text: Callable[[], str]) -> Iterator[None]:
    """Add a line to exceptions, if there is one to add; those that are caught and told in words never show it."""
    try:
        yield
    except Exception as error:
        if line := text():
            error.add_note(line)
        raise
