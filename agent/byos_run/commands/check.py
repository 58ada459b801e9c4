"""``byos-run check``: everything that the run of this directory will rely on, tried for real, in the order of a run.

    node, command ▶ keys ▶ inputs, their directories, room ▶ output: in use? write, read, parts, listing, delete ▶ licence

Every trial is made although an earlier one failed, but for those that need what is not there. Nothing is claimed or purged,
``config`` stays, and the probe below the output is gone afterwards. The exit code is that of the first failure: the run would
end with it.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

from byos_run import errors, log
from byos_run.archive.plan import Limits, Plan, merge_check, plan_file
from byos_run.archive.unpack import plan_of
from byos_run.bucket import objects, ranges
from byos_run.bucket.probe import Probe
from byos_run.bucket.session import Session
from byos_run.bucket.wire import Wire
from byos_run.errors import printable
from byos_run.model import Job, Place
from byos_run.node import licence, mpi, scratch, volumes
from byos_run.node.pool import Pool, Stop
from byos_run.steps import fetch, solve
from byos_run.steps.claim import parsed
from byos_run.steps.fetch import Input
from byos_run.steps.settle import settle
from byos_run.steps.words import sort_words

_PATIENCE_S = 3.0
_READ_BYTES, _PART_BYTES, _READERS = 16 << 20, 2 << 20, 8
_LOOKED_AT = 20
"""Archives whose directory is read; of more, the first ones."""
_LAUNCHERS = ("mpirun", "mpiexec", "orterun", "prterun")
_GET_DOLLARS, _PUT_DOLLARS = 0.4e-6, 5e-6
"""A request to S3 Standard, list price of us-east-1 in 2026; transfer is another matter."""

USAGE = """\
usage: byos-run check [--json] [--KEY VALUE ...] [-- COMMAND ...]

Tries for real what the run of this directory (byos.toml, flags, BYOS_*) will
rely on: this node and the command, the keys, every input and its directory,
room on the disk, writing, reading and deleting below the output, whether the
output is in use, the licence server. A small object is written below the output
and deleted; config stays. Ends with the plan: bytes, files, peak disk, seconds.
"""
CODES = """
exit codes:
  0   the run can start; else the code that it would end with
  64  command line or job file wrong; the output holds what is not ours
  65  an input is damaged, hostile or of an unsupported kind
  66  an input does not exist
  69  store not reachable
  71  this node: no such command, disk too small
  73  the output is in use by another run
  75  stopped by a signal
  77  store refused the credentials or the permission
