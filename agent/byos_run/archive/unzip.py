"""A planned zip, or a plain file, onto disk: workers that read ahead, decode, check and write.

Each worker takes jobs, longest first, and keeps *ahead* parts in flight, those of its next job among them; it stops
at the declared size, and every member must prove size, CRC-32, end of stream and its local header. Links are made
when all files are there.

Memory ≤ W × ((A + 1) × P + 2 MiB) with W workers (at most 16), parts of P = 64 MiB / 3 W (at least 1 MiB, at most 4)
and A = 64 MiB / (W × P) - 1 parts ahead (at least 2, at most 7): at most 64 MiB are in flight, and that is all there
is of one member, be it 20 GiB. Plus the plan, about 150 bytes a member, and a codec window a worker; of lzma, xz and
zstd members over 8 MiB, whose windows may have 128 MiB, one is decoded at a time.
"""

from __future__ import annotations

import os
import stat
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import wait
from contextlib import nullcontext
from typing import NamedTuple

from byos_run.archive.inflate import PIECE_BYTES, Damaged, inflate_whole, member_pieces
from byos_run.archive.jobs import Jobs, Joint, Part, Run, Whole, Work, work_of_file, work_of_zip
from byos_run.archive.members import Members
from byos_run.archive.plan import Plan, check_link, refusal
from byos_run.archive.stream import ReadAhead
from byos_run.archive.writer import Writer
from byos_run.archive.zip import LOCAL, data_start
from byos_run.crc import crc32, crc32_combine
from byos_run.errors import BadInput
from byos_run.model import ByteSource, Pool, S3Url, Stop, Tally

IN_FLIGHT_BYTES = 64 << 20
_WORKERS = 16
_WIDE_WINDOWS = frozenset((14, 20, 93, 95))
_WIDE_BYTES = 8 << 20


