"""``_byos/inventory/``: what the bucket itself knows of an attempt while it runs.

::

    000001.json.zst, 000002.json.zst, …   each: whose attempt, what was acknowledged since the one before, all open uploads
    written      soon after the first news, then every 2 to 45 s, the seldomer the more there are; an upload that was begun: at once
    read         from 1 until one is missing, so no listing is needed; attempts go on counting where the one before stopped
    deleted      from the last to the first, when a manifest says the same and more

An outage there ends nothing: what could not be told is told the next time. A number is written once (If-None-Match), so that a
run that has lost its claim without knowing overwrites nothing.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Callable

from byos_run import errors
from byos_run.bucket import objects
from byos_run.bucket.wire import Wire
from byos_run.model import Published, S3Url
from byos_run.node.pool import Pool

SCHEMA = 1
_SOONEST_S = 2.0
_LATEST_S = 45.0
_UPLOADS_S = 10.0
_PATIENCE_S = 10.0
_MOST_ENTRIES = 20_000
"""Of one object: some 6 MB of JSON."""
_LONGEST_BYTES = 256 << 20
_READERS = 8


class Inventory:
    """Tells the bucket what this attempt has there. Hears from any thread; one thread calls :meth:`tend`."""

    def __init__(
        self,
        wire: Wire,
        *,
        output: S3Url,
        head: Callable[[], Mapping[str, Any]],
        written: int,
        describe: Callable[[Published], Mapping[str, Any]],
        is_lost: Callable[[], bool],
    ) -> None:
        """*head*: whose it is, in every object. *written*: how many there are, of earlier attempts. *describe*: as a manifest
        lists it. *is_lost*: the claim is another's, so nothing more is written."""
        self._wire = wire.until(patience_s=_PATIENCE_S)
        self._output = output
        self._head = head
        self._describe = describe
        self._is_lost = is_lost
        self._lock = threading.Lock()
        self._telling = threading.Lock()
        """Held over each write of :meth:`tell`: one that is under way must not land after :meth:`remove`."""
        self._fresh: dict[tuple[str, str], Published] = {}
        """By key and path: a bundle's members share a key."""
        self._open: dict[str, str] = {}
        """Upload id → key."""
        self._untold: set[str] = set()
        """Of those, the ones that the bucket has not heard of; one that is over by then need not be told."""
        self._written = written
        self._own = 0
        self._told_at = -_LATEST_S
        self._over = False

    def acknowledged(self, published: Published) -> None:
        with self._lock:
            self._fresh[published.key, published.output.path] = published

    def upload(self, key: str, upload_id: str, *, is_open: bool) -> None:
        """A multipart upload was begun, or is over."""
        with self._lock:
            if is_open:
                self._open[upload_id] = key
                self._untold.add(upload_id)
            else:
                self._open.pop(upload_id, None)
                self._untold.discard(upload_id)

    def tend(self) -> None:
        """Write what is due. Does not raise."""
        since_s = time.monotonic() - self._told_at
        with self._lock:
            due = bool(self._fresh) and since_s >= min(_LATEST_S, _SOONEST_S + self._own / 2)
            due = due or (bool(self._untold) and since_s >= min(_UPLOADS_S, self._own / 50))
        if due:
            self.tell()

    def begin(self, wire: Wire, *, earlier: int) -> None:
        """The first object: which attempt's manifest was found here. Raises AccessRefused, StoreUnreachable, Stopped."""
        self._put(wire, {**self._document([]), "earlier": earlier})

    def tell(self) -> bool:
        """Write one object now; False if the store did not take it, and what it says waits. Does not raise."""
        with self._telling:
            return self._tell()

    def _tell(self) -> bool:
        with self._lock:
            if self._over or self._is_lost():
                return False
            taken = {place: self._fresh.pop(place) for place in list(self._fresh)[:_MOST_ENTRIES]}
            document = self._document(taken.values())
            self._untold.clear()
        self._told_at = time.monotonic()
        try:
            self._put(self._wire, document)
        except errors.ByosError:
            with self._lock:
                self._fresh = {**taken, **self._fresh}
                self._untold.update(self._open)
            return False
        return True

    def _document(self, items: Iterable[Published]) -> dict[str, Any]:
        return {
            **self._head(),
            "schema": SCHEMA,
            "at": self._wire.line.clock.now(),
            "uploads": [{"key": key, "upload_id": upload_id} for upload_id, key in self._open.items()],
            "outputs": [self._describe(item) for item in items],
        }

    def _put(self, wire: Wire, document: Mapping[str, Any]) -> None:
        body = _packed(document)
        while True:
            try:
                objects.put(
                    wire,
                    _key(self._output, self._written + 1),
                    body,
                    if_none_match=True,
                    content_type="application/zstd",
                )
                break
            except errors.ConditionFailed:  # ours, its answer lost; or of one who thinks that the claim is still his
                self._written += 1
        self._written += 1
        self._own += 1

    def remove(self) -> None:
        """A manifest says it all now. Raises what ``objects.delete`` raises."""
        with self._lock:
            self._over = True
        with self._telling:
            for number in range(self._written, 0, -1):
                objects.delete(self._wire, _key(self._output, number))


def read(get: Callable[[str], bytes | None], *, after: int = 0) -> Iterator[tuple[int, dict[str, Any]]]:
    """The objects from number *after* + 1 on, each with its number; one that says nothing understandable is empty.

    *get* reads what lies below ``_byos/`` and gives None for what is not there; called from several threads.
    """
    first, width = after + 1, 1
    with Pool(name="inventory", width=_READERS) as pool:
        while True:
            bodies = dict(pool.each(lambda number: (number, get(_name(number))), range(first, first + width)))
            for number in range(first, first + width):
                body = bodies[number]
                if body is None:
                    return
                yield number, _unpacked(body)
            first, width = first + width, min(4 * width, 64)


def open_uploads(told: Iterable[Mapping[str, Any]]) -> set[tuple[str, str]]:
    """(key, upload id) of what each attempt last said to be open."""
    last = {str(item.get("run_id")): item.get("uploads") for item in told}
    listed = [item for uploads in last.values() if isinstance(uploads, list) for item in uploads]
    return {
        (item["key"], item["upload_id"])
        for item in listed
        if isinstance(item, dict) and isinstance(item.get("key"), str) and isinstance(item.get("upload_id"), str)
    }


def _name(number: int) -> str:
    return f"inventory/{number:06}.json.zst"


def _key(output: S3Url, number: int) -> str:
    return f"{output.key}_byos/{_name(number)}"


def _packed(document: Mapping[str, Any]) -> bytes:
    import zstandard

    text = json.dumps(document, separators=(",", ":"))
    return zstandard.ZstdCompressor(level=3).compress(text.encode())


def _unpacked(body: bytes) -> dict[str, Any]:
    """Empty for anything that we would not have written: what lies in a bucket is not to be trusted."""
    import zstandard

    try:
        with zstandard.ZstdDecompressor().stream_reader(body) as reader:
            text = reader.read(_LONGEST_BYTES)
        found = json.loads(text)
    except (zstandard.ZstdError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
