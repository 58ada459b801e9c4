"""Settled outputs → acknowledged objects.

Files go out several at once, some of them compressed or bundled (``packing``), small ones as single PUTs, large ones in parts,
in order of worth. A file that changes while it is read is looked at and sent again; one that keeps changing, cannot be read,
or is refused is Unpublished, with the reason. When the store refuses the credentials as such or is gone past patience, the
rest is not tried but listed. Before the manifest, one sweep compares every size and ETag with what the bucket lists (or
HEAD says, where listing is not allowed); what differs is sent again.
"""

from __future__ import annotations

import math
import mimetypes
import os
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, Callable

from byos_run import errors
from byos_run.bucket import objects
from byos_run.bucket.upload import Acknowledged, FileChanged, LocalFile, NotAcknowledged, Uploader, part_size
from byos_run.bucket.wire import Wire
from byos_run.errors import line_of, printable
from byos_run.model import Identity, Output, Packed, Published, S3Url, Tally, Unpublished
from byos_run.node.pool import Budget, Pool, step_back
from byos_run.steps.ahead import AT_ONCE, Verdict
from byos_run.steps.packing import Bundle, Compressed, Put, bundles
from byos_run.uploads import Uploads

FILES_AT_ONCE = 16
"""A store answers a small PUT when its disk has it: 16 of them keep two cores busy where 8 wait (measured, MinIO)."""
PARTS_AT_ONCE = 4
BESIDE_SOLVER = 2
"""For each core that publishing may take."""
_PACKERS = 4
_STREAMS = 2
"""Streams that are packed at once; each keeps :data:`_PACKERS` threads busy."""
_STREAM_PART_BYTES = 8 << 20
_ZSTD = "application/zstd"
_LOOKS = 5
"""How often a file is looked at again that changed while it was being read."""
_SWEEPS = 3
"""Looks at the bucket: two may send again, the last one tells."""
_TEXT = (".log", ".out", ".in", ".echo")
_TYPES = mimetypes.MimeTypes()
"""The standard library's own table: what a node has in /etc does not change a run."""


@dataclass(frozen=True)
class Outcome:
    """What became of the outputs."""

    published: tuple[Published, ...]
    unpublished: tuple[Unpublished, ...]
    ended_by: errors.ByosError | None
    """What made the rest pointless: credentials refused, store gone, stopped."""

    def refusing(self, outputs: Iterable[Output]) -> Outcome:
        """The same, with *outputs* not tried: what ended this ends them too."""
        reason = line_of(self.ended_by) if self.ended_by else ""
        return Outcome((), tuple(Unpublished(output.path, reason) for output in outputs), self.ended_by)

    def after(self, before: Iterable[Published]) -> Outcome:
        """The same with what was acknowledged *before*."""
        return Outcome((*before, *self.published), self.unpublished, self.ended_by)


def _unnamed() -> str:
    raise AssertionError("a bundle needs a name")


