"""Whether a solver still does anything that can be seen: it prints, or a file of its case changes.

MPI ranks spin while they wait, so processor time says nothing. A look compares the output's size and, only if that is as it
was, a figure over size, time and inode of every file; there are a few in the span asked for, fewer if one takes long.

Not promised: a solver that writes through a mapping, or outside its case, and prints nothing, is taken for a stalled one.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Callable

from byos_run.node.tree import scan

_LOOKS_IN_SPAN = 8
_SOONEST_S = 0.1
_SELDOM_S = 60.0
_SHARE_OF_TIME = 0.002
"""Of one core, for looking at a large tree."""


class Stall:
    """Asked by one thread, as often as it likes."""

    def __init__(self, *, after_s: float, case: Path, size_bytes: Callable[[], int]) -> None:
        """*after_s*: how long nothing may happen. *size_bytes*: of the output so far."""
        self.after_s = after_s
        self._case = case
        self._size_bytes = size_bytes
        self._printed = size_bytes()
        self._figure: int | None = None
        self._since = self._next_look = time.monotonic()
        self.look_every_s = min(max(after_s / _LOOKS_IN_SPAN, _SOONEST_S), _SELDOM_S)

    def look(self) -> bool:
        """True, once for each stall, when nothing has happened for too long."""
        now = time.monotonic()
        printed = self._size_bytes()
        if printed != self._printed:
            self._printed, self._figure, self._since = printed, None, now
            return False
        if now < self._next_look:
            return False
        figure = _figure_of(self._case)
        took_s = time.monotonic() - now
        self._next_look = now + max(self.look_every_s, min(took_s / _SHARE_OF_TIME, self.after_s / 2))
        if figure != self._figure:
            self._figure, self._since = figure, now
            return False
        if now - self._since < self.after_s:
            return False
        self._since = float("inf")  # told; only a change begins another
        return True


def _figure_of(case: Path) -> int:
    """The same as long as no file appears, goes or changes. Raises nothing: a case that cannot be read does not change."""
    total = 0
    try:
        for path, status in scan(case, problems=[]):
            total ^= hash((path, status.st_size, status.st_mtime_ns, status.st_ino))
    except OSError:
        return -1
    return total
