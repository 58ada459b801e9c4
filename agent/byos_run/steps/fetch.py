"""Input objects → files of the case.

Everything is planned before the first byte is written: what each archive holds, whether two inputs would write one path, whether
the disk has room. Then all is unpacked into a private stage beside the case, which is renamed onto the case when
every member has proved good; a failure leaves an empty case, a kill a stage of which the next fetch keeps what proves
right. An object that is replaced while it is read is started once more, on its new version. Last, files that the DOE
rendered into the run directory are copied over.
"""

from __future__ import annotations

import os
import shutil
import threading
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Callable

from byos_run import errors, log
from byos_run.archive.kinds import kind_of
from byos_run.archive.plan import Limits, Plan, merge_check, plan_file, safe_path
from byos_run.archive.unpack import plan_of, unpack_into
from byos_run.bucket import objects, ranges
from byos_run.bucket.wire import Wire
from byos_run.model import ByteSource, Fetched, FetchSettings, S3Url, Stop, Tally
from byos_run.node import stage as stages
from byos_run.node import volumes
from byos_run.node.globs import Globs
from byos_run.node.pool import Budget, Pool
from byos_run.node.scratch import Room
from byos_run.node.stage import Stage
from byos_run.node.tree import scan
from byos_run.steps import kept
from byos_run.steps.kept import Share

_CONNECTIONS_A_CORE = 4
_CONNECTIONS = (8, 32)
"""At least, at most. One connection to S3 brings some 40 MB/s of 2 MiB parts; more of them than a core can serve only wait."""
FILES_AT_ONCE = 8
_INODES_KEPT = 100
_CHECKED = dict.fromkeys(("zip", "tar.gz", "tar.bz2"), ", checked CRC-32")
"""What the archive itself proves; a tar has no checksum of contents, xz and zstd may have one or none."""
_BYTES_KEPT = 16 << 20
"""Room that is left to the logs and the journal."""
_NOTHING = Share()


@dataclass(frozen=True)
class Input:
    """One object that the run reads, found before the claim."""

    url: S3Url
    path: str
    """Where a plain file goes in the case; "" for an archive, which brings its own paths."""
    size_bytes: int
    etag: str
    version_id: str
    source: ByteSource | None = field(default=None, repr=False, compare=False)
    """An archive as it was when it was found, its end at hand: planned from that, and never read twice."""


def locate(urls: Sequence[S3Url], *, wire_of: Callable[[str], Wire]) -> list[Input]:
    """The objects behind *urls*, prefixes listed. Raises MissingInput, AccessRefused, StoreUnreachable, Stopped."""
    found: list[Input] = []
    for url in urls:
        wire = wire_of(url.bucket)
        found += _below(wire, url) if url.is_prefix else [_single(wire, url)]
    return found


def _single(wire: Wire, url: S3Url) -> Input:
    source = ranges.open_object(wire, url)
    archive = bool(kind_of(url.name))
    found = Input(url, "" if archive else url.name, source.size_bytes, source.etag, source.version_id)
    return replace(found, source=source) if archive else found


def _below(wire: Wire, url: S3Url) -> list[Input]:
    try:
        items = [item for item in objects.listed(wire, url.key) if not item.key.endswith("/")]
    except errors.NoSuchObject as error:
        raise ranges.missing(error, url) from None
    if not items:
        raise errors.MissingInput(f"{url} holds no objects", hint="is the prefix spelled as in the bucket?")
    return [
        Input(
            S3Url(url.bucket, item.key),
            "" if kind_of(item.key) else item.key[len(url.key) :],
            item.size_bytes,
            item.etag,
            "",
        )
        for item in items
    ]


