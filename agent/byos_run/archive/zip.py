"""A zip's plan, from its central directory alone, and the proof that each local header tells the same.

last 1 MiB → end records that end where the object ends (or before nothing but zeros) → exactly one whose directory
checks out → its entries, one by one → members sorted by place: none overlaps the next or the directory → Plan

The directory is the truth: what lies between members and is named nowhere is not looked at, only counted. Local
headers are compared as they pass while unpacking (:func:`data_start`), for they lie all over the object. Not
promised: data descriptors are not read, since the directory's sizes and CRC-32 are checked against the bytes
themselves.
"""

from __future__ import annotations

import stat
from collections.abc import Iterator
from contextlib import suppress
from struct import Struct, unpack_from
from typing import NamedTuple

from byos_run.archive.kinds import truncated, wrong_content
from byos_run.archive.members import (
    ENCRYPTED,
    Members,
    check_method,
    entries,
    extra_fields,
    mtime_of,
    path_and_mode,
    several_disks,
    widened,
)
from byos_run.archive.plan import AGAIN, Limits, Plan, Tree, quoted, refusal
from byos_run.errors import BadInput
from byos_run.model import ByteSource, S3Url

TAIL_BYTES = 1 << 20
LOCAL = Struct("<4s5H3I2H")
DESCRIPTOR_BYTES = 24
"""The longest data descriptor: signature, CRC, two 64-bit sizes."""
_END = Struct("<4s4H2IH")
_END64 = Struct("<4sQ2H2I4Q")
_LOCATOR = Struct("<4sIQI")
_DIRECTORY_BYTES = 256 << 20
_READINGS = 8
_NO_FILE_BYTES = 16 << 10
"""What a link or a directory may have at most."""


class Directory(NamedTuple):
    """Where the central directory is, in bytes of the object."""

    start: int
    size_bytes: int
    members: int
    counted_in_16_bits: bool
    shift: int
    """Bytes before the archive proper: a self-extractor's program."""


def plan_zip(source: ByteSource, *, limits: Limits) -> Plan:
    """Read and check the directory. Raises BadInput for all that can be known without the members' bytes."""
    of = source.url
    directory = find_directory(source)
    members, tree = Members(), Tree(of)
    total = 0
    for entry in entries(source, start=directory.start, size_bytes=directory.size_bytes):
        check_method(entry, of=of)
        path, mode = path_and_mode(entry, of=of)
        if not stat.S_ISDIR(mode):
            tree.add_file(path)
        elif path:
            tree.add_directory(path)
        if not stat.S_ISREG(mode) and max(entry.packed_bytes, entry.unpacked_bytes) > _NO_FILE_BYTES:
            raise refusal(of, path, "is a directory or a link with far too much content")
        total += entry.unpacked_bytes
        members.add(entry, path=path, mode=mode, offset=entry.offset + directory.shift, mtime_s=mtime_of(entry))
        if len(members) > limits.max_members or len(members) == 1:
            limits.check(of=of, members=len(members), unpacked_bytes=total, packed_bytes=source.size_bytes)
    limits.check(of=of, members=len(members), unpacked_bytes=total, packed_bytes=source.size_bytes)
    _check_count(directory, len(members), of=of)
    gaps = _set_ends(members, directory, of=of)
    _check_shift(source, members, directory)
    return Plan(
        url=of, kind="zip", files=len(tree.files), directories=len(tree.directories), total_bytes=total, exact=True,
        warnings=_warnings(members, directory, gaps), zipped=members,
    )  # fmt: skip


def _warnings(members: Members, directory: Directory, gaps: int) -> tuple[str, ...]:
    found = []
    if not members:
        found.append("the archive is empty")
    if gaps:
        found.append(f"{gaps} bytes between the members belong to none and are left out")
    if directory.shift:
        found.append(f"{directory.shift} bytes before the archive are left out: a self-extractor")
    if 12 in members.methods:
        found.append("bzip2 members unpack at a tenth of the speed of deflate")
    return tuple(found)


def _check_count(directory: Directory, parsed: int, *, of: S3Url) -> None:
    # The Finder of macOS, for one, counts in 16 bits and no further; the directory's size has proved the rest.
    if parsed != directory.members and not (
        directory.counted_in_16_bits and parsed > 0xFFFF and parsed & 0xFFFF == directory.members
    ):
        raise BadInput(
            f"{of}: its directory holds {parsed} members, its end record says {directory.members}", hint=AGAIN
        )


