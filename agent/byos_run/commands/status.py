"""``byos-run status s3://…/``: how the runs below a prefix stand, from the bucket alone.

    survey ▶ heartbeats ─ standing_of ▶ one row each, first what needs attention ▶ table, totals

``board`` looks, ``standings`` shows.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Callable

from byos_run import errors, log
from byos_run.bucket import url as s3url
from byos_run.commands.board import Board
from byos_run.commands.desk import Desk, desk, no_run
from byos_run.commands.standings import Asked, Shown
from byos_run.model import Place, S3Url
from byos_run.node.pool import Count, Pool
from byos_run.node.stop import Stop
from byos_run.steps import survey
from byos_run.steps.settle import settle_store
from byos_run.steps.standing import Standing
from byos_run.steps.words import sort_words
from byos_run.terminal import Terminal

_LOOKS_AT_ONCE = 24
_EVERY_S = 5.0
_PATIENCE_S = 30.0
"""Of one look, for which somebody waits; a watch outlives what ``store.patience`` does."""

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


def status(words: Sequence[str], *, place: Place, stop: Stop, show: Callable[[str], object]) -> int:
    """*show* writes to standard output. Returns the exit code. Raises ByosError."""
    asked, keys = _asked(words)
    settings = settle_store(arguments=keys, place=place, command="status")
    shown = Shown(asked, Terminal(1, place.environ), show)
    standings: list[Standing] = []
    patience_s = settings.patience_s if asked.watch or asked.wait else min(settings.patience_s, _PATIENCE_S)
    try:
        with desk(settings, place=place, stop=stop) as here, Pool(name="look", width=_LOOKS_AT_ONCE) as pool:
            wire = here.wire(asked.top.bucket).until(patience_s=patience_s)
            board = Board(wire, asked.top, expected=_expected(asked, here), pool=pool)
            with here.book.phase("status") as count:
                standings = board.look(count)
            if not standings and not (asked.watch or asked.wait):
                raise no_run(asked.top)
            while not shown.is_last(standings):
                if stop.wait(asked.every_s):
                    break
                standings = board.look(Count())
    except errors.Stopped:
        if asked.wait or not asked.watch:
            raise
    if asked.wait and stop.asked:
        raise errors.Stopped(f"stopped by {stop.reason} before all runs had ended")
    return 1 if any(item.state in ("stale", "failed", "unknown") for item in standings) else 0


def _asked(words: Sequence[str]) -> tuple[Asked, list[str]]:
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
    return Asked(
        top=survey.place_of(given.places[0]), watch="--watch" in on, wait="--wait" in on, every_s=every_s,
        failed="--failed" in on, as_json="--json" in on, table=given.values.get("--table", ""),
    ), given.keys  # fmt: skip


def _expected(asked: Asked, here: Desk) -> frozenset[S3Url]:
    """The output prefixes of the table, as far as they lie below the prefix that is looked at."""
    if not asked.table:
        return frozenset()
    outputs = frozenset(row.output for row in here.table(asked.table).rows)
    inside = frozenset(output for output in outputs if s3url.holds(asked.top, output))
    if inside != outputs:
        elsewhere = log.count(len(outputs - inside), "row")
        here.book.warn(f"{elsewhere} of the table lie elsewhere than below {asked.top}: not shown")
    return inside
