"""Standard output that blocks nobody.

    write: what the reader takes now goes at once, in its order; the rest waits, at most 1 MiB of it
    beyond that whole lines are lost and counted; when the reader goes on, a line says how many
    a reader that is gone (EPIPE, closed descriptor) is no error: everything is dropped from then on

A pipe or terminal is opened anew where the system allows it, so that our not waiting is not imposed on others who share
it; elsewhere at most PIPE_BUF bytes go at once, and only when the system says that they will be taken.

Not promised: not waiting for a disk. A regular file takes what it is given or refuses it.
"""

from __future__ import annotations

import os
import select
import socket
import stat
import threading
import time
from collections import deque

_BACKLOG_BYTES = 1 << 20
_LARGE_BYTES = 1 << 16
_CHUNK_BYTES = 4096
"""PIPE_BUF on Linux: what poll calls writable takes this much without blocking."""


class Outlet:
    """From any thread."""

    def __init__(self, descriptor: int) -> None:
        self._waiting: deque[memoryview] = deque()
        self._waiting_bytes = 0
        self._skipped = 0
        self._lock = threading.Lock()
        self.lost_lines = 0
        """That were never shown, so far."""
        self.broken = False
        """Nobody reads any more, or the file refuses."""
        self._descriptor = descriptor
        self._owned = False
        self._socket: socket.socket | None = None
        self._limit_bytes = _CHUNK_BYTES
        try:
            mode = os.fstat(descriptor).st_mode
        except OSError:  # closed before our start
            self.broken = True
            return
        if stat.S_ISREG(mode):
            self._limit_bytes = _LARGE_BYTES
        elif stat.S_ISSOCK(mode):
            self._socket = socket.socket(fileno=os.dup(descriptor))
        elif stat.S_ISFIFO(mode) or stat.S_ISCHR(mode):
            self._reopen()

    def _reopen(self) -> None:
        try:
            self._descriptor = os.open(
                f"/proc/self/fd/{self._descriptor}", os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
            )
        except OSError:  # another's terminal after su, no /proc: poll must do
            return
        self._owned = True
        self._limit_bytes = _LARGE_BYTES

    def write(self, lines: bytes) -> None:
        """Show *lines*, each of which ends in a newline. Never blocks, never raises."""
        with self._lock:
            self._flush()
            if self.broken:
                self._lose(lines)
            elif self._waiting_bytes + len(lines) > _BACKLOG_BYTES:
                self._lose(lines)
                self._skipped += lines.count(b"\n")
            else:
                self._note_skipped()
                self._put(lines)
                self._flush()

    def tend(self) -> None:
        """Offer what waits to the reader: now and then, since nobody else does while nothing is written."""
        with self._lock:
            self._flush()

    def close(self, *, within_s: float) -> None:
        """Wait at most *within_s* for the reader to take what waits; the rest is lost."""
        until = time.monotonic() + within_s
        with self._lock:
            self._note_skipped()
            self._flush()
            while self._waiting and not self.broken and time.monotonic() < until:
                self._writable(min(0.1, until - time.monotonic()))
                self._flush()
            for piece in self._waiting:
                self._lose(piece)
            self._waiting.clear()
            self._waiting_bytes = 0
            if self._owned:
                os.close(self._descriptor)
                self._owned = False
            if self._socket is not None:
                self._socket.close()
            self.broken = True

    def _put(self, lines: bytes) -> None:
        self._waiting.append(memoryview(lines))
        self._waiting_bytes += len(lines)

    def _lose(self, lines: bytes | memoryview) -> None:
        self.lost_lines += bytes(lines).count(b"\n")

    def _note_skipped(self) -> None:
        if self._skipped and not self.broken:
            self._put(b"byos-run | %d lines are missing here: the reader is too slow\n" % self._skipped)
            self._skipped = 0

    def _flush(self) -> None:
        while self._waiting and not self.broken:
            piece = self._waiting[0]
            if not self._owned and not self._writable(0):
                return
            try:
                if self._socket is not None:
                    count = self._socket.send(piece, socket.MSG_DONTWAIT)
                else:
                    count = os.write(self._descriptor, piece[: self._limit_bytes])
            except BlockingIOError:
                return
            except OSError:
                self._break()
                return
            self._waiting_bytes -= count
            if count == len(piece):
                self._waiting.popleft()
            else:
                self._waiting[0] = piece[count:]

    def _break(self) -> None:
        self.broken = True
        for piece in self._waiting:
            self._lose(piece)
        self._waiting.clear()
        self._waiting_bytes = 0

    def _writable(self, seconds: float) -> bool:
        poll = select.poll()
        poll.register(self._descriptor, select.POLLOUT)
        return bool(poll.poll(max(0.0, seconds) * 1000))
