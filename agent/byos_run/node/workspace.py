"""The one door of deletion: whole trees, a marked scratch directory, one output, a file of secrets, shared memory.

By descriptors, in one loop, without recursion::

    enter a directory (no link, same device, nothing mounted on it) → spare or unlink what is no directory →
    the same for each directory inside → rmdir; not empty because something new appeared: look again, at most 3 times

    EACCES  give ourselves the directory's permissions, once          ENOENT  it is gone, which was the aim
    other   keep it, and say why

A directory outside the run directory goes only if it holds our marker, written by our user for this run directory.
The marker goes last, so that a removal that was killed can be finished by the next start.

Not promised: that a file survives which somebody moves into a tree while the tree is deleted.
"""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from byos_run.model import Identity, Left
from byos_run.node.files import identity_of
from byos_run.node.inodes import HardLinks, give_permissions, retried
from byos_run.node.removed import Removed, Verdict, spare_nothing
from byos_run.node.scratch import MARKER, Room, is_marked
from byos_run.node.tree import DIRECTORY, PATH_ONLY, Descent
from byos_run.node.volumes import mounts_below, read_mounts

_LOOKS = 3
_SHARED_MEMORY = re.compile("/dev/shm/[^/]+")  # noqa: S108 - where the kernel keeps shared memory


def empty_directory(
    root: Path, *, verdict: Verdict = spare_nothing, label: str = "", links: HardLinks | None = None
) -> Removed:
    """Delete all below *root* that *verdict* does not spare; *root* stays. No OSError: what stays is in ``left``.

    *label* is put before each path that is told; *links* are those of walks that belong together.
    """
    try:
        root_fd = os.open(root, DIRECTORY)
    except FileNotFoundError:
        return Removed()
    except OSError as error:
        return _refused(root, label, f"cannot be opened: {error.strerror}")
    try:
        return _Removal(
            root_fd=root_fd, real_root=os.path.realpath(root), verdict=verdict, label=label, links=links or HardLinks()
        ).run()  # fmt: skip
    finally:
        os.close(root_fd)


def remove_tree(
    root: Path,
    *,
    verdict: Verdict = spare_nothing,
    label: str = "",
    identity: tuple[int, int] | None = None,
    links: HardLinks | None = None,
) -> Removed:
    """:func:`empty_directory`, then *root* itself if nothing is left in it. A link is unlinked, not followed.

    *identity*: (device, inode) that *root* had when it was made; another directory in its place is left alone.
    """
    try:
        parent = os.open(root.parent, PATH_ONLY | os.O_DIRECTORY)
    except FileNotFoundError:
        return Removed()
    except OSError as error:
        return _refused(root, label, _reason(error))
    removed = Removed()
    try:
        before = os.stat(root.name, dir_fd=parent, follow_symlinks=False)
        if identity not in (None, (before.st_dev, before.st_ino)):
            return _refused(root, label, "another directory has taken its place")
        if not stat.S_ISDIR(before.st_mode):
            os.unlink(root.name, dir_fd=parent)
            return Removed(files=1, paths=[_told(root, label)])
        if any(mount.point == os.path.realpath(root) for mount in read_mounts()):
            return _refused(root, label, "something is mounted there", expected=True)
        give_permissions(root.name, parent)
        for _ in range(_LOOKS):
            removed.then(empty_directory(root, verdict=verdict, label=label, links=links))
            if removed.left or _rmdir_same(root.name, parent, before):
                break
        else:
            removed.left.append(Left(_told(root, label), _GROWS, False))
        removed.directories += not removed.left
    except FileNotFoundError:
        pass
    except OSError as error:
        removed.left.append(Left(_told(root, label), _reason(error), False))
    finally:
        os.close(parent)
    return removed


