"""The fault proxy does to a real store's traffic what it is told, and nothing else."""

from __future__ import annotations

import time

import pytest
from botocore.exceptions import (
    ClientError,
    ConnectionClosedError,
    HTTPClientError,
    ReadTimeoutError,
    ResponseStreamingError,
)
from tests.faults import rules
from tests.faults.proxy import FaultProxy
from tests.faults.rules import Link, Rule

BODY = bytes(range(256)) * 1024


@pytest.fixture
def through(bucket):
    """Makes a proxy with rules and a client that goes through it, never tries twice, and checks no checksums."""
    opened = []

    def make(*told, link=None, seed=0, read_timeout=30):
        proxy = FaultProxy(bucket.store, *told, link=link, seed=seed)
        proxy.__enter__()
        store = bucket.store._replace(endpoint_url=proxy.endpoint_url)
        client = store.client(
            retries={"total_max_attempts": 1},
            read_timeout=read_timeout,
            response_checksum_validation="when_required",
        )
        opened.extend((client.close, lambda: proxy.__exit__(None, None, None)))
        return proxy, client

    yield make
    for close in opened:
        close()


@pytest.fixture
def get(bucket):
    """Gets the one object through a client."""
    bucket.put("data", BODY)

    def read(client, **more):
        return client.get_object(Bucket=bucket.name, Key="data", **more)["Body"].read()

    return read


def test_without_rules_everything_passes(bucket, through):
    """Small and large objects, listings, HEAD, multipart and deletion work as on the store itself, on kept connections."""
    proxy, client = through()
    client.put_object(Bucket=bucket.name, Key="a b/ü", Body=BODY)
    upload = client.create_multipart_upload(Bucket=bucket.name, Key="big")["UploadId"]
    part = client.upload_part(Bucket=bucket.name, Key="big", PartNumber=1, UploadId=upload, Body=BODY)
    client.complete_multipart_upload(
        Bucket=bucket.name, Key="big", UploadId=upload,
        MultipartUpload={"Parts": [{"PartNumber": 1, "ETag": part["ETag"], "ChecksumCRC32": part["ChecksumCRC32"]}]},
    )  # fmt: skip

    assert client.get_object(Bucket=bucket.name, Key="a b/ü")["Body"].read() == BODY
    assert len(BODY) == client.head_object(Bucket=bucket.name, Key="big")["ContentLength"]
    assert {"a b/ü", "big"} == {item["Key"] for item in client.list_objects_v2(Bucket=bucket.name)["Contents"]}
    client.delete_object(Bucket=bucket.name, Key="big")
    assert list(bucket.sizes()) == ["a b/ü"]
    assert f"{bucket.name}/a b/ü" == proxy.seen[0].key


def test_refuse_answers_for_the_store(bucket, through):
    """The nth PUT of a key is refused with status and code, and reaches the store not at all; the next one does."""
    _, client = through(Rule(rules.Refuse(503, "SlowDown"), method="PUT", key=r"\.h5$", nth=(1,)))

    with pytest.raises(ClientError, match="SlowDown") as caught:
        client.put_object(Bucket=bucket.name, Key="post.h5", Body=BODY)
    assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == 503
    assert bucket.sizes() == {}

    client.put_object(Bucket=bucket.name, Key="post.h5", Body=BODY)
    assert {"post.h5": len(BODY)} == bucket.sizes()


@pytest.mark.parametrize(
    ("fault", "arrived"),
    [
        pytest.param(rules.Reset(), False, id="reset-before"),
        pytest.param(rules.LoseAnswer(), True, id="answer-lost"),
    ],
)
def test_a_reset_before_or_after_the_store_has_acted(bucket, through, fault, arrived):
    """The client sees the same broken connection; whether the object is there depends on when it broke."""
    _, client = through(Rule(fault, method="PUT", nth=(1,)))

    with pytest.raises((ConnectionClosedError, HTTPClientError)):
        client.put_object(Bucket=bucket.name, Key="x", Body=BODY)
    assert arrived == ("x" in bucket.sizes())


def test_a_reset_once_forwarded_gives_no_answer(bucket, through):
    """All of the request has gone out; nobody can tell what came of it."""
    proxy, client = through(Rule(rules.Reset(forwarded=True), method="PUT"))

    with pytest.raises((ConnectionClosedError, HTTPClientError)):
        client.put_object(Bucket=bucket.name, Key="x", Body=BODY)
    assert rules.Reset(forwarded=True) == proxy.seen[0].fault


