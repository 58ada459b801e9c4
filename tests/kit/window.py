"""A terminal window of a given size: what a program that runs in it shows, as a person would see it."""

from __future__ import annotations

import fcntl
import os
import select
import struct
import termios
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Callable

import pyte

if TYPE_CHECKING:
    from collections.abc import Iterator


class Window:
    """`slave` is the program's end; `raw` all it wrote so far."""

    def __init__(self, *, columns: int, rows: int) -> None:
        self.columns = columns
        self.raw = b""
        self.master, self.slave = os.openpty()
        fcntl.ioctl(self.slave, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        self._screen = pyte.HistoryScreen(columns, rows, history=10_000)
        self._stream = pyte.ByteStream(self._screen)

    @property
    def lines(self) -> list[str]:
        """What is on the screen now, without blanks at the right, without empty lines at the end."""
        return "\n".join(line.rstrip() for line in self._screen.display).rstrip("\n").split("\n")

    @property
    def scrolled(self) -> int:
        """Lines that have left the screen at the top."""
        return len(self._screen.history.top)

    def colour_of(self, line: str) -> str:
        """Of the first character of the line on the screen that holds `line`."""
        row = next(row for row, text in enumerate(self._screen.display) if line in text)
        return str(self._screen.buffer[row][0].fg)

    def resize(self, columns: int, rows: int) -> None:
        """Drawn larger or smaller by its owner."""
        fcntl.ioctl(self.slave, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        self._screen.resize(rows, columns)
        self.columns = columns

    def until(self, seen: Callable[[list[str]], bool], *, timeout_s: float = 120.0) -> list[str]:
        """Read until the screen is as `seen` wants it; returns its lines."""
        end = time.monotonic() + timeout_s
        while not seen(self.lines):
            assert time.monotonic() < end, "\n".join(["the screen shows:", *self.lines])
            self._take(0.1)
        return self.lines

    def drain(self) -> list[str]:
        """Read what is there still, once the program has ended."""
        while self._take(0.0):
            pass
        return self.lines

    def _take(self, seconds: float) -> bool:
        if not select.select([self.master], [], [], seconds)[0]:
            return False
        data = os.read(self.master, 1 << 16)
        self.raw += data
        self._stream.feed(data)
        return True


@contextmanager
def window(*, columns: int, rows: int = 24) -> Iterator[Window]:
    """A window that is closed at the end."""
    made = Window(columns=columns, rows=rows)
    try:
        yield made
    finally:
        os.close(made.slave)
        os.close(made.master)
