"""``byos-run status s3://…/``: how the runs below a prefix stand, from the bucket alone.

    survey ▶ heartbeats ─ standing_of ▶ one row each, first what needs attention ▶ table, totals

Every further look asks for a heartbeat only if it is another than the one that is known (If-None-Match): what has not changed
sends no body. Runs that have ended are asked again once a minute or two, since they may be started anew.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Callable

from byos_run import errors, log, terminal
from byos_run.book import Book
from byos_run.bucket import objects
from byos_run.bucket import url as s3url
from byos_run.bucket.objects import Small
from byos_run.bucket.session import Session
from byos_run.bucket.wire import Wire
from byos_run.errors import printable
from byos_run.model import Place, S3Url
from byos_run.node.outlet import Outlet
from byos_run.node.pool import Count, Pool, Stop
from byos_run.steps import rows, survey, table
from byos_run.steps.claim import parsed
from byos_run.steps.settle import settle_store
from byos_run.steps.standing import STATES, Standing, standing_of
from byos_run.steps.words import sort_words
from byos_run.terminal import Column, Screen, Terminal

_LAST_WORDS_S = 5.0
_LOOKS_AT_ONCE = 24
_ENDED_AGAIN_S = 60.0
_EVERY_S = 5.0
_PATIENCE_S = 30.0
"""Of one look, for which somebody waits; a watch outlives what ``store.patience`` does."""
_COLOURS = {
    "stale": "yellow",
    "failed": "red",
    "unknown": "yellow",
    "running": "cyan",
    "waiting": "dim",
    "done": "green",
}

USAGE = """\
usage: byos-run status s3://BUCKET/PREFIX/ [--watch] [--wait] [--every SECONDS]
                       [--failed] [--table INPUTS.CSV] [--json]
                       [--store-KEY VALUE ...]

How the run at PREFIX, or every run below it, stands: its phase, progress, rate,
estimated end, attempt, node and the solver's last line. What needs attention
comes first: stale (no heartbeat for longer than its lease), then failed.

  --watch          look again and again until it is interrupted
  --wait           look again until every run has ended; one whose heartbeat is
                   older than three leases counts as ended, and not well
  --every SECONDS  between two looks (default: 5)
  --table FILE     the DOE's table, also on s3://: rows that never started are
                   shown as waiting
  --failed         only runs that failed, are stale or cannot be understood
  --json           one document on standard output; with --watch one a line
"""
CODES = """
exit codes:
  0   no run has failed or is stale; with --wait: all have ended well
  1   some have failed, are stale, or cannot be understood
  64  command line wrong
  66  there is no run, or no such bucket
  69  store not reachable
  75  stopped by a signal, with --wait
  77  store refused the credentials or the permission
"""


@dataclass(frozen=True)
class _Asked:
    top: S3Url
    watch: bool
    wait: bool
    every_s: float
    failed: bool
    as_json: bool
    table: str


def status(words: Sequence[str], *, place: Place, stop: Stop, show: Callable[[str], object]) -> int:
    """*show* writes to standard output. Returns the exit code. Raises ByosError."""
    asked, keys = _asked(words)
    settings = settle_store(arguments=keys, environ=place.environ, command="status")
    shown = _Shown(asked, Terminal(1, place.environ), show)
    outlet = Outlet(2)
    book = Book(lines=log.Lines(outlet, terminal=Terminal(2, place.environ), volume=place.volume))
    session = Session(settings=settings, place=place)
    session.tell = book.lines.detail
    try:
        patience_s = settings.patience_s if asked.watch or asked.wait else min(settings.patience_s, _PATIENCE_S)
        wire = session.wire(asked.top.bucket, stop=stop).until(patience_s=patience_s)
        with Pool(name="look", width=_LOOKS_AT_ONCE) as pool:
            expected = _expected(asked, place, session, stop=stop, warn=book.warn)
            board = _Board(wire, asked.top, expected=expected, pool=pool)
            with book.phase("status") as count:
                standings = board.look(count)
            if not standings and not (asked.watch or asked.wait):
                raise errors.MissingInput(f"{asked.top} holds no run", hint="is the prefix spelled as in the bucket?")
            while not shown.is_last(standings):
                if stop.wait(asked.every_s):
                    break
                standings = board.look(Count())
    except errors.Stopped:
        if asked.wait or not asked.watch:
            raise
    finally:
        session.close()
        outlet.close(within_s=_LAST_WORDS_S)
    if asked.wait and stop.asked:
        raise errors.Stopped(f"stopped by {stop.reason} before all runs had ended")
    return 1 if any(item.state in ("stale", "failed", "unknown") for item in standings) else 0


def _asked(words: Sequence[str]) -> tuple[_Asked, list[str]]:
    given = sort_words(
        words, command="status", switches=("--watch", "--wait", "--failed", "--json"), values=("--every", "--table")
    )
    if len(given.places) != 1:
        raise errors.UsageError(["status needs one s3://BUCKET/PREFIX/"], hint="byos-run status --help")
    every = given.values.get("--every", "")
    try:
        every_s = float(every.removesuffix("s")) if every else _EVERY_S
    except ValueError:
        every_s = 0.0
    if not 0.1 <= every_s <= 86400:
        raise errors.UsageError([f"--every: {every!r} is not a number of seconds from 0.1 to 86400"])
    on = given.switches
    return _Asked(
        top=survey.place_of(given.places[0]), watch="--watch" in on, wait="--wait" in on, every_s=every_s,
        failed="--failed" in on, as_json="--json" in on, table=given.values.get("--table", ""),
    ), given.keys  # fmt: skip


def _expected(
    asked: _Asked, place: Place, session: Session, *, stop: Stop, warn: Callable[[str], None]
) -> frozenset[S3Url]:
    """The output prefixes of the table, as far as they lie below the prefix that is looked at."""
    if not asked.table:
        return frozenset()
    data = rows.content(
        asked.table, place.run_directory, lambda url: rows.object_of(session.wire(url.bucket, stop=stop), url)
    )
    outputs = frozenset(row.output for row in table.parse(data, name=asked.table).rows)
    inside = frozenset(output for output in outputs if s3url.holds(asked.top, output))
    if inside != outputs:
        warn(f"{log.count(len(outputs - inside), 'row')} of the table lie elsewhere than below {asked.top}: not shown")
    return inside


@dataclass(frozen=True)
class _Seen:
    """A heartbeat as it was read."""

    prefix: S3Url
    values: dict[str, Any]
    etag: str
    written_s: float
    """When it was written: its age when it was read, off the node's monotonic clock."""
    looked_s: float

    def standing(self) -> Standing:
        return standing_of(self.prefix, self.values, age_s=max(0.0, time.monotonic() - self.written_s))


