"""What may go goes, what stays is named with its reason, and the certificate tells both.

::

    case → scratch → inputs → job file → the shipped file      each a walk that spares what comes later
    look again, until a look deletes nothing                   what is then left is the truth that is told
    (the caller puts the certificate)  →  last: .byos/ and the unpacked program, which it names ``after_this``

A file goes if the bucket acknowledged exactly this state of it, or if it needs no acknowledgement: fetched or laid
down by the platform and not changed, left out by include/exclude, a link, FIFO or socket, or our own. On the platform
that is asked of the whole run directory, elsewhere of the case alone. As long as outputs stay that the bucket lacks,
``.byos/``, the job file and the shipped file stay too: the next start publishes, records and purges.

Nothing raises: what cannot be deleted is left, with ``expected`` False, and makes the purge incomplete.

Not promised: files that another process creates after the last look.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from byos_run.model import Attempt, Job, Left, Place, Published, Purged
from byos_run.node.files import key_path_of
from byos_run.node.journal import DIRECTORY_NAME
from byos_run.node.removed import LISTED, Removed
from byos_run.node.scratch import Room, stages_of
from byos_run.node.workspace import is_own_directory, remove_made, remove_marked, remove_tree
from byos_run.steps.spare import NEEDED, PLATFORM_LOG, Grounds, Rules

__all__ = ["PLATFORM_LOG", "Grounds", "certificate", "last", "purge"]

_LOOKS = 3


def purge(
    *,
    job: Job,
    place: Place,
    room: Room,
    grounds: Grounds,
    job_file: str = "byos.toml",
    secrets: Collection[str] = ("config",),
    processes: Collection[int] = (),
) -> Purged:
    """Delete what may go. *job_file* and *secrets* are paths in the run directory, *processes* ids of this run."""
    if job.purge.when == "never":
        return Purged(0, 0, 0, (Left(str(place.run_directory), 'purge.when is "never"', expected=True),))
    rules = Rules(
        job=job, place=place, room=room, grounds=grounds, job_file=job_file, secrets=secrets, processes=processes
    )
    removed = _purge_case(rules, room)
    scratch = _purge_scratch(rules, room, place.run_directory)
    left = [*removed.left, *scratch.left]
    removed.then(scratch)
    if place.on_platform:
        removed.then(_purge_run_directory(rules, place.run_directory, later=[job_file, *rules.shipped]))
        left = [*scratch.left, *removed.left]
    removed.directories += remove_made(room)
    if rules.unacknowledged:
        left.append(Left(DIRECTORY_NAME, NEEDED, expected=True))
    return Purged(
        files=removed.files,
        directories=removed.directories,
        size_bytes=removed.size_bytes,
        left=tuple(sorted(left, key=lambda item: item.path)),
        paths=tuple(removed.paths),
        lost=tuple(sorted(rules.lost)),
        journal_stays=rules.unacknowledged,
    )


def certificate(
    *,
    purged: Purged,
    job: Job,
    place: Place,
    attempt: Attempt,
    exit_code: int,
    whose: str,
    behind: Sequence[Published] = (),
) -> dict[str, Any]:
    """The document ``purge.json``; *behind*: what went while the solver ran.

    Lists hold a thousand names at most; the counts are of all.
    """
    after_this = [] if purged.journal_stays or job.purge.when == "never" else [DIRECTORY_NAME]
    return {
        "schema": 1,
        "run_id": attempt.run_id,
        "attempt": attempt.number,
        "exit_code": exit_code,
        "exit_code_is": whose,
        "when": job.purge.when,
        "on_platform": place.on_platform,
        "run_directory": _written(str(place.run_directory)),
        "complete": purged.complete,
        "deleted": {
            "files": purged.files,
            "directories": purged.directories,
            "bytes": purged.size_bytes,
            **_listed(purged.paths),
        },
        "deleted_behind": {"files": len(behind), "bytes": sum(item.identity.size_bytes for item in behind)},
        "lost": {"files": len(purged.lost), **_listed(purged.lost[:LISTED])},
        "left": {
            "entries": len(purged.left),
            "unexpected": sum(not item.expected for item in purged.left),
            "paths": [
                {**_named(item.path), "reason": item.reason, "expected": item.expected}
                for item in sorted(purged.left, key=lambda item: item.expected)[:LISTED]
            ],
        },
        "after_this": after_this + ([_written(str(place.unpacked))] if place.unpacked else []),
    }


def last(*, job: Job, place: Place, purged: Purged) -> list[Left]:
    """The very last deletions, after the certificate: the journal, unless it stays, and the unpacked program."""
    left: list[Left] = []
    if not purged.journal_stays and job.purge.when != "never":
        left += remove_tree(place.run_directory / DIRECTORY_NAME, label=f"{DIRECTORY_NAME}/").left
    if place.unpacked is not None and is_own_directory(place.unpacked):
        left += remove_tree(place.unpacked).left
    return left


def _purge_case(rules: Rules, room: Room) -> Removed:
    """Stages that a killed attempt left, and the case, if we made it in the run directory."""
    removed = Removed()
    left: list[Left] = []
    for stage in stages_of(room.case) if room.scratch is None else ():
        removed.then(remove_tree(stage, label=f"{stage.name}/"))
        left += removed.left
    if rules.case_is_here:
        label = f"{rules.case_path}/"
        removed.then(
            remove_tree(room.case, verdict=rules.of_case, label=label, identity=room.identity, links=rules.links)
        )
        left += removed.left
    removed.left = left
    return removed


def _purge_scratch(rules: Rules, room: Room, run_directory: Path) -> Removed:
    if room.scratch is None:
        return Removed()
    return remove_marked(
        room.scratch, run_directory=run_directory, verdict=rules.of_scratch, label=f"{room.scratch}/", links=rules.links
    )


def _purge_run_directory(rules: Rules, run_directory: Path, *, later: list[str]) -> Removed:
    """The inputs, then one more of *later* at each walk, then looks until one deletes nothing."""
    removed = Removed()
    for done in range(len(later) + _LOOKS):
        look = rules.look(run_directory, later=later[done:])
        removed.then(look)
        if done > len(later) and look.nothing:
            break
    return removed


def _written(path: str) -> str:
    return key_path_of(path)[0]


def _named(path: str) -> dict[str, Any]:
    """As a manifest does: a name that is not UTF-8 is percent-encoded, and marked so."""
    written, escaped = key_path_of(path)
    return {"path": written, **({"name_escaped": True} if escaped else {})}


def _listed(paths: Sequence[str]) -> dict[str, Any]:
    """The same for a list: which of ``paths``, by their place from 0, are percent-encoded."""
    written = [key_path_of(path) for path in paths]
    escaped = [place for place, (_, is_escaped) in enumerate(written) if is_escaped]
    return {"paths": [path for path, _ in written], **({"names_escaped": escaped} if escaped else {})}
