"""Outputs of a run → files on this machine, each proved by its CRC-32.

    DIR/path is there, size and CRC-32 are right     nothing to do
    … is there and differs                           refused, unless overwriting is asked for
    else  DIR/path.byos-part ← bytes in order, CRC-32 while they pass; right: its mtime, its name

What was cut off goes on where its part ends: the part is read again for its CRC-32, so that the whole is proved. A part that
turns out wrong is fetched once more from the start. Nothing is written outside DIR: paths were checked, links are not
followed. Not promised: two of these at once in one directory.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Callable, Optional, TypeVar

from byos_run import crc, errors
from byos_run.errors import printable
from byos_run.model import Tally
from byos_run.steps.entries import Entry

PART = ".byos-part"
_READ_BYTES = 1 << 20
_NAME_BYTES = 255
_OF_ONE_NAME = (
    errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.ENAMETOOLONG, errno.EILSEQ, errno.EINVAL,
)  # fmt: skip
"""A file where a directory must stand, a name that this file system cannot hold: no other file is concerned."""
_HOLE_BYTES = 64 << 10
_ZEROS = bytes(_HOLE_BYTES)
_OPEN = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC

Wrong = TypeVar("Wrong")
Proven = Callable[[Entry, Callable[[memoryview], None], int, int], Optional[Wrong]]
"""(entry, take, start, CRC-32 before start) → None if the file is what the manifest says, else what is wrong."""


class Bringer:
    """Brings the outputs of one run into *directory*. From many threads, one entry each."""

    def __init__(self, directory: Path, *, overwrite: bool, tally: Tally) -> None:
        self._directory = directory
        self._overwrite = overwrite
        self._tally = tally

    def has(self, entry: Entry) -> bool:
        """Whether *entry* is here already, byte for byte. Raises Differs, NodeUnfit."""
        target = self._directory / entry.path
        with _told(target):
            if not os.path.lexists(target):
                return False
            if not target.is_file() or target.is_symlink():
                raise Differs(f"{str(target)!r} is in the way: it is no plain file")
            size_bytes, crc32 = entry.file
            if target.stat().st_size == size_bytes and _crc_of(target) == crc32:
                return True
        if not self._overwrite:
            raise Differs(f"{str(target)!r} is there and differs; --overwrite replaces it")
        return False

    def bring(self, entry: Entry, *, proven: Proven[Wrong]) -> Wrong | None:
        """Make the file; None, or what is wrong with the object. Raises Differs, NodeUnfit, what *proven* raises."""
        target = self._directory / entry.path
        part = target.with_name(part_name(target.name))
        with _told(target):
            target.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(part, _OPEN, 0o644)
            try:
                wrong = self._fill(descriptor, entry, proven)
                if wrong is None:
                    if entry.mtime_s:
                        os.utime(descriptor, (entry.mtime_s, entry.mtime_s))
                    os.replace(part, target)
            finally:
                os.close(descriptor)
        return wrong

    def _fill(self, descriptor: int, entry: Entry, proven: Proven[Wrong]) -> Wrong | None:
        """What is there of the part, then the rest; from the start if that does not prove right."""
        checksum, size = _crc_of_part(descriptor, limit=entry.file[0])
        write = self._write if entry.content is None else self._write_sparsely
        for start, begun in dict.fromkeys(((size, checksum), (0, 0))):
            os.ftruncate(descriptor, start)
            os.lseek(descriptor, start, os.SEEK_SET)
            wrong = proven(entry, lambda piece: write(descriptor, piece), start, begun)
            if wrong is None:
                os.ftruncate(descriptor, entry.file[0])  # a hole at the end has no byte that was written
                return None
        os.ftruncate(descriptor, 0)  # so that the next one begins anew
        return wrong

    def _write(self, descriptor: int, piece: memoryview) -> None:
        done = 0
        while done < len(piece):
            done += os.write(descriptor, piece[done:])
        self._tally.add(bytes_out=done)

    def _write_sparsely(self, descriptor: int, piece: memoryview) -> None:
        """Blocks of zeros become holes: what was compressed may have been mostly that."""
        for at in range(0, len(piece), _HOLE_BYTES):
            block = piece[at : at + _HOLE_BYTES]
            if len(block) == _HOLE_BYTES and bytes(block) == _ZEROS:  # a view is compared byte by byte
                os.lseek(descriptor, _HOLE_BYTES, os.SEEK_CUR)
            else:
                self._write(descriptor, block)


def part_name(name: str) -> str:
    """What a file called *name* is called until it is whole."""
    whole = name + PART
    return whole if len(os.fsencode(whole)) <= _NAME_BYTES else f".{crc.crc32(os.fsencode(name)):08x}{PART}"


class Differs(errors.NodeUnfit):
    """Something on this machine is in the way of one file; the message says which. A caller may go on with the others."""


@contextmanager
def _told(target: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        said = f"{printable(str(target))!r}: {error.strerror or error}"
        if error.errno in _OF_ONE_NAME:
            raise Differs(said) from error
        hint = "choose a directory with more room" if error.errno == errno.ENOSPC else ""
        raise errors.NodeUnfit(said, hint=hint) from error


def _crc_of(path: Path) -> str:
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        return crc.base64_of(_crc_of_part(descriptor)[0])
    finally:
        os.close(descriptor)


def _crc_of_part(descriptor: int, *, limit: int = 1 << 63) -> tuple[int, int]:
    """CRC-32 of the first *limit* bytes of a file, and how many there are; of a longer one (0, 0): it is of no use."""
    found, count = 0, 0
    while piece := os.read(descriptor, _READ_BYTES):
        found, count = crc.crc32(piece, found), count + len(piece)
        if count > limit:
            return 0, 0
    return found, count
