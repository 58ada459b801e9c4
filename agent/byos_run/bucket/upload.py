"""A file into an object, acknowledged or not at all.

Up to 8 MiB: one PUT that carries the CRC-32 of the very buffer it sends; the store refuses anything else and echoes it. Larger:
parts of 16 MiB (more from 160 GiB on, so that 10,000 suffice), each with its CRC, and Complete carries the CRC of the whole,
combined from those of the parts, which the store checks. A lost answer to Complete is settled by HEAD. Where a
store keeps no CRC-32, its ETag (the MD5) proves, else the object is read back.

A file that changes while it is read gives :class:`FileChanged`, never an object: its identity is compared before and after, and
what was sent is what was summed, because both are one buffer. An upload that fails is aborted; one that a killed attempt
left is finished where its parts and the file are known to be as they were.

A stream (what is compressed while it leaves) is cut into parts as it comes; one that fits a part is a single PUT.

Memory: 8 MiB per file in flight + one part per thread of *parts*; a stream adds two parts.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import xml.etree.ElementTree as ET
from collections import deque
from collections.abc import Generator, Iterable, Iterator, Mapping
from concurrent.futures import FIRST_EXCEPTION, Future, wait
from dataclasses import dataclass
from typing import Callable, NamedTuple
from urllib.parse import unquote_plus

from byos_run import crc, errors
from byos_run.bucket import objects
from byos_run.bucket.answers import Answer, Transient
from byos_run.bucket.buffers import Buffers
from byos_run.bucket.wire import Wire
from byos_run.model import Identity, Pool, Tally
from byos_run.uploads import Begun, PartSent, Uploads

SINGLE_BYTES = 8 << 20
PART_BYTES = 16 << 20
MOST_PARTS = 10_000
_NO_FILE = Identity(0, 0, 0, 0)
"""A stream cannot be taken up again."""
_SENDS = 4
"""How often an object is sent whose acknowledgement does not agree."""
_ABORT_PATIENCE_S = 10.0
_GARBLED = ("MalformedXML", "InvalidRequest")
"""What stores say of a list of parts that was damaged on its way; MinIO reads it before it looks at its checksum."""
_WRONG_SUM = ("BadDigest", "XAmzContentChecksumMismatch")


class FileChanged(Exception):
    """The file is not what it was when it was looked at; look again."""


class NotAcknowledged(Exception):
    """The store has the object, but not as it was sent, or does not say."""


@dataclass(frozen=True)
class Acknowledged:
    """What the store has, proved."""

    size_bytes: int
    crc32: str
    etag: str


@dataclass(frozen=True)
class LocalFile:
    """An open file and what it was when it was looked at. The caller closes the descriptor."""

    descriptor: int
    identity: Identity

    def read_into(self, buffer: memoryview, offset: int) -> None:
        done = 0
        while done < len(buffer):
            count = os.preadv(self.descriptor, [buffer[done:]], offset + done)
            if not count:
                raise FileChanged("it became shorter")
            done += count

    def check(self) -> None:
        status = os.fstat(self.descriptor)
        if Identity(status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino) != self.identity:
            raise FileChanged("it changed while it was being read")


class _Span(NamedTuple):
    number: int
    offset: int
    length: int


class Uploader:
    """Sends files by *wire*; many at once, from any thread. *parts* runs the parts of large ones."""

    def __init__(
        self,
        wire: Wire,
        *,
        parts: Pool,
        part_bytes: int = 0,
        tally: Tally | None = None,
        uploads: Uploads | None = None,
    ) -> None:
        self._wire = wire
        self._parts = parts
        self._part_bytes = part_bytes
        self._tally = tally
        self._uploads = uploads
        self._buffers = Buffers()
        self._small_buffers = Buffers()
        """Apart, so that those of parts are only as many as there are parts in flight."""
        self._unheard: set[str] = set()
        """Keys with a Create that the store may have answered and nobody heard; kept until such uploads are aborted."""

    def send(
        self, file: LocalFile, key: str, *, headers: Mapping[str, str], hold: Callable[[], None] = lambda: None
    ) -> Acknowledged:
        """*hold* is called when the parts of a large file have left; it may wait, and raise FileChanged.

        Raises FileChanged, NotAcknowledged, StoreAnswer and kin, AccessRefused, StoreUnreachable, Stopped, OSError."""
        headers = {**self._wire.line.write_headers, **headers}
        single = file.identity.size_bytes <= SINGLE_BYTES
        for sends_left in reversed(range(_SENDS)):
            try:
                done = self._single(file, key, headers) if single else self._multipart(file, key, headers, hold)
                break
            except NotAcknowledged:
                if not sends_left:
                    raise
        return done

    def _single(self, file: LocalFile, key: str, headers: Mapping[str, str]) -> Acknowledged:
        buffer = self._small_buffers.take(file.identity.size_bytes)
        try:
            file.read_into(buffer, 0)
            file.check()
            return self._put(buffer, key, headers)
        finally:
            self._small_buffers.give_back(buffer)

    def _put(self, buffer: memoryview, key: str, headers: Mapping[str, str]) -> Acknowledged:
        checksum = crc.base64_of(crc.crc32(buffer))
        answer = self._wire.request("PUT", key, headers={**headers, "x-amz-checksum-crc32": checksum}, body=buffer)
        done = self._acknowledge(answer, key, buffer, checksum)
        self._count(done.size_bytes)
        return done

    def send_stream(
        self, pieces: Iterable[bytes], key: str, *, headers: Mapping[str, str], part_bytes: int
    ) -> Acknowledged:
        """An object of what *pieces* give, whose length nobody knows yet; what they raise ends it, and nothing is left of it.

        Raises what :meth:`send` does. Memory: a part for each thread of *parts*, and two more.
        """
        headers = {**self._wire.line.write_headers, **headers}
        parts = self._filled(pieces, part_bytes)
        try:
            first = next(parts)
            second = next(parts, None)
            if second is None:
                return self._put_whole(first, key, headers)
            return self._multipart_stream(itertools.chain((first, second), parts), key, headers)
        finally:
            parts.close()

    def _put_whole(self, buffer: memoryview, key: str, headers: Mapping[str, str]) -> Acknowledged:
        try:
            for sends_left in reversed(range(_SENDS)):
                try:
                    done = self._put(buffer, key, headers)
                    break
                except NotAcknowledged:
                    if not sends_left:
                        raise
        finally:
            self._buffers.give_back(buffer)
        return done

    def _filled(self, pieces: Iterable[bytes], part_bytes: int) -> Generator[memoryview, None, None]:
        """Buffers of *part_bytes*, the last one shorter; at least one. Who takes one gives it back."""
        buffer, filled = self._buffers.take(part_bytes), 0
        for piece in pieces:
            rest = memoryview(piece)
            while rest:
                fits = rest[: part_bytes - filled]
                buffer[filled : filled + len(fits)] = fits
                filled, rest = filled + len(fits), rest[len(fits) :]
                if filled == part_bytes:
                    yield buffer
                    buffer, filled = self._buffers.take(part_bytes), 0
        yield buffer[:filled]

    def _multipart_stream(self, parts: Iterator[memoryview], key: str, headers: Mapping[str, str]) -> Acknowledged:
        upload_id = self._begin(Begun(key, self._create(key, headers), _NO_FILE, 0)).upload_id
        sent: list[PartSent] = []
        waiting: deque[Future[PartSent]] = deque()
        try:
            for number, buffer in enumerate(parts, start=1):
                if buffer:
                    waiting.append(self._parts.submit(self._send_buffer, key, upload_id, number, buffer))
                if len(waiting) > self._parts.width:
                    sent.append(waiting.popleft().result())
            sent += [future.result() for future in waiting]
            done = self._complete(sum(part.length for part in sent), key, upload_id, sent)
        except BaseException:
            for future in waiting:
                future.cancel()
            wait(waiting)
            self._give_up(key, upload_id)
            raise
        self._over(key, upload_id)
        return done

    def _send_buffer(self, key: str, upload_id: str, number: int, buffer: memoryview) -> PartSent:
        try:
            return self._send_sum(key, upload_id, number, buffer)
        finally:
            self._buffers.give_back(buffer)

    def _acknowledge(self, answer: Answer, key: str, buffer: memoryview, checksum: str) -> Acknowledged:
        etag = answer.headers.get("etag", "")
        echoed = answer.headers.get("x-amz-checksum-crc32", "")
        if echoed != checksum:
            md5 = hashlib.md5(buffer, usedforsecurity=False).hexdigest()
            if echoed or etag.strip('"') != md5:
                self._read_back(key, len(buffer), checksum)
        return Acknowledged(len(buffer), checksum, etag)

    def _read_back(self, key: str, size_bytes: int, checksum: str) -> str:
        """The ETag of what the store has, once that is proved to be what was sent. Raises NotAcknowledged."""
        facts = objects.head(self._wire, key)
        if facts is None or facts.size_bytes != size_bytes:
            raise NotAcknowledged(f"the store says it has {facts.size_bytes if facts else 'no'} bytes of {size_bytes}")
        if facts.crc32 == checksum:
            return facts.etag
        found, position, buffer = 0, 0, self._buffers.take(min(size_bytes, PART_BYTES))
        try:
            while position < size_bytes:
                piece = buffer[: min(len(buffer), size_bytes - position)]
                ranged = {"range": f"bytes={position}-{position + len(piece) - 1}", "if-match": facts.etag}
                self._wire.request("GET", key, headers=ranged, into=piece)
                found = crc.crc32(piece, found)
                position += len(piece)
        finally:
            self._buffers.give_back(buffer)
        if crc.base64_of(found) != checksum:
            raise NotAcknowledged("what the store gives back is not what was sent")
        return facts.etag

    def _multipart(
        self, file: LocalFile, key: str, headers: Mapping[str, str], hold: Callable[[], None]
    ) -> Acknowledged:
        part_bytes = part_size(file.identity.size_bytes, self._part_bytes)
        begun = self._uploads.resumed(key, file.identity, part_bytes) if self._uploads else None
        if begun is None:
            begun = self._begin(Begun(key, self._create(key, headers), file.identity, part_bytes))
        try:
            sums = self._send_parts(file, begun)
            hold()
            file.check()
            done = self._complete(file.identity.size_bytes, key, begun.upload_id, sums)
        except BaseException:
            self._give_up(key, begun.upload_id)
            raise
        self._over(key, begun.upload_id)
        return done

    def _begin(self, begun: Begun) -> Begun:
        if self._uploads:
            self._uploads.begins(begun)
        return begun

    def _over(self, key: str, upload_id: str) -> None:
        if self._uploads:
            self._uploads.over(key, upload_id)

    def _give_up(self, key: str, upload_id: str) -> None:
        if self._abort(key, upload_id):
            self._over(key, upload_id)

    def _create(self, key: str, headers: Mapping[str, str]) -> str:
        wanted = {**headers, "x-amz-checksum-algorithm": "CRC32", "x-amz-checksum-type": "FULL_OBJECT"}
        trials = self._wire.trials(f"POST s3://{self._wire.line.bucket}/{key}")
        while True:
            try:
                answer = self._wire.attempt("POST", key, query=[("uploads", "")], headers=wanted)
                break
            except Transient as error:
                if not error.answered:
                    self._unheard.add(key)
                trials.failed(error)
        upload_id = _text(answer.body, "UploadId")
        if not upload_id:
            raise errors.StoreRefused(f"no UploadId for s3://{self._wire.line.bucket}/{key}", status=answer.status)
        if key in self._unheard or (self._uploads and self._uploads.follows_another):
            self._abort_unheard(key, keep=upload_id)
        return upload_id

    def _abort_unheard(self, key: str, *, keep: str) -> None:
        """Uploads of this very key whose Create was answered and not heard, or of an attempt that died then.

        Needs a listing; without it they stay.
        """
        hurried = self._wire.until(patience_s=_ABORT_PATIENCE_S)
        listing_query = [("uploads", ""), ("prefix", key), ("encoding-type", "url")]
        try:
            listing = hurried.request("GET", "", query=listing_query).body
        except errors.ByosError:
            return
        for item in ET.fromstring(listing).iterfind("{*}Upload"):  # noqa: S314 - expat stops entity expansion; the store is the user's
            upload_id = item.findtext("{*}UploadId") or keep
            if unquote_plus(item.findtext("{*}Key") or "", errors="surrogateescape") == key and upload_id != keep:
                self._abort(key, upload_id)
        self._unheard.discard(key)

    def _send_parts(self, file: LocalFile, begun: Begun) -> list[PartSent]:
        size_bytes, part_bytes = file.identity.size_bytes, begun.part_bytes
        spans = [
            _Span(at // part_bytes + 1, at, min(part_bytes, size_bytes - at)) for at in range(0, size_bytes, part_bytes)
        ]
        left = [span for span in spans if span.number not in begun.parts]
        futures = [self._parts.submit(self._send_part, file, begun, span) for span in left]
        try:
            wait(futures, return_when=FIRST_EXCEPTION)
        finally:
            for future in futures:
                future.cancel()
            wait(futures)
        failed = [future for future in futures if not future.cancelled() and future.exception()]
        sent = [future.result() for future in (failed or futures)]
        return sorted((*begun.parts.values(), *sent))

    def _send_part(self, file: LocalFile, begun: Begun, span: _Span) -> PartSent:
        if self._wire.stop.cut:
            self._wire.stop.check()
        buffer = self._buffers.take(span.length)
        try:
            file.read_into(buffer, span.offset)
            return self._send_sum(begun.key, begun.upload_id, span.number, buffer)
        finally:
            self._buffers.give_back(buffer)

    def _send_sum(self, key: str, upload_id: str, number: int, buffer: memoryview) -> PartSent:
        checksum = crc.crc32(buffer)
        query = [("partNumber", str(number)), ("uploadId", upload_id)]
        summed = {"x-amz-checksum-crc32": crc.base64_of(checksum)}
        try:
            answer = self._wire.request("PUT", key, query=query, headers=summed, body=buffer)
        except errors.NoSuchObject as error:
            if error.error_code != "NoSuchUpload":
                raise
            raise NotAcknowledged("the store has dropped the upload before it was complete") from None
        self._count(len(buffer))
        part = PartSent(number, answer.headers.get("etag", ""), checksum, len(buffer))
        if self._uploads:
            self._uploads.part_sent(upload_id, part)
        return part

    def _complete(self, size_bytes: int, key: str, upload_id: str, sums: list[PartSent]) -> Acknowledged:
        whole = 0
        for part in sums:
            whole = crc.crc32_combine(whole, part.crc32, part.length)
        expected = crc.base64_of(whole)
        headers = {
            "x-amz-checksum-crc32": expected,
            "x-amz-checksum-type": "FULL_OBJECT",
            "content-type": "application/xml",
        }
        trials, garbled = self._wire.trials(f"complete s3://{self._wire.line.bucket}/{key}"), 0
        while True:
            try:
                answer = self._wire.attempt(
                    "POST", key, query=[("uploadId", upload_id)], headers=headers, body=_complete_document(sums)
                )
                return self._completed(answer, key, size_bytes, expected)
            except Transient as error:
                if error.error_code in _WRONG_SUM:
                    raise NotAcknowledged(f"the store finds another checksum in the parts: {error}") from None
                trials.failed(error)
                found = objects.head(self._wire, key)
                if found and found.size_bytes == size_bytes and found.crc32 == expected:
                    return Acknowledged(found.size_bytes, expected, found.etag)
            except (errors.NoSuchObject, errors.StoreRefused) as error:
                if error.error_code in _GARBLED and garbled < _SENDS:
                    garbled += 1
                    trials.failed(Transient(f"the list of parts was not understood: {error}", answered=True))
                    continue
                # Completed before, and the answer was lost: 404 from MinIO, 400 InvalidPart while it still does so.
                if isinstance(error, errors.StoreRefused) and error.error_code != "InvalidPart":
                    raise
                etag = self._read_back(key, size_bytes, expected)
                return Acknowledged(size_bytes, expected, etag)

    def _completed(self, answer: Answer, key: str, size_bytes: int, expected: str) -> Acknowledged:
        if _text(answer.body, "Code"):  # 200 was sent before the work was done, as S3 may
            raise Transient(f"complete answered {_text(answer.body, 'Code')}", answered=True)
        if _text(answer.body, "ChecksumCRC32") != expected:
            self._read_back(key, size_bytes, expected)
        return Acknowledged(size_bytes, expected, _text(answer.body, "ETag"))

    def _abort(self, key: str, upload_id: str) -> bool:
        """Whether it is gone; if not, the cause of the failure is on its way up all the same."""
        hurried = self._wire.until(patience_s=_ABORT_PATIENCE_S)
        try:
            hurried.request("DELETE", key, query=[("uploadId", upload_id)])
        except errors.NoSuchObject:
            return True
        except errors.ByosError:
            return False
        return True

    def _count(self, size_bytes: int) -> None:
        if self._tally:
            self._tally.add(bytes_in=size_bytes)


def part_size(size_bytes: int, asked_bytes: int = 0) -> int:
    """Bytes of a part: *asked_bytes* or 16 MiB, more if 10,000 of them would not reach; whole MiB."""
    least = -(-size_bytes // MOST_PARTS)
    least = -(-least // (1 << 20)) << 20
    return max(asked_bytes or PART_BYTES, least)


def _complete_document(parts: list[PartSent]) -> bytes:
    root = ET.Element("CompleteMultipartUpload", xmlns="http://s3.amazonaws.com/doc/2006-03-01/")
    for part in parts:
        element = ET.SubElement(root, "Part")
        ET.SubElement(element, "ETag").text = part.etag
        ET.SubElement(element, "ChecksumCRC32").text = crc.base64_of(part.crc32)
        ET.SubElement(element, "PartNumber").text = str(part.number)
    return bytes(ET.tostring(root, encoding="utf-8"))


def _text(document: bytes, name: str) -> str:
    try:
        root = ET.fromstring(document)  # noqa: S314 - expat stops entity expansion; the store is the user's
    except ET.ParseError:
        return ""
    return root.findtext(f"{{*}}{name}") or ""
