"""What ``run`` tells, chapter by chapter: each calls one step and keeps what it returned for the next.

The order is ``run``'s; here is only what joins a step to its neighbours: which values it gets, what is said of it, what the
journal is told. A chapter that is told after the run was ended early does what is still possible.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from typing import Any, Callable

from byos_run import errors, log, reporting, resuming, sentences
from byos_run.bucket import objects
from byos_run.bucket.credentials import secret_files
from byos_run.bucket.wire import Wire
from byos_run.endings import Pace, Reserve, Waiting, cloud_watched
from byos_run.model import Attempt, Case, Fetched, Published, Purged, Skipped, Solved, Unpublished
from byos_run.node import cores, files, inodes, neighbour, workspace
from byos_run.node.pool import Every
from byos_run.node.scratch import Room
from byos_run.node.traces import Traces
from byos_run.opening import SOLVER_LOG, Opened
from byos_run.publishing import Delivery, Publishing
from byos_run.steps import claim, documents, fetch, purge, record, render, solve
from byos_run.steps.claim import Claim
from byos_run.steps.record import Account, Handed
from byos_run.succession import Succession

_BEAT_S = 20.0
_INVENTORY_S = 0.5
_NAMED = 10
_RECORD_S = 8.0


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
        self.launch = opened.launch
        self.is_whole_already = False
        self.gauge = reporting.Gauge(opened, place=lambda: self.room.case)
        self.fetched: list[Fetched] = list(opened.earlier.fetched) if opened.continues and opened.earlier else []
        self.published: tuple[Published, ...] = ()
        self.unpublished: tuple[Unpublished, ...] = ()
        self.skipped: tuple[Skipped, ...] = ()
        self.publishing: Publishing | None = None
        self.pace = Pace()
        self.delivery: Delivery | None = None
        self.ended_by: errors.ByosError | None = None
        self.account: Account | None = None
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
            claimed = self._claim()
        except errors.ByosError:
            self.opened.undo()
            raise
        try:
            self._begin(claimed)
        except errors.ByosError as error:
            self.hold.release(self._status(), error)
            self.opened.undo()
            raise

    def _claim(self) -> Claim:
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
            if self.continues and self.digest != claim.digest_of(job, fetch.keys_of(self.fetched, asked=job.input)):
                book.warn(sentences.ANOTHER_RUN)
        if told := sentences.clock_line(self.wire.line.clock.offset_s):
            book.warn(told)
        return claimed

    def _begin(self, claimed: Claim) -> None:
        """The prefix is ours: go on from what earlier attempts left, in the bucket and here."""
        self.attempt = claimed.attempt
        self.is_whole_already = claimed.complete and not self.continues
        self.succession = Succession(self.opened, claimed, self.hold)
        self.succession.take_over()
        if not (self.is_whole_already and self.job.purge.when == "never"):
            self.succession.clean_here(keep=not self.is_whole_already)
        self.laid_down = self.opened.laid_down()
        self.journal.begin(
            self.attempt, digest=self.digest, output=str(self.job.output), continues=self.continues,
            room=self.succession.found,
        )  # fmt: skip
        self._work_in(self.succession.found or self.room)
        if self.is_whole_already:
            self.book.log.info(f"an equal run is whole in {self.job.output} already: nothing to do")
            self.succession.forget()
            self.recorded = True

    def _work_in(self, room: Room) -> None:
        self.room, self.case = room, Case(room.case, self.case.log)

    def _wire_of(self, bucket: str) -> Wire:
        return self.opened.session.wire(bucket, stop=self.stop)

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

        def watch() -> None:
            if self.solved is None and reserve.is_due:
                self.stop.ask_once(self.stop.end)

        with (
            Every(min(_BEAT_S, self.job.store.lease_s / 4), beat, name="heartbeat"),
            Every(_INVENTORY_S, self.succession.tend, name="inventory"),
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
        if self.succession.kept is not None:
            self._keep(self.succession.kept)
        else:
            self._fetch()
        with self._snapshot_of_inputs():
            local = fetch.copy_local(
                job.fetch, run_directory=self.place.run_directory, case=self.room.case, ours=self.opened.ours()
            )
            rendered = render.render(job.template, case=self.room.case)
            if job.resume.files:
                self._resume()
        resumed = [item.path for item in self.succession.resumed]
        self.journal.fetched(self.fetched, resumed=resumed)
        for text in (text for item in self.fetched for text in item.warnings):
            book.warn(text)
        for line, facts in sentences.fetched(self.fetched, local=local, kept=self.succession.kept is not None):
            book.log.info(line, **facts)
        if job.fetch.local and not local:
            book.warn(f"fetch.local names no file of {self.place.run_directory}: nothing was copied over the case")
        if job.template.files:
            book.log.info(render.rendered_line(rendered), **log.facts(asdict(rendered)))

    def _fetch(self) -> None:
        job, room = self.job, self.succession.place()
        self._work_in(room)
        self.journal.placed(room)
        with (
            self.book.phase("fetch", total_bytes=sum(item.size_bytes for item in self.inputs)) as count,
            fetch.Fetcher(
                wire_of=self._wire_of, settings=job.fetch, connections=job.store.connections,
                cores=min(self.launch.slot.count, cores.usable().count),
            ) as fetcher,
        ):  # fmt: skip
            self.room, self.fetched = fetcher.fetch(self.inputs, room=room, tally=count, stop=self.stop, is_alone=True)
        self.journal.placed(self.room)
        self.digest = self.succession.digest = claim.digest_of(job, fetch.as_read(self.inputs, self.fetched))

    def _keep(self, room: Room) -> None:
        """What was fetched here has proved unchanged: no byte is fetched again."""
        assert self.opened.earlier is not None
        self.fetched = self.opened.earlier.fetched
        self.journal.placed(room)

    def _resume(self) -> None:
        """What ``resume.files`` names comes from an attempt that was interrupted."""
        with self.book.phase("resume", quiet=True) as count:
            if not self.succession.resume(self.room.case, tally=count):
                return
        self.book.log.info(resuming.resumed_line(self.succession.resumed, now=self.book.clock()))
        if self.job.resume.command:
            self.launch = solve.prepare(job=replace(self.job, command=self.job.resume.command), place=self.place)

    @contextmanager
    def _snapshot_of_inputs(self) -> Iterator[None]:
        """Around what is done to the case before the solver: it is input, also if that fails half way."""
        try:
            yield
        finally:
            self.after_fetch = resuming.save_case(self.journal, self.room.case)

    def solve(self) -> None:
        if self.continues:
            return
        job, book = self.job, self.book
        self.stop.check()
        self.journal.phase("solve")
        book.log.info(f"starting: {' '.join(self.launch.command)}", cores=self.launch.slot.count)
        traces = Traces()
        try:
            with (
                book.phase("solve", quiet=not book.lines.is_live or job.solver.echo == "all") as count,
                self._publishing().beside_solver(count) as begin,
            ):
                solved = solve.solve(
                    launch=self.launch, job=job, case=self.case, place=self.place, attempt_id=self.run_id,
                    stop=self.stop, echo=book.lines.pass_through, on_start=self.gauge.following(begin), warn=book.warn,
                    memory=self.gauge.meter.memory, saw=traces.saw,
                )  # fmt: skip
        finally:
            traces.clean()
        for directory in (self.room.case, self.opened.own_directory):
            inodes.give_back(directory)
        self.solved = solved
        self._note(lambda: self.journal.solved(solved))
        if solved.stop_file:  # ours, not an output, and a restart would take it for a request
            workspace.remove_file_now(self.room.case / solved.stop_file)
        for note in solved.notes:
            book.warn(note)
        book.log.info(sentences.solved_line(solved), **log.facts(asdict(solved)))

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
        with self.book.phase("publish", total_bytes=publishing.bytes_left(outputs)) as count:
            self.delivery = delivery = publishing.finish(harvests, outputs, count)
        if not publishing.own_outputs(SOLVER_LOG):
            self.book.warn(f"{SOLVER_LOG} is gone: something deleted it from .byos/ while the solver ran")
        if delivery.outcome.ended_by is None:
            self.succession.end_uploads()
        self.skipped = tuple(item for harvest in harvests for item in harvest.skipped)
        refused = tuple(item for harvest in harvests for item in harvest.unpublished)
        self.published, self.unpublished = delivery.outcome.published, (*refused, *delivery.outcome.unpublished)
        if delivery.outcome.ended_by is not None:
            self.ended_by = self.ended_by or delivery.outcome.ended_by
            self.book.tell_error(delivery.outcome.ended_by)
        publishing.say_what_was_not_meant(self.solved)
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
            self.opened, room=self.room, laid_down=self.laid_down, after_fetch=self._after_fetch(), pace=self.pace,
            ledger=self.succession.ledger,
        )  # fmt: skip
        return self.publishing

    def _after_fetch(self) -> files.Snapshot:
        kept = self.journal.load_snapshot("case") if self.continues else getattr(self, "after_fetch", None)
        return kept if kept is not None else files.Snapshot.of(())

    def record(self) -> None:
        """Log, last status, manifest: written only while the claim is ours."""
        self.hold.check()
        self._note(lambda: self.journal.phase("record"))
        key = f"{self.job.output.key}_byos/manifest.json"
        # Nothing is lost with the record of a run that has solved nothing: a store that is away is not waited for.
        wire = self.wire.until(stop=self.stop.unless_cut if self.solved else self.stop.within(_RECORD_S))
        found = reporting.figures(
            self.job, harvests=self.delivery.harvests if self.delivery else (), log=self.case.log, warn=self.book.warn
        )
        self.account = self._account(Handed(), found)
        try:
            handed = self.succession.handed(
                wire, published=self.published, vanished=self.delivery.vanished if self.delivery else (),
                is_whole=self.account.is_whole, command=self.launch.command,
            )  # fmt: skip
            self.account = account = self._account(handed, found)
            (self.publishing or self._publishing()).publish_own("run.log", count=self.book.count, wire=wire)
            self.hold.beat(self._status(phase="record"))
            self.hold.check()
            if account.is_whole:
                self.succession.delete_stale(wire, handed.stale)
            manifest = record.manifest(account)
            reporting.publish(
                wire=wire, job=self.job, manifest=manifest, metrics=self.gauge.document(self.attempt), found=found,
                log=self.case.log, book=self.book,
            )  # fmt: skip
            objects.put_kept(wire, key, documents.document(manifest))
        except errors.PrefixInUse:
            raise
        except errors.ByosError as error:
            self.ended_by = self.ended_by or error
            self.book.tell_error(error)
            return
        self.recorded = True
        if account.is_whole:
            self._note(lambda: self.journal.manifest(key))
        self.succession.forget()

    def _account(self, handed: Handed, found: reporting.Figures) -> Account:
        return Account(
            job=self.job, attempt=self.attempt, digest=self.digest, fetched=self.fetched, solved=self.solved,
            published=self.published, unpublished=(*self.unpublished, *handed.lost), skipped=self.skipped,
            directory_links=self.delivery.directory_links if self.delivery else {}, phases=self.book.phases,
            warnings=self.book.warnings, ended_by=self.ended_by, ended_at=self.book.clock(),
            before=self.succession.earlier.manifest if self.continues else {}, handed=handed, results=found.results,
        )  # fmt: skip

    def purge(self) -> None:
        """What the bucket has acknowledged goes; without a manifest nothing does."""
        if not self.recorded or (self.stop.cut and not self.is_whole_already):
            return
        self.gauge.withdraw()
        self._note(lambda: self.journal.phase("purge"))  # what it says of the bucket is on the disk before a file goes
        own = self.delivery.own if self.delivery else ()
        grounds = purge.Grounds(
            fetched=self._after_fetch(), laid_down=self.laid_down, published=(*self.published, *own)
        )
        secrets = [str(path.relative_to(self.place.run_directory)) for path in secret_files(self.place)]
        with self.book.phase("purge", quiet=True):
            self.purged = purge.purge(job=self.job, place=self.place, room=self.room, grounds=grounds, secrets=secrets)
        self.book.log.info(sentences.purged_line(self.purged, never=self.job.purge.when == "never"))
        for item in [item for item in self.purged.left if not item.expected][:_NAMED]:
            self.book.log.error(f"left: {item.path}: {item.reason}")

    # ------------------------------------------------------------ the end

    def close(self) -> tuple[int, str]:
        """The certificate, then the journal and the program. Returns the exit code and whose it is."""
        code, whose = self._code()
        self.hold.beat({**self._status(phase="over"), **self._ending(code, whose)})
        for line in sentences.phases(self.book.phases):
            self.book.log.info(line)
        if self.published:
            self.book.log.info(f"outputs are in {self.job.output}; the list is {self.job.output}_byos/manifest.json")
        if self.purged is not None:
            code = self._certify(self.purged, code, whose)
        self.journal.close()
        self.opened.session.close()
        if self.purged is not None:
            self.book.close()
            purge.last(job=self.job, place=self.place, purged=self.purged)
        return code, whose

    def meaning_of(self, code: int, whose: str) -> str:
        """What *code* means here, where that is not what it usually means; else ""."""
        never, solved = self.purged is not None and self.job.purge.when == "never", self.solved is not None
        return sentences.meaning(code, whose, solved=solved, recorded=self.recorded, never_purged=never)

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
            ended_it = self.solved is None or isinstance(self.ended_by, errors.AccessRefused)
            code = self.ended_by.code if self.ended_by and ended_it else errors.Unpublished.code
        if self.purged is not None and not self.purged.complete and not code:
            code = errors.PurgeIncomplete.code
        return code, whose

    def _certify(self, purged: Purged, code: int, whose: str) -> int:
        document = purge.certificate(
            purged=purged, job=self.job, place=self.place, attempt=self.attempt, exit_code=code, whose=whose,
            behind=self.delivery.behind if self.delivery else (),
        )  # fmt: skip
        wire = self.wire.until(stop=self.stop.unless_cut)
        try:
            objects.put_kept(wire, f"{self.job.output.key}_byos/purge.json", documents.document(document))
        except errors.ByosError as error:
            self.book.tell_error(error)
            self.book.lines.say(documents.document(document).decode())
            return code or errors.StoreUnreachable.code
        return code
