"""One contender measured once, and what many measurements say: medians, spread, ratios.

Before each measurement the disk is brought to rest (sync), so that nobody pays for what the one before wrote.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

LAUNCH = Path(__file__).resolve().parent / "launch.py"
LONGEST_S = 900.0


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
    os.sync()
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
