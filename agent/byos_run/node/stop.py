"""The wish to stop, from a signal handler, a deadline or a notice to whoever waits."""

from __future__ import annotations

import math
import os
import select
import signal
import threading
import time
import weakref
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress

from byos_run.errors import Stopped
from byos_run.node.pool import Every

_LONGEST_POLL_S = 1e6
"""``poll`` takes its milliseconds as a C int: 24.8 days."""
_HEARD_EVERY_S = 0.5


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

    def interrupt(self) -> None:
        """For the signal handler, once it has asked: what is to be heard at once is left."""
        if self._raises and self._reasons:
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


def hear_signals(stop: Stop, numbers: Iterable[int]) -> None:
    """From now on these signals ask; one that was ignored at our start (nohup) stays ignored. Once, from the main thread.

    Python runs handlers in its main thread alone, and not while that waits for a lock, if the signal came just before it began
    to, or to another thread (docs.python.org, "signal": execution of handlers). What the interpreter writes to the wakeup
    descriptor as soon as a signal comes is therefore read by a thread as well.
    """
    came, wakeup = os.pipe()
    for descriptor in (came, wakeup):
        os.set_blocking(descriptor, False)
    heard = {number for number in numbers if signal.getsignal(number) != signal.SIG_IGN}

    def hear() -> None:
        with suppress(BlockingIOError):
            for number in dict.fromkeys(os.read(came, 64)):  # two of a kind that both wait are one
                if number in heard:
                    stop.ask(signal.Signals(number).name)

    def handle(*_: object) -> None:
        hear()
        stop.interrupt()

    signal.set_wakeup_fd(wakeup, warn_on_full_buffer=False)
    for number in heard:
        signal.signal(number, handle)
    Every(_HEARD_EVERY_S, hear, name="signals").start()


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
