"""The members of a zip, in little memory, and what one entry of its central directory says.

Parallel arrays: 35 bytes a member and its path, so 500,000 members need about 70 MB; a tuple each would need three
times that. Entries are read one by one from a window that moves over the directory, which is never in memory as a
whole.
"""

from __future__ import annotations

import stat
import time
from array import array
from collections.abc import Iterator
from struct import Struct, error, unpack_from
from typing import NamedTuple
from zlib import crc32

from byos_run.archive.plan import AGAIN, refusal, safe_path
from byos_run.errors import BadInput
from byos_run.model import ByteSource, S3Url

ENTRY = Struct("<4s6H3I5H2I")
METHODS = {0: "stored", 8: "deflate", 12: "bzip2", 14: "lzma", 20: "zstd", 93: "zstd", 95: "xz"}
"""What can be read."""
_OTHER_METHODS = {
    1: "shrink", 2: "reduce 1", 3: "reduce 2", 4: "reduce 3", 5: "reduce 4", 6: "implode", 7: "tokenize", 9: "deflate64",
    10: "dcl implode", 16: "ibm cmpsc", 18: "ibm terse", 19: "ibm lz77", 94: "mp3", 96: "jpeg", 97: "wavpack",
    98: "ppmd", 99: "aes",
}  # fmt: skip
ENCRYPTED = 0x0001 | 0x0040 | 0x2000
_PATCHED = 0x0020
UTF8 = 0x0800
_BACKSLASH_HOSTS = frozenset((0, 10, 11, 14))  # FAT, NTFS by two numbers, VFAT
_UNIX_HOSTS = frozenset((3, 19))  # Unix, Darwin
_WINDOW_BYTES = 4 << 20
_NTFS_EPOCH_S = 11_644_473_600
_LATEST_S = 1 << 33


class Entry(NamedTuple):
    """One entry of the central directory, 64-bit fields settled."""

    host: int
    flags: int
    method: int
    dos_time: int
    dos_date: int
    crc: int
    packed_bytes: int
    unpacked_bytes: int
    mode: int
    """Of Unix, 0 if none was given."""
    folder: bool
    """The FAT attribute says so."""
    offset: int
    name: bytes
    extra: dict[int, bytes]


class Members:
    """Members in the order of their place in the archive. Directories are in a list of their own."""

    def __init__(self) -> None:
        self.paths: list[str] = []
        self.offsets = array("Q")
        """Of the local header in the object."""
        self.packed = array("Q")
        self.unpacked = array("Q")
        self.crcs = array("I")
        self.modes = array("H")
        """Type and permissions as in ``st_mode``."""
        self.methods = array("B")
        self.flags = array("H")
        self.mtimes = array("q")
        """Seconds since 1970 UTC."""
        self.ends = array("Q")
        """Where the next header or the directory begins."""
        self._raw: dict[int, bytes] = {}
        """Names as they stand in the archive, where that is not the path and a "/" for directories."""

    def __len__(self) -> int:
        return len(self.paths)

    def add(self, entry: Entry, *, path: str, mode: int, offset: int, mtime_s: int) -> None:
        name = path + "/" if stat.S_ISDIR(mode) else path
        if name.encode("utf-8", "surrogateescape") != entry.name:
            self._raw[len(self.paths)] = entry.name
        self.paths.append(path)
        self.offsets.append(offset)
        self.packed.append(entry.packed_bytes)
        self.unpacked.append(entry.unpacked_bytes)
        self.crcs.append(entry.crc)
        self.modes.append(mode)
        self.methods.append(entry.method)
        self.flags.append(entry.flags)
        self.mtimes.append(mtime_s)

    def sort(self) -> None:
        """By place; two at one place stay neighbours."""
        offsets = self.offsets
        if all(offsets[i] <= offsets[i + 1] for i in range(len(offsets) - 1)):
            return
        order = sorted(range(len(offsets)), key=offsets.__getitem__)
        self.paths = [self.paths[i] for i in order]
        self._raw = {place: self._raw[i] for place, i in enumerate(order) if i in self._raw}
        for name in ("offsets", "packed", "unpacked", "crcs", "modes", "methods", "flags", "mtimes"):
            column = getattr(self, name)
            setattr(self, name, array(column.typecode, (column[i] for i in order)))

    def raw_name(self, index: int) -> bytes:
        raw = self._raw.get(index)
        if raw is None:
            path = self.paths[index]
            raw = (path + "/" if stat.S_ISDIR(self.modes[index]) else path).encode("utf-8", "surrogateescape")
        return raw

    def file_paths(self) -> Iterator[str]:
        return (path for path, mode in zip(self.paths, self.modes) if not stat.S_ISDIR(mode))

    def directory_paths(self) -> Iterator[str]:
        return (path for path, mode in zip(self.paths, self.modes) if path and stat.S_ISDIR(mode))


