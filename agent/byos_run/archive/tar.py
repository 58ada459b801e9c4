"""The entries of a tar, read from its bytes in order: ustar, GNU and pax headers, one meaning for each or none.

header block ─ checksum ─ type ─ pax and GNU records that lead it ▶ Entry ─ its body is the consumer's ─ …
… two blocks of zeros ─ nothing else

Where programs are known to differ it is refused: a size where none may be, two names for one entry, a record that
leads no entry, bytes after the end. A pax ``size`` holds for the next file, never for the record between. Sparse
files, parts of volumes and devices are refused by name.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from byos_run.archive.kinds import wrong_content
from byos_run.archive.plan import AGAIN, Plan, quoted, refusal, safe_path
from byos_run.errors import BadInput
from byos_run.model import ByteSource, S3Url

BLOCK = 512
_RECORD_BYTES = 1 << 20
_LATEST_S = 1 << 33
_HUGE_BYTES = 1 << 60
_MAGIC = {
    "tar.gz": (b"\x1f\x8b",),
    "tar.bz2": (b"BZh",),
    "tar.xz": (b"\xfd7zXZ\0",),
    "tar.zst": (b"\x28\xb5\x2f\xfd", *(bytes((n, 0x2A, 0x4D, 0x18)) for n in range(0x50, 0x60))),
}
FILE, DIRECTORY, LINK, HARD_LINK = "file", "directory", "link", "hard link"
_KINDS = {b"0": FILE, b"\0": FILE, b"7": FILE, b"5": DIRECTORY, b"2": LINK, b"1": HARD_LINK}
_REFUSED = {
    b"3": "a device", b"4": "a device", b"6": "a FIFO", b"S": "a sparse file: pack it again without --sparse",
    b"M": "the rest of a file from another volume", b"N": "an old GNU name list", b"D": "a directory of an incremental dump",
}  # fmt: skip


class Entry(NamedTuple):
    """One entry; its body of *size_bytes* follows in the stream."""

    kind: str
    path: str
    size_bytes: int
    mode: int
    mtime_s: int
    target: bytes
    """Of a link, raw; of a hard link, the name it was given."""


class Bytes:
    """A stream of pieces, by number. :meth:`take` and :meth:`body` move on; nothing is read twice."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._held = memoryview(b"")

    def take(self, count: int) -> bytes:
        """*count* bytes; fewer only at the end."""
        if len(self._held) >= count:
            found = bytes(self._held[:count])
            self._held = self._held[count:]
            return found
        return b"".join(bytes(piece) for piece in self.body(count))

    def body(self, count: int) -> Iterator[memoryview]:
        """*count* bytes piece by piece; fewer only at the end."""
        while count:
            if not self._held:
                piece = next(self._pieces, None)
                if piece is None:
                    return
                self._held = memoryview(piece)
            part = self._held[:count]
            self._held = self._held[len(part) :]
            count -= len(part)
            yield part

    def rest(self) -> Iterator[memoryview]:
        """All that is left."""
        yield self._held
        yield from (memoryview(piece) for piece in self._pieces)
        self._held = memoryview(b"")


def plan_tar(source: ByteSource, *, kind: str, head: bytes) -> Plan:
    """The plan of a tar, which tells nothing before it streams. Raises BadInput if it begins as something else."""
    good = head.startswith(_MAGIC[kind]) if kind in _MAGIC else len(head) == BLOCK and _is_header(head)
    if kind == "tar" and head[257:262] == b"ustar" and not good:
        raise _damaged(source.url)
    if not good:
        raise wrong_content(source, head, kind)
    return Plan(url=source.url, kind=kind, files=0, directories=0, total_bytes=source.size_bytes, exact=False)


def _is_header(block: bytes) -> bool:
    return not block.strip(b"\0") or _checksum_fits(block)


def _damaged(of: S3Url) -> BadInput:
    return BadInput(f"{of}: a header's checksum is wrong: the tar is damaged", hint=AGAIN)


