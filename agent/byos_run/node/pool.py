"""Threads, bounded.

:class:`Pool` runs functions on at most *width* threads and lets no more than a bounded number wait; a :class:`Budget` bounds
what they take of the processors; :class:`Every` is a timer. Nothing else starts a thread but the process door, ``node.process``.
"""

from __future__ import annotations

import ctypes
import itertools
import os
import threading
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from queue import SimpleQueue
from types import TracebackType
from typing import Any, Callable, TypeVar

from byos_run.node.pace import Pace

T = TypeVar("T")
R = TypeVar("R")


class Pool:
    """At most *width* threads under one name. As a context manager: leaves nothing running and nothing waiting."""

    def __init__(
        self, *, name: str, width: int, prepare: Callable[[], None] | None = None, budget: Budget | None = None
    ) -> None:
        """*prepare* is called first in every thread; *budget* says when a function may begin."""
        self.width = width
        self._budget = budget
        self._executor = ThreadPoolExecutor(width, thread_name_prefix=name, initializer=prepare)

    def __enter__(self) -> Pool:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._executor.shutdown(wait=True, cancel_futures=True)

    def submit(self, function: Callable[..., R], *args: Any) -> Future[R]:
        if self._budget is not None:
            return self._executor.submit(self._budget.begin, function, *args)
        return self._executor.submit(function, *args)

    def each(self, function: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
        """Yield ``function(item)`` for all *items*, in the order of completion; at most 2 × width are taken ahead.

        The first exception ends it: what was waiting is cancelled, what runs is waited for, then it is raised.
        """
        waiting: set[Future[R]] = set()
        ended: SimpleQueue[Future[R]] = SimpleQueue()  # concurrent.futures.wait looks at all that wait, each time
        source = iter(items)
        try:
            while True:
                for item in itertools.islice(source, 2 * self.width - len(waiting)):
                    future = self.submit(function, item)
                    waiting.add(future)
                    future.add_done_callback(ended.put)
                if not waiting:
                    return
                future = ended.get()
                waiting.remove(future)
                yield future.result()
        finally:
            for future in waiting:
                future.cancel()
            wait(waiting)


class Budget:
    """At most *cores* processor seconds a second for this process: work begins only while that holds.

    Measured, not guessed: the time of all its threads, so also of those that a library starts. What has begun goes on, and what
    it takes too much is waited for by the next.
    """

    _BURST_S = 0.25

    def __init__(self, cores: float) -> None:
        self.cores = cores
        self._lock = threading.Lock()
        self._lifted = threading.Event()
        self._at, self._used_s = time.monotonic(), time.process_time()
        self._left_s = self._BURST_S * cores

    def begin(self, function: Callable[..., R], *args: Any) -> R:
        """``function(*args)``, as soon as there is time for it."""
        while not self._lifted.is_set() and (wait_s := self._wait_s()) > 0:
            self._lifted.wait(wait_s)
        return function(*args)

    def lift(self) -> None:
        """From now on nobody waits, nor those who do."""
        self._lifted.set()

    def restore(self) -> None:
        """The limit holds again; what was taken without it is forgotten."""
        with self._lock:
            self._at, self._used_s = time.monotonic(), time.process_time()
        self._lifted.clear()

    def _wait_s(self) -> float:
        with self._lock:
            at, used_s = time.monotonic(), time.process_time()
            gained_s = self.cores * (at - self._at) - (used_s - self._used_s)
            self._at, self._used_s = at, used_s
            self._left_s = min(self._left_s + gained_s, self._BURST_S * self.cores)
            return -self._left_s / self.cores


def step_back() -> None:
    """Lower the priority of the calling thread, for processors and for disks: it takes only what the solver leaves."""
    thread = threading.get_native_id()
    os.setpriority(
        os.PRIO_PROCESS, thread, max(os.getpriority(os.PRIO_PROCESS, thread), 10)
    )  # up again only root may go
    number = _IOPRIO_SET.get(os.uname().machine)
    if number is not None:
        ctypes.CDLL(None).syscall(number, _OF_A_THREAD, 0, _LAST_OF_BEST_EFFORT)


_IOPRIO_SET = {"x86_64": 251, "aarch64": 30}
"""Number of the system call, which the C library has no name for (ioprio_set(2))."""
_OF_A_THREAD = 1
_LAST_OF_BEST_EFFORT = 2 << 13 | 7


class Every:
    """Calls *action* every *seconds* on a thread of its own, until the ``with`` block ends: heartbeats, progress.

    *action* must not raise; *prepare* is called first in the thread. The last call has returned when the block is left.
    """

    def __init__(
        self, seconds: float, action: Callable[[], None], *, name: str, prepare: Callable[[], None] = lambda: None
    ) -> None:
        self._seconds = seconds
        self._action = action
        self._prepare = prepare
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._loop, name=name, daemon=True)

    def _loop(self) -> None:
        self._prepare()
        while not self._over.wait(self._seconds):
            self._action()

    def start(self) -> None:
        """For as long as the process lives."""
        self._thread.start()

    def __enter__(self) -> Every:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()


class Count:
    """A tally of what has moved: integers that only grow, and how fast."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.bytes_in = 0
        self.bytes_out = 0
        self.files = 0
        self.saved_bytes = 0
        """Of files that are done: what they have more than what moved for them, since they are packed."""
        self._pace = Pace()

    @property
    def done_bytes(self) -> int:
        return self.bytes_in + self.saved_bytes

    def add(self, *, bytes_in: int = 0, bytes_out: int = 0, files: int = 0, saved_bytes: int = 0) -> None:
        with self._lock:
            self.saved_bytes += saved_bytes
            self.bytes_in += bytes_in
            self.bytes_out += bytes_out
            self.files += files

    def rate_bytes_per_s(self) -> float:
        """Bytes done per second of late (``node.pace``); the progress line and the heartbeat both ask."""
        with self._lock:
            return self._pace.rate_per_s(self.done_bytes)

    def eta_s(self, total_bytes: int) -> float | None:
        """Seconds until *total_bytes* are done; None if that cannot be told."""
        with self._lock:
            return self._pace.eta_s(self.done_bytes, total_bytes)
