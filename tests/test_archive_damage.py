"""Damage of every kind: cut at every length, bytes flipped, figures put to extremes."""

from __future__ import annotations

import gzip
import io
import random
import tarfile

import pytest
import zstandard
from tests.archives import mutations, room, tars, zips

from byos_run.node.stop import Stop

WHOLE = {
    "case.zip": zips.build(
        [zips.member(b"a.dat", flags=8, descriptor=bytes(16)), zips.member(b"b", b"short", method=0)], comment=b"c"
    ),
    "case.tar": tars.tar(tars.entry(b"a", b"short"))[:-512],
    "case.tar.gz": gzip.compress(tars.tar(tars.entry(b"a"))),
    "case.tar.zst": zstandard.ZstdCompressor(write_checksum=True).compress(tars.tar(tars.entry(b"a"))),
}


@pytest.mark.parametrize("name", WHOLE)
def test_cut_at_every_length(name, tmp_path):
    """However much of its end is missing, an archive is refused and not taken for a smaller one."""
    stop, whole = Stop(), WHOLE[name]

    assert mutations.outcome(whole, name=name, below=tmp_path, stop=stop) == "ok"
    for length in range(len(whole)):
        assert mutations.outcome(whole[:length], name=name, below=tmp_path, stop=stop) == "refused", length


def test_wounded_archives_end_well(tmp_path):
    """Whatever is damaged: the tree or a refusal, never a crash, a hang or a file elsewhere."""
    chance, stop, good = random.Random(20), Stop(), mutations.seeds()

    for name, content in good:
        assert mutations.outcome(content, name=name, below=tmp_path, stop=stop) == "ok", name
    for _ in range(1500):
        name, content = chance.choice(good)
        mutations.outcome(mutations.mutant(content, chance), name=name, below=tmp_path, stop=stop)


def test_a_flipped_byte_of_content_is_never_taken(tmp_path):
    """A byte flipped in the packed data of a zip, at any place, is noticed."""
    stop = Stop()
    whole = zips.build([zips.member(b"a", zips.TEXT)])
    start, end = 30 + 1, whole.index(b"PK\1\2")

    for at in range(start, end):
        wounded = bytearray(whole)
        wounded[at] ^= 0x10
        assert mutations.outcome(bytes(wounded), name="case.zip", below=tmp_path, stop=stop) == "refused", at


def test_every_format_of_tar_is_read(tmp_path):
    """What Python's tarfile writes, in its three formats, comes out as it went in."""
    for layout in (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        with tarfile.open(fileobj=io.BytesIO(mutations.small_tar(layout))) as archive:
            expected = {
                m.name.removeprefix("./").encode(): archive.extractfile(m).read() for m in archive if not m.issym()
            }
        stage = tmp_path / str(layout)
        verdict, _ = room.verdict(mutations.small_tar(layout), stage, name="case.tar")
        tree = room.tree(stage)
        assert ("ok", "-> inputs.in") == (verdict, tree.pop(b"a/l"))
        assert expected == {path: content for path, content in tree.items() if content != "/"}
