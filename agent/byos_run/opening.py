"""What must hold before a run may claim anything: this node, this directory, our credentials.

May this directory be emptied, can the command run, does another run live here, who are we to the store. Each refusal ends
the run with nothing moved and nothing left. On the platform the credentials files are gone when this returns.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass, replace
from pathlib import Path

from byos_run import errors
from byos_run.book import Book
from byos_run.bucket.credentials import secret_files
from byos_run.bucket.session import Session
from byos_run.bucket.wire import Wire
from byos_run.endings import know_ends
from byos_run.errors import printable
from byos_run.model import Job, Place, S3Url, StoreSettings
from byos_run.node import files, journal, neighbour, process, scratch, traces, workspace
from byos_run.node.journal import Earlier, Journal
from byos_run.node.scratch import Room
from byos_run.node.stop import Stop
from byos_run.steps import rows, solve

SOLVER_LOG = "solver.log"
RUN_LOG = "run.log"


@dataclass(frozen=True)
class Opened:
    """All that a run has when it begins."""

    job: Job
    place: Place
    stop: Stop
    book: Book
    run_id: str
    launch: solve.Launch
    session: Session
    wire: Wire
    """To the bucket of the output."""
    journal: Journal
    own_directory: Path
    """``.byos/``"""
    earlier: Earlier | None
    """What an attempt that was here before left."""
    continues: bool
    """That attempt solved the case and could not publish all: only publishing, recording and purging are left."""
    room: Room

    def clean(self, *, but: Room | None = None, half: Room | None = None) -> None:
        """What an attempt that was killed here left, *but* a case, or the stage of *half* of one; once the prefix is ours."""
        if self.earlier is None or self.earlier.room is None or self.continues:
            return
        room = self.earlier.room
        for stage in scratch.stages_of(room.case):
            if half is None or not stage.name.startswith(scratch.stage_of(room.case).name):
                workspace.remove_tree(stage)
        if room == but:
            return
        if half is not None:
            workspace.remove_tree(room.case, identity=room.identity)
        elif room.scratch is not None:
            workspace.remove_marked(room.scratch, run_directory=self.place.run_directory)
        elif self.place.run_directory in room.case.parents:
            workspace.remove_tree(room.case, identity=room.identity)
        workspace.remove_made(room)

    def ours(self) -> set[str]:
        """Paths in the run directory that never go into the case: the program, the job file, what holds secrets."""
        here = self.place.run_directory
        paths = [here / "config", here / "byos.toml", self.place.shipped_file, *secret_files(self.place)]
        return {str(path.relative_to(here)) for path in paths if path is not None and here in path.parents}

    def laid_down(self) -> files.Snapshot:
        """What the platform laid into the run directory: kept from the first attempt here on."""
        kept = self.journal.load_snapshot("rundir") if self.continues else None
        if kept is None:
            room = self.earlier.room if self.earlier is not None else None
            here = self.place.run_directory
            stages = scratch.stages_of(room.case) if room is not None and here in room.case.parents else []
            kept = files.snapshot(
                here, skip={journal.DIRECTORY_NAME, *(str(path.relative_to(here)) for path in stages)}
            )
            self.journal.save_snapshot("rundir", kept)
        return kept

    def undo(self) -> None:
        """Leave the run directory as it was: nothing was claimed, so there is nothing that another start needs."""
        self.journal.close()
        self.session.close()
        if self.earlier is None:
            workspace.remove_tree(self.own_directory)


def read_object(url: S3Url, settings: StoreSettings, place: Place, stop: Stop) -> bytes:
    """A table on s3://. Raises MissingInput, UsageError (too large), AccessRefused, StoreUnreachable, Stopped."""
    session = Session(settings=settings, place=place)
    try:
        return rows.object_of(session.wire(url.bucket, stop=stop), url)
    finally:
        session.close()


def enter_row(job: Job, place: Place) -> Place:
    """A row of a table works in a directory of its own, made here; any other run where it was started. Raises NodeUnfit."""
    if not job.row:
        return place
    directory = rows.directory(place.run_directory, job.row)
    try:
        directory.mkdir(exist_ok=True)
        if directory.is_symlink():
            raise errors.UsageError([f"{str(directory)!r} is a link: a row works in a directory of its own"])
    except OSError as error:
        raise errors.NodeUnfit(f"cannot make {str(directory)!r}: {error.strerror}") from error
    return replace(place, run_directory=directory, start_directory=place.run_directory)


