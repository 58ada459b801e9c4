"""What byos-run needs of a store, tried on every store there is for the tests.

One suite, many stores: what holds here is what the steps rely on. `store` and `wire` come from the conftest beside this file.
"""

from __future__ import annotations

import hashlib
import os
import threading

import pytest

from byos_run import crc, errors
from byos_run.bucket import objects, ranges
from byos_run.bucket.upload import FileChanged, LocalFile, Uploader, part_size
from byos_run.model import Identity, S3Url
from byos_run.node.pool import Count, Pool
from byos_run.node.stop import Stop

ODD_KEYS = [
    pytest.param("plain.dat", id="plain"),
    pytest.param("with blank.dat", id="blank"),
    pytest.param("a+b%20c#d&e?f=g;h'i.h5", id="url-characters"),
    pytest.param("-leading-dash", id="dash"),
    pytest.param("Größe/日本語/😀.out", id="unicode"),
    pytest.param("u\u0308-nfd.out", id="nfd"),
    pytest.param(".hidden/.dot", id="dot"),
    pytest.param("new\nline\ttab", id="control"),
    pytest.param("*[x]?:<>|\"'", id="shell-characters"),
    pytest.param("a" * 200 + "/" + "b" * 200, id="long"),
]


def local_file(path) -> LocalFile:
    descriptor = os.open(path, os.O_RDONLY)
    status = os.fstat(descriptor)
    return LocalFile(descriptor, Identity(status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino))


@pytest.fixture
def uploader(wire):
    with Pool(name="part", width=2) as parts:
        yield Uploader(wire, parts=parts, part_bytes=5 << 20, tally=Count())


@pytest.mark.parametrize("key", ODD_KEYS)
def test_any_key_comes_back(wire, key):
    """A key of any characters is written, read, listed and deleted under its own name."""
    key = f"odd/{key}"
    etag = objects.put(wire, key, b"content")

    found = objects.get(wire, key)
    assert found is not None
    assert (b"content", etag) == (found.body, found.etag)
    assert key in {item.key for item in objects.listed(wire, "odd/")}
    objects.delete(wire, key)
    assert objects.get(wire, key) is None
    objects.delete(wire, key)


def test_a_wrong_checksum_stores_nothing(wire):
    """The store itself refuses a body whose CRC-32 is not the one in the header."""
    from byos_run.bucket.answers import Transient

    with pytest.raises(Transient):
        wire.attempt("PUT", "wrong", headers={"x-amz-checksum-crc32": crc.base64_of(1)}, body=b"content")

    assert objects.get(wire, "wrong") is None


def test_conditions_hold(wire):
    """If-None-Match creates once; If-Match replaces only what was read."""
    etag = objects.put(wire, "claim", b"one", if_none_match=True)
    with pytest.raises(errors.ConditionFailed):
        objects.put(wire, "claim", b"two", if_none_match=True)
    second = objects.put(wire, "claim", b"two", if_match=etag)
    with pytest.raises(errors.ConditionFailed):
        objects.put(wire, "claim", b"three", if_match=etag)

    assert second != etag
    assert objects.get(wire, "claim").body == b"two"


