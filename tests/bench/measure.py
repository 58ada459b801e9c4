"""One contender measured once, and what many measurements say: medians, spread, ratios.

Before each measurement the machine is brought to rest: what was written is on the disk, and the store has done with what was
deleted (MinIO does that when nobody waits for it), so that nobody pays for the one before.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

LAUNCH = Path(__file__).resolve().parent / "launch.py"
LONGEST_S = 900.0
_LOOK_S, _LONGEST_REST_S = 0.25, 15.0
_AT_REST = 0.05
"""Share of the processors' time: a store that waits for requests takes less."""


class Cost(NamedTuple):
    """What one run of a contender cost."""

    seconds: float
    """Wall time from its start to its end."""
    cpu_s: float
    """User and system, of it and of all its children."""
    peak_bytes: int
    """Resident memory of its largest process."""
    beside_s: float = 0.0
    """What of the wall time was not the solver, in a whole job."""


class Figure(NamedTuple):
    """Many costs of one contender."""

    name: str
    seconds: float
    least_s: float
    most_s: float
    cpu_s: float
    peak_bytes: int
    beside_s: float
    rounds: int


def run(argv: Sequence[str], *, cwd: Path, env: Mapping[str, str], log: Path, code: int = 0) -> Cost:
    """Runs a command to its end. RuntimeError, with its last lines, if it does not end with `code`."""
    rest()
    program = shutil.which(argv[0], path=env["PATH"]) or argv[0]
    order = {"argv": [program, *argv[1:]], "cwd": str(cwd), "env": dict(env), "log": str(log)}
    done = subprocess.run(
        [sys.executable, "-I", "-S", str(LAUNCH)], input=json.dumps(order), capture_output=True, text=True,
        timeout=LONGEST_S, check=False,
    )  # fmt: skip
    if done.returncode:
        raise RuntimeError(f"{argv[0]}: could not be started\n{done.stderr}")
    told = json.loads(done.stdout)
    if told["code"] != code:
        tail = log.read_text(encoding="utf-8", errors="replace").splitlines()[-10:]
        raise RuntimeError("\n".join([f"exit {told['code']}, not {code}, of {' '.join(argv)[:200]}", *tail]))
    return Cost(told["seconds"], told["cpu_s"], told["peak_bytes"])


def rest() -> None:
    """Returns when the processors and the disk have been idle for a moment, at the latest after 15 s."""
    os.sync()
    end, before = time.monotonic() + _LONGEST_REST_S, _processors()
    while time.monotonic() < end:
        time.sleep(_LOOK_S)
        now = _processors()
        spent = [after - earlier for after, earlier in zip(now, before)]
        if sum(spent) - spent[_IDLE] <= _AT_REST * sum(spent):
            return
        before = now


_IDLE = 3


def _processors() -> list[int]:
    """What they have done so far, in ticks: user, nice, system, idle, waiting for the disk, … (proc_stat(5))."""
    with open("/proc/stat", encoding="ascii") as file:
        return [int(word) for word in file.readline().split()[1:9]]


def figure(name: str, costs: Sequence[Cost]) -> Figure:
    """Medians of time and CPU, extremes of time, the highest peak."""
    seconds = [cost.seconds for cost in costs]
    return Figure(
        name=name, seconds=statistics.median(seconds), least_s=min(seconds), most_s=max(seconds),
        cpu_s=statistics.median(cost.cpu_s for cost in costs), peak_bytes=max(cost.peak_bytes for cost in costs),
        beside_s=statistics.median(cost.beside_s for cost in costs), rounds=len(costs),
    )  # fmt: skip


def ratio(theirs: Figure, ours: Figure) -> float:
    """How many times as long they take."""
    return theirs.seconds / ours.seconds
