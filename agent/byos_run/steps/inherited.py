"""What earlier attempts have in the bucket: the newest manifest, and what the inventories say that came after it.

::

    manifest of attempt M        its outputs, and the stale objects that it names
    inventory of attempts > M    what was acknowledged since; the later word on a path wins
    by digest                    equal to ours: what a resumed run may take over; another: what goes when this run is whole

An inventory's first object names the manifest that its attempt found and moved to ``attempts/M/``. Everything here comes from a
bucket: an entry counts only if a manifest could have held it, a key only if it lies below the output prefix.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Callable

from byos_run import errors
from byos_run.bucket import objects
from byos_run.bucket.wire import Wire
from byos_run.model import S3Url
from byos_run.node.files import RUNDIR
from byos_run.node.pool import Pool
from byos_run.steps.entries import Entry, entries_of
from byos_run.steps.packing import BUNDLES

_OWN = "_byos/"
_LOOKS_AT_ONCE = 8


@dataclass(frozen=True)
class Inherited:
    equal: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Outputs of attempts with our digest, as a manifest lists them, by the path that :class:`Entry` gives them."""
    keys: frozenset[str] = frozenset()
    """Of all that earlier attempts, of any digest, have below the output prefix."""
    is_interrupted: bool = False
    """The newest attempt with our digest was cut short: by a stop, an outage, or its death."""
    uploads: frozenset[tuple[str, str]] = frozenset()
    """(key, upload id) of multipart uploads that were open."""
    manifest: Mapping[str, Any] = field(default_factory=dict)
    """The newest one; empty if there is none."""
    attempt: int = 0
    """The largest number that any of it tells."""

    def but(self, own: Iterable[Mapping[str, Any]], gone: Iterable[str], *, prefix: S3Url) -> list[Mapping[str, Any]]:
        """The outputs of our digest without those that *own*, also as a manifest lists them, replaces, and the keys *gone*."""
        paths, keys = {entry.path for item in own if (entry := believed(item, prefix=prefix))}, set(gone)
        return [item for path, item in self.equal.items() if path not in paths and item["key"] not in keys]

    def entries(self, *, prefix: S3Url) -> list[tuple[Entry, Mapping[str, Any]]]:
        """The outputs of our digest, each with what a manifest says of it."""
        return [(entry, item) for item in self.equal.values() if (entry := believed(item, prefix=prefix)) is not None]


def believed(item: Any, *, prefix: S3Url) -> Entry | None:
    """*item* as an output, if a manifest of this prefix could list it."""
    entries, _ = entries_of({"outputs": [item], "output": str(prefix)}, prefix=prefix)
    inside = entries[0].key[len(prefix.key) :] if entries else _OWN
    return None if inside.startswith(_OWN) and not inside.startswith((RUNDIR, BUNDLES)) else entries[0]


def inherited(
    *,
    manifest: Mapping[str, Any],
    told: Sequence[Mapping[str, Any]],
    older: Callable[[int], Mapping[str, Any]],
    digest: str,
    prefix: S3Url,
    uploads: Iterable[tuple[str, str]] = (),
) -> Inherited:
    """*told*: the inventories, in their order. *older* reads the manifest that attempt N left, once it was moved."""
    base = max([number(item.get("earlier")) for item in told], default=0)
    if base > number(manifest.get("attempt")):
        manifest = older(base)
    merged = _Merged(prefix)
    merged.manifest(manifest)
    newest = max(base, number(manifest.get("attempt")))
    for item in sorted(told, key=lambda item: number(item.get("attempt"))):
        if number(item.get("attempt")) > newest:
            merged.inventory(item)
    numbers = [newest, *(number(item.get("attempt")) for item in told)]
    return Inherited(
        equal={path: item for path, (its, item) in merged.outputs.items() if its == digest},
        keys=frozenset(merged.keys),
        is_interrupted=digest in merged.cut_short,
        uploads=frozenset((key, upload_id) for key, upload_id in uploads if key.startswith(prefix.key)),
        manifest=manifest,
        attempt=max(numbers),
    )


class _Merged:
    def __init__(self, prefix: S3Url) -> None:
        self._prefix = prefix
        self.outputs: dict[str, tuple[str, Mapping[str, Any]]] = {}
        self.keys: set[str] = set()
        self.cut_short: set[str] = set()

    def manifest(self, document: Mapping[str, Any]) -> None:
        digest = str(document.get("digest"))
        self._add(document, digest, attempt=number(document.get("attempt")))
        stale = document.get("stale")
        for key in stale if isinstance(stale, list) else ():
            if believed({"key": key, "bytes": 0, "crc32": "AAAAAA=="}, prefix=self._prefix) is not None:
                self.keys.add(key)
        if document.get("status") in ("interrupted", "partial") and not _failed(document.get("solver")):
            self.cut_short.add(digest)

    def inventory(self, document: Mapping[str, Any]) -> None:
        digest = str(document.get("digest"))
        self._add(document, digest, attempt=number(document.get("attempt")))
        self.cut_short.add(digest)

    def _add(self, document: Mapping[str, Any], digest: str, *, attempt: int) -> None:
        outputs = document.get("outputs")
        for item in outputs if isinstance(outputs, list) else ():
            if (entry := believed(item, prefix=self._prefix)) is not None:
                self.outputs[entry.path] = digest, {**item, "attempt": number(item.get("attempt")) or attempt}
                self.keys.add(entry.key)


def _failed(solver: Any) -> bool:
    return isinstance(solver, dict) and solver.get("succeeded") is False and not solver.get("stopped_by")


def still_there(
    wire: Wire, items: Sequence[Mapping[str, Any]], *, prefix: S3Url
) -> tuple[list[Mapping[str, Any]], list[Mapping[str, Any]]]:
    """Of *items* those that the bucket has as they are listed, by their ETag, and those that it has lost.

    Raises AccessRefused, StoreUnreachable, Stopped.
    """
    if not items:
        return [], []
    may_list = True
    try:
        found = {item.key: item.etag for item in objects.listed(wire, prefix.key)}
    except errors.AccessRefused:
        found, may_list = {}, False

    def etag_of(key: str) -> tuple[str, str]:
        try:
            facts = objects.head(wire, key)
        except errors.AccessRefused as error:
            # Without s3:ListBucket AWS does not say 404; a HEAD's answer has no body that would name the error.
            if may_list or error.error_code not in ("", "AccessDenied"):
                raise
            facts = None
        return key, facts.etag if facts else ""

    # A listing may lack a key (a backslash, "//"): HEAD has the last word.
    doubtful = {item["key"] for item in items if found.get(item["key"]) != item.get("etag")}
    with Pool(name="look", width=_LOOKS_AT_ONCE) as pool:
        found.update(pool.each(etag_of, doubtful))
    there = [item for item in items if found[item["key"]] == item.get("etag")]
    return there, [item for item in items if found[item["key"]] != item.get("etag")]


def number(value: Any) -> int:
    """An attempt's number, 0 for anything that is none."""
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 31 else 0
