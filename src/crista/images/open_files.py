"""Files kept open between reads, and the pixels decoded last: what makes reading by region fast.

Both pools belong to one process: a forked worker starts with empty ones, because a file position shared with the
parent would mix up their reads.
"""

from __future__ import annotations

import atexit
import os
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from typing import Any

from crista.geometry.axes import Array

FileVersion = tuple[str, int, int]


def file_version(path: Path) -> FileVersion:
    """Path, size and time of change: another value once the file is written anew."""
    status = path.stat()
    return str(path), status.st_size, status.st_mtime_ns


class FilePool:
    """At most `limit` idle file handles; each is lent to one reader at a time."""

    def __init__(self, limit: int = 8) -> None:
        self.limit = limit
        self._reset()

    def _reset(self) -> None:
        # Handles of the parent are kept, not closed: closing them could disturb it, dropping them would warn.
        self._inherited = getattr(self, "_idle", None)
        self._idle: OrderedDict[FileVersion, Any] = OrderedDict()
        self._lock = Lock()

    @contextmanager
    def borrow(self, path: Path, opener: Callable[[], Any]) -> Iterator[Any]:
        """An open handle of `path`; a read that fails closes it."""
        version = file_version(path)
        with self._lock:
            handle = self._idle.pop(version, None)
        handle = opener() if handle is None else handle
        is_sound = False
        try:
            yield handle
            is_sound = True
        finally:
            if is_sound:
                self._give_back(version, handle)
            else:
                handle.close()

    def _give_back(self, version: FileVersion, handle: Any) -> None:
        with self._lock:
            surplus = [self._idle.pop(version)] if version in self._idle else []
            self._idle[version] = handle
            while len(self._idle) > self.limit:
                surplus.append(self._idle.popitem(last=False)[1])
        for old in surplus:
            old.close()

    def close(self) -> None:
        """Close every idle handle."""
        with self._lock:
            handles, self._idle = list(self._idle.values()), OrderedDict()
        for handle in handles:
            handle.close()


class DecodedCache:
    """The arrays decoded last, up to `budget` bytes; the newest one is kept whatever its size."""

    def __init__(self, budget: int = 128 * 2**20) -> None:
        self.budget = budget
        self._reset()

    def _reset(self) -> None:
        self._arrays: OrderedDict[Hashable, Array] = OrderedDict()
        self._bytes = 0
        self._lock = Lock()

    def get(self, key: Hashable, decode: Callable[[], Array]) -> Array:
        """The array of `key`, decoded if it is not at hand. Callers must not write to it."""
        array = self.find(key)
        if array is None:
            array = decode()
            self.keep(key, array)
        return array

    def find(self, key: Hashable) -> Array | None:
        """The array of `key` if it is at hand. Callers must not write to it."""
        with self._lock:
            array = self._arrays.get(key)
            if array is not None:
                self._arrays.move_to_end(key)
            return array

    def keep(self, key: Hashable, array: Array) -> None:
        """Put `array` at hand, at the expense of those that were asked for longest ago."""
        with self._lock:
            if key not in self._arrays:
                self._arrays[key] = array
                self._bytes += array.nbytes
            while self._bytes > self.budget and len(self._arrays) > 1:
                self._bytes -= self._arrays.popitem(last=False)[1].nbytes

    def clear(self) -> None:
        """Forget everything."""
        with self._lock:
            self._arrays.clear()
            self._bytes = 0


FILES = FilePool()
DECODED = DecodedCache()

atexit.register(FILES.close)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=FILES._reset)
    os.register_at_fork(after_in_child=DECODED._reset)
