"""The private directory beside the case in which a fetch works, found again by the next one if it is killed.

::

    .byos-stage-<digest of the case's name>/    locked while its owner lives; a rename makes it the case
    .byos-stage-<…>.files                       a line for each plain file that is whole: nothing else tells its CRC-32

A link, a file or another user's directory in its place, or a lock that cannot be had: a fresh name, and nothing is kept.
Where a file system knows no locks, only a caller who is alone for certain goes on with what is there.

Not promised: fsync. What was found has to be proved by whoever keeps it.
"""

from __future__ import annotations

import errno
import json
import os
import stat
import uuid
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from byos_run.errors import NodeUnfit, UsageError, printable
from byos_run.model import Identity, Left
from byos_run.node import scratch, workspace
from byos_run.node.files import Snapshot
from byos_run.node.neighbour import same_file, try_lock
from byos_run.node.scratch import STAGE, Room
from byos_run.node.tree import DIRECTORY, open_beneath

_TRIES = 3
_KEPT = Left("", "proved, so that it need not be fetched again", expected=True)
_APPEND = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class Stage:
    """A stage that is ours until :meth:`leave`. Made by :func:`enter`."""

    def __init__(self, path: Path, fd: int, *, is_new: bool) -> None:
        self.path = path
        self.fd = fd
        """The open directory; it holds the lock."""
        self.is_new = is_new
        """Nothing can be in it."""
        status = os.fstat(fd)
        self._identity = (status.st_dev, status.st_ino)
        self._notes = path.with_name(f"{path.name}.files")
        self._notes_fd = -1

    def notes(self) -> Iterator[Any]:
        """What :meth:`note` was given in attempts before this one; lines that were torn are passed over."""
        if self.is_new:
            return
        try:
            fd = open_beneath(self._notes.parent, self._notes.name)
        except OSError:
            return
        with os.fdopen(fd, "rb") as lines:
            if not is_ours_alone(os.fstat(fd)):
                return
            for line in lines:
                with suppress(ValueError):
                    yield json.loads(line)

    def note(self, item: Any) -> None:
        """Remember *item*, which JSON can hold; for one thread. A line that is lost costs fetching a file again."""
        with suppress(OSError):
            if self._notes_fd < 0:
                self._notes_fd = self._open_notes()
            # Begun by the end of the line before, which a kill may have torn.
            os.write(self._notes_fd, b"\n" + json.dumps(item, separators=(",", ":")).encode())

    def _open_notes(self) -> int:
        if self.is_new:
            workspace.remove_tree(self._notes)
        fd = os.open(self._notes, _APPEND, 0o600)
        if is_ours_alone(os.fstat(fd)):
            return fd
        os.close(fd)
        workspace.remove_tree(self._notes)
        return os.open(self._notes, _APPEND | os.O_EXCL, 0o600)

    def clear(self, kept: Snapshot) -> bool:
        """Delete all but *kept*, each file as it was when it was proved; False: all is gone.

        That is so if one file stood for two names, as where case does not count. Raises NodeUnfit if something will not go.
        """

        def verdict(path: str, _: os.stat_result, identity: Identity) -> Left | None:
            return _KEPT if kept.holds(path, identity) else None

        left = workspace.empty_directory(self.path, verdict=verdict).left
        if len(left) == len(kept) and all(item is _KEPT for item in left):
            return True
        for item in workspace.empty_directory(self.path).left:
            raise NodeUnfit(
                f"cannot clean '{self.path}', which a killed fetch left: {printable(item.path)}: {item.reason}",
                hint="delete it by hand",
            )
        return False

    def become(self, room: Room) -> Room:
        """It is the case from now on. Raises UsageError if something that is no empty directory is in its place."""
        workspace.remove_tree(self._notes)
        return scratch.become(self.path, room)

    def leave(self) -> None:
        """Delete it, unless it is the case, and what was noted; let go of the lock."""
        workspace.remove_tree(self.path, identity=self._identity)
        if self._notes_fd >= 0 or not self.is_new:
            workspace.remove_tree(self._notes)
        for fd in (self.fd, self._notes_fd):
            if fd >= 0:
                os.close(fd)


def enter(case: Path, *, is_alone: bool) -> Stage:
    """The stage of *case*, with what a killed fetch left in it, or a fresh one.

    *is_alone*: no other process fetches into *case*, a marker says so. Raises UsageError if one does, NodeUnfit.
    """
    path = scratch.stage_of(case)
    try:
        return _found(path, case, is_alone=is_alone) or _fresh(case.with_name(f"{STAGE}{uuid.uuid4().hex}"))
    except OSError as error:
        raise NodeUnfit(f"cannot make '{path}': {error.strerror}") from error


def _found(path: Path, case: Path, *, is_alone: bool) -> Stage | None:
    """The stage *path*, made if need be; None if it is no good. Raises OSError, UsageError."""
    for _ in range(_TRIES):
        is_new = True
        try:
            path.mkdir(mode=0o700)
        except FileExistsError:
            is_new = False
        try:
            fd = os.open(path, DIRECTORY)
        except FileNotFoundError:  # its owner has just ended
            continue
        except OSError as error:
            if error.errno not in (errno.ENOTDIR, errno.ELOOP, errno.EACCES):
                raise
            workspace.remove_tree(path)
            continue
        locked, status, is_there = try_lock(fd), os.fstat(fd), same_file(path, fd)
        is_ours = is_new or (status.st_uid == os.geteuid() and (is_alone or locked is not None))
        if is_there and is_ours and locked is not False:
            os.fchmod(fd, 0o700)
            return Stage(path, fd, is_new=is_new)
        os.close(fd)
        if is_there and locked is False and not is_alone:
            raise UsageError([f"another byos-run is fetching into '{case}'"], hint="wait until it has ended")
        if is_there:
            return None
    return None


def _fresh(path: Path) -> Stage:
    path.mkdir(mode=0o700)
    return Stage(path, os.open(path, DIRECTORY), is_new=True)


def is_left(room: Room) -> bool:
    """Whether an attempt that worked in *room* left something to go on with: its stage, or a case that is one again now."""
    stage = scratch.stage_of(room.case)
    if workspace.is_own_directory(stage):
        return True
    try:
        status = os.lstat(room.case)
        if not workspace.is_own_directory(room.case) or (status.st_dev, status.st_ino) != room.identity:
            return False
        os.rename(room.case, stage)
    except OSError:
        return False
    return True


def is_ours_alone(status: os.stat_result) -> bool:
    """A plain file of our user that has no other name."""
    return stat.S_ISREG(status.st_mode) and status.st_uid == os.geteuid() and status.st_nlink == 1
