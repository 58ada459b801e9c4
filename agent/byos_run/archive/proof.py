"""Whether files that a killed attempt wrote are what the members of an archive must be.

wanted ─ in batches ▶ a worker: opened through no link → a plain file of ours with one name, its size, its mode → the
CRC-32 of what is on the disk → its time, which a kill may have forestalled ▶ proven

Nothing is created or deleted. Memory: 1 MiB and a batch a worker. What cannot be read is not proven, be it for a
failing disk. Modes: a umask of then counts, it took bits of group and others.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator
from functools import partial
from typing import NamedTuple

from byos_run.archive.members import Members
from byos_run.archive.plan import encoded
from byos_run.crc import crc32
from byos_run.model import Pool, Stop

_BATCH_MEMBERS = 256
_BATCH_BYTES = 32 << 20
_READ_BYTES = 1 << 20
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_ENTER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class Wanted(NamedTuple):
    """What a file must be."""

    owner: int
    """The caller's number of the input, and *place* of the member in it."""
    place: int
    path: str
    size_bytes: int
    crc: int
    mode: int = 0o644
    mtime_s: int | None = None
    """None: it is as old as it is."""


def wanted_of(members: Members, *, owner: int) -> Iterator[Wanted]:
    """The plain files of a zip. Links and directories are made again in any case."""
    for i, mode in enumerate(members.modes):
        if stat.S_ISREG(mode):
            yield Wanted(owner, i, members.paths[i], members.unpacked[i], members.crcs[i], mode, members.mtimes[i])


def proven(
    wanted: Iterable[Wanted], *, root: int, workers: Pool, stop: Stop
) -> Iterator[tuple[Wanted, os.stat_result]]:
    """Those of *wanted* that stand below the directory open as *root*, with their state, in no order. Raises Stopped."""
    for found in workers.each(partial(_proven_of, root=root, stop=stop), _batches(wanted)):
        yield from found


def _batches(wanted: Iterable[Wanted]) -> Iterator[list[Wanted]]:
    batch: list[Wanted] = []
    size = 0
    for item in wanted:
        batch.append(item)
        size += item.size_bytes
        if len(batch) >= _BATCH_MEMBERS or size >= _BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _proven_of(batch: list[Wanted], *, root: int, stop: Stop) -> list[tuple[Wanted, os.stat_result]]:
    found = []
    buffer = memoryview(bytearray(min(_READ_BYTES, max(item.size_bytes for item in batch))))
    with _Directory(root) as directory:
        for item in batch:
            stop.check()
            parent, _, name = item.path.rpartition("/")
            try:
                fd = os.open(encoded(name), _READ, dir_fd=directory.at(parent))
                try:
                    state = _state_if_right(fd, item, buffer, stop)
                finally:
                    os.close(fd)
            except OSError:
                continue
            if state is not None:
                found.append((item, state))
    return found


def _state_if_right(fd: int, item: Wanted, buffer: memoryview, stop: Stop) -> os.stat_result | None:
    state = os.fstat(fd)
    if not stat.S_ISREG(state.st_mode) or state.st_uid != os.geteuid() or state.st_nlink != 1:
        return None
    if state.st_size != item.size_bytes or not _has_mode(state.st_mode, item.mode & 0o755 | 0o600):
        return None
    crc, left = 0, item.size_bytes
    while left:
        stop.check()
        count = os.readv(fd, [buffer[:left]])
        if not count:
            return None
        crc, left = crc32(buffer[:count], crc), left - count
    if crc != item.crc:
        return None
    if item.mtime_s is not None and state.st_mtime_ns != item.mtime_s * 1_000_000_000:
        os.utime(fd, (item.mtime_s, item.mtime_s))
        state = os.fstat(fd)
    return state


def _has_mode(mode: int, asked: int) -> bool:
    return stat.S_IMODE(mode) & ~asked == 0 and mode & stat.S_IRWXU == asked & stat.S_IRWXU


class _Directory:
    """The directory that was asked for last, open: neighbours in an archive lie in one. Entered through no link."""

    def __init__(self, root: int) -> None:
        self._root = root
        self._path = ""
        self._fd = root

    def __enter__(self) -> _Directory:
        return self

    def __exit__(self, *_: object) -> None:
        if self._fd != self._root:
            os.close(self._fd)
        self._path, self._fd = "", self._root

    def at(self, path: str) -> int:
        """Its descriptor, valid until the next call. Raises OSError: not there, a link, another user's."""
        if path != self._path:
            self.__exit__()
            at = os.dup(self._root)
            try:
                for part in path.split("/") if path else ():
                    above, at = at, os.open(encoded(part), _ENTER, dir_fd=at)
                    os.close(above)
                    if os.fstat(at).st_uid != os.geteuid():
                        raise PermissionError
            except OSError:
                os.close(at)
                raise
            self._path, self._fd = path, at
        return self._fd
