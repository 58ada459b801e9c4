"""Outputs that the bucket has are removed from the case while the solver runs, so that the disk in use stays bounded.

One goes when all of this holds: acknowledged as it is now, and the store says so again (HEAD); nobody of the run has it open,
not even for reading; it has one name, and no link leads to it; it was not there before the solver; and it is none of those that
the solver, the run or the user still wants: restart files, ``resume.files``, ``publish.live``, ``purge.keep``, ``success.file``,
what ``report`` reads at the end.

Tables that a solver opens, extends by a line and closes look settled in between. So a file that was changed after it had been
acknowledged is never removed, and a small one only after a longer quiet time. If a removed file is written again all the same, the
new one travels under a key of its own: the bucket keeps both.

Not promised: that a solver does not miss a file that it meant to read again and whose name nobody knows.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import Callable, NamedTuple

from byos_run.model import Published
from byos_run.node import files
from byos_run.node.files import Snapshot
from byos_run.node.globs import Globs
from byos_run.node.holders import Held
from byos_run.node.workspace import remove_if_unchanged
from byos_run.steps.worth import RESTARTS

SMALL_BYTES = 1 << 20
_SMALL_WAITS = 10
"""Times ``publish.settle``."""


class Candidate(NamedTuple):
    """A file that is as it was acknowledged."""

    done: Published
    quiet_s: float
    """For how long it has been seen so."""


class Behind:
    """Removes what is safe in the bucket. One thread calls it."""

    def __init__(
        self,
        *,
        root: Path,
        below: str,
        wanted: Sequence[str],
        there_before: Snapshot,
        settle_s: float,
        whole: Callable[[Sequence[Published]], Sequence[Published]],
    ) -> None:
        """*wanted*: globs of what stays, relative to the case, or to the run directory if *below* leads from there to the case.
        *there_before*: ``files.names_in`` the case before the solver. *whole* returns those of
        its items that the bucket has as they were acknowledged."""
        self._root = root
        self._below = below
        self._wanted = Globs.of((*wanted, *RESTARTS))
        self._there_before = there_before
        self._settle_s = settle_s
        self._whole = whole
        self._stay: set[str] = set()

    def clear(
        self, candidates: Iterable[Candidate], *, linked: Collection[str], held: Callable[[], Held]
    ) -> list[Published]:
        """Remove what may go of *candidates*; *linked*: paths that a link leads to. Returns what went."""
        may_go = [each.done for each in candidates if self._may_go(each, linked=linked)]
        if not may_go:
            return []
        whole, open_now = self._whole(may_go), held()
        gone = []
        for done in (item for item in whole if item.identity.inode not in open_now.written | open_now.read):
            if remove_if_unchanged(self._root, done.output.path, identity=done.identity):
                gone.append(done)
            else:
                self._stay.add(done.output.path)
        return gone

    def _may_go(self, each: Candidate, *, linked: Collection[str]) -> bool:
        path, identity = each.done.output.path, each.done.identity
        return (
            not each.done.output.link_to
            and path not in linked
            and path not in self._stay
            and (identity.size_bytes >= SMALL_BYTES or each.quiet_s >= _SMALL_WAITS * self._settle_s)
            and not self._wanted.matches_or_lies_below(path)
            and not (self._below and self._wanted.matches_or_lies_below(self._below + path))
            and not self._there_before.holds(path, files.ANY_STATE)
        )
