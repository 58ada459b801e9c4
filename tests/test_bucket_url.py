"""s3:// URLs as people write them."""

from __future__ import annotations

import pytest

from byos_run.bucket import url as s3url
from byos_run.model import S3Url

ACCESS_POINT = "arn:aws:s3:eu-west-1:123456789012:accesspoint/mine"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("s3://bucket/a/b.zip", S3Url("bucket", "a/b.zip")),
        ("s3://bucket/a/", S3Url("bucket", "a/")),
        ("s3://bucket/", S3Url("bucket", "")),
        ("s3://bucket", S3Url("bucket", "")),
        ("s3://my.bucket-1/a", S3Url("my.bucket-1", "a")),
        ("s3://Old_Bucket/a", S3Url("Old_Bucket", "a")),
        ("s3://b.c/ a%20b?c#d+e@f//ü", S3Url("b.c", " a%20b?c#d+e@f//ü")),
        (f"s3://{ACCESS_POINT}/a/b", S3Url(ACCESS_POINT, "a/b")),
        (f"s3://{ACCESS_POINT}", S3Url(ACCESS_POINT, "")),
        (
            "s3://arn:aws:s3-outposts:eu-west-1:123456789012:outpost/op-01ac/accesspoint/mine/k",
            S3Url("arn:aws:s3-outposts:eu-west-1:123456789012:outpost/op-01ac/accesspoint/mine", "k"),
        ),
    ],
)
def test_a_url_is_bucket_and_literal_key(text: str, expected: S3Url) -> None:
    """Nothing in a key is decoded; an access point's ARN is a bucket."""
    assert s3url.parse(text) == expected


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "s3://"),
        ("S3://bucket/a", "s3://"),
        ("https://bucket.s3.amazonaws.com/a", "s3://"),
        ("s3:///a", "no bucket"),
        ("s3://ab/c", "3 to 63"),
        ("s3://-abc/c", "3 to 63"),
        ("s3://a..b/c", "3 to 63"),
        ("s3://a b c/c", "3 to 63"),
        ("s3://192.168.0.1/c", "address"),
        ("s3://localhost:9000/c", "':'"),
        ("s3://key:secret@bucket/c", "'@'"),
        ("s3://arn:aws:s3:::bucket/c", "ARN"),
        ("s3://arn:aws:s3::123456789012:accesspoint/m.mrap/c", "multi-region"),
        ("s3://scratch--use1-az4--x-s3/c", "directory buckets"),
        ("s3://bucket/" + "ü" * 513, "1026 bytes"),
        ("s3://bucket/a\nb", "control"),
        ("s3://bucket/a\x00", "control"),
        ("s3://bucket/a\udcff", "UTF-8"),
        ("s3://bucket/a/../b", "'..'"),
        ("s3://bucket/./b", "'.'"),
    ],
)
def test_what_is_no_url_is_refused_with_the_reason(text: str, reason: str) -> None:
    """The reason does not repeat the text."""
    with pytest.raises(ValueError, match=reason.replace(".", r"\.")) as caught:
        s3url.parse(text)

    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("prefix", "url", "expected"),
    [
        ("s3://bucket/", "s3://bucket/a", True),
        ("s3://bucket/a/", "s3://bucket/a/", True),
        ("s3://bucket/a/", "s3://bucket/a", True),
        ("s3://bucket/a/", "s3://bucket/a/b/c", True),
        ("s3://bucket/a/", "s3://bucket/ab", False),
        ("s3://bucket/a/b/", "s3://bucket/a/", False),
        ("s3://bucket/", "s3://other/a", False),
    ],
)
def test_a_prefix_holds_what_lies_below_it(prefix: str, url: str, expected: bool) -> None:
    """Borders are slashes."""
    assert s3url.holds(s3url.parse(prefix), s3url.parse(url)) is expected
