"""Which files leave, when: what settles while the solver runs, the rest when it has ended.

Beside the solver, a few looks in each ``publish.settle`` send what has settled, on few threads of low priority that take no more
than ``publish.cores_while_running``, and every minute the ends of growing files are shown; no outage there ends the run. Afterwards
one harvest tells the truth: what was acknowledged as it is now stays acknowledged, what changed since is sent again, what the
solver has deleted goes from the bucket too, once the run is whole. What we removed behind (``publish.delete_behind``) is no
such thing; a file of that name that the solver writes again gets a key of its own.
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Callable

from byos_run.bucket.credentials import secret_files
from byos_run.bucket.wire import Wire
from byos_run.disk import LOOK_S, Disk
from byos_run.endings import Pace, Waiting
from byos_run.ledger import Ledger
from byos_run.model import Identity, Output, Published, Solved
from byos_run.node import files, journal, openmetrics
from byos_run.node.files import Harvest, Snapshot
from byos_run.node.globs import Globs, Selection, escaped
from byos_run.node.holders import Held, held_by
from byos_run.node.pool import Budget, Count, Every, step_back
from byos_run.node.process import Running
from byos_run.node.scratch import Room
from byos_run.node.stop import Stop
from byos_run.node.tree import Familiar, scan
from byos_run.node.volumes import network_kind, read_mounts
from byos_run.opening import RUN_LOG, SOLVER_LOG, Opened
from byos_run.steps import purge
from byos_run.steps.ahead import Ahead
from byos_run.steps.behind import Behind
from byos_run.steps.gather import Standing, WhileRunning
from byos_run.steps.live import Live
from byos_run.steps.packing import BUNDLES, Packing
from byos_run.steps.publish import Outcome, Publisher
from byos_run.steps.strangers import WRITER
from byos_run.steps.worth import RESTARTS, in_order

_LIVE_S = 60.0
_HOLLOW_BYTES = 64 << 20
"""From here on it is worth saying that holes of a file travel."""


@dataclass(frozen=True)
class Delivery:
    """What became of everything that was to leave."""

    harvests: tuple[Harvest, ...]
    outcome: Outcome
    own: tuple[Published, ...]
    """Logs, which lie in ``.byos/``."""
    early: int
    """Files that had left while the solver ran, or in an earlier attempt here, and were still right."""
    behind: tuple[Published, ...]
    """Files that had left and were removed from the case while the solver ran."""
    vanished: tuple[str, ...]
    """Keys of files that left while the solver ran, and that it deleted since."""

    @property
    def directory_links(self) -> dict[str, str]:
        """Path of a link → the directory of the case that it leads to."""
        return {path: to for harvest in self.harvests for path, to in harvest.directory_links.items()}


class Publishing:
    """The publishing of one run. Made when the case is there."""

    def __init__(
        self, opened: Opened, *, room: Room, laid_down: Snapshot, after_fetch: Snapshot, pace: Pace, ledger: Ledger
    ) -> None:
        self._opened = opened
        self._room = room
        self._laid_down = laid_down
        self._after_fetch = after_fetch
        self._early: dict[tuple[str, str], Published] = {}
        self._pace = pace
        self._behind: dict[str, Published] = {}
        """By path in the case."""
        self._vanished_before: tuple[str, ...] = ()
        self._vanished: list[str] = []
        self._hollow_told = iter((False,))
        self._gathering: WhileRunning | None = None
        self._disk: Disk | None = None
        self._tail: Callable[[], Standing] | None = None
        self._slot_cores = opened.launch.slot.count
        self._bundles = itertools.count(1)
        settings = opened.job.publish
        self._packing = Packing(*map(Globs.of, (settings.compress, settings.bundle, opened.job.resume.files)))
        self._ledger = ledger
        if opened.continues and opened.earlier is not None:
            own = str(opened.own_directory)
            self._early = {place: item for place, item in opened.earlier.acknowledged.items() if place[0] != own}
            self._behind = {item.output.path: item for item in opened.earlier.behind}
            self._vanished_before = tuple(opened.earlier.vanished)

    @contextmanager
    def beside_solver(self, count: Count) -> Iterator[Callable[[Running], None]]:
        """Around the solve; what it yields is to be told of the running command."""
        running: list[Running] = []
        budget = Budget(min(self._opened.job.publish.cores_while_running, self._slot_cores))
        with ExitStack() as stack:
            press = self._gather(stack, running, count, budget) if self._opened.job.publish.while_running else _nothing
            self._disk = Disk(
                self._room.case, left_s=lambda: self._left_s(running), warn=self._opened.book.warn, press=press,
                advice="" if self._opened.job.publish.delete_behind else "; publish.delete_behind would remove what the bucket has",
            )  # fmt: skip
            stack.enter_context(Every(min(LOOK_S, self._opened.job.publish.settle_s), self._disk.look, name="disk"))
            yield running.append

    def _gather(self, stack: ExitStack, running: list[Running], count: Count, budget: Budget) -> Callable[[bool], None]:
        """Begin to publish beside the solver, until *stack* is left; what it returns is to be told of the brink."""
        opened, settings, over = self._opened, self._opened.job.publish, Stop()
        # What is under way when the solver ends arrives.
        wire = opened.wire.until(stop=over, broken_by=opened.stop.unless_cut, patience_s=math.inf)
        publisher = stack.enter_context(self._publisher(count, budget=budget, wire=wire, beside_solver=True))
        network, familiar = network_kind(self._room.case, read_mounts()), Familiar(self._room.case)

        def held() -> Held:
            return held_by([each.pid for each in running[0].processes()]) if running else Held()

        self._gathering = gathering = WhileRunning(
            send=lambda outputs: publisher.publish(outputs).published,
            find=lambda paths: self._case_harvest(familiar=familiar, only=paths).outputs if running else (),
            held=held, in_order=self._in_order, stop=over, settle_s=settings.settle_s, ahead=Ahead(publisher.begin),
            behind=self._behind_of(publisher), say=opened.book.warn, removed=opened.journal.removed_behind,
            is_restart=Globs.of((*opened.job.resume.files, *RESTARTS)).matches,
            long_quiet=f"the case lies on a network file system ({network})" if network else "",
        )  # fmt: skip
        live = Live(wire, prefix=opened.job.output, opened=files.open_output)

        def end() -> None:
            budget.lift()
            over.ask("the solver's end")

        def show() -> None:
            live.show([*self.own_outputs(SOLVER_LOG), *self._growing()])

        def press(presses: bool) -> None:
            gathering.presses = presses
            (budget.lift if presses else budget.restore)()

        look_s = min(settings.settle_s / gathering.LOOKS_PER_SETTLE, gathering.LOOK_S)
        stack.callback(self._take_over)
        stack.enter_context(Every(look_s, gathering.look, name="settled", prepare=step_back))
        stack.enter_context(Every(_LIVE_S, show, name="live", prepare=step_back))
        stack.callback(end)
        return press

    def _take_over(self) -> None:
        """The solver has ended: what left beside it is known to all that follows."""
        root = str(self._room.case)
        if self._gathering is not None:
            self._gathering.over()
            self._early.update({(root, path): item for path, item in self._gathering.acknowledged.items()})
            self._behind.update(self._gathering.behind)
            self._gathering.forget()

    def _behind_of(self, publisher: Publisher) -> Behind | None:
        job = self._opened.job
        if not job.publish.delete_behind:
            return None
        settings = job.publish
        exact = [path for path in (job.solver.success.file, job.solver.stop_file) if path]
        read_at_end = [
            *(plot.file for plot in job.report.plot),
            *(each.file for each in job.report.result if each.file),
        ]
        return Behind(
            root=self._room.case, below="".join(f"{path}/" for path in self._inside(self._room.case)),
            wanted=(
                *job.resume.files, *settings.live, *job.purge.keep, *read_at_end, *(f"**/{escaped(path)}" for path in exact)
            ),
            there_before=files.names_in(self._room.case), settle_s=settings.settle_s, whole=publisher.whole,
        )  # fmt: skip

    def _left_s(self, running: Sequence[Running]) -> float | None:
        """Seconds until the solver is to have ended, if that is known."""
        limit_s, left_s = self._opened.job.solver.time_limit_s, self._opened.stop.seconds_left
        if limit_s is None or not running:
            return left_s
        limit_left_s = running[0].started_monotonic_s + limit_s - time.monotonic()
        return limit_left_s if left_s is None else min(limit_left_s, left_s)

    def standing(self) -> dict[str, Any]:
        """For ``status.json``: what is acknowledged, what waits, how long that would take, how full the disk is."""
        disk = self._disk.standing() if self._disk else {}
        now = self._tail() if self._tail else self._gathering.standing if self._gathering else None
        if now is None:
            return disk
        tail_s = round(now.bytes_waiting / now.bytes_per_s) if now.bytes_per_s > 1 else None
        return {**disk, **asdict(now), "bytes_per_s": round(now.bytes_per_s), "tail_s": tail_s}

    def finish(self, harvests: tuple[Harvest, ...], outputs: Sequence[Output], count: Count) -> Delivery:
        """Send what has not left, logs first, then one sweep over all. Does not raise."""
        right = [self._early[_place(output)] for output in outputs if self._is_right(output)]
        gone = dict(self._early)
        for output in outputs:
            gone.pop(_place(output), None)
        # An earlier attempt's purge has deleted what it published; during this run only the solver deletes, and we behind it.
        kept, vanished = (gone, {}) if self._opened.continues else ({}, gone)
        for item in vanished.values():
            self._opened.journal.vanished(item)
        self._vanished = [item.output.path for item in vanished.values()]
        early = [*right, *kept.values(), *self._behind.values()]
        rest = [output for output in outputs if not self._is_right(output)]
        self._early = {}
        self._tail = _tail(early, rest, count)
        with self._publisher(count) as publisher:
            own = publisher.publish(self.own_outputs(SOLVER_LOG, RUN_LOG))
            sent = publisher.publish(self._in_order(rest)) if own.ended_by is None else own.refusing(rest)
            outcome = publisher.sweep(sent.after(early))
        keys = (*self._vanished_before, *(item.key for item in vanished.values()))
        return Delivery(harvests, outcome, own.published, len(right), tuple(self._behind.values()), keys)

    def bytes_left(self, outputs: Iterable[Output]) -> int:
        """Of what :meth:`finish` has to send."""
        return sum(output.identity.size_bytes for output in outputs if not self._is_right(output))

    def _is_right(self, output: Output) -> bool:
        """It has left as it is now."""
        item = self._early.get(_place(output))
        return item is not None and (output.identity, output.key_path) == (item.identity, item.output.key_path)

    def publish_own(self, *names: str, count: Count, wire: Wire) -> None:
        """Raises what ends the publishing of anything: AccessRefused, StoreUnreachable, Stopped."""
        with self._publisher(count, wire=wire) as publisher:
            outcome = publisher.publish(self.own_outputs(*names))
        if outcome.ended_by is not None:
            raise outcome.ended_by

    def harvests(self) -> tuple[Harvest, Harvest]:
        """What the case holds, and what appeared in the run directory beside it."""
        job, place = self._opened.job, self._opened.place
        samples = openmetrics.place_of(
            job.report.openmetrics, run_directory=place.run_directory, run_id=self._opened.run_id
        )
        ours = {
            journal.DIRECTORY_NAME, "byos.toml", purge.PLATFORM_LOG,
            *self._inside(self._room.case, place.shipped_file, place.unpacked, samples, *secret_files(place)),
        }  # fmt: skip
        beside = files.rundir_outputs(
            run_directory=place.run_directory, laid_down=self._laid_down, ours=ours,
            exclude=Globs.of(job.publish.exclude), key_prefix=job.output.key,
        )  # fmt: skip
        case = self._case_harvest()
        if not case.outputs and (left_out := len(self._case_harvest(Selection.of(include=["**"], exclude=())).outputs)):
            self._opened.book.warn(
                f"publish.include and publish.exclude leave out everything that the solver made or changed ({left_out:,})"
            )
        # Of 100,000 files one description is enough.
        same = [self._early[_place(output)].output if self._is_right(output) else output for output in case.outputs]
        return replace(case, outputs=same), beside

    def waiting(self) -> Waiting:
        """Outputs of the case that have not left as they are now."""
        done = self._gathering.acknowledged if self._gathering else {}
        sizes = [
            output.identity.size_bytes
            for output in self._case_harvest().outputs
            if (item := done.get(output.path)) is None or item.identity != output.identity
        ]
        return Waiting(len(sizes), sum(sizes))

    def _acknowledged(self, item: Published) -> None:
        self._pace.add(item.size_bytes, seconds=item.seconds)
        self._ledger.acknowledged(item)

    def _case_harvest(
        self,
        selection: Selection | None = None,
        *,
        familiar: Familiar | None = None,
        only: Collection[str] | None = None,
    ) -> Harvest:
        """*selection*: instead of what the job includes and excludes; the others as :func:`files.case_outputs` says."""
        job = self._opened.job
        selection = selection or Selection.of(include=job.publish.include, exclude=job.publish.exclude)
        harvest = files.case_outputs(
            case=self._room.case, fetched=self._after_fetch, what=job.publish.what, selection=selection,
            key_prefix=job.output.key, stored=self._packing.stored, familiar=familiar, only=only,
        )  # fmt: skip
        return replace(harvest, outputs=self._apart(harvest.outputs))

    def _apart(self, outputs: list[Output]) -> list[Output]:
        """A file that was written again after it was removed behind must not take the place of what the bucket has of it."""
        behind = self._gathering.behind if self._gathering else self._behind
        if not behind:
            return outputs
        taken = {item.output.key_path for item in list(behind.values())}
        if self._gathering is not None:
            there = list(self._gathering.acknowledged.items())
            taken.update(item.output.key_path for path, item in there if path not in behind)
        taken.update(output.key_path for output in outputs)
        return [_aside(output, taken) if output.path in behind else output for output in outputs]

    def _bundle_name(self) -> str:
        """Of this attempt alone, so that no bundle takes the place of one that an earlier manifest speaks of."""
        return f"{BUNDLES}{self._opened.run_id[:8]}-{next(self._bundles):04d}.tar.zst"

    def _growing(self) -> list[Output]:
        wanted = Globs.of(self._opened.job.publish.live)
        return (
            [output for output in self._case_harvest().outputs if wanted.matches(output.path)] if wanted.globs else []
        )

    def say_what_was_not_meant(self, solved: Solved) -> None:
        """Globs that no file of the case or beside it has to do with: a typing error loses what was to be kept."""
        job, here = self._opened.job, self._opened.place.run_directory
        asked = {
            "publish.exclude": job.publish.exclude, "publish.live": job.publish.live, "publish.compress": job.publish.compress,
            "publish.bundle": job.publish.bundle, "publish.priority": job.publish.priority, "purge.keep": job.purge.keep,
            "resume.files": job.resume.files,
        }  # fmt: skip
        left = [(key, glob) for key, globs in asked.items() for glob in Globs.of(globs).globs]
        if self._behind and not (solved.succeeded or solved.stopped_by):
            more = f" and {len(self._behind) - 1:,} more" if len(self._behind) > 1 else ""
            self._opened.book.warn(
                f"publish.delete_behind had removed {next(iter(self._behind))!r}{more}: if the solver reads such files back, name "
                "them in purge.keep"
            )
        if self._opened.continues or not solved.succeeded or not left:
            return
        below = "".join(f"{path}/" for path in self._inside(self._room.case))
        roots = (here,) if below else (self._room.case, here)
        for path in itertools.chain(self._vanished, self._behind, *map(_paths_in, roots)):
            names = {path, path.removeprefix(below), below + path}
            left = [
                (key, glob)
                for key, glob in left
                if not any(Globs((glob,)).matches_or_lies_below(name) for name in names)
            ]
            if not left:
                return
        self._opened.book.warn(f"no file matches {', '.join(f'{key} {glob.text!r}' for key, glob in left)}")

    def _inside(self, *paths: Path | None) -> list[str]:
        here = self._opened.place.run_directory
        return [str(path.relative_to(here)) for path in paths if path is not None and here in path.parents]

    def _in_order(self, outputs: Sequence[Output]) -> list[Output]:
        job = self._opened.job
        return in_order(outputs, priority=job.publish.priority, restarts=job.resume.files)

    def own_outputs(self, *names: str) -> list[Output]:
        """Logs, which lie in ``.byos/`` and go below ``_byos/``."""
        own, none = self._opened.own_directory, Identity(0, 0, 0, 0)
        return [Output(name, f"_byos/{name}", none, own) for name in names if (own / name).is_file()]

    def _publisher(
        self, count: Count, *, budget: Budget | None = None, wire: Wire | None = None, beside_solver: bool = False
    ) -> Publisher:
        opened = self._opened
        return Publisher(
            wire or opened.wire.until(stop=opened.stop.unless_cut), prefix=opened.job.output, opened=self._open_output,
            writer=(WRITER, opened.run_id), tally=count, acknowledged=self._acknowledged, uploads=self._ledger,
            part_bytes=opened.job.store.part_bytes, connections=opened.job.store.connections, beside_solver=beside_solver,
            budget=budget or Budget(self._slot_cores), bundle_name=self._bundle_name,
        )  # fmt: skip

    def _open_output(self, output: Output) -> tuple[int, Identity]:
        descriptor, identity = files.open_output(output)
        hollow = not output.stored and files.is_hollow(descriptor, identity, least_bytes=_HOLLOW_BYTES)
        if hollow and not next(self._hollow_told, True):
            self._opened.book.warn(
                f"{output.path} is mostly holes, and they travel as zeros; publish.compress would send only its data"
            )
        return descriptor, identity


def _paths_in(root: Path) -> Iterator[str]:
    with suppress(OSError):  # the solver may have removed its own case
        yield from (path for path, _ in scan(root, skip={journal.DIRECTORY_NAME}, problems=[]))


def _place(output: Output) -> tuple[str, str]:
    return str(output.root), output.path


def _tail(early: Sequence[Published], rest: Sequence[Output], count: Count) -> Callable[[], Standing]:
    """How publishing stands once the solver has ended."""
    bytes_early, bytes_rest = sum(item.size_bytes for item in early), sum(output.identity.size_bytes for output in rest)
    began_s = time.monotonic()

    def standing() -> Standing:
        return Standing(
            files_done=len(early) + min(count.files, len(rest)),
            bytes_done=bytes_early + min(count.done_bytes, bytes_rest),
            files_waiting=max(0, len(rest) - count.files),
            bytes_waiting=max(0, bytes_rest - count.done_bytes),
            bytes_per_s=count.done_bytes / max(time.monotonic() - began_s, 1e-3),
        )

    return standing


def _aside(output: Output, taken: Collection[str]) -> Output:
    """``thermo.out`` → ``thermo.out.2``, or the next number that no other output has."""
    end = ".zst" if output.stored == "zstd" else ""
    stem = output.key_path[: len(output.key_path) - len(end)]
    number = next(number for number in itertools.count(2) if f"{stem}.{number}{end}" not in taken)
    return replace(output, key_path=f"{stem}.{number}{end}", told=f"{output.path}.{number}")


def _nothing(_: bool) -> None:
    return
