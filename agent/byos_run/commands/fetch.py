"""``byos-run fetch s3://… DIRECTORY``: the stage-in alone, a drop-in for download-and-unzip on any node.

The same step as in a run: everything planned first, unpacked into a stage beside the directory, renamed onto it when all is
proved. A prefix that a run of ours wrote is read by its record. Nothing is claimed, recorded or purged, and ``config`` stays.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from byos_run import errors, log
from byos_run.archive.kinds import kind_of
from byos_run.book import Book
from byos_run.bucket import url as s3url
from byos_run.bucket.wire import Wire
from byos_run.commands.desk import desk
from byos_run.model import FetchSettings, Place, S3Url
from byos_run.node import cores, scratch
from byos_run.node.stop import Stop
from byos_run.steps.fetch import Fetcher, Input, fetched_line, locate
from byos_run.steps.settle import settle_fetch

if TYPE_CHECKING:
    from byos_run.commands.restore import Record

USAGE = """\
usage: byos-run fetch s3://BUCKET/KEY DIRECTORY [--store-KEY VALUE ...]
                      [--fetch-max-KEY VALUE ...]

Downloads and unpacks while it streams: .zip .tar .tar.gz .tgz .tar.zst .tar.bz2
.tar.xz; any other object becomes a file. A KEY that ends in "/" is a prefix;
where a run of ours has published, its outputs are brought as they were, bundles
and compressed ones unpacked, holes as holes: all, those below a directory, or
one KEY.zst. DIRECTORY must be empty or absent; it appears whole or not at all.
Killed and called again, it keeps what it had, proved, and fetches the rest.
Keys come from a config file in the working directory, the environment, or the
usual places.
"""
CODES = """
exit codes:
  0   everything is in DIRECTORY, checked
  64  command line wrong, or DIRECTORY is not empty
  65  input is damaged, hostile or of an unsupported kind; or it changed twice
      while being read
  66  input does not exist, or a prefix is empty
  69  store not reachable
  71  this machine: disk or inodes full
  75  stopped by a signal
  77  store refused the credentials or the permission
"""


def fetch(words: Sequence[str], *, place: Place, stop: Stop) -> int:
    """Raises ByosError."""
    if len(words) < 2 or words[0].startswith("-") or words[1].startswith("-"):
        raise errors.UsageError(
            ["fetch needs s3://BUCKET/KEY and DIRECTORY, in this order"], hint="byos-run fetch --help"
        )
    settings, store = settle_fetch(arguments=words[2:], place=place)
    try:
        source = s3url.parse(words[0])
    except ValueError as problem:
        raise errors.UsageError([f"the object to fetch: {problem}"]) from None
    room = _room(place.run_directory / words[1])
    with desk(store, place=place, stop=stop, descriptor=1) as here:
        book, wire_of = here.book, here.wire
        record = _record_of(source, wire_of(source.bucket))
        if record is not None:
            _restore(record, wire=wire_of(source.bucket), settings=settings, room=room, book=book)
            return 0
        inputs = locate([source], wire_of=wire_of)
        if told := _runs_in(source, inputs):
            book.warn(told)
        with (
            book.phase("fetch", total_bytes=sum(item.size_bytes for item in inputs)) as count,
            Fetcher(
                wire_of=wire_of, settings=settings, connections=store.connections, cores=cores.usable().count
            ) as fetcher,
        ):
            _, fetched = fetcher.fetch(inputs, room=room, tally=count, stop=stop)
        for text in (text for item in fetched for text in item.warnings):
            book.warn(text)
        for item in fetched:
            book.log.info(fetched_line(item))
    return 0


def _runs_in(source: S3Url, inputs: Sequence[Input]) -> str:
    """Above several runs each object is what it is: which file of which run it would be, two runs may say differently."""
    end = "_byos/manifest.json"
    runs = [str(item.url)[: -len(end)] for item in inputs if item.url.key.endswith(f"/{end}")]
    if not source.is_prefix or not runs:
        return ""
    return (
        f"{source} holds outputs of {log.count(len(runs), 'run')}: each object comes as it is, compressed and bundled ones too; "
        f"for the files of a run fetch its own prefix, {errors.printable(min(runs))}"
    )


def _record_of(source: S3Url, wire: Wire) -> Record | None:
    """What a run says of *source*, if it may be an output of one."""
    if kind_of(source.name):
        return None
    from byos_run.commands.restore import recorded  # an archive, which most fetch, is not to wait for it

    return recorded(wire, source)


def _restore(record: Record, *, wire: Wire, settings: FetchSettings, room: scratch.Room, book: Book) -> None:
    from byos_run.commands.restore import restore

    size_bytes = sum(entry.file[0] for entry in record.entries)
    if record.warning:
        book.warn(f"{record.prefix}: {record.warning}")
    with book.phase("fetch", total_bytes=size_bytes) as tally:
        restore(record, wire=wire, settings=settings, room=room, tally=tally)
    files = log.count(len(record.entries), "file")
    book.log.info(f"fetched the outputs of a run ({record.status}): {files}, {log.size(size_bytes)}, checked CRC-32")


def _room(directory: Path) -> scratch.Room:
    try:
        if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
            raise errors.UsageError([f"{str(directory)!r} is not an empty directory"])
        directory.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise errors.NodeUnfit(f"cannot make {str(directory)!r}: {error.strerror}") from error
    return scratch.Room(directory)
