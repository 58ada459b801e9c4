"""What happened → the manifest, and the exit code.

The manifest is written once, when everything that can be published is; its status says whether the outputs are whole.
"""

from __future__ import annotations

import platform
import socket
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from byos_run import __version__, errors
from byos_run.errors import line_of
from byos_run.model import Attempt, Fetched, Job, Output, Packed, Phase, Published, Skipped, Solved, Unpublished
from byos_run.node.files import RUNDIR

SCHEMA = 1


@dataclass(frozen=True)
class Handed:
    """What a manifest says of earlier attempts."""

    outputs: Sequence[Mapping[str, Any]] = ()
    """Theirs that belong to this run and that it did not write itself, as a manifest lists them."""
    lost: Sequence[Unpublished] = ()
    """Such as the bucket should have, and has no more."""
    stale: Sequence[str] = ()
    """Keys of what belongs to no output of this run; it is still there as long as this one is not whole."""
    attempts: Mapping[tuple[str, str], int] = field(default_factory=dict)
    """Which of them wrote an object, by its key and ETag."""
    resumed: Mapping[str, Any] | None = None
    """What was brought from an interrupted attempt before the solver started."""


@dataclass(frozen=True)
class Account:
    """All that is known of a run when it is written down."""

    job: Job
    attempt: Attempt
    digest: str
    fetched: Sequence[Fetched]
    solved: Solved | None
    published: Sequence[Published]
    unpublished: Sequence[Unpublished]
    skipped: Sequence[Skipped]
    directory_links: Mapping[str, str]
    """Path of a link → the directory of the case that it leads to."""
    phases: Sequence[Phase]
    warnings: Sequence[str]
    ended_by: errors.ByosError | None
    """What ended the run before its time; None if it came to its end."""
    ended_at: float
    results: Mapping[str, float]
    """What ``report.result`` asks for → its value."""
    before: Mapping[str, Any]
    """The manifest of the attempt that this one only completes; empty if there is none. It comes from the bucket."""
    handed: Handed = Handed()

    @property
    def status(self) -> str:
        """complete | solver-failed | partial | interrupted."""
        if isinstance(self.ended_by, errors.Stopped) or (self.solved and self.solved.stopped_by):
            return "interrupted"
        if self.ended_by or self.unpublished or self.solved is None:
            return "partial"
        return "complete" if self.solved.succeeded else "solver-failed"

    @property
    def is_whole(self) -> bool:
        return self.status in ("complete", "solver-failed")

    @property
    def exit_code(self) -> int:
        """The order in which codes win: the solver's own failure, stopped, what ended the run, unpublished."""
        if self.solved and self.solved.code:
            return self.solved.code
        if self.status == "interrupted":
            return errors.Stopped.code
        if self.ended_by and (self.solved is None or isinstance(self.ended_by, errors.AccessRefused)):
            return self.ended_by.code
        # Once the case is solved, an outage or a full disk is to a user what any other reason is: the next start sends the rest.
        return errors.Unpublished.code if self.ended_by or self.unpublished else 0

    @property
    def whose_code(self) -> str:
        if self.solved and self.solved.code:
            return "the solver's"
        return "byos-run's"


class Outputs(Sequence[Mapping[str, Any]]):
    """What a manifest lists, each made when it is asked for: 100,000 of them at once would take 60 MB."""

    def __init__(self, account: Account) -> None:
        self._published, self._handed = account.published, account.handed
        self._attempt = account.attempt.number

    def __len__(self) -> int:
        return len(self._published) + len(self._handed.outputs)

    def __getitem__(self, at: Any) -> Any:
        if at >= len(self._published):
            return self._handed.outputs[at - len(self._published)]
        item = self._published[at]
        return output(item, attempt=self._handed.attempts.get((item.key, item.etag), self._attempt))


