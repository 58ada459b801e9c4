"""What the run's processes use: their memory, counted once however many share it.

Eight ranks that map the same libraries have 954 MiB as the sum of their resident sets and 191 MiB in truth, so pages
are counted by their share (PSS). Reading that walks page tables and holds the process's memory lock: it is done the
more seldom the longer it takes, at most a three-hundredth of the time in the first ten seconds, a two-thousandth later.
"""

from __future__ import annotations

import time
from collections.abc import Iterable

import psutil

_EARLY_S = 10.0
_LEAST_S = 0.25


class Memory:
    """The largest sum seen; asked by one thread."""

    def __init__(self) -> None:
        self.peak_bytes = 0
        self.last_bytes = 0
        self._next_s = 0.0
        self._began_s = time.monotonic()

    def look(self, pids: Iterable[int]) -> None:
        """Take a sample, unless the last one was too short a time ago for what it had cost."""
        before = time.monotonic()
        if before < self._next_s:
            return
        self.last_bytes = sum(memory_bytes(pid) for pid in pids)
        self.peak_bytes = max(self.peak_bytes, self.last_bytes)
        after = time.monotonic()
        times = 300 if after - self._began_s < _EARLY_S else 2000
        self._next_s = after + max(_LEAST_S, times * (after - before))


def memory_bytes(pid: int) -> int:
    """The share of *pid* in the memory it uses (PSS); its resident set where that is not readable; 0 if it is gone."""
    try:
        process = psutil.Process(pid)
        try:
            return int(process.memory_full_info().pss)
        except psutil.AccessDenied:
            return int(process.memory_info().rss)
    except psutil.Error:
        return 0
