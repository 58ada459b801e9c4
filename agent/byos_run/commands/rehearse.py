"""``byos-run rehearse inputs.csv``: the whole DOE on this machine, as the platform would do it.

    table, kit ─ settle every row, look at every input ▶ all problems, and nothing has started
    (a private store, with the inputs in it)
    slots ▶ a table of the runs, live ▶ what would have fallen back to the platform's storage, totals

Standard output carries the table and the result; what is said on the way goes to standard error.
"""

from __future__ import annotations

import os
import re
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Callable

from byos_run import errors, log
from byos_run.book import Book
from byos_run.bucket import objects
from byos_run.bucket.session import Session
from byos_run.bucket.wire import Wire
from byos_run.commands import result, stand_in
from byos_run.commands.desk import voice
from byos_run.commands.kit import Kit, Slot, kit_in
from byos_run.commands.slots import Run, run_all
from byos_run.model import Job, Place, S3Url, StoreSettings
from byos_run.node import cores, process, workspace
from byos_run.node.pool import Pool
from byos_run.node.stop import Stop
from byos_run.steps import fetch, solve, table
from byos_run.steps.documents import parsed
from byos_run.steps.sources import read_table
from byos_run.steps.table import Row, Table
from byos_run.steps.words import sort_words
from byos_run.terminal import Terminal

_LOOKS_AT_ONCE = 16
_PATIENCE_S = 30.0
_NAMED = 50

USAGE = """\
usage: byos-run rehearse inputs.csv [--rows 1-6,9] [--slots N] [--cores N]
                [--store minio [--sample]] [--json] [--KEY VALUE ...]
                [-- COMMAND ...]

Runs every row of the table on this machine as the platform would: each in a
fresh directory, with byos.toml from byos.toml.template, config, byos-run, and
the platform's variables. Then it tells what would have been saved to the
platform's storage: nothing but each run's own log is the pass.

  --rows 1-6,9        only these rows
  --slots N           runs at once (default: what the cores give)
  --cores N           of one run (default: this machine's, over the slots)
  --store minio       a private MinIO instead of your store, for this rehearsal
                      alone; or the path of its binary. Inputs are copied there
  --sample            make small inputs instead of copying
  --directory DIR     where the runs work; it must not be there yet
  --keep              leave the runs' directories, also of those that passed
  --json              one document on standard output
  --command TEXT      replaces the solver; every other flag of "run" does too
"""
CODES = """
exit codes:
  0   every run ended well, and nothing would have been saved by the platform
  1   some did not, or something would have been
  64  command line, table, template or job file wrong (all problems listed)
  66  an input does not exist (all that do not are listed)
  69  store not reachable
  71  this machine: disk full, no such command, the private store did not start
  75  stopped by a signal
  77  store refused the credentials or the permission
"""


@dataclass(frozen=True)
class _Asked:
    table: str
    rows: str
    slot: Slot
    store: str
    sample: bool
    directory: str
    keep: bool
    as_json: bool
    arguments: tuple[str, ...]
    """Flags of ``run``, for each run."""


def rehearse(words: Sequence[str], *, place: Place, stop: Stop, show: Callable[[str], object]) -> int:
    """*show* writes to standard output. Returns the exit code. Raises ByosError."""
    asked = _asked(words)
    if sys.platform != "linux":
        raise errors.NodeUnfit("a rehearsal needs Linux, as the runs do")
    process.make_private()
    program = stand_in.find_program(asked.store, place.environ.get("PATH", os.defpath)) if asked.store else ""
    kit = kit_in(place, arguments=asked.arguments, slot=asked.slot)
    found = table.parse(read_table(place.run_directory / asked.table), name=asked.table)
    screen = result.Shown(Terminal(1, place.environ), show, slot=asked.slot, is_quiet=asked.as_json or place.volume < 0)
    try:
        with voice(place) as book, ExitStack() as stack:
            base = _base(asked, place)
            stack.callback(workspace.remove_if_empty, base)
            stores = stack.enter_context(_Stores(place, stop))
            runs = _planned(found, asked=asked, kit=kit, base=base)
            for text in kit.not_on_the_platform if not program else ():
                book.warn(text)
            if not asked.sample:
                _look_at_inputs(runs, stores)
            if program:
                kit = _stand_in(stack, program, runs, base=base, kit=kit, stores=stores, book=book, sample=asked.sample)
            count = log.count(len(runs), "run")
            book.log.info(
                f"{count}, {asked.slot.slots} at a time on {log.count(asked.slot.cores, 'core')} each, below {base}"
            )
            screen.begin(runs)
            run_all(runs, kit=kit, stop=stop, evidence=stores.evidence, show=lambda: screen.draw(runs), keep=asked.keep)
        show(screen.end(runs, as_json=asked.as_json))
    except OSError as error:
        raise errors.NodeUnfit(f"{error.filename or 'this machine'}: {error.strerror}") from error
    if stop.asked:
        raise errors.Stopped(f"stopped by {stop.reason} before all runs had ended")
    return 0 if all(run.passed for run in runs) else 1


