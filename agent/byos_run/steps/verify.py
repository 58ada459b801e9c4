"""A run's manifest against the bucket: is every output there, as it was acknowledged?

    manifest ─ entries ▶ what should be there          listing ▶ what is there
    not listed, and HEAD finds nothing    missing      listed and in no manifest                 extra
    another size                          size         another CRC-32 (or, without one, ETag)    checksum
    what the run itself could not send, or a name that leads elsewhere, is a finding too

The stored checksum is what the store computed when the object came; ``reading`` computes it anew from the bytes. A store that
keeps no CRC-32 proves an object by the ETag that it acknowledged; one without either is "unproven" until it is read.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, replace
from typing import Any, Callable

from byos_run import crc, errors
from byos_run.archive.inflate import Damaged
from byos_run.bucket import objects, ranges
from byos_run.bucket.answers import Transient
from byos_run.bucket.objects import Listed
from byos_run.bucket.wire import Wire
from byos_run.errors import line_of, printable
from byos_run.model import ByteSource, S3Url, Tally
from byos_run.node.pool import Pool
from byos_run.steps.entries import Content, Entry, entries_of

PART_BYTES = 8 << 20
AHEAD = 4
"""Parts of one object that are read ahead of the one that is being looked at."""
_WHOLE = ("complete", "solver-failed")
_OWN = "_byos/"
_RUNDIR = "_byos/rundir/"


@dataclass(frozen=True)
class Problem:
    """Something that is not as the manifest says."""

    kind: str
    """missing | extra | size | checksum | unproven | refused | unpublished | unreadable."""
    path: str
    detail: str = ""


@dataclass(frozen=True)
class Verified:
    """What is known of one run."""

    prefix: S3Url
    status: str
    """The manifest's own; "running", "ended" or "unknown" where there is none."""
    exit_code: int | None
    outputs: int
    size_bytes: int
    problems: tuple[Problem, ...]
    notes: tuple[str, ...] = ()

    @property
    def is_whole(self) -> bool:
        return not self.problems


Prove = Callable[[Entry], "Problem | None"]
"""Looks at one object that should be there; called by many threads. Raises AccessRefused, StoreUnreachable, Stopped."""


@dataclass(frozen=True)
class Asked:
    """How a run is verified."""

    prove: Callable[[S3Url], Prove]
    """Made once for each run, whose prefix it is given."""
    extra: bool = True
    """Objects that no manifest lists are a finding."""
    each_file: bool = False
    """Files that share an object are looked at one by one, not by their object."""


def verify_run(
    wire: Wire, prefix: S3Url, manifest: Mapping[str, Any], *, asked: Asked, pool: Pool, tally: Tally
) -> Verified:
    """Compare the run of *prefix* with the bucket; *pool* runs the looks at single objects, the caller is not of it.

    Raises AccessRefused, StoreUnreachable, Stopped.
    """
    status = str(manifest.get("status") or "unknown")
    entries, refused = entries_of(manifest, prefix=prefix)
    problems = [Problem("refused", path, reason) for path, reason in refused]
    problems += _unpublished(manifest, status)
    notes = []
    found = _listing(wire, prefix)
    if found is None:
        notes.append(
            "the prefix cannot be listed with these credentials: objects that do not belong were not looked for"
        )
    else:
        problems += _extra(found, entries, prefix=prefix) if asked.extra else []
        if f"{prefix.key}_byos/purge.json" not in found:
            notes.append("there is no purge certificate: what was on the node may still be there")
    prove = asked.prove(prefix)

    def look(group: list[Entry]) -> list[Problem]:
        first = group[0]
        listed = found.get(first.key) if found is not None else None
        if listed is not None and listed.size_bytes != first.size_bytes:
            problem: Problem | None = _wrong_size(first, listed.size_bytes)
            tally.add(files=1)
        else:
            problem = prove(first)
        tally.add(files=len(group) - 1)
        return [replace(problem, path=entry.path) for entry in group] if problem else []

    groups = [[entry] for entry in entries] if asked.each_file else _by_object(entries)
    problems += [problem for found_in in pool.each(look, groups) for problem in found_in]
    return Verified(
        prefix=prefix, status=status, exit_code=_number(manifest.get("exit_code")), outputs=len(entries),
        size_bytes=sum(entry.file[0] for entry in entries),
        problems=tuple(sorted(problems, key=lambda problem: (problem.kind, problem.path))), notes=tuple(notes),
    )  # fmt: skip


