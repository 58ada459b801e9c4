"""``.byos/`` in the run directory: what the next start on this node must know if this one is killed.

::

    marker.json      who runs here: run id, pid, start time, boot, pid namespace; held locked while we live
    journal.jsonl    appended: attempt → place → fetched → phase → ack, behind, upload, part, over … → solved → vanished → manifest
    <name>.snapshot  the state of a tree, written whole or not at all; <name>.paths: its directories

Reading starts anew at each ``attempt`` that does not continue the one before. A line that was torn by a kill or a full
disk is passed over, and the line after it is whole. Lines that only save work (``ack``, uploads) may be lost; those that decide
(attempt, place, fetched, solved, manifest) are on the disk when the call returns.

Not promised: that what stands here is true of the bucket. It never authorises a deletion by itself.
"""

from __future__ import annotations

import json
import os
import stat
import threading
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from byos_run.errors import NodeUnfit, UsageError
from byos_run.model import Attempt, Fetched, Output, Published, Solved
from byos_run.node.files import Snapshot
from byos_run.node.neighbour import Marker, hold_marker
from byos_run.node.replay import Earlier, replay
from byos_run.node.scratch import Room
from byos_run.node.tree import DIRECTORY
from byos_run.uploads import Begun, PartSent

__all__ = ["DIRECTORY_NAME", "Earlier", "Journal", "open_journal"]

DIRECTORY_NAME = ".byos"
_LINES = "journal.jsonl"
_OUTPUT = tuple(field.name for field in fields(Output))
_PUBLISHED = tuple(field.name for field in fields(Published))
_APPEND = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC


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

    def begin(self, attempt: Attempt, *, digest: str, output: str, continues: bool, room: Room | None = None) -> None:
        """*continues*: what the journal tells so far still holds (the next start only publishes, records, purges).

        *room*: of the attempt before, which holds something that this one goes on with.
        """
        self._append(
            {"t": "attempt", **asdict(attempt), "digest": digest, "output": output, "continues": continues,
             "place": _place(room) if room is not None else None},
            sync=True,
        )  # fmt: skip

    def placed(self, room: Room) -> None:
        """Where the case lies: before it is made, and again when it is."""
        self._append({"t": "place", **_place(room)}, sync=True)

    def phase(self, name: str) -> None:
        self._append({"t": "phase", "name": name}, sync=True)

    def solved(self, solved: Solved) -> None:
        self._append({"t": "solved", **asdict(solved)}, sync=True)

    def acknowledged(self, published: Published) -> None:
        """Does not raise: a lost line costs sending that output again."""
        # Not by vars(): asked for once, an object's dict stays, for each of perhaps 100,000 outputs.
        output = {name: getattr(published.output, name) for name in _OUTPUT}
        told = {name: getattr(published, name) for name in _PUBLISHED}
        self._save_work({"t": "ack", **told, "output": {**output, "root": str(published.output.root)}})

    def _save_work(self, record: Mapping[str, Any]) -> None:
        try:
            self._append(record, sync=False)
        except NodeUnfit:
            self.lost_lines += 1

    def removed_behind(self, published: Published) -> None:
        """It was removed from the case while the solver ran. Does not raise: what is gone counts as ours unless it vanished."""
        self._gone("behind", published)

    def vanished(self, published: Published) -> None:
        """The solver deleted it. Does not raise: a lost line keeps an object that could go."""
        self._gone("vanished", published)

    def _gone(self, kind: str, published: Published) -> None:
        self._save_work({"t": kind, "root": str(published.output.root), "path": published.output.path})

    def fetched(self, fetched: Sequence[Fetched], *, resumed: Sequence[str]) -> None:
        """The case is as the solver will find it, and its snapshot is kept."""
        items = [{**vars(item), "url": [item.url.bucket, item.url.key]} for item in fetched]
        self._append({"t": "fetched", "inputs": items, "resumed": list(resumed)}, sync=True)

    def upload_begun(self, begun: Begun) -> None:
        """This and the next two do not raise: a lost line costs sending parts again, or an upload that the bucket names."""
        self._save_work({"t": "upload", **vars(begun), "parts": {}})

    def part_sent(self, upload_id: str, part: PartSent) -> None:
        self._save_work({"t": "part", "upload_id": upload_id, "part": part})

    def upload_over(self, upload_id: str) -> None:
        self._save_work({"t": "over", "upload_id": upload_id})

    def manifest(self, key: str) -> None:
        """The manifest *key* is acknowledged."""
        self._append({"t": "manifest", "key": key}, sync=True)

    def save_snapshot(self, name: str, snapshot: Snapshot) -> None:
        """Keep *snapshot* under *name*. Raises NodeUnfit if it cannot be written."""
        self._save(f"{name}.snapshot", snapshot.to_bytes())

    def save_paths(self, name: str, paths: Iterable[str]) -> None:
        """Keep *paths* under *name*. Raises NodeUnfit if they cannot be written."""
        self._save(f"{name}.paths", b"\0".join(map(os.fsencode, paths)))

    def load_paths(self, name: str) -> list[str]:
        """The paths that were kept under *name*; none if there are none."""
        try:
            data = (self.directory / f"{name}.paths").read_bytes()
        except OSError:
            return []
        return [os.fsdecode(path) for path in data.split(b"\0") if path]

    def _save(self, name: str, content: bytes) -> None:
        target = self.directory / name
        written = target.with_name(f"{name}.new")
        try:
            with os.fdopen(os.open(written, _APPEND | os.O_TRUNC, 0o600), "wb") as file:
                file.write(content)
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
            return replay(lines)

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


def _place(room: Room) -> dict[str, Any]:
    places = {"case": str(room.case), "scratch": str(room.scratch or ""), "made": str(room.made or "")}
    return {**places, "identity": room.identity}


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
