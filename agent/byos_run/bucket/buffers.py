"""Large buffers, used again: a fresh one of 16 MiB costs 4,096 page faults, more than filling it.

Memory: as many as were ever in use at once, and at most :data:`_IDLE` of them idle.
"""

from __future__ import annotations

from collections import deque

_IDLE = 32


class Buffers:
    """A free list of ``bytearray``; safe to use from many threads."""

    def __init__(self) -> None:
        self._idle: deque[bytearray] = deque(maxlen=_IDLE)

    def take(self, length: int) -> memoryview:
        """*length* bytes of any content."""
        try:
            buffer = self._idle.pop()
        except IndexError:
            buffer = bytearray(length)
        if len(buffer) < length:
            buffer = bytearray(length)
        return memoryview(buffer)[:length]

    def give_back(self, view: memoryview) -> None:
        """*view* must not be used after this."""
        owner = view.obj
        if isinstance(owner, bytearray):
            self._idle.append(owner)