def _checksum_fits(block: bytes) -> bool:
    try:
        told = int(_text(block[148:156]).strip(b" ") or b"x", 8)
    except ValueError:
        return False
    blanked = block[:148] + b" " * 8 + block[156:]
    # Some old programs summed the bytes as signed numbers.
    return told in (sum(blanked), sum(byte - 256 if byte > 127 else byte for byte in blanked))


class _Lead(NamedTuple):
    """What records said of the entry that follows them."""

    name: bytes | None = None
    target: bytes | None = None
    pax: dict[str, bytes] = {}  # noqa: RUF012 - a default of a NamedTuple, never changed

    @property
    def is_there(self) -> bool:
        return bool(self.name is not None or self.target is not None or self.pax)


def entries(stream: Bytes, *, of: S3Url) -> Iterator[Entry]:
    """The entries; the consumer takes each body (or not) before he asks for the next. Raises BadInput."""
    lead = _Lead()
    while True:
        block = stream.take(BLOCK)
        if len(block) < BLOCK:
            raise BadInput(f"{of}: the tar is cut off: it has no end blocks", hint="upload it again")
        if not block.strip(b"\0"):
            if lead.is_there:
                raise BadInput(f"{of}: its last record leads no entry", hint=AGAIN)
            _check_end(stream, of=of)
            return
        if not _checksum_fits(block):
            raise _damaged(of)
        kind = block[156:157]
        if kind in b"xgXLKV":
            lead = _led(lead, kind, block, stream, of=of)
            continue
        entry = _entry(block, lead, of=of)
        lead = _Lead()
        yield entry
        padding = -entry.size_bytes % BLOCK
        if len(stream.take(padding)) < padding:
            raise BadInput(f"{of}: the tar is cut off in {quoted(entry.path)}", hint="upload it again")


def _check_end(stream: Bytes, *, of: S3Url) -> None:
    """Nothing but zeros to the end of the stream, which is read to its end so that a codec's trailer is checked."""
    for piece in stream.rest():
        if bytes(piece).strip(b"\0"):
            raise BadInput(
                f"{of}: bytes follow the end of the tar, as when two tars are joined",
                hint="pack all into one tar; 'tar -r' and 'tar -A' do it right",
            )


def _led(lead: _Lead, kind: bytes, block: bytes, stream: Bytes, *, of: S3Url) -> _Lead:
    """*lead* with what one more record says. Raises BadInput for a record of a kind that was there already."""
    size = _number(block[124:136], "size", of=of)
    if size > _RECORD_BYTES:
        raise BadInput(f"{of}: a record about a name has {size} bytes", hint=AGAIN)
    body = stream.take(size)
    if len(body) + len(stream.take(-size % BLOCK)) < size + -size % BLOCK:
        raise BadInput(f"{of}: the tar is cut off in a record", hint="upload it again")
    if kind in b"LK":
        name = body[:-1] if body[-1:] == b"\0" else body
        if (lead.name if kind == b"L" else lead.target) is not None or b"\0" in name or not name:
            raise BadInput(f"{of}: a long name is empty, holds a NUL or is there twice", hint=AGAIN)
        return lead._replace(name=name) if kind == b"L" else lead._replace(target=name)
    if kind == b"V":
        if lead.is_there:
            raise BadInput(f"{of}: a record leads the volume's label", hint=AGAIN)
        return lead
    records = _pax(body, of=of)
    if kind == b"g":
        if records.keys() & {"path", "linkpath", "size"} or any(key.startswith("GNU.sparse") for key in records):
            raise BadInput(f"{of}: one name or size for all that follows", hint=AGAIN)
        return lead
    if lead.pax:
        raise BadInput(f"{of}: two pax records for one entry", hint=AGAIN)
    return lead._replace(pax=records)


