"""What may be done below an output prefix, tried for real: write, read, delete, a multipart upload; and how fast.

    delete, abort     first, of what is not there: without these rights nothing is written, since it would have to stay
    write             a small object, its checksum echoed; once more with If-None-Match: must be refused
    read, delete      it comes back as it was, and goes
    multipart         create, parts of 1 MiB (at most 8, at most 1.5 s), abort

Whatever ends it, what it wrote is deleted again; only a kill between the two leaves ``_byos/probe-…``.
"""

from __future__ import annotations

import re
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from email.utils import parsedate_to_datetime

from byos_run import crc, errors
from byos_run.bucket import objects
from byos_run.bucket.answers import Answer
from byos_run.bucket.ranges import TAIL_BYTES, open_object
from byos_run.bucket.wire import Wire
from byos_run.model import Pool, S3Url

_BODY = b"byos-run was here\n"
_PIECE = b"\xb5" * (1 << 20)
_WRITE_PIECES = 8
_READ_BYTES = 16 << 20
_LONGEST_S = 1.5


@dataclass(frozen=True)
class Rate:
    """How fast bytes moved just now."""

    size_bytes: int
    seconds: float

    @property
    def bytes_per_s(self) -> float:
        return self.size_bytes / max(self.seconds, 1e-6)


class Probe:
    """Tries of one output prefix. Each raises AccessRefused, StoreRefused, StoreUnreachable, Stopped."""

    def __init__(self, wire: Wire, output: S3Url) -> None:
        self._wire = wire
        self._key = f"{output.key}_byos/probe-{uuid.uuid4().hex}"
        self.skew_s = 0.0
        """By how much the store's clock is ahead, once anything was answered."""

    def may_delete(self) -> None:
        answer = self._wire.request("DELETE", self._key)
        self._read_clock(answer)

    def may_abort(self) -> None:
        """An upload that is not there: 404 says that one might."""
        try:
            self._wire.request("DELETE", self._key, query=[("uploadId", uuid.uuid4().hex)])
        except errors.NoSuchObject:
            return
        except errors.StoreRefused as error:
            if error.error_code not in ("NoSuchUpload", "InvalidArgument", "InvalidRequest"):
                raise

    def write(self) -> tuple[bool, bool]:
        """A small object comes and goes: whether its checksum was echoed, and whether a conditional write was honoured."""
        checksum = crc.base64_of(crc.crc32(_BODY))
        headers = {**self._wire.line.write_headers, "content-type": "text/plain", "x-amz-checksum-crc32": checksum}
        try:
            answer = self._wire.request("PUT", self._key, headers=headers, body=_BODY)
            self._read_clock(answer)
            found = objects.get(self._wire, self._key)
            if found is None or found.body != _BODY:
                where = f"s3://{self._wire.line.bucket}/{self._key}"
                raise errors.StoreRefused(f"{where} was written and cannot be read back", status=answer.status)
            return answer.headers.get("x-amz-checksum-crc32", "") == checksum, self._is_conditional()
        finally:
            objects.delete(self._wire, self._key)

    def _is_conditional(self) -> bool:
        try:
            objects.put(self._wire, self._key, _BODY, if_none_match=True)
        except errors.ConditionFailed:
            return True
        except errors.StoreRefused:
            pass  # it does not know the header
        return False

    def multipart(self, pool: Pool) -> Rate:
        """An upload begun, sent in part, aborted."""
        wanted = {**self._wire.line.write_headers, "x-amz-checksum-algorithm": "CRC32"}
        answer = self._wire.request("POST", self._key, query=[("uploads", "")], headers=wanted)
        found = re.search(rb"<UploadId>([^<]+)</", answer.body)
        if not found:
            raise errors.StoreRefused(f"no UploadId for {self._key}", status=answer.status)
        upload_id = found[1].decode()
        started = time.monotonic()
        try:
            sent = list(pool.each(lambda number: self._send(upload_id, number), _while_short(_WRITE_PIECES, started)))
            return Rate(sum(sent), time.monotonic() - started)
        finally:
            self._wire.request("DELETE", self._key, query=[("uploadId", upload_id)])

    def _send(self, upload_id: str, number: int) -> int:
        self._wire.stop.check()
        query = [("partNumber", str(number + 1)), ("uploadId", upload_id)]
        summed = {"x-amz-checksum-crc32": crc.base64_of(crc.crc32(_PIECE))}
        self._wire.request("PUT", self._key, query=query, headers=summed, body=_PIECE)
        return len(_PIECE)

    def may_list(self) -> None:
        next(objects.listed(self._wire, self._key, page=1), None)

    def may_find_uploads(self) -> None:
        self._wire.request("GET", "", query=[("uploads", ""), ("prefix", self._key)])

    def _read_clock(self, answer: Answer) -> None:
        try:
            self.skew_s = parsedate_to_datetime(answer.headers["date"]).timestamp() - time.time()
        except (KeyError, TypeError, ValueError):
            self.skew_s = self._wire.line.clock.offset_s


def read_rate(wire: Wire, url: S3Url, pool: Pool) -> Rate:
    """Read up to 16 MiB of *url*. Raises MissingInput, AccessRefused, StoreUnreachable, Stopped."""
    started = time.monotonic()
    source = open_object(wire, url)
    ahead = max(0, min(_READ_BYTES, source.size_bytes - TAIL_BYTES))

    def read(number: int) -> int:
        length = min(len(_PIECE), ahead - number * len(_PIECE))
        source.release(source.read(number * len(_PIECE), length))
        return length

    moved = sum(pool.each(read, _while_short(-(-ahead // len(_PIECE)), started)))
    return Rate(moved + min(source.size_bytes, TAIL_BYTES), time.monotonic() - started)


def _while_short(count: int, started: float) -> Iterator[int]:
    """0, 1, … *count* - 1, for no longer than is worth it."""
    for number in range(count):
        if number and time.monotonic() - started > _LONGEST_S:
            return
        yield number
