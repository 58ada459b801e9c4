"""A run's manifest against the bucket: is every output there, as it was acknowledged?

    manifest ─ entries ▶ what should be there          listing ▶ what is there
    not listed, and HEAD finds nothing    missing      listed and in no manifest                 extra
    another size                          size         another CRC-32 (or, without one, ETag)    checksum
    what the run itself could not send, or a name that leads elsewhere, is a finding too

The stored checksum is what the store computed when the object came; ``Reading`` computes it anew from the bytes. A store that
keeps no CRC-32 proves an object by the ETag that it acknowledged; one without either is "unproven" until it is read.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Callable

from byos_run import crc, errors
from byos_run.bucket import objects, ranges
from byos_run.bucket.objects import Listed
from byos_run.bucket.wire import Transient, Wire
from byos_run.errors import line_of, printable
from byos_run.model import ByteSource, S3Url, Tally
from byos_run.node.pool import Pool
from byos_run.steps.entries import Entry, entries_of

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
    elif asked.extra:
        problems += _extra(found, entries, prefix=prefix)
    prove, looks = asked.prove(prefix), []
    for entry in entries:
        listed = found.get(entry.key) if found is not None else None
        if listed is not None and listed.size_bytes != entry.size_bytes:
            problems.append(_wrong_size(entry, listed.size_bytes))
            tally.add(files=1)
        else:
            looks.append(entry)
    problems += [problem for problem in pool.each(prove, looks) if problem is not None]
    return Verified(
        prefix=prefix, status=status, exit_code=_number(manifest.get("exit_code")), outputs=len(entries),
        size_bytes=sum(entry.size_bytes for entry in entries),
        problems=tuple(sorted(problems, key=lambda problem: (problem.kind, problem.path))), notes=tuple(notes),
    )  # fmt: skip


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
    """By the bytes themselves."""

    def prove(entry: Entry) -> Problem | None:
        problem = proven(wire, entry, readers=readers, tally=tally, take=lambda _: None)
        tally.add(files=1)
        return problem

    return prove


def proven(
    wire: Wire,
    entry: Entry,
    *,
    readers: Pool,
    tally: Tally,
    take: Callable[[memoryview], None],
    start: int = 0,
    begun: int = 0,
) -> Problem | None:
    """Read *entry* from byte *start* on, hand each piece to *take* in order, and compare size and CRC-32 at the end.

    *begun*: the CRC-32 of the bytes before *start*. Returns what is wrong.
    """
    try:
        source = ranges.open_object(wire, S3Url(wire.line.bucket, entry.key))
        if source.size_bytes != entry.size_bytes:
            return _wrong_size(entry, source.size_bytes)
        found = begun
        for piece in _pieces(source, start=start, readers=readers):
            wire.stop.check()
            found = crc.crc32(piece, found)
            take(piece)
            tally.add(bytes_in=len(piece))
            source.release(piece)
    except errors.MissingInput:
        return Problem("missing", entry.path)
    except (errors.BadInput, errors.StoreRefused, errors.StoreUnreachable) as error:
        return _unreadable(entry, error)
    checksum = crc.base64_of(found)
    return None if checksum == entry.crc32 else _wrong_checksum(entry, checksum)


def _pieces(source: ByteSource, *, start: int, readers: Pool) -> Iterator[memoryview]:
    """The bytes from *start* on, in order; :data:`AHEAD` parts are on their way at once."""
    size = source.size_bytes
    places = iter(range(start, size, PART_BYTES))
    waiting: deque[Future[memoryview]] = deque()
    try:
        while True:
            while len(waiting) < AHEAD and (at := next(places, None)) is not None:
                waiting.append(readers.submit(source.read, at, min(PART_BYTES, size - at)))
            if not waiting:
                return
            yield waiting.popleft().result()
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


def _wrong_size(entry: Entry, found_bytes: int) -> Problem:
    return Problem("size", entry.path, f"{found_bytes} bytes, the manifest says {entry.size_bytes}")


def _wrong_checksum(entry: Entry, found: str) -> Problem:
    return Problem("checksum", entry.path, f"CRC-32 {found}, the manifest says {entry.crc32}")


def _number(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None
