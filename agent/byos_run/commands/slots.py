"""Runs of a DOE in the slots of one machine: each a whole byos-run in a directory of its own.

    while a slot is free and a row waits: lay down, start     ended: look what is left there, and what the bucket says of it

A run that fails does not stop the others. Asked to stop, no further one is started, and those at work are told TERM: they stop
their solver, publish and purge. A second wish, and they are ended.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Callable

from byos_run.commands.kit import LOG, Kit
from byos_run.errors import printable
from byos_run.model import Job, Stop
from byos_run.node import workspace
from byos_run.node.child import Child
from byos_run.node.tree import scan
from byos_run.steps.table import Row

_LOOK_S = 0.1
_CUT_S = 15.0
"""How long a run may take to end at once."""
_LAST_BYTES = 4096
_MARK = "byos-run | "


@dataclass
class Run:
    """One row, from waiting to ended."""

    row: Row
    job: Job
    directory: Path
    state: str = "waiting"
    """waiting | running | done | failed | not started."""
    code: int | None = None
    started_s: float = 0.0
    seconds: float = 0.0
    said: str = ""
    """The last line of byos-run itself."""
    left: dict[str, int] = field(default_factory=dict)
    """Path → bytes of what the platform would save, its own log and ``purge.keep`` not among them."""
    kept: list[str] = field(default_factory=list)
    """What ``purge.keep`` left on purpose."""
    manifest: Mapping[str, Any] = field(default_factory=dict)

    @property
    def passed(self) -> bool:
        return self.state == "done" and not self.left

    def look(self) -> None:
        if self.state == "running":
            self.seconds = time.monotonic() - self.started_s
            self.said = _last_said(self.directory / LOG) or self.said


Evidence = Callable[[Job], "tuple[Mapping[str, Any], Mapping[str, Any]]"]
"""Manifest and certificate of a run, as the bucket has them; empty where it has none."""


def run_all(
    runs: Sequence[Run], *, kit: Kit, stop: Stop, evidence: Evidence, show: Callable[[], None], keep: bool
) -> None:
    """Run them all, or until *stop* is cut; call it from the main thread. Raises NodeUnfit."""
    waiting = list(reversed(runs))
    at_work: list[tuple[Run, Child]] = []
    told, until = 0, float("inf")
    with ExitStack() as stack:
        while (at_work or (waiting and not stop.asked)) and time.monotonic() < until:
            while waiting and not stop.asked and len(at_work) < kit.slot.slots:
                run = waiting.pop()
                at_work.append((run, stack.enter_context(_start(run, kit))))
            if stop.cut:
                time.sleep(_LOOK_S)  # no wish is stronger, so there is none to wait for
            else:
                stop.wait(_LOOK_S)
            if stop.asked + stop.cut > told:
                told, until = stop.asked + stop.cut, time.monotonic() + _CUT_S if stop.cut else until
                for _, child in at_work:
                    child.signal(signal.SIGTERM)
            for run, child in at_work:
                run.look()
                if not child.lives:
                    child.end()
                    _ended(run, child.code, evidence, keep=keep)
            at_work = [(run, child) for run, child in at_work if run.state == "running"]
            show()
    for run in runs:
        run.state = {"waiting": "not started", "running": "failed"}.get(run.state, run.state)


def _start(run: Run, kit: Kit) -> Child:
    kit.lay_down(run.row, run.directory)
    child = Child(program=kit.program(run.directory), output=run.directory / LOG, library_path=kit.place.library_path)
    run.state, run.started_s = "running", time.monotonic()
    return child


def _ended(run: Run, code: int | None, evidence: Evidence, *, keep: bool) -> None:
    run.look()
    run.state, run.code = "done" if code == 0 else "failed", code
    run.manifest, certificate = evidence(run.job)
    spared = _kept_by_wish(certificate)
    found = {path: status.st_size for path, status in scan(run.directory, problems=[]) if path != LOG}
    run.kept = sorted(found.keys() & spared)
    run.left = {path: size for path, size in sorted(found.items()) if path not in spared}
    if run.passed and not run.kept and not keep:
        workspace.remove_tree(run.directory)


def _kept_by_wish(certificate: Mapping[str, Any]) -> set[str]:
    left = certificate.get("left")
    items = left.get("paths") if isinstance(left, dict) else None
    found = [item for item in items if isinstance(item, dict)] if isinstance(items, list) else []
    return {str(item.get("path")) for item in found if item.get("reason") == "purge.keep"}


def _last_said(log: Path) -> str:
    try:
        with open(log, "rb") as file:
            file.seek(0, os.SEEK_END)
            file.seek(max(0, file.tell() - _LAST_BYTES))
            lines = file.read().decode("utf-8", "replace").splitlines()
    except OSError:
        return ""
    return next((printable(line[len(_MARK) :]) for line in reversed(lines) if line.startswith(_MARK)), "")