class Fetcher:
    """Brings inputs into the case. As a context manager: leaves no thread."""

    def __init__(
        self, *, wire_of: Callable[[str], Wire], settings: FetchSettings, connections: int, cores: int
    ) -> None:
        self.wire_of = wire_of
        self.settings = settings
        budget = Budget(max(1, cores))
        self.readers = Pool(name="read", width=connections or _connections(cores), budget=budget)
        self.workers = Pool(name="unpack", width=max(1, cores), budget=budget)
        self._files = Pool(name="fetch", width=FILES_AT_ONCE)

    def __enter__(self) -> Fetcher:
        return self

    def __exit__(self, *failure: object) -> None:
        for pool in (self._files, self.workers, self.readers):
            pool.__exit__(None, None, None)

    def fetch(
        self, inputs: Sequence[Input], *, room: Room, tally: Tally, stop: Stop, is_alone: bool = False
    ) -> tuple[Room, list[Fetched]]:
        """All *inputs*, proved, in the case of *room*, which must be empty or absent.

        *is_alone*: no other process fetches there, for certain. Raises BadInput, MissingInput, NodeUnfit (no room),
        UsageError (another process fetches there), AccessRefused, StoreUnreachable, Stopped; there is no case then.
        """
        try:
            return self._fetch(inputs, room=room, tally=tally, stop=stop, is_alone=is_alone)
        except errors.InputChanged:
            inputs = [replace(item, source=None) for item in inputs]
            return self._fetch(inputs, room=room, tally=tally, stop=stop, is_alone=is_alone)

    def _fetch(
        self, inputs: Sequence[Input], *, room: Room, tally: Tally, stop: Stop, is_alone: bool
    ) -> tuple[Room, list[Fetched]]:
        stage = stages.enter(room.case, is_alone=is_alone)
        try:
            fetched = self._fill(stage, inputs, tally=tally, stop=stop)
            return stage.become(room), fetched
        except OSError as error:
            raise _unwritable(error, stage.path) from error
        finally:
            stage.leave()

    def _fill(self, stage: Stage, inputs: Sequence[Input], *, tally: Tally, stop: Stop) -> list[Fetched]:
        planned = [self._planned(item, free=volumes.space(stage.path)) for item in inputs]
        plans = [plan for _, plan in planned]
        merge_check(plans)
        pinned = [(plan, item.etag, item.version_id) for plan, item in zip(plans, inputs)]
        shares = kept.keep(stage, pinned, workers=self.workers, tally=tally, stop=stop)
        refuse_too_large(plans, free=volumes.space(stage.path), where=stage.path, there=shares.values())
        bring = _Bring(self, planned, stage=stage, shares=shares, tally=tally, stop=stop)
        fetched = [bring(item) for item in inputs if not item.path]
        fetched += self._files.each(bring, [item for item in inputs if item.path])
        return fetched

    def _planned(self, item: Input, *, free: volumes.Space) -> tuple[ByteSource | None, Plan]:
        """Plain files are opened when it is their turn: a prefix may hold thousands."""
        if item.path:
            path = safe_path(item.path, of=item.url)
            return None, Plan(item.url, "file", 1, 0, item.size_bytes, exact=True, path=path)
        source = item.source or ranges.open_object(self.wire_of(item.url.bucket), item.url)
        return source, plan_of(source, limits=Limits.of(self.settings, free_bytes=free.free_bytes))


class _Bring:
    """Brings one input after another into *stage*, but for the *shares* that are there."""

    def __init__(
        self,
        fetcher: Fetcher,
        planned: Sequence[tuple[ByteSource | None, Plan]],
        *,
        stage: Stage,
        shares: Mapping[S3Url, Share],
        tally: Tally,
        stop: Stop,
    ) -> None:
        self._fetcher = fetcher
        self._planned = {plan.url: (source, plan) for source, plan in planned}
        self._plans = [plan for _, plan in planned]
        self._stage = stage
        self._shares = shares
        self._noting = threading.Lock()
        self._tally = tally
        self._stop = stop

    def __call__(self, item: Input) -> Fetched:
        started, fetcher = time.monotonic(), self._fetcher
        source, plan = self._planned[item.url]
        share = self._shares.get(item.url, _NOTHING)
        if source is None and share.files:
            return Fetched(
                url=item.url, etag=item.etag, version_id=share.version_id, is_archive=False, members=1, kept=1,
                bytes_in=item.size_bytes, bytes_out=item.size_bytes, kept_bytes=item.size_bytes, seconds=0.0,
            )  # fmt: skip
        if source is None:
            source = ranges.open_object(fetcher.wire_of(item.url.bucket), item.url)
            plan = plan_file(source, path=item.path)
        free = os.fstatvfs(self._stage.fd)
        done = unpack_into(
            plan, source, into=self._stage.fd, readers=fetcher.readers, workers=fetcher.workers, tally=self._tally,
            stop=self._stop, limits=Limits.of(fetcher.settings, free_bytes=free.f_bavail * free.f_frsize),
            beside=self._plans, kept=share.flags,
        )  # fmt: skip
        if plan.kind == "file":
            with self._noting:
                kept.note(
                    self._stage, url=source.url, etag=source.etag, version_id=source.version_id, crc=done.crc,
                    size_bytes=source.size_bytes,
                )  # fmt: skip
        return Fetched(
            url=source.url, etag=source.etag, version_id=source.version_id, is_archive=plan.kind != "file",
            members=done.files, bytes_in=source.size_bytes, bytes_out=done.bytes_out, seconds=time.monotonic() - started,
            warnings=done.warnings, kept=share.files, kept_bytes=share.size_bytes,
        )  # fmt: skip


