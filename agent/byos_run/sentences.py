"""What is said of a step when it has ended: one sentence each."""

from __future__ import annotations

from collections.abc import Sequence

from byos_run import log
from byos_run.model import Phase, Published, Purged, Solved


def published_line(published: Sequence[Published], *, early: int, phase: Phase) -> str:
    """*early*: files that had left while the solver ran; *phase*: what came after it."""
    before = f", {log.count(early, 'file')} of them before the solver's end" if early else ""
    return (
        f"published {log.count(len(published), 'file')}, {log.size(sum(item.size_bytes for item in published))}{before}, "
        f"each acknowledged with its CRC-32; {log.size(phase.size_bytes)} left in {log.duration(phase.seconds)}"
    )


def solved_line(solved: Solved) -> str:
    took = f"after {log.duration(solved.seconds)}, peak memory {log.size(solved.peak_memory_bytes)}"
    if solved.stopped_by:
        return f"the solver was stopped by {solved.stopped_by} {took}"
    if solved.succeeded:
        return f"the solver ended well {took}"
    cause = f": {solved.cause}" if solved.cause != _ended(solved) else ""
    return f"the solver failed with {_ended(solved)} {took}{cause}"


def _ended(solved: Solved) -> str:
    return f"signal {solved.signal}" if solved.signal is not None else f"exit {solved.exit_code}"


def purged_line(purged: Purged) -> str:
    left = f"; {log.count(len(purged.left), 'entry', 'entries')} left" if purged.left else "; nothing is left"
    return f"purged {log.count(purged.files, 'file')}, {log.size(purged.size_bytes)}{left}"
