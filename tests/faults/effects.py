"""What faults do to bytes: answers made up, bits flipped, ranges shifted, time taken."""

from __future__ import annotations

import re
import threading
import time
from typing import TYPE_CHECKING

from tests.faults import rules

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from tests.faults.message import Head

ERROR = '<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>{code}</Code><Message>as told</Message></Error>'
PACE_S = 0.02


class Pace:
    """Makes bytes wait as on a link of its rate; each direction is one queue for all connections."""

    def __init__(self, link: rules.Link, closing: threading.Event) -> None:
        self._link = link
        self._closing = closing
        self._free_at = {"up": 0.0, "down": 0.0}
        self._lock = threading.Lock()

    def request(self) -> None:
        if self._link.latency_s:
            self._closing.wait(self._link.latency_s)

    def up(self, count: int) -> None:
        self._wait("up", count)

    def down(self, count: int) -> None:
        self._wait("down", count)

    def dripped(self, piece: bytes, fault: rules.Fault | None) -> Iterator[bytes]:
        """The piece as it is; for Drip in parts, each after its time."""
        if not isinstance(fault, rules.Drip):
            yield piece
            return
        step = max(1, int(fault.bytes_per_s * PACE_S))
        for start in range(0, len(piece), step):
            self._closing.wait(min(step, len(piece) - start) / fault.bytes_per_s)
            yield piece[start : start + step]

    def _wait(self, direction: str, count: int) -> None:
        if not self._link.bits_per_s:
            return
        with self._lock:
            now = time.monotonic()
            free_at = max(now, self._free_at[direction]) + count * 8 / self._link.bits_per_s
            self._free_at[direction] = free_at
        self._closing.wait(free_at - now)


def refusal(fault: rules.Refuse, *, method: str) -> bytes:
    """The whole answer."""
    text = "" if method == "HEAD" else ERROR.format(code=fault.code)
    own = (("Content-Type", "application/xml"), ("Content-Length", str(len(text))), *fault.headers)
    lines = "".join(f"{name}: {value}\r\n" for name, value in own)
    return f"HTTP/1.1 {fault.status} As Told\r\n{lines}\r\n{text}".encode()


def shifted(content_range: str, shift: int) -> str:
    """`bytes 0-9/100` moved by `shift`."""
    span, _, total = content_range.rpartition(" ")[2].partition("/")
    first, _, last = span.partition("-")
    return f"bytes {int(first) + shift}-{int(last) + shift}/{total}"


def stripped(head: Head, body: Iterable[bytes], fault: rules.Strip) -> tuple[Head, list[bytes]]:
    """The answer without a header, and without an element of its body; not for chunked bodies."""
    head = head.with_header(fault.header, None)
    content = b"".join(body)
    if fault.element and content:  # the answer to HEAD has a length and no body
        name = re.escape(fault.element.encode())
        content = re.sub(rb"<" + name + rb">[^<]*</" + name + rb">", b"", content)
        head = head.with_header("Content-Length", str(len(content)))
    return head, [content]


def corrupted(body: Iterable[bytes], fault: rules.Fault | None, *, request: bool) -> Iterator[bytes]:
    """The body, with one bit flipped if the fault asks for it on this side."""
    at = fault.at_byte if isinstance(fault, rules.Corrupt) and fault.request == request else -1
    start = 0
    for piece in body:
        if 0 <= at - start < len(piece):
            changed = bytearray(piece)
            changed[at - start] ^= 1
            yield bytes(changed)
        else:
            yield piece
        start += len(piece)