class Ahead(NamedTuple):
    """How many workers read how far ahead."""

    workers: int
    part_bytes: int
    parts: int

    @classmethod
    def of(cls, width: int) -> Ahead:
        workers = min(width, _WORKERS)
        part_bytes = max(1 << 20, min(4 << 20, IN_FLIGHT_BYTES // (3 * workers)))
        return cls(workers, part_bytes, max(2, min(7, IN_FLIGHT_BYTES // (workers * part_bytes) - 1)))


class Unzip:
    """One unpacking. :meth:`run` is called once, by a thread of neither pool."""

    def __init__(
        self, plan: Plan, source: ByteSource, *, into: int, readers: Pool, tally: Tally, stop: Stop, ahead: Ahead,
        kept: Sequence[int] = b"",
    ):  # fmt: skip
        """*kept*: a byte for each member of a zip, 1 for those that stand in *into*, proved; empty: none does."""
        self.crc = 0
        """Of a plain file, once it is written."""
        self._plan = plan
        self._kept = kept or bytes(len(plan.zipped or ()))
        self._source = source
        self._into = into
        self._readers = readers
        self._tally = tally
        self._stop = stop
        self._ahead = ahead
        self._failed = threading.Event()
        self._wide = threading.Lock()
        self._joints: set[Joint] = set()
        self._links: list[tuple[str, bytes]] = []

    @property
    def _of(self) -> S3Url:
        return self._plan.url

    @property
    def _members(self) -> Members:
        assert self._plan.zipped is not None
        return self._plan.zipped

    def run(self, workers: Pool) -> None:
        """Everything of the plan, written and proved. Raises BadInput, NodeUnfit, what the source raises, Stopped."""
        with Writer(self._into, of=self._of) as writer:
            for path in self._plan.directory_paths():
                writer.make_directory(path)
            if self._plan.kind == "file" and not self._plan.total_bytes:
                writer.write_file(self._plan.path, b"", mode=0o644)
            self._decode(workers)
            for path, target in self._links:
                check_link(path, target, of=self._of)
                writer.link(path, target)
        self._tally.add(files=len(self._links))

    def _decode(self, workers: Pool) -> None:
        jobs = Jobs(self._work_of_plan())
        count = self._ahead.workers
        if self._plan.kind == "file":  # a prefix may hold thousands: no more workers than parts
            count = min(count, -(-self._plan.total_bytes // self._ahead.part_bytes))
        futures = [workers.submit(self._work, jobs) for _ in range(count)]
        try:
            wait(futures)
        finally:
            self._failed.set()
            wait(futures)
            for joint in self._joints:
                joint.close()
        errors = [error for future in futures if (error := future.exception()) is not None]
        if errors:
            raise next((error for error in errors if not isinstance(error, _Ended)), errors[0])

    def _work_of_plan(self) -> Iterator[Work]:
        plan, part_bytes = self._plan, self._ahead.part_bytes
        if plan.kind == "file":
            return work_of_file(path=plan.path, size_bytes=plan.total_bytes, part_bytes=part_bytes)
        return work_of_zip(self._members, part_bytes=part_bytes, workers=self._ahead.workers, kept=self._kept)

    def _work(self, jobs: Jobs) -> None:
        reads = ReadAhead(
            self._source, jobs.reads(part_bytes=self._ahead.part_bytes), readers=self._readers,
            ahead=self._ahead.parts, tally=self._tally, stop=self._stop,
        )  # fmt: skip
        try:
            with Writer(self._into, of=self._of) as writer:
                while not self._failed.is_set() and (job := reads.next_job()) is not None:
                    chunks = reads.chunks(job)
                    if isinstance(job, Run):
                        self._run_of_small(job, chunks, writer)
                    elif isinstance(job, Whole):
                        self._whole(job, chunks, writer)
                    else:
                        self._part(job, chunks, writer)
        except BaseException:
            self._failed.set()
            raise
        finally:
            reads.abandon()

    def _run_of_small(self, run: Run, chunks: Iterator[memoryview], writer: Writer) -> None:
        members, files, size = self._members, 0, 0
        for buffer in chunks:
            for i in range(run.first, run.last):
                if self._kept[i]:
                    continue
                data = self._data(i, buffer[members.offsets[i] - run.start : members.ends[i] - run.start])
                if not stat.S_ISDIR(members.modes[i]):
                    self._small(i, data, writer)
                    files += stat.S_ISREG(members.modes[i])
                    size += members.unpacked[i] if members.unpacked[i] <= PIECE_BYTES else 0
        self._tally.add(bytes_out=size, files=files)

    def _data(self, index: int, extent: memoryview) -> memoryview:
        """The member's packed bytes out of *extent*, which reaches from its header to the next."""
        start = data_start(self._members, index, extent, of=self._of)
        end = start + self._members.packed[index]
        if end > len(extent):
            raise self._refusal(index, "overlaps what follows it, as bombs do")
        return extent[start:end]

    def _small(self, index: int, data: memoryview, writer: Writer) -> None:
        members = self._members
        unpacked, method, mode = members.unpacked[index], members.methods[index], members.modes[index]
        if unpacked > PIECE_BYTES:
            self._pieces(index, iter((data,)), writer)
            return
        content: bytes | memoryview = data
        try:
            if method == 8:
                content = inflate_whole(data, unpacked_bytes=unpacked)
            elif method:
                content = b"".join(self._bounded(index, iter((data,))))
        except Damaged as error:
            raise self._refusal(index, str(error)) from None
        if len(content) != unpacked:
            raise self._refusal(index, f"unpacks to other than the {unpacked} bytes it claims")
        if crc32(content) != members.crcs[index]:
            raise self._refusal(index, "its CRC-32 is wrong: its bytes are damaged")
        if stat.S_ISLNK(mode):
            self._links.append((members.paths[index], bytes(content)))
        else:
            writer.write_file(members.paths[index], content, mode=mode, mtime_s=members.mtimes[index])

    def _whole(self, job: Whole, chunks: Iterator[memoryview], writer: Writer) -> None:
        self._pieces(job.member, self._packed(job.member, chunks), writer)
        self._tally.add(files=1)

    def _packed(self, index: int, chunks: Iterator[memoryview]) -> Iterator[memoryview]:
        """The member's packed bytes out of *chunks*, which begin with its header and may reach past its end."""
        left, extent = -1, self._members.ends[index] - self._members.offsets[index]
        for chunk in chunks:
            data = chunk
            if left < 0:
                start = data_start(self._members, index, chunk, of=self._of)
                left = self._members.packed[index]
                if start + left > extent:
                    raise self._refusal(index, "overlaps what follows it, as bombs do")
                data = chunk[start:]
            if left:
                yield data[:left]
            left -= min(left, len(data))

    def _bounded(self, index: int, packed: Iterator[memoryview]) -> Iterator[bytes]:
        """The member's content, no byte more than it claims. Raises Damaged, BadInput."""
        unpacked, method = self._members.unpacked[index], self._members.methods[index]
        left = unpacked
        for piece in member_pieces(packed, method=method, flags=self._members.flags[index], unpacked_bytes=unpacked):
            left -= len(piece)
            if left < 0:
                raise Damaged(f"unpacks to more than the {unpacked} bytes it claims")
            yield piece
        if left:
            raise Damaged(f"unpacks to less than the {unpacked} bytes it claims")

    def _pieces(self, index: int, packed: Iterator[memoryview], writer: Writer) -> None:
        members, crc = self._members, 0
        path = members.paths[index]
        wide = members.methods[index] in _WIDE_WINDOWS and members.unpacked[index] > _WIDE_BYTES
        descriptor = writer.create(path, mode=members.modes[index])
        try:
            with self._wide if wide else nullcontext():
                for piece in self._bounded(index, packed):
                    self._go_on()
                    crc = crc32(piece, crc)
                    writer.write(descriptor, piece, path=path)
                    self._tally.add(bytes_out=len(piece))
            os.utime(descriptor, (members.mtimes[index], members.mtimes[index]))
        except Damaged as error:
            raise self._refusal(index, str(error)) from None
        finally:
            os.close(descriptor)
        if crc != members.crcs[index]:
            raise self._refusal(index, "its CRC-32 is wrong: its bytes are damaged")

    def _part(self, job: Part, chunks: Iterator[memoryview], writer: Writer) -> None:
        joint = job.joint
        for buffer in chunks:
            self._go_on()
            with joint.lock:
                if joint.data_start is None:
                    self._begin(joint, buffer if job.start == joint.start else None, writer)
            assert joint.data_start is not None
            start = max(job.start, joint.data_start)
            end = min(job.start + job.size_bytes, joint.data_start + joint.size_bytes)
            if start < end:
                content = buffer[start - job.start : end - job.start]
                crc = crc32(content)
                writer.write_at(joint.descriptor, content, start - joint.data_start, path=joint.path)
                self._tally.add(bytes_out=end - start)
                self._finish(joint, start, end - start, crc)

    def _begin(self, joint: Joint, first: memoryview | None, writer: Writer) -> None:
        """Open *joint* and learn from its header, at the start of its *first* part, where the data begin."""
        if joint.index < 0:
            joint.descriptor, joint.data_start = writer.create(joint.path), 0
            self._joints.add(joint)
            return
        extent = self._members.ends[joint.index] - joint.start
        if first is None:  # a later part came first: no waiting for another worker
            length = min(extent, LOCAL.size + 2 * 65535)
            first = self._readers.submit(self._source.read, joint.start, length).result()
        start = data_start(self._members, joint.index, first, of=self._of)
        if start + joint.size_bytes > extent:
            raise self._refusal(joint.index, "overlaps what follows it, as bombs do")
        joint.descriptor = writer.create(joint.path, mode=self._members.modes[joint.index])
        joint.data_start = joint.start + start
        self._joints.add(joint)

    def _finish(self, joint: Joint, start: int, length: int, crc: int) -> None:
        """Note a part that is written; with the last one, prove the whole."""
        with joint.lock:
            joint.crcs.append((start, length, crc))
            joint.left_bytes -= length
            if joint.left_bytes:
                return
        whole = 0
        for _, part_length, part_crc in sorted(joint.crcs):
            whole = crc32_combine(whole, part_crc, part_length)
        if joint.index < 0:
            self.crc = whole
        else:
            if whole != self._members.crcs[joint.index]:
                raise self._refusal(joint.index, "its CRC-32 is wrong: its bytes are damaged")
            os.utime(joint.descriptor, (self._members.mtimes[joint.index], self._members.mtimes[joint.index]))
        joint.close()
        self._joints.discard(joint)
        self._tally.add(files=1)

    def _go_on(self) -> None:
        self._stop.check()
        if self._failed.is_set():
            raise _Ended

    def _refusal(self, index: int, why: str) -> BadInput:
        return refusal(self._of, self._members.paths[index], why)


class _Ended(Exception):
    """Another worker has failed; his error is the one to tell."""
