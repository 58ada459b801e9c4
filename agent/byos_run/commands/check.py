"""``byos-run check``: all that a run relies on, tried for real, in the order of a run; then what it will move.

    directory ─ command ─ identity ─ inputs ─ output: delete, abort, write, multipart, listing, free? ─ archives ─ disk ─ licence

All are tried even after one has failed; what needs something that is not there says so instead. The exit code is that of the
first failure in the order of a run. Nothing is started, ``config`` stays, and the probe in the bucket is deleted.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace

from byos_run import errors
from byos_run.commands.tries import Checked, Tries
from byos_run.errors import printable
from byos_run.model import Place, S3Url, StoreSettings
from byos_run.node.stop import Stop
from byos_run.steps import outlook, rows
from byos_run.steps.settle import settle
from byos_run.steps.words import sort_words

_MARKS = {"ok": "✓", "note": "!", "failed": "✗", "not tried": "-"}
_PATIENCE_S = 2.0
"""Somebody waits for the answer."""

USAGE = """\
usage: byos-run check [--table inputs.csv --row N] [--json] [--KEY VALUE ...]
                [-- COMMAND ...]

Tries what the run that byos.toml, flags and BYOS_* variables ask for relies on:
directory, command and cores, identity, each input and what its archive says it
holds, write, read, delete and a multipart upload below the output (gone again),
whether that prefix is free, disk and inodes, licence servers. Ends with the
plan: what will move, how long it takes, what the requests cost.

  --json    one document on standard output

It starts nothing, keeps config and leaves nothing in the bucket.
"""
CODES = """
exit codes:
  0   nothing stands against the run; else the code that it would end with
  64  job wrong, or the output prefix holds objects of others
  65  an input is damaged, hostile or of an unsupported kind
  66  an input, or a bucket, does not exist
  69  store not reachable
  71  this node: command, disk, inodes; no licence server that answers
  73  the output prefix is in use by another run
  75  stopped by a signal
  77  store refused the credentials or the permission; the action is named
"""


def check(words: Sequence[str], *, place: Place, stop: Stop, show: Callable[[str], object]) -> int:
    """*show* writes to standard output. Returns the exit code. Raises UsageError, Stopped."""
    end = list(words).index("--") if "--" in words else len(words)
    given = sort_words(words[:end], command="check", switches=("--json",))
    if given.places:
        raise errors.UsageError(
            [f'"{printable(given.places[0])}": check takes flags alone'], hint="byos-run check --help"
        )

    def read_object(url: S3Url, settings: StoreSettings) -> bytes:
        from byos_run.bucket.session import Session

        session = Session(settings=_hurried(settings), place=place, stop=stop)
        try:
            return rows.object_of(session.wire(url.bucket, stop=stop), url)
        finally:
            session.close()

    job = settle(arguments=[*given.keys, *words[end:]], place=place, read_object=read_object)
    tries = Tries(replace(job, store=_hurried(job.store)), place=place, stop=stop)
    tries.all()
    code = next((item.code for item in tries.checked if item.state == "failed"), 0)
    plan = tries.plan()
    if "--json" in given.switches:
        document = {
            "ok": not code, "exit_code": code, "checks": [asdict(item) for item in tries.checked],
            "plan": {**asdict(plan), "estimated_cost_usd": round(plan.cost_usd, 6)},
        }  # fmt: skip
        show(json.dumps(document, indent=1) + "\n")
    else:
        lines = [line for item in tries.checked for line in _lines(item)]
        lines += ["plan:", *(f"  {line}" for line in outlook.lines_of(plan))]
        lines.append(f"a run would end here with {code}: {errors.EXIT_CODES[code]}" if code else "ready to run")
        show("".join(f"{printable(line)}\n" for line in lines))
    return code


def _hurried(store: StoreSettings) -> StoreSettings:
    return replace(
        store, first_contact_s=min(store.first_contact_s, _PATIENCE_S), patience_s=min(store.patience_s, _PATIENCE_S)
    )


def _lines(item: Checked) -> list[str]:
    first = f"{_MARKS[item.state]} {item.name:<10} {item.told}"
    return [first, f"  {'':<10} → {item.hint}"] if item.hint else [first]
