"""Who has a file open, and whether for writing, as ``/proc`` tells.

Not promised: processes of other users, unless we are root; writers on other nodes.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass


def files_open_for_writing(*, except_processes: Collection[int]) -> dict[tuple[int, int], int]:
    """(device, inode) → process id of the regular files that other processes than those named have open for writing.

    A process is passed over if ``/proc`` does not let us see its descriptors.
    """
    held: dict[tuple[int, int], int] = {}
    for process_id in _processes():
        if process_id in except_processes:
            continue
        with suppress(OSError):
            for status, writes in _opened_by(process_id):
                if writes:
                    held[status.st_dev, status.st_ino] = process_id
    return held


@dataclass(frozen=True)
class Held:
    """Inodes of the files that the run's processes have open or mapped.

    Without their devices: a stranger's inode of the same number only makes a file wait.
    """

    written: frozenset[int] = frozenset()
    """Open for writing, or mapped shared and writable."""
    read: frozenset[int] = frozenset()
    """Open or mapped in any other way."""
    unreadable: int = 0
    """A process whose descriptors ``/proc`` does not let us see, so that nobody knows what it writes; 0 if all told."""


def held_by(processes: Collection[int]) -> Held:
    """What *processes* have open."""
    written: set[int] = set()
    read: set[int] = set()
    unreadable = 0
    for process_id in processes:
        try:
            for status, writes in _opened_by(process_id):
                (written if writes else read).add(status.st_ino)
            for inode, writes in _mapped_by(process_id):
                (written if writes else read).add(inode)
        except PermissionError:
            unreadable = process_id if _lives(process_id) else unreadable
        except OSError:
            continue  # it has ended
    return Held(frozenset(written), frozenset(read), unreadable)


def files_behind_our_output() -> set[tuple[int, int]]:
    """(device, inode) of what our standard output and error go to."""
    found = set()
    for fd in (1, 2):
        with suppress(OSError):  # it may have been closed
            status = os.fstat(fd)
            found.add((status.st_dev, status.st_ino))
    return found


def _processes() -> list[int]:
    try:
        return [int(name) for name in os.listdir("/proc") if name.isdigit()]
    except OSError:
        return []


def _lives(process_id: int) -> bool:
    """Whether it is more than a zombie, whose descriptors nobody may see."""
    try:
        with open(f"/proc/{process_id}/stat", "rb") as line:
            return line.read().rpartition(b")")[2].split()[0] not in (b"Z", b"X")
    except OSError:
        return False


_MAPPING = re.compile(rb"^\S+ (\S{4}) \S+ \S+ ([1-9]\d*)", re.MULTILINE)
"""Of a file, in ``/proc/PID/maps``: "address perms offset dev inode path" (proc(5))."""


def _mapped_by(process_id: int) -> Iterator[tuple[int, bool]]:
    """Inodes of mappings, and whether what is written to them reaches the file."""
    with open(f"/proc/{process_id}/maps", "rb") as lines:
        for rights, inode in set(_MAPPING.findall(lines.read())):
            yield int(inode), rights.startswith(b"rw") and rights.endswith(b"s")


def _opened_by(process_id: int) -> Iterator[tuple[os.stat_result, bool]]:
    """Regular files behind the descriptors, and whether they are open for writing. Raises OSError if nobody tells."""
    directory = f"/proc/{process_id}/fd"
    for descriptor in os.listdir(directory):
        link = f"{directory}/{descriptor}"
        try:
            if not os.readlink(link).startswith("/"):
                continue
            # The link's own permission bits are the descriptor's mode (proc(5)); fdinfo is not always readable.
            writes = bool(os.lstat(link).st_mode & stat.S_IWUSR)
            status = os.stat(link)
        except OSError:
            continue
        if stat.S_ISREG(status.st_mode):
            yield status, writes
