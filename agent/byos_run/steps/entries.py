"""What a manifest lists, as far as it can be believed: it comes from a bucket.

Every path passes the check of an archive's member, every key lies below the run's prefix. A run that was copied to another
place keeps the keys of its first one in its manifest: they are read relative to the output prefix that it names.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import unquote_to_bytes

from byos_run.archive.plan import safe_path
from byos_run.bucket import url as s3url
from byos_run.errors import BadInput, printable
from byos_run.model import S3Url

_CRC = re.compile(r"[A-Za-z0-9+/]{6}==")
_MOST_BYTES = 1 << 63
_LONGEST_HEADER = 1 << 20


@dataclass(frozen=True)
class Content:
    """What a file was whose object is not the file, byte for byte."""

    size_bytes: int
    crc32: str
    is_bundled: bool
    """The object is a bundle, and holds the file in one zstd frame; else all of it is the file, as zstd."""
    offset: int = 0
    """Of the frame in the bundle."""
    length: int = 0
    """Of the frame, in bytes."""
    skip_bytes: int = 0
    """Of what the frame holds, before the file."""


@dataclass(frozen=True)
class Entry:
    """One output that a manifest lists. Several may share a bundle."""

    path: str
    """Below the directory that the outputs would be brought to; what is kept below ``_byos/rundir/`` stays there."""
    key: str
    size_bytes: int
    """Of the object."""
    crc32: str
    """Of the object, base64 of 4 big-endian bytes."""
    etag: str
    mtime_s: float
    content: Content | None = None
    """None: the object is the file."""

    @property
    def file(self) -> tuple[int, str]:
        """Size in bytes and CRC-32 of the file."""
        return (self.content.size_bytes, self.content.crc32) if self.content else (self.size_bytes, self.crc32)


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
            entry = _with_its_own_name(_entry(item, base=base, prefix=prefix), item, prefix)
            if entry.path in seen:
                raise ValueError("it is listed twice")
        except BadInput as error:
            refused.append((_named(item), error.message))
        except ValueError as error:
            refused.append((_named(item), str(error)))
        else:
            seen.add(entry.path)
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
    key, how = item["key"], item.get("stored_as", "")
    if not key.startswith(base):
        raise ValueError("its key lies outside the output prefix")
    inside = _plain(key[len(base) :], prefix)
    mtime = item.get("mtime")
    entry = Entry(
        path=inside, key=prefix.key + inside, size_bytes=_size(item, "bytes"), crc32=_crc(item, "crc32"),
        etag=str(item.get("etag") or ""),
        mtime_s=float(mtime) if isinstance(mtime, (int, float)) and 0 <= mtime < 1 << 40 else 0.0,
    )  # fmt: skip
    if how == "zstd":
        content = Content(_size(item, "original_bytes"), _crc(item, "original_crc32"), is_bundled=False)
        return replace(entry, path=_plain(inside.removesuffix(".zst"), prefix), content=content)
    if how == "bundle":
        content = Content(
            entry.size_bytes, entry.crc32, is_bundled=True, offset=_size(item, "offset"), length=_size(item, "length"),
            skip_bytes=_size(item, "skip"),
        )  # fmt: skip
        whole_bytes, whole_crc32 = _size(item, "bundle_bytes"), _crc(item, "bundle_crc32")
        if content.offset + content.length > whole_bytes or content.skip_bytes > _LONGEST_HEADER:
            raise ValueError("its place lies outside its bundle")
        path = _plain(str(item.get("member")), prefix)
        return replace(entry, path=path, size_bytes=whole_bytes, crc32=whole_crc32, content=content)
    if how:
        raise ValueError("it is stored in a way that this version does not know")
    return entry


def _with_its_own_name(entry: Entry, item: Mapping[str, Any], prefix: S3Url) -> Entry:
    """Where a name may be of any bytes, one that is not UTF-8 comes back as it was. Raises BadInput, ValueError."""
    if not item.get("name_escaped") or sys.platform == "darwin":
        return entry
    path = unquote_to_bytes(entry.path).decode("utf-8", "surrogateescape")
    return replace(entry, path=_plain(path, prefix))


def _plain(path: str, prefix: S3Url) -> str:
    """Raises BadInput, ValueError."""
    if safe_path(path, of=f"{prefix}_byos/manifest.json", written_here=True) != path:
        raise ValueError("its key is no plain path")
    return path


def _size(item: Mapping[str, Any], name: str) -> int:
    value = item.get(name)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < _MOST_BYTES:
        raise ValueError(
            "the manifest's entry has no size" if name == "bytes" else f"the manifest's entry has no {name!r}"
        )
    return value


def _crc(item: Mapping[str, Any], name: str) -> str:
    value = item.get(name)
    if not isinstance(value, str) or not _CRC.fullmatch(value):
        raise ValueError("the manifest's entry has no CRC-32")
    return value


def _named(item: Any) -> str:
    named = item.get("path") or item.get("key") if isinstance(item, dict) else None
    return printable(str(named))[:500] if named else "an entry without a name"
