"""Parallel ranged reads of one version of one object.

The first request is a suffix range: it brings size, ETag and the end of the object, where a zip keeps its directory. Every
later range carries ``If-Match`` with that ETag, so two versions never mix; status, ``Content-Range`` and length of each body are
checked; a body that was cut is asked for again from the missing byte on. A Range answer carries no checksum in S3, so
what proves the content is the archive's own CRC, or the length for a plain file.

Memory: one buffer per read in flight, kept for reuse.
"""

from __future__ import annotations

import functools
import re
import threading
from collections.abc import Mapping

from byos_run import errors
from byos_run.bucket.answers import Answer, Transient
from byos_run.bucket.buffers import Buffers
from byos_run.bucket.wire import Wire
from byos_run.model import S3Url

TAIL_BYTES = 1 << 20
_AHEAD_BYTES = 4 << 20
_IGNORED_RANGES = 3
"""How often an answer without the range asked for is put down to a fault on the way."""


class ObjectReader:
    """A ``model.ByteSource`` over *wire*. Made by :func:`open_object`."""

    def __init__(self, wire: Wire, *, url: S3Url, size_bytes: int, etag: str, version_id: str, tail: bytes) -> None:
        self._wire = wire
        self.url = url
        self.size_bytes = size_bytes
        self.etag = etag
        self.version_id = version_id
        self._tail = tail
        self._buffers = Buffers()

    def read(self, start: int, length: int) -> memoryview:
        """Exactly *length* bytes from *start*. See ``model.ByteSource.read``."""
        if length < 0 or start < 0 or start + length > self.size_bytes:
            raise errors.BadInput(f"{self.url}: bytes {start} to {start + length} asked for, it has {self.size_bytes}")
        if not length:
            return memoryview(b"")
        tail_start = self.size_bytes - len(self._tail)
        if start >= tail_start:
            return memoryview(self._tail)[start - tail_start : start - tail_start + length]
        whole = self._buffers.take(length)
        self._fill(whole, start)
        return whole

    def release(self, buffer: memoryview) -> None:
        self._buffers.give_back(buffer)

    def _fill(self, whole: memoryview, start: int) -> None:
        wire, done, ignored, last = self._wire, 0, 0, start + len(whole) - 1
        trials = wire.trials(f"GET {self.url}")
        while done < len(whole):
            wire.stop.check()
            first = start + done
            accept = functools.partial(self._accept, first=first, last=last)
            try:
                wire.attempt(
                    "GET", self.url.key, headers={"range": f"bytes={first}-{last}", "if-match": self.etag},
                    into=whole[done:], accept=accept,
                )  # fmt: skip
                return
            except Transient as error:
                done += error.received
                if error.received:
                    trials.progressed()
                trials.failed(error)
            except _WrongRange as error:
                ignored += 1
                if ignored > _IGNORED_RANGES:
                    raise errors.StoreRefused(f"{self.url}: {error}", status=200) from None
                trials.failed(Transient(str(error), answered=True))
            except errors.ConditionFailed:
                raise errors.InputChanged(f"{self.url} was replaced while it was being read") from None
            except errors.NoSuchObject:
                raise errors.MissingInput(f"{self.url} was deleted while it was being read") from None

    def _accept(self, status: int, headers: Mapping[str, str], *, first: int, last: int) -> None:
        expected = f"bytes {first}-{last}/{self.size_bytes}"
        found = headers.get("content-range", "")
        if status != 206 or found != expected:
            raise _WrongRange(f"asked for {expected!r}, the store answered {status} {found!r}")


class _WrongRange(Exception):
    """The answer is not the range that was asked for."""


def open_object(wire: Wire, url: S3Url) -> ObjectReader:
    """The newest version of *url*, pinned. Raises MissingInput, AccessRefused, StoreUnreachable, Stopped."""
    trials, ignored = wire.trials(f"GET {url}"), 0
    while True:
        try:
            answer = wire.attempt("GET", url.key, headers={"range": f"bytes=-{TAIL_BYTES}"}, accept=_accept_tail)
            return _reader_of(wire, url, answer)
        except Transient as error:
            trials.failed(error)
        except _WrongRange as error:
            ignored += 1
            if ignored > _IGNORED_RANGES:
                raise errors.StoreRefused(f"{url}: {error}", status=200) from None
            trials.failed(Transient(str(error), answered=True))
        except errors.NoSuchObject as error:
            raise missing(error, url) from None
        except errors.AccessRefused as error:
            raise refused(error, url) from None
        except errors.StoreRefused as error:
            if error.status == 416:  # an empty object has no range, in some stores
                return ObjectReader(wire, url=url, size_bytes=0, etag="", version_id="", tail=b"")
            raise


class InOrder:
    """Many small reads of an object, one after another, out of few large ones. Made by :func:`in_order`."""

    def __init__(self, source: ObjectReader) -> None:
        self._source = source
        self.url, self.size_bytes = source.url, source.size_bytes
        self.etag, self.version_id = source.etag, source.version_id
        self._lock = threading.Lock()
        self._start = 0
        self._held = memoryview(b"")

    def read(self, start: int, length: int) -> memoryview:
        """Exactly *length* bytes from *start*. See ``model.ByteSource.read``."""
        with self._lock:
            if start < self._start or start + length > self._start + len(self._held):
                ahead = max(length, min(_AHEAD_BYTES, self.size_bytes - start))
                self._held, self._start = self._source.read(start, ahead), start
            return self._held[start - self._start :][:length]

    def release(self, buffer: memoryview) -> None:
        """Nothing: others may read what it is a part of."""


def in_order(wire: Wire, url: S3Url) -> InOrder:
    """:func:`open_object`, for one reader that goes from the beginning to the end. Memory: 4 MiB."""
    return InOrder(open_object(wire, url))


def missing(error: errors.StoreAnswer, url: S3Url) -> errors.MissingInput:
    if error.error_code == "NoSuchBucket":
        return errors.MissingInput(f"{url}: bucket {url.bucket!r} does not exist")
    return errors.MissingInput(f"{url} does not exist: no key {url.key!r} in bucket {url.bucket!r}")


def refused(error: errors.AccessRefused, url: S3Url) -> errors.AccessRefused:
    """Without s3:ListBucket AWS answers 403 for a key that is not there."""
    if error.error_code in ("", "AccessDenied"):
        return errors.AccessRefused(
            error.message, hint=f"or {url} does not exist: without s3:ListBucket the store does not say",
            status=error.status, error_code=error.error_code,
        )  # fmt: skip
    return error


def _accept_tail(status: int, headers: Mapping[str, str]) -> None:
    length = int(headers.get("content-length", "-1"))
    if not 0 <= length <= TAIL_BYTES:  # a 200 of that length is the whole of a small object
        raise _WrongRange(f"asked for the last {TAIL_BYTES} bytes, the store answered {status} with {length} bytes")


def _reader_of(wire: Wire, url: S3Url, answer: Answer) -> ObjectReader:
    found = re.fullmatch(r"bytes (\d+)-(-?\d+)/(\d+)", answer.headers.get("content-range", ""))
    size_bytes = int(found.group(3)) if found else len(answer.body)
    if len(answer.body) != min(size_bytes, TAIL_BYTES):
        raise errors.StoreRefused(
            f"{url}: the store sent {len(answer.body)} bytes for the last {TAIL_BYTES} of {size_bytes}",
            status=answer.status,
        )
    return ObjectReader(
        wire, url=url, size_bytes=size_bytes, etag=answer.headers.get("etag", ""),
        version_id=answer.headers.get("x-amz-version-id", ""), tail=answer.body,
    )  # fmt: skip
