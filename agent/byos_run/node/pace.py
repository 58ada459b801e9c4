"""How fast something grows, and how long the rest takes.

The rate is that of the last quarter of the time so far, and of ten seconds at least: smooth enough that no digit dances, and a
change of speed is believed as soon as it has lasted for a quarter of the time that there was before. Nothing is
foretold from less than two seconds. Marks are kept a hundredth of that window apart, so there are about a hundred.
"""

from __future__ import annotations

import time
from collections import deque
from typing import Callable

_LEAST_WINDOW_S = 10.0
_SHARE = 4
_LEAST_S = 2.0
_MARKS = 100


class Pace:
    """Of one number that only grows. Call from one thread at a time."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._begun_s = clock()
        self._marks: deque[tuple[float, int]] = deque([(self._begun_s, 0)])

    def rate_per_s(self, count: int) -> float:
        """*count* is how many there are now."""
        now = self._clock()
        window_s = max(_LEAST_WINDOW_S, (now - self._begun_s) / _SHARE)
        while len(self._marks) > 1 and self._marks[1][0] <= now - window_s:
            self._marks.popleft()
        then, before = self._marks[0]
        if now - self._marks[-1][0] >= window_s / _MARKS:
            self._marks.append((now, count))
        return (count - before) / max(now - then, 1e-3)

    def eta_s(self, count: int, total: int) -> float | None:
        """Seconds until there are *total*; None if that cannot be told yet, or never at this rate."""
        rate = self.rate_per_s(count)
        if count >= total or rate <= 0 or self._clock() - self._begun_s < _LEAST_S:
            return None
        return (total - count) / rate
