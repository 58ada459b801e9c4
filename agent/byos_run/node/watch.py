"""One run under watch: until it ends, or must; then asked to stop, then what still lives is ended.

Stopping, within one grace:

    the stop file, and waiting until the solver removes it or ends, for at most four fifths of the grace
    TERM to the ranks, one by one: launchers either kill them at once or pass nothing on
    KILL to the ranks; two seconds in which the launcher removes what it had made for them
    KILL to all (``Running.end``)

A wish to cut it short skips to the last line at any moment. While nothing happens, a look every other second is all that is done,
the more seldom the longer a look takes.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Callable

from byos_run.model import Stop
from byos_run.node import mpi, usage
from byos_run.node.process import Running
from byos_run.node.shim import Kin

_FIRST_LOOK_S = 0.1
_SLOWER = 1.5
_LOOK_S = 2.0
_LOOK_SHARE = 1000.0
_EARLY_S = 10.0
_EARLY_LOOK_S = 0.5
_EARLY_SHARE = 50.0
"""While the ranks start, when most goes wrong, a look may cost more of the time."""
_LONGEST_LOOK_S = 10.0
_ASK_LOOK_S = 0.1
_FILE_SHARE = 0.8
_CLEAN_UP_S = 2.0
_STRAGGLER_S = 2.0
_POLITE_S = 1.0


class Watch:
    """Used by the thread that waits for the run; made when it has just started."""

    def __init__(
        self,
        running: Running,
        *,
        given: dict[str, str],
        stop: Stop,
        memory: usage.Memory,
        saw: Callable[[Iterable[str]], None] = lambda _: None,
    ) -> None:
        """*given*: the environment that the command was started with. *saw*: see ``mpi.Lookout``."""
        self._running = running
        self._stop = stop
        self._lookout = mpi.Lookout(given=given, launcher=running.launcher, shim=running.shim, saw=saw)
        self.memory = memory
        self.singletons = ""
        """Why these are N one-rank jobs."""
        self.hang = ""
        """What the launcher waited for in vain."""
        self.stragglers: tuple[Kin, ...] = ()
        """Who outlived the command, and was ended by us."""
        self.stop_file_left = False
        """The stop file was made by us, and the solver did not remove it."""

    @property
    def shared_memory(self) -> tuple[str, ...]:
        """Paths below /dev/shm that the run's processes had mapped."""
        return tuple(sorted(self._lookout.shared_memory))

    @property
    def ranks(self) -> dict[int, str]:
        """Pid → number of every rank that was seen."""
        return self._lookout.numbers

    def until_over(self, *, time_limit_s: float | None, stalled: Callable[[], str], look_every_s: float) -> str:
        """Wait for the end; what asks for one before, or "" if the command ended by itself.

        *stalled* is asked at least every *look_every_s*: why the solver is to be stopped that does nothing any more, or "".
        """
        pause_s = _FIRST_LOOK_S
        until = None if time_limit_s is None else self._running.started_monotonic_s + time_limit_s
        while not self._running.over:
            if self._stop.asked or self._stop.cut:
                return self._stop.reason
            if until is not None and time.monotonic() >= until:
                return f"time limit {span(time_limit_s or 0)}"
            took_s = self._look()
            if self.singletons or self.hang:
                return self.singletons or self.hang
            if stall := stalled():
                return stall
            is_early = time.monotonic() - self._running.started_monotonic_s < _EARLY_S
            share, seldom_s = (_EARLY_SHARE, _EARLY_LOOK_S) if is_early else (_LOOK_SHARE, _LOOK_S)
            pause_s = min(max(min(_SLOWER * pause_s, seldom_s), share * took_s), _LONGEST_LOOK_S, look_every_s)
            self._wait(pause_s if until is None else min(pause_s, max(0.0, until - time.monotonic())))
        return ""

    def ask_to_stop(self, *, stop_file: Path | None, grace_s: float) -> None:
        """Return when the command has ended, or may be killed."""
        until = time.monotonic() + grace_s
        if stop_file is not None:
            self._ask_by_file(stop_file, until=time.monotonic() + _FILE_SHARE * grace_s)
        if self._is_over():
            return
        processes = self._running.processes()
        ranks = self._lookout.look(processes)
        self._lookout.look_at_maps(processes)
        chosen = set(mpi.to_stop(processes, ranks=ranks))
        asked = [each for each in processes if each.pid in chosen]
        self._running.signal(chosen, signal.SIGTERM)
        deaf = self._await_asked(asked, until=until)
        if deaf and not self._stop.cut:
            self._running.signal([each.pid for each in deaf], signal.SIGKILL)
            self._await_end(_CLEAN_UP_S)

    def end_stragglers(self) -> None:
        """After the command's own end: a moment for what it left behind, then TERM; KILL is ``Running.end``'s."""
        ended = self._running.exit
        if ended is None or self._stop.cut:
            return
        if not ended.is_known:  # the shim was killed: nothing is as it should be, and all is ended at once
            self._lookout.look_at_maps(self._running.processes())
            return
        living = self._await_nobody(_STRAGGLER_S)
        if not living:
            return
        self.stragglers = tuple(living)
        self._lookout.look_at_maps(living)
        self._running.signal([each.pid for each in living], signal.SIGTERM)
        self._await_nobody(_POLITE_S)

    def _is_over(self) -> bool:
        """Nothing to wait for any more: the launcher has ended, or all is to be cut short."""
        return self._running.over or self._stop.cut

    def _look(self) -> float:
        """Look once; the seconds it took."""
        before = time.monotonic()
        processes = self._running.processes()
        self._lookout.look(processes)
        took_s = time.monotonic() - before
        self.memory.look(each.pid for each in processes)
        self.singletons = self._lookout.singletons
        self.hang = self._lookout.hang(processes)
        return took_s

    def _wait(self, seconds: float) -> None:
        self._running.wait(seconds, stop=self._stop)

    def _await_end(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while not self._is_over() and time.monotonic() < until:
            self._wait(until - time.monotonic())

    def _await_asked(self, asked: Sequence[Kin], *, until: float) -> list[Kin]:
        """Until *asked* and the launcher are gone; a launcher that stays without them is asked itself. Who is left."""
        ids = {(each.pid, each.start_ticks) for each in asked}
        gone_since = None
        launcher_asked = False
        while True:
            left = [each for each in self._running.processes() if (each.pid, each.start_ticks) in ids]
            now = time.monotonic()
            if self._stop.cut or now >= until or (not left and self._running.over):
                return left
            gone_since = None if left else gone_since or now
            if gone_since is not None and now - gone_since >= _CLEAN_UP_S:
                if launcher_asked:
                    return left
                self._running.signal_launcher_group(signal.SIGTERM)
                launcher_asked, gone_since = True, now
            self._wait(min(_ASK_LOOK_S, until - now))

    def _await_nobody(self, seconds: float) -> Sequence[Kin]:
        until = time.monotonic() + seconds
        while living := self._running.processes():
            if time.monotonic() >= until or self._stop.cut:
                return living
            time.sleep(0.02)
        return ()

    def _ask_by_file(self, path: Path, *, until: float) -> None:
        """A solver that removes the file has understood, and is asked by TERM next; it may also just end."""
        try:
            os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644))
        except OSError:  # no room for it, or not a place for it: the ranks are asked by TERM
            return
        self.stop_file_left = True
        while self.stop_file_left and not self._is_over() and time.monotonic() < until:
            self._wait(min(_ASK_LOOK_S, until - time.monotonic()))
            self.stop_file_left = os.path.lexists(path)
        self.stop_file_left = os.path.lexists(path)


def span(seconds: float) -> str:
    """``1h30m``."""
    whole = int(seconds)
    if whole != seconds or not whole:
        return f"{seconds:g}s"
    parts = ((whole // 3600, "h"), (whole // 60 % 60, "m"), (whole % 60, "s"))
    return "".join(f"{count}{unit}" for count, unit in parts if count)
