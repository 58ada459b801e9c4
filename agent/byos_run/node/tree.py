"""A tree of directories, walked by descriptors: no link is followed, no depth is too deep.

::

    down: openat(child, no link)            up: the parent's descriptor if it is kept, else openat("..") that proves
    list a directory at once, then visit    to be the directory we came from

Descriptors held at once ≤ 128, memory ≈ the names of the directories that wait to be visited: a path is put together
when it is needed, so a tree 2,000 levels deep costs no more than a flat one.

Not promised: a picture of one moment. What appears or vanishes during the walk may or may not be seen.
"""

from __future__ import annotations

import errno
import os
import stat
import time
from collections.abc import Collection, Iterator
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Callable

DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
PATH_ONLY = getattr(os, "O_PATH", os.O_RDONLY) | os.O_CLOEXEC
"""For a directory that one may enter but not list."""
_KEPT_LEVELS = 100
_RACY_NS = 2 * 10**9
"""Longer than a tick of the coarsest clock that stamps directories."""


class Descent:
    """A place in a tree, held by descriptors; starts at *root_fd*, which it neither owns nor closes."""

    def __init__(self, root_fd: int) -> None:
        status = os.fstat(root_fd)
        self._levels: list[tuple[int, tuple[int, int]]] = [(root_fd, (status.st_dev, status.st_ino))]

    @property
    def fd(self) -> int:
        """Descriptor of the directory we are in."""
        return self._levels[-1][0]

    def down(self, name: str) -> os.stat_result:
        """Enter the directory *name*. Raises OSError: not there, not a directory, a link, not readable."""
        fd = os.open(name, DIRECTORY, dir_fd=self.fd)
        status = os.fstat(fd)
        if len(self._levels) > _KEPT_LEVELS:
            above, identity = self._levels[-1]
            os.close(above)
            self._levels[-1] = (-1, identity)
        self._levels.append((fd, (status.st_dev, status.st_ino)))
        return status

    def up(self) -> None:
        """Back to the directory above. Raises OSError (ESTALE) if the directory was moved meanwhile."""
        fd, _ = self._levels.pop()
        try:
            above, identity = self._levels[-1]
            if above < 0:
                above = os.open("..", DIRECTORY, dir_fd=fd)
                self._levels[-1] = (above, identity)
                status = os.fstat(above)
                if (status.st_dev, status.st_ino) != identity:
                    raise OSError(errno.ESTALE, "directory was moved while it was visited")
        finally:
            os.close(fd)

    def __enter__(self) -> Descent:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for fd, _ in self._levels[1:]:
            if fd >= 0:
                os.close(fd)
        del self._levels[1:]


def scan(
    root: Path,
    *,
    skip: Collection[str] = (),
    problems: list[tuple[str, OSError]],
    enters: Callable[[str, int], None] = lambda _prefix, _fd: None,
) -> Iterator[tuple[str, os.stat_result]]:
    """Yield (path, lstat) of everything below *root* that is no directory, in no order.

    *skip*: paths that are passed over, directories with all below. What cannot be read is added to *problems*. *enters* is told
    of each directory before it is listed, as ``"a/b/"`` and a descriptor.
    Raises OSError if *root* itself is no directory or cannot be opened.
    """
    root_fd = os.open(root, DIRECTORY)
    try:
        with Descent(root_fd) as descent:
            names: list[str] = []
            waiting: list[list[str]] = []
            while True:
                waiting.append([])
                prefix = "".join(f"{name}/" for name in names)
                enters(prefix, descent.fd)
                yield from _listing(descent.fd, prefix, skip, waiting[-1], problems)
                if not _next_directory(descent, names, waiting, problems):
                    return
    finally:
        os.close(root_fd)


def _listing(
    fd: int, prefix: str, skip: Collection[str], directories: list[str], problems: list[tuple[str, OSError]]
) -> Iterator[tuple[str, os.stat_result]]:
    with os.scandir(fd) as entries:
        for entry in entries:
            path = prefix + entry.name
            if skip and path in skip:
                continue
            if entry.is_dir(follow_symlinks=False):
                directories.append(entry.name)
                continue
            try:
                status = entry.stat(follow_symlinks=False)
            except FileNotFoundError:
                continue
            except OSError as error:
                problems.append((path, error))
                continue
            yield path, status


