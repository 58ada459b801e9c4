"""Who runs in a directory: a marker file, locked by the run that wrote it for as long as it lives.

The lock dies with its process and holds across pid namespaces. Where locks do not work (some network file systems),
the process is looked for: same boot, same pid namespace, a process with that id that started at that time.

Not promised: a word on runs of other nodes; between nodes the bucket's claim decides.
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from byos_run.node.tree import open_beneath, scan

_NAME = "marker.json"
_LONGEST_BYTES = 10_000


@dataclass(frozen=True)
class Marker:
    run_id: str
    pid: int
    start_ticks: int
    """Field 22 of ``/proc/PID/stat``: when the process started, in clock ticks since the boot."""
    boot_id: str
    pid_namespace: int
    host: str
    locked: bool
    """Whether the file system gave us the lock."""


def hold_marker(directory: Path, *, run_id: str) -> int | Marker:
    """Lock and write the marker of *directory*: a descriptor to keep open, or the marker of the run that lives there.

    Raises OSError if it cannot be written.
    """
    path = directory / _NAME
    while True:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            locked = try_lock(fd)
            before = _parse(os.pread(fd, _LONGEST_BYTES, 0))
            if before is not None and (locked is False or _lives(before, lock_was_free=locked is True)):
                os.close(fd)
                return before
            if locked is False:  # held by a run that has not written its marker yet
                os.close(fd)
                return Marker(
                    run_id="of another process", pid=0, start_ticks=0, boot_id="", pid_namespace=0, host="", locked=True
                )
            if not same_file(path, fd):  # the run before us deleted it between our open and our lock
                os.close(fd)
                continue
            os.ftruncate(fd, 0)
            os.pwrite(fd, json.dumps(asdict(this_process(run_id=run_id, locked=bool(locked)))).encode(), 0)
            os.fsync(fd)
        except OSError:
            os.close(fd)
            raise
        return fd


def live_neighbours(root: Path, *, skip: set[str]) -> dict[str, Marker]:
    """Directory below *root* (relative) → the live run that is at work there, apart from the paths in *skip*.

    Raises OSError if *root* cannot be opened.
    """
    found: dict[str, Marker] = {}
    for path, _ in scan(root, skip=skip, problems=[]):
        if path.endswith(f"/.byos/{_NAME}"):
            marker = _live_marker(root, path)
            if marker is not None:
                found[path[: -len(f"/.byos/{_NAME}")]] = marker
    return found


def this_process(*, run_id: str, locked: bool) -> Marker:
    return Marker(
        run_id=run_id,
        pid=os.getpid(),
        start_ticks=_start_ticks(os.getpid()) or 0,
        boot_id=_boot_id(),
        pid_namespace=_pid_namespace(),
        host=socket.gethostname(),
        locked=locked,
    )


def is_dead(values: Mapping[str, Any]) -> bool:
    """Whether *values*, a marker as another run wrote it down, name a process of this node that is no more."""
    marker = _parse(json.dumps({**values, "locked": False}).encode())
    return (
        marker is not None
        and marker.boot_id == _boot_id()
        and marker.pid_namespace == _pid_namespace()
        and not _lives(marker, lock_was_free=False)
    )


def _live_marker(root: Path, path: str) -> Marker | None:
    try:
        fd = open_beneath(root, path)
    except OSError:
        return None
    try:
        marker = _parse(os.pread(fd, _LONGEST_BYTES, 0))
        locked = try_lock(fd)
    finally:
        os.close(fd)
    return marker if marker is not None and (locked is False or _lives(marker, lock_was_free=bool(locked))) else None


def try_lock(fd: int) -> bool | None:
    """True: it is ours; False: another process holds it; None: locks do not work here."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def _lives(marker: Marker, *, lock_was_free: bool) -> bool:
    if marker.boot_id != _boot_id():
        return False
    if marker.locked and lock_was_free:
        return False
    if marker.pid_namespace != _pid_namespace():
        return True  # it cannot be seen from here: better refuse than work in its files
    return marker.pid != os.getpid() and _start_ticks(marker.pid) == marker.start_ticks


def _start_ticks(pid: int) -> int | None:
    """None if there is no such process, or only its corpse."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
    except OSError:
        return None
    return None if fields[0] in (b"Z", b"X") else int(fields[19])


def _boot_id() -> str:
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            return file.read().strip()
    except OSError:
        return ""


def _pid_namespace() -> int:
    try:
        return os.stat("/proc/self/ns/pid").st_ino
    except OSError:
        return 0


def _parse(data: bytes) -> Marker | None:
    try:
        return Marker(**json.loads(data))
    except (ValueError, TypeError):
        return None


def same_file(path: Path, fd: int) -> bool:
    try:
        there = os.lstat(path)
    except FileNotFoundError:
        return False
    here = os.fstat(fd)
    return (there.st_dev, there.st_ino) == (here.st_dev, here.st_ino)
