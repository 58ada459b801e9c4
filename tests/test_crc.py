"""CRC-32 and its combination, with isal and without."""

from __future__ import annotations

import importlib
import sys
import zlib

import pytest

from byos_run import crc


@pytest.fixture(params=["isal", "standard library"])
def module(request, monkeypatch):
    if request.param == "isal":
        yield importlib.reload(crc)
        return
    monkeypatch.setitem(sys.modules, "isal", None)
    yield importlib.reload(crc)
    monkeypatch.undo()
    importlib.reload(crc)


@pytest.mark.parametrize("lengths", [(0, 0), (1, 0), (0, 1), (5, 7), (1 << 20, 3), (3, (1 << 20) + 1)])
def test_parts_combine_to_the_whole(module, lengths):
    """The CRC of A + B comes from those of A and B without reading again."""
    first, second = (bytes(n % 251 for n in range(length)) for length in lengths)

    assert zlib.crc32(first + second) == module.crc32_combine(zlib.crc32(first), zlib.crc32(second), len(second))


def test_base64_is_as_s3_writes_it(module):
    """Four big-endian bytes."""
    assert module.base64_of(module.crc32(b"abc")) == "NSRBwg=="
    assert zlib.crc32(b"abc") == module.of_base64("NSRBwg==")