def _next_directory(
    descent: Descent, names: list[str], waiting: list[list[str]], problems: list[tuple[str, OSError]]
) -> bool:
    """Go to the next directory that waits, up as far as needed; False when none is left."""
    while waiting:
        while waiting[-1]:
            name = waiting[-1].pop()
            try:
                descent.down(name)
            except FileNotFoundError:
                continue
            except OSError as error:
                problems.append(("/".join([*names, name]), error))
                continue
            names.append(name)
            return True
        waiting.pop()
        if names:
            try:
                descent.up()
            except OSError as error:
                problems.append(("/".join(names), error))
                return False
            names.pop()
    return False


class Familiar:
    """A tree that is looked at again and again, most of it unchanged.

    A directory whose ctime is what it was when it was listed has the same names, so :meth:`news` costs an lstat for each
    directory, not for each file. What is written in place is not seen by that: the caller names the files that it asks about,
    and walks the whole tree now and then.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._listed: dict[str, int] = {}
        """``"a/b/"`` → its ctime when it was listed."""

    def walk(self, *, problems: list[tuple[str, OSError]]) -> Iterator[tuple[str, os.stat_result]]:
        """As :func:`scan`."""
        self._listed = {}
        yield from scan(self._root, problems=problems, enters=self._enter)

    def news(self, paths: Collection[str]) -> Iterator[tuple[str, os.stat_result]]:
        """(path, lstat) of *paths*, and of what lies in directories that are new or not as they were when they were listed."""
        waiting = [prefix for prefix, stamp in list(self._listed.items()) if self._stamp(prefix) != stamp]
        told = set()
        for prefix in waiting:
            below: list[str] = []
            try:
                fd = os.open(self._root / prefix, DIRECTORY)
            except OSError:
                self._listed.pop(prefix, None)
                continue
            try:
                self._enter(prefix, fd)
                for path, status in _listing(fd, prefix, (), below, []):
                    told.add(path)
                    yield path, status
            finally:
                os.close(fd)
            waiting.extend(new for name in below if (new := f"{prefix}{name}/") not in self._listed)
        for path in paths:
            if path not in told:
                with suppress(OSError):
                    yield path, os.lstat(self._root / path)

    def _stamp(self, prefix: str) -> int:
        try:
            return os.lstat(f"{self._root}/{prefix[:-1]}").st_ctime_ns
        except OSError:
            return -1

    def _enter(self, prefix: str, fd: int) -> None:
        changed_ns = os.fstat(fd).st_ctime_ns
        # What is made in it within the same tick leaves the stamp as it is.
        self._listed[prefix] = changed_ns if changed_ns < time.time_ns() - _RACY_NS else -2


def leaves(root: Path) -> Iterator[str]:
    """Paths of the directories below *root* that hold no directory. Raises OSError if *root* cannot be opened."""
    root_fd = os.open(root, DIRECTORY)
    try:
        with Descent(root_fd) as descent:
            names: list[str] = []
            waiting: list[list[str]] = []
            while True:
                with os.scandir(descent.fd) as entries:
                    waiting.append([entry.name for entry in entries if entry.is_dir(follow_symlinks=False)])
                if names and not waiting[-1]:
                    yield "/".join(names)
                if not _next_directory(descent, names, waiting, []):
                    return
    finally:
        os.close(root_fd)


def open_beneath(root: Path, path: str) -> int:
    """Descriptor of the plain file *path* below *root*, opened through no link, never waiting for a FIFO's writer.

    Raises OSError: not there, not readable, a link on the way (ELOOP, ENOTDIR), no plain file (EINVAL).
    """
    directories, _, name = path.rpartition("/")
    at = os.open(root, DIRECTORY)
    try:
        for part in directories.split("/") if directories else ():
            above, at = at, os.open(part, DIRECTORY, dir_fd=at)
            os.close(above)
        fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC, dir_fd=at)
    finally:
        os.close(at)
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise OSError(errno.EINVAL, "not a plain file", path)
    return fd
