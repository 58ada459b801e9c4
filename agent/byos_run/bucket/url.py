"""``s3://bucket/key`` → S3Url, or the reason why not.

1. The bucket is a name, an access point's alias (which looks like a name) or an access point's ARN.
2. The rest is the key, taken literally: ``%20`` is three characters and "#" or "?" begin nothing.

Names are held to what stores accept, not to what may be created today: buckets made before 2018 have capitals,
underscores and up to 255 characters. Not promised: that the bucket exists, or that a store takes every key.
"""

from __future__ import annotations

import re

from byos_run.model import S3Url

_ARN = re.compile(
    r"(arn:aws[a-z-]*:(?:s3|s3-outposts):(?P<region>[a-z0-9-]*):[0-9]{12}:"
    r"(?:outpost[/:]op-[0-9a-z]+[/:])?accesspoint[/:][a-z0-9.-]{3,63})(?:/(?P<key>.*))?",
    re.DOTALL,
)
_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,253}[A-Za-z0-9]")
_ADDRESS = re.compile(r"[0-9]{1,3}(?:\.[0-9]{1,3}){3}")
_KEY_BYTES = 1024
"""Longest key in UTF-8, by the S3 user guide ("Naming Amazon S3 objects")."""


def parse(text: str) -> S3Url:
    """Raise ValueError with the reason, which never repeats *text* (a pasted URL may hold a password)."""
    if not text.startswith("s3://"):
        raise ValueError("it does not begin with s3://")
    bucket, key = _split(text[len("s3://") :])
    reason = _why_not_key(key)
    if reason:
        raise ValueError(reason)
    return S3Url(bucket, key)


def _split(rest: str) -> tuple[str, str]:
    if rest.startswith("arn:"):
        match = _ARN.fullmatch(rest)
        if not match:
            raise ValueError("the ARN is not that of an access point: arn:aws:s3:REGION:ACCOUNT:accesspoint/NAME")
        if not match["region"]:
            raise ValueError("multi-region access points need signatures of a kind that is not in this version")
        return match[1], match["key"] or ""
    bucket, _, key = rest.partition("/")
    reason = _why_not_bucket(bucket)
    if reason:
        raise ValueError(reason)
    return bucket, key


def _why_not_bucket(bucket: str) -> str:
    if not bucket:
        return "it names no bucket"
    if "@" in bucket or ":" in bucket:
        return "the bucket holds a ':' or '@': keys, hosts and ports do not belong into the url"
    if _ADDRESS.fullmatch(bucket):
        return "the bucket's name looks like an address"
    if bucket.endswith("--x-s3"):
        return "directory buckets (S3 Express One Zone) need sessions of their own, which are not in this version"
    if not _BUCKET.fullmatch(bucket) or ".." in bucket:
        return "a bucket's name has 3 to 63 characters of a-z 0-9 . - and begins and ends with a letter or digit"
    return ""


def _why_not_key(key: str) -> str:
    try:
        size_bytes = len(key.encode())
    except UnicodeEncodeError:
        return "the key is not UTF-8"
    if size_bytes > _KEY_BYTES:
        return f"the key has {size_bytes} bytes, S3 allows {_KEY_BYTES}"
    if any(ord(c) < 32 or ord(c) == 127 for c in key):
        return "the key holds a control character"
    if {".", ".."} & set(key.split("/")):
        return "the key holds a '.' or '..' between slashes"
    return ""


def as_prefix(url: S3Url) -> S3Url:
    """*url* with a "/" at the end of its key, unless it is the whole bucket."""
    return url if url.is_prefix else url.child("/")


def holds(prefix: S3Url, url: S3Url) -> bool:
    """*url* equals *prefix* or lies below it, on "/" borders. A bucket and its access points are not recognised as one.

    An object named like the prefix without its "/" counts as equal: some stores cannot hold both.
    """
    return prefix.bucket == url.bucket and as_prefix(url).key.startswith(prefix.key)
