"""The tries of ``byos-run check``, one method each: what was found, or the error that a run would have ended with."""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from byos_run import errors, log
from byos_run.archive.plan import Limits, Plan, merge_check, safe_path
from byos_run.archive.unpack import plan_of
from byos_run.bucket import ranges
from byos_run.bucket.probe import Probe, Rate, read_rate
from byos_run.bucket.session import Session
from byos_run.bucket.wire import Wire
from byos_run.model import Job, Place
from byos_run.node import licence, mpi, neighbour, scratch, volumes
from byos_run.node.pool import Pool
from byos_run.node.stop import Stop
from byos_run.steps import claim, fetch, outlook, solve
from byos_run.steps.fetch import Input

_AT_ONCE = 8
_ARCHIVES_S = 2.5
"""Somebody waits: of thousands of archives only the first ones are looked at."""
_SKEW_S = 60.0
_SAME_S = 2.0
"""``Date`` has whole seconds."""


@dataclass(frozen=True)
class Checked:
    """One line."""

    name: str
    state: str
    """ok | note (a run goes on all the same) | failed | not tried."""
    told: str
    hint: str = ""
    code: int = 0
    """That a run would end with; 0 unless it failed."""


class Tries:
    """All checks of one job. *checked* grows in the order of a run."""

    def __init__(self, job: Job, *, place: Place, stop: Stop) -> None:
        self._job, self._place, self._stop = job, place, stop
        self.checked: list[Checked] = []
        self._session: Session | None = None
        self._inputs: list[Input] = []
        self._plans: list[Plan] = []
        self._whole = True
        """Every input was found and its archive read."""
        self._read: Rate | None = None
        self._written: Rate | None = None
        self._away: set[str] = set()
        """Buckets that could not be reached: not waited for again."""

    def all(self) -> None:
        """Raises Stopped alone."""
        self._try("directory", self._directory)
        self._try("command", self._command)
        self._try("identity", self._identity)
        try:
            if self._session is None:
                self._say("store", "not tried", "inputs and output: without an identity nothing can be asked")
            else:
                self._store()
            self._try("disk", self._disk)
            self._licence()
        finally:
            if self._session is not None:
                self._session.close()

    def plan(self) -> outlook.Plan:
        exact = self._whole and all(plan.exact for plan in self._plans)
        return outlook.plan_for(
            sizes_bytes=[item.size_bytes for item in self._inputs],
            members=sum(plan.files for plan in self._plans) if exact else None,
            unpacked_bytes=sum(plan.total_bytes for plan in self._plans) if self._whole else None,
            read_bytes_per_s=self._read.bytes_per_s if self._read else None,
            write_bytes_per_s=self._written.bytes_per_s if self._written else None,
        )

    # ------------------------------------------------------------ how it is told

    def _say(self, name: str, state: str, told: str, *, hint: str = "") -> None:
        self.checked.append(Checked(name, state, told, hint))

    def _try(self, name: str, attempt: Callable[[], str]) -> bool:
        """*attempt* returns what is told. True if it went well."""
        self._stop.check()
        with self._caught(name):
            self._say(name, "ok", attempt())
            return True
        return False

    @contextmanager
    def _caught(self, name: str) -> Iterator[None]:
        try:
            yield
        except errors.Stopped:
            raise
        except errors.ByosError as error:
            self.checked.append(Checked(name, "failed", errors.line_of(error), error.hint, error.code))

    # ------------------------------------------------------------ this node

    def _directory(self) -> str:
        here = self._place.run_directory
        scratch.refuse_run_directory(here, home=self._place.environ.get("HOME", ""))
        for path, marker in neighbour.live_neighbours(here, skip={".byos"}).items():
            raise errors.UsageError([f"{str(here)!r} holds another live run, in {path!r} (process {marker.pid})"])
        if not os.access(here, os.W_OK | os.X_OK):
            raise errors.NodeUnfit(f"{str(here)!r} cannot be written", hint="start byos-run in a directory of its own")
        scratch.refuse_case(scratch=self._job.scratch, run_directory=here, earlier_case=None)
        return str(here)

    def _command(self) -> str:
        launch = solve.prepare(job=self._job, place=self._place)
        for text in launch.warnings:
            self._say("command", "note", text)
        name, version = mpi.flavour(launch.path, environ=launch.environ) if _is_launcher(launch.path) else ("", "")
        what = f"{launch.path or launch.command[0]}" + (f" ({name} {version})" if name else "")
        return f"{what}, {log.count(launch.slot.count, 'core')} ({launch.slot.source})"

    def _disk(self) -> str:
        job, place = self._job, self._place
        where = place.run_directory / job.scratch
        if job.scratch == scratch.OUTSIDE:
            need_bytes = sum(plan.total_bytes for plan in self._plans)
            where = scratch.base_outside(place.environ, need_bytes, 0) / "byos" / "case"
        there = next(path for path in where.parents if path.is_dir())
        free = volumes.space(there)
        fetch.refuse_too_large(self._plans, free=free, where=there / "case")
        what = "" if self._whole else "; what the inputs need is not known"
        inodes = f", {free.free_inodes:,} inodes" if free.free_inodes < 1 << 60 else ""
        return f"{log.size(free.free_bytes)}{inodes} free in {there}{what}"

    def _licence(self) -> None:
        with Pool(name="licence", width=8) as pool:
            for name, hosts in licence.servers(self._place.environ).items():
                tried = dict(pool.each(lambda server: (server, licence.answers(server)), hosts))
                good = [f"{port}@{host}" for (host, port), problem in tried.items() if not problem]
                bad = [f"{port}@{host}: {problem}" for (host, port), problem in tried.items() if problem]
                if good:
                    self._say("licence", "ok", f"{name}: {', '.join(good)} accepts connections")
                    continue
                told, hint = f"{name}: {'; '.join(bad)}", "is the server up, and may this node reach that port?"
                self.checked.append(Checked("licence", "failed", told, hint, errors.NodeUnfit.code))

    # ------------------------------------------------------------ the store

    def _identity(self) -> str:
        self._session = session = Session(settings=self._job.store, place=self._place, stop=self._stop)
        for text in session.warnings:
            self._say("identity", "note", text)
        return session.identity

    def _wire(self, bucket: str) -> Wire:
        assert self._session is not None
        return self._session.wire(bucket, stop=self._stop)

    def _at(self, bucket: str, name: str, attempt: Callable[[], str]) -> bool:
        """*attempt*, unless the store of *bucket* was away before."""
        if bucket in self._away:
            self._say(name, "not tried", f"bucket {bucket!r} could not be reached")
            return False
        went = self._try(name, attempt)
        if not went and self.checked[-1].code == errors.StoreUnreachable.code:
            self._away.add(bucket)
        return went

    def _store(self) -> None:
        with Pool(name="check", width=_AT_ONCE) as pool:
            for url in self._job.input:
                found: list[Input] = []

                def locate(url=url, found=found) -> str:  # type: ignore[no-untyped-def]  # bound now, for this turn
                    found += fetch.locate([url], wire_of=self._wire)
                    return f"{url}: {log.count(len(found), 'object')}, {log.size(sum(i.size_bytes for i in found))}"

                self._whole &= self._at(url.bucket, "input", locate)
                self._inputs += found
            self._output(pool)
            if self._inputs:
                self._whole &= self._try("archives", lambda: self._archives(pool))
                largest = max(self._inputs, key=lambda item: item.size_bytes)
                self._at(largest.url.bucket, "read", lambda: self._reading(largest, pool))

    def _archives(self, pool: Pool) -> str:
        free = volumes.space(self._place.run_directory)

        def planned(item: Input) -> Plan:
            if item.path:
                path = safe_path(item.path, of=item.url)
                return Plan(item.url, "file", 1, 0, item.size_bytes, exact=True, path=path)
            source = ranges.open_object(self._wire(item.url.bucket), item.url)
            return plan_of(source, limits=Limits.of(self._job.fetch, free_bytes=free.free_bytes))

        until = time.monotonic() + _ARCHIVES_S
        in_time = itertools.takewhile(lambda _: time.monotonic() < until, self._inputs)
        self._plans = list(pool.each(planned, in_time))
        merge_check(self._plans)
        files = sum(plan.files for plan in self._plans)
        if len(self._plans) < len(self._inputs):
            self._whole = False
            looked_at = f"{len(self._plans):,} of {len(self._inputs):,}"
            return f"{looked_at} could be looked at in the time there is: {log.count(files, 'file')}"
        exact = all(plan.exact for plan in self._plans)
        told = f"{log.count(files, 'file')}, {log.size(sum(plan.total_bytes for plan in self._plans))}"
        return told if exact else "readable; what a tar holds is known when it streams"

    def _reading(self, item: Input, pool: Pool) -> str:
        self._read = rate = read_rate(self._wire(item.url.bucket), item.url, pool)
        return f"{log.size(rate.size_bytes)} ({log.size(rate.bytes_per_s)}/s)"

    # ------------------------------------------------------------ the output prefix

    def _output(self, pool: Pool) -> None:
        job = self._job
        bucket = job.output.bucket
        if not self._at(bucket, "output", self._there):
            return
        wire = self._wire(bucket)
        probe = Probe(wire, job.output)
        may_delete = self._at(bucket, "delete", lambda: self._allowed(probe.may_delete, "allowed (s3:DeleteObject)"))
        may_abort = self._at(
            bucket, "abort", lambda: self._allowed(probe.may_abort, "allowed (s3:AbortMultipartUpload)")
        )
        if may_delete:
            self._at(bucket, "write", lambda: self._writing(probe))
        else:
            self._say("write", "not tried", "a probe could not be deleted again")
        if may_abort:
            self._at(bucket, "multipart", lambda: self._multipart(probe, pool))
        else:
            self._say("multipart", "not tried", "an upload could not be aborted again")
        self._clock(probe.skew_s)
        self._listing(probe)
        self._at(bucket, "prefix", lambda: self._prefix(wire))

    def _there(self) -> str:
        claim.bucket_exists(self._wire(self._job.output.bucket), self._job.output)
        return str(self._job.output)

    @staticmethod
    def _allowed(attempt: Callable[[], None], told: str) -> str:
        attempt()
        return told

    def _writing(self, probe: Probe) -> str:
        echoed, conditional = probe.write()
        if not conditional:
            self._say("write", "note", "If-None-Match is not honoured: two runs could claim one prefix at once")
        checksum = "checksum echoed" if echoed else "no checksum echoed: the ETag, or reading back, proves instead"
        return f"written, read back, deleted; {checksum}"

    def _multipart(self, probe: Probe, pool: Pool) -> str:
        self._written = rate = probe.multipart(pool)
        return f"{log.size(rate.size_bytes)} sent and aborted ({log.size(rate.bytes_per_s)}/s)"

    def _clock(self, skew_s: float) -> None:
        ahead = "ahead of" if skew_s < 0 else "behind"
        close = abs(skew_s) < _SAME_S
        told = (
            "the node's and the store's agree"
            if close
            else f"the node is {log.duration(abs(skew_s))} {ahead} the store"
        )
        self._say("clock", "ok" if abs(skew_s) < _SKEW_S else "note", told)

    def _listing(self, probe: Probe) -> None:
        """Both help, and a run goes on without."""
        for action, attempt in (
            ("s3:ListBucket", probe.may_list),
            ("s3:ListBucketMultipartUploads", probe.may_find_uploads),
        ):
            self._stop.check()
            try:
                attempt()
            except errors.AccessRefused:
                hint = f"grant {action}, or go on without: objects of others, or half uploads, are not noticed then"
                self._say("listing", "note", f"{action} is not allowed", hint=hint)
            except (errors.StoreRefused, errors.NoSuchObject, errors.StoreUnreachable) as error:
                self._say("listing", "note", errors.line_of(error))
            else:
                self._say("listing", "ok", f"allowed ({action})")

    def _prefix(self, wire: Wire) -> str:
        keys = [(item.url, item.etag, item.version_id) for item in self._inputs]
        said: list[str] = []
        complete = claim.look(
            wire=wire,
            job=self._job,
            digest=claim.digest_of(self._job, keys),
            is_dead=neighbour.is_dead,
            say=said.append,
        )
        if said:
            return said[0]
        return "an equal run is whole there: nothing would be done (again = true)" if complete else "free"


def _is_launcher(path: str) -> bool:
    return Path(path).name.startswith(("mpirun", "mpiexec", "orterun", "prterun"))
