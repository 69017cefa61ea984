"""Note: a line that an exception carries below its traceback."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType


class Note:
    """Context manager that adds a line to exceptions; those that are caught and told in words never show it."""

    def __init__(self, text: Callable[[], str]) -> None:
        self._text = text

    def __enter__(self) -> Note:
        """The note itself."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Add the line, if there is one to add."""
        text = self._text() if isinstance(error, Exception) else ""
        if text and error is not None:
            error.add_note(text)