def test_a_stall_outlasts_the_clients_patience(get, through):
    """No answer comes for so long; a client with less patience gives up, one with more gets it whole."""
    _, hasty = through(Rule(rules.Stall(5)), read_timeout=0.3)
    _, patient = through(Rule(rules.Stall(0.3)))

    with pytest.raises(ReadTimeoutError):
        get(hasty)
    assert get(patient) == BODY


def test_cut_breaks_the_body(bucket, get, through):
    """So many bytes come, then the connection breaks; asked again from there on, the rest comes."""
    _, client = through(Rule(rules.Cut(at_byte=100_000), nth=(1,)))
    answer = client.get_object(Bucket=bucket.name, Key="data")["Body"]

    got = b"".join(iter(lambda: _next(answer), b""))
    assert BODY[:100_000] == got
    assert BODY[100_000:] == get(client, Range="bytes=100000-")


def _next(stream):
    try:
        return stream.read(1000)
    except ResponseStreamingError:
        return b""


def test_corrupt_flips_one_bit(bucket, get, through):
    """Of what the client gets; or of what it sends, which a store that is given a checksum refuses."""
    _, client = through(
        Rule(rules.Corrupt(at_byte=70_000), method="GET"), Rule(rules.Corrupt(at_byte=5, request=True), method="PUT")
    )

    got = get(client)
    assert [index for index in range(len(BODY)) if BODY[index] != got[index]] == [70_000]
    with pytest.raises(ClientError):
        client.put_object(Bucket=bucket.name, Key="sent", Body=BODY, ChecksumAlgorithm="CRC32")
    assert "sent" not in bucket.sizes()


def test_a_range_is_ignored_or_misplaced(bucket, get, through):
    """200 with the whole object where a range was asked for; or 206 with a Content-Range that does not fit."""
    _, deaf = through(Rule(rules.IgnoreRange(), header="^range:"))
    _, wrong = through(Rule(rules.WrongRange(shift=7)))

    assert get(deaf, Range="bytes=10-19") == BODY
    answer = wrong.get_object(Bucket=bucket.name, Key="data", Range="bytes=10-19")
    assert f"bytes 17-26/{len(BODY)}" == answer["ContentRange"]
    assert BODY[10:20] == answer["Body"].read()


def test_drip_and_link_take_their_time(get, through):
    """A dripping body, a narrow link and a far store take at least as long as their figures say."""
    _, dripping = through(Rule(rules.Drip(bytes_per_s=len(BODY) / 0.4)))
    _, narrow = through(link=Link(bits_per_s=len(BODY) * 8 / 0.4))
    _, distant = through(link=Link(latency_s=0.4))

    for client in (dripping, narrow, distant):
        started = time.monotonic()
        assert get(client) == BODY
        assert time.monotonic() - started >= 0.4


def test_a_hook_replaces_the_object_midway(bucket, get, through):
    """What the hook does happens between the first bytes of an answer and the next request."""
    _, client = through(Rule(rules.Call(lambda: bucket.put("data", b"other"), at_byte=1000), nth=(1,)))

    assert get(client) == BODY
    assert get(client) == b"other"


def test_chance_follows_the_seed(bucket, through):
    """The same seed and the same requests meet the same faults."""

    def fates(seed):
        proxy, client = through(Rule(rules.Refuse(500, "InternalError"), chance=0.5), seed=seed)
        for _ in range(20):
            try:
                client.head_bucket(Bucket=bucket.name)
            except ClientError:
                continue
        return [request.fault is not None for request in proxy.seen]

    first = fates(1)
    assert first == fates(1)
    assert {True, False} == set(first)


def test_told_anew_and_awaited(bucket, through):
    """Rules change while the proxy runs, and a request can be awaited."""
    proxy, client = through(Rule(rules.Refuse(500, "InternalError")))
    with pytest.raises(ClientError):
        client.head_bucket(Bucket=bucket.name)

    proxy.tell()
    client.head_bucket(Bucket=bucket.name)
    proxy.wait_for(lambda seen: len(seen) == 2, timeout_s=1)
    with pytest.raises(TimeoutError, match="not seen within"):
        proxy.wait_for(lambda seen: len(seen) == 3, timeout_s=0.01)
