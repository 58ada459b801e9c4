"""Where a run is killed: named points, each reached from outside, without a hook in the program.

    request    the fault proxy sees the n-th request of a kind: before the store has it, when the store has answered and
               the run does not know, or when the answer has just gone
    seen       something has become true of the run directory, the journal, or the run's processes; looked at all the time

Whom: the agent, unless said otherwise. The kernel does the rest.
"""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Callable

from tests.faults.rules import Rule

Seen = Callable[["Around"], bool]


@dataclass(frozen=True)
class Around:
    """What can be seen of a run from outside."""

    directory: Path
    temporary: Path
    """Its TMPDIR."""
    output: Callable[[], str]
    """What it has said so far."""
    names: Callable[[], list[str]]
    """Of its living processes."""

    def journal(self, text: str) -> bool:
        with suppress(OSError):
            return text in (self.directory / ".byos" / "journal.jsonl").read_text("utf-8", "replace")
        return False

    def has(self, path: str) -> bool:
        return os.path.lexists(self.directory / path)

    def entries(self, path: str) -> int:
        with suppress(OSError):
            return len(os.listdir(self.directory / path))
        return 0

    def unpacked(self) -> bool:
        return any(name.startswith(".byos-run-") for name in os.listdir(self.temporary))


@dataclass(frozen=True)
class Point:
    """One place in the life of a run, and who is killed there."""

    name: str
    method: str = ""
    key: str = ""
    """Regular expression on `bucket/key`."""
    query: str = ""
    nth: int = 1
    when: str = ""
    """Of the request: "" before the store has it, "answered", "passed"."""
    at_byte: int = -1
    """Of the answer's body."""
    seen: Seen | None = None
    whom: tuple[str, ...] = ("agent",)
    """agent | shim | all, or the name of a process of the run: only the first one found."""
    mpi: bool = False

    def rule(self, call: object) -> Rule:
        return Rule(call, method=self.method, key=self.key, query=self.query, nth=(self.nth,))  # type: ignore[arg-type]


def _phase(name: str) -> Seen:
    return lambda around: around.journal(f'"name":"{name}"')


EARLY, LATE, LARGE = r"out/.*/early\.out$", r"out/.*/late\.out$", r"out/.*/large\.out$"
MEMBERS = 60

