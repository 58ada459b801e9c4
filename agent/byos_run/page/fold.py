"""Many runs folded into what a DOE is looked at for: lanes of time, classes of failure, stragglers, totals."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

from byos_run.log import natural
from byos_run.page.facts import Facts
from byos_run.page.hints import hint_of

ENDED = ("complete", "solver-failed", "partial", "interrupted")
"""What a manifest calls a run."""
GOOD = "complete"
PENDING = ("running", "waiting")
_SLOW = 1.5
_SLOWER_S = 5.0
_MOST_STRAGGLERS = 12
_VARIES = re.compile(r"0x[0-9a-fA-F]+|\d+(?:\.\d+)?|'[^']*'|\"[^\"]*\"")


@dataclass(frozen=True)
class Lane:
    """A slot of a node: runs that never overlap."""

    node: str
    number: int
    runs: tuple[Facts, ...]


@dataclass(frozen=True)
class Failure:
    """Runs that failed in the same way."""

    title: str
    exit_code: int | None
    hint: str
    runs: tuple[Facts, ...]
    """The first of them is the example."""


@dataclass(frozen=True)
class Straggler:
    run: Facts
    times: float
    """Of the median run's time."""
    phase: str
    """Where most of the difference lies."""
    more_s: float


@dataclass(frozen=True)
class Totals:
    runs: int
    by_status: Mapping[str, int]
    span_s: float
    """From the first start to the last end."""
    core_hours: float
    solver_core_hours: float
    idle_core_hours: float
    """Paid for and not used by the solver: fetch, tail, and the moments between."""
    saved_core_hours: float
    """By what left while the solver ran, against fetch, then solve, then upload."""
    input_bytes: int
    output_bytes: int
    early_bytes: int
    files: int
    cost: float

    def document(self) -> dict[str, Any]:
        return asdict(self)


def totals(runs: Sequence[Facts]) -> Totals:
    statuses = [run.status for run in runs]
    starts = [run.started_at for run in runs if run.started_at]
    core_hours = sum(run.core_hours for run in runs)
    solver = sum(run.cores * min(run.solver_s, run.wall_s) for run in runs) / 3600
    return Totals(
        runs=len(runs), by_status={status: statuses.count(status) for status in dict.fromkeys(statuses)},
        span_s=max(0.0, max((run.ended_at for run in runs), default=0.0) - min(starts, default=0.0)) if starts else 0.0,
        core_hours=core_hours, solver_core_hours=solver, idle_core_hours=core_hours - solver,
        saved_core_hours=sum(run.cores * run.saved_s for run in runs) / 3600,
        input_bytes=sum(run.input_bytes for run in runs), output_bytes=sum(run.size_bytes for run in runs),
        early_bytes=sum(run.early_bytes for run in runs), files=sum(run.files for run in runs),
        cost=sum(run.cost for run in runs),
    )  # fmt: skip


def lanes(runs: Iterable[Facts]) -> list[Lane]:
    """Runs by node, and on each node beside each other as they overlapped in time."""
    nodes: dict[str, list[list[Facts]]] = {}
    for run in sorted((run for run in runs if run.ended_at > run.started_at > 0), key=lambda run: run.started_at):
        slots = nodes.setdefault(run.host, [])
        free = next((slot for slot in slots if slot[-1].ended_at <= run.started_at), None)
        if free is None:
            slots.append([run])
        else:
            free.append(run)
    named = sorted(nodes.items(), key=lambda item: natural(item[0]))
    return [Lane(node, n, tuple(slot)) for node, slots in named for n, slot in enumerate(slots, 1)]


def failures(runs: Iterable[Facts]) -> list[Failure]:
    """The most frequent first."""
    found: dict[tuple[str, int | None, str], list[Facts]] = {}
    for run in runs:
        if run.status != GOOD and run.status not in PENDING:
            found.setdefault((run.status, run.exit_code, _VARIES.sub("…", why_of(run))), []).append(run)
    return [
        Failure(why_of(alike[0]), code, hint_of(code, whose=alike[0].whose), tuple(alike))
        for (_, code, _), alike in sorted(found.items(), key=lambda item: -len(item[1]))
    ]


def why_of(run: Facts) -> str:
    """One line: what ended this run."""
    if run.cause or run.error:
        return run.cause or run.error
    if run.stopped_by:
        return f"stopped by {run.stopped_by}"
    return "its heartbeat has stopped: the node is gone, or has lost the store" if run.status == "stale" else run.status


def stragglers(runs: Sequence[Facts]) -> list[Straggler]:
    """Runs that took half as long again as the median one, the slowest first."""
    ended = [run for run in runs if run.status in ENDED and run.wall_s > 0]
    if len(ended) < 3:
        return []
    usual_s = median(run.wall_s for run in ended)
    names = {span.name for run in ended for span in run.spans}
    usual = {name: median(seconds_of(run, name) for run in ended) for name in names}
    slow = [run for run in ended if run.wall_s > _SLOW * usual_s and run.wall_s > usual_s + _SLOWER_S]
    told = []
    for run in sorted(slow, key=lambda run: -run.wall_s)[:_MOST_STRAGGLERS]:
        over = {name: seconds_of(run, name) - usual[name] for name in names}
        phase = max(over, key=lambda name: over[name], default="")
        told.append(Straggler(run, run.wall_s / usual_s, phase, over.get(phase, 0.0)))
    return told


def seconds_of(run: Facts, name: str) -> float:
    return sum(span.seconds for span in run.spans if span.name == name)
