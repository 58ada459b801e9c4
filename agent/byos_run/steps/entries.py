"""What a manifest lists, as far as it can be believed: it comes from a bucket.

Every path passes the check of an archive's member, every key lies below the run's prefix. A run that was copied to another
place keeps the keys of its first one in its manifest: they are read relative to the output prefix that it names.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from byos_run.archive.plan import safe_path
from byos_run.bucket import url as s3url
from byos_run.errors import BadInput, printable
from byos_run.model import S3Url

_CRC = re.compile(r"[A-Za-z0-9+/]{6}==")
_MOST_BYTES = 1 << 63


@dataclass(frozen=True)
class Entry:
    """One output that a manifest lists."""

    path: str
    """Below the directory that the outputs would be brought to; what is kept below ``_byos/rundir/`` stays there."""
    key: str
    size_bytes: int
    crc32: str
    """Base64 of 4 big-endian bytes."""
    etag: str
    mtime_s: float


def entries_of(manifest: Mapping[str, Any], *, prefix: S3Url) -> tuple[list[Entry], list[tuple[str, str]]]:
    """The outputs of *manifest*, which was found below *prefix*; and those that are refused, each with the reason."""
    outputs = manifest.get("outputs")
    if not isinstance(outputs, list):
        return [], [("outputs", "the manifest has no list of outputs")]
    base = _base_of(manifest, prefix)
    entries: list[Entry] = []
    refused: list[tuple[str, str]] = []
    seen: set[str] = set()
    for item in outputs:
        try:
            entry = _entry(item, base=base, prefix=prefix)
            if entry.key in seen:
                raise ValueError("it is listed twice")
        except BadInput as error:
            refused.append((_named(item), error.message))
        except ValueError as error:
            refused.append((_named(item), str(error)))
        else:
            seen.add(entry.key)
            entries.append(entry)
    return entries, refused


def _base_of(manifest: Mapping[str, Any], prefix: S3Url) -> str:
    """The prefix that the manifest's keys begin with."""
    try:
        return s3url.as_prefix(s3url.parse(str(manifest.get("output")))).key
    except ValueError:
        return prefix.key


def _entry(item: Any, *, base: str, prefix: S3Url) -> Entry:
    """Raises ValueError with the reason, BadInput for a path that could lead elsewhere."""
    if not isinstance(item, dict) or not isinstance(item.get("key"), str):
        raise ValueError("the manifest's entry names no key")
    key, size, crc = item["key"], item.get("bytes"), item.get("crc32")
    if not key.startswith(base):
        raise ValueError("its key lies outside the output prefix")
    inside = key[len(base) :]
    if safe_path(inside, of=f"{prefix}_byos/manifest.json") != inside:
        raise ValueError("its key is no plain path")
    if not isinstance(size, int) or isinstance(size, bool) or not 0 <= size < _MOST_BYTES:
        raise ValueError("the manifest's entry has no size")
    if not isinstance(crc, str) or not _CRC.fullmatch(crc):
        raise ValueError("the manifest's entry has no CRC-32")
    mtime = item.get("mtime")
    return Entry(
        path=inside, key=prefix.key + inside, size_bytes=size, crc32=crc, etag=str(item.get("etag") or ""),
        mtime_s=float(mtime) if isinstance(mtime, (int, float)) and 0 <= mtime < 1 << 40 else 0.0,
    )  # fmt: skip


def _named(item: Any) -> str:
    named = item.get("path") or item.get("key") if isinstance(item, dict) else None
    return printable(str(named))[:500] if named else "an entry without a name"