def _by_object(entries: Iterable[Entry]) -> list[list[Entry]]:
    groups: dict[str, list[Entry]] = {}
    for entry in entries:
        groups.setdefault(entry.key, []).append(entry)
    return list(groups.values())


def without_manifest(prefix: S3Url, status: Mapping[str, Any]) -> Verified:
    """A run that has left no manifest, only heartbeats: it is still under way, or it died."""
    over = status.get("phase") == "over"
    told = "it ended without one" if over else f"it has not ended (its last heartbeat says {_phase_of(status)})"
    problem = Problem("missing", "_byos/manifest.json", f"there is no manifest: {told}")
    return Verified(prefix, "ended" if over else "running", _number(status.get("exit_code")), 0, 0, (problem,))


def _phase_of(status: Mapping[str, Any]) -> str:
    return repr(printable(str(status.get("phase", "nothing")))[:40])


def stored(wire: Wire, *, tally: Tally) -> Prove:
    """By what the store says of an object: size, and CRC-32 or ETag."""

    def prove(entry: Entry) -> Problem | None:
        wire.stop.check()
        try:
            facts = objects.head(wire, entry.key)
        except (errors.StoreUnreachable, errors.StoreRefused) as error:
            return _unreadable(entry, error)
        finally:
            tally.add(files=1)
        if facts is None:
            return Problem("missing", entry.path)
        if facts.size_bytes != entry.size_bytes:
            return _wrong_size(entry, facts.size_bytes)
        if facts.crc32:
            return None if facts.crc32 == entry.crc32 else _wrong_checksum(entry, facts.crc32)
        if entry.etag and facts.etag == entry.etag:
            return None
        return Problem(
            "unproven", entry.path, "the store keeps no CRC-32 of it, and its ETag is another; --read proves it"
        )

    return prove


def reading(wire: Wire, *, readers: Pool, tally: Tally) -> Prove:
    """By the bytes of the object themselves."""

    def prove(entry: Entry) -> Problem | None:
        problem = proven(wire, replace(entry, content=None), readers=readers, tally=tally, take=lambda _: None)
        tally.add(files=1)
        return problem

    return prove


def proven(
    wire: Wire, entry: Entry, *, readers: Pool, tally: Tally, take: Callable[[memoryview], None], start: int = 0,
    begun: int = 0, opened: Callable[[Wire, S3Url], ByteSource] = ranges.open_object,
) -> Problem | None:  # fmt: skip
    """Read the file of *entry*, hand what is after byte *start* to *take* in order, and compare size and CRC-32 at the end.

    *begun*: the CRC-32 of the bytes before *start*. *opened*: where several files share an object it need not be opened for each.
    Returns what is wrong.
    """
    (size_bytes, crc32), content = entry.file, entry.content
    try:
        source = opened(wire, S3Url(wire.line.bucket, entry.key))
        if source.size_bytes != entry.size_bytes:
            return _wrong_size(entry, source.size_bytes)
        if content is None:
            found, at, pieces = begun, start, _pieces(source, start=start, end=source.size_bytes, readers=readers)
        else:  # a frame cannot be entered in its middle
            end = content.offset + content.length if content.is_bundled else source.size_bytes
            packed = _pieces(source, start=content.offset, end=end, readers=readers)
            found, at, pieces = 0, 0, unpacked(packed, content)
        for piece in pieces:
            wire.stop.check()
            found, at = crc.crc32(piece, found), at + len(piece)
            if at > size_bytes:  # no more than was recorded is ever written
                return _wrong_size(entry, at, expected_bytes=size_bytes)
            take(piece[max(0, len(piece) - max(0, at - start)) :])
            tally.add(bytes_in=len(piece))
    except errors.MissingInput:
        return Problem("missing", entry.path)
    except Damaged as damage:
        return Problem("checksum", entry.path, f"the object {damage}")
    except (errors.BadInput, errors.StoreRefused, errors.StoreUnreachable) as error:
        return _unreadable(entry, error)
    if at != size_bytes:
        return _wrong_size(entry, at, expected_bytes=size_bytes)
    checksum = crc.base64_of(found)
    return None if checksum == crc32 else _wrong_checksum(entry, checksum)