class _Board:
    """What is known of the runs below *top*; each look brings what changed."""

    def __init__(self, wire: Wire, top: S3Url, *, expected: frozenset[S3Url], pool: Pool) -> None:
        self._wire = wire
        self._top = top
        self._expected = expected
        self._pool = pool
        self._known: dict[str, _Seen] = {}

    def look(self, count: Count) -> list[Standing]:
        """All runs, first what needs attention. Raises AccessRefused, StoreUnreachable, MissingInput, Stopped."""

        def look_at(prefix: S3Url) -> _Seen | None:
            seen = self._look_at(prefix)
            count.add(files=seen is not None)
            return seen

        found = list(survey.runs_below(self._wire, self._top, look=look_at, pool=self._pool))
        self._known = {seen.prefix.key: seen for seen in found}
        ranks = {state: rank for rank, state in enumerate(STATES)}
        waiting = self._expected - {seen.prefix for seen in found}
        return sorted(
            [*(seen.standing() for seen in found), *(Standing(prefix, "waiting") for prefix in waiting)],
            key=lambda item: (
                ranks[item.state],
                item.disk_full_in_s is None,
                -item.run_s if item.state == "running" else 0,
                item.prefix,
            ),
        )

    def _look_at(self, prefix: S3Url) -> _Seen | None:
        self._wire.stop.check()
        now, seen = time.monotonic(), self._known.get(prefix.key)
        if seen is None:
            return self._first(prefix)
        again_s = _ENDED_AGAIN_S * (1 + hash(prefix.key) % 64 / 64)  # not all of them in one look
        if seen.values.get("phase") == "over" and now - seen.looked_s < again_s:
            return seen
        try:
            found = objects.get_changed(self._wire, f"{prefix.key}_byos/status.json", etag=seen.etag)
        except errors.NoSuchObject:
            return self._first(prefix)
        return _seen(prefix, found) if found else replace(seen, looked_s=now)

    def _first(self, prefix: S3Url) -> _Seen | None:
        found = objects.get(self._wire, f"{prefix.key}_byos/status.json")
        if found is not None:
            return _seen(prefix, found)
        manifest = objects.get(self._wire, f"{prefix.key}_byos/manifest.json")
        if manifest is None:
            return None
        seen = _seen(prefix, manifest)  # its heartbeat was not copied along, or is gone: it has ended
        return replace(seen, values={"phase": "over", "exit_code": seen.values.get("exit_code")}, etag="")


def _seen(prefix: S3Url, found: Small) -> _Seen:
    now = time.monotonic()
    return _Seen(prefix, parsed(found.body), found.etag, now - found.age_s, now)


class _Shown:
    """Standard output: a table once, drawn over in place on a terminal, or a line for each change elsewhere."""

    def __init__(self, asked: _Asked, where: Terminal, show: Callable[[str], object]) -> None:
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
