"""File systems: how much room there is, which lie in memory, where one is mounted inside another.

Not promised: quotas, which only a write finds out, and what lies under an overlay.
"""

from __future__ import annotations

import os
import re
from collections import deque
from pathlib import Path
from typing import NamedTuple

_IN_MEMORY = frozenset({"tmpfs", "ramfs", "devtmpfs", "hugetlbfs"})
_UNLIMITED = 1 << 62
_NETWORK = re.compile(
    r"nfs\d?|cifs|smb\w*|lustre|gpfs|beegfs\w*|panfs|ceph|afs|gfs2?|ocfs2|orangefs|pvfs2|wekafs"
    r"|fuse\.(?:sshfs|glusterfs|ceph\S*|juicefs|mfs|lizardfs|rclone|s3fs|beegfs\S*)"
)


class Space(NamedTuple):
    """What an ordinary user can still write."""

    free_bytes: int
    free_inodes: int
    """Very large where the file system makes inodes as it goes (btrfs, most network file systems)."""


class Mount(NamedTuple):
    point: str
    kind: str
    """Type of the file system, as the kernel calls it: ``ext4``, ``tmpfs``, ``nfs4``."""


def space(directory: Path) -> Space:
    """Room in the file system of *directory*. Raises OSError if it is not there."""
    status = os.statvfs(directory)
    return Space(status.f_bavail * status.f_frsize, status.f_favail if status.f_files else _UNLIMITED)


def read_mounts() -> tuple[Mount, ...]:
    """What is mounted in this process's view; empty where the kernel does not tell."""
    try:
        with open("/proc/self/mountinfo", "rb") as lines:
            return parse_mounts(lines.read())
    except OSError:
        return ()


def parse_mounts(text: bytes) -> tuple[Mount, ...]:
    """Mounts of a ``mountinfo`` (proc(5)): field 5 is the mount point, the type follows the lone "-"."""
    mounts = []
    for line in text.splitlines():
        before, dash, after = line.partition(b" - ")
        fields = before.split(b" ")
        if dash and len(fields) > 4:
            mounts.append(Mount(_unescaped(fields[4]), os.fsdecode(after.split(b" ")[0])))
    return tuple(mounts)


def mounts_below(root: str, mounts: tuple[Mount, ...]) -> frozenset[str]:
    """Paths relative to *root* (absolute, without links) on which something is mounted."""
    prefix = root.rstrip("/") + "/"
    below = (mount.point[len(prefix) :] for mount in mounts if mount.point.startswith(prefix))
    return frozenset(path for path in below if path)


def in_memory(directory: Path, mounts: tuple[Mount, ...]) -> bool:
    """Whether what is written to *directory* takes memory instead of disk."""
    return kind_of(directory, mounts) in _IN_MEMORY


def network_kind(directory: Path, mounts: tuple[Mount, ...]) -> str:
    """Type of the file system of *directory* if others may write to it from other nodes; else ""."""
    kind = kind_of(directory, mounts)
    return kind if _NETWORK.fullmatch(kind) else ""


def kind_of(directory: Path, mounts: tuple[Mount, ...]) -> str:
    """Type of the file system that *directory* lies in, as the kernel calls it; "" if it is not known."""
    path = os.path.realpath(directory) + "/"
    kind, longest = "", 0
    for mount in mounts:
        point = mount.point.rstrip("/") + "/"
        if path.startswith(point) and len(point) >= longest:  # of two on one point, the later hides the earlier
            kind, longest = mount.kind, len(point)
    return kind


class Filling:
    """When a file system will be full, as its free space fell in the last two minutes."""

    _WINDOW_S = 120.0
    _LEAST_LOOKS = 4

    def __init__(self) -> None:
        self._looks: deque[tuple[float, int]] = deque()

    def look(self, free_bytes: int, *, now_s: float) -> None:
        self._looks.append((now_s, free_bytes))
        while now_s - self._looks[0][0] > self._WINDOW_S and len(self._looks) > self._LEAST_LOOKS:
            self._looks.popleft()

    @property
    def span_s(self) -> float:
        """Seconds that what is told rests on."""
        return self._looks[-1][0] - self._looks[0][0] if self._looks else 0.0

    @property
    def full_in_s(self) -> float | None:
        """Seconds until nothing is free at this rate; None while it does not fall, or was not seen often enough."""
        if len(self._looks) < self._LEAST_LOOKS:
            return None
        fell_bytes = self._looks[0][1] - self._looks[-1][1]
        return self._looks[-1][1] * self.span_s / fell_bytes if fell_bytes > 0 else None


def _unescaped(field: bytes) -> str:
    """Blank, tab, line feed and backslash are written as three octal digits."""
    return os.fsdecode(re.sub(rb"\\([0-7]{3})", lambda digits: bytes([int(digits[1], 8)]), field))
