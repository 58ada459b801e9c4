"""What a rehearsal shows: a table of its runs while they run, and at the end what matters.

On a terminal the table is drawn over in place, elsewhere each change is a line. The result: what the platform would have saved,
run by run, then totals. As a document, the same.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Callable

from byos_run import log, terminal
from byos_run.commands.kit import LOG, Slot
from byos_run.commands.slots import Run
from byos_run.errors import printable
from byos_run.terminal import Column, Screen, Terminal

_COLOURS = {"running": "cyan", "done": "green", "failed": "red", "waiting": "dim", "not started": "yellow"}
_URGENT = ("failed", "running", "waiting", "not started", "done")
_NAMED = 5
_EVERY_S = 0.5


class Shown:
    """Standard output of a rehearsal."""

    def __init__(self, where: Terminal, show: Callable[[str], object], *, slot: Slot, is_quiet: bool) -> None:
        self._terminal = where
        self._show = show
        self._slot = slot
        self._is_quiet = is_quiet
        self._screen = Screen()
        self._states: dict[int, str] = {}
        self._drawn_s = 0.0
        self._started_s = time.monotonic()

    def begin(self, runs: Sequence[Run]) -> None:
        self._started_s = time.monotonic()
        self.draw(runs)

    def draw(self, runs: Sequence[Run], *, is_last: bool = False) -> None:
        if self._is_quiet:
            return
        if not self._terminal.is_live:
            self._changes(runs)
        elif is_last or time.monotonic() - self._drawn_s > _EVERY_S:
            self._drawn_s = time.monotonic()
            room = len(runs) if is_last else max(1, self._terminal.rows - 4)
            shown = runs if len(runs) <= room else sorted(runs, key=lambda run: _URGENT.index(run.state))[:room]
            lines = terminal.table(_columns(shown), width=self._terminal.columns)
            colours = ["bold", *(_COLOURS[run.state] for run in shown)]
            painted = [self._terminal.paint(line, colour) for line, colour in zip(lines, colours)]
            totals = [] if is_last else [self._totals(runs)[: self._terminal.columns]]
            self._show(self._screen.frame([*painted, *totals]))

    def _changes(self, runs: Sequence[Run]) -> None:
        for run in runs:
            if run.state != self._states.get(run.row.number, "waiting"):
                self._show(f"row {run.row.number}: {_line(run)}\n")
            self._states[run.row.number] = run.state

    def end(self, runs: Sequence[Run], *, as_json: bool) -> str:
        """The result as text, or as a document."""
        seconds = time.monotonic() - self._started_s
        cores = self._slot.slots * self._slot.cores
        totals = _sums(runs, seconds=seconds, cores=self._slot.cores)
        if as_json:
            document = {
                "passed": all(run.passed for run in runs),
                "totals": totals,
                "runs": [_document(r) for r in runs],
            }
            return json.dumps(document, indent=1) + "\n"
        self.draw(runs, is_last=True)
        moved = (
            f"{log.size(totals['bytes_in'])} in, {log.size(totals['bytes_out'])} out in "
            f"{log.count(totals['files_out'], 'file')}"
        )
        cost = f", cost {totals['cost']:.4g}" if totals["cost"] else ""
        hours = f"{totals['core_hours']:.3g} core hours{cost}"
        lines = [
            *_left_lines(runs),
            f"{self._totals(runs)}; {moved}; {log.duration(seconds)} on {cores} cores, {hours}",
        ]
        return "".join(f"{line}\n" for line in lines)

    @staticmethod
    def _totals(runs: Sequence[Run]) -> str:
        counts = Counter(run.state for run in runs)
        return f"{log.count(len(runs), 'run')}: " + ", ".join(f"{counts[s]:,} {s}" for s in _COLOURS if counts[s])


def _columns(runs: Sequence[Run]) -> list[Column]:
    def column(title: str, cell: Callable[[Run], str], worth: int, **more: Any) -> Column:
        return Column(title, [cell(run) for run in runs], worth, **more)

    return [
        column("ROW", lambda run: str(run.row.number), 9, is_number=True),
        column("OUTPUT", lambda run: printable(run.job.output.name), 5, least=10, cut_left=True),
        column("STATE", _state, 8),
        column("TIME", lambda run: log.duration(run.seconds) if run.seconds else "", 7, is_number=True),
        column("FILES", lambda run: f"{len(_outputs(run)):,}" if run.manifest else "", 3, is_number=True),
        column("SENT", lambda run: log.size(_bytes_out(run)) if run.manifest else "", 4, is_number=True),
        column("LEFT", lambda run: str(len(run.left)) if run.code is not None else "", 6, is_number=True),
        column("SAYS", _says, 2, least=14),
    ]


def _state(run: Run) -> str:
    return f"failed ({run.code})" if run.state == "failed" else run.state


def _line(run: Run) -> str:
    if run.state == "running":
        return f"running, output {run.job.output}"
    if run.code is None:
        return run.state
    left = f"{log.count(len(run.left), 'file')} left" if run.left else "nothing left"
    sent = f"{log.count(len(_outputs(run)), 'file')}, {log.size(_bytes_out(run))} sent"
    return f"{_state(run)} after {log.duration(run.seconds)}, {sent}, {left}" + (
        f": {says}" if (says := _says(run)) else ""
    )


def _says(run: Run) -> str:
    """Its last line while it runs; nothing once it is done; why it failed."""
    if run.state != "failed":
        return run.said if run.state == "running" else ""
    solver = run.manifest.get("solver")
    cause = solver.get("cause") if isinstance(solver, dict) else None
    return printable(str(run.manifest.get("error") or cause or run.said))


def _left_lines(runs: Sequence[Run]) -> list[str]:
    """What would have fallen back, run by run; and where the runs that somebody must look at lie."""
    lines = []
    for run in runs:
        if run.left:
            ours_last = sorted(run.left, key=lambda path: (path.startswith(".byos/"), path))
            names = ", ".join(printable(path) for path in ours_last[:_NAMED])
            more = ", …" if len(run.left) > _NAMED else ""
            what = f"{log.count(len(run.left), 'file')}, {log.size(sum(run.left.values()))}"
            lines.append(f"row {run.row.number}: the platform would have saved {what}: {names}{more}")
        if run.kept:
            lines.append(
                f"row {run.row.number}: kept as purge.keep asks: {', '.join(map(printable, run.kept[:_NAMED]))}"
            )
        if run.state == "failed":
            lines.append(f"row {run.row.number}: {_state(run)}; see {run.directory / LOG}")
    if all(not run.left for run in runs if run.code is not None):
        lines.append("nothing but each run's own log would have fallen back to the platform's storage")
    return lines


def _outputs(run: Run) -> list[Mapping[str, Any]]:
    outputs = run.manifest.get("outputs")
    return [item for item in outputs if isinstance(item, dict)] if isinstance(outputs, list) else []


def _bytes_out(run: Run) -> int:
    return sum(item["bytes"] for item in _outputs(run) if isinstance(item.get("bytes"), int))


def _bytes_in(run: Run) -> int:
    inputs = run.manifest.get("inputs")
    items = [item for item in inputs if isinstance(item, dict)] if isinstance(inputs, list) else []
    return sum(item["bytes"] for item in items if isinstance(item.get("bytes"), int))


def _cost(run: Run, *, cores: int) -> float:
    """By the prices of the job file's [report]."""
    prices = run.job.report
    return run.seconds * cores / 3600 * prices.price_core_hour + _bytes_out(run) / 1e9 * prices.price_gb


