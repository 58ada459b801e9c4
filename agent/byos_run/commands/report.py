"""``byos-run report s3://…/``: the runs below a prefix as one page.

    survey ▶ manifest and heartbeat of each ─ facts ▶ page ▶ a file, or an object below the prefix

Reads only; with ``--publish`` it writes one object, ``<prefix>_byos/report.html``.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Callable

from byos_run import errors, log
from byos_run.bucket import objects
from byos_run.bucket.wire import Wire
from byos_run.commands.desk import desk, no_run
from byos_run.model import Place, ReportSettings, S3Url
from byos_run.node.pool import Count, Pool
from byos_run.node.stop import Stop
from byos_run.page.doe import Doe, doe_page
from byos_run.page.facts import Facts, facts_of
from byos_run.page.fold import failures, totals
from byos_run.steps import survey
from byos_run.steps.documents import parsed
from byos_run.steps.settle import settle_report
from byos_run.steps.standing import Standing, standing_of
from byos_run.steps.words import sort_words

_LOOKS_AT_ONCE = 24
_PATIENCE_S = 30.0
_FILE = "byos-report.html"

USAGE = """\
usage: byos-run report s3://BUCKET/PREFIX/ [-o FILE | --publish]
                       [--table INPUTS.CSV] [--json]
                       [--report-price-core-hour X] [--report-price-gb X]
                       [--store-KEY VALUE ...]

One HTML page of the DOE below PREFIX: a square for each run, failures by class,
who ran where and when, how long phases take, stragglers, bytes and cost, and
parameters against the results that report.result asks for. It needs no network.

  -o FILE            write it there (default: byos-report.html)
  --publish          put it into the bucket instead, as PREFIX_byos/report.html
  --table FILE       the DOE's table, also on s3://: its columns are parameters,
                     rows that never started are shown
  --report-price-core-hour X, --report-price-gb X
                     where the runs' own job files gave none
  --json             the figures on standard output; the page only if -o or
                     --publish asks for it
"""
CODES = """
exit codes:
  0   the page is made
  64  command line or table wrong
  66  there is no run, or no such bucket
  69  store not reachable
  71  the file cannot be written
  75  stopped by a signal
  77  store refused the credentials or the permission