"""


@dataclass(frozen=True)
class Line:
    """One trial, and what came of it."""

    name: str
    ok: bool | None
    """None: it could not be tried."""
    said: str
    hint: str = ""
    code: int = 0


@dataclass
class _Known:
    """What the trials have found out for those that follow."""

    session: Session | None = None
    inputs: Sequence[Input] = ()
    plans: Sequence[Plan] = ()
    bytes_per_s: float = 0.0


class _Missing(Exception):
    """What this trial needs, an earlier one did not find."""


def check(words: Sequence[str], *, place: Place, stop: Stop, show: Callable[[str], object]) -> int:
    """*show* writes to standard output. Returns the exit code. Raises UsageError, Stopped."""
    end = words.index("--") if "--" in words else len(words)
    given = sort_words(words[:end], command="check", switches=("--json",))
    if given.places:
        raise errors.UsageError(
            [f'"{printable(given.places[0])}": check takes flags alone'], hint="byos-run check --help"
        )
    job = settle(arguments=[*given.keys, *words[end:]], place=place)
    store = replace(
        job.store,
        first_contact_s=min(job.store.first_contact_s, _PATIENCE_S),
        patience_s=min(job.store.patience_s, _PATIENCE_S),
    )
    checking = _Checking(replace(job, store=store), place, stop)
    try:
        checking.all()
    finally:
        if checking.known.session is not None:
            checking.known.session.close()
    plan, code = checking.plan(), next((line.code for line in checking.lines if line.ok is False), 0)
    if "--json" in given.switches:
        document = {
            "ok": not code,
            "exit_code": code,
            "checks": [asdict(line) for line in checking.lines],
            "plan": plan,
        }
        show(json.dumps(document, indent=1) + "\n")
    else:
        show(_text(checking.lines, plan, quiet=place.volume < 0))
    return code


class _Checking:
    """The trials, one after the other; each a method that says what it found, or raises."""

    def __init__(self, job: Job, place: Place, stop: Stop) -> None:
        self._job = job
        self._place = place
        self._stop = stop
        self.known = _Known()
        self.lines: list[Line] = []

    def all(self) -> None:
        self._try("node", self._node)
        self._try("command", self._command)
        self._try("keys", self._keys)
        self._try("input", self._input)
        self._try("archive", self._archive)
        self._try("reading", self._reading)
        self._try("disk", self._disk)
        self._try("output free", self._free)
        try:
            with Probe(self._wire(), self._job.output.key) as probe:
                for name, trial in (
                    ("write", probe.write), ("read back", probe.read), ("clock", probe.clock), ("condition", probe.condition),
                    ("parts", probe.multipart), ("listing", probe.listing), ("delete", probe.delete),
                ):  # fmt: skip
                    self._try(name, trial)
        except _Missing as why:
            self.lines.append(Line("write", None, str(why)))
        for host, port in licence.servers(self._place.environ):
            self._try("licence", partial(self._licence, host, port))

    def _try(self, name: str, trial: Callable[[], str]) -> None:
        self._stop.check()
        if any(line.code == errors.StoreUnreachable.code for line in self.lines) and name not in ("disk", "licence"):
            self.lines.append(Line(name, None, "not tried: the store is not reachable"))
            return
        try:
            self.lines.append(Line(name, True, trial()))
        except _Missing as why:
            self.lines.append(Line(name, None, f"not tried: {why}"))
        except errors.Stopped:
            raise
        except errors.UsageError as error:
            self.lines.append(Line(name, False, "; ".join(error.problems), error.hint, error.code))
        except errors.ByosError as error:
            self.lines.append(Line(name, False, error.message, error.hint, error.code))

    def _wire(self, bucket: str = "") -> Wire:
        if self.known.session is None:
            raise _Missing("there are no keys")
        return self.known.session.wire(bucket or self._job.output.bucket, stop=self._stop)

    def _node(self) -> str:
        scratch.refuse_run_directory(self._place.run_directory, home=self._place.environ.get("HOME", ""))
        where = (
            "on the platform: all of it is emptied at the end"
            if self._place.on_platform
            else "only what is ours goes at the end"
        )
        return f"{self._place.run_directory}, {where}"

    def _command(self) -> str:
        launch = solve.prepare(job=self._job, place=self._place)
        cores = f"{log.count(launch.slot.count, 'core')} ({launch.slot.source})"
        is_launcher = os.path.basename(launch.path).startswith(_LAUNCHERS)
        flavour = " ".join(mpi.flavour(launch.path, environ=launch.environ)) if is_launcher else ""
        what = [launch.path or launch.command[0], *([flavour] if flavour.strip() else []), cores]
        return "; ".join([", ".join(what), *launch.warnings])

    def _keys(self) -> str:
        self.known.session = session = Session(settings=self._job.store, place=self._place, stop=self._stop)
        return "; ".join([session.identity, *session.warnings])

    def _input(self) -> str:
        self.known.inputs = found = fetch.locate(self._job.input, wire_of=self._wire)
        return f"{log.count(len(found), 'object')}, {log.size(sum(item.size_bytes for item in found))}"

    def _archive(self) -> str:
        if not self.known.inputs:
            raise _Missing("there is no input")
        space = volumes.space(self._place.run_directory)
        limits = Limits.of(self._job.fetch, free_bytes=space.free_bytes)
        plans = []
        for item in self.known.inputs[:_LOOKED_AT]:
            source = ranges.open_object(self._wire(item.url.bucket), item.url)
            plans.append(plan_file(source, path=item.path) if item.path else plan_of(source, limits=limits))
        merge_check(plans)
        self.known.plans = plans
        size, files = sum(plan.total_bytes for plan in plans), sum(plan.files for plan in plans)
        some = f", of the first {_LOOKED_AT}" if len(self.known.inputs) > _LOOKED_AT else ""
        guess = "" if all(plan.exact for plan in plans) else ", a tar's as packed"
        return f"{log.count(files, 'file')}, {log.size(size)} unpacked{some}{guess}"

    def _reading(self) -> str:
        item = max(self.known.inputs, key=lambda item: item.size_bytes, default=None)
        if item is None:
            raise _Missing("there is no input")
        source = ranges.open_object(self._wire(item.url.bucket), item.url)
        count = min(source.size_bytes, _READ_BYTES)
        started = time.monotonic()
        with Pool(name="read", width=_READERS) as readers:
            parts = [(at, min(_PART_BYTES, count - at)) for at in range(0, count, _PART_BYTES)]
            for future in [readers.submit(source.read, at, length) for at, length in parts]:
                future.result()
        self.known.bytes_per_s = count / max(time.monotonic() - started, 1e-3)
        return f"{log.rate(count, time.monotonic() - started)} over {log.size(count)}"

    def _disk(self) -> str:
        space = volumes.space(self._place.run_directory)
        need_bytes, need_inodes = sum(p.total_bytes for p in self.known.plans), sum(p.files for p in self.known.plans)
        room = f"{log.size(space.free_bytes)} and {space.free_inodes:,} inodes free"
        if need_bytes > space.free_bytes or need_inodes > space.free_inodes:
            hint = "choose a larger disk, or a scratch with more room"
            raise errors.NodeUnfit(
                f"{room}: the input unpacks to {log.size(need_bytes)} in {need_inodes:,} files", hint=hint
            )
        return room

    def _free(self) -> str:
        """The claim's questions, without claiming."""
        wire, prefix = self._wire(), self._job.output.key
        try:
            held = objects.get(wire, f"{prefix}_byos/status.json")
        except errors.AccessRefused as error:
            if error.error_code != "AccessDenied":
                raise
            held = None  # without listing, AWS says so of a key that is not there; the probe tells the rest
        told = parsed(held.body) if held else {}
        if held and told.get("phase") != "over" and held.age_s < self._job.store.lease_s:
            node = (
                printable(str(told.get("host", {}).get("name", "")))[:60] if isinstance(told.get("host"), dict) else ""
            )
            raise errors.PrefixInUse(f"{self._job.output} is in use by another run{' on ' + node if node else ''}")
        if held or self._job.publish.overwrite:
            return "an earlier attempt is there, and over" if held else "whatever is there may be overwritten"
        strangers = self._strangers(wire, prefix)
        if strangers:
            raise errors.UsageError(
                [f"output {self._job.output} holds objects that no run of byos-run wrote: {strangers}"],
                hint="choose an empty prefix, or allow it with publish.overwrite = true",
            )
        return f"nothing is in {self._job.output}"

    @staticmethod
    def _strangers(wire: Wire, prefix: str) -> str:
        try:
            found = (item.key for item in objects.listed(wire, prefix) if item.key != prefix)
            return next((repr(printable(key)) for key in found if not key.startswith(f"{prefix}_byos/")), "")
        except errors.AccessRefused:
            return ""

    @staticmethod
    def _licence(host: str, port: int) -> str:
        why = licence.answers(host, port)
        if why:
            raise errors.NodeUnfit(
                f"{port}@{host} does not answer: {why}", hint="the solver will wait or end for want of a licence"
            )
        return f"{port}@{host} answers"

    def plan(self) -> dict[str, Any]:
        """What the run will move and need, as far as is known before it."""
        read = sum(item.size_bytes for item in self.known.inputs)
        requests = len(self.known.inputs) * 3 + -(-read // _PART_BYTES)
        return {
            "objects": len(self.known.inputs), "bytes": read, "files": sum(plan.files for plan in self.known.plans),
            "peak_disk_bytes": sum(plan.total_bytes for plan in self.known.plans),
            "fetch_seconds": round(read / self.known.bytes_per_s, 1) if self.known.bytes_per_s else None,
            "requests": requests, "request_dollars": round(requests * _GET_DOLLARS + 10 * _PUT_DOLLARS, 6),
        }  # fmt: skip


def _text(lines: Sequence[Line], plan: dict[str, Any], *, quiet: bool) -> str:
    marks = {True: "ok", False: "NO", None: "--"}
    width = max(len(line.name) for line in lines)
    rows = []
    for line in lines:
        if not (quiet and line.ok):
            rows.append(f"{marks[line.ok]}  {line.name:<{width}}  {line.said}")
            rows += [f"    {'':<{width}}  hint: {line.hint}"] if line.hint else []
    if plan["objects"] and not quiet:
        took = (
            f", about {log.duration(plan['fetch_seconds'])} at this rate" if plan["fetch_seconds"] is not None else ""
        )
        rows.append(
            f"plan: {log.count(plan['objects'], 'object')}, {log.size(plan['bytes'])} ▶ {log.count(plan['files'], 'file')}, "
            f"{log.size(plan['peak_disk_bytes'])} on disk{took}; {plan['requests']:,} requests to fetch, about "
            f"{plan['request_dollars']:.4f} $ at S3's list price"
        )
    failed = sum(line.ok is False for line in lines)
    rows.append(f"{log.count(failed, 'trial')} failed" if failed else "the run can start")
    return "".join(f"{printable(row)}\n" for row in rows)
