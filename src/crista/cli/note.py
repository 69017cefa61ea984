"""Note: a line that an exception carries below its traceback."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def note(text: Callable[[], str]) -> Iterator[None]:
    """Add a line to exceptions, if there is one to add; those that are caught and told in words never show it."""
    try:
        yield
    finally:
        error = sys.exception()
        if isinstance(error, Exception) and (line := text()):
            error.add_note(line)
