"""What counts as an archive, and what an object that is none begins with.

The suffix of the key decides; content that disagrees with it is refused, never guessed at.
"""

from __future__ import annotations

from byos_run.errors import BadInput
from byos_run.model import ByteSource

_SUFFIXES = {
    ".zip": "zip",
    ".tar": "tar",
    ".tar.gz": "tar.gz",
    ".tgz": "tar.gz",
    ".tar.zst": "tar.zst",
    ".tar.bz2": "tar.bz2",
    ".tar.xz": "tar.xz",
}
HEAD_BYTES = 512
_STARTS = (
    (b"PK\3\4", "a zip"),
    (b"PK\5\6", "a zip"),
    (b"\x1f\x8b", "gzip"),
    (b"\x28\xb5\x2f\xfd", "zstd"),
    (b"BZh", "bzip2"),
    (b"\xfd7zXZ\0", "xz"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive"),
    (b"Rar!", "a rar archive"),
    (b"\x89HDF", "an HDF5 file"),
    (b"\x7fELF", "a program"),
)


def kind_of(name: str) -> str | None:
    """By the suffix of *name*, any case: "zip", "tar", "tar.gz", "tar.zst", "tar.bz2" or "tar.xz"; None: no archive."""
    lower = name.lower()
    return next((kind for suffix, kind in _SUFFIXES.items() if lower.endswith(suffix)), None)


def content_of(head: bytes) -> str:
    """What an object that begins with *head* seems to be, in words."""
    for start, name in _STARTS:
        if head.startswith(start):
            return name
    if head[257:262] == b"ustar":
        return "a tar"
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n")[:300].lower()
    if text.startswith((b"<?xml", b"<error")):
        return "an XML page, as a store answers an error"
    if text.startswith((b"<!doctype html", b"<html")):
        return "an HTML page"
    if head and not head.strip(b"\0"):
        return "nothing but zeros"
    return f"none: it begins with {head[:16]!r}"


def wrong_content(source: ByteSource, head: bytes, kind: str) -> BadInput:
    """The refusal of an object whose name says *kind* and whose content does not."""
    if not source.size_bytes:
        return BadInput(f"{source.url}: is empty: 0 bytes", hint="upload it again")
    return BadInput(
        f"{source.url}: is called .{kind}, its content is {content_of(head)}",
        hint="upload the archive itself, under the suffix that it is",
    )


def truncated(source: ByteSource, kind: str) -> BadInput:
    return BadInput(
        f"{source.url}: the {kind} has no end, the object has {source.size_bytes} bytes: was its upload cut off?",
        hint="upload it again and compare the sizes",
    )
