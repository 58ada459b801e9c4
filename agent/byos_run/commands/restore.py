"""What a run left below its output prefix → the files that its case had, for ``byos-run fetch``.

::

    s3://b/out/run/                all outputs, decompressed and unbundled
    s3://b/out/run/sub/            those below sub/
    s3://b/out/run/field.dat.zst   that one, as field.dat

Manifest and inventories are looked for there and above. They say what each file was, and each is proved by its size and CRC-32
before DIRECTORY appears; what a killed fetch had brought, files and parts of files, is proved again and not fetched. A bundle
is read in order, a few MiB at once; holes are holes again. What no record lists is no concern of this module: the caller
fetches objects as they are.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Callable

from byos_run import errors
from byos_run.archive.kinds import kind_of
from byos_run.archive.plan import Limits
from byos_run.bucket import objects, ranges
from byos_run.bucket.wire import Wire
from byos_run.errors import printable
from byos_run.model import ByteSource, FetchSettings, S3Url, Tally
from byos_run.node import stage as stages
from byos_run.node import volumes
from byos_run.node.files import PACKED, Snapshot, identity_of
from byos_run.node.pool import Pool
from byos_run.node.scratch import Room
from byos_run.node.stage import Stage, is_ours_alone
from byos_run.node.tree import scan
from byos_run.steps import inventory, verify
from byos_run.steps.bring import Bringer, part_name
from byos_run.steps.documents import parsed
from byos_run.steps.entries import Entry, entries_of
from byos_run.steps.inherited import Inherited, inherited, number

_FILES_AT_ONCE = 8
_READERS = 16
_WHOLE = ("complete", "solver-failed")


@dataclass(frozen=True)
class Record:
    """What a run says that it has in the bucket, as far as it was asked for."""

    prefix: S3Url
    entries: Sequence[Entry]
    """Paths are below what was asked for."""
    status: str
    """As the manifest says it; "no manifest" if the inventory knows more."""
    warning: str
    """"", or why this may not be all."""


def recorded(wire: Wire, source: S3Url) -> Record | None:
    """The record that lists *source*; None if it is not the output of a run. Raises AccessRefused, StoreUnreachable, BadInput."""
    if not source.is_prefix and (not source.key.endswith(PACKED) or kind_of(source.name)):
        return None
    for prefix in _above(source):
        found = _read(wire, prefix)
        if found is None:
            continue
        entries = [entry for entry, _ in found.entries(prefix=prefix)]
        chosen = _below(entries, source.key[len(prefix.key) :]) if source.is_prefix else _alone(entries, source)
        if chosen or prefix == source:
            return _record(prefix, chosen, found)
    return None


def _above(source: S3Url) -> Iterator[S3Url]:
    key = source.key[: source.key.rfind("/") + 1]
    while True:
        yield S3Url(source.bucket, key)
        if not key:
            return
        key = key[: key.rfind("/", 0, len(key) - 1) + 1]


def _below(entries: Sequence[Entry], inside: str) -> list[Entry]:
    return [replace(entry, path=entry.path[len(inside) :]) for entry in entries if entry.path.startswith(inside)]


def _alone(entries: Sequence[Entry], source: S3Url) -> list[Entry]:
    return [
        replace(entry, path=entry.path.rpartition("/")[2])
        for entry in entries
        if entry.key == source.key and entry.content is not None
    ]


def _read(wire: Wire, prefix: S3Url) -> Inherited | None:
    """Raises BadInput for a manifest with a name that leads elsewhere."""

    def body(name: str) -> bytes | None:
        try:
            found = objects.get(wire, f"{prefix.key}_byos/{name}")
        except errors.AccessRefused as error:
            if error.error_code not in ("", "AccessDenied"):
                raise
            return None
        except errors.NoSuchObject:  # no such bucket: who fetches objects says it better
            return None
        return found.body if found else None

    manifest = parsed(body("manifest.json") or b"")
    told = [item for _, item in inventory.read(body)]
    if not manifest and not told:
        return None
    if manifest:
        _, refused = entries_of(manifest, prefix=prefix)
        for path, reason in refused:
            raise errors.BadInput(f"{prefix}: {path}: {reason}")
    newest = max((manifest, *told), key=lambda document: number(document.get("attempt")))
    return inherited(
        manifest=manifest, told=told, older=lambda attempt: parsed(body(f"attempts/{attempt}/manifest.json") or b""),
        digest=str(newest.get("digest")), prefix=prefix,
    )  # fmt: skip


def _record(prefix: S3Url, chosen: Sequence[Entry], found: Inherited) -> Record:
    status = printable(str(found.manifest.get("status")))[:40]
    if number(found.manifest.get("attempt")) < found.attempt:
        return Record(
            prefix, chosen, "no manifest", "the run has left no manifest: what it had acknowledged is fetched"
        )
    doubt = "" if status in _WHOLE else f"the run is {status}: its manifest lists what is missing"
    return Record(prefix, chosen, status, doubt)


def restore(record: Record, *, wire: Wire, settings: FetchSettings, room: Room, tally: Tally) -> None:
    """All files of *record*, proved, as the case of *room*, which must be empty or absent.

    Raises BadInput, MissingInput, NodeUnfit, AccessRefused, StoreUnreachable, Stopped; there is no case then.
    """
    packed = {entry.key: entry.size_bytes for entry in record.entries}
    unpacked_bytes = sum(entry.file[0] for entry in record.entries)
    Limits(max_bytes=settings.max_bytes, max_members=settings.max_members or 1 << 62, max_ratio=float("inf")).check(
        of=record.prefix, members=len(record.entries), unpacked_bytes=unpacked_bytes, packed_bytes=sum(packed.values())
    )
    stage = stages.enter(room.case, is_alone=False)
    try:
        there = _left_of(record.entries, stage)
        _refuse_too_large(record.entries, stage.path, there=there)
        bringer = Bringer(stage.path, overwrite=True, tally=tally)
        with Pool(name="read", width=_READERS) as readers, Pool(name="restore", width=_FILES_AT_ONCE) as files:
            bring = functools.partial(_bring, bringer=bringer, wire=wire, readers=readers, tally=tally)
            for _ in files.each(bring, _by_object(record.entries)):
                pass
        stage.become(room)
    finally:
        stage.leave()


def _left_of(entries: Sequence[Entry], stage: Stage) -> dict[str, int]:
    """Path → bytes of the files, and parts of files, that a killed attempt left here; all else it left goes. Raises NodeUnfit."""
    if stage.is_new:
        return {}
    names = {name for entry in entries for name in (entry.path, _part_of(entry.path))}
    there = {path: status for path, status in scan(stage.path, problems=[]) if path in names and is_ours_alone(status)}
    if not stage.clear(Snapshot.of((path, identity_of(status)) for path, status in there.items())):
        return {}
    return {path: status.st_size for path, status in there.items()}


def _part_of(path: str) -> str:
    directory, slash, name = path.rpartition("/")
    return f"{directory}{slash}{part_name(name)}"


def _refuse_too_large(entries: Sequence[Entry], stage: Path, *, there: Mapping[str, int]) -> None:
    """Raises NodeUnfit. A compressed file may be mostly holes: the disk tells."""
    try:
        free = volumes.space(stage)
    except OSError as error:
        raise errors.NodeUnfit(f"cannot look at {str(stage.parent)!r}: {error.strerror or error}") from error
    plain = [entry for entry in entries if entry.content is None or entry.content.is_bundled]
    need_bytes = sum(entry.file[0] - there.get(entry.path, 0) for entry in plain)
    if need_bytes > free.free_bytes or len(entries) > free.free_inodes:
        raise errors.NodeUnfit(
            f"the disk is too small: {len(entries):,} files of {need_bytes:,} bytes, {stage.parent} has room for "
            f"{free.free_inodes:,} and {free.free_bytes:,}"
        )


def _by_object(entries: Sequence[Entry]) -> list[list[Entry]]:
    groups: dict[str, list[Entry]] = {}
    for entry in entries:
        groups.setdefault(entry.key, []).append(entry)
    return [sorted(group, key=lambda entry: entry.content.offset if entry.content else 0) for group in groups.values()]


def _bring(group: Sequence[Entry], *, bringer: Bringer, wire: Wire, readers: Pool, tally: Tally) -> None:
    is_bundle = group[0].content is not None and group[0].content.is_bundled
    reader: Callable[[Wire, S3Url], ByteSource] = ranges.in_order if is_bundle else ranges.open_object
    opened = functools.lru_cache(maxsize=1)(reader)

    def proven(entry: Entry, take: Callable[[memoryview], None], start: int, begun: int) -> verify.Problem | None:
        return verify.proven(
            wire, entry, readers=readers, tally=tally, take=take, start=start, begun=begun, opened=opened
        )

    for entry in group:
        wire.stop.check()
        is_here = bringer.has(entry)
        problem = None if is_here else bringer.bring(entry, proven=proven)
        if problem is not None:
            raise _error_of(problem, entry, wire.line.bucket)
        tally.add(files=1, saved_bytes=entry.file[0] if is_here else 0)


def _error_of(problem: verify.Problem, entry: Entry, bucket: str) -> errors.ByosError:
    told = f"{S3Url(bucket, entry.key)}: {printable(os.fspath(problem.path))!r} is not what the run recorded: {problem.kind}"
    message = f"{told}: {problem.detail}" if problem.detail else told
    return errors.MissingInput(message) if problem.kind == "missing" else errors.BadInput(message)
