"""Ranged reads of one version of one object, from a store that misbehaves."""

from __future__ import annotations

import random
import re
import threading

import pytest
from tests.faults.room import through
from tests.faults.rules import Call, Corrupt, Cut, Drip, IgnoreRange, LoseAnswer, Refuse, Reset, Rule, Stall, WrongRange

from byos_run import errors
from byos_run.bucket import ranges
from byos_run.model import S3Url

BODY = random.Random(4).randbytes((1 << 20) + 400_000)
LENGTH = 300_000  # of what is read: it lies before the end of the object, which comes with the first request

PASSING = [
    pytest.param(Refuse(503, "SlowDown"), id="503-slow-down"),
    pytest.param(Refuse(500, "InternalError"), id="500"),
    pytest.param(Refuse(429, "TooManyRequests"), id="429"),
    pytest.param(Refuse(408, "RequestTimeout"), id="408"),
    pytest.param(Reset(), id="reset-before"),
    pytest.param(Reset(forwarded=True), id="reset-after"),
    pytest.param(LoseAnswer(), id="answer-lost"),
    pytest.param(Stall(2.0), id="stall"),
    pytest.param(IgnoreRange(), id="200-instead-of-206"),
    pytest.param(WrongRange(shift=7), id="wrong-content-range"),
]


@pytest.fixture
def url(bucket):
    bucket.put("in/case.bin", BODY)
    return S3Url(bucket.name, "in/case.bin")


def ranged(fault, **when):
    """A rule for ranges in the object, not for its end."""
    return Rule(fault, header=r"^range: bytes=\d", **when)


def hasty(fault):
    """Not waiting long where nothing comes; elsewhere a slow machine would cost a try more."""
    return {"idle_timeout_s": 1.0} if isinstance(fault, Stall) else {}


def read(way, url):
    return bytes(ranges.open_object(way.wire, url).read(0, LENGTH))


@pytest.mark.parametrize("fault", PASSING)
def test_a_fault_that_passes_costs_a_try(bucket, tmp_path, url, fault):
    """Two tries fail, the third brings the bytes."""
    with through(bucket, tmp_path, ranged(fault, nth=(1, 2)), **hasty(fault)) as way:
        assert BODY[:LENGTH] == read(way, url)
        assert 3 <= len(way.ranges()) <= (9 if isinstance(fault, Stall) else 3)


@pytest.mark.parametrize("fault", PASSING)
def test_a_fault_of_the_first_request_costs_a_try(bucket, tmp_path, url, fault):
    """The request that brings size, ETag and end of the object is tried again like any other."""
    if fault == WrongRange(shift=7):
        fault = Cut(at_byte=1000)
    with through(bucket, tmp_path, Rule(fault, nth=(1,)), first_contact_s=30.0, **hasty(fault)) as way:
        assert BODY[-10:] == bytes(ranges.open_object(way.wire, url).read(len(BODY) - 10, 10))
        assert 2 <= way.count("GET") <= (9 if isinstance(fault, Stall) else 2)


@pytest.mark.parametrize("at", [0, 1, 65_535, 65_536, 150_000, LENGTH - 1, LENGTH])
def test_a_cut_body_is_resumed_at_the_missing_byte(bucket, tmp_path, url, at):
    """What has arrived before the connection was reset is not asked for again."""
    with through(bucket, tmp_path, ranged(Cut(at_byte=at), nth=(1,))) as way:
        assert BODY[:LENGTH] == read(way, url)
        asked = [int(re.match(r"bytes=(\d+)-", each)[1]) for each in way.ranges()]

    # A reset may overtake bytes that the kernel still held: never more than was sent, never from the start without need.
    assert asked[0] == 0
    assert all(0 <= each <= at for each in asked)
    assert len(asked) == (1 if at == LENGTH else 2)


