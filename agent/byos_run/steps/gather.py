"""What has settled leaves while the solver runs, look by look; called by one thread.

::

    look     what is there → what is as it was for long enough → who has it open → lots of it, the most worth first, each
             acknowledged → what is large and about to settle sets out → behind, if asked: what the bucket has is removed
    settled  it was the same at two looks at least ``publish.settle`` apart, longer on a network file system or where ``/proc``
             does not tell who writes; and no process of the run has it open for writing

A look is a walk over the whole case, seldom when that costs much, or a glance at the directories that changed and the files that
wait, which is cheap. What changes after it was acknowledged settles again and is sent again, the large later than the small unless
it is a restart file; what is acknowledged last is kept. Now and then a new look is taken between two lots, so that what became
worth more in the meantime does not wait for the rest.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Callable, NamedTuple

from byos_run.model import Identity, Output, Published, Stop
from byos_run.node.holders import Held
from byos_run.steps.ahead import Ahead
from byos_run.steps.behind import Behind, Candidate

LONG_QUIET_S = 60.0
"""An NFS client may hold what it knows of a file for so long (acregmax, nfs(5)); pauses of a writer are mostly shorter."""
_TICK_S = 0.02
"""Files that were written within one tick of the clock that stamps them look alike."""
_EMPTY_WAITS = 10
"""Times ``publish.settle``: a file that is opened to be written anew is empty before its descriptor can be seen (O_TRUNC)."""
_EMPTY_S = 1.0
_AGAIN_WAITS = 10
"""Times what it took last time: a large file that is extended every few minutes must not travel whole each time."""
_SET_OUT_S = 0.5
"""A large file that was the same for so long may set out."""
_LOT_FILES = 64
_LOT_BYTES = 512 << 20


class _Seen(NamedTuple):
    identity: Identity
    since_s: float
    """Monotonic: when it was first seen so."""


@dataclass(frozen=True)
class Standing:
    """How publishing stands beside the solver, as of the last look and acknowledgement."""

    files_done: int = 0
    bytes_done: int = 0
    files_waiting: int = 0
    """Changed or new, whether settled or not."""
    bytes_waiting: int = 0
    bytes_per_s: float = 0.0
    """While something was being sent."""


class _Rest:
    """When the next look of one kind may begin, by what those before it took of a core and of the time."""

    def __init__(self) -> None:
        self.until_s = 0.0
        self._paid_until_s = 0.0

    def took(self, seconds: float, cpu_s: float, *, share: float, share_of_time: float, credit_s: float) -> None:
        now_s = time.monotonic()
        # Never more than the first credit is saved up: a tree that has grown for hours is not looked at in a rush.
        self._paid_until_s = max(self._paid_until_s, now_s - credit_s) + cpu_s / share
        self.until_s = max(self._paid_until_s, now_s + seconds / share_of_time)


class WhileRunning:
    """Publishes what has settled."""

    LOOK_S = 0.5
    """At most between two looks, if they cost little."""
    LOOKS_PER_SETTLE = 4

    _SHARE_OF_CORE = 0.0007
    """For walks, and as much for glances, while nothing happens: a large tree is looked at more seldom."""
    _SHARE_WHEN_BUSY = 0.01
    """While files are about to leave, or to be removed behind."""
    _AT_FIRST_S = 0.02
    """Processor seconds besides for each kind, so that a short run is looked at as often as asked."""
    _SHARE_OF_TIME = 0.05
    """A slow file system is looked at more seldom as well."""
    _LOOKS_PER_LOT = 20

    def __init__(
        self,
        *,
        send: Callable[[Sequence[Output]], Sequence[Published]],
        find: Callable[[Collection[str] | None], Sequence[Output]],
        held: Callable[[], Held],
        stop: Stop,
        settle_s: float,
        in_order: Callable[[Sequence[Output]], Sequence[Output]] = lambda outputs: outputs,
        is_restart: Callable[[str], bool] = lambda _: False,
        ahead: Ahead | None = None,
        behind: Behind | None = None,
        long_quiet: str = "",
        say: Callable[[str], None] = lambda _: None,
        removed: Callable[[Published], None] = lambda _: None,
    ) -> None:
        """*find* lists the outputs; told of paths, it need list only these, and what has appeared. *in_order*: the most worth
        first. *long_quiet*: why a longer quiet time is needed from the start;
        *removed* hears of what was removed behind. *stop*: the solver has ended."""
        self._send = send
        self._find = find
        self._held = held
        self._in_order = in_order
        self._is_restart = is_restart
        self._stop = stop
        self._settle_s = settle_s
        self._ahead = ahead
        self._behind = behind
        self._say = say
        self._removed = removed
        self._quiet_s = max(settle_s, _TICK_S)
        self._empty_quiet_s = max(_EMPTY_S, _EMPTY_WAITS * settle_s)
        self._seen: dict[str, _Seen] = {}
        self._walks, self._glances = _Rest(), _Rest()
        self._waiting: list[str] = []
        """Paths of what is not acknowledged as it is."""
        self._linked: set[str] = set()
        """Paths that a link leads to."""
        self._last_held = Held()
        self._done_files = self._done_bytes = 0
        self._sending_s = 0.0
        self._sent_bytes = 0
        self._rewritten: set[str] = set()
        self.acknowledged: dict[str, Published] = {}
        """By path in the case, the newest state that the bucket has, of what is not removed."""
        self.behind: dict[str, Published] = {}
        """By path in the case, what was removed behind."""
        self.standing = Standing()
        self.presses = False
        """The disk is nearly full: what frees most goes first."""
        if long_quiet:
            self._take_longer(long_quiet)

    def look(self) -> None:
        """Does not raise: what failed is tried again, at the latest when the solver has ended."""
        goes_on = False
        while not (goes_on and self._stop.asked):
            now_s = time.monotonic()
            walks = now_s >= self._walks.until_s
            if not walks and not goes_on and now_s < self._glances.until_s:
                return
            goes_on = self._look_once(walks=walks)
            if not goes_on:
                return

    def _look_once(self, *, walks: bool) -> bool:
        """Whether there is more to send that has to be looked at anew."""
        started_s, started_cpu_s = time.monotonic(), time.thread_time()
        try:
            outputs = self._find(None if walks else {*self._waiting, *self._rewritten})
            quiet = [output for output in outputs if self._is_quiet(output, started_s, self._quiet_s)]
            large = [output for output in outputs if self._may_set_out(output, started_s)]
            held = self._last_held = self._held() if quiet or large else self._last_held
        except OSError:
            return False
        now_s = time.monotonic()
        took_s, took_cpu_s = now_s - started_s, time.thread_time() - started_cpu_s
        is_busy = self._is_busy(outputs, held) or (walks and self._behind is not None)
        (self._walks if walks else self._glances).took(
            took_s, took_cpu_s, share=self._SHARE_WHEN_BUSY if is_busy else self._SHARE_OF_CORE,
            share_of_time=self._SHARE_OF_TIME, credit_s=self._AT_FIRST_S / self._SHARE_OF_CORE,
        )  # fmt: skip
        settled = list(self._in_order(self._settled(quiet, held)))
        self._remember(outputs, now_s, are_all=walks)
        if self._ahead is not None:
            self._ahead.drop_changed(outputs)
        if self.presses:
            settled.sort(key=lambda output: -output.identity.size_bytes)
        whole = self._send_lots(settled, until_s=now_s + max(self._settle_s, self._LOOKS_PER_LOT * took_s))
        for output in large:
            is_free = output.identity.inode not in held.written and not self._is_done(output)
            if self._ahead is not None and self._ahead.takes(output) and is_free:
                self._ahead.begin(output)
        self._stand(outputs)
        if walks:
            self._clear()
        return not whole

    def _is_busy(self, outputs: Sequence[Output], held: Held) -> bool:
        """A file has appeared, or is on its way to settle: unlike those that grow all the time, or are open for hours."""
        return any(
            ((seen := self._seen.get(output.path)) is None or seen.identity == output.identity)
            and output.identity.inode not in held.written
            and not self._is_done(output)
            for output in outputs
        )

    def _take_longer(self, reason: str) -> None:
        self._quiet_s = max(self._settle_s, LONG_QUIET_S)
        self._empty_quiet_s = max(self._empty_quiet_s, self._quiet_s)
        self._say(f"{reason}: a file counts as settled after {self._quiet_s:g} s without a change")

    def over(self) -> None:
        """The solver has ended, and the last look: what has set out arrives."""
        for item in self._ahead.over() if self._ahead is not None else ():
            self._acknowledge(item)

    def forget(self) -> None:
        """What was acknowledged is known elsewhere now; the standing stays."""
        self.acknowledged, self._seen = {}, {}

    def _may_set_out(self, output: Output, now_s: float) -> bool:
        return self._ahead is not None and self._ahead.takes(output) and self._is_quiet(output, now_s, _SET_OUT_S)

    def _is_quiet(self, output: Output, now_s: float, quiet_s: float) -> bool:
        """New to the bucket, and the same for long enough."""
        seen, done = self._seen.get(output.path), self.acknowledged.get(output.path)
        if done is not None and done.seconds * _AGAIN_WAITS > quiet_s and not self._is_restart(output.path):
            quiet_s = done.seconds * _AGAIN_WAITS
        return (
            seen is not None
            and seen.identity == output.identity
            and now_s - seen.since_s >= (quiet_s if output.identity.size_bytes else self._empty_quiet_s)
            and not self._is_done(output)
        )

    def _is_done(self, output: Output) -> bool:
        done = self.acknowledged.get(output.path)
        return done is not None and done.identity == output.identity

    def _settled(self, quiet: Sequence[Output], held: Held) -> list[Output]:
        # Who opens a file after this look changes it before it is read, or while: either is noticed.
        if held.unreadable and self._quiet_s < LONG_QUIET_S:
            self._take_longer(f"/proc does not tell what process {held.unreadable} of the run has open")
            return []
        return [output for output in quiet if output.identity.inode not in held.written]

    def _remember(self, outputs: Sequence[Output], now_s: float, *, are_all: bool) -> None:
        before = self._seen
        if are_all:
            self._seen = {}
            self._linked.clear()
        self._linked.update(output.link_to for output in outputs if output.link_to)
        for output in outputs:
            seen = before.get(output.path)
            same = seen is not None and seen.identity == output.identity
            done = self.acknowledged.get(output.path)
            identity = output.identity.unless(done.identity) if done is not None else output.identity
            self._seen[output.path] = _Seen(identity, seen.since_s if seen is not None and same else now_s)

    def _send_lots(self, settled: Sequence[Output], *, until_s: float) -> bool:
        """Whether all was tried."""
        if self._ahead is not None:
            for item in self._ahead.settled([output.path for output in settled]):
                self._acknowledge(item)
                self._sent_bytes += item.size_bytes
                self._sending_s += item.seconds
            settled = [output for output in settled if not self._is_done(output)]
        for lot in _lots(settled):
            if self._stop.asked or time.monotonic() > until_s:
                return False
            started_s = time.monotonic()
            for item in self._send(lot):
                self._acknowledge(item)
                self._sent_bytes += item.size_bytes
            self._sending_s += time.monotonic() - started_s
        return True

    def _acknowledge(self, item: Published) -> None:
        path = item.output.path
        before = self.acknowledged.get(path)
        if before is not None and before.identity.size_bytes:
            self._rewritten.add(path)
        self.acknowledged[path] = item
        self._done_files += before is None
        self._done_bytes += item.size_bytes - (before.size_bytes if before is not None else 0)

    def _clear(self) -> None:
        if self._behind is None or self._stop.asked:
            return
        now_s = time.monotonic()
        candidates = (
            Candidate(done, now_s - seen.since_s)
            for path, done in self.acknowledged.items()
            if (seen := self._seen.get(path)) is not None
            and seen.identity == done.identity
            and path not in self._rewritten
            and path not in self.behind
        )
        for item in self._behind.clear(candidates, linked=self._linked, held=self._held):
            self.behind[item.output.path] = self.acknowledged.pop(item.output.path)
            self._removed(item)

    def _stand(self, outputs: Sequence[Output]) -> None:
        waiting = [output for output in outputs if not self._is_done(output)]
        self._waiting = [output.path for output in waiting]
        self.standing = Standing(
            files_done=self._done_files,
            bytes_done=self._done_bytes,
            files_waiting=len(waiting),
            bytes_waiting=sum(output.identity.size_bytes for output in waiting),
            bytes_per_s=self._sent_bytes / self._sending_s if self._sending_s else 0.0,
        )


def _lots(outputs: Sequence[Output]) -> Iterator[list[Output]]:
    lot: list[Output] = []
    size_bytes, objects = 0, 0
    for output in outputs:
        lot.append(output)
        size_bytes += output.identity.size_bytes
        objects += output.stored != "bundle"
        if objects >= _LOT_FILES or size_bytes >= _LOT_BYTES:
            yield lot
            lot, size_bytes, objects = [], 0, 0
    if lot:
        yield lot
