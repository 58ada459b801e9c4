"""Files as zstd, and many small files as one bundle: what is written; ``frames`` and ``untar`` read it, as any tool does.

    file    ─ frames of 4 MiB, each by itself ▶ name.zst       + a table of their places (zstd's seekable format)
    files   ─ a tar entry each, in a frame of its own ▶ .tar.zst  + an index of the members

Table and index stand in a skippable frame at the end, so that ``zstd -d`` and ``tar --zstd -x`` read the whole, and a reader with
ranges finds a place of it. A frame that is all zeros (a hole) costs a kilobyte and no reading. Nothing here touches a file
or the network: content comes in, bytes go out.

The seekable format: https://github.com/facebook/zstd/blob/dev/contrib/seekable_format/zstd_seekable_compression_format.md
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Sequence
from struct import pack
from typing import Any, NamedTuple

FRAME_BYTES = 4 << 20
_LEVEL = 1
"""Twice as fast as zstd's default for a few per cent more bytes: the cores are paid for, and the link is rarely the limit."""
_TABLE_MAGIC, _TABLE_END = 0x184D2A5E, 0x8F92EAB1
_INDEX_MAGIC = 0x184D2A5B
_INDEX_END = b"byos-idx"
_BLOCK, _NAME_BYTES = 512, 100


class Place(NamedTuple):
    """A frame of the object."""

    packed_bytes: int
    content_bytes: int


class Member(NamedTuple):
    """A file of a bundle: its frame, and where in the frame's content it begins."""

    path: str
    offset: int
    """Of the frame in the object."""
    packed_bytes: int
    skip_bytes: int
    """Of the tar header before the content."""
    size_bytes: int
    crc32: str


class Frames:
    """Makes frames, on any thread. Keeps its compressors: to make one takes as long as to pack a small file."""

    def __init__(self) -> None:
        self._idle: deque[Any] = deque()

    def frame(self, content: bytes | bytearray) -> bytes:
        """One whole frame, with its content's size and checksum; made outside the interpreter's lock."""
        import zstandard  # here and below: few runs pack, every run starts

        try:
            compressor = self._idle.pop()
        except IndexError:
            compressor = zstandard.ZstdCompressor(level=_LEVEL, write_checksum=True)
        packed: bytes = compressor.compress(content)
        self._idle.append(compressor)
        return packed


def table(places: Sequence[Place]) -> bytes:
    """The seek table: where each frame is, for readers that want a part."""
    entries = b"".join(pack("<II", place.packed_bytes, place.content_bytes) for place in places)
    footer = pack("<IBI", len(places), 0, _TABLE_END)
    return pack("<II", _TABLE_MAGIC, len(entries) + len(footer)) + entries + footer


def tar_header(path: str, *, size_bytes: int, mtime_ns: int, mode: int) -> bytes:
    """What stands before a file's content in a tar: pax, so that any name and time can be said. *size_bytes*: below 8 GiB.

    ``tarfile`` makes the same in seven times as long, which for small files is more than packing and sending them takes.
    """
    seconds, rest_ns = divmod(abs(mtime_ns), 10**9)
    name = path.encode("utf-8", "surrogateescape")
    records = _record(b"mtime", b"%s%d.%09d" % (b"-" if mtime_ns < 0 else b"", seconds, rest_ns))
    if len(name) > _NAME_BYTES or not path.isascii():
        records += _record(b"path", name)
    mtime_s = seconds if mtime_ns >= 0 and seconds < 8**11 else 0  # the record says it
    return b"".join(
        (
            _entry(b"././@PaxHeader", kind=b"x", size_bytes=len(records), mtime_s=0, mode=0o644),
            records,
            bytes(tar_padding(len(records))),
            _entry(name, kind=b"0", size_bytes=size_bytes, mtime_s=mtime_s, mode=mode),
        )
    )


def _record(keyword: bytes, value: bytes) -> bytes:
    """``30 mtime=1350244992.023960108\\n``: the length counts itself (pax, POSIX.1-2001)."""
    rest = len(keyword) + len(value) + 3
    length = rest + len(str(rest + len(str(rest))))
    return b"%d %s=%s\n" % (length, keyword, value)


def _entry(name: bytes, *, kind: bytes, size_bytes: int, mtime_s: int, mode: int) -> bytes:
    """A ustar header; owner and group are 0, whoever they were on the node."""
    fields = pack(
        "100s8s8s8s12s12s8sc100s8s247x", name[:_NAME_BYTES], b"%07o" % mode, b"%07o" % 0, b"%07o" % 0,
        b"%011o" % size_bytes, b"%011o" % mtime_s, b" " * 8, kind, b"", b"ustar\x0000",
    )  # fmt: skip
    return b"%s%06o\0 %s" % (fields[:148], sum(fields), fields[156:])


def tar_padding(size_bytes: int) -> int:
    """Zeros that fill the last block of a file's content."""
    return -size_bytes % _BLOCK


def tar_end() -> bytes:
    """Two blocks of zeros."""
    return bytes(2 * _BLOCK)


def index(members: Sequence[Member]) -> bytes:
    """The index of a bundle: JSON in zstd, in a skippable frame; at the very end its length, little-endian, and a mark."""
    packed = Frames().frame(json.dumps([member._asdict() for member in members]).encode("ascii"))
    tail = packed + pack("<Q", len(packed)) + _INDEX_END
    return pack("<II", _INDEX_MAGIC, len(tail)) + tail