def _set_ends(members: Members, directory: Directory, *, of: S3Url) -> int:
    """Set where each member ends at the latest, in order of place; return the bytes that belong to no member."""
    members.sort()
    offsets, ends, gaps = members.offsets, members.ends, 0
    ends.extend(offsets[1:])
    if offsets:
        ends.append(directory.start)
        gaps = max(0, offsets[0] - directory.shift)
    for i in range(len(members)):
        least = offsets[i] + LOCAL.size + members.packed[i]
        if least > ends[i]:
            after = f"member {quoted(members.paths[i + 1])}" if i + 1 < len(members) else "the directory"
            raise refusal(of, members.paths[i], f"overlaps {after}, as bombs do")
        slack = ends[i] - least - 2 * 65535 - DESCRIPTOR_BYTES
        gaps += max(0, slack)
    return gaps


def _check_shift(source: ByteSource, members: Members, directory: Directory) -> None:
    if directory.shift and members.offsets:
        head = source.read(members.offsets[0], 4)
        if bytes(head) != b"PK\3\4":
            raise BadInput(f"{source.url}: its directory does not fit its members", hint=AGAIN)


def find_directory(source: ByteSource) -> Directory:
    """The one end record that is plausible. Raises BadInput: none, several, not a zip, cut off, split over disks."""
    size = source.size_bytes
    start = max(0, size - TAIL_BYTES)
    view = source.read(start, size - start) if size else memoryview(b"")
    tail = bytes(view)
    found: list[Directory] = []
    refused: list[BadInput] = []
    for at in _candidates(tail):
        try:
            found.append(_directory(source, tail, at, start=start))
        except BadInput as error:
            refused.append(error)
    if not found:
        raise refused[-1] if refused else _no_end(source, tail)
    readings = len(found) + _hidden(source, tail, found[-1], start=start)
    if readings > 1:
        raise BadInput(
            f"{source.url}: could be read as {readings} different archives, one of them inside a comment", hint=AGAIN
        )
    return found[0]


def _candidates(tail: bytes) -> list[int]:
    """Places of end records whose comment ends with the object, or before zeros only."""
    content = len(tail.rstrip(b"\0"))
    return [at for at in _records(tail) if content <= at + _END.size + _comment_bytes(tail, at) <= len(tail)]


def _records(tail: bytes) -> Iterator[int]:
    at = tail.find(b"PK\5\6")
    while 0 <= at <= len(tail) - _END.size:
        yield at
        at = tail.find(b"PK\5\6", at + 1)


def _comment_bytes(tail: bytes, at: int) -> int:
    return int(unpack_from("<H", tail, at + 20)[0])


def _hidden(source: ByteSource, tail: bytes, known: Directory, *, start: int) -> int:
    """How many end records behind the directory *known* have one too, the length of their comment apart.

    Others take the last record there is, whatever its comment. Of very many the last few tell.
    """
    behind = known.start + known.size_bytes - start
    exact, hidden = set(_candidates(tail)), 0
    for at in [at for at in _records(tail) if at > behind][-_READINGS:]:
        if at not in exact:
            with suppress(BadInput):
                _directory(source, tail, at, start=start)
                hidden += 1
    return hidden


def _no_end(source: ByteSource, tail: bytes) -> BadInput:
    at = tail.rfind(b"PK\5\6")
    head = bytes(source.read(0, min(source.size_bytes, 512)))
    if head[:4] == b"PK\7\x08":
        return several_disks(source.url)
    if 0 <= at < len(tail) - _END.size:
        return BadInput(
            f"{source.url}: its end record does not end the object: bytes follow it, or its comment is cut off",
            hint="upload it again; if something was appended to it, zip -F case.zip --out whole.zip repairs it",
        )
    return truncated(source, "zip") if head[:2] == b"PK" else wrong_content(source, head, "zip")


