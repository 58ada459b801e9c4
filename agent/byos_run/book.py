"""The memory of a run while it runs: what is said, how far it is, what the heartbeat tells.

A step is told from here and tells nobody. ``run`` opens a phase around each; whoever wants to know how a run stands, the terminal,
``run.log`` or the heartbeat, asks the book.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Callable

from byos_run import log as words
from byos_run.errors import ByosError, UsageError, printable
from byos_run.model import Phase
from byos_run.node.pool import Count, Every

_LAST_LINES = 5
_LAST_BYTES = 4096


class Book:
    """One for a run; written by its thread, read by the heartbeat's and the progress line's."""

    def __init__(self, *, lines: words.Lines, clock: Callable[[], float] = time.time) -> None:
        self.lines = lines
        self.clock = clock
        self.phases: list[Phase] = []
        self.warnings: list[str] = []
        self.count = Count()
        self.started_at = clock()
        self._phase = "settle"
        self._phase_began_s = time.monotonic()
        self._total_bytes = 0
        self._is_open = False
        self._early: list[str] = []
        self._run_log: int | None = None
        self._solver_log: Path | None = None
        self._log_failed = False
        self.log = words.logger(lines=lines, write_json=self._write_json, clock=self._now)

    def _now(self) -> float:
        return self.clock()

    def keep_log(self, *, run_log: Path, solver_log: Path) -> None:
        """From now on lines go to *run_log*; those that were said before are written first. Raises OSError."""
        self._run_log = os.open(run_log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        self._solver_log = solver_log
        early, self._early = self._early, []
        for line in early:
            self._write_json(line)

    def _write_json(self, line: str) -> None:
        if self._run_log is None:
            self._early.append(line)
            return
        try:
            os.write(self._run_log, line.encode("utf-8", "backslashreplace"))
        except OSError as error:
            if not self._log_failed:  # a full disk must not end the run, but it is said, once
                self._log_failed = True
                self.lines.say(f"warning: run.log cannot be written: {error.strerror}")

    def close(self) -> None:
        if self._run_log is not None:
            os.close(self._run_log)
            self._run_log = None

    def warn(self, text: str) -> None:
        self.warnings.append(text)
        self.log.warning(text)

    def tell_error(self, error: ByosError) -> None:
        """Every problem of *error* a line of its own, then what to do."""
        problems = error.problems if isinstance(error, UsageError) else [error.message]
        for problem in problems[:-1]:
            self.log.error(problem)
        self.log.error(problems[-1], hint=error.hint)

    @contextmanager
    def phase(self, name: str, *, total_bytes: int = 0, quiet: bool = False) -> Iterator[Count]:
        """Around one step: its count, its progress, its time. *quiet*: the step speaks for itself."""
        self._phase, self._total_bytes, self.count = name, total_bytes, Count()
        self._is_open = True
        count, started_at, started = self.count, self.clock(), time.monotonic()
        self._phase_began_s = started
        show = words.Progress(self.lines, describe=self._describe)
        try:
            with Every(words.TICK_S, (lambda: None) if quiet else show, name="progress"):
                yield count
        finally:
            self.lines.live("")
            seconds = time.monotonic() - started
            self._is_open = False
            self.phases.append(Phase(name, started_at, seconds, count.bytes_in, count.files))

    def moved(self) -> tuple[str, int, int]:
        """The phase, and bytes fetched and bytes acknowledged by the bucket since the start. From any thread."""
        parts = [(item.name, item.size_bytes) for item in self.phases]
        if self._is_open:
            parts.append((self._phase, self.count.bytes_in))
        fetched = sum(size_bytes for name, size_bytes in parts if name == "fetch")
        return self._phase, fetched, sum(size_bytes for _, size_bytes in parts) - fetched

    def _describe(self) -> words.Parts:
        """What is worth most first."""
        count, total = self.count, self._total_bytes
        done, files = count.done_bytes, count.files
        shares = [f"{min(100, 100 * done // total)} %"] if total else []
        lasts = [] if total else [words.duration(time.monotonic() - self._phase_began_s)]
        moved = [words.size(done) + (f" of {words.size(total)}" if total else "")] if done or total else []
        return words.Parts(
            f"{self._phase}: ",
            [
                (1, shares or lasts),
                (4, moved),
                (5, [words.count(files, "file")] if files else []),
                (3, [f"{words.size(count.rate_bytes_per_s())}/s"] if moved else []),
                (2, words.eta(count.eta_s(total) if total else None)),
            ],
        )

    def status(self, *, phase: str = "") -> dict[str, Any]:
        """``status.json``: how the run stands."""
        eta_s = self.count.eta_s(self._total_bytes) if self._total_bytes else None
        return {
            "phase": phase or self._phase,
            "bytes": self.count.done_bytes,
            "of_bytes": self._total_bytes or None,
            "files": self.count.files,
            "bytes_per_s": round(self.count.rate_bytes_per_s()),
            "eta_s": None if eta_s is None else round(eta_s),
            "phases": {item.name: round(item.seconds, 1) for item in self.phases},
            "host": socket.gethostname(),
            "started_at": self.started_at,
            "at": self.clock(),
            "last_lines": self._last_lines(),
        }

    def _last_lines(self) -> list[str]:
        if self._solver_log is None:
            return []
        try:
            with open(self._solver_log, "rb") as file:
                file.seek(0, os.SEEK_END)
                file.seek(max(0, file.tell() - _LAST_BYTES))
                lines = file.read().decode("utf-8", "replace").splitlines()
        except OSError:
            return []
        return [printable(line)[:500] for line in lines[-_LAST_LINES:]]
