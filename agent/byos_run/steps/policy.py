"""The least that a run needs from AWS, as an IAM policy; and the trust policy of a role that it assumes.

    inputs     s3:GetObject on the very objects, or below the prefixes
    outputs    Get, Put, Delete, AbortMultipartUpload below the prefix: also to read back, to clean up after a dead attempt
    listing    s3:ListBucket for these prefixes alone, s3:ListBucketMultipartUploads on the outputs' buckets (it knows no
               condition of that kind); both help, and can be left out
    kms        Decrypt and GenerateDataKey, where store.sse is aws:kms

Not said: what a bucket's own policy, an organisation or a VPC endpoint refuses all the same; ``byos-run check`` tries.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from byos_run.model import S3Url, StoreSettings

_MOST_RESOURCES = 20
"""An attached policy may have 6,144 characters; more objects than this are named by the prefix that they share."""
_WILD = str.maketrans({"*": "${*}", "?": "${?}", "$": "${$}"})


def permissions(
    *, inputs: Sequence[S3Url], outputs: Sequence[S3Url], settings: StoreSettings, listing: bool
) -> dict[str, Any]:
    """The policy of the user, or of the role, that the keys belong to."""
    read, written = _shared(inputs), _shared(outputs)
    statements = [
        _allow("ReadInputs", ["s3:GetObject"], [_objects(url) for url in read]),
        _allow(
            "PublishOutputs",
            ["s3:GetObject", "s3:PutObject", "s3:DeleteObject", "s3:AbortMultipartUpload"],
            [_objects(url) for url in written],
        ),
    ]
    if listing:
        statements += _listing([*read, *written])
        buckets = {_bucket(url.bucket) for url in written}
        statements.append(_allow("FindUploads", ["s3:ListBucketMultipartUploads"], buckets))
    if settings.sse == "aws:kms":
        actions = ["kms:Decrypt", "kms:GenerateDataKey"]
        statements.append(_allow("UseKey", actions, [_key(settings.kms_key_id, settings.region)]))
    return {"Version": "2012-10-17", "Statement": statements}


def trust(principal: str, *, external_id: str) -> dict[str, Any]:
    """The trust policy of the role *store.role_arn*: who may assume it, and with which external id."""
    condition = {"Condition": {"StringEquals": {"sts:ExternalId": external_id}}} if external_id else {}
    statement = {
        "Sid": "AssumeForRuns", "Effect": "Allow", "Principal": {"AWS": principal}, "Action": "sts:AssumeRole", **condition,
    }  # fmt: skip
    return {"Version": "2012-10-17", "Statement": [statement]}


def _allow(name: str, actions: Sequence[str], resources: Iterable[str], **more: Any) -> dict[str, Any]:
    return {"Sid": name, "Effect": "Allow", "Action": list(actions), "Resource": sorted(set(resources)), **more}


def _listing(urls: Sequence[S3Url]) -> list[dict[str, Any]]:
    """A statement for each bucket: ListBucket is the bucket's, and bound to prefixes by a condition."""
    found = []
    for number, bucket in enumerate(sorted({url.bucket for url in urls}), 1):
        prefixes = sorted(
            {f"{url.key.translate(_WILD)}*" if url.is_prefix else url.key for url in urls if url.bucket == bucket}
        )
        found.append(
            _allow(
                f"List{number}", ["s3:ListBucket"], [_bucket(bucket)],
                Condition={"StringLike": {"s3:prefix": prefixes}},
            )
        )  # fmt: skip
    return found


def _shared(urls: Sequence[S3Url]) -> list[S3Url]:
    """*urls* as they are; of too many, for each bucket the prefix that all of its have in common."""
    unique = sorted(set(urls))
    if len(unique) <= _MOST_RESOURCES:
        return unique
    found = []
    for bucket in sorted({url.bucket for url in unique}):
        keys = [url.key for url in unique if url.bucket == bucket]
        first, last = keys[0], keys[-1]  # sorted: what these two share, all share
        same = next((at for at, (a, b) in enumerate(zip(first, last)) if a != b), min(len(first), len(last)))
        found.append(S3Url(bucket, first[: first.rfind("/", 0, same) + 1]))
    return found


def _bucket(bucket: str) -> str:
    """An access point is named by its ARN as it is."""
    return bucket if bucket.startswith("arn:") else f"arn:aws:s3:::{bucket}"


def _objects(url: S3Url) -> str:
    below = f"{_bucket(url.bucket)}/object" if url.bucket.startswith("arn:") else _bucket(url.bucket)
    return f"{below}/{url.key.translate(_WILD)}{'*' if url.is_prefix else ''}"


def _key(key_id: str, region: str) -> str:
    if key_id.startswith("arn:"):
        return key_id
    # An alias cannot be a resource; the account's own keys are meant.
    return f"arn:aws:kms:{region or '*'}:*:key/{key_id if key_id and not key_id.startswith('alias/') else '*'}"
