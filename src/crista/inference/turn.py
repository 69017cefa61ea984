"""Turn: of several processes that need the same finding at once (shards, workers), one makes it and the others wait for it."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Event, Thread

BEAT_SECONDS = 5.0
"""Whoever makes it shows so often that it is at it."""
GONE_SECONDS = 60.0
"""Whoever has not shown it for so long was killed, on another machine: network file systems show changes up to so much later."""
LOOK_SECONDS = 0.2


@contextmanager
def turn_at(path: Path, is_there: Callable[[], bool]) -> Iterator[None]:
    """Entered by one process at a time, or once `is_there`: look again what is at `path`, and make it if nothing is.

    The mark of whoever makes it lies beside `path`, under a name that the next run clears away. A file system that refuses the
    mark is done without.
    """
    mark = path.with_name(f".{path.name}.turn.part")
    if not _wait_for(mark, is_there):
        yield
        return
    stopped = Event()
    beating = Thread(target=_beat, args=(mark, stopped), name="crista-turn", daemon=True)
    beating.start()
    try:
        yield
    finally:
        stopped.set()
        beating.join()
        _remove(mark)


def _wait_for(mark: Path, is_there: Callable[[], bool]) -> bool:
    """Whether this process has set the mark; it need not where `is_there`, and cannot everywhere."""
    seen, since = 0, time.monotonic()
    while not is_there():
        try:
            mark.parent.mkdir(parents=True, exist_ok=True)
            file = os.open(mark, os.O_CREAT | os.O_EXCL | os.O_WRONLY)
            with suppress(OSError):  # a disk that is full
                os.write(file, _own_text(os.getpid()))
            os.close(file)
            return True
        except FileExistsError:
            changed = _changed(mark)
            seen, since = (seen, since) if changed == seen else (changed, time.monotonic())
            if _is_dead(mark) or time.monotonic() - since > GONE_SECONDS:
                _remove(mark)
            time.sleep(LOOK_SECONDS)
        except OSError:
            return False
    return False


def _remove(mark: Path) -> None:
    """On Windows it stays for now if another process looks at it just then; one that nobody shows any more is old in a while."""
    with suppress(PermissionError):
        mark.unlink(missing_ok=True)


def _own_text(pid: int) -> bytes:
    """What is in the mark of a process of this machine; empty where the system does not tell what its numbers count for.

    They do in one machine (or container) until it is started again.
    """
    try:
        where = f"{Path('/proc/sys/kernel/random/boot_id').read_text().strip()} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return b""
    return f"{where} {pid}".encode()


def _is_dead(mark: Path) -> bool:
    """Whether a process of this machine has set the mark that is there no more. (One that has its number now may be another.)"""
    try:
        text = mark.read_bytes()
        pid = int(text.rpartition(b" ")[2])
    except (OSError, ValueError):
        return False
    if text != _own_text(pid):
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except OSError:  # it belongs to somebody else
        return False
    return False


def _changed(mark: Path) -> int:
    """When the mark was shown last, by the clock of the file system; 0 if it is gone."""
    with suppress(OSError):
        return mark.stat().st_mtime_ns
    return 0


def _beat(mark: Path, stopped: Event) -> None:
    while not stopped.wait(BEAT_SECONDS):
        with suppress(OSError):
            os.utime(mark)
