"""The shipped file with every MPI that can be had: how it ends, is stopped, and is killed; a table, exit 1 if not as told.

Each run: eight ranks of `solvers/mpi_rank.py`, a store, the platform's surroundings. Counted afterwards: processes, and shared
memory that the run's processes had mapped.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from tests.flavours.launchers import Launcher, launchers
from tests.kit import alive, cases, runs, stores

from byos_run.node.mpi import mapped

if TYPE_CHECKING:
    from tests.kit.stores import Store

RANKS = 8
RANK = Path(__file__).resolve().parent.parent / "solvers" / "mpi_rank.py"


class Event(NamedTuple):
    name: str
    words: tuple[str, ...]
    """For the ranks."""
    sent: int = 0
    """Signal to byos-run once all ranks are ready; 0: the ranks end by themselves."""
    codes: tuple[int, ...] = ()
    cause: str = ""
    """Must be in what is recorded of the solver's end."""


EVENTS = (
    Event("ends", ("ends",), codes=(0,)),
    Event("a rank exits 3", ("exits=1:3",), codes=(3, 9, 255)),
    Event("SIGSEGV in a rank", ("dies=1:11",), codes=(11, 139, 255), cause="signal 11"),
    Event("MPI_Abort(17)", ("aborts=1:17",), codes=(17,), cause="rank 1 called MPI_Abort with code 17"),
    Event("TERM, ranks obey", ("obeys",), sent=signal.SIGTERM, codes=(75,)),
    Event("TERM, deaf ranks", ("deaf",), sent=signal.SIGTERM, codes=(75,)),
    Event("KILL", ("waits",), sent=signal.SIGKILL, codes=(-9,)),
)


class Outcome(NamedTuple):
    code: int
    cause: str
    seconds: float
    """From the signal, or the last rank's end, to the last process's end."""
    processes: int
    segments: int

    def wrong(self, event: Event) -> bool:
        return bool(self.processes or self.segments or self.code not in event.codes or event.cause not in self.cause)


def main() -> int:
    bad = 0
    head = [event.name for event in EVENTS]
    print("| | " + " | ".join(head) + " | slowest stop |", "|---|" + "---|" * (len(head) + 1), sep="\n", flush=True)
    with stores.scratch() as data, stores.any_store(data) as store:
        for each in launchers():
            if isinstance(each, str):
                print(f"| {each} |", flush=True)
                continue
            outcomes = [_tried(each, event, store) for event in EVENTS]
            cells = [_cell(outcome, event) for outcome, event in zip(outcomes, EVENTS)]
            slowest = max(outcome.seconds for outcome, event in zip(outcomes, EVENTS) if event.sent)
            print(f"| {each.name} | {' | '.join(cells)} | {slowest:.1f} s |", flush=True)
            bad += sum(outcome.wrong(event) for outcome, event in zip(outcomes, EVENTS))
    print(f"{bad} not as told; a cell: exit code, processes left + segments left")
    return 1 if bad else 0


def _cell(outcome: Outcome, event: Event) -> str:
    text = f"{outcome.code}, {outcome.processes} + {outcome.segments}"
    return f"**{text}** {outcome.cause}" if outcome.wrong(event) else text


def _tried(launcher: Launcher, event: Event, store: Store) -> Outcome:
    client = store.client()
    bucket = f"flavours-{os.urandom(6).hex()}"
    client.create_bucket(Bucket=bucket)
    with tempfile.TemporaryDirectory(prefix="fl-") as name:
        place = Path(name)
        (place / "t").mkdir()
        cases.sample_zip(place / "case.zip", {"inputs.in": "x\n"})
        client.upload_file(str(place / "case.zip"), bucket, "in/case.zip")
        command = [
            str(launcher.mpirun),
            *launcher.flags,
            "-n",
            str(RANKS),
            str(launcher.python),
            str(RANK),
            *event.words,
        ]
        job = {
            "input": f"s3://{bucket}/in/case.zip", "output": f"s3://{bucket}/out/", "command": command,
            "solver": {"grace": "4s", "cores": RANKS},
        }  # fmt: skip
        runs.lay_out(place / "run", file=runs.shipped_file(), store=store, job=job)
        environ = {
            "PATH": os.environ["PATH"], "HOME": name, "LANG": "C.UTF-8", "TMPDIR": str(place / "t"),
            **cases.RANKS_SHARE_CORES, **runs.PLATFORM, **launcher.environ,
        }  # fmt: skip
        with runs.started(place / "run", env=environ) as process:
            segments = _await_ready(process, place)
            began = time.monotonic()
            if event.sent:
                process.send_signal(event.sent)
            process.communicate(timeout=120)
            until = time.monotonic() + 15
            while (living := alive.processes(place, temporary=place / "t")) and time.monotonic() < until:
                time.sleep(0.02)
            seconds = time.monotonic() - began
        left = [path for path in segments if os.path.exists(path)]
        try:
            manifest = json.loads(client.get_object(Bucket=bucket, Key="out/_byos/manifest.json")["Body"].read())
            cause = manifest["solver"]["cause"] or ""
        except client.exceptions.NoSuchKey:
            cause = ""
    client.close()
    return Outcome(process.returncode, cause, seconds, len(living), len(left))


def _await_ready(process, place: Path) -> set[str]:
    """Until every rank has said so, or it has ended; the shared memory that is mapped then."""
    said = ""
    while said.count("ready") < RANKS:
        line = process.stdout.readline()
        if not line:
            break
        said += line
    return {path for pid, _ in alive.processes(place, temporary=place / "t") for path in mapped(pid).shared_memory}


if __name__ == "__main__":
    sys.exit(main())
