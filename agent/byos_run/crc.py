"""CRC-32 at the speed of memory, and the CRC of a whole from the CRCs of its parts.

isal's is six times as fast as the standard library's and gives the same numbers; where no wheel of it fits, zlib and the
textbook matrix method stand in. Both release the GIL on buffers of this program's size.
"""

from __future__ import annotations

import base64

try:
    from isal.isal_zlib import crc32, crc32_combine
except ImportError:
    from zlib import crc32  # same numbers

    _POLYNOMIAL = 0xEDB88320

    def crc32_combine(first: int, second: int, second_length: int, /) -> int:
        """CRC-32 of A + B from those of A and B and the length of B in bytes.

        Appending n zero bytes to A is a linear map over GF(2): its matrix is squared bit by bit of n, as Mark Adler's does.
        """
        odd = [_POLYNOMIAL, *(1 << n for n in range(31))]
        even = _square(odd)
        odd = _square(even)
        while second_length:
            even = _square(odd)
            if second_length & 1:
                first = _times(even, first)
            second_length >>= 1
            odd, even = even, odd
        return first ^ second

    def _times(matrix: list[int], vector: int) -> int:
        total = 0
        for row in matrix:
            if vector & 1:
                total ^= row
            vector >>= 1
        return total

    def _square(matrix: list[int]) -> list[int]:
        return [_times(matrix, row) for row in matrix]


def base64_of(crc: int) -> str:
    """*crc* as S3 writes it: base64 of 4 big-endian bytes."""
    return base64.b64encode(crc.to_bytes(4, "big")).decode("ascii")


def of_base64(text: str) -> int:
    return int.from_bytes(base64.b64decode(text), "big")


__all__ = ["base64_of", "crc32", "crc32_combine", "of_base64"]