def test_a_body_cut_again_and_again_comes_whole(bucket, tmp_path, url):
    """Each try goes on where the last one stopped: forward with every one of them, and patience begins anew."""
    with through(bucket, tmp_path, ranged(Cut(at_byte=40_000)), patience_s=1.0) as way:
        assert BODY[:LENGTH] == read(way, url)
        starts = [int(re.match(r"bytes=(\d+)-", each)[1]) for each in way.ranges()]

    assert starts == sorted(starts)
    assert len(starts) >= LENGTH // 40_000


def test_a_slow_drip_is_waited_for(bucket, tmp_path, url):
    """Bytes that come slowly, but come, are no stall."""
    with through(bucket, tmp_path, ranged(Drip(LENGTH / 4)), idle_timeout_s=2.0) as way:
        assert BODY[:LENGTH] == read(way, url)
        assert 1 == len(way.ranges())


def test_a_stall_in_the_body_is_resumed(bucket, tmp_path, url):
    """No byte for the idle timeout in the midst of a body: the rest is asked for on another connection."""
    over = threading.Event()
    with through(bucket, tmp_path, idle_timeout_s=2.0) as way:
        way.proxy.tell(ranged(Call(lambda: over.wait(60), at_byte=100_000), nth=(1,)))
        assert BODY[:LENGTH] == read(way, url)
        over.set()
        assert 2 == len(way.ranges())
        assert way.ranges()[1].startswith("bytes=65536-")


@pytest.mark.parametrize("fault", [IgnoreRange(), WrongRange(shift=1)], ids=["200", "wrong-range"])
def test_a_store_that_never_gives_the_range_is_named(bucket, tmp_path, url, fault):
    """Never another range's bytes in its place: after a few tries the run ends, and says what was answered."""
    with through(bucket, tmp_path, ranged(fault)) as way:
        with pytest.raises(errors.StoreRefused, match=r"asked for 'bytes 0-299999/1448576', the store answered 20"):
            read(way, url)
        assert 4 == len(way.ranges())


def test_a_flipped_bit_goes_through(bucket, tmp_path, url):
    """Ranges carry no checksum: what proves the content is the archive's CRC; a plain file has only its length."""
    with through(bucket, tmp_path, ranged(Corrupt(at_byte=5))) as way:
        got = read(way, url)

    assert got[:5] + bytes([got[5] ^ 1]) + got[6:] == BODY[:LENGTH]


def test_an_object_replaced_in_the_midst_is_never_mixed(bucket, tmp_path, url):
    """Half a body of the old version, then the connection breaks: the new version is refused by If-Match."""
    with through(bucket, tmp_path) as way:
        reader = ranges.open_object(way.wire, url)
        way.proxy.tell(ranged(Cut(at_byte=100_000), nth=(1,)), ranged(Call(lambda: bucket.put(url.key, BODY[::-1]))))
        with pytest.raises(errors.InputChanged, match="was replaced while it was being read"):
            reader.read(0, LENGTH)


def test_an_object_deleted_in_the_midst_is_missing(bucket, tmp_path, url):
    """66, and which object."""
    with through(bucket, tmp_path) as way:
        reader = ranges.open_object(way.wire, url)
        bucket.client.delete_object(Bucket=bucket.name, Key=url.key)
        with pytest.raises(errors.MissingInput, match=r"in/case\.bin was deleted while it was being read"):
            reader.read(0, LENGTH)


@pytest.mark.parametrize("seed", range(4))
def test_chance_faults_leave_the_bytes_right(bucket, tmp_path, url, seed):
    """A third of all answers cut, refused, reset or of the wrong range: the bytes are those of the object."""
    chance = random.Random(seed)
    told = [
        ranged(Cut(at_byte=chance.randrange(60_000)), chance=0.15),
        ranged(Refuse(503), chance=0.1),
        ranged(Reset(forwarded=True), chance=0.1),
    ]
    with through(bucket, tmp_path, *told, patience_s=20.0) as way:
        reader = ranges.open_object(way.wire, url)
        got = b"".join(bytes(reader.read(at, 50_000)) for at in range(0, 400_000, 50_000))

    assert BODY[:400_000] == got
