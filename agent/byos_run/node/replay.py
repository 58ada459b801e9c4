"""What the lines of a journal tell of the attempt that was here last: the reading half of ``node.journal``."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from byos_run.model import Attempt, Fetched, Identity, Output, Packed, Published, S3Url, Solved
from byos_run.node.scratch import Room
from byos_run.uploads import Begun, PartSent


@dataclass
class Earlier:
    """What the journal tells of the attempt that was here last."""

    attempt: Attempt
    digest: str
    """Of inputs, command and selection: equal digests mean the same run."""
    output: str
    since: int
    """Number of the attempt that solved, or was to: those after it only went on publishing."""
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
    fetched: list[Fetched] = field(default_factory=list)
    """The inputs, once all of them were whole in the case."""
    resumed: list[str] = field(default_factory=list)
    """Paths in the case of what was brought from an interrupted attempt before the solver started."""
    uploads: dict[str, Begun] = field(default_factory=dict)
    """Multipart uploads that were open, by their id."""


def _records(lines: Iterator[bytes]) -> Iterator[dict[str, Any]]:
    for line in lines:
        try:
            record = json.loads(line)
        except ValueError:  # torn
            continue
        if isinstance(record, dict):
            yield record


def replay(lines: Iterator[bytes]) -> Earlier | None:
    """None if no attempt was here."""
    earlier: Earlier | None = None
    for record in _records(lines):
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
        place = record.get("place")
        return Earlier(
            attempt, record["digest"], record["output"], attempt.number, room=_room(place) if place else None
        )
    before.attempt, before.digest, before.output = attempt, record["digest"], record["output"]
    return before


def _room(place: dict[str, Any]) -> Room:
    scratch, made = (Path(place[name]) if place.get(name) else None for name in ("scratch", "made"))
    identity = place["identity"]
    return Room(Path(place["case"]), scratch, (identity[0], identity[1]) if identity else None, made)


def _tell(earlier: Earlier, kind: str, record: dict[str, Any]) -> None:
    if kind == "place":
        earlier.room = _room(record)
    elif kind == "phase":
        earlier.phases.append(record["name"])
    elif kind == "solved":
        solved = Solved(**record)
        earlier.solved = replace(solved, notes=tuple(solved.notes), shared_memory=tuple(solved.shared_memory))
    elif kind == "manifest":
        earlier.manifest_key = record["key"]
    elif kind == "fetched":
        earlier.fetched = [_fetched(item) for item in record["inputs"]]
        earlier.resumed = [str(path) for path in record["resumed"]]
    elif kind in ("upload", "part", "over"):
        _tell_of_upload(earlier, kind, record)
    elif kind in ("ack", "behind", "vanished"):
        _tell_of_output(earlier, kind, record)


def _fetched(item: dict[str, Any]) -> Fetched:
    return Fetched(**{**item, "url": S3Url(*item["url"]), "warnings": tuple(item["warnings"])})


def _tell_of_upload(earlier: Earlier, kind: str, record: dict[str, Any]) -> None:
    if kind == "upload":
        begun = Begun(**{**record, "identity": Identity(*record["identity"]), "parts": {}})
        earlier.uploads[begun.upload_id] = begun
    elif kind == "part":
        part = PartSent(*record["part"])
        earlier.uploads[record["upload_id"]].parts[part.number] = part
    else:
        earlier.uploads.pop(record["upload_id"], None)


def _tell_of_output(earlier: Earlier, kind: str, record: dict[str, Any]) -> None:
    if kind == "ack":
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
        return
    gone = earlier.acknowledged.pop((record["root"], record["path"]))
    if kind == "behind":
        earlier.behind.append(gone)
    else:
        earlier.vanished.append(gone.key)
