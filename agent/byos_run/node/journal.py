"""``.byos/`` in the run directory: what the next start on this node must know if this one is killed.

::

    marker.json      who runs here: run id, pid, start time, boot, pid namespace; held locked while we live
    journal.jsonl    appended: attempt → place → phase … → ack, behind … → solved → vanished, ack … → manifest
    <name>.snapshot  the state of a tree, written whole or not at all

Reading starts anew at each ``attempt`` that does not continue the one before. A line that was torn by a kill or a full
disk is passed over, and the line after it is whole. Lines that only save work (``ack``) may be lost; those that decide
(attempt, place, solved, manifest) are on the disk when the call returns.

Not promised: that what stands here is true of the bucket. It never authorises a deletion by itself.
"""

from __future__ import annotations

import json
import os
import stat
import threading
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from byos_run.errors import NodeUnfit, UsageError
from byos_run.model import Attempt, Identity, Output, Packed, Published, Solved
from byos_run.node.files import Snapshot
from byos_run.node.neighbour import Marker, hold_marker
from byos_run.node.scratch import Room
from byos_run.node.tree import DIRECTORY

DIRECTORY_NAME = ".byos"
_LINES = "journal.jsonl"
_APPEND = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass
class Earlier:
    """What the journal tells of the attempt that was here last."""

    attempt: Attempt
    digest: str
    """Of inputs, command and selection: equal digests mean the same run."""
    output: str
    room: Room | None = None
    phases: list[str] = field(default_factory=list)
    """Names of the phases that were begun, in order."""
    solved: Solved | None = None
    acknowledged: dict[tuple[str, str], Published] = field(default_factory=dict)
    """(root, path) → the last acknowledged state; root as ``str``."""
    manifest_key: str = ""
    """Key of the acknowledged manifest; "" if there is none."""
    behind: list[Published] = field(default_factory=list)
    """What was acknowledged, and then removed from the case while the solver ran."""
    vanished: list[str] = field(default_factory=list)
    """Keys of what was acknowledged, and then deleted by the solver."""


class Journal:
    """The open journal of this run. Appending is safe from any thread."""

    def __init__(self, directory: Path, marker_fd: int) -> None:
        self.directory = directory
        self.lost_lines = 0
        """Lines that could not be written, none of which decides anything."""
        self._marker_fd = marker_fd
        self._lock = threading.Lock()
        try:
            self._fd = os.open(directory / _LINES, _APPEND, 0o600)
        except OSError as error:
            raise NodeUnfit(f"cannot write '{directory / _LINES}': {error.strerror}") from error
        size = os.fstat(self._fd).st_size
        self._torn = size > 0 and os.pread(self._fd, 1, size - 1) != b"\n"

    def begin(self, attempt: Attempt, *, digest: str, output: str, continues: bool) -> None:
        """*continues*: what the journal tells so far still holds (the next start only publishes, records, purges)."""
        self._append(
            {"t": "attempt", **asdict(attempt), "digest": digest, "output": output, "continues": continues}, sync=True
        )

    def placed(self, room: Room) -> None:
        """Where the case lies: before it is made, and again when it is."""
        record = {"t": "place", "case": str(room.case), "scratch": str(room.scratch or ""), "identity": room.identity}
        self._append(record, sync=True)

    def phase(self, name: str) -> None:
        self._append({"t": "phase", "name": name}, sync=True)

    def solved(self, solved: Solved) -> None:
        self._append({"t": "solved", **asdict(solved)}, sync=True)

    def acknowledged(self, published: Published) -> None:
        """Does not raise: a lost line costs sending that output again."""
        try:
            output = {**vars(published.output), "root": str(published.output.root)}
            self._append({"t": "ack", **vars(published), "output": output}, sync=False)
        except NodeUnfit:
            self.lost_lines += 1

    def removed_behind(self, published: Published) -> None:
        """It was removed from the case while the solver ran. Does not raise: what is gone counts as ours unless it vanished."""
        self._gone("behind", published)

    def vanished(self, published: Published) -> None:
        """The solver deleted it. Does not raise: a lost line keeps an object that could go."""
        self._gone("vanished", published)

    def _gone(self, kind: str, published: Published) -> None:
        try:
            self._append({"t": kind, "root": str(published.output.root), "path": published.output.path}, sync=False)
        except NodeUnfit:
            self.lost_lines += 1

    def manifest(self, key: str) -> None:
        """The manifest *key* is acknowledged."""
        self._append({"t": "manifest", "key": key}, sync=True)

    def save_snapshot(self, name: str, snapshot: Snapshot) -> None:
        """Keep *snapshot* under *name*. Raises NodeUnfit if it cannot be written."""
        target = self.directory / f"{name}.snapshot"
        written = target.with_suffix(".new")
        try:
            with os.fdopen(os.open(written, _APPEND | os.O_TRUNC, 0o600), "wb") as file:
                file.write(snapshot.to_bytes())
                file.flush()
                os.fsync(file.fileno())
            os.replace(written, target)
        except OSError as error:
            raise NodeUnfit(f"cannot write '{target}': {error.strerror}") from error

    def load_snapshot(self, name: str) -> Snapshot | None:
        """The snapshot that was kept under *name*; None if there is none."""
        try:
            data = (self.directory / f"{name}.snapshot").read_bytes()
        except OSError:
            return None
        return Snapshot.from_bytes(data) if len(data) % 8 == 0 else None

    def earlier(self) -> Earlier | None:
        """What the last attempt left here; None if there was none. Call it before :meth:`begin`."""
        with open(self.directory / _LINES, "rb") as lines:
            return _replay(_records(lines))

    def close(self) -> None:
        """Close and unlock. The directory is deleted by the purge, as its last act."""
        os.close(self._fd)
        os.close(self._marker_fd)

    def _append(self, record: Mapping[str, Any], *, sync: bool) -> None:
        line = json.dumps(record, separators=(",", ":")).encode() + b"\n"
        with self._lock:
            try:
                if self._torn:
                    line = b"\n" + line
                self._torn = os.write(self._fd, line) != len(line)
                if sync and not self._torn:
                    os.fsync(self._fd)
            except OSError as error:
                raise NodeUnfit(f"cannot write the journal: {error.strerror}") from error
            if self._torn:
                raise NodeUnfit("cannot write the journal: no space left on device")


