"""Threads, bounded, and the wish to stop.

:class:`Pool` runs functions on at most *width* threads and lets no more than a bounded number wait; a :class:`Budget` bounds
what they take of the processors; :class:`Stop` carries the wish to stop from a signal handler to whoever waits. Nothing else
starts a thread but the process door, ``node.process``.
"""

from __future__ import annotations

import ctypes
import itertools
import math
import os
import select
import threading
import time
import weakref
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from queue import SimpleQueue
from types import TracebackType
from typing import Any, Callable, TypeVar

from byos_run.errors import Stopped
from byos_run.node.pace import Pace

T = TypeVar("T")
R = TypeVar("R")

_LONGEST_POLL_S = 1e6
"""``poll`` takes its milliseconds as a C int: 24.8 days."""


class Stop:
    """The wish to stop: first *asked* (end in good order), then *cut* (end at once).

    A signal handler may call :meth:`ask` at any instruction, also while this thread holds a lock, so there is none
    here: reasons are appended, and waiters sleep in ``select`` on a pipe that is written and never read.
    """

    def __init__(self) -> None:
        self._reasons: list[str] = []
        self._pipes = (os.pipe(), os.pipe())  # not inherited; pipe2, which would not block at once, is Linux's alone
        for descriptor in (*self._pipes[0], *self._pipes[1]):
            os.set_blocking(descriptor, False)
        weakref.finalize(self, _close, *self._pipes[0], *self._pipes[1])
        self._until: float | None = None
        self._end = ""
        self._raises = False

    def ask(self, reason: str) -> None:
        """The first call asks, a second one cuts short. Safe in a signal handler."""
        self._reasons.append(reason)
        os.write(self._pipes[0][1], b"!")
        if len(self._reasons) > 1:
            os.write(self._pipes[1][1], b"!")
        if self._raises and threading.current_thread() is threading.main_thread():
            raise KeyboardInterrupt  # which libraries do not take for a failure that they might try again

    def ask_once(self, reason: str) -> None:
        """Ask, unless somebody has: for a deadline, which must not count as the user's second signal."""
        if not self._reasons:
            self.ask(reason)

    def end_by(self, monotonic_s: float, *, reason: str = "the deadline") -> None:
        """From this moment of the monotonic clock on, everything is cut short; of several moments the first counts."""
        if self._until is None or monotonic_s < self._until:
            self._end, self._until = reason, monotonic_s

    @property
    def asked(self) -> bool:
        return bool(self._reasons)

    @property
    def cut(self) -> bool:
        return len(self._reasons) > 1 or (self._until is not None and time.monotonic() >= self._until)

    @property
    def reason(self) -> str:
        return self._reasons[0] if self._reasons else (self._end if self.cut else "")

    @property
    def end(self) -> str:
        """What cuts everything short when no seconds are left; "" if nothing does."""
        return self._end

    @property
    def seconds_left(self) -> float | None:
        """Seconds until everything is cut short, if that is known."""
        return None if self._until is None else max(0.0, self._until - time.monotonic())

    def wait(self, seconds: float, *, also: int = -1) -> bool:
        """Wait *seconds*, or until the wish grows stronger than it was at the call; True if it did.

        Ends as well, with False, when the descriptor *also* has something to read.
        """
        if self.cut:
            return True
        if self._until is not None:
            seconds = min(seconds, self._until - time.monotonic())
        level = 1 if self.asked else 0
        poll = select.poll()
        poll.register(self._pipes[level][0], select.POLLIN)
        if also >= 0:
            poll.register(also, select.POLLIN)
        ready = poll.poll(min(max(0.0, seconds), _LONGEST_POLL_S) * 1000)
        return any(descriptor != also for descriptor, _ in ready) or self.cut

    def check(self) -> None:
        if self.asked or self.cut:
            raise Stopped(f"stopped by {self.reason}")

    @contextmanager
    def heard_at_once(self) -> Iterator[None]:
        """In the main thread, which signals come to; in any, Stopped is raised at its end, whatever the library made of it."""
        main = threading.current_thread() is threading.main_thread()
        self._raises = self._raises or main
        try:
            with suppress(KeyboardInterrupt):
                yield
        finally:
            self._raises = self._raises and not main
            self.check()

    @property
    def unless_cut(self) -> UnlessCut:
        """The same wish for those who go on when it is only asked: publishing, recording."""
        return UnlessCut(self)

    def within(self, seconds: float) -> UnlessCut:
        """The same, and cut when so many *seconds* have passed."""
        return UnlessCut(self, seconds=seconds)


def _close(*descriptors: int) -> None:
    for descriptor in descriptors:
        os.close(descriptor)


class UnlessCut:
    """A wish to stop that counts only when it is to be at once, or when *seconds* have passed."""

    def __init__(self, stop: Stop, *, seconds: float = math.inf) -> None:
        self._stop = stop
        self._until = time.monotonic() + seconds

    @property
    def asked(self) -> bool:
        return self.cut

    @property
    def cut(self) -> bool:
        return self._stop.cut or time.monotonic() >= self._until

    @property
    def reason(self) -> str:
        return self._stop.reason

    @property
    def seconds_left(self) -> float | None:
        return self._stop.seconds_left

    def wait(self, seconds: float, *, also: int = -1) -> bool:
        end = min(time.monotonic() + seconds, self._until)
        while not self.cut and time.monotonic() < end:
            if not self._stop.wait(end - time.monotonic(), also=also) and also >= 0:
                break
        return self.cut

    def check(self) -> None:
        if self.cut:
            raise Stopped(f"stopped by {self.reason or 'the clock'}")

    def heard_at_once(self) -> AbstractContextManager[None]:
        return nullcontext()


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

    def __enter__(self) -> Every:
        self._thread.start()
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