def manifest(account: Account) -> dict[str, Any]:
    """``manifest.json``. Never holds solver.env's values, keys or tokens."""

    return {
        "schema": SCHEMA,
        "run_id": account.attempt.run_id,
        "attempt": account.attempt.number,
        "status": account.status,
        "exit_code": account.exit_code,
        "exit_code_is": account.whose_code,
        "error": line_of(account.ended_by) if account.ended_by else None,
        "digest": account.digest,
        "started_at": account.attempt.started_at,
        "ended_at": account.ended_at,
        "inputs": [_input(item) for item in account.fetched] or account.before.get("inputs", []),
        "output": str(account.job.output),
        "command": list(account.job.command),
        "row": account.job.row or None,
        "values": dict(account.job.template.values),
        "solver": solver(account.solved),
        "resumed": account.handed.resumed,
        "outputs": Outputs(account),
        "stale": [] if account.is_whole else list(account.handed.stale),
        "unpublished": [{"path": _shown(item.path), "reason": item.reason} for item in account.unpublished],
        "skipped": [{"path": _shown(item.path), "reason": item.reason} for item in account.skipped],
        "directory_links": {_shown(path): _shown(to) for path, to in account.directory_links.items()},
        "warnings": [_shown(text) for text in account.warnings],
        "results": dict(account.results),
        "price": {"core_hour": account.job.report.price_core_hour, "gb": account.job.report.price_gb},
        "phases": [phase(item) for item in account.phases],
        "host": host(),
        "versions": versions(),
    }


def phase(item: Phase) -> dict[str, Any]:
    return {
        "name": item.name,
        "started_at": round(item.started_at, 3),
        "seconds": round(item.seconds, 3),
        "bytes": item.size_bytes,
        "files": item.files,
    }


def _input(item: Fetched) -> dict[str, Any]:
    return {
        "url": str(item.url),
        "etag": item.etag,
        "version_id": item.version_id or None,
        "members": item.members,
        "bytes": item.bytes_in,
        "unpacked_bytes": item.bytes_out,
        **({"kept": item.kept, "kept_bytes": item.kept_bytes} if item.kept else {}),
        "seconds": round(item.seconds, 3),
    }


def output(item: Published, *, attempt: int) -> dict[str, Any]:
    """How a manifest lists *item*, and an inventory."""
    document = {
        "path": _shown(item.output.told or item.output.path),
        "key": item.key,
        "bytes": item.size_bytes,
        "crc32": item.crc32,
        "etag": item.etag,
        "mtime": item.identity.mtime_ns / 1e9,
        "seconds": round(item.seconds, 4),
        "attempt": attempt,
    }
    if item.packed:
        document.update(_packed(item.packed, item.output))
    if item.output.key_path.startswith(RUNDIR):
        document["found_in"] = "run directory"
    if item.output.escaped:
        document["name_escaped"] = True
    if item.output.link_to:
        document["link_to"] = _shown(item.output.link_to)
    return document


def _shown(text: str) -> str:
    r"""*text* with bytes that are not UTF-8 as ``\xff``: half a surrogate pair is no JSON that every reader takes."""
    return text if text.isascii() else text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def _packed(packed: Packed, output: Output) -> dict[str, Any]:
    """How the object holds the file. Of a zstd object *bytes* and *crc32* are its own, of a member they are the file's."""
    if not packed.object_bytes:
        return {"stored_as": "zstd", "original_bytes": packed.size_bytes, "original_crc32": packed.crc32}
    return {
        "stored_as": "bundle",
        "member": output.key_path,
        "offset": packed.offset,
        "length": packed.length,
        "skip": packed.skip_bytes,
        "bundle_bytes": packed.object_bytes,
        "bundle_crc32": packed.object_crc32,
    }


def solver(solved: Solved | None) -> dict[str, Any] | None:
    """How the command ended, for the manifest and for ``status.json``."""
    if solved is None:
        return None
    return {
        "exit_code": solved.exit_code,
        "signal": solved.signal,
        "stopped_by": solved.stopped_by or None,
        "cause": solved.cause or None,
        "succeeded": solved.succeeded,
        "started_at": solved.started_at,
        "seconds": round(solved.seconds, 3),
        "peak_memory_bytes": solved.peak_memory_bytes,
        "cores": solved.cores,
    }


def host() -> dict[str, Any]:
    return {"name": socket.gethostname(), "system": platform.system(), "machine": platform.machine()}


def versions() -> dict[str, str]:
    """byos-run, Python, and those of the parts that are loaded anyway: importing one only to ask it would cost a start."""
    loaded: dict[str, str] = {
        name: str(vars(sys.modules[name])["__version__"])
        for name in ("botocore", "psutil", "zstandard", "isal")
        if "__version__" in vars(sys.modules.get(name, errors))
    }
    return {"byos-run": __version__, "python": platform.python_version(), **loaded}