def _connections(cores: int) -> int:
    least, most = _CONNECTIONS
    return max(least, min(most, _CONNECTIONS_A_CORE * cores))


def as_read(inputs: Sequence[Input], fetched: Sequence[Fetched]) -> list[tuple[S3Url, str, str]]:
    """URL, ETag and version of each: an input that was replaced since it was located makes another run."""
    read = {str(item.url): item.etag for item in fetched}
    return [(item.url, read.get(str(item.url), item.etag), item.version_id) for item in inputs]


def keys_of(fetched: Sequence[Fetched], *, asked: Sequence[S3Url]) -> list[tuple[S3Url, str, str]]:
    """What :func:`as_read` gave, long after; *asked*: ``Job.input``, since a prefix was listed without versions."""
    return [(item.url, item.etag, item.version_id if item.url in asked else "") for item in fetched]


def refuse_too_large(plans: Sequence[Plan], *, free: volumes.Space, where: Path, there: Collection[Share] = ()) -> None:
    """Raises NodeUnfit before the first byte if the disk cannot hold what the archives say they hold and is not *there*."""
    need_bytes = sum(plan.total_bytes for plan in plans) - sum(share.size_bytes for share in there) + _BYTES_KEPT
    need_inodes = (
        sum(plan.files + plan.directories for plan in plans) - sum(share.files for share in there) + _INODES_KEPT
    )
    if need_bytes > free.free_bytes:
        raise errors.NodeUnfit(
            f"the disk is too small: the input unpacks to {need_bytes:,} bytes, {where.parent} has {free.free_bytes:,} free",
            hint="choose a larger disk, or a scratch with more room",
        )
    if need_inodes > free.free_inodes:
        raise errors.NodeUnfit(
            f"the input holds {need_inodes:,} files, {where.parent} has {free.free_inodes:,} inodes free"
        )


def _unwritable(error: OSError, where: Path) -> errors.ByosError:
    return errors.NodeUnfit(f"cannot unpack below {where.parent}: {error.strerror or error}")


def copy_local(settings: FetchSettings, *, run_directory: Path, case: Path, ours: Collection[str] = ()) -> list[str]:
    """Copy the files that ``fetch.local`` names over the case; returns their paths. Raises NodeUnfit.

    *ours*: paths that no glob takes, ``config`` above all: the solver would see it, and ``publish.what = "all"`` send it.
    """
    if not settings.local:
        return []
    wanted = Globs.of(settings.local)
    inside = [str(case.relative_to(run_directory))] if run_directory in case.parents else []
    found = sorted(
        path for path, _ in scan(run_directory, skip={".byos", *ours, *inside}, problems=[]) if wanted.matches(path)
    )
    for path in found:
        target = case / path
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            if case.resolve() not in target.resolve().parents:
                raise errors.NodeUnfit(f"fetch.local: {path} would be written outside the case, through a link in it")
            _copy(run_directory / path, target)
        except OSError as error:
            raise errors.NodeUnfit(f"fetch.local: {path} cannot be copied: {error.strerror or error}") from error
    return found


def _copy(source: Path, target: Path) -> None:
    """Beside the target first: a file that stands there, or a link, is replaced, never written through."""
    fresh = target.with_name(f".{target.name}.byos-copy")
    shutil.copyfile(source, fresh)
    shutil.copymode(source, fresh)
    os.replace(fresh, target)


def fetched_line(item: Fetched) -> str:
    """What is said of *item*: ``fetched hsdi.zip: 2,018 files, 320 MB from 174 MB in 0.9 s (355 MB/s), checked CRC-32``."""
    name, took = item.url.name, f"in {log.duration(item.seconds)}"
    if not item.is_archive and item.kept:
        return f"fetched {name}: {log.size(item.bytes_in)}, kept from the attempt before"
    if not item.is_archive:
        return f"fetched {name}: {log.size(item.bytes_in)} {took} ({log.rate(item.bytes_in, item.seconds)})"
    moved_bytes = item.bytes_out - item.kept_bytes
    rate = f" ({log.rate(moved_bytes, item.seconds)})" if moved_bytes or not item.kept else ""
    return (
        f"fetched {name}: {log.count(item.members, 'file')}, {log.size(item.bytes_out)} from {log.size(item.bytes_in)} "
        f"{took}{rate}{_CHECKED.get(kind_of(name) or '', '')}"
        f"{f', {item.kept:,} kept from the attempt before' if item.kept else ''}"
    )
