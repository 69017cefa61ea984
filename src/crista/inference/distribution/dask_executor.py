"""DaskExecutor: tasks on the workers of a Dask scheduler, of which any may die, and some may be slow.

At most one task per worker is under way, so a task begins when it is submitted; never is a long list of futures in the memory
of the scheduler, and an outstanding task that is older than others took is a straggler.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError
from contextlib import AbstractContextManager, ExitStack, suppress
from dataclasses import dataclass, field
from itertools import count
from queue import Empty, SimpleQueue
from statistics import median
from textwrap import shorten
from types import TracebackType
from typing import TYPE_CHECKING, Generic, Self, TypeVar, cast
from uuid import uuid4

from crista.errors import ClusterError
from crista.inference.distribution.call import Answer, Call
from crista.plan.events import Event, Said, Warned

if TYPE_CHECKING:
    from distributed import Client, Future

T = TypeVar("T")
R = TypeVar("R")

MOST_ATTEMPTS = 3
"""Times that one task may be under way at once."""
GATHER_SECONDS = 10.0
"""A result that cannot be fetched in this time is computed again: results are small."""
GONE = (OSError, TimeoutError)
"""How a scheduler that does not answer shows itself (a closed connection is an OSError)."""


@dataclass(frozen=True)
class Patience:
    """How long to wait for what."""

    retries: int = 2
    """Times that a task is tried again after an error that is not one of its input."""
    straggler_factor: float = 4.0
    """A task that is so many times older than the median took is started again on an idle worker; 0: never."""
    straggler_seconds: float = 5.0
    """No task is a straggler before this age."""
    timeout: float = 60.0
    """Seconds without any worker before the run ends."""
    tick: float = 0.5
    """Seconds between two looks at the workers."""


@dataclass(frozen=True)
class Workers:
    """A connection to workers."""

    client: Client
    where: str
    """``tcp://host:8786``, ``this machine``: for messages."""
    advice: str
    """What to look at when they are all gone."""
    expected: int = 1
    """So many tasks are offered even while there are fewer workers: more of them may come then."""
    gpus: tuple[str, ...] = ()
    """GPUs that they share."""
    notices: tuple[str, ...] = ()
    trouble: Callable[[], str] = str
    """Why there will be no workers, as soon as it is known; else empty."""


class DaskExecutor:
    """Carries out tasks on the workers that `connect` gives, from entering to leaving."""

    def __init__(self, connect: Callable[[], AbstractContextManager[Workers]], patience: Patience) -> None:
        self._connect = connect
        self._patience = patience
        self._stack = ExitStack()
        self._workers: Workers | None = None
        self._said: list[Event] = []

    def __enter__(self) -> Self:
        self._workers = self._stack.enter_context(self._connect())
        self._said += [Said(line) for line in self._workers.notices]
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._stack.__exit__(kind, error, trace)
        self._workers = None

    def run(self, function: Callable[[T], R], items: Sequence[T]) -> Iterator[tuple[T, R]]:
        """Yield (item, `function` (item)) as they finish, each once; a worker that dies or dawdles loses nothing."""
        if self._workers is None:
            raise RuntimeError("enter the executor first: `with executor: executor.run(…)`")
        watch = _Watch(self._workers, self._patience, self._said.append)
        yield from _Round(self._workers, function, items, self._patience, watch).results()

    def notices(self) -> list[Event]:
        """Workers that came, died, or were slow, since the last call."""
        said = list(self._said)
        self._said.clear()
        return said


