"""The way to a bucket on AWS is botocore's, and every request of ours takes it: host, region, headers, proxy, trust."""

from __future__ import annotations

import os

import pytest
from tests.faults.amazon import Amazon, Said
from tests.kit import stores

from byos_run import errors
from byos_run.bucket import objects
from byos_run.bucket.session import Session
from byos_run.bucket.upload import LocalFile, Uploader
from byos_run.model import Identity, Place, StoreSettings
from byos_run.node.pool import Pool
from byos_run.node.stop import Stop

IRELAND = "s3.eu-west-1.amazonaws.com"
POINT = "arn:aws:s3:eu-west-1:123456789012:accesspoint/mine"


@pytest.fixture
def aws(tmp_path, monkeypatch):
    """Starts AWS for these host names; a session there has `config` with a region."""
    opened = []

    def start(*names, answer=lambda _: None, region="eu-west-1", more="", **settings):
        amazon = Amazon(tmp_path / "tls", *names, answer=answer).__enter__()
        opened.append(amazon)
        monkeypatch.setenv("HTTPS_PROXY", amazon.proxy)
        monkeypatch.setenv("AWS_CA_BUNDLE", amazon.ca)
        keys = "aws_access_key_id = AKIAEXAMPLEEXAMPLE\naws_secret_access_key = secret\n"
        (tmp_path / "config").write_text(f"[default]\n{keys}region = {region}\n{more}", encoding="utf-8")
        asked = StoreSettings(**{"first_contact_s": 5.0, "patience_s": 5.0, **settings})
        session = Session(settings=asked, place=Place(tmp_path, {}))
        opened.append(session)
        return amazon, session

    yield start
    for each in reversed(opened):
        each.close() if isinstance(each, Session) else each.__exit__()


def all_kinds(wire, directory):
    """One request of each kind that a run sends."""
    (directory / "large").write_bytes(bytes(9 << 20))
    objects.put(wire, "out/small", b"1", if_none_match=True)
    objects.get(wire, "out/small")
    objects.head(wire, "out/small")
    objects.delete(wire, "out/small")
    descriptor = os.open(directory / "large", os.O_RDONLY)
    try:
        status = os.fstat(descriptor)
        seen = Identity(status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino)
        with Pool(name="part", width=1) as parts:
            uploader = Uploader(wire, parts=parts, part_bytes=5 << 20)
            uploader.send(LocalFile(descriptor, seen), "out/large", headers={})
    finally:
        os.close(descriptor)


