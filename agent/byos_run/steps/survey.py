"""Which runs lie below a prefix: a run is where ``_byos/`` is.

    look at the prefix itself; it is a run: that is all
    else look at each prefix one level below, many at once; what is none is listed in its turn, level by level

Nothing below a run is looked at, so outputs are never listed here. Not promised: runs deeper than :data:`_LEVELS` levels.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Callable, TypeVar

from byos_run import errors
from byos_run.bucket import objects, ranges
from byos_run.bucket import url as s3url
from byos_run.bucket.wire import Wire
from byos_run.model import S3Url
from byos_run.node.pool import Pool

T = TypeVar("T")
_LEVELS = 8


def place_of(text: str) -> S3Url:
    """The prefix that a user names; the address of anything below ``_byos/`` means the run that it belongs to.

    Raises UsageError.
    """
    try:
        return s3url.as_prefix(s3url.parse(text.partition("_byos/")[0]))
    except ValueError as problem:
        raise errors.UsageError([f"the prefix to look at: {problem}"], hint="s3://BUCKET/PREFIX/") from None


def runs_below(wire: Wire, top: S3Url, *, look: Callable[[S3Url], T | None], pool: Pool) -> Iterator[T]:
    """What *look* finds at *top*, or at the prefixes below it, in the order in which answers come.

    *look* returns None where there is no run; it is called by many threads. Raises MissingInput for a bucket that does not
    exist, AccessRefused, StoreUnreachable, Stopped.
    """
    try:
        found = look(top)
    except errors.AccessRefused as error:
        raise ranges.refused(error, top.child("_byos/")) from None
    if found is not None:
        yield found
        return
    level: Iterable[S3Url] = _below(wire, top)
    for _ in range(_LEVELS):
        deeper: list[S3Url] = []
        for prefix, seen in pool.each(lambda prefix: (prefix, look(prefix)), level):
            if seen is None:
                deeper.append(prefix)
            else:
                yield seen
        if not deeper:
            return
        level = [
            child for children in pool.each(lambda prefix: list(_below(wire, prefix)), deeper) for child in children
        ]


def _below(wire: Wire, top: S3Url) -> Iterator[S3Url]:
    try:
        for key in objects.prefixes_below(wire, top.key):
            wire.stop.check()
            if not key.endswith("_byos/"):
                yield S3Url(top.bucket, key)
    except errors.NoSuchObject:
        raise errors.MissingInput(f"{top}: bucket {top.bucket!r} does not exist") from None
