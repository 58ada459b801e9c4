"""Who has a file open for writing, as ``/proc`` tells.

Not promised: processes of other users, unless we are root; writers on other nodes.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Collection, Iterator
from contextlib import suppress


def files_open_for_writing(*, except_processes: Collection[int]) -> dict[tuple[int, int], int]:
    """(device, inode) → process id of the regular files that other processes than those named have open for writing.

    A process is passed over if ``/proc`` does not let us see its descriptors.
    """
    held: dict[tuple[int, int], int] = {}
    for process_id in _processes():
        if process_id in except_processes:
            continue
        for status in _written_by(process_id):
            held[status.st_dev, status.st_ino] = process_id
    return held


def inodes_written_by(processes: Collection[int]) -> set[int]:
    """Inodes of the files that *processes* have open for writing, or mapped shared and writable.

    Without their devices: a stranger's inode of the same number only makes a file wait.
    """
    held: set[int] = set()
    for process_id in processes:
        held.update(status.st_ino for status in _written_by(process_id))
        held.update(_mapped_by(process_id))
    return held


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


def _mapped_by(process_id: int) -> Iterator[int]:
    """Inodes of shared, writable mappings: "address perms offset dev inode path" (proc(5))."""
    try:
        with open(f"/proc/{process_id}/maps", "rb") as lines:
            for line in lines:
                fields = line.split(None, 5)
                if fields[1].startswith(b"rw") and fields[1].endswith(b"s") and fields[4] != b"0":
                    yield int(fields[4])
    except OSError:
        return


def _written_by(process_id: int) -> Iterator[os.stat_result]:
    directory = f"/proc/{process_id}/fd"
    try:
        descriptors = os.listdir(directory)
    except OSError:
        return
    for descriptor in descriptors:
        link = f"{directory}/{descriptor}"
        try:
            # The link's own permission bits are the descriptor's mode (proc(5)); fdinfo is not always readable.
            if not os.lstat(link).st_mode & stat.S_IWUSR or not os.readlink(link).startswith("/"):
                continue
            status = os.stat(link)
        except OSError:
            continue
        if stat.S_ISREG(status.st_mode):
            yield status
