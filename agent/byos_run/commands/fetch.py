"""``byos-run fetch s3://… DIRECTORY``: the stage-in alone, a drop-in for download-and-unzip on any node.

The same step as in a run: everything planned first, unpacked into a stage beside the directory, renamed onto it when all is
proved. Nothing is claimed, recorded or purged, and ``config`` stays.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Callable

from byos_run import errors, log
from byos_run.bucket import url as s3url
from byos_run.bucket.session import Session
from byos_run.model import Place
from byos_run.node import cores, scratch
from byos_run.node.pool import Count, Stop
from byos_run.steps.fetch import Fetcher, fetched_line, locate
from byos_run.steps.settle import settle_fetch

USAGE = """\
usage: byos-run fetch s3://BUCKET/KEY DIRECTORY [--store-KEY VALUE ...] [--fetch-max-KEY VALUE ...]

Downloads and unpacks while it streams: .zip .tar .tar.gz .tgz .tar.zst .tar.bz2 .tar.xz; any other object
becomes a file. A KEY that ends in "/" is a prefix. DIRECTORY must be empty or absent; it appears whole or
not at all. Keys come from a config file in the working directory, the environment, or the usual places.
"""


def fetch(words: Sequence[str], *, place: Place, stop: Stop, say: Callable[[str], None]) -> int:
    """Raises ByosError."""
    if len(words) < 2 or words[0].startswith("-") or words[1].startswith("-"):
        raise errors.UsageError(
            ["fetch needs s3://BUCKET/KEY and DIRECTORY, in this order"], hint="byos-run fetch --help"
        )
    settings, store = settle_fetch(arguments=words[2:], environ=place.environ)
    try:
        source = s3url.parse(words[0])
    except ValueError as problem:
        raise errors.UsageError([f"the object to fetch: {problem}"]) from None
    room = _room(place.run_directory / words[1])
    session = Session(settings=store, place=place)
    try:
        inputs = locate([source], wire_of=lambda bucket: session.wire(bucket, stop=stop))
        with Fetcher(
            wire_of=lambda bucket: session.wire(bucket, stop=stop), settings=settings, connections=store.connections,
            cores=cores.usable().count,
        ) as fetcher:  # fmt: skip
            _, fetched = fetcher.fetch(inputs, room=room, tally=Count(), stop=stop)
    finally:
        session.close()
    for item in fetched:
        for text in item.warnings:
            say(f"warning: {text}")
        say(fetched_line(item))
    if len(fetched) > 1:
        say(f"{log.count(len(fetched), 'object')} in {room.case}")
    return 0


def _room(directory: Path) -> scratch.Room:
    try:
        if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
            raise errors.UsageError([f"{str(directory)!r} is not an empty directory"])
        directory.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise errors.NodeUnfit(f"cannot make {str(directory)!r}: {error.strerror}") from error
    return scratch.Room(directory)