class _Watch:
    """Counts the workers, says when some are gone, and ends the run when all are, for too long."""

    def __init__(self, workers: Workers, patience: Patience, say: Callable[[Event], None]) -> None:
        self._workers = workers
        self._patience = patience
        self._say = say
        self._known = self._present()
        self._looked = float("-inf")
        self._seen = time.monotonic()
        self.count = 0

    def say(self, event: Event) -> None:
        """Pass on what there is to say."""
        self._say(event)

    def look(self, done: int, total: int) -> None:
        """See who is there, at most once in a tick; raises a `ClusterError` when nobody was for too long."""
        now = time.monotonic()
        if now - self._looked < self._patience.tick:
            return
        trouble = self._workers.trouble()
        if trouble:
            raise ClusterError(trouble)
        present = self._present()
        self._looked = time.monotonic()
        gone, come = self._known - present, present - self._known
        if gone:
            self._say(
                Warned(f"{_count(gone)} died or left ({', '.join(sorted(gone)[:3])}); what was under way there is done again")
            )
        if come:
            self._say(Said(f"{_count(come)} joined: {len(present)} at work"))
        self._known, self.count = present, len(present)
        self._seen = self._looked if present else self._seen
        if not present and self._looked - self._seen > self._patience.timeout:
            raise ClusterError(
                f"no worker at {self._workers.where} for {self._patience.timeout:g} seconds; {done} of {total} tasks are done "
                f"and kept\n    -> {self._workers.advice}; then run the same command again: it goes on with what is left"
            )

    def _present(self) -> set[str]:
        try:
            return set(self._workers.client.nthreads())
        except GONE:
            return set()


@dataclass
class _Task:
    """An item under way."""

    index: int
    started: float
    futures: list[Future] = field(default_factory=list)
    """Its attempts, the newest last."""
    has_failed: bool = False
    """Whether one of its attempts failed for good: those that are under way are its last."""


