"""Codecs: packed bytes in, pieces of at most 1 MiB out, the end of the stream proved.

    deflate, gzip   isal, or the standard library's zlib where no wheel of it fits: same code, the module swapped
    bzip2, lzma, xz standard library
    zstd            ``frames``

Memory, whatever the input: one slice in, one piece out and the codec's window (deflate 64 KiB, bzip2 8 MiB, lzma and
xz at most :data:`_DICTIONARY_BYTES`, zstd 128 MiB). A caller that decodes several members at once holds ``unpack``'s
lock for the last three.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from itertools import chain
from typing import Any, Callable

deflate: Any
try:
    from isal import isal_zlib as deflate
except ImportError:
    deflate = zlib

PIECE_BYTES = 1 << 20
_SLICE_BYTES = 256 << 10
_FIRST_SLICE_BYTES = 8 << 10
_DICTIONARY_BYTES = 128 << 20


class Damaged(Exception):
    """The packed bytes are not what they should be; the message continues a sentence about the member or archive."""


def damaged(error: Exception) -> Damaged:
    """What a codec's *error* means: a window too large, or damage."""
    if "memory" in str(error).lower():
        return Damaged("needs a window over 128 MiB to unpack: more than xz -9 and zstd --long=27 take")
    return Damaged(f"is damaged: {error}")


_ERRORS: tuple[type[Exception], ...] = (zlib.error, deflate.error, EOFError, OSError, ValueError)
"""Of deflate and bzip2; lzma adds its own."""


def inflate_whole(data: memoryview, *, unpacked_bytes: int) -> bytes:
    """The raw deflate stream *data*, which must end with it; fast for small members. Raises Damaged.

    One byte more than *unpacked_bytes* is enough to tell that there are too many.
    """
    decoder = deflate.decompressobj(-15)
    try:
        found: bytes = decoder.decompress(data, unpacked_bytes + 1)
        # isal may hold back up to 64 KiB when all input is consumed; a stream can also end exactly at the limit.
        while not decoder.eof and len(found) <= unpacked_bytes:
            more = decoder.decompress(decoder.unconsumed_tail, unpacked_bytes + 1 - len(found))
            if not more and not decoder.eof:
                raise Damaged("is cut off: its deflate stream has no end")
            found += more
    except _ERRORS as error:
        raise damaged(error) from None
    if decoder.eof and decoder.unused_data:
        raise Damaged("has bytes after the end of its deflate stream")
    return found


def member_pieces(chunks: Iterator[memoryview], *, method: int, flags: int, unpacked_bytes: int) -> Iterator[bytes]:
    """What a zip member's *chunks* hold by its *method* and *flags*. Raises Damaged; may yield more than *unpacked_bytes*."""
    if method == 0:
        return (bytes(chunk) for chunk in chunks)
    if method == 8:
        return _pieces(lambda: deflate.decompressobj(-15), chunks, several=False)
    if method == 12:
        import bz2

        return _pieces(bz2.BZ2Decompressor, chunks, several=False)
    if method == 14:
        return _lzma_pieces(chunks, unpacked_bytes=unpacked_bytes, end_mark=bool(flags & 2))
    if method == 95:
        return _xz_pieces(chunks, several=False)
    from byos_run.archive.frames import zstd_pieces

    return zstd_pieces(chunks, several=False)


def stream_pieces(chunks: Iterator[memoryview], *, kind: str) -> Iterator[bytes]:
    """What the stream of a "tar", "tar.gz", … holds: members and frames one after the other, zeros after the last.

    Reads *chunks* to their end, so that a wrong trailer is noticed. Raises Damaged.
    """
    if kind == "tar":
        return (bytes(chunk[at : at + PIECE_BYTES]) for chunk in chunks for at in range(0, len(chunk), PIECE_BYTES))
    if kind == "tar.gz":
        return _pieces(lambda: deflate.decompressobj(31), chunks, several=True)
    if kind == "tar.bz2":
        import bz2

        return _pieces(bz2.BZ2Decompressor, chunks, several=True)
    if kind == "tar.xz":
        return _xz_pieces(chunks, several=True)
    from byos_run.archive.frames import zstd_pieces

    return zstd_pieces(chunks, several=True)


