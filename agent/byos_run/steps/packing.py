"""Which outputs leave compressed or in a bundle, and the bytes of those.

    publish.compress    name.zst, frames of 4 MiB packed on several threads, holes without reading
    publish.bundle      files of at most 2 MiB, up to 64 MiB or 5,000 of them in one .tar.zst; wins over compress

Memory, at W = 4 threads that pack: 2 W + 1 frames or members and what they became, 80 MiB, for each of two streams.

A file that changes while it is read never reaches the bucket as if it were whole: the stream of a compressed one breaks off
before its end, a bundle leaves the file out, which then waits for another look.
"""

from __future__ import annotations

import errno
import os
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Callable, TypeVar

from byos_run import crc
from byos_run.archive import pack
from byos_run.archive.plan import NAME_BYTES
from byos_run.bucket.upload import FileChanged, LocalFile
from byos_run.model import Identity, Output, Packed, Pool
from byos_run.node.files import PACKED
from byos_run.node.globs import Globs

BUNDLES = "_byos/bundles/"
"""Below the output prefix."""
LARGEST_MEMBER_BYTES = 2 << 20
_BUNDLE_BYTES = 64 << 20
_BUNDLE_FILES = 5000
FEWEST_BESIDE = 50
"""A bundle that leaves beside the solver has at least so many files, or bytes of a full one."""
T = TypeVar("T")
W = TypeVar("W")


@dataclass(frozen=True)
class Packing:
    """What the job asks for."""

    compress: Globs
    bundle: Globs
    restarts: Globs
    """``resume.files``: a newer one must never wait until a bundle is full."""

    def stored(self, path: str, size_bytes: int) -> str:
        """``Output.stored`` for a file."""
        if size_bytes <= LARGEST_MEMBER_BYTES and self.bundle.matches(path) and not self.restarts.matches(path):
            return "bundle"
        packs = self.compress.globs and not path.endswith(PACKED) and self.compress.matches(path)
        # No file system that the object may come to, the store's own for one, has longer names.
        return "zstd" if packs and len(os.fsencode(path.rpartition("/")[2] + PACKED)) <= NAME_BYTES else ""


def bundles(outputs: Sequence[Output], *, only_full: bool) -> Iterator[list[Output]]:
    """*outputs* in lots, each for one bundle. *only_full*: a last lot of few files waits."""
    lot: list[Output] = []
    size_bytes = 0
    for output in outputs:
        if lot and (size_bytes + output.identity.size_bytes > _BUNDLE_BYTES or len(lot) == _BUNDLE_FILES):
            yield lot
            lot, size_bytes = [], 0
        lot.append(output)
        size_bytes += output.identity.size_bytes
    if lot and not (only_full and len(lot) < FEWEST_BESIDE):
        yield lot


class Compressed:
    """The stream of one file as zstd. *original* is known when the stream has ended."""

    def __init__(self, file: LocalFile, *, packers: Pool) -> None:
        self._file = file
        self._packers = packers
        self._frames = pack.Frames()
        self._hollow: dict[int, tuple[bytes, int]] = {}
        """What becomes of a hole, by its length."""
        self.original = Packed(0, "")

    def pieces(self) -> Iterator[bytes]:
        """Raises FileChanged, OSError."""
        size_bytes, places, whole = self._file.identity.size_bytes, list[pack.Place](), 0
        spans = ((at, min(pack.FRAME_BYTES, size_bytes - at)) for at in range(0, size_bytes, pack.FRAME_BYTES))
        frames = ((length, self._packers.submit(self._frame, at, length)) for at, length in spans)
        for length, (packed, checksum) in _ahead(frames, self._packers.width):
            whole = crc.crc32_combine(whole, checksum, length)
            places.append(pack.Place(len(packed), length))
            yield packed
        self._file.check()
        if not places:
            yield self._frames.frame(b"")
        yield pack.table(places)
        self.original = Packed(size_bytes, crc.base64_of(whole))

    def _frame(self, start: int, length: int) -> tuple[bytes, int]:
        is_hole = _is_hole(self._file.descriptor, start, length)
        if is_hole and length in self._hollow:
            return self._hollow[length]
        content = bytearray(length)
        if not is_hole:
            self._file.read_into(memoryview(content), start)
        made = self._frames.frame(content), crc.crc32(content)
        if is_hole:
            self._hollow[length] = made
        return made


