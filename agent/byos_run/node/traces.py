"""What MPI leaves on a node when it is killed: shared memory and session directories, written down as soon as they are seen.

    while the run lives   a file in /dev/shm, named after this process, lists what the run's processes had mapped
    at its end            what is listed and still there goes, then the file
    at the next start     the lists of dead processes of this user and boot are worked off likewise

A path is ours by proof: one of our processes had it mapped, and a session directory bears the number of one of them. What
somebody still has mapped stays.

Not promised: what was made and left between two looks; segments that are not named in /dev/shm (System V).
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from byos_run.node import workspace
from byos_run.node.mpi import SESSION, mapped
from byos_run.node.neighbour import this_process
from byos_run.node.shim import kin, pids

_MEMORY = Path("/dev/shm")  # noqa: S108 - where the kernel keeps shared memory
_NAME = re.compile(r"\.byos-traces-(\d+)-(\d+)-(\d+)-([0-9a-f]*)-(\d+)")
_LONGEST_BYTES = 1 << 20


class Traces:
    """Of one run. Told by the thread that watches it."""

    def __init__(self, *, directory: Path = _MEMORY) -> None:
        self._path = directory / _name()
        self._seen: set[str] = set()

    def saw(self, paths: Iterable[str]) -> None:
        """Does not raise: where nothing can be written down, what a kill leaves stays."""
        new = set(paths) - self._seen
        if not new:
            return
        self._seen |= new
        with suppress(OSError):
            fd = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            try:
                os.write(fd, "".join(f"{path}\n" for path in sorted(new)).encode("utf-8", "surrogateescape"))
            finally:
                os.close(fd)

    def clean(self) -> None:
        """Once no process of the run lives."""
        if self._seen:
            _remove(self._seen)
            workspace.remove_file_now(self._path)


def clean_dead(*, directory: Path = _MEMORY) -> None:
    """Remove what runs of this user left here that were killed with all that they had started."""
    with suppress(OSError):
        for name in os.listdir(directory):
            if (found := _NAME.fullmatch(name)) and _is_dead(*found.groups()):
                _remove(_listed(directory / name))
                workspace.remove_file_now(directory / name)


def _remove(paths: Iterable[str]) -> None:
    in_use = {path for its in map(mapped, pids()) for path in (*its.shared_memory, *its.sessions)}
    free = sorted(set(paths) - in_use)
    workspace.remove_shared_memory(free)
    for path in free:
        if SESSION.fullmatch(os.fsencode(path)) and workspace.is_own_directory(Path(path)):
            workspace.remove_tree(Path(path))


def _name() -> str:
    own = this_process(run_id="", locked=False)
    return f".byos-traces-{os.geteuid()}-{own.pid}-{own.start_ticks}-{own.boot_id.replace('-', '')}-{own.pid_namespace}"


def _is_dead(uid: str, pid: str, start_ticks: str, boot_id: str, namespace: str) -> bool:
    own = this_process(run_id="", locked=False)
    here = (str(os.geteuid()), own.boot_id.replace("-", ""), str(own.pid_namespace))
    living = kin(int(pid))
    return (uid, boot_id, namespace) == here and not (
        living is not None and living.alive and living.start_ticks == int(start_ticks)
    )


def _listed(path: Path) -> list[str]:
    """The paths in a list that is a plain file of our user; the last one may be torn."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return []
    try:
        if os.fstat(fd).st_uid != os.geteuid():
            return []
        text = os.read(fd, _LONGEST_BYTES)
    except OSError:
        return []
    finally:
        os.close(fd)
    return [os.fsdecode(line) for line in text.split(b"\n")[:-1]]
