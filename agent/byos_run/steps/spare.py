"""Why a path stays when the run directory, the case and the scratch directory are purged.

Asked in this order: ours until later → a live neighbour's → the platform's log → ``purge.keep`` → open for writing →
no plain file: it goes → justified by the grounds: it goes → ``always``: it goes, and is listed as lost → it stays.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from byos_run.model import Identity, Job, Left, Place, Published
from byos_run.node.files import Snapshot
from byos_run.node.globs import Globs, Selection
from byos_run.node.holders import files_behind_our_output, files_open_for_writing
from byos_run.node.inodes import HardLinks
from byos_run.node.journal import DIRECTORY_NAME
from byos_run.node.neighbour import Marker, live_neighbours
from byos_run.node.removed import Removed
from byos_run.node.scratch import HOME, STAGE, Room, bring_home
from byos_run.node.workspace import empty_directory

PLATFORM_LOG = "process_output.log"
_LATER = Left("", "goes later", expected=True)
NEEDED = "the next start needs it"


@dataclass(frozen=True)
class Grounds:
    """What justifies deletions."""

    fetched: Snapshot
    """The case after the fetch."""
    laid_down: Snapshot
    """The run directory at the start: what the platform laid there."""
    published: Sequence[Published]
    """All that the bucket has acknowledged, in the state that was acknowledged."""


class Rules:
    """Why a path stays, for the three places that are walked."""

    def __init__(
        self,
        *,
        job: Job,
        place: Place,
        room: Room,
        grounds: Grounds,
        job_file: str,
        secrets: Collection[str],
        processes: Collection[int],
    ) -> None:
        self.unacknowledged = False
        self.links = HardLinks()
        self.lost: set[str] = set()
        self.case_is_here = room.scratch is None and room.identity is not None
        """The case lies in the run directory, and we made it."""
        self.case_path = str(room.case.relative_to(place.run_directory)) if self.case_is_here else HOME
        self.shipped = _paths_inside(place.run_directory, place.shipped_file)
        self._after_this = {DIRECTORY_NAME, *_paths_inside(place.run_directory, place.unpacked)}
        self._later: set[str] = set()
        self._needed = {job_file, *self.shipped}
        self._secrets = set(secrets)
        self._room = room
        self._grounds = grounds
        self._always = job.purge.when == "always"
        self._keep = Globs.of(job.purge.keep)
        self._selection = Selection.of(include=job.publish.include, exclude=job.publish.exclude)
        self._case_acknowledged = _acknowledged(grounds.published, room.case)
        self._run_acknowledged = _acknowledged(grounds.published, place.run_directory)
        self._processes = {os.getpid(), *processes}
        self._held = self._files_in_use()
        self._neighbours: Mapping[str, Marker] = {}
        self._homeless = self._bring_home(place.run_directory)

    def look(self, run_directory: Path, *, later: Collection[str]) -> Removed:
        """One walk over the run directory that spares the paths in *later*."""
        self._later = set(later)
        self._held = self._files_in_use()
        try:
            self._neighbours = live_neighbours(run_directory, skip={DIRECTORY_NAME})
        except OSError:
            self._neighbours = {}  # it cannot be opened, and the walk says so
        removed = empty_directory(run_directory, verdict=self.of_run_directory, links=self.links)
        removed.left = [item for item in removed.left if item is not _LATER]
        return removed

    def of_case(self, path: str, status: os.stat_result, identity: Identity) -> Left | None:
        """*path* below the case."""
        told = f"{self.case_path}/{path}" if self.case_is_here else f"{self._room.case}/{path}"
        if path in self._homeless:
            return self._homeless[path]
        if self.case_is_here and (self._keep.matches_or_lies_below(told) or self._keep.matches_or_lies_below(path)):
            return Left(told, "purge.keep", expected=True)
        may_go = self._grounds.fetched.holds(path, identity) or self._case_acknowledged.holds(path, identity)
        return self._in_use(told, status) or self._judge(
            told, status, justified=may_go or not self._selection.matches(path)
        )

    def of_scratch(self, path: str, status: os.stat_result, identity: Identity) -> Left | None:
        """*path* below the scratch directory: beside the case there are only our own stages."""
        case = self._room.case.name
        return self.of_case(path[len(case) + 1 :], status, identity) if path.startswith(f"{case}/") else None

    def of_run_directory(self, path: str, status: os.stat_result, identity: Identity) -> Left | None:
        if path in self._after_this or path in self._later:
            return _LATER
        if path in self._neighbours:
            return Left(path, f"run {self._neighbours[path].run_id} is at work there", expected=True)
        if self.case_is_here and path == self.case_path and self._room.identity != (status.st_dev, status.st_ino):
            return Left(path, "another directory has taken the case's place", expected=False)
        if self.case_is_here and path.startswith(f"{self.case_path}/"):
            return self.of_case(path[len(self.case_path) + 1 :], status, identity)
        return self._of_the_rest(path, status, identity)

    def _of_the_rest(self, path: str, status: os.stat_result, identity: Identity) -> Left | None:
        if path == PLATFORM_LOG:
            return Left(path, "the platform's own log", expected=True)
        inside = path.removeprefix(f"{self.case_path}/")
        if self._keep.matches_or_lies_below(path) or self._keep.matches_or_lies_below(inside):
            return Left(path, "purge.keep", expected=True)
        if path in self._needed:
            return Left(path, NEEDED, expected=True) if self.unacknowledged else None
        if path in self._secrets:
            return None
        may_go = self._grounds.laid_down.holds(path, identity) or self._run_acknowledged.holds(path, identity)
        left_out = path.startswith(STAGE) or self._selection.exclude.matches(path)
        return self._in_use(path, status) or self._judge(path, status, justified=may_go or left_out)

    def _in_use(self, told: str, status: os.stat_result) -> Left | None:
        holder = self._held.get((status.st_dev, status.st_ino))
        return None if holder is None else Left(told, holder, expected=True)

    def _judge(self, told: str, status: os.stat_result, *, justified: bool) -> Left | None:
        if justified or not stat.S_ISREG(status.st_mode):
            return None
        if self._always:
            self.lost.add(told)
            return None
        self.unacknowledged = True
        return Left(told, "the bucket has not acknowledged it as it is now", expected=False)

    def _files_in_use(self) -> dict[tuple[int, int], str]:
        held = {
            file: f"process {process_id} has it open for writing"
            for file, process_id in files_open_for_writing(except_processes=self._processes).items()
        }
        held.update(dict.fromkeys(files_behind_our_output(), "our own output goes there"))
        return held

    def _bring_home(self, run_directory: Path) -> dict[str, Left]:
        """Path in a case outside → why this file to keep could not be copied into the run directory."""
        if self._room.scratch is None or not self._keep.globs:
            return {}
        try:
            return bring_home(self._room, run_directory=run_directory, keep=self._keep)
        except OSError:
            return {}  # there is no case


def _acknowledged(published: Sequence[Published], root: Path) -> Snapshot:
    return Snapshot.of((item.output.path, item.identity) for item in published if item.output.root == root)


def _paths_inside(run_directory: Path, path: Path | None) -> list[str]:
    """*path* relative to the run directory, if it lies in it."""
    if path is None:
        return []
    inside = os.path.relpath(os.path.realpath(path), os.path.realpath(run_directory))
    return [] if inside.startswith("..") else [inside]
