"""Which files leave, when: what settles while the solver runs, the rest when it has ended.

Beside the solver, a look every ``publish.settle`` sends what has settled, on few threads of low priority, and every minute the
ends of growing files are shown; no outage there ends the run. Afterwards one harvest tells the truth: what was
acknowledged as it is now stays acknowledged, what changed since is sent again, what the solver has deleted goes from the
bucket too, once the run is whole.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Callable

from byos_run.bucket.credentials import secret_files
from byos_run.bucket.wire import Wire
from byos_run.endings import Pace, Waiting
from byos_run.model import Identity, Output, Published
from byos_run.node import files, journal
from byos_run.node.files import Harvest, Snapshot
from byos_run.node.globs import Globs, Selection
from byos_run.node.holders import inodes_written_by
from byos_run.node.pool import Count, Every, Stop
from byos_run.node.process import Running
from byos_run.node.scratch import Room
from byos_run.opening import SOLVER_LOG, Opened
from byos_run.steps import claim, purge
from byos_run.steps.publish import Live, Outcome, Publisher, WhileRunning

_LIVE_S = 60.0


@dataclass(frozen=True)
class Delivery:
    """What became of everything that was to leave."""

    harvests: tuple[Harvest, ...]
    outcome: Outcome
    own: tuple[Published, ...]
    """Logs, which lie in ``.byos/``."""
    early: int
    """Files that had left while the solver ran, or in an earlier attempt here, and were still right."""
    vanished: tuple[str, ...]
    """Keys of files that left while the solver ran, and that it deleted since."""


class Publishing:
    """The publishing of one run. Made when the case is there."""

    def __init__(self, opened: Opened, *, room: Room, laid_down: Snapshot, after_fetch: Snapshot, pace: Pace) -> None:
        self._opened = opened
        self._room = room
        self._laid_down = laid_down
        self._after_fetch = after_fetch
        self._early: dict[tuple[str, str], Published] = {}
        self._left: dict[str, Identity] = {}
        self._pace = pace
        if opened.continues and opened.earlier is not None:
            own = str(opened.own_directory)
            self._early = {place: item for place, item in opened.earlier.acknowledged.items() if place[0] != own}

    @contextmanager
    def beside_solver(self, count: Count) -> Iterator[Callable[[Running], None]]:
        """Around the solve; what it yields is to be told of the running command."""
        settings = self._opened.job.publish
        if not settings.while_running:
            yield lambda _: None
            return
        running: list[Running] = []
        over = Stop()

        def find() -> Sequence[Output]:
            return self._in_order(self._case_harvest().outputs) if running else ()

        def written() -> set[int]:
            return inodes_written_by([each.pid for each in running[0].processes()]) if running else set()

        wire = self._opened.wire.until(stop=over, patience_s=math.inf)
        with self._publisher(count, wire=wire, beside_solver=True) as publisher:
            gather = WhileRunning(publisher, find=find, written=written)
            live = Live(wire, prefix=self._opened.job.output, opened=files.open_output)

            def show() -> None:
                live.show([*self.own_outputs(SOLVER_LOG), *self._growing()])

            with Every(settings.settle_s, gather.look, name="settled"), Every(_LIVE_S, show, name="live"):
                try:
                    yield running.append
                finally:
                    over.ask("the solver's end")
        root = str(self._room.case)
        self._early.update({(root, path): item for path, item in gather.acknowledged.items()})

    def finish(self, harvests: tuple[Harvest, ...], outputs: Sequence[Output], count: Count) -> Delivery:
        """Send what has not left, log first, then one sweep over all. Does not raise."""
        here = {(str(output.root), output.path): output for output in outputs}
        right = {
            place: item
            for place, item in self._early.items()
            if (output := here.get(place)) is not None and output.identity == item.identity
        }
        gone = {place: item for place, item in self._early.items() if place not in here}
        # An earlier attempt's purge has deleted what it published; during this run only the solver deletes.
        kept, vanished = (gone, {}) if self._opened.continues else ({}, gone)
        rest = [output for place, output in here.items() if place not in right]
        with self._publisher(count) as publisher:
            own = publisher.publish(self.own_outputs(SOLVER_LOG))
            sent = publisher.publish(self._in_order(rest)) if own.ended_by is None else own.refusing(rest)
            outcome = publisher.sweep(sent.after([*right.values(), *kept.values()]))
        return Delivery(harvests, outcome, own.published, len(right), tuple(item.key for item in vanished.values()))

    def publish_own(self, *names: str, count: Count) -> tuple[Published, ...]:
        with self._publisher(count) as publisher:
            return publisher.publish(self.own_outputs(*names)).published

    def harvests(self) -> tuple[Harvest, Harvest]:
        """What the case holds, and what appeared in the run directory beside it."""
        job, place = self._opened.job, self._opened.place
        ours = {
            journal.DIRECTORY_NAME, "byos.toml", "config", purge.PLATFORM_LOG,
            *self._inside(self._room.case, place.shipped_file, place.unpacked, *secret_files(place)),
        }  # fmt: skip
        beside = files.rundir_outputs(
            run_directory=place.run_directory, laid_down=self._laid_down, ours=ours,
            exclude=Globs.of(job.publish.exclude), key_prefix=job.output.key,
        )  # fmt: skip
        return self._case_harvest(), beside

    def waiting(self) -> Waiting:
        """Outputs of the case that have not left as they are now."""
        sizes = [
            output.identity.size_bytes
            for output in self._case_harvest().outputs
            if self._left.get(output.path) != output.identity
        ]
        return Waiting(len(sizes), sum(sizes))

    def _acknowledged(self, item: Published) -> None:
        if item.output.root == self._room.case:
            self._left[item.output.path] = item.identity
        self._pace.add(item.size_bytes, seconds=item.seconds)
        self._opened.journal.acknowledged(item)

    def _case_harvest(self) -> Harvest:
        job = self._opened.job
        selection = Selection.of(include=job.publish.include, exclude=job.publish.exclude)
        return files.case_outputs(
            case=self._room.case, fetched=self._after_fetch, what=job.publish.what, selection=selection,
            key_prefix=job.output.key,
        )  # fmt: skip

    def _growing(self) -> list[Output]:
        wanted = Globs.of(self._opened.job.publish.live)
        return (
            [output for output in self._case_harvest().outputs if wanted.matches(output.path)] if wanted.globs else []
        )

    def _inside(self, *paths: Path | None) -> list[str]:
        here = self._opened.place.run_directory
        return [str(path.relative_to(here)) for path in paths if path is not None and here in path.parents]

    def _in_order(self, outputs: Sequence[Output]) -> list[Output]:
        """By ``publish.priority``, then small before large."""
        ranks = Globs.of(self._opened.job.publish.priority)
        return sorted(outputs, key=lambda output: (ranks.rank(output.path), output.identity.size_bytes))

    def own_outputs(self, *names: str) -> list[Output]:
        """Logs, which lie in ``.byos/`` and go below ``_byos/``."""
        own, none = self._opened.own_directory, Identity(0, 0, 0, 0)
        return [Output(name, f"_byos/{name}", none, own) for name in names if (own / name).is_file()]

    def _publisher(self, count: Count, *, wire: Wire | None = None, beside_solver: bool = False) -> Publisher:
        opened = self._opened
        return Publisher(
            wire or opened.wire.until(stop=opened.stop.unless_cut), prefix=opened.job.output, opened=files.open_output,
            writer=(claim.WRITER, opened.run_id), tally=count, acknowledged=self._acknowledged,
            part_bytes=opened.job.store.part_bytes, connections=opened.job.store.connections, beside_solver=beside_solver,
        )  # fmt: skip