def leave_row(place: Place) -> None:
    """The row's directory goes, unless something has to stay in it."""
    if place.start_directory is not None:
        workspace.remove_if_empty(place.run_directory)


def open_run(*, job: Job, place: Place, stop: Stop, book: Book) -> Opened:
    """Raises UsageError, NodeUnfit, AccessRefused, StoreUnreachable."""
    scratch.refuse_run_directory(place.run_directory, home=place.environ.get("HOME", ""))
    _refuse_neighbours(place.run_directory)
    launch = solve.prepare(job=job, place=place)
    session = Session(settings=job.store, place=place, stop=stop)
    session.tell = book.lines.detail
    undeleted = forget_secrets(place)
    if job.row:
        book.log.info(f"row {job.row} of the table, in {place.run_directory.name}/", row=job.row)
    book.log.info(f"{session.identity}; output {job.output}")
    for text in (*session.warnings, *launch.warnings, *(f"{path} could not be deleted" for path in undeleted)):
        book.warn(text)
    if job.row and place.on_platform:
        book.warn("what lies beside this row's directory stays on the platform, config too: other rows may need it")
    wire = session.wire(job.output.bucket, stop=stop)
    book.clock = wire.line.clock.now
    run_id = uuid.uuid4().hex
    opened = journal.open_journal(place.run_directory, run_id=run_id)
    own = place.run_directory / journal.DIRECTORY_NAME
    book.keep_log(run_log=own / RUN_LOG, solver_log=own / SOLVER_LOG)
    for left in process.end_leftovers():
        book.warn(f"a process that a dead run of ours left was ended: {left.name} ({left.pid})")
    traces.clean_dead()
    if told := know_ends(job=job, place=place, stop=stop):
        book.log.info(told)
    earlier = opened.earlier()
    _refuse_case(earlier, opened, job=job, place=place)
    continues = earlier is not None and _can_continue(earlier, opened)
    if continues and earlier is not None:
        _refuse_two_runs(earlier, opened, job)
    room = scratch.Room(place.run_directory / "case")
    if continues and earlier is not None and earlier.room is not None:
        book.log.info("an earlier attempt here solved the case; publishing, recording and purging what it left")
        room = earlier.room
    return Opened(
        job=job, place=place, stop=stop, book=book, run_id=run_id, launch=launch, session=session, wire=wire, journal=opened,
        own_directory=own, earlier=earlier, continues=continues, room=room,
    )  # fmt: skip


def _refuse_neighbours(run_directory: Path) -> None:
    """A live run below this directory would lose its files to our purge."""
    for path, marker in neighbour.live_neighbours(run_directory, skip={journal.DIRECTORY_NAME}).items():
        raise errors.UsageError(
            [
                f"the run directory {str(run_directory)!r} holds another live run, in {printable(path)!r} (process {marker.pid})"
            ],
            hint="start each run in a directory of its own",
        )


def _refuse_case(earlier: Earlier | None, opened: Journal, *, job: Job, place: Place) -> None:
    """A case that is not ours to fill is found before anything is claimed."""
    earlier_case = earlier.room.case if earlier and earlier.room else None
    try:
        scratch.refuse_case(scratch=job.scratch, run_directory=place.run_directory, earlier_case=earlier_case)
    except errors.ByosError:
        opened.close()
        if earlier is None:
            workspace.remove_tree(opened.directory)
        raise


def forget_secrets(place: Place) -> list[str]:
    """On the platform credentials files in the run directory go at once; returns what could not be deleted."""
    if not place.on_platform:
        return []
    return [left.path for left in map(workspace.remove_file_now, secret_files(place)) if left is not None]


def _refuse_two_runs(earlier: Earlier, opened: Journal, job: Job) -> None:
    """What is left to publish belongs to the output of the run that made it."""
    if earlier.output != str(job.output):
        opened.close()
        here = f"this directory holds outputs of a run that could not publish them all to {earlier.output}"
        raise errors.UsageError(
            [f"output is {job.output}, but {here}"],
            hint=f'start once with output = "{earlier.output}", which only publishes; or start elsewhere',
        )


def _can_continue(earlier: Earlier, opened: Journal) -> bool:
    return (
        earlier.solved is not None
        and not earlier.solved.stopped_by  # a solver that was stopped is started again
        and earlier.room is not None
        and earlier.room.case.is_dir()
        and not earlier.manifest_key  # it published all, and this is a new run
        and opened.load_snapshot("case") is not None
    )
