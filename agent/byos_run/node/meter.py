"""What a run uses and moves, sampled while it lives: cores, memory, disk, bytes.

    every half second: is a sample due?
    the next one is due after half a second, later after 1/60 of the run's age, 30 s at most,
                 but never sooner than 2,000 times what the last one cost its thread (300 times in the first half minute)
    more than 1,500 samples: every other one goes; what is counted grows only, so no rate is lost by that

Who is a rank, whoever waits for the run knows from its own looks. Processor time is summed over those processes: one that
lives for less than an interval may be missed. Memory is the share of each process (``usage``), as old as its last look.
"""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path
from typing import Any, Callable, NamedTuple, Protocol

import psutil

from byos_run.node import shim, usage
from byos_run.node.pool import Every

_LOOK_S = 0.5
_AGE_SHARE = 60.0
_LONGEST_S = 30.0
_COST_SHARE = 2000.0
_EARLY_COST_SHARE = 300.0
_EARLY_S = 30.0
_MOST_ROWS = 1500
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


class Sample(NamedTuple):
    """One row. What ends in ``_cpu_s`` and ``bytes_in``, ``bytes_out`` are counted from the start and only grow."""

    at: float
    """Seconds since the meter's start."""
    phase: str
    ranks: int
    """Processes of the run."""
    ranks_cpu_s: float
    ranks_memory_bytes: int
    node_cpu_s: float
    """Of all processes of the node."""
    node_memory_bytes: int
    """In use: what could not be had without swapping."""
    agent_cpu_s: float
    disk_used_bytes: int
    """Of the case's file system, by whomever."""
    disk_free_bytes: int
    bytes_in: int
    """Fetched."""
    bytes_out: int
    """Acknowledged by the bucket."""


class Command(Protocol):
    """The running command; ``node.process.Running`` is the one there is."""

    @property
    def over(self) -> bool: ...

    @property
    def seen(self) -> frozenset[int]: ...


class Meter:
    """As a context manager: samples while the block runs, on a thread of its own, and once more at its end."""

    def __init__(
        self,
        *,
        moved: Callable[[], tuple[str, int, int]],
        place: Callable[[], Path],
        show: Callable[[Sample], None] | None = None,
    ) -> None:
        """*moved*: the phase, bytes in, bytes out so far; *place*: where the case lies; *show*: told of each sample."""
        self.memory = usage.Memory()
        self.node_cores = psutil.cpu_count() or 0
        self.node_memory_bytes = int(psutil.virtual_memory().total)
        self._moved = moved
        self._place = place
        self._show = show
        self._rows: list[Sample] = []
        self._command: Command | None = None
        self._cpu = _RanksCpu()
        self._node_began_s = _node_cpu_s()
        self._began = time.monotonic()
        self._due = 0.0
        self._lock = threading.Lock()
        self._timer = Every(_LOOK_S, self._tick, name="meter")

    def __enter__(self) -> Meter:
        self._sample()
        self._timer.__enter__()
        return self

    def __exit__(self, *failure: Any) -> None:
        self._timer.__exit__(None, None, None)
        self._sample()

    def follow(self, command: Command) -> None:
        """From now on the processes of *command* are the ranks."""
        self._command = command
        self._sample()

    def rows(self) -> list[Sample]:
        """All samples that are kept, the last one of this moment. From any thread."""
        self._sample()
        return list(self._rows)

    def _tick(self) -> None:
        if time.monotonic() >= self._due:
            self._sample()

    def _sample(self) -> None:
        before_s = time.thread_time()
        with self._lock:
            row = self._look()
            self._rows.append(row)
            if len(self._rows) > _MOST_ROWS:
                self._rows = [*self._rows[:-1:2], row]
            if self._show is not None:
                self._show(row)
        usual_s = min(max(_LOOK_S, row.at / _AGE_SHARE), _LONGEST_S)
        cost_s = time.thread_time() - before_s
        share = _COST_SHARE if row.at > _EARLY_S else _EARLY_COST_SHARE
        # Half a look early, or a look that comes a moment too soon would make it two.
        self._due = time.monotonic() + max(usual_s, share * cost_s) - _LOOK_S / 2

    def _look(self) -> Sample:
        command = self._command
        ranks = command.seen if command is not None and not command.over else frozenset()
        used, free = _disk_bytes(self._place())
        phase, bytes_in, bytes_out = self._moved()
        last = self._rows[-1] if self._rows else None
        return Sample(
            at=time.monotonic() - self._began,
            phase=phase,
            ranks=len(ranks),
            ranks_cpu_s=self._cpu.total_s(ranks),
            ranks_memory_bytes=self.memory.last_bytes if ranks else 0,
            node_cpu_s=_node_cpu_s() - self._node_began_s,
            node_memory_bytes=_node_memory_bytes(),
            agent_cpu_s=time.process_time(),
            disk_used_bytes=used,
            disk_free_bytes=free,
            # Between two phases a count is in neither for a moment.
            bytes_in=max(bytes_in, last.bytes_in if last else 0),
            bytes_out=max(bytes_out, last.bytes_out if last else 0),
        )


class _RanksCpu:
    """Processor time of processes that come and go; what an ended one had used stays counted."""

    def __init__(self) -> None:
        self._seen: dict[int, float] = {}
        self._total_s = 0.0

    def total_s(self, pids: frozenset[int]) -> float:
        now = {pid: _cpu_s(pid) for pid in pids}
        for pid, used_s in now.items():
            before_s = self._seen.get(pid, 0.0)
            self._total_s += used_s - before_s if used_s >= before_s else used_s  # less: the number is another's now
        self._seen = now
        return self._total_s


def _cpu_s(pid: int) -> float:
    fields = shim.read_small(f"/proc/{pid}/stat").rpartition(b")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS_PER_S if len(fields) > 12 else 0.0


def _node_cpu_s() -> float:
    times = psutil.cpu_times()
    return float(sum(getattr(times, name, 0.0) for name in ("user", "nice", "system", "irq", "softirq")))


def _node_memory_bytes() -> int:
    memory = psutil.virtual_memory()
    return int(memory.total - memory.available)


def _disk_bytes(place: Path) -> tuple[int, int]:
    """Used and free bytes of the file system that *place* is on, or will be."""
    for path in (place, *place.parents):
        try:
            disk = os.statvfs(path)
        except OSError:
            continue
        return (disk.f_blocks - disk.f_bfree) * disk.f_frsize, disk.f_bavail * disk.f_frsize
    return 0, 0