def _pieces(
    new: Callable[[], Any],
    chunks: Iterator[memoryview],
    *,
    several: bool,
    padded: bool = False,
    errors: tuple[type[Exception], ...] = _ERRORS,
) -> Iterator[bytes]:
    """*new* makes a decoder in the manner of zlib, bz2 and lzma: ``decompress(data, max_length)``, ``eof``, ``unused_data``.

    *padded*: zeros may also stand between two streams.
    """
    decoder, took, size = new(), 0, _FIRST_SLICE_BYTES
    for chunk in chunks:
        at = 0
        while at < len(chunk):
            if decoder.eof:
                if not several:
                    raise Damaged("has bytes after its end")
                if not chunk[at]:
                    rest = bytes(chunk[at : at + _SLICE_BYTES])
                    at += len(rest) - len(rest.lstrip(b"\0"))
                    took = took if padded else -1
                    continue
                if took < 0:
                    raise Damaged("has bytes after its end")
                # A new stream starts with a small slice: what is fed past its end is copied, and it may be tiny.
                decoder, took, size = new(), 0, _FIRST_SLICE_BYTES
            data: Any = chunk[at : at + size]
            at += len(data)
            try:
                yield from _fed(decoder, data)
            except errors as error:
                raise damaged(error) from None
            at -= len(decoder.unused_data) if decoder.eof else 0
            took, size = took + len(data), min(size * 2, _SLICE_BYTES)
    yield from _drained(decoder, errors)


def _fed(decoder: Any, data: Any) -> Iterator[bytes]:
    """Feed *data*, take out all there is so far."""
    while True:
        piece = decoder.decompress(data, PIECE_BYTES)
        if piece:
            yield piece
        data = getattr(decoder, "unconsumed_tail", b"")
        if decoder.eof or (len(piece) < PIECE_BYTES and not data):
            return


def _drained(decoder: Any, errors: tuple[type[Exception], ...]) -> Iterator[bytes]:
    """What *decoder* still holds back at the end of the input. Raises Damaged if its stream is not over."""
    while not decoder.eof:
        try:
            piece = decoder.decompress(b"", PIECE_BYTES)
        except errors as error:
            raise damaged(error) from None
        if not piece and not decoder.eof:
            raise Damaged("is cut off: its packed bytes have no end")
        yield piece


def _xz_pieces(chunks: Iterator[memoryview], *, several: bool) -> Iterator[bytes]:
    import lzma

    errors = (*_ERRORS, lzma.LZMAError, MemoryError)
    return _pieces(
        lambda: lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_DICTIONARY_BYTES + (16 << 20)), chunks,
        several=several, padded=True, errors=errors,
    )  # fmt: skip


def _lzma_pieces(chunks: Iterator[memoryview], *, unpacked_bytes: int, end_mark: bool) -> Iterator[bytes]:
    """Method 14: two bytes of version, two of length, five of properties, then raw LZMA, whose *end_mark* a flag promises."""
    import lzma

    head = b""
    rest = memoryview(b"")
    while len(head) < 9:
        chunk = next(chunks, None)
        if chunk is None:
            raise Damaged("is cut off: its lzma header is not whole")
        need = 9 - len(head)
        head, rest = head + bytes(chunk[:need]), chunk[need:]
    properties = head[4]
    dictionary = min(int.from_bytes(head[5:9], "little"), max(unpacked_bytes, 4096))
    if head[2:4] != b"\5\0" or properties >= 225 or dictionary > _DICTIONARY_BYTES:
        raise Damaged(f"is packed by lzma with a dictionary over {_DICTIONARY_BYTES >> 20} MiB, or damaged")
    model = {"id": lzma.FILTER_LZMA1, "dict_size": dictionary}
    model.update(lc=properties % 9, lp=properties // 9 % 5, pb=properties // 45)
    errors: tuple[type[Exception], ...] = (*_ERRORS, lzma.LZMAError)
    try:
        decoder = lzma.LZMADecompressor(lzma.FORMAT_RAW, filters=[model])
        yield from _lzma_content(decoder, _slices(rest, chunks), unpacked_bytes=unpacked_bytes, end_mark=end_mark)
    except errors as error:
        raise damaged(error) from None


def _lzma_content(decoder: Any, slices: Iterator[bytes], *, unpacked_bytes: int, end_mark: bool) -> Iterator[bytes]:
    """Without a mark no more than is claimed: WinZip's encoder, for one, sets none, and the decoder would go on by itself."""
    left = unpacked_bytes + end_mark
    for data in slices:
        if decoder.eof:
            raise Damaged("has bytes after its end")
        all_given = unpacked_bytes > left == 0
        piece = decoder.decompress(data, min(PIECE_BYTES, left) or 1)
        if all_given and not decoder.eof:  # unless it was a mark that no flag promised
            raise Damaged("has bytes after its end")
        while piece and left:
            yield piece
            left -= len(piece)
            piece = decoder.decompress(b"", min(PIECE_BYTES, left)) if left and not decoder.eof else b""
    if left > end_mark or (end_mark and not decoder.eof):
        raise Damaged("is cut off: its lzma stream ends too early")
    if decoder.unused_data:
        raise Damaged("has bytes after its end")


def _slices(first: memoryview, chunks: Iterator[memoryview]) -> Iterator[bytes]:
    """The last four bytes are apart: a stream that gave all before them has bytes after its end."""
    held = b""
    for chunk in chain((first,), chunks):
        for at in range(0, len(chunk), _SLICE_BYTES):
            data = held + bytes(chunk[at : at + _SLICE_BYTES])
            held = data[-4:]
            yield data[:-4]
    yield held
