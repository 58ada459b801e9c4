"""Ordered reads ahead: parts of an object, several in flight, consumed one after the other.

    (job, start, length) … ─ at most *ahead* submitted to the readers ▶ buffers in order ─ used ─ given back ▶ source

Memory: *ahead* × the longest part. Whoever consumes waits for the readers; a reader waits for nobody, so nothing can
lock up.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future
from typing import Generic, TypeVar

from byos_run.model import ByteSource, Pool, Stop, Tally

J = TypeVar("J")


class ReadAhead(Generic[J]):
    """The reads of one consumer. A job is any object; its reads must be neighbours in *reads*. For one thread."""

    def __init__(
        self,
        source: ByteSource,
        reads: Iterator[tuple[J, int, int]],
        *,
        readers: Pool,
        ahead: int,
        tally: Tally,
        stop: Stop,
    ) -> None:
        self._source = source
        self._reads = reads
        self._readers = readers
        self._ahead = ahead
        self._tally = tally
        self._stop = stop
        self._pending: deque[tuple[J, Future[memoryview]]] = deque()

    def next_job(self) -> J | None:
        """The job that the next buffer belongs to; None when all is read."""
        self._fill()
        return self._pending[0][0] if self._pending else None

    def chunks(self, job: J) -> Iterator[memoryview]:
        """The buffers of *job*, each valid until the next is asked for. Raises what ``ByteSource.read`` does."""
        while self._pending and self._pending[0][0] is job:
            self._stop.check()
            _, future = self._pending.popleft()
            self._fill()
            buffer = future.result()
            self._tally.add(bytes_in=len(buffer))
            yield buffer
            self._source.release(buffer)

    def abandon(self) -> None:
        """Drop what was asked for; reads that run end by themselves."""
        for _, future in self._pending:
            future.cancel()
        self._pending.clear()

    def _fill(self) -> None:
        while len(self._pending) < self._ahead:
            read = next(self._reads, None)
            if read is None:
                return
            job, start, length = read
            self._pending.append((job, self._readers.submit(self._source.read, start, length)))


def cuts(start: int, end: int, *, part_bytes: int) -> Iterator[tuple[int, int]]:
    """(start, length) of the parts that cover [*start*, *end*), cut where the object has a multiple of *part_bytes*.

    Stores keep an object in blocks (MinIO 1 MiB, S3 the parts of its upload) and read, check and count whole ones.
    """
    while start < end:
        cut = min(end, start - start % part_bytes + part_bytes)
        yield start, cut - start
        start = cut