def _directory(source: ByteSource, tail: bytes, at: int, *, start: int) -> Directory:
    of = source.url
    _, disk, first_disk, here, count, size, offset, _ = _END.unpack_from(tail, at)
    end = start + at
    wide = _wide_record(source, tail, at, start=start)
    if wide is not None:
        if not wide.agrees((here, count, size, offset)):
            raise BadInput(f"{of}: its two end records contradict each other", hint=AGAIN)
        end, here, count, size, offset = wide
    elif disk or first_disk or here != count:
        raise several_disks(of)
    begin = end - size
    if begin < 0 or offset > begin:
        raise BadInput(f"{of}: its directory does not fit: the archive's head is cut off, or it is damaged", hint=AGAIN)
    if size > _DIRECTORY_BYTES:
        raise BadInput(f"{of}: its directory alone has {size} bytes", hint="split the case into several archives")
    if count == 0 and (size or offset != begin):
        raise BadInput(f"{of}: claims to be empty and is not", hint=AGAIN)
    if size and bytes(source.read(begin, min(4, size))) != b"PK\1\2":
        raise BadInput(f"{of}: has no directory where its end record says", hint=AGAIN)
    return Directory(begin, size, count, wide is None, begin - offset)


class _Wide(NamedTuple):
    """What the zip64 end record says."""

    at: int
    here: int
    members: int
    size_bytes: int
    offset: int

    def agrees(self, narrow: tuple[int, int, int, int]) -> bool:
        """Each figure of the short record is all ones, or the same."""
        ones = (0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF)
        return all(n in (wide, one) for n, wide, one in zip(narrow, self[1:], ones))


def _wide_record(source: ByteSource, tail: bytes, at: int, *, start: int) -> _Wide | None:
    """The zip64 end record, which must stand directly before its locator; None if there is no locator."""
    if at < _LOCATOR.size or tail[at - _LOCATOR.size : at - _LOCATOR.size + 4] != b"PK\6\7":
        return None
    of = source.url
    _, disk, told, disks = _LOCATOR.unpack_from(tail, at - _LOCATOR.size)
    place = start + at - _LOCATOR.size - _END64.size
    raw = bytes(source.read(place, _END64.size)) if place >= 0 else b""
    if raw[:4] != b"PK\6\6" or unpack_from("<Q", raw, 4)[0] != _END64.size - 12 or told > place:
        raise BadInput(f"{of}: its zip64 end record is not where it must be", hint=AGAIN)
    _, _, _, _, this_disk, first_disk, here, count, size, offset = _END64.unpack(raw)
    if disk or this_disk or first_disk or disks > 1 or here != count:
        raise several_disks(of)
    if place - told != place - size - offset:
        raise BadInput(f"{of}: its zip64 end record and its locator contradict each other", hint=AGAIN)
    return _Wide(place, here, count, size, offset)


def data_start(members: Members, index: int, header: memoryview, *, of: S3Url) -> int:
    """Where in *header*, which begins with the member's local header, its data begin.

    Raises BadInput if the header is cut off or tells anything else than the directory: name (but for the kind of
    slash), method, encryption, and, if no data descriptor follows, CRC-32 and sizes.
    """
    if len(header) < LOCAL.size:
        raise _other_header(members, index, "is cut off", of=of)
    signature, _, flags, method, _, _, crc, packed, unpacked, name_size, extra_size = LOCAL.unpack_from(header)
    start: int = LOCAL.size + name_size + extra_size
    if signature != b"PK\3\4":
        raise _other_header(members, index, "is not there", of=of)
    if len(header) < start:
        raise _other_header(members, index, "is cut off", of=of)
    name = bytes(header[LOCAL.size : LOCAL.size + name_size])
    raw = members.raw_name(index)
    if name != raw and name.replace(b"\\", b"/") != raw.replace(b"\\", b"/"):
        raise _other_header(members, index, f"names it {quoted(name.decode('utf-8', 'replace'))}", of=of)
    if method != members.methods[index] or (flags ^ members.flags[index]) & ENCRYPTED:
        raise _other_header(members, index, "tells another method or encryption", of=of)
    if not flags & 8:
        if 0xFFFFFFFF in (packed, unpacked):
            extra = extra_fields(bytes(header[LOCAL.size + name_size : start]), name=name, of=of)
            unpacked, packed, _, _ = widened((unpacked, packed, 0), 0, extra=extra, name=name, of=of)
        if (crc, packed, unpacked) != (members.crcs[index], members.packed[index], members.unpacked[index]):
            raise _other_header(members, index, "tells other sizes or another CRC-32", of=of)
    return start


def _other_header(members: Members, index: int, what: str, *, of: S3Url) -> BadInput:
    return refusal(of, members.paths[index], f"its own header {what}, against the directory")