POINTS = (
    Point("start, the program unpacks itself", seen=lambda a: a.unpacked()),
    Point("start, the directory is marked", seen=lambda a: a.has(".byos/marker.json")),
    Point("start, the keys are read and gone", seen=lambda a: a.unpacked() and not a.has("config")),
    Point("claim, first request", method="HEAD", key=r"^[^/]*/?$"),
    Point("claim, status read", method="GET", key=r"_byos/status\.json$"),
    Point("claim, status before", method="PUT", key=r"_byos/status\.json$"),
    Point("claim, status written and not known", method="PUT", key=r"_byos/status\.json$", when="answered"),
    Point("claim, status acknowledged", method="PUT", key=r"_byos/status\.json$", when="passed"),
    Point("claim, journalled", seen=lambda a: a.journal('"t":"attempt"')),
    Point("fetch, begun", seen=_phase("fetch")),
    Point("fetch, directory of the archive read", method="GET", key=r"in/case\.zip$"),
    Point("fetch, in the midst of the bytes", method="GET", key=r"in/case\.zip$", nth=2, at_byte=0),
    Point("fetch, half unpacked", seen=lambda a: any(name.startswith(".byos-stage") for name in os.listdir(a.directory))),
    Point("fetch, case in place", seen=lambda a: a.entries("case/mesh") == MEMBERS),
    Point("fetch, remembered", seen=lambda a: a.has(".byos/case.snapshot")),
    Point("solve, begun", seen=_phase("solve")),
    Point("solve, first file", seen=lambda a: a.has("case/early.out")),
    Point("solve, shim killed", seen=lambda a: "working" in a.output(), whom=("shim",)),
    Point("solve, shim and agent killed", seen=lambda a: "working" in a.output(), whom=("shim", "agent")),
    Point("solve, everything killed", seen=lambda a: "working" in a.output(), whom=("all",)),
    Point("solve, the command killed", seen=lambda a: "working" in a.output(), whom=("bash",)),
    Point("early publish, before", method="PUT", key=EARLY),
    Point("early publish, stored and not known", method="PUT", key=EARLY, when="answered"),
    Point("early publish, acknowledged", method="PUT", key=EARLY, when="passed"),
    Point("early publish, journalled", seen=lambda a: a.journal('"path":"early.out"')),
    Point("solve, ended and journalled", seen=lambda a: a.journal('"t":"solved"')),
    Point("publish, begun", seen=_phase("publish")),
    Point("publish, log before", method="PUT", key=r"_byos/solver\.log$"),
    Point("publish, log stored and not known", method="PUT", key=r"_byos/solver\.log$", when="answered"),
    Point("upload, before it is started", method="POST", key=LARGE, query=r"^uploads"),
    Point("upload, started and not known", method="POST", key=LARGE, query=r"^uploads", when="answered"),
    Point("upload, a part before", method="PUT", key=LARGE, query=r"partNumber=2"),
    Point("upload, a part stored and not known", method="PUT", key=LARGE, query=r"partNumber=1", when="answered"),
    Point("upload, before it is completed", method="POST", key=LARGE, query=r"^uploadId"),
    Point("upload, completed and not known", method="POST", key=LARGE, query=r"^uploadId", when="answered"),
    Point("upload, acknowledged", method="POST", key=LARGE, query=r"^uploadId", when="passed"),
    Point("upload, journalled", seen=lambda a: a.journal('"path":"large.out"')),
    Point("publish, last file stored and not known", method="PUT", key=LATE, when="answered"),
    Point("sweep, before", method="GET", query=r"list-type=2.*out", nth=2),
    Point("sweep, answered", method="GET", query=r"list-type=2.*out", nth=2, when="answered"),
    Point("record, begun", seen=_phase("record")),
    Point("record, run.log stored", method="PUT", key=r"_byos/run\.log$", when="answered"),
    Point("record, manifest before", method="PUT", key=r"out/[^/]*/_byos/manifest\.json$"),
    Point("record, manifest stored and not known", method="PUT", key=r"out/[^/]*/_byos/manifest\.json$", when="answered"),
    Point("record, manifest acknowledged", method="PUT", key=r"out/[^/]*/_byos/manifest\.json$", when="passed"),
    Point("record, manifest journalled", seen=lambda a: a.journal('"t":"manifest"')),
    Point("purge, the case half gone", seen=lambda a: a.journal('"t":"manifest"') and a.entries("case/mesh") < MEMBERS),
    Point("purge, the case gone", seen=lambda a: a.journal('"t":"manifest"') and not a.has("case")),
    Point("purge, the job file gone", seen=lambda a: a.has(".byos") and not a.has("byos.toml")),
    Point("certificate, before", method="PUT", key=r"_byos/purge\.json$"),
    Point("certificate, stored and not known", method="PUT", key=r"_byos/purge\.json$", when="answered"),
    Point("certificate, acknowledged", method="PUT", key=r"_byos/purge\.json$", when="passed"),
    Point("certificate, seen and not known", method="HEAD", key=r"_byos/purge\.json$", when="answered"),
    Point("end, the journal goes", seen=lambda a: a.has(".byos") and not a.has(".byos/journal.jsonl") and not a.has("byos.toml")),
    Point("mpi, agent killed while eight ranks solve", seen=lambda a: a.names().count("lmp") == 8, mpi=True),
    Point("mpi, shim killed", seen=lambda a: a.names().count("lmp") == 8, whom=("shim",), mpi=True),
    Point("mpi, mpirun killed", seen=lambda a: a.names().count("lmp") == 8, whom=("mpirun",), mpi=True),
    Point("mpi, one rank killed", seen=lambda a: a.names().count("lmp") == 8, whom=("lmp",), mpi=True),
    Point("mpi, hydra's proxy killed", seen=lambda a: a.names().count("lmp") == 8, whom=("hydra_pmi_proxy",), mpi=True),
    Point("mpi, everything killed", seen=lambda a: a.names().count("lmp") == 8, whom=("all",), mpi=True),
)  # fmt: skip
