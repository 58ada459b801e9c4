"""Whom the kernel killed for want of memory while we ran, in its own words, where we may read them (``/dev/kmsg``).

Not promised: in a pid namespace of its own, or without permission, nobody is found; then the control group's count has to do.
"""

from __future__ import annotations

import os
import re
from contextlib import suppress
from dataclasses import dataclass

_KILLED = re.compile(rb"ut of memory: Killed process (\d+) \((.*?)\)(?:.*?anon-rss:(\d+)kB)?")
_RECORD_BYTES = 8192
_MOST_RECORDS = 100_000


@dataclass(frozen=True)
class Victim:
    pid: int
    name: str
    resident_bytes: int
    """Anonymous memory at its death; 0: not told."""


class KernelWords:
    """What the kernel says from now on."""

    def __init__(self, *, path: str = "/dev/kmsg") -> None:
        self._fd = -1
        with suppress(OSError):
            self._fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            os.lseek(self._fd, 0, os.SEEK_END)

    def victims(self) -> list[Victim]:
        """Read to the end, and close. Does not raise."""
        told = [found for found in map(_KILLED.search, self._records()) if found]
        return [Victim(int(it[1]), it[2].decode("utf-8", "replace"), int(it[3] or 0) * 1024) for it in told]

    def _records(self) -> list[bytes]:
        records: list[bytes] = []
        if self._fd < 0:
            return records
        for _ in range(_MOST_RECORDS):
            try:
                record = os.read(self._fd, _RECORD_BYTES)
            except BrokenPipeError:  # overwritten before it was read: the next one follows
                continue
            except OSError:
                break
            if not record:
                break
            records.append(record)
        os.close(self._fd)
        self._fd = -1
        return records