class _Round(Generic[T, R]):
    """One list of items on its way through the workers."""

    def __init__(
        self, workers: Workers, function: Callable[[T], R], items: Sequence[T], patience: Patience, watch: _Watch
    ) -> None:
        self._workers = workers
        self._client = workers.client
        self._call = Call(function, workers.gpus)
        self._items = items
        self._patience = patience
        self._watch = watch
        self._name = f"crista-{uuid4().hex}"
        self._waiting = deque(range(len(items)))
        self._tasks: dict[int, _Task] = {}
        self._finished: SimpleQueue[Future] = SimpleQueue()
        self._seconds: list[float] = []
        self._slow: set[str] = set()
        self._attempts = count()

    def results(self) -> Iterator[tuple[T, R]]:
        """Every item with its result; what is under way is dropped at an error or when the iterator is closed."""
        try:
            while self._waiting or self._tasks:
                self._watch.look(len(self._seconds), len(self._items))
                self._submit()
                future = self._next_finished()
                if future is None:
                    self._start_stragglers_again()
                    continue
                task = self._tasks.get(future.key[1])
                if task is None or future not in task.futures:
                    continue  # another attempt at it was faster
                answer = self._answer(task, future)
                if answer is not None:
                    yield self._items[task.index], self._value(task, answer)
        finally:
            self._drop([future for task in self._tasks.values() for future in task.futures])

    def _submit(self) -> None:
        """As many tasks under way as there are workers."""
        window = max(self._watch.count, self._workers.expected)
        while self._waiting and len(self._tasks) < window:
            task = _Task(self._waiting.popleft(), time.monotonic())
            self._tasks[task.index] = task
            self._attempt(task)

    def _attempt(self, task: _Task, elsewhere: Sequence[str] = ()) -> None:
        future = self._client.submit(
            self._call,
            self._items[task.index],
            key=(self._name, task.index, next(self._attempts)),
            retries=self._patience.retries,
            workers=elsewhere or None,
            allow_other_workers=bool(elsewhere),
            pure=False,
        )
        task.futures.append(future)
        task.started = time.monotonic()
        future.add_done_callback(self._finished.put)

    def _next_finished(self) -> Future | None:
        try:
            return self._finished.get(timeout=self._patience.tick)
        except Empty:
            return None

    def _answer(self, task: _Task, future: Future) -> Answer[R] | None:
        """What the task gave; None if it has to be waited for: the result is out of reach, or the scheduler lost it."""
        status = future.status
        if status == "error":
            self._failed(task, future)
            return None
        if status == "cancelled":
            self._lost(task, future)
            return None
        try:
            answer: Answer[R] = future.result(timeout=GATHER_SECONDS)
        except (*GONE, CancelledError):  # its machine may be cut off, or the scheduler gone
            self._drop([future])
            self._lost(task, future)
            return None
        return answer

    def _value(self, task: _Task, answer: Answer[R]) -> R:
        """The result of a task that is done, or its error; its other attempts are dropped."""
        del self._tasks[task.index]
        self._drop(task.futures)
        if answer.error is not None:
            raise answer.error
        self._seconds.append(answer.seconds)
        return cast("R", answer.value)

    def _failed(self, task: _Task, future: Future) -> None:
        """An attempt failed for good: raise why, unless another one goes on."""
        task.futures.remove(future)
        task.has_failed = True
        if task.futures:
            return
        error = future.exception()
        words = self._in_words(error, task)
        if words:
            raise ClusterError(words) from error
        raise error

    def _in_words(self, error: BaseException, task: _Task) -> str:
        """What an error of the workers, not of the task, means; empty for others."""
        from distributed import KilledWorker

        if isinstance(error, KilledWorker):
            item = shorten(str(self._items[task.index]), 80, placeholder=" …")
            return (
                f"{error.allowed_failures + 1} workers died one after the other over the same task ({item}), which may need more "
                f"memory than they have; {len(self._seconds)} of {len(self._items)} tasks are done and kept\n"
                f"    -> {self._workers.advice}; give each worker more memory or use fewer, and run the same command again"
            )
        if isinstance(error, ModuleNotFoundError):
            return (
                f"a worker at {self._workers.where} cannot import what it needs ({error})\n    -> install the same crista, with "
                "the same extras, where the workers run"
            )
        return ""

    def _lost(self, task: _Task, future: Future) -> None:
        """The scheduler knows nothing of an attempt any more: the item waits again, unless another attempt goes on."""
        task.futures.remove(future)
        if not task.futures:
            del self._tasks[task.index]
            self._waiting.appendleft(task.index)

    def _start_stragglers_again(self) -> None:
        """With idle workers, and nothing else to do: the tasks that take far longer than the others took."""
        idle = self._watch.count - sum(len(task.futures) for task in self._tasks.values())
        if idle <= 0 or not self._seconds or not self._patience.straggler_factor:
            return
        usual, now = median(self._seconds), time.monotonic()
        limit = max(self._patience.straggler_seconds, self._patience.straggler_factor * usual)
        late = [
            task
            for task in self._tasks.values()
            if now - task.started > limit and len(task.futures) < MOST_ATTEMPTS and not task.has_failed
        ]
        for task in late[:idle]:
            elsewhere = self._idle_workers(task)
            if elsewhere is None:
                return
            self._attempt(task, elsewhere)
            text = f"a task has taken {limit:.1f} s, where {usual:.1f} s are usual: another worker does it as well"
            self._watch.say(Said(text))

    def _idle_workers(self, task: _Task) -> list[str] | None:
        """Where nothing is under way, and nothing was slow; None while the scheduler does not answer."""
        keys = {future.key for future in task.futures}
        try:
            processing = self._client.processing()
        except GONE:
            return None
        self._slow.update(address for address, under_way in processing.items() if keys.intersection(under_way))
        idle = [address for address, under_way in processing.items() if not under_way]
        return [address for address in idle if address not in self._slow] or idle

    def _drop(self, futures: Sequence[Future]) -> None:
        """Tasks that have not begun never will; the result of the others is forgotten."""
        if futures and self._client.status == "running":  # the iterator may be closed after the executor
            with suppress(*GONE):
                self._client.cancel(futures, force=True)


def _count(addresses: set[str]) -> str:
    return f"{len(addresses)} worker{'s' if len(addresses) != 1 else ''}"
