"""Files into objects, acknowledged or not at all, by a store that misbehaves."""

from __future__ import annotations

import os
import random
import zlib
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.faults.room import through
from tests.faults.rules import Corrupt, LoseAnswer, Refuse, Reset, Rule, Stall, Strip
from tests.kit import stores

from byos_run import crc, errors
from byos_run.bucket.upload import LocalFile, NotAcknowledged, Uploader
from byos_run.model import Identity
from byos_run.node.pool import Pool

SMALL = random.Random(5).randbytes(200_000)
LARGE = random.Random(6).randbytes((10 << 20) + 12_345)  # three parts of 5 MiB
NO_SUM = Strip("x-amz-checksum-crc32", "ChecksumCRC32")

PASSING = [
    pytest.param(Refuse(503, "SlowDown"), id="503-slow-down"),
    pytest.param(Refuse(500, "InternalError"), id="500"),
    pytest.param(Reset(), id="reset-before"),
    pytest.param(Reset(forwarded=True), id="reset-after"),
    pytest.param(LoseAnswer(), id="answer-lost"),
    pytest.param(Stall(1.5), id="stall"),
]
REQUESTS = [
    pytest.param({"method": "POST", "query": "uploads="}, id="create"),
    pytest.param({"method": "PUT", "query": "partNumber=2"}, id="part"),
    pytest.param({"method": "POST", "query": "^uploadId="}, id="complete"),
]


@pytest.fixture
def send(tmp_path):
    """Sends content as `out/x` by a way."""

    def go(way, content):
        path = tmp_path / "x"
        path.write_bytes(content)
        descriptor = os.open(path, os.O_RDONLY)
        status = os.fstat(descriptor)
        seen = Identity(status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino)
        try:
            with Pool(name="part", width=2) as parts:
                uploader = Uploader(way.wire, parts=parts, part_bytes=5 << 20)
                return uploader.send(LocalFile(descriptor, seen), "out/x", headers={})
        finally:
            os.close(descriptor)

    return go


def hasty(fault):
    """Not waiting long where nothing comes."""
    return {"idle_timeout_s": 1.0} if isinstance(fault, Stall) else {}


@contextmanager
def nothing_left(bucket):
    """Unfinished uploads of the object, as MinIO tells them: by exact key."""
    yield
    found = bucket.client.list_multipart_uploads(Bucket=bucket.name, Prefix="out/x").get("Uploads", [])
    assert [] == [each["UploadId"] for each in found]


def assert_acknowledged(done, content):
    assert (len(content), crc.base64_of(zlib.crc32(content))) == (done.size_bytes, done.crc32)


@pytest.mark.parametrize("fault", PASSING)
def test_a_put_survives_what_passes(bucket, tmp_path, send, fault):
    """Two tries fail; the object is there, acknowledged by its checksum."""
    with through(bucket, tmp_path, Rule(fault, method="PUT", nth=(1, 2)), first_contact_s=30.0, **hasty(fault)) as way:
        assert_acknowledged(send(way, SMALL), SMALL)

    assert SMALL == bucket.get("out/x")


@pytest.mark.parametrize("request_", REQUESTS)
@pytest.mark.parametrize("fault", PASSING)
def test_an_upload_in_parts_survives_what_passes(bucket, tmp_path, send, fault, request_):
    """Each of its requests may fail: the object is whole, acknowledged, and no other upload of it is left open."""
    with (
        nothing_left(bucket),
        through(bucket, tmp_path, Rule(fault, nth=(1,), **request_), first_contact_s=30.0, **hasty(fault)) as way,
    ):
        assert_acknowledged(send(way, LARGE), LARGE)

    assert LARGE == bucket.get("out/x")


def test_an_upload_that_nobody_heard_of_is_aborted_by_the_next_send(bucket, tmp_path):
    """The answer to Create is lost and the send then fails; a later send of the key leaves nothing of the first."""
    (tmp_path / "x").write_bytes(LARGE)
    create = {"method": "POST", "query": "uploads="}
    told = [Rule(LoseAnswer(), nth=(1,), **create), Rule(Refuse(403, "AccessDenied"), nth=(1,), **create)]
    with (
        nothing_left(bucket),
        open(tmp_path / "x", "rb") as file,
        through(bucket, tmp_path, *told, first_contact_s=30.0) as way,
        Pool(name="part", width=2) as parts,
    ):
        status = os.fstat(file.fileno())
        seen = Identity(status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino)
        uploader = Uploader(way.wire, parts=parts, part_bytes=5 << 20)
        with pytest.raises(errors.AccessRefused):
            uploader.send(LocalFile(file.fileno(), seen), "out/x", headers={})
        assert_acknowledged(uploader.send(LocalFile(file.fileno(), seen), "out/x", headers={}), LARGE)

    assert LARGE == bucket.get("out/x")


def test_a_flipped_bit_on_the_way_is_sent_again(bucket, tmp_path, send):
    """The store refuses what does not agree with the CRC-32 of the request; so for a part."""
    flip = Corrupt(at_byte=1000, request=True)
    with through(bucket, tmp_path, Rule(flip, method="PUT", nth=(1,))) as way:
        assert_acknowledged(send(way, SMALL), SMALL)
        assert 2 == way.count("PUT")
    with through(bucket, tmp_path, Rule(flip, query="partNumber=2", nth=(1,))) as way:
        assert_acknowledged(send(way, LARGE), LARGE)
        assert 4 == way.count("PUT")

    assert LARGE == bucket.get("out/x")


