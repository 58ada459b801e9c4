"""zstd frames, decoded in bounded pieces and known to be whole.

The library's reader takes a frame that was cut off for its end, and its other decoder gives out as much as a bomb
holds. So the frames are walked here: magic, header, blocks, checksum. At most :data:`_BLOCKS` blocks are fed at once
and a block holds at most 128 KiB, so a piece is at most 1 MiB; and an input that ends between two bytes of a frame is
seen.
"""

from __future__ import annotations

from collections.abc import Iterator
from struct import unpack_from

import zstandard

from byos_run.archive.inflate import Damaged, damaged

_MAGIC = 0xFD2FB528
_SKIPPABLE = 0x184D2A50
_BLOCKS = 8
_WINDOW_BYTES = 128 << 20


class _Input:
    """Bytes of *chunks* by number, not by chunk."""

    def __init__(self, chunks: Iterator[memoryview]) -> None:
        self._chunks = chunks
        self._held = b""
        self._at = 0

    def take(self, count: int) -> bytes:
        """The next *count* bytes; fewer only at the end of the input."""
        at, end = self._at, self._at + count
        if end > len(self._held):
            parts = [self._held[at:]]
            missing = end - len(self._held)
            while missing > 0:
                chunk = next(self._chunks, None)
                if chunk is None:
                    break
                parts.append(bytes(chunk))
                missing -= len(chunk)
            self._held, at, end = b"".join(parts), 0, count
        self._at = min(end, len(self._held))
        return self._held[at:end]

    def exactly(self, count: int) -> bytes:
        found = self.take(count)
        if len(found) < count:
            raise Damaged("is cut off in the middle of a frame")
        return found

    def skip(self, count: int) -> None:
        while count:
            count -= len(self.exactly(min(count, 1 << 20)))


def zstd_pieces(chunks: Iterator[memoryview], *, several: bool) -> Iterator[bytes]:
    """What the frames of *chunks* hold, in pieces of at most 1 MiB. Raises Damaged.

    *several*: more than one frame, skippable ones and zeros after the last may be there.
    """
    data, frames = _Input(chunks), 0
    library = zstandard.ZstdDecompressor(max_window_size=_WINDOW_BYTES)
    while start := data.take(4):
        magic = unpack_from("<I", start + b"\0\0\0")[0]
        if magic & 0xFFFFFFF0 == _SKIPPABLE and several:
            data.skip(unpack_from("<I", data.exactly(4))[0])
        elif magic == _MAGIC and (several or not frames):
            frames += 1
            yield from _frame(data, start, library)
        elif frames and several and not start.strip(b"\0"):
            continue
        else:
            raise Damaged("has bytes after its end" if frames else "is not zstd")
    if not frames:
        raise Damaged("holds no frame")


def _frame(data: _Input, start: bytes, library: zstandard.ZstdDecompressor) -> Iterator[bytes]:
    descriptor = data.exactly(1)
    single, checksum = descriptor[0] >> 5 & 1, descriptor[0] >> 2 & 1
    size_bytes = (single, 2, 4, 8)[descriptor[0] >> 6]
    header = data.exactly(1 - single + (0, 1, 2, 4)[descriptor[0] & 3] + size_bytes)
    decoder = library.decompressobj()
    fed = [start, descriptor, header]
    try:
        last, blocks = 0, 0
        while not last:
            head = data.exactly(3)
            word = head[0] | head[1] << 8 | head[2] << 16
            last, kind, length = word & 1, word >> 1 & 3, word >> 3
            fed.append(head)
            fed.append(data.exactly(1 if kind == 1 else length))
            blocks += 1
            if blocks == _BLOCKS or last:
                if last and checksum:
                    fed.append(data.exactly(4))
                piece = decoder.decompress(b"".join(fed))
                fed.clear()
                blocks = 0
                if piece:
                    yield piece
    except zstandard.ZstdError as error:
        raise damaged(error) from None
    if not decoder.eof:
        raise Damaged("is damaged: a frame does not end where it says")
