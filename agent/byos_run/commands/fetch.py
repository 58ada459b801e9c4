"""``byos-run fetch s3://… DIRECTORY``: the stage-in alone, a drop-in for download-and-unzip on any node.

The same step as in a run: everything planned first, unpacked into a stage beside the directory, renamed onto it when all is
proved. A prefix that a run of ours wrote is read by its manifest. Nothing is claimed, recorded or purged, and ``config`` stays.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from byos_run import errors, log
from byos_run.book import Book
from byos_run.bucket import objects, ranges
from byos_run.bucket import url as s3url
from byos_run.bucket.session import Session
from byos_run.bucket.wire import Wire
from byos_run.errors import printable
from byos_run.model import Place, S3Url
from byos_run.node import cores, scratch, workspace
from byos_run.node.outlet import Outlet
from byos_run.node.pool import Pool, Stop
from byos_run.steps import verify
from byos_run.steps.bring import Bringer
from byos_run.steps.claim import parsed
from byos_run.steps.entries import Entry, entries_of
from byos_run.steps.fetch import Fetcher, fetched_line, locate
from byos_run.steps.settle import settle_fetch
from byos_run.steps.verify import Problem
from byos_run.terminal import Terminal

_LAST_WORDS_S = 5.0
_AT_ONCE = 8
_OBJECTS_OPEN = 64

USAGE = """\
usage: byos-run fetch s3://BUCKET/KEY DIRECTORY [--store-KEY VALUE ...]
                      [--fetch-max-KEY VALUE ...]

Downloads and unpacks while it streams: .zip .tar .tar.gz .tgz .tar.zst .tar.bz2
.tar.xz; any other object becomes a file. A KEY that ends in "/" is a prefix;
where a run of ours has published, its outputs are brought as they were, bundles
and compressed ones unpacked, holes as holes. DIRECTORY must be empty or absent;
it appears whole or not at all. Keys come from a config file in the working
directory, the environment, or the usual places.
"""


def fetch(words: Sequence[str], *, place: Place, stop: Stop) -> int:
    """Raises ByosError."""
    if len(words) < 2 or words[0].startswith("-") or words[1].startswith("-"):
        raise errors.UsageError(
            ["fetch needs s3://BUCKET/KEY and DIRECTORY, in this order"], hint="byos-run fetch --help"
        )
    settings, store = settle_fetch(arguments=words[2:], environ=place.environ)
    try:
        source = s3url.parse(words[0])
    except ValueError as problem:
        raise errors.UsageError([f"the object to fetch: {problem}"]) from None
    room = _room(place.run_directory / words[1])
    outlet = Outlet(1)
    book = Book(lines=log.Lines(outlet, terminal=Terminal(1, place.environ), volume=place.volume))
    session = Session(settings=store, place=place)
    session.tell = book.lines.detail

    def wire_of(bucket: str) -> Wire:
        return session.wire(bucket, stop=stop)

    try:
        manifest = _manifest_at(wire_of(source.bucket), source) if source.is_prefix else None
        if manifest is not None:
            _bring(wire_of(source.bucket), source, manifest, room=room, book=book)
            return 0
        inputs = locate([source], wire_of=wire_of)
        with (
            book.phase("fetch", total_bytes=sum(item.size_bytes for item in inputs)) as count,
            Fetcher(
                wire_of=wire_of, settings=settings, connections=store.connections, cores=cores.usable().count
            ) as fetcher,
        ):
            _, fetched = fetcher.fetch(inputs, room=room, tally=count, stop=stop)
        for text in (text for item in fetched for text in item.warnings):
            book.warn(text)
        for item in fetched:
            book.log.info(fetched_line(item))
    finally:
        session.close()
        outlet.close(within_s=_LAST_WORDS_S)
    return 0


def _manifest_at(wire: Wire, prefix: S3Url) -> Mapping[str, Any] | None:
    """That of the run whose output prefix this is, if it is one."""
    try:
        found = objects.get(wire, f"{prefix.key}_byos/manifest.json")
    except errors.AccessRefused:
        return None
    return parsed(found.body) if found else None


def _bring(wire: Wire, prefix: S3Url, manifest: Mapping[str, Any], *, room: scratch.Room, book: Book) -> None:
    """The outputs of a run, each proved by the CRC-32 of its manifest. Raises BadInput, and there is no directory then."""
    entries, refused = entries_of(manifest, prefix=prefix)
    for path, reason in refused[:1]:
        raise errors.BadInput(f"{prefix}: {printable(path)}: {reason}")
    stage, opened = scratch.make_stage(room.case, name=uuid.uuid4().hex), lru_cache(_OBJECTS_OPEN)(ranges.open_object)
    try:
        total_bytes = sum(entry.file[0] for entry in entries)
        with (
            book.phase("fetch", total_bytes=total_bytes) as count,
            Pool(name="read", width=_AT_ONCE) as readers,
            Pool(name="bring", width=_AT_ONCE) as bringing,
        ):
            bringer = Bringer(stage, overwrite=True, tally=count)

            def proven(entry: Entry, take: Callable[[memoryview], None], start: int, begun: int) -> Problem | None:
                return verify.proven(
                    wire, entry, readers=readers, tally=count, take=take, start=start, begun=begun, opened=opened
                )

            for problem in bringing.each(lambda entry: bringer.bring(entry, proven=proven), entries):
                if problem is not None:
                    said = f"{prefix}: {printable(problem.path)}: {problem.kind}"
                    raise errors.BadInput(f"{said}: {problem.detail}" if problem.detail else said)
        scratch.become(stage, room)
    finally:
        workspace.remove_tree(stage)
    files, status = log.count(len(entries), "file"), printable(str(manifest.get("status")))
    book.log.info(f"fetched the outputs of a run ({status}): {files}, {log.size(total_bytes)}, checked CRC-32")


def _room(directory: Path) -> scratch.Room:
    try:
        if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
            raise errors.UsageError([f"{str(directory)!r} is not an empty directory"])
        directory.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise errors.NodeUnfit(f"cannot make {str(directory)!r}: {error.strerror}") from error
    return scratch.Room(directory)
