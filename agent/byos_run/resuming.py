"""What an interrupted attempt left → the case, before the solver starts.

::

    on this node    the case is as it was fetched, by its snapshot      it stays: nothing is fetched again
                    … and files that the journal knows as acknowledged  those that ``resume.files`` names stay, the rest goes
                    half fetched, or changed since                      the next fetch keeps what proves right of it
    in the bucket   the newest whole file of each ``resume.files`` glob is brought, proved by its CRC-32, with its time
                    one that is not what the manifest or inventory says gives way to the next newest

What was brought counts as input: unchanged it stays the output of the attempt that wrote it. Everything else is computed again.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from byos_run import log
from byos_run.bucket.wire import Wire
from byos_run.errors import printable
from byos_run.model import Identity, Job, Left, Place, S3Url, Tally
from byos_run.node import files, stage, workspace
from byos_run.node.globs import Globs
from byos_run.node.journal import Earlier, Journal
from byos_run.node.pool import Pool
from byos_run.node.scratch import Room, is_where_asked
from byos_run.node.tree import leaves, scan
from byos_run.steps.entries import Entry
from byos_run.steps.inherited import Inherited

if TYPE_CHECKING:
    from byos_run.steps.bring import Bringer
    from byos_run.steps.verify import Problem

_READERS = 8
_NEEDED = Left("", "the next solver needs it", expected=True)


@dataclass(frozen=True)
class Resumed:
    """One file of an interrupted attempt that is in the case again."""

    path: str
    attempt: int
    size_bytes: int
    mtime_s: float
    was_here: bool
    """It was on this node already."""

    @property
    def document(self) -> dict[str, Any]:
        return {"path": printable(self.path), "attempt": self.attempt, "bytes": self.size_bytes, "mtime": self.mtime_s}


def resume(
    earlier: Inherited, *, globs: Sequence[str], case: Path, prefix: S3Url, wire: Wire, tally: Tally,
    warn: Callable[[str], None],
) -> list[Resumed]:  # fmt: skip
    """Bring the newest whole file of each of *globs* into *case*. Raises NodeUnfit, AccessRefused, StoreUnreachable, Stopped."""
    from byos_run.steps import bring, verify  # few runs resume, every run starts

    entries = [(_in_case(entry, item), int(item["attempt"])) for entry, item in earlier.entries(prefix=prefix)]
    found: dict[str, Resumed] = {}
    with Pool(name="read", width=_READERS) as readers:
        bringer = bring.Bringer(case, overwrite=True, tally=tally)
        for glob in globs:
            wanted = Globs.of([glob])
            named = [(entry, attempt) for entry, attempt in entries if entry.path and wanted.matches(entry.path)]
            for entry, attempt in sorted(named, key=lambda pair: (pair[0].mtime_s, pair[0].path), reverse=True):
                try:
                    was_here = bringer.has(entry)
                    problem = None if was_here else _bring(bringer, entry, wire=wire, readers=readers, tally=tally)
                except bring.Differs as reason:
                    problem = verify.Problem("in the way", entry.path, str(reason))
                if problem is None:
                    resumed = Resumed(entry.path, attempt, entry.file[0], entry.mtime_s, was_here)
                    found.setdefault(entry.path, resumed)
                    break
                warn(f"not resumed from {printable(entry.path)}: {problem.kind} {problem.detail}".rstrip())
            else:
                warn(f"resume.files: the interrupted attempt has nothing whole that {glob!r} names")
    return list(found.values())


def resumed_line(found: Sequence[Resumed], *, now: float) -> str:
    """What is said: ``resuming from restart.5 (2.1 MB, attempt 1, written 12 min 05 s ago)``."""
    told = ", ".join(
        f"{printable(item.path)} ({log.size(item.size_bytes)}, attempt {item.attempt}, "
        f"written {log.duration(max(0.0, now - item.mtime_s))} ago)"
        for item in found[:5]
    )
    return f"resuming from {told}" + (f" and {len(found) - 5} more" if len(found) > 5 else "")


def _bring(bringer: Bringer, entry: Entry, *, wire: Wire, readers: Pool, tally: Tally) -> Problem | None:
    from byos_run.steps import verify

    def proven(entry: Entry, take: Callable[[memoryview], None], start: int, begun: int) -> Problem | None:
        return verify.proven(wire, entry, readers=readers, tally=tally, take=take, start=start, begun=begun)

    return bringer.bring(entry, proven=proven)


def _in_case(entry: Entry, item: Any) -> Entry:
    """*entry* with its path in the case; "" for what was found elsewhere, or may not lie there."""
    if item.get("found_in"):
        return replace(entry, path="")
    return entry


def keep_case(earlier: Earlier, journal: Journal, *, digest: str, globs: Sequence[str]) -> Room | None:
    """The room of an earlier attempt here, its case as it was fetched and with what *globs* name; None if it must be fetched."""
    room, snapshot = earlier.room, journal.load_snapshot("case")
    if earlier.digest != digest or not earlier.fetched or room is None or room.identity is None or snapshot is None:
        return None
    wanted, root = Globs.of(globs), str(room.case)

    def verdict(path: str, _: os.stat_result, identity: Identity) -> Left | None:
        if snapshot.holds(path, identity):
            return _NEEDED
        done = earlier.acknowledged.get((root, path))
        return _NEEDED if done and done.identity == identity and wanted.matches(path) else None

    try:
        status = os.lstat(room.case)
        there = sum(snapshot.holds(path, files.identity_of(status)) for path, status in scan(room.case, problems=[]))
        if (status.st_dev, status.st_ino) != room.identity or there != len(snapshot):
            return None
        removed = workspace.empty_directory(room.case, verdict=verdict)
        for path in journal.load_paths("case"):
            os.makedirs(room.case / path, exist_ok=True)
    except OSError:
        return None
    return room if all(left.expected for left in removed.left) else None


def half_of(earlier: Earlier, *, digest: str, job: Job, place: Place) -> Room | None:
    """The room of an earlier attempt at the same run here, if it is where this one would work and holds a stage (now)."""
    room = earlier.room
    if room is None or earlier.digest != digest:
        return None
    is_there = is_where_asked(
        room, scratch=job.scratch, run_directory=place.run_directory, environ=place.environ
    ) and stage.is_left(room)
    return replace(room, identity=None) if is_there else None


def save_case(journal: Journal, case: Path) -> files.Snapshot:
    """Remember the case as the solver will find it. Raises NodeUnfit."""
    taken = files.snapshot(case)
    journal.save_snapshot("case", taken)
    journal.save_paths("case", leaves(case))
    return taken
