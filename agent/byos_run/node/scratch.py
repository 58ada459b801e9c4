"""Where the case lies, and the directories that are made for it.

::

    scratch inside the run directory    →  that path is the case
    "outside", or a path that leads out →  <base>/byos-<run id>/ (0700, with our marker), the case in it

A base is shared by rows of one table and by slots of one node, so it is never itself the case. For "outside" the base
is the first of $BYOS_SCRATCH, $SLURM_TMPDIR, $TMPDIR, /scratch/$USER, /tmp that has room and is not in memory.

Archives are unpacked into a stage beside the case (``node.stage``), which becomes the case by one rename when all of it is proven.
Nothing is deleted here: that is ``node.workspace``.
"""

from __future__ import annotations

import json
import os
import shutil
import stat
from collections.abc import Mapping
from dataclasses import dataclass, replace
from hashlib import blake2b
from pathlib import Path

from byos_run.errors import NodeUnfit, UsageError
from byos_run.model import Left
from byos_run.node.globs import Globs
from byos_run.node.tree import open_beneath, scan
from byos_run.node.volumes import in_memory, read_mounts, space

MARKER = ".byos-marker"
STAGE = ".byos-stage-"
OUTSIDE = "outside"
_MARKER_BYTES = 10_000
HOME = "case"


@dataclass(frozen=True)
class Room:
    """Where a run works."""

    case: Path
    scratch: Path | None = None
    """The marked directory outside the run directory that holds the case; None if the case is in the run directory."""
    identity: tuple[int, int] | None = None
    """(device, inode) of the case, once it is made."""
    made: Path | None = None
    """The highest of the directories that were made for the case, or for *scratch*, to lie in."""


def refuse_run_directory(run_directory: Path, *, home: str) -> None:
    """Raises UsageError for a directory that nobody means to have emptied: "/", $HOME, and what lies above it."""
    here = os.path.realpath(run_directory)
    homes = {os.path.realpath(home)} if home else set()
    if here == "/" or any((path + "/").startswith(here + "/") for path in homes):
        name = "/" if here == "/" else "$HOME" if here in homes else "a directory above $HOME"
        raise UsageError(
            [f"the run directory '{run_directory}' is {name}"], hint="start byos-run in a directory of its own"
        )


def claim_room(
    *,
    scratch: str,
    run_directory: Path,
    environ: Mapping[str, str],
    run_id: str,
    earlier: Room | None = None,
    need_bytes: int = 0,
    need_inodes: int = 0,
) -> Room:
    """Settle where the case lies and make what it lies in; the case itself is made by :func:`become`.

    *earlier*: that of an earlier attempt here, as the journal names it: its case may already hold files.
    Raises UsageError for a case that is not empty and not ours, NodeUnfit if no directory can be used.
    """
    if scratch == OUTSIDE:
        return _make_outside(base_outside(environ, need_bytes, need_inodes), run_directory, run_id)
    refuse_case(scratch=scratch, run_directory=run_directory, earlier_case=earlier.case if earlier else None)
    case = Path(os.path.normpath(run_directory / scratch))
    made = earlier.made if earlier is not None and earlier.made in (case, *case.parents) else None
    made = made or _missing(case.parent if run_directory in case.parents else case)
    if run_directory not in case.parents:
        return replace(_make_outside(case, run_directory, run_id), made=made)
    try:
        case.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise NodeUnfit(f"cannot make '{case.parent}': {error.strerror}") from error
    return Room(case, made=made)


def refuse_case(*, scratch: str, run_directory: Path, earlier_case: Path | None) -> None:
    """Raise UsageError if *scratch* names a case that we may not make or fill, NodeUnfit if it cannot be looked at."""
    case = Path(os.path.normpath(run_directory / scratch))
    if case == run_directory or case in run_directory.parents:
        raise UsageError([f"scratch = '{scratch}' is the run directory itself, or above it"])
    if scratch != OUTSIDE and run_directory in case.parents:
        _refuse_foreign(case, earlier_case)


def _missing(path: Path) -> Path | None:
    """The highest directory on the way to *path* that is not there."""
    missing = None
    while not os.path.lexists(path):
        missing, path = path, path.parent
    return missing


def stage_of(case: Path) -> Path:
    """Where the stage of *case* is: always the same, so that one attempt finds what another left."""
    return case.with_name(STAGE + blake2b(os.fsencode(case.name), digest_size=16).hexdigest())


def is_where_asked(room: Room, *, scratch: str, run_directory: Path, environ: Mapping[str, str]) -> bool:
    """Whether :func:`claim_room` would choose *room*, that of an earlier attempt here, but for the name of its directory."""
    case = Path(os.path.normpath(run_directory / scratch))
    if scratch != OUTSIDE and run_directory in case.parents:
        return room.case == case
    if room.scratch is None or not is_marked(room.scratch, run_directory=run_directory):
        return False
    try:
        return room.scratch.parent == (base_outside(environ, 0, 0) if scratch == OUTSIDE else case)
    except NodeUnfit:
        return False