def _sums(runs: Sequence[Run], *, seconds: float, cores: int) -> dict[str, Any]:
    counts = Counter(run.state for run in runs)
    return {
        "runs": len(runs),
        **{state.replace(" ", "_"): counts[state] for state in _COLOURS},
        "bytes_in": sum(map(_bytes_in, runs)),
        "bytes_out": sum(map(_bytes_out, runs)),
        "files_out": sum(len(_outputs(run)) for run in runs),
        "files_left": sum(len(run.left) for run in runs),
        "bytes_left": sum(sum(run.left.values()) for run in runs),
        "seconds": round(seconds, 3),
        "core_hours": round(sum(run.seconds for run in runs) * cores / 3600, 6),
        "cost": round(sum(_cost(run, cores=cores) for run in runs), 6),
    }


def _document(run: Run) -> dict[str, Any]:
    return {
        "row": run.row.number,
        "output": str(run.job.output),
        "values": dict(run.row.values),
        "state": run.state,
        "exit_code": run.code,
        "seconds": round(run.seconds, 3),
        "files_out": len(_outputs(run)),
        "bytes_in": _bytes_in(run),
        "bytes_out": _bytes_out(run),
        "would_fall_back": [{"path": printable(path), "bytes": size} for path, size in run.left.items()],
        "kept": [printable(path) for path in run.kept],
        "phases": run.manifest.get("phases", []),
        "error": run.manifest.get("error"),
        "directory": str(run.directory) if run.directory.exists() else None,
        "last_line": run.said,
    }
