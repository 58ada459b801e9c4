"""What ``run`` tells, chapter by chapter: each calls one step and keeps what it returned for the next.

The order is ``run``'s; here is only what joins a step to its neighbours: which values it gets, what is said of it, what the
journal is told. A chapter that is told after the run was ended early does what is still possible.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any, Callable

from byos_run import errors, log, reporting, sentences
from byos_run.bucket import objects
from byos_run.bucket.credentials import secret_files
from byos_run.bucket.wire import Wire
from byos_run.endings import Pace, Reserve, Waiting, cloud_watched
from byos_run.model import Attempt, Case, Fetched, Published, Purged, S3Url, Skipped, Solved, Unpublished
from byos_run.node import cores, files, journal, neighbour, scratch, workspace
from byos_run.node.pool import Every
from byos_run.node.traces import Traces
from byos_run.opening import SOLVER_LOG, Opened
from byos_run.publishing import Delivery, Publishing
from byos_run.steps import claim, fetch, purge, record, render, solve
from byos_run.steps.packing import BUNDLES

_BEAT_S = 20.0
_NAMED = 10
_CLOCK_S = 60.0


class Run:
    """One run; the methods are its chapters."""

    def __init__(self, opened: Opened) -> None:
        self.opened = opened
        self.job = opened.job
        self.place = opened.place
        self.stop = opened.stop
        self.book = opened.book
        self.run_id = opened.run_id
        self.wire = opened.wire
        self.journal = opened.journal
        self.room = opened.room
        self.case = Case(opened.room.case, opened.own_directory / SOLVER_LOG)
        self.solved: Solved | None = opened.earlier.solved if opened.continues and opened.earlier else None
        self.attempt = Attempt(self.run_id, 0, 0.0)
        self.digest = ""
        self.is_whole_already = False
        self.gauge = reporting.Gauge(opened, place=lambda: self.room.case)
        self.fetched: list[Fetched] = []
        self.published: tuple[Published, ...] = ()
        self.unpublished: tuple[Unpublished, ...] = ()
        self.skipped: tuple[Skipped, ...] = ()
        self.publishing: Publishing | None = None
        self.pace = Pace()
        self.delivery: Delivery | None = None
        self.ended_by: errors.ByosError | None = None
        self.account: record.Account | None = None
        self.purged: Purged | None = None
        self.recorded = False

    # ------------------------------------------------------------ before anything moves

    @property
    def continues(self) -> bool:
        """An earlier attempt solved here; only publishing, recording and purging are left."""
        return self.opened.continues

    def claim(self) -> None:
        """The inputs are there, and the output prefix is ours; else the run directory is as it was."""
        try:
            self._claim()
        except errors.ByosError:
            self.opened.undo()
            raise

    def _claim(self) -> None:
        job, book = self.job, self.book
        with book.phase("claim", quiet=True):
            self.inputs = [] if self.continues else fetch.locate(job.input, wire_of=self._wire_of)
            keys = [(item.url, item.etag, item.version_id) for item in self.inputs]
            earlier = self.opened.earlier
            self.digest = earlier.digest if self.continues and earlier else claim.digest_of(job, keys)
            claimed, self.hold = claim.claim(
                wire=self.wire, job=job, run_id=self.run_id, digest=self.digest, status=self._status(),
                is_dead=neighbour.is_dead, stop=self.stop, say=book.log.info,
            )  # fmt: skip
        offset_s = self.wire.line.clock.offset_s
        if abs(offset_s) > _CLOCK_S:
            book.warn(
                f"the node's clock is {log.duration(abs(offset_s))} {'slow' if offset_s > 0 else 'fast'}; the store's is used"
            )
        self.attempt, self.before = claimed.attempt, claimed.earlier
        self.is_whole_already = claimed.complete and not self.continues
        if not (self.is_whole_already and job.purge.when == "never"):
            self.opened.clean()
        self.laid_down = self._laid_down()
        self.journal.begin(self.attempt, digest=self.digest, output=str(job.output), continues=self.continues)
        if self.is_whole_already:
            book.log.info(f"an equal run is whole in {job.output} already: nothing to do")
            self.recorded = True

    def _ours(self) -> set[str]:
        """Paths in the run directory that never go into the case: the program, the job file, what holds secrets."""
        here = self.place.run_directory
        files = [here / "config", here / "byos.toml", self.place.shipped_file, *secret_files(self.place)]
        return {str(path.relative_to(here)) for path in files if path is not None and here in path.parents}

    def _wire_of(self, bucket: str) -> Wire:
        return self.opened.session.wire(bucket, stop=self.stop)

    def _laid_down(self) -> files.Snapshot:
        """What the platform laid into the run directory: kept from the first attempt here on."""
        kept = self.journal.load_snapshot("rundir") if self.continues else None
        if kept is None:
            kept = files.snapshot(self.place.run_directory, skip={journal.DIRECTORY_NAME})
            self.journal.save_snapshot("rundir", kept)
        return kept

    # ------------------------------------------------------------ the claim is held

    def _status(self, *, phase: str = "") -> dict[str, Any]:
        return {
            **self.book.status(phase=phase),
            **({"publishing": self.publishing.standing()} if self.publishing else {}),
            **({"solver": record.solver(self.solved)} if self.solved else {}),
            "run_id": self.run_id,
            "marker": asdict(neighbour.this_process(run_id=self.run_id, locked=False)),
            "lease_s": self.job.store.lease_s,
        }

    @contextmanager
    def heartbeat(self) -> Iterator[None]:
        """Around all that follows: the claim is kept, and the deadline is watched."""
        reserve = Reserve(
            stop=self.stop, pace=self.pace, grace_s=self.job.solver.grace_s,
            waiting=lambda: self.publishing.waiting() if self.publishing else Waiting(0, 0),
        )  # fmt: skip

        def beat() -> None:
            self.hold.beat(self._status())
            if self.hold.lost:
                self.stop.ask("a lost claim")
                self.stop.ask("a lost claim")

        interrupted: list[bool] = []

        def watch() -> None:
            if self.stop.cut and not interrupted:
                interrupted.append(True)
                self.opened.session.interrupt()
            if self.solved is None and reserve.is_due:
                self.stop.ask_once(self.stop.end)

        with (
            Every(min(_BEAT_S, self.job.store.lease_s / 4), beat, name="heartbeat"),
            Every(0.5, watch, name="deadline"),
            cloud_watched(job=self.job, place=self.place, stop=self.stop, say=self.book.warn),
            self.gauge.running(),
        ):
            yield

    def end_early(self, error: errors.ByosError) -> None:
        """The run goes no further; what there is will be published and recorded."""
        self.hold.check()
        self.ended_by = error
        self.book.tell_error(error)

    # ------------------------------------------------------------ the steps

    def fetch(self) -> None:
        if self.continues:
            return
        job, book = self.job, self.book
        self.journal.phase("fetch")
        earlier = self.opened.earlier
        earlier_case = earlier.room.case if earlier and earlier.room else None
        self.room = scratch.claim_room(
            scratch=job.scratch, run_directory=self.place.run_directory, environ=self.place.environ, run_id=self.run_id,
            earlier_case=earlier_case,
        )  # fmt: skip
        self.case = Case(self.room.case, self.case.log)
        self.journal.placed(self.room)
        total = sum(item.size_bytes for item in self.inputs)
        with (
            book.phase("fetch", total_bytes=total) as count,
            fetch.Fetcher(
                wire_of=self._wire_of,
                settings=job.fetch,
                connections=job.store.connections,
                cores=min(self.opened.launch.slot.count, cores.usable().count),
            ) as fetcher,
        ):
            self.room, self.fetched = fetcher.fetch(self.inputs, room=self.room, tally=count, stop=self.stop)
            self.journal.placed(self.room)
            self.digest = claim.digest_of(job, self._keys_as_read())
            with self._snapshot_of_inputs():
                local = fetch.copy_local(
                    job.fetch, run_directory=self.place.run_directory, case=self.room.case, ours=self._ours()
                )
                rendered = render.render(job.template, case=self.room.case)
        for text in (text for item in self.fetched for text in item.warnings):
            book.warn(text)
        for item in self.fetched[:_NAMED]:
            book.log.info(fetch.fetched_line(item), **log.facts(asdict(item)))
        if len(self.fetched) > _NAMED:
            book.log.info(f"fetched {log.count(len(self.fetched), 'object')}, {log.size(total)}")
        if local:
            book.log.info(f"copied {log.count(len(local), 'local file')} over the case: {', '.join(local[:_NAMED])}")
        elif job.fetch.local:
            book.warn(f"fetch.local names no file of {self.place.run_directory}: nothing was copied over the case")
        if job.template.files:
            book.log.info(render.rendered_line(rendered), **log.facts(asdict(rendered)))

    @contextmanager
    def _snapshot_of_inputs(self) -> Iterator[None]:
        """Around what is done to the case before the solver: it is input, also if that fails half way."""
        try:
            yield
        finally:
            self.after_fetch = files.snapshot(self.room.case)
            self.journal.save_snapshot("case", self.after_fetch)

    def solve(self) -> None:
        if self.continues:
            return
        job, book = self.job, self.book
        self.stop.check()
        self.journal.phase("solve")
        book.log.info(f"starting: {' '.join(self.opened.launch.command)}", cores=self.opened.launch.slot.count)
        traces = Traces()
        try:
            with (
                book.phase("solve", quiet=not book.lines.is_live or job.solver.echo == "all") as count,
                self._publishing().beside_solver(count) as begin,
            ):
                solved = solve.solve(
                    launch=self.opened.launch, job=job, case=self.case, place=self.place, attempt_id=self.run_id,
                    stop=self.stop, echo=book.lines.pass_through, on_start=self.gauge.following(begin), warn=book.warn,
                    memory=self.gauge.meter.memory, saw=traces.saw,
                )  # fmt: skip
        finally:
            traces.clean()
        self.solved = solved
        self._note(lambda: self.journal.solved(solved))
        if solved.stop_file:  # ours, not an output, and a restart would take it for a request
            workspace.remove_file_now(self.room.case / solved.stop_file)
        for note in solved.notes:
            book.warn(note)
        book.log.info(sentences.solved_line(solved), **log.facts(asdict(solved)))

    def _keys_as_read(self) -> list[tuple[S3Url, str, str]]:
        """An input that was replaced since the claim makes another run of this one."""
        read = {str(item.url): item.etag for item in self.fetched}
        return [(item.url, read.get(str(item.url), item.etag), item.version_id) for item in self.inputs]

    def _note(self, write: Callable[[], None]) -> None:
        """Tell the journal what came after the solve: a solver that has filled the disk must not keep its outputs here."""
        try:
            write()
        except errors.NodeUnfit as error:
            self.book.warn(f"{error.message}; the next start here would begin anew")

    def publish(self) -> None:
        """Everything that the solver left, in order of worth; the log first."""
        if self.solved is None:
            return
        self.hold.beat(self._status(phase="publish"))
        self.hold.check()
        self._note(lambda: self.journal.phase("publish"))
        publishing = self.publishing or self._publishing()
        harvests = publishing.harvests()
        outputs = [output for harvest in harvests for output in harvest.outputs]
        total = sum(output.identity.size_bytes for output in outputs)
        with self.book.phase("publish", total_bytes=total) as count:
            self.delivery = delivery = publishing.finish(harvests, outputs, count)
        if not publishing.own_outputs(SOLVER_LOG):
            self.book.warn(f"{SOLVER_LOG} is gone: something deleted it from .byos/ while the solver ran")
        self.skipped = tuple(item for harvest in harvests for item in harvest.skipped)
        refused = tuple(item for harvest in harvests for item in harvest.unpublished)
        self.published = delivery.outcome.published
        self.unpublished = (*refused, *delivery.outcome.unpublished)
        if delivery.outcome.ended_by is not None:
            self.ended_by = self.ended_by or delivery.outcome.ended_by
            self.book.tell_error(delivery.outcome.ended_by)
        for sent in self.published if self.book.lines.is_verbose else ():
            self.book.lines.detail(f"published {sent.output.path}: {log.size(sent.size_bytes)}, CRC-32 {sent.crc32}")
        self.book.log.info(
            sentences.published_line(
                delivery.outcome.published, early=delivery.early + len(delivery.behind), phase=self.book.phases[-1]
            )
        )
        for item in self.skipped[:_NAMED]:
            self.book.warn(f"not published: {item.path}: {item.reason}")
        for missing in self.unpublished[:_NAMED]:
            self.book.log.error(f"could not be published: {missing.path}: {missing.reason}")

    def _publishing(self) -> Publishing:
        self.publishing = Publishing(
            self.opened, room=self.room, laid_down=self.laid_down, after_fetch=self._after_fetch(), pace=self.pace
        )
        return self.publishing

    def _after_fetch(self) -> files.Snapshot:
        kept = self.journal.load_snapshot("case") if self.continues else getattr(self, "after_fetch", None)
        return kept if kept is not None else files.Snapshot.of(())

    def record(self) -> None:
        """Log, last status, manifest: written only while the claim is ours."""
        self.hold.check()
        self._note(lambda: self.journal.phase("record"))
        found = reporting.figures(
            self.job, harvests=self.delivery.harvests if self.delivery else (), log=self.case.log, warn=self.book.warn
        )
        self.account = account = record.Account(
            job=self.job, attempt=self.attempt, digest=self.digest, fetched=self.fetched, solved=self.solved,
            published=self.published, unpublished=self.unpublished, skipped=self.skipped, phases=self.book.phases,
            directory_links=self._directory_links(),
            warnings=self.book.warnings, ended_by=self.ended_by, ended_at=self.book.clock(),
            before=self.before if self.continues else {}, results=found.results,
        )  # fmt: skip
        key = f"{self.job.output.key}_byos/manifest.json"
        wire = self.wire.until(stop=self.stop.unless_cut)
        try:
            (self.publishing or self._publishing()).publish_own("run.log", count=self.book.count)
            self.hold.beat(self._status(phase="record"))
            self.hold.check()
            self._delete_stale(wire)
            manifest = record.manifest(account)
            reporting.publish(
                wire=wire, job=self.job, manifest=manifest, metrics=self.gauge.document(self.attempt), found=found,
                log=self.case.log, book=self.book,
            )  # fmt: skip
            objects.put(wire, key, claim.document(manifest))
        except errors.PrefixInUse:
            raise
        except errors.ByosError as error:
            self.ended_by = self.ended_by or error
            self.book.tell_error(error)
            return
        self.recorded = True
        if account.status in ("complete", "solver-failed"):
            self._note(lambda: self.journal.manifest(key))

    def _directory_links(self) -> dict[str, str]:
        harvests = self.delivery.harvests if self.delivery else ()
        return {path: to for harvest in harvests for path, to in harvest.directory_links.items()}

    def _delete_stale(self, wire: Wire) -> None:
        """Objects that an earlier attempt listed and this one did not write; all of them stay while this one is not whole."""
        if self.account is None or self.account.status not in ("complete", "solver-failed"):
            return
        vanished = self.delivery.vanished if self.delivery else ()
        kept = {item.key for item in self.published}
        prefix = self.job.output.key
        for key in sorted({*claim.keys_of(self.before), *vanished} - kept):
            if key.startswith(prefix) and (key.startswith(prefix + BUNDLES) or not key.startswith(f"{prefix}_byos/")):
                try:
                    objects.delete(wire, key)
                except (errors.AccessRefused, errors.StoreRefused) as error:
                    self.book.warn(f"an object of the earlier attempt stays: {error.message}")

    def purge(self) -> None:
        """What the bucket has acknowledged goes; without a manifest nothing does."""
        if not self.recorded or (self.stop.cut and not self.is_whole_already):
            return
        self.gauge.withdraw()
        own = self.delivery.own if self.delivery else ()
        grounds = purge.Grounds(
            fetched=self._after_fetch(), laid_down=self.laid_down, published=(*self.published, *own)
        )
        secrets = [str(path.relative_to(self.place.run_directory)) for path in secret_files(self.place)]
        with self.book.phase("purge", quiet=True):
            self.purged = purge.purge(job=self.job, place=self.place, room=self.room, grounds=grounds, secrets=secrets)
        self.book.log.info(sentences.purged_line(self.purged))
        for item in [item for item in self.purged.left if not item.expected][:_NAMED]:
            self.book.log.error(f"left: {item.path}: {item.reason}")

    # ------------------------------------------------------------ the end

    def close(self) -> tuple[int, str]:
        """The certificate, then the journal and the program. Returns the exit code and whose it is."""
        code, whose = self._code()
        self.hold.beat({**self._status(phase="over"), **self._ending(code, whose)})
        self._summary()
        if self.purged is not None:
            code = self._certify(self.purged, code, whose)
        self.journal.close()
        self.opened.session.close()
        if self.purged is not None:
            self.book.close()
            purge.last(job=self.job, place=self.place, purged=self.purged)
        return code, whose

    def meaning_of(self, code: int) -> str:
        """What *code* means here, where that is not what it usually means; else ""."""
        if code == errors.StoreUnreachable.code and self.recorded:
            return "the outputs are whole in the bucket; the certificate of the purge, which is printed above, is not"
        return ""

    def _ending(self, code: int, whose: str) -> dict[str, Any]:
        """What the last heartbeat says more than those before it."""
        solver = self.solved.cause if self.solved else ""
        return {
            "exit_code": code,
            "exit_code_is": whose,
            "status": self.account.status if self.account else None,
            "cause": solver or (errors.line_of(self.ended_by) if self.ended_by else "") or None,
        }

    def _code(self) -> tuple[int, str]:
        self.hold.check()
        code, whose = (self.account.exit_code, self.account.whose_code) if self.account else (0, "byos-run's")
        if not code and self.stop.cut and self.purged is None:
            code = errors.Stopped.code
        if not code and not self.recorded:
            code = self.ended_by.code if self.ended_by and self.solved is None else errors.Unpublished.code
        if self.purged is not None and not self.purged.complete and not code:
            code = errors.PurgeIncomplete.code
        return code, whose

    def _certify(self, purged: Purged, code: int, whose: str) -> int:
        document = purge.certificate(
            purged=purged, job=self.job, place=self.place, run_id=self.run_id, exit_code=code, whose=whose,
            behind=self.delivery.behind if self.delivery else (),
        )  # fmt: skip
        wire = self.wire.until(stop=self.stop.unless_cut)
        try:
            objects.put(wire, f"{self.job.output.key}_byos/purge.json", claim.document(document))
        except errors.ByosError as error:
            self.book.tell_error(error)
            self.book.lines.say(claim.document(document).decode())
            return code or errors.StoreUnreachable.code
        return code

    def _summary(self) -> None:
        for item in self.book.phases:
            moved = (
                f", {log.size(item.size_bytes)} ({log.rate(item.size_bytes, item.seconds)})" if item.size_bytes else ""
            )
            self.book.log.info(f"{item.name:<8} {log.duration(item.seconds):>9}{moved}")
        if self.published:
            self.book.log.info(f"outputs are in {self.job.output}; the list is {self.job.output}_byos/manifest.json")
