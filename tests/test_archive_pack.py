"""What bundles are made of: tar entries that any reader understands."""

from __future__ import annotations

import io
import tarfile

import pytest

from byos_run.archive import pack

NAMES = ["a.dat", "tree/out.dat", "x" * 100, "y" * 101, "d/" * 60 + "deep", "ü/ß", "中" * 60, "line\nbreak"]
TIMES = {0: "0.000000000", 1_795_437_643_824_123_456: "1795437643.824123456", -1_500_000_000: "-1.500000000",
         -1: "-0.000000001", (8**11 + 5) * 10**9: "8589934597.000000000"}  # fmt: skip


@pytest.mark.parametrize("mtime_ns", TIMES)
@pytest.mark.parametrize("name", NAMES)
def test_an_entry_says_name_size_mode_and_the_whole_time(name, mtime_ns):
    """Names beyond a header's field, times before 1970 and after 2242, and their last digits."""
    header = pack.tar_header(name, size_bytes=5, mtime_ns=mtime_ns, mode=0o640)
    content = b"hello" + bytes(pack.tar_padding(5))

    with tarfile.open(fileobj=io.BytesIO(header + content + pack.tar_end())) as made:
        (member,) = made
        assert b"hello" == made.extractfile(member).read()
    assert (name, 5, 0o640, TIMES[mtime_ns]) == (member.name, member.size, member.mode, member.pax_headers["mtime"])
    assert 0 == len(header) % 512