WAYS = [
    pytest.param("bucket", {}, {}, f"bucket.{IRELAND}", "/out/small", id="a-region"),
    pytest.param("Dotted.bucket", {}, {}, IRELAND, "/Dotted.bucket/out/small", id="a-name-that-is-no-host"),
    pytest.param(POINT, {}, {}, "mine-123456789012.s3-accesspoint.eu-west-1.amazonaws.com", "/out/small", id="access-point"),
    pytest.param(
        "bucket", {"AWS_USE_DUALSTACK_ENDPOINT": "true"}, {}, "bucket.s3.dualstack.eu-west-1.amazonaws.com", "/out/small",
        id="dual-stack",
    ),
    pytest.param(
        "bucket", {"AWS_USE_FIPS_ENDPOINT": "true"}, {}, "bucket.s3-fips.eu-west-1.amazonaws.com", "/out/small", id="fips"
    ),
    pytest.param("bucket", {}, {"addressing": "path"}, IRELAND, "/bucket/out/small", id="path"),
    pytest.param(
        "bucket", {"AWS_ENDPOINT_URL_S3": "https://s3.example.org"}, {}, "s3.example.org", "/bucket/out/small",
        id="an-endpoint-of-the-environment",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("bucket", "variables", "settings", "host", "target"), WAYS)
def test_each_request_goes_where_botocore_would_send_it(
    aws, tmp_path, monkeypatch, bucket, variables, settings, host, target
):
    """Region, names that are no host's, access points, dual-stack, FIPS: by HTTPS_PROXY, trusted by AWS_CA_BUNDLE."""
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    amazon, session = aws(host, **settings)
    all_kinds(session.wire(bucket, stop=Stop()), tmp_path)

    assert {each.host for each in amazon.asked} == {host}
    assert {each.region for each in amazon.asked} == {"eu-west-1"}
    assert next(each.target for each in amazon.asked if each.method == "PUT") == target
    assert len(amazon.asked) == 9  # botocore's HEAD, four small ones, an upload in two parts


@pytest.mark.parametrize("status", [301, 307, 400])
def test_a_bucket_of_another_region_is_found_there(aws, tmp_path, status):
    """What the first HEAD is told is followed once, and then all requests go there, signed for it."""
    there = f"bucket.{IRELAND}"

    def answer(asked):
        elsewhere = (("x-amz-bucket-region", "eu-west-1"), ("location", f"https://{there}/"))
        return Said(status, elsewhere) if asked.host != there else None

    amazon, session = aws("*.s3.us-west-2.amazonaws.com", there, answer=answer, region="us-west-2")
    all_kinds(session.wire("bucket", stop=Stop()), tmp_path)

    mine = [each for each in amazon.asked if each.target != "/"]
    assert {(each.host, each.region) for each in mine} == {(there, "eu-west-1")}
    assert len(mine) == 8


def test_every_request_says_who_pays_and_who_owns_and_what_is_written_is_encrypted(aws, tmp_path):
    """store.request_payer, expected_bucket_owner on all; store.sse and kms_key_id on what makes an object, not on its parts."""
    amazon, session = aws(
        f"bucket.{IRELAND}", request_payer=True, expected_bucket_owner="123456789012", sse="aws:kms", kms_key_id="a-key"
    )
    all_kinds(session.wire("bucket", stop=Stop()), tmp_path)
    mine = [each for each in amazon.asked if each.target != "/"]

    assert {each.headers.get("x-amz-request-payer") for each in mine} == {"requester"}
    assert {each.headers.get("x-amz-expected-bucket-owner") for each in mine} == {"123456789012"}
    encrypted = [each for each in mine if "x-amz-server-side-encryption" in each.headers]
    assert [(each.method, each.target) for each in encrypted] == [
        ("PUT", "/out/small"),
        ("POST", "/out/large?uploads="),
    ]
    assert {
        (each.headers["x-amz-server-side-encryption"], each.headers["x-amz-server-side-encryption-aws-kms-key-id"])
        for each in encrypted
    } == {("aws:kms", "a-key")}
    assert all("x-amz-request-payer" in each.headers["authorization"] for each in mine)


def test_an_endpoint_that_the_bucket_is_not_at_is_told_with_its_region(aws):
    """77: an endpoint of another region was given by hand."""

    def answer(_):
        return Said(301, (("x-amz-bucket-region", "eu-west-1"),), b"<Error><Code>PermanentRedirect</Code></Error>")

    _, session = aws("s3.us-west-2.amazonaws.com", answer=answer, endpoint_url="https://s3.us-west-2.amazonaws.com")
    with pytest.raises(errors.StoreRefused, match=r"not at s3\.us-west-2\.amazonaws\.com:443: 301") as caught:
        objects.get(session.wire("bucket", stop=Stop()), "x")

    assert "'eu-west-1'" in caught.value.hint
    assert "store.endpoint_url" in caught.value.hint


def test_a_store_that_has_a_region_of_its_own_is_signed_for(tmp_path):
    """A real store answers 400 with its region to what is signed for another; the next try is right, and all after it."""
    with stores.scratch() as data, stores.minio(data, extra={"MINIO_SITE_REGION": "eu-central-1"}) as store:
        (tmp_path / "config").write_text(
            f"[default]\naws_access_key_id = {store.access_key}\naws_secret_access_key = {store.secret_key}\n"
        )
        settings = StoreSettings(endpoint_url=store.endpoint_url, region="us-west-2", patience_s=5.0)
        session = Session(settings=settings, place=Place(tmp_path, {}))
        wire = session.wire("kit-region", stop=Stop())
        wire.request("PUT", "")
        all_kinds(wire, tmp_path)
        session.close()

        assert wire.line.signer.region == "eu-central-1"
