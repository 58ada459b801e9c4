"""How runs stand, shown: a table once, drawn over in place on a terminal, a line for each change elsewhere, or JSON."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Callable

from byos_run import log, terminal
from byos_run.errors import printable
from byos_run.model import S3Url
from byos_run.steps.standing import STATES, Standing
from byos_run.terminal import Column, Screen, Terminal

_COLOURS = {
    "stale": "yellow",
    "failed": "red",
    "unknown": "yellow",
    "running": "cyan",
    "waiting": "dim",
    "done": "green",
}


@dataclass(frozen=True)
class Asked:
    top: S3Url
    watch: bool
    wait: bool
    every_s: float
    failed: bool
    as_json: bool
    table: str


class Shown:
    """Standard output: a table once, drawn over in place on a terminal, or a line for each change elsewhere."""

    def __init__(self, asked: Asked, where: Terminal, show: Callable[[str], object]) -> None:
        self._asked = asked
        self._terminal = where
        self._show = show
        self._screen = Screen()
        self._states: dict[S3Url, str] | None = None

    def is_last(self, standings: Sequence[Standing]) -> bool:
        """Show *standings*; whether there is nothing more to wait for."""
        asked = self._asked
        over = bool(standings) and all(item.has_ended or item.is_lost for item in standings)
        is_last = (over if asked.wait else not asked.watch) and not (asked.watch and not asked.wait)
        shown = [item for item in standings if item.state in STATES[:3]] if asked.failed else list(standings)
        if asked.as_json:
            if is_last or asked.watch:
                self._show(_document(asked.top, shown, standings, indent=None if asked.watch else 1))
        elif not (asked.watch or asked.wait):
            width = self._terminal.columns if self._terminal.is_live else None
            self._show("".join(f"{line}\n" for line in self._lines(shown, standings, width=width)))
        elif self._terminal.is_live:
            height = len(shown) if is_last else max(1, self._terminal.rows - 4)
            width = self._terminal.columns
            lines = self._lines(shown[:height], standings, width=width, more=len(shown) - height)
            self._show(self._screen.frame(lines))
        else:
            self._changes(shown, standings, is_last=is_last)
        return is_last

    def _lines(
        self, shown: Sequence[Standing], standings: Sequence[Standing], *, width: int | None, more: int = 0
    ) -> list[str]:
        lines = terminal.table(_columns(shown, self._asked.top), width=width) if shown else []
        colours = ["bold", *(_COLOURS[item.state] for item in shown)]
        painted = [self._terminal.paint(line, colour) for line, colour in zip(lines, colours)]
        rest = [f"… and {more:,} more"] if more > 0 else []
        totals = _totals(standings)
        return [*painted, *rest, totals if width is None else terminal.cut(totals, width)]

    def _changes(self, shown: Sequence[Standing], standings: Sequence[Standing], *, is_last: bool) -> None:
        """No terminal: a log of who changed; the table at first, the totals at last."""
        now = {item.prefix: _state_words(item) for item in shown}
        if self._states is None:
            lines = self._lines(shown, standings, width=None)
        else:
            changed = [(prefix, words) for prefix, words in now.items() if self._states.get(prefix) != words]
            lines = [f"{_name(prefix, self._asked.top)}: {words}" for prefix, words in changed]
            lines += [_totals(standings)] if changed or is_last else []
        self._states = now
        self._show("".join(f"{line}\n" for line in lines))


def _columns(shown: Sequence[Standing], top: S3Url) -> list[Column]:
    def column(title: str, cell: Callable[[Standing], str], worth: int, **more: Any) -> Column:
        return Column(title, [cell(item) for item in shown], worth, **more)

    return [
        column("RUN", lambda item: _name(item.prefix, top), 9, least=12, cut_left=True),
        column("STATE", _state_words, 8),
        column("PROGRESS", _progress, 6, is_number=True),
        column("RATE", lambda item: f"{log.size(item.bytes_per_s)}/s" if _moves(item) else "", 3, is_number=True),
        column("ETA", _eta, 5, is_number=True),
        column("WAITS", lambda item: log.size(item.waiting_bytes) if item.waiting_bytes else "", 1, is_number=True),
        column("TRY", lambda item: str(item.attempt or ""), 2, is_number=True),
        column("NODE", lambda item: item.host, 1, least=6),
        column("LAST LINE", _last_line, 4, least=14),
    ]


def _name(prefix: S3Url, top: S3Url) -> str:
    return printable(prefix.key[len(top.key) :].rstrip("/") or prefix.name or prefix.bucket)


def _state_words(item: Standing) -> str:
    """What is compared to tell a change, too: nothing in it may change by itself but the age of what is stale."""
    if item.state == "running":
        return item.phase
    if item.state == "stale":
        return f"stale: {item.phase}"
    return f"failed ({item.exit_code})" if item.state == "failed" else item.state


def _moves(item: Standing) -> bool:
    return item.state == "running" and item.bytes_per_s >= 1


def _progress(item: Standing) -> str:
    if item.state == "stale":
        return f"for {log.duration(item.age_s)}"
    if item.has_ended:
        return log.duration(item.run_s) if item.run_s else ""
    if item.bytes_total and item.state == "running":
        return f"{min(100, 100 * item.bytes_done // item.bytes_total)} %"
    return log.duration(item.phase_s) if item.state == "running" else ""


def _eta(item: Standing) -> str:
    return log.about(item.eta_s) if item.state == "running" else ""


def _last_line(item: Standing) -> str:
    full = f"the disk is full in {log.about(item.disk_full_in_s)}! " if item.disk_full_in_s is not None else ""
    return full + item.last_line


def _totals(standings: Sequence[Standing]) -> str:
    counts = Counter(item.state for item in standings)
    moving = sum(item.bytes_per_s for item in standings if _moves(item))
    parts = [f"{counts[state]:,} {state}" for state in STATES if counts[state]]
    return f"{log.count(len(standings), 'run')}: {', '.join(parts) or 'none yet'}" + (
        f"; {log.size(moving)}/s" if moving else ""
    )


def _document(top: S3Url, shown: Sequence[Standing], standings: Sequence[Standing], *, indent: int | None) -> str:
    counts = Counter(item.state for item in standings)
    totals = {"runs": len(standings), **{state: counts[state] for state in STATES}}
    return (
        json.dumps({"prefix": str(top), "totals": totals, "runs": [item.document() for item in shown]}, indent=indent)
        + "\n"
    )
