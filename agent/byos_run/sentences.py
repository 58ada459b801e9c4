"""What is said of a step when it has ended: one sentence each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

from byos_run import errors, log
from byos_run.model import Fetched, Phase, Published, Purged, Solved
from byos_run.steps.fetch import fetched_line

_NAMED = 10
_CLOCK_S = 60.0
ANOTHER_RUN = "the job file asks for another run than the one here: this start publishes what that left; start again for the other"


def clock_line(offset_s: float) -> str:
    """*offset_s*: by how much the store's clock is ahead; "" if by less than a minute."""
    if abs(offset_s) < _CLOCK_S:
        return ""
    return (
        f"the node's clock is {log.duration(abs(offset_s))} {'slow' if offset_s > 0 else 'fast'}; the store's is used"
    )


def fetched(items: Sequence[Fetched], *, local: Sequence[str], kept: bool) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each line with its facts. *kept*: an earlier attempt here had fetched it."""
    if kept:
        yield "the input that an earlier attempt fetched here is unchanged: it stays", {}
    for item in () if kept else items[:_NAMED]:
        yield fetched_line(item), log.facts(asdict(item))
    if len(items) > _NAMED and not kept:
        yield f"fetched {log.count(len(items), 'object')}, {log.size(sum(item.bytes_in for item in items))}", {}
    if local:
        yield f"copied {log.count(len(local), 'local file')} over the case: {', '.join(local[:_NAMED])}", {}


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


def purged_line(purged: Purged, *, never: bool) -> str:
    if never:
        return 'nothing was purged, as purge.when is "never": all stays, .byos/ too'
    left = f"; {log.count(len(purged.left), 'entry', 'entries')} left" if purged.left else "; nothing is left"
    return f"purged {log.count(purged.files, 'file')}, {log.size(purged.size_bytes)}{left}"


def meaning(code: int, whose: str, *, solved: bool, recorded: bool, never_purged: bool) -> str:
    """What *code* means at the end of this run, where that is not what the table of codes says; else ""."""
    if whose == "the solver's":
        return "the solver failed"
    if not code and never_purged:
        return 'outputs whole in the bucket; nothing was purged, as purge.when is "never"'
    if code == errors.AccessRefused.code and solved:
        return (
            "the store refused the keys or the permission; what it lacks stays here, and the next start only publishes"
        )
    if code == errors.StoreUnreachable.code and recorded:
        return "the outputs are whole in the bucket; the certificate of the purge, which is printed above, is not"
    return ""


def phases(items: Sequence[Phase]) -> Iterator[str]:
    """The time of each phase, and what moved in it."""
    for item in items:
        moved = f", {log.size(item.size_bytes)} ({log.rate(item.size_bytes, item.seconds)})" if item.size_bytes else ""
        yield f"{item.name:<8} {log.duration(item.seconds):>9}{moved}"
