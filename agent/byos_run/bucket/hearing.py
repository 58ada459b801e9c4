"""Sockets whose waits end when the wish to stop has grown since their request began, or when no byte has moved for too long.

Connecting, handshake, sending and receiving wait in slices of half a second. A timeout of the socket alone would be one for
all of a ``sendall``, however many bytes move meanwhile (``socket.sendall``): by a slow link no large part would ever leave.

Not promised: looking up a name, which nothing can break off.
"""

from __future__ import annotations

import errno
import fcntl
import os
import select
import socket
import ssl
import sys
import termios
import time
from typing import Any, Callable, TypeVar

from byos_run.model import Stop

T = TypeVar("T")

TIMED_OUT = (TimeoutError, socket.timeout)  # one class from Python 3.10 on
LAST_WORDS_S = 2.0
"""How long what is begun after the wish to stop is waited for, by those who listen to it."""
_LOOK_S = 0.5
_SEND_BYTES = 1 << 18


class Heed:
    """Of one request: how long it waits, and whose wish ends that."""

    def __init__(self, stop: Stop) -> None:
        self._stop = stop
        self._wish = stop.asked + stop.cut
        self._look_at = time.monotonic() + _LOOK_S
        self._idle_s = self._until = 0.0

    def at_most(self, idle_s: float) -> float:
        """From now on no longer than this from byte to byte. Returns the seconds of one slice."""
        self._idle_s = min(idle_s, LAST_WORDS_S) if self._wish else idle_s
        self._until = time.monotonic() + self._idle_s
        return min(self._idle_s, _LOOK_S)

    def moved(self) -> None:
        """Bytes have. Raise TimeoutError when the wish has grown: whoever would try again then asks it himself."""
        now = time.monotonic()
        self._until = now + self._idle_s
        self._look(now)

    def waited(self) -> None:
        """A slice, and no byte has moved. Raise TimeoutError as :meth:`moved` does, and when that was too long."""
        now = time.monotonic()
        if now >= self._until:
            raise TimeoutError("no answer in time")
        self._look(now)

    def _look(self, now: float) -> None:
        if now >= self._look_at:
            self._look_at = now + _LOOK_S
            if self._stop.asked + self._stop.cut > self._wish:
                raise TimeoutError("told to stop")


class Hearing(socket.socket):
    """A socket that serves one request after the other; the present one's :class:`Heed` is told by :meth:`serve`."""

    _heed: Heed
    _unsent = 0

    def serve(self, heed: Heed, *, idle_s: float) -> None:
        self._heed = heed
        slice_s = heed.at_most(idle_s)
        if self.gettimeout() != slice_s:
            self.settimeout(slice_s)

    def connect_to(self, address: Any) -> None:
        """Raises OSError."""
        slice_s = self.gettimeout() or 0.0
        self.setblocking(False)
        code = self.connect_ex(address)
        if code == errno.EINPROGRESS:
            poll = select.poll()
            poll.register(self, select.POLLOUT)
            while not poll.poll(slice_s * 1000):
                self._heed.waited()
            code = self.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            raise OSError(code, os.strerror(code))
        self.settimeout(slice_s)

    def recv_into(self, buffer: Any, *more: Any) -> int:
        return self._patiently(super().recv_into, buffer, *more)

    def fill(self, buffer: memoryview) -> tuple[int, OSError | None]:
        """How many bytes came, and what broke it off; too few, and nothing did: the peer has closed.

        TLS brings 16 KiB a call, so most calls of a fetch are made here, and what lies between them counts.
        """
        receive, heed, filled = super().recv_into, self._heed, 0
        try:
            while filled < len(buffer):
                try:
                    count = receive(buffer[filled:])
                except TIMED_OUT:
                    self._waited()
                    continue
                if not count:
                    break
                filled += count
                heed.moved()
        except OSError as error:
            return filled, error
        return filled, None

    def sendall(self, data: Any, *more: Any) -> None:
        left = memoryview(data).cast("B")
        while left:
            left = left[self._patiently(super().send, left[:_SEND_BYTES], *more) :]

    def _patiently(self, act: Callable[..., T], *arguments: Any) -> T:
        while True:
            try:
                done = act(*arguments)
            except TIMED_OUT:
                self._waited()
            else:
                self._heed.moved()
                return done

    def _waited(self) -> None:
        unsent, self._unsent = self._unsent, self._in_kernel()
        if unsent != self._unsent:
            self._heed.moved()
        else:
            self._heed.waited()

    def _in_kernel(self) -> int:
        """Bytes that we have sent and the other side has not acknowledged; 0 where the kernel does not say (tcp(7), SIOCOUTQ)."""
        try:
            return int.from_bytes(fcntl.ioctl(self, termios.TIOCOUTQ, bytes(4)), sys.byteorder)
        except OSError:
            return 0


class HearingTls(Hearing, ssl.SSLSocket):
    """What ``wrap_socket`` makes of one where this is the context's ``sslsocket_class``."""

    def do_handshake(self, block: bool = False) -> None:
        self._patiently(super().do_handshake, block)


def connected(address: tuple[str, int | None], heed: Heed, *, idle_s: float) -> Hearing:
    """To the first address of the name that answers. Raises OSError."""
    failed = OSError(f"{address[0]} has no address")
    for family, kind, protocol, _, where in socket.getaddrinfo(*address, type=socket.SOCK_STREAM):
        sock = Hearing(family, kind, protocol)
        try:
            sock.serve(heed, idle_s=idle_s)
            sock.connect_to(where)
        except OSError as error:
            sock.close()
            failed = error
        else:
            return sock
    raise failed
