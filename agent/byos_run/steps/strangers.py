"""Objects below the output prefix that no record of an attempt lists: a stranger's, or of an attempt that died too soon.

Each output names in its metadata the run that wrote it. If that run was here before, the object is proved ours: its attempt was
killed before the inventory told of it, and it goes with what the inventories list. One of another run of ours (copied here) is left
alone. One that names none is a stranger's. A HEAD each, of what is not listed only.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import Callable

from byos_run import errors
from byos_run.bucket import objects
from byos_run.bucket.wire import Wire
from byos_run.errors import printable
from byos_run.model import S3Url
from byos_run.node.files import RUNDIR
from byos_run.node.pool import Pool
from byos_run.steps.packing import BUNDLES

WRITER = "byos-run"
"""Metadata name by which an object tells which run wrote it."""
_NAMED = 5
_HEADS_AT_ONCE = 8


def unlisted(
    wire: Wire, output: S3Url, *, ours: Collection[str], writers: Collection[str], first: bool, say: Callable[[str], None]
) -> tuple[list[str], set[str]]:  # fmt: skip
    """(some strangers' keys, all keys that one of *writers*, run ids, wrote), without the keys *ours*.

    *first*: no attempt was here. Raises StoreUnreachable, Stopped; where listing is refused there is nothing, and that is said.
    """
    strangers: list[str] = []
    untold: set[str] = set()
    try:
        with Pool(name="writer", width=_HEADS_AT_ONCE) as pool:
            unknown = _unknown(wire, output, ours)
            for key, writer in pool.each(lambda key: (key, None if first else _writer(wire, key)), unknown):
                if writer in writers:
                    untold.add(key)
                elif writer is None and not key.startswith(f"{output.key}_byos/"):
                    strangers.append(key)
                if len(strangers) > _NAMED:
                    break
    except errors.AccessRefused:
        say(f"{output} cannot be listed with these credentials: objects of others there would not be noticed")
        return [], untold
    return strangers, untold


def refuse_strangers(strangers: Sequence[str], output: S3Url) -> None:
    """Raises UsageError if there are any."""
    if strangers:
        named = ", ".join(repr(printable(key)) for key in strangers[:_NAMED])
        more = ", …" if len(strangers) > _NAMED else ""
        raise errors.UsageError(
            [f"output {output} holds objects that no run of byos-run wrote: {named}{more}"],
            hint="choose an empty prefix, or allow it with publish.overwrite = true",
        )


def _unknown(wire: Wire, output: S3Url, ours: Collection[str]) -> Iterator[str]:
    for item in objects.listed(wire, output.key):
        inside = item.key[len(output.key) :]
        is_record = inside.startswith("_byos/") and not inside.startswith((RUNDIR, BUNDLES))
        if inside and not is_record and item.key not in ours:
            yield item.key


def _writer(wire: Wire, key: str) -> str | None:
    """The run that *key* names; None if it names none, "" if it is gone meanwhile."""
    try:
        return wire.request("HEAD", key).headers.get(f"x-amz-meta-{WRITER}")
    except errors.NoSuchObject:
        return ""
