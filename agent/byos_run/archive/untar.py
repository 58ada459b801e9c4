"""A tar onto disk while it streams, one pass.

parallel ranges ─ in order ▶ a worker decodes the next batch of about 1 MiB ▶ this thread reads headers and writes files

Decoding and writing overlap; neither can be spread wider, for the stream has one order. Each entry is checked before
it is written, links are made when all files are there, and the stream is read to its end, codec's trailer included.

Memory ≤ 17 × 2 MiB of parts + 3 batches of at most 2 MiB + the codec's window + the set of paths (about 150 bytes an
entry).
"""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator
from concurrent.futures import wait
from dataclasses import dataclass, field

from byos_run.archive.inflate import PIECE_BYTES, Damaged, stream_pieces
from byos_run.archive.plan import AGAIN, Limits, Plan, Tree, check_link, refusal, safe_path
from byos_run.archive.stream import ReadAhead, cuts
from byos_run.archive.tar import DIRECTORY, FILE, LINK, Bytes, Entry, entries
from byos_run.archive.writer import Writer
from byos_run.errors import BadInput, NodeUnfit
from byos_run.model import ByteSource, Pool, Stop, Tally

_PART_BYTES = 2 << 20
_PARTS = 16
_BATCH_BYTES = 1 << 20


@dataclass
class Written:
    """What has been written so far."""

    tree: Tree
    members: int = 0
    files: int = 0
    bytes_out: int = 0
    regular: set[str] = field(default_factory=set)
    """Files that a hard link may lead to."""
    links: list[tuple[str, bytes]] = field(default_factory=list)


def untar(
    plan: Plan, source: ByteSource, *, into: int, readers: Pool, workers: Pool, tally: Tally, stop: Stop, limits: Limits
) -> Written:
    """Everything of the tar *source* below *into*. Raises BadInput, NodeUnfit, Stopped, what the source raises."""
    job = object()
    reads = ReadAhead(
        source, ((job, *cut) for cut in cuts(0, source.size_bytes, part_bytes=_PART_BYTES)), readers=readers,
        ahead=_PARTS, tally=tally, stop=stop,
    )  # fmt: skip
    reads.next_job()
    written = Written(Tree(plan.url))
    decoded = _ahead(stream_pieces(reads.chunks(job), kind=plan.kind), workers)
    try:
        with Writer(into, of=plan.url) as writer:
            stream = Bytes(decoded)
            for entry in entries(stream, of=plan.url):
                stop.check()
                _check(entry, written, limits, plan, packed_bytes=source.size_bytes)
                _write(entry, stream, written, writer, plan)
                tally.add(files=entry.kind != DIRECTORY, bytes_out=entry.size_bytes)
            for path, target in written.links:
                writer.link(path, target)
    except Damaged as error:
        raise BadInput(f"{plan.url}: {error}", hint=AGAIN) from None
    finally:
        decoded.close()
        reads.abandon()
    return written


def _ahead(pieces: Iterator[bytes], workers: Pool) -> Generator[bytes, None, None]:
    """*pieces*, of which a worker makes the next batch while this one is used."""

    def batch() -> list[bytes]:
        found, size = [], 0
        while size < _BATCH_BYTES and (piece := next(pieces, None)) is not None:
            found.append(piece)
            size += len(piece)
        return found

    coming = workers.submit(batch)
    try:
        while found := coming.result():
            coming = workers.submit(batch)
            yield from found
    finally:
        wait([coming])


def _check(entry: Entry, written: Written, limits: Limits, plan: Plan, *, packed_bytes: int) -> None:
    """Before it is written: is there room for it, is it allowed, is its place free."""
    total = written.bytes_out + entry.size_bytes
    written.members += 1
    limits.check(of=plan.url, members=written.members, unpacked_bytes=total, packed_bytes=packed_bytes)
    if limits.free_bytes and total > limits.free_bytes:
        raise NodeUnfit(
            f"{plan.url}: unpacks to more than the {limits.free_bytes} bytes that are free",
            hint="a node or scratch with more room is needed",
        )
    if entry.kind != DIRECTORY:
        written.tree.add_file(entry.path)
    elif entry.path:
        written.tree.add_directory(entry.path)
    if entry.kind == LINK:
        check_link(entry.path, entry.target, of=plan.url)


def _write(entry: Entry, stream: Bytes, written: Written, writer: Writer, plan: Plan) -> None:
    if entry.kind == DIRECTORY:
        writer.make_directory(entry.path)
        return
    written.files += 1
    written.bytes_out += entry.size_bytes
    if entry.kind == FILE:
        _write_file(entry, stream, writer, plan)
        written.regular.add(entry.path)
    elif entry.kind == LINK:
        written.links.append((entry.path, entry.target))
    else:
        to = safe_path(entry.target.decode("utf-8", "surrogateescape"), of=plan.url)
        if to not in written.regular:
            raise refusal(plan.url, entry.path, "is a hard link to no earlier file of this archive")
        writer.hard_link(entry.path, to)
        written.regular.add(entry.path)


def _write_file(entry: Entry, stream: Bytes, writer: Writer, plan: Plan) -> None:
    if entry.size_bytes <= PIECE_BYTES:
        content = stream.take(entry.size_bytes)
        if len(content) < entry.size_bytes:
            raise _cut_off(entry, plan)
        writer.write_file(entry.path, content, mode=entry.mode or 0o644, mtime_s=entry.mtime_s)
        return
    descriptor, done = writer.create(entry.path, mode=entry.mode or 0o644), 0
    try:
        for piece in stream.body(entry.size_bytes):
            writer.write(descriptor, piece, path=entry.path)
            done += len(piece)
        os.utime(descriptor, (entry.mtime_s, entry.mtime_s))
    finally:
        os.close(descriptor)
    if done < entry.size_bytes:
        raise _cut_off(entry, plan)


def _cut_off(entry: Entry, plan: Plan) -> BadInput:
    return refusal(plan.url, entry.path, "is cut off: the tar ends in it", hint="upload it again")