class Publisher:
    """Sends outputs below one prefix. As a context manager: leaves no thread and no half upload."""

    def __init__(
        self,
        wire: Wire,
        *,
        prefix: S3Url,
        opened: Callable[[Output], tuple[int, Identity]],
        writer: tuple[str, str],
        tally: Tally,
        acknowledged: Callable[[Published], None] = lambda _: None,
        uploads: Uploads | None = None,
        part_bytes: int = 0,
        connections: int = 0,
        beside_solver: bool = False,
        budget: Budget | None = None,
        bundle_name: Callable[[], str] | None = None,
    ) -> None:
        """*opened* opens an output safely and says what it is; *writer* is the metadata that marks objects as ours;
        *acknowledged* hears of each at once, from any thread. *beside_solver*: few threads of low priority, and a file that is
        not as it was seen waits for another look. *budget* bounds what the threads take of the processors; *bundle_name*
        gives the next bundle's place below the prefix."""
        self._wire = wire
        self._prefix = prefix
        self._opened = opened
        self._writer = writer
        self._tally = tally
        self._acknowledged = acknowledged
        self._beside_solver = beside_solver
        beside = BESIDE_SOLVER * math.ceil(budget.cores) if budget else BESIDE_SOLVER
        width = min(beside, FILES_AT_ONCE) if beside_solver else connections or FILES_AT_ONCE
        prepare = step_back if beside_solver else None
        self._files = Pool(name="publish", width=width, prepare=prepare, budget=budget)
        self._parts = Pool(name="part", width=min(width, PARTS_AT_ONCE), prepare=prepare, budget=budget)
        self._packers = Pool(name="pack", width=min(width, _PACKERS), prepare=prepare, budget=budget)
        self._streams = threading.BoundedSemaphore(_STREAMS)
        self._bundle_name = bundle_name or _unnamed
        self._part_bytes = part_bytes
        self._ahead = Pool(name="ahead", width=AT_ONCE, prepare=prepare, budget=budget)
        self._uploader = Uploader(wire, parts=self._parts, part_bytes=part_bytes, tally=tally, uploads=uploads)
        self._ended_by: errors.ByosError | None = None

    def __enter__(self) -> Publisher:
        self._files.__enter__()
        self._ahead.__enter__()
        self._parts.__enter__()
        self._packers.__enter__()
        return self

    def __exit__(self, *failure: Any) -> None:
        self._files.__exit__(*failure)
        self._ahead.__exit__(*failure)
        self._parts.__exit__(*failure)
        self._packers.__exit__(*failure)

    def publish(self, outputs: Iterable[Output]) -> Outcome:
        """Send *outputs* in their order, bundles last. Does not raise: what failed is in the outcome."""
        published: list[Published] = []
        unpublished: list[Unpublished] = []
        for done in self._files.each(self._send, self._lots(outputs)):
            for item in done:
                (published if isinstance(item, Published) else unpublished).append(item)  # type: ignore[arg-type]
        return Outcome(tuple(published), tuple(unpublished), self._ended_by)

    def _lots(self, outputs: Iterable[Output]) -> Iterator[list[Output]]:
        """What travels in one object each."""
        bundled: list[Output] = []
        for output in outputs:
            if output.stored == "bundle":
                bundled.append(output)
            else:
                yield [output]
        yield from bundles(bundled, only_full=self._beside_solver)

    def begin(self, output: Output, verdict: Verdict) -> Future[list[Published | Unpublished]]:
        """Send a large file, but make no object of it before *verdict* says that it has settled."""
        return self._ahead.submit(self._send, [output], verdict)

    def _send(self, lot: list[Output], verdict: Verdict | None = None) -> list[Published | Unpublished]:
        if self._ended_by is not None:
            return _refused(lot, line_of(self._ended_by))
        try:
            self._wire.stop.check()
            if lot[0].stored == "bundle":
                return self._send_bundle(lot)
            return [self._send_settled(lot[0], verdict or _settled())]
        except (errors.AccessRefused, errors.StoreUnreachable, errors.Stopped) as error:
            if not _concerns_one_key(error):
                self._ended_by = error
            return _refused(lot, line_of(error))
        except (errors.ByosError, NotAcknowledged, FileChanged) as error:
            return _refused(lot, line_of(error))
        except OSError as error:
            return _refused(lot, f"cannot be read: {error.strerror or error}")

    def _send_settled(self, output: Output, verdict: Verdict) -> Published:
        key = self._prefix.key + output.key_path
        for looks_left in reversed(range(_LOOKS)):
            started = time.monotonic()
            descriptor, opened = self._opened(output)
            identity = opened.unless(output.identity)
            try:
                if self._beside_solver and identity != output.identity:
                    raise FileChanged("it changed after it was looked at")
                file, headers = LocalFile(descriptor, identity), self._headers(output, identity)
                done, packed = self._send_file(file, key, headers, stored=output.stored, hold=verdict.wait)
                self._tally.add(files=1, saved_bytes=packed.size_bytes - done.size_bytes if packed else 0)
                published = Published(
                    output=output, key=key, size_bytes=done.size_bytes, crc32=done.crc32, etag=done.etag,
                    identity=identity, seconds=time.monotonic() - started - verdict.waited_s, packed=packed,
                )  # fmt: skip
                self._acknowledged(published)
                return published
            except FileChanged:
                if self._beside_solver or not looks_left:
                    raise
            finally:
                os.close(descriptor)
        raise AssertionError("the last look returns or raises")

    def _send_file(
        self, file: LocalFile, key: str, headers: Mapping[str, str], *, stored: str, hold: Callable[[], None]
    ) -> tuple[Acknowledged, Packed | None]:
        if stored != "zstd":
            return self._uploader.send(file, key, headers=headers, hold=hold), None
        with self._streams:
            stream = Compressed(file, packers=self._packers)
            done = self._uploader.send_stream(
                stream.pieces(), key, headers={**headers, "content-type": _ZSTD},
                part_bytes=part_size(file.identity.size_bytes, self._part_bytes or _STREAM_PART_BYTES),
            )  # fmt: skip
            return done, stream.original

    def _send_bundle(self, lot: Sequence[Output]) -> list[Published | Unpublished]:
        started, key = time.monotonic(), self._prefix.key + self._bundle_name()
        name, value = self._writer
        with self._streams:
            bundle = Bundle(lot, self._opened, self._packers, as_seen=self._beside_solver)
            done = self._uploader.send_stream(
                bundle.pieces(), key, headers={f"x-amz-meta-{name}": value, "content-type": _ZSTD},
                part_bytes=self._part_bytes or _STREAM_PART_BYTES,
            )  # fmt: skip
        seconds = (time.monotonic() - started) / len(bundle.put)
        published = [_published(item, key=key, done=done, seconds=seconds) for item in bundle.put]
        self._tally.add(files=len(published), saved_bytes=sum(each.size_bytes for each in published) - done.size_bytes)
        for each in published:
            self._acknowledged(each)
        again = [output for output, _ in bundle.left_out]
        if self._beside_solver or not again:
            return [*published, *(Unpublished(output.path, why) for output, why in bundle.left_out)]
        # It changed while it was read; alone it is looked at as often as any other.
        return [*published, *(item for output in again for item in self._send([replace(output, stored="")]))]

    def _headers(self, output: Output, identity: Identity) -> dict[str, str]:
        name, value = self._writer
        seconds, rest_ns = divmod(abs(identity.mtime_ns), 10**9)
        kind, encoding = (
            ("text/plain", None) if output.path.endswith(_TEXT) else _TYPES.guess_type(printable(output.path))
        )
        return {
            # rclone's name and form for it, so that other tools restore the time as well
            "x-amz-meta-mtime": f"{'-' * (identity.mtime_ns < 0)}{seconds}.{rest_ns:09d}",
            f"x-amz-meta-{name}": value,
            "content-type": kind if kind and not encoding else "application/octet-stream",
        }

    def sweep(self, outcome: Outcome) -> Outcome:
        """Compare every published object with the bucket; send again what differs. Does not raise."""
        for sends_left in reversed(range(_SWEEPS)):
            if outcome.ended_by is not None:
                break
            try:
                wrong = self._differing(outcome.published)
            except errors.ByosError as error:
                return Outcome(outcome.published, outcome.unpublished, error)
            if not wrong:
                break
            again = self._again(wrong) if sends_left else _forgotten(wrong)
            right = tuple(item for item in outcome.published if item.key not in wrong)
            outcome = Outcome(right + again.published, outcome.unpublished + again.unpublished, again.ended_by)
        return outcome

    def _again(self, wrong: Mapping[str, Sequence[Published]]) -> Outcome:
        return self.publish([item.output for items in wrong.values() for item in items])

    def _differing(self, published: Sequence[Published]) -> dict[str, list[Published]]:
        """What is not in the bucket as it was acknowledged, by key: a bundle's members share theirs."""
        doubtful = {item.key: item for item in published}
        with suppress(errors.AccessRefused):
            for found in objects.listed(self._wire, self._prefix.key):
                item = doubtful.get(found.key)
                if item is not None and (found.size_bytes, found.etag) == (item.object_bytes, item.etag):
                    del doubtful[found.key]
        # A listing may lack a key (a backslash, "//"): HEAD has the last word.
        wrong: dict[str, list[Published]] = {
            item.key: [] for item, is_there in self._heads(list(doubtful.values())) if not is_there
        }
        for item in published if wrong else ():
            if item.key in wrong:
                wrong[item.key].append(item)
        return wrong

    def whole(self, published: Sequence[Published]) -> list[Published]:
        """Those of *published* that the bucket has as they were acknowledged, each object asked by a HEAD. Does not raise."""
        keys = {item.key: item for item in published}
        try:
            there = {item.key for item, is_there in self._heads(list(keys.values())) if is_there}
        except errors.ByosError:
            return []
        return [item for item in published if item.key in there]

    def _heads(self, published: Sequence[Published]) -> Iterator[tuple[Published, bool]]:
        for item, facts in self._files.each(lambda item: (item, objects.head(self._wire, item.key)), published):
            yield item, facts is not None and (facts.size_bytes, facts.etag) == (item.object_bytes, item.etag)


