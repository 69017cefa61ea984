"""Claim: of two trainings that write the same checkpoints the one that began last goes on, and the other one ends and says so."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import uuid4

from crista.errors import TrainingError
from crista.images.atomic import atomic_write


class Claim:
    """A file beside the checkpoint `last`, in which the training that began last has its mark."""

    def __init__(self, last: Path) -> None:
        self._last = last
        self._file = last.with_name(f".{last.stem}.training")
        self._mark = uuid4().hex

    @contextmanager
    def held(self) -> Iterator[None]:
        """While it lasts other trainings can see that this one writes here."""
        atomic_write(self._file, self._mark)
        try:
            yield
        finally:
            if self._is_own():
                with suppress(PermissionError):  # on Windows, while another training looks at it; without one it says nothing
                    self._file.unlink(missing_ok=True)

    def check(self) -> None:
        """Raise TrainingError if another training has begun here since."""
        if not self._is_own():
            raise TrainingError(
                f"{self._last}: another training of this name has begun and writes here, so this one ends. If settings and data "
                "are the same, that one went on from what this one had finished. Give each of several trainings at once its own "
                "--name or --run_id"
            )

    def _is_own(self) -> bool:
        """Also where the file is gone: whoever removed it does not write."""
        with suppress(OSError):
            return self._file.read_text() == self._mark
        return True