def entries(source: ByteSource, *, start: int, size_bytes: int) -> Iterator[Entry]:
    """The entries of the central directory at *start*. Raises BadInput if it holds anything else."""
    window, at, left = b"", 0, size_bytes
    while at < len(window) or left:
        if left and at + ENTRY.size + 3 * 65535 > len(window):
            part = source.read(start + size_bytes - left, min(left, _WINDOW_BYTES))
            window, at, left = window[at:] + part, 0, left - len(part)
            source.release(part)
        entry, at = _entry(window, at, of=source.url)
        yield entry


def _entry(window: bytes, at: int, *, of: S3Url) -> tuple[Entry, int]:
    damaged = BadInput(f"{of}: its directory is damaged", hint=AGAIN)
    try:
        (signature, made_by, _, flags, method, dos_time, dos_date, crc, packed, unpacked,
         name_size, extra_size, comment_size, disk, _, attributes, offset) = ENTRY.unpack_from(window, at)  # fmt: skip
    except error:
        raise damaged from None
    name_end = at + ENTRY.size + name_size
    extra_end = name_end + extra_size
    end = extra_end + comment_size
    if signature != b"PK\1\2" or end > len(window):
        raise damaged
    raw = window[at + ENTRY.size : name_end]
    extra = extra_fields(window[name_end:extra_end], name=raw, of=of) if extra_size else {}
    if 0xFFFFFFFF in (packed, unpacked, offset) or disk == 0xFFFF:
        unpacked, packed, offset, disk = widened((unpacked, packed, offset), disk, extra=extra, name=raw, of=of)
    if disk:
        raise several_disks(of)
    host = made_by >> 8
    mode = attributes >> 16 if host in _UNIX_HOSTS else 0
    folder = host in _BACKSLASH_HOSTS and bool(attributes & 0x10)
    return Entry(host, flags, method, dos_time, dos_date, crc, packed, unpacked, mode, folder, offset, raw, extra), end


def several_disks(of: S3Url) -> BadInput:
    return BadInput(
        f"{of}: is one disk of an archive that was split", hint="join it: zip -s 0 split.zip --out whole.zip"
    )


def shown(name: bytes) -> str:
    return name.decode("utf-8", "surrogateescape")


def extra_fields(extra: bytes, *, name: bytes, of: S3Url) -> dict[int, bytes]:
    """Extra fields by number. The ones that decide anything (zip64, Unicode path) may stand there once."""
    found: dict[int, bytes] = {}
    at = 0
    while at + 4 <= len(extra):
        number, size = unpack_from("<HH", extra, at)
        at += 4
        if at + size > len(extra):
            raise refusal(of, shown(name), "its extra fields are damaged")
        if number in found and number in (0x0001, 0x7075):
            raise refusal(of, shown(name), f"has the extra field {number:#06x} twice")
        found[number] = extra[at : at + size]
        at += size
    return found


def widened(
    narrow: tuple[int, int, int], disk: int, *, extra: dict[int, bytes], name: bytes, of: S3Url
) -> tuple[int, int, int, int]:
    """Unpacked bytes, packed bytes, offset and disk, each from the zip64 field where its own is all ones."""
    field = extra.get(0x0001)
    if field is None:
        raise refusal(of, shown(name), "its 64-bit sizes are missing", hint="the program that packed it cut them off")
    wide, at = list(narrow), 0
    try:
        for place, value in enumerate(narrow):
            if value == 0xFFFFFFFF:
                wide[place] = unpack_from("<Q", field, at)[0]
                at += 8
        if disk == 0xFFFF:
            disk = unpack_from("<I", field, at)[0]
    except error:
        raise refusal(of, shown(name), "its 64-bit sizes are cut off") from None
    return wide[0], wide[1], wide[2], disk