def test_a_store_without_checksums_is_believed_by_its_etag(bucket, tmp_path, send):
    """A single PUT is proved by the MD5 that the ETag is; nothing is read back."""
    with through(bucket, tmp_path, Rule(NO_SUM)) as way:
        assert_acknowledged(send(way, SMALL), SMALL)
        assert (0, 0) == (way.count("GET"), way.count("HEAD"))


def test_an_upload_in_parts_without_checksums_is_read_back(bucket, tmp_path, send):
    """The ETag of parts proves nothing: the object is read again, whole."""
    with through(bucket, tmp_path, Rule(NO_SUM)) as way:
        assert_acknowledged(send(way, LARGE), LARGE)
        assert 1 <= way.count("GET")


def test_a_lost_answer_of_a_store_without_checksums_is_read_back(bucket, tmp_path, send):
    """Complete was carried out, its answer lost, HEAD tells no checksum: reading proves it, nothing is sent twice."""
    told = [Rule(LoseAnswer(), method="POST", query="^uploadId=", nth=(1,)), Rule(NO_SUM)]
    with nothing_left(bucket), through(bucket, tmp_path, *told) as way:
        assert_acknowledged(send(way, LARGE), LARGE)
        assert 3 == way.count("PUT")


def test_an_object_that_is_not_what_was_sent_is_never_acknowledged(bucket, tmp_path, send):
    """A store that tells no checksum and gives back other bytes: sent again, then told as not acknowledged."""
    told = [Rule(Corrupt(at_byte=9), method="GET"), Rule(NO_SUM)]
    with nothing_left(bucket), through(bucket, tmp_path, *told) as way:
        with pytest.raises(NotAcknowledged, match="not what was sent"):
            send(way, LARGE)
        assert 4 == way.count("POST", "uploads=")


def test_an_upload_that_the_store_dropped_is_sent_again(bucket, tmp_path, send):
    """NoSuchUpload for a part: the store has cleaned up, the whole begins anew."""
    with (
        nothing_left(bucket),
        through(bucket, tmp_path, Rule(Refuse(404, "NoSuchUpload"), query="partNumber=3", nth=(1,))) as way,
    ):
        assert_acknowledged(send(way, LARGE), LARGE)
        assert 2 == way.count("POST", "uploads=")


def test_a_whole_that_does_not_agree_is_sent_again(bucket, tmp_path, send):
    """The store finds another checksum in the parts than Complete says: the parts are sent again, Complete is not repeated."""
    refuse = Refuse(400, "XAmzContentChecksumMismatch")
    with (
        nothing_left(bucket),
        through(bucket, tmp_path, Rule(refuse, method="POST", query="^uploadId=", nth=(1,))) as way,
    ):
        assert_acknowledged(send(way, LARGE), LARGE)
        assert 2 == way.count("POST", "uploads=")


@pytest.mark.parametrize("request_", REQUESTS)
def test_an_upload_that_cannot_be_finished_leaves_nothing_open(bucket, tmp_path, send, request_):
    """Refused for good: the error names the action, and what was begun is aborted."""
    with (
        nothing_left(bucket),
        through(bucket, tmp_path, Rule(Refuse(403, "AccessDenied"), **request_)) as way,
        pytest.raises(errors.AccessRefused, match=r"s3:PutObject on s3://.*out/x refused: 403 AccessDenied"),
    ):
        send(way, LARGE)


def test_an_outage_past_patience_ends_the_upload(bucket, tmp_path, send):
    """Every part refused: given up after patience, and the upload is aborted."""
    with (
        nothing_left(bucket),
        through(bucket, tmp_path, Rule(Refuse(503), query="partNumber"), patience_s=0.5) as way,
        pytest.raises(errors.StoreUnreachable, match="503 SlowDown"),
    ):
        send(way, LARGE)


def test_no_upload_is_left_on_the_stores_own_disk(tmp_path, send):
    """MinIO lists open uploads by exact key only; its disk does not lie."""
    with stores.scratch() as directory, stores.minio(directory) as store:
        client = store.client()
        client.create_bucket(Bucket="kit-own")
        own = type("Own", (), {"store": store, "name": "kit-own"})
        for fault in (LoseAnswer(), Reset(forwarded=True)):
            told = [Rule(fault, method="POST", nth=(1,)), Rule(fault, query="partNumber=3", nth=(1,))]
            with through(own, tmp_path, *told, first_contact_s=5.0) as way:
                assert_acknowledged(send(way, LARGE), LARGE)
        told = [Rule(Refuse(403, "AccessDenied"), query="partNumber=2")]
        with through(own, tmp_path, *told) as way, pytest.raises(errors.AccessRefused):
            send(way, LARGE)
        client.close()
        left = [each for each in Path(directory).rglob("*") if ".minio.sys/multipart/" in str(each) and each.is_file()]

    assert [] == left