def _is_hole(descriptor: int, start: int, length: int) -> bool:
    try:
        return os.lseek(descriptor, start, os.SEEK_DATA) >= start + length
    except OSError as error:
        return error.errno == errno.ENXIO  # no data up to the end; a file system that cannot tell says EINVAL


@dataclass(frozen=True)
class Put:
    """A file that went into a bundle."""

    output: Output
    identity: Identity
    member: pack.Member


@dataclass
class Bundle:
    """The stream of many files as one .tar.zst."""

    outputs: Sequence[Output]
    opened: Callable[[Output], tuple[int, Identity]]
    packers: Pool
    as_seen: bool
    """A file that is not as it was seen is left out."""
    put: list[Put] = field(default_factory=list)
    left_out: list[tuple[Output, str]] = field(default_factory=list)
    """With the reason."""
    _frames: pack.Frames = field(default_factory=pack.Frames)

    def pieces(self) -> Iterator[bytes]:
        """Raises FileChanged if no file could go in."""
        offset = 0
        frames = ((output, self.packers.submit(self._packed, output)) for output in self.outputs)
        for output, (identity, header_bytes, checksum, packed, why) in _ahead(frames, 2 * self.packers.width):
            if why:
                self.left_out.append((output, why))
                continue
            size_bytes = identity.size_bytes
            member = pack.Member(
                output.key_path, offset, len(packed), header_bytes, size_bytes, crc.base64_of(checksum)
            )
            self.put.append(Put(output, identity, member))
            offset += len(packed)
            yield packed
        if not self.put:
            raise FileChanged("no file of the bundle could be read as it was seen")
        yield self._frames.frame(pack.tar_end())
        yield pack.index([item.member for item in self.put])

    def _packed(self, output: Output) -> tuple[Identity, int, int, bytes, str]:
        try:
            descriptor, found = self.opened(output)
            identity = found.unless(output.identity)
        except OSError as error:
            return output.identity, 0, 0, b"", f"cannot be read: {error.strerror or error}"
        try:
            if self.as_seen and identity != output.identity:
                raise FileChanged("it changed after it was looked at")
            if identity.size_bytes > LARGEST_MEMBER_BYTES:
                raise FileChanged("it has become too large for a bundle")
            mode = os.fstat(descriptor).st_mode & 0o777
            header = pack.tar_header(
                output.key_path, size_bytes=identity.size_bytes, mtime_ns=identity.mtime_ns, mode=mode
            )
            entry = bytearray(len(header) + identity.size_bytes + pack.tar_padding(identity.size_bytes))
            entry[: len(header)] = header
            content, file = memoryview(entry)[len(header) :][: identity.size_bytes], LocalFile(descriptor, identity)
            file.read_into(content, 0)
            file.check()
        except FileChanged as why:
            return identity, 0, 0, b"", str(why)
        except OSError as error:
            return identity, 0, 0, b"", f"cannot be read: {error.strerror or error}"
        finally:
            os.close(descriptor)
        return identity, len(header), crc.crc32(content), self._frames.frame(entry), ""


def _ahead(futures: Iterator[tuple[W, Future[T]]], width: int) -> Iterator[tuple[W, T]]:
    """The results in their order; at most *width* + 1 are under way."""
    waiting: deque[tuple[W, Future[T]]] = deque()
    try:
        for item in futures:
            waiting.append(item)
            if len(waiting) > width:
                what, future = waiting.popleft()
                yield what, future.result()
        while waiting:
            what, future = waiting.popleft()
            yield what, future.result()
    finally:
        for _, future in waiting:
            future.cancel()
