"""Small objects: get, put, head, delete, list. Whole bodies in memory; large ones go by ``ranges`` and ``upload``."""

from __future__ import annotations

import itertools
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from urllib.parse import unquote_plus

from byos_run import crc, errors
from byos_run.bucket.answers import Answer
from byos_run.bucket.wire import Wire

_PUTS = 3


@dataclass(frozen=True)
class Small:
    """A small object as it was at one moment."""

    body: bytes
    etag: str
    age_s: float
    """Seconds since it was written, by the store's own clock."""


@dataclass(frozen=True)
class Listed:
    key: str
    size_bytes: int
    etag: str


@dataclass(frozen=True)
class Facts:
    """What HEAD tells."""

    size_bytes: int
    etag: str
    crc32: str
    """Base64 of the whole object's CRC-32, "" if the store keeps none."""


def get(wire: Wire, key: str) -> Small | None:
    """The object *key*; None if there is none."""
    try:
        answer = wire.request("GET", key)
    except errors.NoSuchObject as error:
        if error.error_code == "NoSuchBucket":
            raise
        return None
    return Small(answer.body, answer.headers.get("etag", ""), _age_s(answer.headers))


def get_changed(wire: Wire, key: str, *, etag: str) -> Small | None:
    """The object *key*, unless it still has *etag*: then None, and no body has moved. Raises NoSuchObject."""
    try:
        answer = wire.request("GET", key, headers={"if-none-match": etag} if etag else {})
    except errors.StoreRefused as error:
        if error.status == 304:
            return None
        raise
    return Small(answer.body, answer.headers.get("etag", ""), _age_s(answer.headers))


def put(
    wire: Wire,
    key: str,
    body: bytes,
    *,
    content_type: str = "application/json",
    if_match: str = "",
    if_none_match: bool = False,
) -> str:
    """Write *key* and return its ETag. Raises ConditionFailed if *if_match* or *if_none_match* does not hold."""
    headers = {
        **wire.line.write_headers,
        "content-type": content_type,
        "x-amz-checksum-crc32": crc.base64_of(crc.crc32(body)),
    }
    if if_match:
        headers["if-match"] = if_match
    if if_none_match:
        headers["if-none-match"] = "*"
    return wire.request("PUT", key, headers=headers, body=body).headers.get("etag", "")


def put_kept(wire: Wire, key: str, body: bytes) -> None:
    """Write *key* and see that the store has it, as the sweep does for outputs; what it lost is written again.

    Raises StoreRefused if it loses it each time.
    """
    for _ in range(_PUTS):
        etag = put(wire, key, body)
        found = head(wire, key)
        if found is not None and (found.size_bytes, found.etag) == (len(body), etag):
            return
    raise errors.StoreRefused(f"the store acknowledged s3://{wire.line.bucket}/{key} and does not have it", status=200)


def head(wire: Wire, key: str) -> Facts | None:
    """What the store knows of *key*; None if there is none."""
    try:
        answer = wire.request("HEAD", key, headers={"x-amz-checksum-mode": "ENABLED"})
    except errors.NoSuchObject:
        return None
    return facts_of(answer)


def facts_of(answer: Answer) -> Facts:
    headers = answer.headers
    composite = headers.get("x-amz-checksum-type", "") == "COMPOSITE"
    return Facts(
        size_bytes=int(headers.get("content-length", "0")),
        etag=headers.get("etag", ""),
        crc32="" if composite else headers.get("x-amz-checksum-crc32", ""),
    )


def delete(wire: Wire, key: str) -> None:
    """Delete *key*; no error if it is gone already."""
    try:
        wire.request("DELETE", key)
    except errors.NoSuchObject:
        return


def listed(wire: Wire, prefix: str, *, start_after: str = "", page: int = 1000) -> Iterator[Listed]:
    """All objects whose key starts with *prefix*, in the store's order, page by page."""
    for page_of in _pages(wire, prefix, [("start-after", start_after)] if start_after else [], page=page):
        for item in page_of.iterfind("Contents"):
            yield Listed(_text(item, "Key"), int(_text(item, "Size") or 0), _text(item, "ETag"))


def prefixes_below(wire: Wire, prefix: str, *, page: int = 1000) -> Iterator[str]:
    """What the keys that start with *prefix* have up to their next "/", each once: ``out/a/``, ``out/b/`` of ``out/``."""
    for page_of in _pages(wire, prefix, [("delimiter", "/")], page=page):
        for item in page_of.iterfind("CommonPrefixes"):
            yield _text(item, "Prefix")


def _pages(wire: Wire, prefix: str, first: list[tuple[str, str]], *, page: int) -> Iterator[ET.Element]:
    token = ""
    while True:
        query = [("list-type", "2"), ("prefix", prefix), ("encoding-type", "url"), ("max-keys", str(page)), *first]
        if token:
            query.append(("continuation-token", token))
        root = _page(wire.request("GET", "", query=query).body)
        yield root
        token = _text(root, "NextContinuationToken")
        if _text(root, "IsTruncated") != "true" or not token:
            return


def _page(body: bytes) -> ET.Element:
    """A page of a listing, its names without the namespace, which stores differ in, its keys decoded."""
    root = ET.fromstring(body)  # noqa: S314 - expat stops entity expansion; the store is the user's
    for item in root.iter():
        item.tag = item.tag.rpartition("}")[2]
    # Versity Gateway is asked for encoded keys like the others, and does not encode them.
    if _text(root, "EncodingType") == "url":
        for item in itertools.chain(root.iter("Key"), root.iter("Prefix")):
            item.text = unquote_plus(item.text or "", errors="surrogateescape")
    return root


def _text(item: ET.Element, name: str) -> str:
    return item.findtext(name) or ""


def _age_s(headers: Mapping[str, str]) -> float:
    try:
        written = parsedate_to_datetime(headers["last-modified"])
        return max(0.0, (parsedate_to_datetime(headers["date"]) - written).total_seconds())
    except (KeyError, TypeError, ValueError):
        return 0.0