"""


@dataclass(frozen=True)
class _Asked:
    top: S3Url
    file: Path | None
    publish: bool
    table: str
    as_json: bool


def report(words: Sequence[str], *, place: Place, stop: Stop, show: Callable[[str], object]) -> int:
    """*show* writes to standard output. Returns the exit code. Raises ByosError."""
    asked, keys = _asked(words, place)
    prices, store = settle_report(arguments=keys, place=place)
    with desk(store, place=place, stop=stop) as here:
        wire = here.wire(asked.top.bucket).until(patience_s=min(store.patience_s, _PATIENCE_S))
        rows = here.table(asked.table).rows if asked.table else ()
        with here.book.phase("report") as count, Pool(name="look", width=_LOOKS_AT_ONCE) as pool:
            look = partial(_look, wire=wire, count=count)
            found = list(survey.runs_below(wire, asked.top, look=look, pool=pool))
        _refuse(asked, found)
        doe = _doe(asked, found, {str(row.output): row.values for row in rows}, prices=prices)
        said = _written(asked, doe, wire)
    show(json.dumps(_document(doe), indent=1) + "\n" if asked.as_json else f"{said}\n")
    return 0


def _asked(words: Sequence[str], place: Place) -> tuple[_Asked, list[str]]:
    given = sort_words(words, command="report", switches=("--publish", "--json"), values=("-o", "--table"))
    if len(given.places) != 1:
        raise errors.UsageError(["report needs one s3://BUCKET/PREFIX/"], hint="byos-run report --help")
    file, on = given.values.get("-o", ""), given.switches
    if file and "--publish" in on:
        raise errors.UsageError(["-o and --publish: one of them"])
    if not file and not on & {"--publish", "--json"}:
        file = _FILE
    return _Asked(
        top=survey.place_of(given.places[0]), file=place.run_directory / file if file else None, publish="--publish" in on,
        table=given.values.get("--table", ""), as_json="--json" in on,
    ), given.keys  # fmt: skip


def _look(prefix: S3Url, *, wire: Wire, count: Count) -> Facts | None:
    """What the bucket tells of the run at *prefix*; None if there is none."""
    wire.stop.check()
    status = objects.get(wire, f"{prefix.key}_byos/status.json")
    manifest = objects.get(wire, f"{prefix.key}_byos/manifest.json")
    if status is None and manifest is None:
        return None
    count.add(files=1, bytes_in=len(manifest.body) if manifest else 0)
    heartbeat = parsed(status.body) if status else {}
    standing = standing_of(prefix, heartbeat, age_s=status.age_s if status else 0.0)
    if manifest is None:
        return _unfinished(standing, heartbeat)
    facts = facts_of(parsed(manifest.body), place=str(prefix))
    # What came after the manifest (an incomplete purge: 76) only the last heartbeat tells.
    code = standing.exit_code if standing.has_ended and not facts.exit_code else facts.exit_code
    return replace(facts, exit_code=code, whose=facts.whose if code == facts.exit_code else "byos-run's")


def _unfinished(standing: Standing, heartbeat: Mapping[str, Any]) -> Facts:
    """A run without a manifest: it runs, or is gone, or ended before there was anything to tell."""
    status = {"failed": "refused", "done": "complete"}.get(standing.state, standing.state)
    started = heartbeat.get("started_at")
    started_at = float(started) if isinstance(started, (int, float)) and 0 < started < 1e11 else 0.0
    return Facts(
        place=str(standing.prefix), status=status, exit_code=standing.exit_code, whose="byos-run's", error=standing.last_line
        if status == "refused" else "", started_at=started_at, ended_at=started_at + standing.run_s, host=standing.host,
        attempt=standing.attempt,
    )  # fmt: skip


def _refuse(asked: _Asked, found: Sequence[Facts]) -> None:
    if not found:
        raise no_run(asked.top)
    if asked.publish and [run.place for run in found] == [str(asked.top)]:
        raise errors.UsageError(
            [f"{asked.top} is one run, which has its own page there: {asked.top}_byos/report.html"],
            hint="name the prefix that holds all runs, or write to a file by -o",
        )


def _doe(
    asked: _Asked, found: Sequence[Facts], parameters: Mapping[str, Mapping[str, str]], *, prices: ReportSettings
) -> Doe:
    """*parameters*: output prefix → the further columns of its row."""
    runs = [
        replace(
            run,
            price_core_hour=prices.price_core_hour or run.price_core_hour,
            price_gb=prices.price_gb or run.price_gb,
        )
        for run in found
    ]
    seen = {run.place for run in runs}
    top = str(asked.top)
    runs += [
        Facts(place=place, status="waiting") for place in parameters if place not in seen and place.startswith(top)
    ]
    return Doe(top, sorted(runs, key=lambda run: log.natural(run.place)), time.time(), parameters)


def _written(asked: _Asked, doe: Doe, wire: Wire) -> str:
    """Make the page, if it is asked for; what is said of it."""
    told = totals(doe.runs)
    ended = ", ".join(f"{number:,} {status}" for status, number in told.by_status.items())
    said = (
        f"{log.count(told.runs, 'run')}: {ended}; {told.core_hours:,.2f} core-hours, {told.saved_core_hours:,.2f} saved"
    )
    if not asked.publish and asked.file is None:
        return said
    page = doe_page(doe).encode("utf-8", "backslashreplace")
    if asked.publish:
        where = str(asked.top.child("_byos/report.html"))
        objects.put(wire, f"{asked.top.key}_byos/report.html", page, content_type="text/html; charset=utf-8")
    else:
        where = str(asked.file)
        _write(Path(where), page)
    return f"{said}; {where} ({log.size(len(page))})"


def _write(file: Path, page: bytes) -> None:
    """Whole or not at all."""
    beside = file.with_name(f".{file.name}.{os.getpid()}.new")
    try:
        beside.write_bytes(page)
        os.replace(beside, file)
    except OSError as error:
        raise errors.NodeUnfit(f"'{file}' cannot be written: {error.strerror}") from error


def _document(doe: Doe) -> Mapping[str, Any]:
    runs = []
    for run in doe.runs:
        values = {name: value for name, value in asdict(run).items() if name != "spans"}
        phases = {span.name: round(span.seconds, 3) for span in run.spans}
        derived = {
            "wall_s": run.wall_s, "tail_s": run.tail_s, "early_bytes": run.early_bytes, "core_hours": run.core_hours,
            "saved_core_s": run.cores * run.saved_s, "parameters": dict(doe.parameters.get(run.place, {})),
        }  # fmt: skip
        runs.append({**values, **derived, "phases": phases})
    classes = [
        {
            "title": each.title, "exit_code": each.exit_code, "hint": each.hint, "runs": [run.place for run in each.runs],
        }
        for each in failures(doe.runs)
    ]  # fmt: skip
    return {"prefix": doe.place, "totals": totals(doe.runs).document(), "failures": classes, "runs": runs}