def remove_marked(
    root: Path,
    *,
    run_directory: Path,
    verdict: Verdict = spare_nothing,
    label: str = "",
    links: HardLinks | None = None,
) -> Removed:
    """:func:`remove_tree` of a directory outside the run directory: only if it is marked as this run directory's."""
    if not is_marked(root, run_directory=run_directory):
        if not os.path.lexists(root):
            return Removed()
        with suppress(OSError):  # all but the last step of an earlier removal was done: the marker is gone, it is empty
            os.rmdir(root)
            return Removed(directories=1)
        return _refused(root, label, "it does not carry our marker", expected=True)

    def all_but_the_marker(path: str, status: os.stat_result, identity: Identity) -> Left | None:
        return Left(MARKER, "", True) if path == MARKER else verdict(path, status, identity)

    removed = remove_tree(root, verdict=all_but_the_marker, label=label, links=links)
    removed.left = [item for item in removed.left if item.path != MARKER]
    if not removed.left:
        removed.then(remove_tree(root, label=label))
    return removed


def remove_file_now(path: Path) -> Left | None:
    """Delete a file of secrets; if its directory does not let us, empty it. What could not be done is returned."""
    try:
        parent = os.open(path.parent, DIRECTORY)
        try:
            retried(lambda: os.unlink(path.name, dir_fd=parent), parent)
        finally:
            os.close(parent)
    except FileNotFoundError:
        return None
    except OSError as error:
        with suppress(OSError):
            os.close(os.open(path, os.O_WRONLY | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC))
            return Left(path.name, f"emptied, but not deleted: {_reason(error)}", False)
        return Left(path.name, _reason(error), False)
    return None


def remove_if_empty(path: Path) -> None:
    """Delete the directory *path* if nothing is in it."""
    with suppress(OSError):
        os.rmdir(path)


def remove_made(room: Room) -> int:
    """Delete the directories that were made for *room* to lie in, as far as they are empty; how many went."""
    above = (room.scratch or room.case).parent
    count = 0
    while room.made is not None and room.made in (above, *above.parents) and is_own_directory(above):
        try:
            os.rmdir(above)
        except OSError:
            break
        above, count = above.parent, count + 1
    return count


def remove_if_unchanged(root: Path, path: str, *, identity: Identity) -> bool:
    """Delete the plain file *path* below *root* if it is still *identity* and has no other name; whether it went.

    Reached by descriptors, through no link. Nobody may have it open: between the last look and the deletion nothing is locked.
    """
    directories, _, name = path.rpartition("/")
    try:
        at = os.open(root, DIRECTORY)
        try:
            for part in directories.split("/") if directories else ():
                above, at = at, os.open(part, DIRECTORY, dir_fd=at)
                os.close(above)
            status = os.stat(name, dir_fd=at, follow_symlinks=False)
            if not stat.S_ISREG(status.st_mode) or status.st_nlink > 1 or identity_of(status) != identity:
                return False
            os.unlink(name, dir_fd=at)
        finally:
            os.close(at)
    except OSError:
        return False
    return True


def is_own_directory(path: Path) -> bool:
    """A directory, no link to one, of our user."""
    try:
        status = os.lstat(path)
    except OSError:
        return False
    return stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid()


def remove_shared_memory(paths: Iterable[str]) -> list[str]:
    """Delete those segments of *paths*, seen mapped by our ranks, that are plain files of our user; returns what went."""
    removed = []
    for path in paths:
        with suppress(OSError):
            status = os.lstat(path)
            if _SHARED_MEMORY.fullmatch(path) and stat.S_ISREG(status.st_mode) and status.st_uid == os.geteuid():
                os.unlink(path)
                removed.append(path)
    return removed


@dataclass
class _Frame:
    name: str
    waiting: list[str] = field(default_factory=list)
    spared: bool = False


