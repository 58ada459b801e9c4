"""What deletion must know of inodes: permissions that are ours to give, and names that share one file."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Callable, TypeVar

from byos_run.model import Identity
from byos_run.node.files import identity_of
from byos_run.node.tree import PATH_ONLY

T = TypeVar("T")


class HardLinks:
    """Unlinking one name of a file stamps a new ctime on all its names; this remembers the one before that."""

    def __init__(self) -> None:
        self._stamps: dict[tuple[int, int], tuple[int, int]] = {}

    def identity_before_us(self, status: os.stat_result) -> Identity:
        before, after = self._stamps.get((status.st_dev, status.st_ino), (0, -1))
        identity = identity_of(status)
        return identity._replace(ctime_ns=before) if status.st_ctime_ns == after else identity

    @contextmanager
    def watched(self, fd: int, name: str, status: os.stat_result) -> Iterator[None]:
        """Around the unlinking of *name*."""
        if status.st_nlink == 1 or not stat.S_ISREG(status.st_mode):
            yield
            return
        before = self.identity_before_us(status).ctime_ns
        held = os.open(name, PATH_ONLY | os.O_NOFOLLOW, dir_fd=fd)
        try:
            yield
            self._stamps[status.st_dev, status.st_ino] = (before, os.fstat(held).st_ctime_ns)
        finally:
            os.close(held)


def retried(action: Callable[[], T], fd: int) -> T:
    """*action* in the directory *fd*; if it is not permitted and the directory's own mode is why, once more."""
    try:
        return action()
    except PermissionError:
        mode = os.fstat(fd).st_mode
        if mode & stat.S_IRWXU == stat.S_IRWXU:
            raise
        os.fchmod(fd, stat.S_IMODE(mode) | stat.S_IRWXU)
        return action()


def give_permissions(name: str, fd: int) -> None:
    """Make the directory *name* one that we can read and change, if it is ours and is not; a link is not followed."""
    status = os.stat(name, dir_fd=fd, follow_symlinks=False)
    if status.st_mode & stat.S_IRWXU == stat.S_IRWXU or not stat.S_ISDIR(status.st_mode):
        return
    held = os.open(name, PATH_ONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=fd)
    try:
        # fchmod refuses a path-only descriptor; its name below /proc leads to the same inode and to no other.
        with suppress(PermissionError):  # another user's: perhaps it is readable, and what is in it may go
            os.chmod(f"/proc/self/fd/{held}", stat.S_IMODE(status.st_mode) | stat.S_IRWXU)
    finally:
        os.close(held)


def give_back(directory: Path) -> None:
    """The same for a *directory* by its path, whatever has become of it."""
    with suppress(OSError):
        above = os.open(directory.parent, PATH_ONLY | os.O_DIRECTORY)
        try:
            give_permissions(directory.name, above)
        finally:
            os.close(above)