def test_exactly_one_of_many_claims_wins(wire):
    """Eight writers at once with If-None-Match: one is told yes."""
    won = []

    def claim(number: int) -> None:
        try:
            objects.put(wire, "race", str(number).encode(), if_none_match=True)
            won.append(number)
        except errors.ConditionFailed:
            return

    threads = [threading.Thread(target=claim, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(won) == 1
    assert str(won[0]).encode() == objects.get(wire, "race").body


@pytest.mark.parametrize("size", [0, 1, 100_000, (8 << 20), (8 << 20) + 1, (15 << 20) + 3], ids=str)
def test_a_file_is_acknowledged_and_comes_back(wire, uploader, tmp_path, size):
    """Single PUT or parts: size and CRC-32 in the bucket are those of the file, and ranged reads give its bytes."""
    content = (hashlib.sha256(str(size).encode()).digest() * (size // 32 + 1))[:size]
    (tmp_path / "out").write_bytes(content)
    file = local_file(tmp_path / "out")
    done = uploader.send(file, "out", headers={"x-amz-meta-mtime": "12.5", "content-type": "text/plain"})
    os.close(file.descriptor)

    assert (size, crc.base64_of(crc.crc32(content))) == (done.size_bytes, done.crc32)
    facts = objects.head(wire, "out")
    assert (size, done.etag, done.crc32) == (facts.size_bytes, facts.etag, facts.crc32)
    assert {("out", size, done.etag)} == {(i.key, i.size_bytes, i.etag) for i in objects.listed(wire, "out")}
    reader = ranges.open_object(wire, S3Url(wire.line.bucket, "out"))
    assert size == reader.size_bytes
    pieces = [bytes(reader.read(at, min(3 << 20, size - at))) for at in range(0, size, 3 << 20)]
    assert content == b"".join(pieces)
    answer = wire.request("HEAD", "out")
    assert (answer.headers["x-amz-meta-mtime"], answer.headers["content-type"]) == ("12.5", "text/plain")


def test_a_file_that_shrinks_gives_no_object(wire, uploader, tmp_path):
    """A file cut while it waits is not sent as something that it never was."""
    path = tmp_path / "out"
    path.write_bytes(b"x" * (12 << 20))
    file = local_file(path)
    os.truncate(path, 6 << 20)

    with pytest.raises(FileChanged):
        uploader.send(file, "cut", headers={})
    os.close(file.descriptor)

    assert objects.get(wire, "cut") is None


def test_a_file_rewritten_in_place_gives_no_object(wire, uploader, tmp_path):
    """Same size, other bytes: identity tells."""
    path = tmp_path / "out"
    path.write_bytes(b"x" * 1000)
    file = local_file(path)
    path.write_bytes(b"y" * 1000)

    with pytest.raises(FileChanged):
        uploader.send(file, "rewritten", headers={})
    os.close(file.descriptor)

    assert objects.get(wire, "rewritten") is None


def test_reading_stays_with_one_version(wire):
    """A range after the object was replaced is refused, never mixed."""
    objects.put(wire, "case.zip", b"a" * (3 << 20))
    reader = ranges.open_object(wire, S3Url(wire.line.bucket, "case.zip"))
    assert bytes(reader.read(0, 10)) == b"a" * 10
    objects.put(wire, "case.zip", b"b" * (3 << 20))

    with pytest.raises(errors.InputChanged):
        reader.read(100, 10)


def test_an_empty_object_is_empty(wire):
    """A suffix range of nothing is answered in three ways by three stores: always an empty object."""
    objects.put(wire, "empty", b"")

    assert ranges.open_object(wire, S3Url(wire.line.bucket, "empty")).size_bytes == 0


def test_listing_goes_over_pages(wire):
    """More keys than a page holds come once each, in order."""
    for number in range(7):
        objects.put(wire, f"page/{number}", b"")

    assert [f"page/{n}" for n in range(7)] == [item.key for item in objects.listed(wire, "page/", page=3)]


def test_prefixes_come_once_each_over_pages(wire):
    """One level below, however much lies below that; names are decoded as keys are."""
    names = ["a+b%20c", "b b", "c", "d", "ü"]
    for name in names:
        for number in range(3):
            objects.put(wire, f"level/{name}/{number}/x", b"")
    objects.put(wire, "level/object", b"")

    assert [f"level/{name}/" for name in names] == list(objects.prefixes_below(wire, "level/", page=2))
    assert ["level/d/0/", "level/d/1/", "level/d/2/"] == list(objects.prefixes_below(wire, "level/d/"))


def test_what_did_not_change_is_not_sent_again(wire):
    """If-None-Match: no body while the ETag is the same, the new one after, NoSuchObject when it is gone."""
    first = objects.put(wire, "beat", b"one")

    assert objects.get_changed(wire, "beat", etag=first) is None
    objects.put(wire, "beat", b"two")
    assert b"two" == objects.get_changed(wire, "beat", etag=first).body
    objects.delete(wire, "beat")
    with pytest.raises(errors.NoSuchObject):
        objects.get_changed(wire, "beat", etag=first)


def test_what_is_missing_is_named(wire, session):
    """A key and a bucket that are not there: which of the two is said."""
    with pytest.raises(errors.MissingInput, match="no key 'nope' in bucket"):
        ranges.open_object(wire, S3Url(wire.line.bucket, "nope"))
    other = session.wire("no-such-bucket-here", stop=Stop())
    with pytest.raises(errors.MissingInput, match="bucket 'no-such-bucket-here' does not exist"):
        ranges.open_object(other, S3Url("no-such-bucket-here", "nope"))


@pytest.mark.parametrize("secret", ["wrong", ""], ids=["wrong-secret", "unknown-key"])
def test_refused_credentials_name_the_action(open_session, wire, secret):
    """77, with the action; never "object missing"."""
    session = open_session(access_key=None if secret else "nobodyknowsme", secret_key="wrongsecretwrongsecret")

    with pytest.raises(errors.AccessRefused, match="s3:GetObject on s3://"):
        ranges.open_object(session.wire(wire.line.bucket, stop=Stop()), S3Url(wire.line.bucket, "x"))


def test_a_wrong_clock_is_corrected(open_session, wire):
    """A node whose clock is an hour off signs with the store's time after the first refusal."""
    session = open_session()
    other = session.wire(wire.line.bucket, stop=Stop())
    other.line.clock.offset_s = -3600.0

    objects.put(other, "late", b"x")

    assert abs(other.line.clock.offset_s) < 60


def test_part_sizes_reach_five_tebibytes():
    """16 MiB, until 10,000 parts would not be enough."""
    assert part_size(1 << 30) == 16 << 20
    assert part_size(5 << 40) * 10_000 >= 5 << 40
    assert part_size(5 << 40) % (1 << 20) == 0
