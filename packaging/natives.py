"""The same native module built for several Pythons is nearly the same bytes: all but one travel as differences.

A module is cut into blocks; each is deflated with a window's worth of the base module (the one for ``BASE``) as the
dictionary, taken from where the block's own bytes are found there. Inflating that is faster than inflating the whole.
"""

from __future__ import annotations

import zlib

BASE = "3.11"
BLOCK_BYTES = 16 << 10
WINDOW_BYTES = 32 << 10
PROBE_BYTES = 16


def stem(path: str) -> str:
    """What the natives of one module have in common: the path up to the first dot."""
    return path.partition(".")[0]


def encoded(*, content: bytes, path: str, bases: dict[str, bytes]) -> tuple[bytes, str, tuple]:
    """(blob, path of the base or "", blocks) of one native; ``bases``: stem -> path and content for ``BASE``.

    A block is (where its dictionary starts in the base, bytes in the blob), a raw deflate stream each.
    """
    like, base = bases.get(stem(path), ("", b""))
    if not like or like == path:
        return zlib.compress(content, 9), "", ()
    blobs, blocks, shift = [], [], 0
    for start in range(0, len(content), BLOCK_BYTES):
        block = content[start : start + BLOCK_BYTES]
        shift = moved(block=block, start=start, base=base, before=shift)
        at = max(0, min(start + shift - (WINDOW_BYTES - BLOCK_BYTES) // 2, len(base) - WINDOW_BYTES))
        squeezer = zlib.compressobj(9, zlib.DEFLATED, -15, 9, zdict=base[at : at + WINDOW_BYTES])
        blobs.append(squeezer.compress(block) + squeezer.flush())
        blocks.append((at, len(blobs[-1])))
        again = zlib.decompressobj(-15, zdict=base[at : at + WINDOW_BYTES])
        # Proved here, since natives of another processor are never loaded on the builder.
        if again.decompress(blobs[-1]) != block:
            raise ValueError("%s does not come back from its differences" % path)
    return b"".join(blobs), like, tuple(blocks)


def moved(*, block: bytes, start: int, base: bytes, before: int) -> int:
    """By how many bytes, roughly, the block's content lies elsewhere in the base; ``before`` if nothing is found."""
    votes: dict[int, int] = {}
    for inside in range(0, len(block) - PROBE_BYTES, 256):
        probe = block[inside : inside + PROBE_BYTES]
        found = base.find(probe) if any(probe) else -1
        if found >= 0:
            shift = (found - inside - start) >> 10
            votes[shift] = votes.get(shift, 0) + 1
    if not votes:
        return before
    return max(sorted(votes), key=votes.__getitem__) << 10