def _settled() -> Verdict:
    verdict = Verdict()
    verdict.give(settled=True)
    return verdict


def _concerns_one_key(error: errors.ByosError) -> bool:
    """A policy may refuse one key and allow the next; wrong or expired keys are refused everywhere."""
    return isinstance(error, errors.AccessRefused) and error.error_code == "AccessDenied"


def _forgotten(wrong: Mapping[str, Sequence[Published]]) -> Outcome:
    reason = "the store acknowledged it and does not have it"
    return Outcome((), tuple(Unpublished(item.output.path, reason) for items in wrong.values() for item in items), None)


def _refused(lot: Iterable[Output], reason: str) -> list[Published | Unpublished]:
    return [Unpublished(output.path, reason) for output in lot]


def _published(item: Put, *, key: str, done: Acknowledged, seconds: float) -> Published:
    """A member of a bundle that the store has."""
    member = item.member
    return Published(
        output=item.output, key=key, size_bytes=member.size_bytes, crc32=member.crc32, etag=done.etag,
        identity=item.identity, seconds=seconds,
        packed=Packed(
            member.size_bytes, member.crc32, object_bytes=done.size_bytes, object_crc32=done.crc32,
            offset=member.offset, length=member.packed_bytes, skip_bytes=member.skip_bytes,
        ),
    )  # fmt: skip