def check_method(entry: Entry, *, of: S3Url) -> None:
    """Raise BadInput, number and name in it, if the content cannot be read or is not what it says."""
    if entry.flags & ENCRYPTED or entry.method == 99:
        raise refusal(of, shown(entry.name), "is encrypted", hint="pack it again without a password")
    if entry.method not in METHODS or entry.flags & _PATCHED:
        name = _OTHER_METHODS.get(entry.method, "patched data" if entry.flags & _PATCHED else "unknown")
        hint = "pack it again with deflate or zstd: zip -r case.zip, or 7z a -tzip case.zip"
        if entry.method == 9:
            hint = "the Explorer of Windows does this above 2 GB: pack it again with 7-Zip, or as .tar.gz with tar"
        raise refusal(
            of, shown(entry.name), f"is packed by method {entry.method} ({name}), which is not read", hint=hint
        )
    if entry.method == 0 and entry.packed_bytes != entry.unpacked_bytes:
        raise refusal(of, shown(entry.name), "is stored, yet its two sizes differ")
    if entry.method == 8 and entry.unpacked_bytes > 1032 * entry.packed_bytes + 1032:
        raise refusal(of, shown(entry.name), "claims to unpack to more than deflate can")


def name_of(entry: Entry, *, of: S3Url) -> str:
    """The entry's name as text: UTF-8 if flagged, else a Unicode path that fits the raw name, else UTF-8 or cp437."""
    if entry.flags & UTF8:
        try:
            return entry.name.decode("utf-8")
        except UnicodeDecodeError:
            raise refusal(of, shown(entry.name), "its name is flagged UTF-8 and is not") from None
    unicode_path = entry.extra.get(0x7075, b"")
    if len(unicode_path) > 5 and unicode_path[0] == 1 and unpack_from("<I", unicode_path, 1)[0] == crc32(entry.name):
        try:
            return unicode_path[5:].decode("utf-8")
        except UnicodeDecodeError:
            raise refusal(of, shown(entry.name), "its Unicode path is not UTF-8") from None
    try:
        return entry.name.decode("utf-8")
    except UnicodeDecodeError:
        return entry.name.decode("cp437")


def path_and_mode(entry: Entry, *, of: S3Url) -> tuple[str, int]:
    """Where *entry* goes and as what: ``st_mode`` of a directory, a link or a file. "" is the top directory itself."""
    name = name_of(entry, of=of)
    # As Info-ZIP and libarchive: in a Japanese name of Windows a backslash may be half of a letter.
    separates = entry.host in _BACKSLASH_HOSTS and "/" not in name
    kind = stat.S_IFMT(entry.mode)
    folder = name[-1:] == "/" or (separates and name[-1:] == "\\") or kind == stat.S_IFDIR or entry.folder
    if folder and name in ("./", ".\\"):
        return "", stat.S_IFDIR | 0o755
    path = safe_path(name, of=of, backslash_separates=separates)
    if kind in (stat.S_IFCHR, stat.S_IFBLK, stat.S_IFSOCK):
        raise refusal(of, name, "is a device or a socket", hint="only files, directories and links belong in a case")
    if folder:
        if entry.unpacked_bytes or kind == stat.S_IFLNK:
            raise refusal(of, name, "is a directory with content")
        return path, stat.S_IFDIR | 0o755
    if kind == stat.S_IFLNK:
        return path, stat.S_IFLNK | 0o777
    # Info-ZIP gives S_IFIFO to what it read from standard input: a file like any other.
    return path, stat.S_IFREG | ((entry.mode & 0o755 | 0o600) if entry.mode else 0o644)


def mtime_of(entry: Entry) -> int:
    """Seconds since 1970 UTC: extended timestamp, else that of NTFS, else the local time of DOS, clamped."""
    extended = entry.extra.get(0x5455, b"")
    if len(extended) >= 5 and extended[0] & 1:
        return max(0, int(unpack_from("<i", extended, 1)[0]))
    ntfs = entry.extra.get(0x000A, b"")
    if len(ntfs) >= 32 and ntfs[4:8] == b"\1\0\x18\0":
        return min(max(0, int(unpack_from("<Q", ntfs, 8)[0]) // 10_000_000 - _NTFS_EPOCH_S), _LATEST_S)
    date, clock = entry.dos_date, entry.dos_time
    day = (1980 + (date >> 9), max(1, min(12, date >> 5 & 15)), max(1, date & 31))
    moment = (min(23, clock >> 11), min(59, clock >> 5 & 63), min(59, (clock & 31) * 2))
    try:
        return max(0, int(time.mktime((*day, *moment, 0, 0, -1))))
    except (OverflowError, ValueError):
        return 0