def unpacked(packed: Iterator[memoryview], content: Content) -> Iterator[memoryview]:
    """The file that *packed*, its object or its frame of a bundle, holds. Raises Damaged."""
    from byos_run.archive.frames import zstd_pieces

    skip, left = content.skip_bytes, content.size_bytes
    for piece in zstd_pieces(packed, several=not content.is_bundled):
        view = memoryview(piece)[skip:]
        skip -= len(piece) - len(view)
        if content.is_bundled:  # what follows is the padding of a tar
            view, left = view[:left], left - min(left, len(view))
        yield view
        if content.is_bundled and not left:
            return


def _pieces(source: ByteSource, *, start: int, end: int, readers: Pool) -> Iterator[memoryview]:
    """The bytes from *start* to *end*, in order; :data:`AHEAD` parts are on their way at once."""
    places = iter(range(start, end, PART_BYTES))
    waiting: deque[Future[memoryview]] = deque()
    try:
        while True:
            while len(waiting) < AHEAD and (at := next(places, None)) is not None:
                waiting.append(readers.submit(source.read, at, min(PART_BYTES, end - at)))
            if not waiting:
                return
            piece = waiting.popleft().result()
            yield piece
            source.release(piece)
    finally:
        for future in waiting:
            future.cancel()


def _listing(wire: Wire, prefix: S3Url) -> dict[str, Listed] | None:
    """What lies below *prefix*, by key; None if that may not be asked."""
    try:
        return {item.key: item for item in objects.listed(wire, prefix.key)}
    except errors.AccessRefused as error:
        if error.error_code != "AccessDenied":
            raise
        return None


def _extra(found: Mapping[str, Listed], entries: Iterable[Entry], *, prefix: S3Url) -> list[Problem]:
    known = {entry.key for entry in entries}
    extra = []
    for key, item in found.items():
        inside = key[len(prefix.key) :]
        ours = inside.startswith(_OWN) and not inside.startswith(_RUNDIR)
        if key not in known and not ours and inside:
            extra.append(Problem("extra", inside, f"{item.size_bytes} bytes that the manifest does not list"))
    return extra


def _unpublished(manifest: Mapping[str, Any], status: str) -> list[Problem]:
    """What the run itself said it could not send; a run that is not whole says so even if it names nothing."""
    listed = manifest.get("unpublished")
    items = [item for item in listed if isinstance(item, dict)] if isinstance(listed, list) else []
    problems = [Problem("unpublished", str(item.get("path")), str(item.get("reason") or "")) for item in items]
    if status not in _WHOLE and not problems:
        problems.append(Problem("unpublished", "", f"the manifest says {status!r}: the run did not come to its end"))
    return problems


def _unreadable(entry: Entry, error: errors.ByosError) -> Problem:
    """The store answers, and keeps this object to itself; a store that does not answer at all ends the whole."""
    cause = error.__cause__
    if isinstance(error, errors.StoreUnreachable) and not (isinstance(cause, Transient) and cause.answered):
        raise error
    return Problem("unreadable", entry.path, line_of(error))


def _wrong_size(entry: Entry, found_bytes: int, *, expected_bytes: int | None = None) -> Problem:
    expected = entry.size_bytes if expected_bytes is None else expected_bytes
    return Problem("size", entry.path, f"{found_bytes} bytes, the manifest says {expected}")


def _wrong_checksum(entry: Entry, found: str) -> Problem:
    return Problem("checksum", entry.path, f"CRC-32 {found}, the manifest says {entry.crc32}")


def _number(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None
