"""The solver's output, from its pipe to the log and to whoever shows it.

    until the pipe ends, or the run is over and the pipe is empty:
        read what is there
        append it to the log as it is
        hand its whole lines on, each of at most 64 KiB

Memory: one read, one unfinished line and the newest 256 KiB, whatever the solver prints. A log that cannot take the
bytes (disk full) loses them, counted; the solver goes on. A line that is too long for showing is cut; the log has it whole.
Not promised: that unfinished lines are shown before their end (a progress bar without newline).
"""

from __future__ import annotations

import os
import select
from collections import deque
from typing import Callable

LINE_BYTES = 65536
"""The longest line that is handed on."""

_READ_BYTES = 1 << 18
_DRAIN_READS = 64
_TAIL_BYTES = 1 << 18
_CUT = b" ...\n"


class Pump:
    """Run by one thread; the others read the counters."""

    def __init__(self, *, source: int, log: int, echo: Callable[[bytes], None] | None) -> None:
        """Owns *source* and *log* (descriptors) from now on. *echo* gets whole lines, one or more at a time."""
        self._source = source
        self._log = log
        self._echo = echo
        self._over = os.pipe2(os.O_CLOEXEC)
        self._line = bytearray()
        self._cutting = False
        self._tail: deque[bytes] = deque()
        self._tail_bytes = 0
        self.size_bytes = 0
        """Of output, so far."""
        self.lost_bytes = 0
        """That the log could not take."""
        self.log_fault: OSError | None = None
        """The first refusal of the log."""
        self.echo_fault: Exception | None = None
        """What *echo* raised; it was not called again."""

    def run(self) -> None:
        os.set_blocking(self._source, False)
        poll = select.poll()
        poll.register(self._source, select.POLLIN)
        poll.register(self._over[0], select.POLLIN)
        try:
            while self._take():
                if any(descriptor == self._over[0] for descriptor, _ in poll.poll()):
                    self._drain()
                    break
        finally:
            self._show_rest()
            os.close(self._source)
            os.close(self._log)

    def finish(self) -> None:
        """The run is over: take what is in the pipe, then end, even if somebody keeps it open."""
        os.write(self._over[1], b"!")

    def close(self) -> None:
        """After the thread's end."""
        for descriptor in self._over:
            os.close(descriptor)

    def tail(self) -> bytes:
        """The newest output, 256 KiB at most; may begin within a line."""
        return b"".join(self._tail.copy())

    def _drain(self) -> None:
        """What the pipe holds; bounded, since a stranger may have been given its other end and go on writing."""
        poll = select.poll()
        poll.register(self._source, select.POLLIN)
        for _ in range(_DRAIN_READS):
            if not poll.poll(0) or not self._take():
                return

    def _take(self) -> bool:
        """Move what is in the pipe; False at its end."""
        try:
            piece = os.read(self._source, _READ_BYTES)
        except BlockingIOError:
            return True
        if not piece:
            return False
        self.size_bytes += len(piece)
        self._keep(piece)
        self._write(piece)
        self._show(piece)
        return True

    def _keep(self, piece: bytes) -> None:
        self._tail.append(piece[-_TAIL_BYTES:])
        self._tail_bytes += len(self._tail[-1])
        while self._tail_bytes - len(self._tail[0]) >= _TAIL_BYTES:
            self._tail_bytes -= len(self._tail.popleft())

    def _write(self, piece: bytes) -> None:
        rest = memoryview(piece)
        while rest:
            try:
                rest = rest[os.write(self._log, rest) :]
            except OSError as error:  # no room now; there may be for the next piece
                self.log_fault = self.log_fault or error
                self.lost_bytes += len(rest)
                return

    def _show(self, piece: bytes) -> None:
        if self._echo is None:
            return
        head, newline, rest = piece.rpartition(b"\n")
        if newline:
            self._hand(self._finish_line(head + newline))
        self._extend(rest)

    def _finish_line(self, lines: bytes) -> bytes:
        """*lines* with the unfinished line before them; the first of them cut if it became too long."""
        first, newline, others = lines.partition(b"\n")
        if self._cutting:
            done = b""
        else:
            self._line += first
            done = bytes(self._line[:LINE_BYTES]) + (newline if len(self._line) <= LINE_BYTES else _CUT)
        self._line.clear()
        self._cutting = False
        return done + (others if len(others) <= LINE_BYTES else _shortened(others))

    def _extend(self, rest: bytes) -> None:
        """An unfinished line: kept up to its limit, then handed on cut, and the remainder left out."""
        if self._cutting:
            return
        self._line += rest
        if len(self._line) > LINE_BYTES:
            self._hand(bytes(self._line[:LINE_BYTES]) + _CUT)
            self._line.clear()
            self._cutting = True

    def _show_rest(self) -> None:
        if self._line:
            self._hand(bytes(self._line) + b"\n")

    def _hand(self, lines: bytes) -> None:
        if self._echo is None or not lines:
            return
        try:
            self._echo(lines)
        except Exception as error:  # the solver's output must be drained whatever becomes of the showing
            self.echo_fault = error
            self._echo = None


def _shortened(lines: bytes) -> bytes:
    """*lines* with those beyond the limit cut; a quick look first, since long ones are rare."""
    parts = lines.splitlines(keepends=True) if b"\r" not in lines else [p + b"\n" for p in lines[:-1].split(b"\n")]
    return b"".join(part if len(part) <= LINE_BYTES + 1 else part[:LINE_BYTES] + _CUT for part in parts)