def become(stage: Path, room: Room) -> Room:
    """*stage* is the case from now on. Raises UsageError if something that is no empty directory is in its place."""
    try:
        os.rename(stage, room.case)
        status = os.lstat(room.case)
    except OSError as error:
        raise UsageError([f"the case directory '{room.case}' is in the way: {error.strerror}"]) from error
    return replace(room, identity=(status.st_dev, status.st_ino))


def bring_home(room: Room, *, run_directory: Path, keep: Globs) -> dict[str, Left]:
    """Copy the files to keep from a case outside to ``case/`` in the run directory.

    Returns those that could not be copied, by path in the case. Links, FIFOs and the like are not copied. Raises
    OSError if there is no case.
    """
    left: dict[str, Left] = {}
    for path, status in scan(room.case, problems=[]):
        if stat.S_ISREG(status.st_mode) and keep.matches_or_lies_below(path):
            try:
                _copy(room.case, path, run_directory / HOME / path)
            except OSError as error:
                reason = f"to be kept, but not copied to the run directory: {error.strerror}"
                left[path] = Left(str(room.case / path), reason, expected=False)
    return left


def stages_of(case: Path) -> list[Path]:
    """Stages beside *case*, and what is noted of them: after a kill, leftovers of earlier attempts."""
    try:
        names = os.listdir(case.parent)
    except OSError:
        return []
    return sorted(case.with_name(name) for name in names if name.startswith(STAGE))


def is_marked(root: Path, *, run_directory: Path) -> bool:
    """Whether *root* is a directory of our user that holds the marker of a run in *run_directory*."""
    try:
        status = os.lstat(root)
        fd = open_beneath(root, MARKER)
    except OSError:
        return False
    with os.fdopen(fd, "rb") as marker:
        there = os.fstat(fd)
        if {status.st_uid, there.st_uid} != {os.geteuid()} or there.st_size > _MARKER_BYTES:
            return False
        try:
            content = json.loads(marker.read())
        except ValueError:
            return False
    return isinstance(content, dict) and content.get("run_directory") == str(run_directory)


def _refuse_foreign(case: Path, earlier_case: Path | None) -> None:
    try:
        status = os.lstat(case)
    except FileNotFoundError:
        return
    except OSError as error:
        raise NodeUnfit(f"cannot look at '{case}': {error.strerror}") from error
    hint = "move it away, or name another directory by 'scratch'"
    if not stat.S_ISDIR(status.st_mode):
        raise UsageError([f"the case directory '{case}' is not a directory"], hint=hint)
    if case != earlier_case and os.listdir(case):
        raise UsageError([f"the case directory '{case}' is not empty, and no earlier attempt made it"], hint=hint)


def base_outside(environ: Mapping[str, str], need_bytes: int, need_inodes: int) -> Path:
    user = environ.get("USER", "") or environ.get("LOGNAME", "")
    candidates = [environ.get(name, "") for name in ("BYOS_SCRATCH", "SLURM_TMPDIR", "TMPDIR")]
    candidates += [f"/scratch/{user}" if user else "", "/tmp"]  # noqa: S108 - the last resort that the contract names
    refused = []
    for candidate in candidates:
        if not candidate or candidate == OUTSIDE:
            continue
        reason = _unfit(Path(candidate), need_bytes, need_inodes)
        if not reason:
            return Path(candidate)
        refused.append(f"'{candidate}' {reason}")
    raise NodeUnfit(f"no scratch outside the run directory: {', '.join(refused)}", hint="set BYOS_SCRATCH")


def _unfit(base: Path, need_bytes: int, need_inodes: int) -> str:
    if not base.is_absolute() or not base.is_dir():
        return "is not there"
    if not os.access(base, os.W_OK | os.X_OK):
        return "cannot be written to"
    if in_memory(base, read_mounts()):
        return "is in memory"
    free = space(base)
    if free.free_bytes < max(need_bytes, 1):
        return f"has {free.free_bytes:,} bytes free of {need_bytes:,}"
    if free.free_inodes < max(need_inodes, 1):
        return f"has {free.free_inodes:,} inodes free of {need_inodes:,}"
    return ""


def _make_outside(base: Path, run_directory: Path, run_id: str) -> Room:
    scratch = base / f"byos-{run_id}"
    try:
        try:
            base.mkdir(parents=True, exist_ok=True)
            scratch.mkdir(mode=0o700)
        except FileNotFoundError:  # a neighbour's run, which had made the base, has ended and taken it away
            base.mkdir(parents=True, exist_ok=True)
            scratch.mkdir(mode=0o700)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        with os.fdopen(os.open(scratch / MARKER, flags, 0o600), "w", encoding="utf-8") as marker:
            json.dump({"run_id": run_id, "run_directory": str(run_directory)}, marker)
    except OSError as error:
        raise NodeUnfit(f"cannot make '{scratch}': {error.strerror}") from error
    return Room(scratch / "case", scratch)


def _copy(root: Path, path: str, target: Path) -> None:
    fd = open_beneath(root, path)
    with os.fdopen(fd, "rb") as source:
        target.parent.mkdir(parents=True, exist_ok=True)
        with open(target, "xb") as copy:
            shutil.copyfileobj(source, copy, 1 << 20)
        status = os.fstat(fd)
        os.utime(target, ns=(status.st_atime_ns, status.st_mtime_ns))