class _Removal:
    """One walk that deletes."""

    def __init__(self, *, root_fd: int, real_root: str, verdict: Verdict, label: str, links: HardLinks) -> None:
        self._root_fd = root_fd
        self._device = os.fstat(root_fd).st_dev
        self._mounts = mounts_below(real_root, read_mounts())
        self._verdict = verdict
        self._label = label
        self._frames = [_Frame("")]
        self._looks: dict[str, int] = {}
        self._links = links
        self._removed = Removed()

    def run(self) -> Removed:
        with Descent(self._root_fd) as descent:
            try:
                self._sweep(descent.fd)
                while True:
                    if self._frames[-1].waiting:
                        self._enter(descent, self._frames[-1].waiting.pop())
                    elif len(self._frames) > 1:
                        self._leave(descent)
                    else:
                        return self._removed
            except OSError as error:  # a directory that moved while we were in it, or a disk that fails
                self._keep(self._path(), _reason(error))
        return self._removed

    def _path(self, name: str = "") -> str:
        return "/".join([*(frame.name for frame in self._frames[1:]), *([name] if name else ())])

    def _keep(self, path: str, reason: str, *, expected: bool = False) -> None:
        self._removed.left.append(Left(self._label + path, reason, expected))
        self._frames[-1].spared = True

    def _sweep(self, fd: int) -> None:
        prefix = f"{self._path()}/" if len(self._frames) > 1 else ""
        with os.scandir(fd) as entries:
            for entry in entries:
                self._judge(fd, prefix + entry.name, entry.name)

    def _judge(self, fd: int, path: str, name: str) -> None:
        try:
            status = retried(lambda: os.stat(name, dir_fd=fd, follow_symlinks=False), fd)
        except FileNotFoundError:
            return
        except OSError as error:
            self._keep(path, _reason(error))
            return
        is_directory = stat.S_ISDIR(status.st_mode)
        # Only a directory's device tells: a layered file system gives its files those of the layers.
        if path in self._mounts or (is_directory and status.st_dev != self._device):
            self._keep(path, "something is mounted there", expected=True)
            return
        spared = self._verdict(path, status, self._links.identity_before_us(status))
        if spared is not None:
            self._removed.left.append(spared)
            self._frames[-1].spared = True
        elif is_directory:
            self._frames[-1].waiting.append(name)
        else:
            self._unlink(fd, path, name, status)

    def _unlink(self, fd: int, path: str, name: str, status: os.stat_result) -> None:
        try:
            with self._links.watched(fd, name, status):
                retried(lambda: os.unlink(name, dir_fd=fd), fd)
        except FileNotFoundError:
            return
        except OSError as error:
            self._keep(path, _reason(error))
            return
        self._removed.count(self._label + path, status)

    def _enter(self, descent: Descent, name: str) -> None:
        try:
            give_permissions(name, descent.fd)
            descent.down(name)
        except FileNotFoundError:
            return
        except OSError as error:
            self._keep(self._path(name), _reason(error))
            return
        self._frames.append(_Frame(name))
        self._sweep(descent.fd)

    def _leave(self, descent: Descent) -> None:
        path = self._path()
        frame = self._frames.pop()
        descent.up()
        if frame.spared:
            self._frames[-1].spared = True
            return
        try:
            retried(lambda: os.rmdir(frame.name, dir_fd=descent.fd), descent.fd)
            self._removed.directories += 1
        except FileNotFoundError:
            return
        except OSError as error:
            looks = self._looks[path] = self._looks.get(path, 1) + 1
            if error.errno == errno.ENOTEMPTY and looks <= _LOOKS:
                self._frames[-1].waiting.append(frame.name)
            else:
                self._keep(path, _GROWS if error.errno == errno.ENOTEMPTY else _reason(error))


_GROWS = "something new appears in it again and again"


def _rmdir_same(name: str, parent: int, before: os.stat_result) -> bool:
    """Remove the empty directory; False if it is not empty. Raises OSError, ESTALE if it is not the one we emptied."""
    after = os.stat(name, dir_fd=parent, follow_symlinks=False)
    if (after.st_dev, after.st_ino) != (before.st_dev, before.st_ino):
        raise OSError(errno.ESTALE, "another directory has taken its place")
    try:
        os.rmdir(name, dir_fd=parent)
    except OSError as error:
        if error.errno != errno.ENOTEMPTY:
            raise
        return False
    return True


def _told(root: Path, label: str) -> str:
    return label.rstrip("/") or str(root)


def _refused(root: Path, label: str, reason: str, *, expected: bool = False) -> Removed:
    return Removed(left=[Left(_told(root, label), reason, expected)])


def _reason(error: OSError) -> str:
    if error.errno == errno.EPERM:
        return "operation not permitted: an immutable file, or another user's"
    return (error.strerror or str(error)).lower()
