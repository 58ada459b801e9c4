"""The work of a zip, or of a plain file, cut into jobs that any worker can take.

    large packed member   one job, its parts in order                    (longest first, so that none is left for the end)
    large stored member   a job for each part, written at its place, the CRCs of the parts combined; a worker stays with one
                          member, and others help only when nothing else is left: two that write one file wait for each other
    small members         runs of neighbours that come in one read, at most :data:`_RUN_MEMBERS` of them
    plain file            as a large stored member without header and CRC

A read ends where the member's data must have ended, not at the next header, so that junk between members is not fetched.
Members that a killed attempt left whole are no work, and are hardly ever read over.
"""

from __future__ import annotations

import os
import stat
import threading
from collections.abc import Iterator, Sequence
from typing import NamedTuple, Union

from byos_run.archive.members import Members
from byos_run.archive.stream import cuts
from byos_run.archive.zip import DESCRIPTOR_BYTES, LOCAL

_RUN_MEMBERS = 512
_RUN_BYTES = 512 << 10
_STORED_BYTES = 2 << 20
"""A part of what is written as it comes: a smaller buffer is still in the processor's cache when it is written."""
_BRIDGED_BYTES = 256 << 10
"""A gap up to this is read over rather than asked around."""
_BRIDGED_KEPT_BYTES = 4 << 10
"""The same where it holds members that are there already: no more than the heads of a request and its answer."""


class Run(NamedTuple):
    """Members *first* to *last* - 1, small ones, in one read."""

    first: int
    last: int
    start: int
    size_bytes: int

    def reads(self, part_bytes: int) -> Iterator[tuple[int, int]]:  # noqa: ARG002 - a run is one part by construction
        yield self.start, self.size_bytes


class Whole(NamedTuple):
    """One large packed member, decoded in order by one worker."""

    member: int
    start: int
    end: int

    def reads(self, part_bytes: int) -> Iterator[tuple[int, int]]:
        return cuts(self.start, self.end, part_bytes=part_bytes)


class Joint:
    """One large stored member or plain file that several workers may write at once. Guarded by its lock."""

    def __init__(self, *, index: int, path: str, size_bytes: int, start: int, end: int, part_bytes: int) -> None:
        """*start* and *end* are those of what is read, in the object."""
        self.index = index
        """Among the members; -1: a plain file."""
        self.path = path
        self.size_bytes = size_bytes
        self.start = start
        self.data_start: int | None = None
        """In the object; None until the first worker has read the local header and opened the file."""
        self.lock = threading.Lock()
        self.descriptor = -1
        self.left_bytes = size_bytes
        self.crcs: list[tuple[int, int, int]] = []
        """(offset, bytes, CRC-32) of the parts that are written."""
        self.parts = (
            Part(self, at, length) for at, length in cuts(start, end, part_bytes=min(part_bytes, _STORED_BYTES))
        )
        """Those that nobody has taken yet."""

    def close(self) -> None:
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1


class Part(NamedTuple):
    """One part of a joint."""

    joint: Joint
    start: int
    size_bytes: int

    def reads(self, part_bytes: int) -> Iterator[tuple[int, int]]:  # noqa: ARG002 - cut already
        yield self.start, self.size_bytes


Job = Union[Run, Whole, Part]
Work = Union[Run, Whole, Joint]


class Jobs:
    """Hands out jobs, each once, from any thread."""

    def __init__(self, work: Iterator[Work]) -> None:
        self._work = work
        self._begun: list[Joint] = []
        self._lock = threading.Lock()

    def _take(self, mine: Joint | None) -> Job | None:
        """The next part of *mine*; else new work; else a part of what somebody else is at."""
        with self._lock:
            if mine is not None and (part := next(mine.parts, None)):
                return part
            work = next(self._work, None)
            if isinstance(work, Joint):
                self._begun.append(work)
            elif work is not None:
                return work
            return next((part for joint in reversed(self._begun) for part in joint.parts), None)

    def reads(self, *, part_bytes: int) -> Iterator[tuple[Job, int, int]]:
        """The reads of the jobs that the caller takes, one job after the other."""
        mine: Joint | None = None
        while (job := self._take(mine)) is not None:
            mine = job.joint if isinstance(job, Part) else None
            for start, length in job.reads(part_bytes):
                yield job, start, length


def work_of_file(*, path: str, size_bytes: int, part_bytes: int) -> Iterator[Work]:
    return iter((Joint(index=-1, path=path, size_bytes=size_bytes, start=0, end=size_bytes, part_bytes=part_bytes),))


def work_of_zip(members: Members, *, part_bytes: int, workers: int, kept: Sequence[int]) -> Iterator[Work]:
    """Longest packed members first, then stored ones, then the small ones in runs; none where *kept* is 1."""
    large = [i for i in range(len(members)) if not kept[i] and _is_large(members, i, part_bytes)]
    large.sort(key=lambda i: -members.unpacked[i])
    for i in large:
        if members.methods[i]:
            yield Whole(i, members.offsets[i], _read_end(members, i))
    for i in large:
        if not members.methods[i]:
            yield _joint(members, i, part_bytes=part_bytes)
    small_bytes = sum(members.packed) - sum(members.packed[i] for i in large)
    run_bytes = min(part_bytes, max(_RUN_BYTES, small_bytes // (4 * workers)))
    yield from _runs(members, part_bytes=part_bytes, run_bytes=run_bytes, kept=kept)


def _is_large(members: Members, index: int, part_bytes: int) -> bool:
    return members.packed[index] > part_bytes // 2 and stat.S_ISREG(members.modes[index])


def _read_end(members: Members, index: int) -> int:
    longest = LOCAL.size + 2 * 65535 + members.packed[index] + DESCRIPTOR_BYTES
    return min(members.ends[index], members.offsets[index] + longest)


def _joint(members: Members, index: int, *, part_bytes: int) -> Joint:
    return Joint(
        index=index, path=members.paths[index], size_bytes=members.packed[index], start=members.offsets[index],
        end=_read_end(members, index), part_bytes=part_bytes,
    )  # fmt: skip


def _runs(members: Members, *, part_bytes: int, run_bytes: int, kept: Sequence[int]) -> Iterator[Run]:
    first, last, start, end = -1, 0, 0, 0
    for i in range(len(members)):
        if kept[i] or _is_large(members, i, part_bytes):
            continue
        offset, its_end = members.offsets[i], _read_end(members, i)
        bridged_bytes = _BRIDGED_BYTES if i == last else _BRIDGED_KEPT_BYTES
        fits = (
            first >= 0 and its_end - start <= run_bytes and i - first < _RUN_MEMBERS and offset - end <= bridged_bytes
        )
        if not fits:
            if first >= 0:
                yield Run(first, last, start, end - start)
            first, start = i, offset
        last, end = i + 1, its_end
    if first >= 0:
        yield Run(first, last, start, end - start)
