"""HTTP/1.1 messages as they go over a connection: heads are read, bodies pass by in pieces, byte for byte."""

from __future__ import annotations

from typing import TYPE_CHECKING, BinaryIO, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

PIECE_BYTES = 1 << 16


class Head(NamedTuple):
    """First line and headers of a message."""

    first: str
    lines: tuple[str, ...]
    """Header lines as they came, without their line ends."""

    @property
    def headers(self) -> dict[str, str]:
        """Values by name in lower case."""
        pairs = (line.partition(":") for line in self.lines)
        return {name.strip().lower(): value.strip() for name, _, value in pairs}

    @property
    def status(self) -> int:
        """Of an answer."""
        return int(self.first.split(" ", 2)[1])

    def with_header(self, name: str, value: str | None) -> Head:
        """The head with this header set; None: without it."""
        kept = tuple(line for line in self.lines if line.partition(":")[0].strip().lower() != name.lower())
        return self._replace(lines=kept if value is None else (*kept, f"{name}: {value}"))

    def encoded(self) -> bytes:
        return "\r\n".join((self.first, *self.lines, "", "")).encode("latin-1")


def read_head(stream: BinaryIO) -> Head | None:
    """The next head; None if the other side has closed between two messages. Raises ConnectionError in the midst of one."""
    first = stream.readline()
    if not first:
        return None
    lines: list[str] = []
    while True:
        line = stream.readline()
        if not line.endswith(b"\n"):
            raise ConnectionError("closed in the midst of a head")
        if line in (b"\r\n", b"\n"):
            return Head(first.decode("latin-1").strip(), tuple(lines))
        lines.append(line.decode("latin-1").rstrip("\r\n"))


def body_of(stream: BinaryIO, head: Head, *, answers: str = "") -> Iterator[bytes]:
    """The body in pieces, chunk framing included. `answers`: the method of the request that this head answers."""
    headers = head.headers
    if answers and (answers == "HEAD" or head.status in (204, 304)):
        return
    if "chunked" in headers.get("transfer-encoding", "").lower():
        yield from _chunks(stream)
    elif "content-length" in headers:
        yield from _exactly(stream, int(headers["content-length"]))
    elif answers:
        while piece := stream.read(PIECE_BYTES):
            yield piece


def _exactly(stream: BinaryIO, count: int) -> Iterator[bytes]:
    while count:
        piece = stream.read(min(count, PIECE_BYTES))
        if not piece:
            raise ConnectionError("closed in the midst of a body")
        count -= len(piece)
        yield piece


def _chunks(stream: BinaryIO) -> Iterator[bytes]:
    while True:
        line = stream.readline()
        yield line
        size = int(line.split(b";")[0], 16)
        if not size:
            break
        yield from _exactly(stream, size + 2)
    while (line := stream.readline()) not in (b"\r\n", b"\n", b""):
        yield line
    yield b"\r\n"