def open_journal(run_directory: Path, *, run_id: str) -> Journal:
    """Make or reopen ``.byos/`` and mark it as ours.

    Raises UsageError if it is a link or another user's, or if another live run holds this directory; NodeUnfit if it
    cannot be written.
    """
    directory = run_directory / DIRECTORY_NAME
    try:
        with suppress(FileExistsError):
            directory.mkdir(mode=0o700)
        fd = os.open(directory, DIRECTORY)
        try:
            status = os.fstat(fd)
            if status.st_uid != os.geteuid():
                raise UsageError([f"'{directory}' belongs to another user"])
            if stat.S_IMODE(status.st_mode) != 0o700:
                os.fchmod(fd, 0o700)
        finally:
            os.close(fd)
        marker_fd = hold_marker(directory, run_id=run_id)
    except NotADirectoryError as error:
        raise UsageError([f"'{directory}' is a link or a file, not our directory"]) from error
    except OSError as error:
        raise NodeUnfit(f"cannot write in '{run_directory}': {error.strerror}") from error
    if isinstance(marker_fd, Marker):
        raise UsageError(
            [f"run {marker_fd.run_id} (process {marker_fd.pid}) is at work in '{run_directory}'"],
            hint="start each run in a directory of its own",
        )
    try:
        return Journal(directory, marker_fd)
    except BaseException:
        os.close(marker_fd)
        raise


def _records(lines: Iterator[bytes]) -> Iterator[dict[str, Any]]:
    for line in lines:
        try:
            record = json.loads(line)
        except ValueError:  # torn
            continue
        if isinstance(record, dict):
            yield record


def _replay(records: Iterator[dict[str, Any]]) -> Earlier | None:
    earlier: Earlier | None = None
    for record in records:
        kind = record.pop("t", "")
        with suppress(KeyError, TypeError, ValueError):  # a line of another version tells us nothing
            if kind == "attempt":
                earlier = _begun(record, earlier)
            elif earlier is not None:
                _tell(earlier, kind, record)
    return earlier


def _begun(record: dict[str, Any], before: Earlier | None) -> Earlier:
    attempt = Attempt(record["run_id"], record["number"], record["started_at"])
    if not record["continues"] or before is None:
        return Earlier(attempt, record["digest"], record["output"])
    before.attempt, before.digest, before.output = attempt, record["digest"], record["output"]
    return before


def _tell(earlier: Earlier, kind: str, record: dict[str, Any]) -> None:
    if kind == "place":
        scratch = Path(record["scratch"]) if record["scratch"] else None
        identity = record["identity"]
        earlier.room = Room(Path(record["case"]), scratch, (identity[0], identity[1]) if identity else None)
    elif kind == "phase":
        earlier.phases.append(record["name"])
    elif kind == "solved":
        solved = Solved(**record)
        earlier.solved = replace(solved, notes=tuple(solved.notes), shared_memory=tuple(solved.shared_memory))
    elif kind == "manifest":
        earlier.manifest_key = record["key"]
    elif kind == "ack":
        told = record.pop("output")
        output = Output(**{**told, "identity": Identity(*told["identity"]), "root": Path(told["root"])})
        packed = Packed(*record["packed"]) if record["packed"] else None
        identity = Identity(*record["identity"])
        published = Published(**{**record, "output": output, "identity": identity, "packed": packed})
        before = earlier.acknowledged.get((str(output.root), output.path))
        # Written anew after it was removed; the line that said so was lost.
        if before is not None and before.output.key_path != output.key_path:
            earlier.behind.append(before)
        earlier.acknowledged[str(output.root), output.path] = published
    elif kind in ("behind", "vanished"):
        gone = earlier.acknowledged.pop((record["root"], record["path"]))
        if kind == "behind":
            earlier.behind.append(gone)
        else:
            earlier.vanished.append(gone.key)