# ---------------------------------------------------------------- what is asked


def _asked(words: Sequence[str]) -> _Asked:
    end = words.index("--") if "--" in words else len(words)
    given = sort_words(
        words[:end], command="rehearse", switches=("--sample", "--keep", "--json"),
        values=("--rows", "--slots", "--cores", "--store", "--directory"),
    )  # fmt: skip
    problems = [] if len(given.places) == 1 else ["rehearse needs one table: inputs.csv"]
    if "--sample" in given.switches and "--store" not in given.values:
        problems.append("--sample: it needs --store minio: nothing is written to your own store but outputs")
    if "--store" in given.values and any(word.startswith("--store-endpoint-url") for word in given.keys):
        problems.append("--store and --store-endpoint-url are both given: which store is it?")
    slots = _number(given.values, "--slots", problems)
    width = _number(given.values, "--cores", problems)
    if problems:
        raise errors.UsageError(problems, hint="byos-run rehearse --help")
    usable = cores.usable().count
    width = width or max(1, usable // (slots or 1))
    return _Asked(
        table=given.places[0], rows=given.values.get("--rows", ""), slot=Slot(slots or max(1, usable // width), width),
        store=given.values.get("--store", ""), sample="--sample" in given.switches,
        directory=given.values.get("--directory", ""), keep="--keep" in given.switches,
        as_json="--json" in given.switches, arguments=(*given.keys, *words[end:]),
    )  # fmt: skip


def _number(values: Mapping[str, str], flag: str, problems: list[str]) -> int:
    text = values.get(flag, "")
    if text and not re.fullmatch(r"[1-9][0-9]{0,3}", text):
        problems.append(f"{flag}: {text!r} is not a whole number from 1 to 9999")
        return 0
    return int(text or 0)


def _picked(found: Table, ranges: str) -> list[Row]:
    """The rows that ``--rows`` names, all without it. Raises UsageError."""
    if not ranges:
        return list(found.rows)
    numbers: set[int] = set()
    for part in ranges.split(","):
        match = re.fullmatch(r"\s*([0-9]{1,9})\s*(?:-\s*([0-9]{1,9})\s*)?", part)
        if not match or int(match[2] or match[1]) < int(match[1]):
            raise errors.UsageError([f"--rows: {ranges!r} is not like 1-6,9"])
        last = found.row(int(match[2] or match[1])).number
        numbers |= set(range(found.row(int(match[1])).number, last + 1))
    return [found.row(number) for number in sorted(numbers)]


def _base(asked: _Asked, place: Place) -> Path:
    try:
        if not asked.directory:
            return Path(tempfile.mkdtemp(prefix="byos-rehearsal-", dir=place.environ.get("TMPDIR") or None))
        base = place.run_directory / asked.directory
        base.mkdir(mode=0o700, parents=True)  # a config will lie below
    except FileExistsError:
        raise errors.UsageError([f"--directory: {asked.directory!r} is there already"]) from None
    except OSError as error:
        raise errors.NodeUnfit(f"cannot make a directory for the runs: {error.strerror}") from error
    return base


# ---------------------------------------------------------------- before anything starts


def _planned(found: Table, *, asked: _Asked, kit: Kit, base: Path) -> list[Run]:
    """Every row settled, and its command found. Raises UsageError with the problems of all, NodeUnfit."""
    plan, runs = base / "plan", []
    told: dict[str, list[int]] = {}
    plan.mkdir()
    try:
        for row in _picked(found, asked.rows):
            try:
                runs.append(Run(row, kit.job(row, plan), base / f"row-{row.number}"))
            except errors.UsageError as error:
                for problem in error.problems:
                    told.setdefault(problem, []).append(row.number)
    finally:
        workspace.remove_tree(plan)
    if told:
        raise errors.UsageError([f"{_rows(numbers)}: {problem}" for problem, numbers in told.items()][:_NAMED])
    for job in {run.job.command[0]: run.job for run in runs}.values():
        try:
            solve.prepare(job=job, place=Place(run_directory=base, environ=kit.environ()))
        except errors.NodeUnfit as error:
            hint = "replace the solver by something that this machine has: byos-run rehearse inputs.csv -- COMMAND"
            raise errors.NodeUnfit(error.message, hint=hint) from None
    return runs


def _rows(numbers: Sequence[int]) -> str:
    if len(numbers) == 1:
        return f"row {numbers[0]}"
    return f"rows {', '.join(map(str, numbers[:5]))}" + (f" and {len(numbers) - 5:,} more" if len(numbers) > 5 else "")


def _look_at_inputs(runs: Sequence[Run], stores: _Stores) -> None:
    """Raises MissingInput with all that do not exist, AccessRefused, StoreUnreachable."""
    wanted: dict[S3Url, Run] = {url: run for run in reversed(runs) for url in run.job.input}
    for bucket, run in {url.bucket: run for url, run in wanted.items()}.items():
        stores.wire(run.job.store, bucket)  # before there are threads

    def missing(item: tuple[S3Url, Run]) -> str:
        url, run = item
        try:
            fetch.locate([url], wire_of=lambda bucket: stores.wire(run.job.store, bucket))
        except errors.MissingInput as error:
            return f"row {run.row.number}: {error.message}"
        return ""

    with Pool(name="look", width=_LOOKS_AT_ONCE) as pool:
        absent = sorted(text for text in pool.each(missing, wanted.items()) if text)
    if absent:
        more = f" and {len(absent) - _NAMED:,} more" if len(absent) > _NAMED else ""
        raise errors.MissingInput("; ".join(absent[:_NAMED]) + more)


class _Stores:
    """Our own way to each store that a job names, or to the private one."""

    def __init__(self, place: Place, stop: Stop) -> None:
        self._place = place
        self.stop = stop
        self._sessions: dict[str, Session] = {}
        self.private: Session | None = None

    def __enter__(self) -> _Stores:
        return self

    def __exit__(self, *failure: object) -> None:
        for session in [*self._sessions.values(), *([self.private] if self.private else [])]:
            session.close()

    def wire(self, settings: StoreSettings, bucket: str) -> Wire:
        """Of the user's own store."""
        if repr(settings) not in self._sessions:
            self._sessions[repr(settings)] = Session(settings=settings, place=self._place)
        return self._sessions[repr(settings)].wire(bucket, stop=self.stop).until(patience_s=_PATIENCE_S)

    def evidence(self, job: Job) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
        """Manifest and certificate as the bucket has them, empty where it has none or does not answer."""
        bucket, below = job.output.bucket, f"{job.output.key}_byos/"
        try:
            wire = self.private.wire(bucket, stop=self.stop) if self.private else self.wire(job.store, bucket)
            wire = wire.until(stop=self.stop.unless_cut, patience_s=_PATIENCE_S)
            found = [objects.get(wire, f"{below}{name}") for name in ("manifest.json", "purge.json")]
        except errors.ByosError:
            return {}, {}
        manifest, certificate = (parsed(item.body) if item else {} for item in found)
        return manifest, certificate


def _stand_in(
    stack: ExitStack, program: str, runs: list[Run], *, base: Path, kit: Kit, stores: _Stores, book: Book, sample: bool
) -> Kit:
    """A private store with the inputs of *runs*, for as long as *stack* holds; the kit that uses it."""
    where = base / "store"
    known = stack.enter_context(stand_in.private_store(program, where, place=kit.place, stop=stores.stop))
    stores.private = stand_in.session_with(known, where)
    profiles = sorted({run.job.store.profile for run in runs})

    def to(bucket: str) -> Wire:
        assert stores.private is not None
        return stores.private.wire(bucket, stop=stores.stop)

    with book.phase("sample" if sample else "copy") as count:
        written = stand_in.fill_store(
            [run.job for run in runs], to=to, directory=where, tally=count,
            source_of=None if sample else lambda job, bucket: stores.wire(job.store, bucket),
        )  # fmt: skip
    done = f"{'made' if sample else 'copied'} {log.count(written, 'input')}, {log.size(count.bytes_in)}"
    book.log.info(f"a private store at {known.endpoint_url}; {done}")
    return replace(kit, config=known.config(*profiles), endpoint_url=known.endpoint_url)