def _pax(body: bytes, *, of: S3Url) -> dict[str, bytes]:
    """``length key=value\\n`` records. Raises BadInput if they are anything else, or name a key twice."""
    found: dict[str, bytes] = {}
    damaged = BadInput(f"{of}: a pax record is damaged", hint=AGAIN)
    at = 0
    while at < len(body):
        blank = body.find(b" ", at, at + 20)
        digits = body[at:blank]
        if blank < 0 or not digits.isdigit():
            raise damaged
        end = at + int(digits)
        key, equals, value = body[blank + 1 : end - 1].partition(b"=")
        if end > len(body) or end <= blank + 1 or body[end - 1 : end] != b"\n" or not equals or not key:
            raise damaged
        name = key.decode("utf-8", "backslashreplace")
        # The oldest sparse format repeats its keys; it is refused by its name.
        again = name in found and not name.startswith("GNU.sparse.")
        if again or (name in ("path", "linkpath") and b"\0" in value):
            raise damaged
        found[name] = value
        at = end
    return found


def _entry(block: bytes, lead: _Lead, *, of: S3Url) -> Entry:
    raw = _name(block, lead)
    name = raw.decode("utf-8", "surrogateescape")
    kind = _KINDS.get(block[156:157], "")
    if not kind or any(key.startswith("GNU.sparse") for key in lead.pax):
        what = _REFUSED[b"S"] if kind else _REFUSED.get(block[156:157], f"of the unknown type {block[156:157]!r}")
        raise refusal(of, name, f"is {what}", hint="only files, directories and links belong in a case")
    if kind == FILE and raw.endswith(b"/"):
        kind = DIRECTORY
    size = _size(block, lead, name, of=of)
    if size and kind != FILE:
        raise refusal(of, name, f"is a {kind} and has {size} bytes of its own")
    path = "" if kind == DIRECTORY and name.strip("/") == "." and name[0] == "." else safe_path(name, of=of)
    target = b""
    if kind in (LINK, HARD_LINK):
        target = lead.pax.get("linkpath", lead.target if lead.target is not None else _text(block[157:257]))
    return Entry(kind, path, size, _number(block[100:108], "mode", of=of) & 0o777, _mtime(block, lead), target)


def _text(field: bytes) -> bytes:
    return field.partition(b"\0")[0]


def _name(block: bytes, lead: _Lead) -> bytes:
    if "path" in lead.pax:
        return lead.pax["path"]
    if lead.name is not None:
        return lead.name
    name, prefix = _text(block[:100]), _text(block[345:500])
    # Only POSIX headers have a prefix; GNU's keep times there.
    return prefix + b"/" + name if prefix and block[257:263] == b"ustar\0" else name


def _size(block: bytes, lead: _Lead, name: str, *, of: S3Url) -> int:
    told = lead.pax.get("size")
    if told is None:
        size = _number(block[124:136], "size", of=of)
    elif told.isdigit() and len(told) < 20:
        size = int(told)
    else:
        raise refusal(of, name, "its pax size is no number")
    if size > _HUGE_BYTES:
        raise refusal(of, name, f"claims {size} bytes")
    return size


def _number(field: bytes, what: str, *, of: S3Url) -> int:
    """Octal digits, or GNU's big-endian binary; never negative. Raises BadInput."""
    if field[0] & 0x80:
        if field[0] == 0x80:
            return int.from_bytes(field[1:], "big")
        raise BadInput(f"{of}: a header's {what} is negative or endless", hint=AGAIN)
    digits = _text(field).strip(b" ")
    if not digits and not field.strip(b" \0"):
        return 0
    if not digits.isdigit() or b"8" in digits or b"9" in digits:
        raise BadInput(f"{of}: a header's {what} is no number", hint=AGAIN)
    return int(digits, 8)


def _mtime(block: bytes, lead: _Lead) -> int:
    """Seconds since 1970 UTC, clamped; of a time that is no number, 0."""
    told = lead.pax.get("mtime", b"").partition(b".")[0]
    if told:
        return min(max(0, int(told)), _LATEST_S) if told.isdigit() and len(told) < 20 else 0
    field = block[136:148]
    if field[0] & 0x80:
        return min(int.from_bytes(field[1:], "big"), _LATEST_S) if field[0] == 0x80 else 0
    digits = _text(field).strip(b" ")
    return min(int(digits, 8), _LATEST_S) if digits.isdigit() and not digits.translate(None, b"01234567") else 0
