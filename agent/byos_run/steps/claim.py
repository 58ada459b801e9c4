"""Output prefix → ours, and what an earlier attempt left there.

1. The bucket exists; ``_byos/status.json``, ``manifest.json`` and the inventories are read.
2. A heartbeat older than the lease, by the store's clock, is dead; so is one whose process is seen to be dead on this node.
   A younger one is watched until it is old, or changes: then its run lives, and we leave.
3. The same digest and a complete manifest, and the bucket has what it lists: nothing to do. Else objects that no attempt of ours
   wrote are strangers; those whose metadata names an attempt that died before it could list them go with what it did list.
4. The claim: status.json written if it is absent, or if it is still the one that was read. Exactly one of several wins.
5. Its half uploads are aborted, its manifest and certificate move to ``_byos/attempts/N/``. Who fails at that releases the claim.

A key below ``_byos/`` that answers 403 counts as absent once a probe there was written and read: without s3:ListBucket AWS does
not say 404. The claim is held by heartbeats with If-Match; one that finds another's is lost, and nothing more is written.
"""

from __future__ import annotations

import hashlib
import json
import threading
import time
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Callable

from byos_run import errors
from byos_run.bucket import objects
from byos_run.bucket.objects import Small
from byos_run.bucket.wire import Wire
from byos_run.errors import printable
from byos_run.model import Attempt, Job, S3Url, Stop
from byos_run.node.pool import Pool
from byos_run.steps import inventory
from byos_run.steps.documents import document, parsed
from byos_run.steps.inherited import Inherited, inherited, number, still_there
from byos_run.steps.strangers import refuse_strangers, unlisted

_WATCH_EVERY_S = 1.0
_MOST_FOLLOWED = 32
_BEAT_PATIENCE_S = 10.0
_ABORTS_AT_ONCE = 8


@dataclass(frozen=True)
class Claim:
    attempt: Attempt
    earlier: Inherited
    """What earlier attempts have here."""
    digest: str
    complete: bool
    """An equal run is whole in the bucket: nothing to do."""
    inventories: int
    """How many objects the inventories of earlier attempts are."""


class Hold:
    """The claim, kept by heartbeats. Safe to use from two threads."""

    def __init__(self, wire: Wire, key: str, *, etag: str, attempt: Attempt, follows: Sequence[str]) -> None:
        self._wire = wire.until(patience_s=_BEAT_PATIENCE_S)
        self._patience_s = _BEAT_PATIENCE_S
        self._key = key
        self._etag = etag
        self._own = {"run_id": attempt.run_id, "attempt": attempt.number, "follows": follows}
        self._lock = threading.Lock()
        self.lost = False

    def beat(self, status: Mapping[str, Any]) -> None:
        """Write ``status.json``; an outage is nothing to a heartbeat, another's claim sets *lost*."""
        with self._lock:
            if self.lost:
                return
            body = document({**status, **self._own})
            try:
                wire = self._wire.until(patience_s=self._patience_s)
                self._etag = objects.put(wire, self._key, body, if_match=self._etag)
                self._patience_s = _BEAT_PATIENCE_S
            except errors.ConditionFailed:
                self._look_again()
            except errors.NoSuchObject:
                self.lost = True
            except (errors.StoreUnreachable, errors.StoreRefused, errors.AccessRefused, errors.Stopped):
                self._patience_s = (
                    0.0  # in an outage one try each, so that nobody waits for a heartbeat again and again
                )

    def _look_again(self) -> None:
        """Our own write may have gone through while its answer was lost."""
        try:
            found = objects.get(self._wire, self._key)
        except errors.ByosError:
            return
        if found is None or parsed(found.body).get("run_id") != self._own["run_id"]:
            self.lost = True
        else:
            self._etag = found.etag

    def release(self, status: Mapping[str, Any], error: errors.ByosError) -> None:
        """The run ends before it began: the next one need not wait for the lease."""
        told = {"exit_code": error.code, "exit_code_is": "byos-run's", "cause": errors.line_of(error)}
        self.beat({**status, "phase": "over", **told})

    def check(self) -> None:
        """Raise PrefixInUse if another run has the prefix now."""
        if self.lost:
            raise errors.PrefixInUse(
                "another run has claimed the output prefix meanwhile; this one writes nothing more and leaves its files",
                hint="did this node lose the store for longer than store.lease?",
            )


def claim(
    *,
    wire: Wire,
    job: Job,
    run_id: str,
    digest: str,
    status: Mapping[str, Any],
    is_dead: Callable[[Mapping[str, Any]], bool],
    stop: Stop,
    say: Callable[[str], None],
) -> tuple[Claim, Hold]:
    """Make the output prefix ours. *status* is the first heartbeat; *is_dead* knows by its marker whether a run of this node is.

    Raises PrefixInUse, UsageError (strangers' objects), MissingInput (no such bucket), AccessRefused, StoreUnreachable, Stopped.
    """
    below = f"{job.output.key}_byos/"
    bucket_exists(wire, job.output)
    read = _reader(wire, below)
    held = _wait_for_the_dead(read, lease_s=job.store.lease_s, is_dead=is_dead, stop=stop, say=say, where=job.output)
    left = _Left(read, digest=digest, output=job.output)
    before = parsed(held.body) if held else {}
    earlier = left.read(inventories=bool(held))
    attempt = Attempt(run_id, max(number(before.get("attempt")), earlier.attempt) + 1, wire.line.clock.now())
    complete, untold = _found(wire, job, left, earlier, digest=digest, before=before, say=say)
    follows = _followed(before)
    stop.check()
    status = {**status, "run_id": run_id, "attempt": attempt.number, "follows": follows}
    etag = _take(wire, f"{below}status.json", held, status, where=job.output)
    hold = Hold(wire, f"{below}status.json", etag=etag, attempt=attempt, follows=follows)
    earlier = left.read(inventories=bool(held))  # what the dead one wrote while we watched
    return Claim(attempt, replace(earlier, keys=earlier.keys | untold), digest, complete, len(left.told)), hold


def look(
    *,
    wire: Wire,
    job: Job,
    digest: str,
    is_dead: Callable[[Mapping[str, Any]], bool],
    say: Callable[[str], None],
) -> bool:
    """Whether an equal run is whole there already: what :func:`claim` would find, nothing written and nobody waited for.

    A 403 counts as absent. Raises what :func:`claim` does; PrefixInUse also for an attempt that may be dead soon.
    """
    below = f"{job.output.key}_byos/"

    def read(name: str) -> Small | None:
        try:
            return objects.get(wire, below + name)
        except errors.AccessRefused as error:
            if error.error_code != "AccessDenied":
                raise
            return None

    held = read("status.json")
    status = parsed(held.body) if held else {}
    marker = status.get("marker")
    over = status.get("phase") == "over" or (isinstance(marker, dict) and is_dead(marker))
    if held and not over and held.age_s <= job.store.lease_s:
        raise errors.PrefixInUse(
            f"{job.output} is held by a run on {printable(str(status.get('host', 'another node')))}, "
            f"seen {held.age_s:.0f} s ago",
            hint=f"give this run another output prefix; if that one is dead, wait {job.store.lease_s - held.age_s:.0f} s",
        )
    left = _Left(read, digest=digest, output=job.output)
    earlier = left.read(inventories=bool(held))
    complete, _ = _found(wire, job, left, earlier, digest=digest, before=status, say=say)
    return complete


def take_over(wire: Wire, output: S3Url, claimed: Claim, *, announce: Callable[[int], None]) -> None:
    """Begin where the earlier attempt ended. *announce* puts down in our own inventory whose manifest was found here.

    Raises AccessRefused (s3:DeleteObject), StoreUnreachable, Stopped.
    """
    below = f"{output.key}_byos/"
    if claimed.complete:  # its manifest stays what is true of the outputs; its certificate must outlive ours
        _copy_certificate(wire, below, claimed.earlier.manifest)
        return
    manifest = objects.get(wire, f"{below}manifest.json") if claimed.earlier.manifest else None
    if manifest or claimed.inventories:
        announce(number(claimed.earlier.manifest.get("attempt")))
    if manifest:
        _set_aside(wire, below, manifest)


def abort(wire: Wire, uploads: Iterable[tuple[str, str]], *, say: Callable[[str], None]) -> None:
    """End half uploads, (key, upload id), of dead attempts; one that was completed is gone, and its object stays."""

    def one(upload: tuple[str, str]) -> str:
        try:
            wire.request("DELETE", upload[0], query=[("uploadId", upload[1])])
        except (errors.AccessRefused, errors.StoreRefused) as error:
            return errors.line_of(error)
        except errors.NoSuchObject:
            return ""
        return ""

    with Pool(name="abort", width=_ABORTS_AT_ONCE) as pool:
        for problem in sorted({*pool.each(one, uploads)} - {""}):
            say(f"an unfinished upload stays: {problem}")


def digest_of(job: Job, inputs: Iterable[tuple[S3Url, str, str]]) -> str:
    """What makes two runs equal: input keys and versions, command, template, solver.env, publish selection. SHA-256 in hex."""
    parts = {
        "inputs": sorted([str(url), etag, version] for url, etag, version in inputs),
        "command": job.command,
        "env": sorted(job.solver.env.items()),
        "template": [job.template.files, sorted(job.template.values.items())],
        "publish": [job.publish.what, job.publish.include, job.publish.exclude],
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


class _Left:
    """What lies below ``_byos/``; read again, it goes on where the inventories ended."""

    def __init__(self, read: Callable[[str], Small | None], *, digest: str, output: S3Url) -> None:
        self._read = read
        self._digest = digest
        self._output = output
        self.told: list[dict[str, Any]] = []
        self.manifest = self._document("manifest.json")

    def read(self, *, inventories: bool) -> Inherited:
        if inventories or self.manifest:
            self.told += [item for _, item in inventory.read(self._body, after=len(self.told))]
        return inherited(
            manifest=self.manifest, told=self.told, older=lambda attempt: self._document(f"attempts/{attempt}/manifest.json"),
            digest=self._digest, prefix=self._output, uploads=inventory.open_uploads(self.told),
        )  # fmt: skip

    def _body(self, name: str) -> bytes | None:
        found = self._read(name)
        return None if found is None else found.body

    def _document(self, name: str) -> dict[str, Any]:
        return parsed(self._body(name) or b"")


def bucket_exists(wire: Wire, output: S3Url) -> None:
    """Asked before the first write: some stores make a bucket of a mistyped name."""
    try:
        wire.request("HEAD", "")
    except errors.NoSuchObject:
        raise errors.MissingInput(f"{output}: bucket {output.bucket!r} does not exist") from None
    except errors.AccessRefused as error:
        if error.error_code not in ("", "AccessDenied"):
            raise
    except errors.StoreRefused:
        return  # the real requests say more


def _reader(wire: Wire, below: str) -> Callable[[str], Small | None]:
    proved: list[str] = []

    def read(name: str) -> Small | None:
        try:
            return objects.get(wire, below + name)
        except errors.AccessRefused as error:
            if error.error_code != "AccessDenied":
                raise
            if not proved:
                _prove(wire, below)
                proved.append(name)
            return None

    return read


def _prove(wire: Wire, below: str) -> None:
    """Write, read and delete a probe. Raises AccessRefused for what is not allowed."""
    key, body = f"{below}probe-{uuid.uuid4().hex}", b"byos-run was here\n"
    objects.put(wire, key, body, content_type="text/plain")
    found = objects.get(wire, key)
    objects.delete(wire, key)
    if found is None or found.body != body:
        raise errors.StoreRefused(f"s3://{wire.line.bucket}/{key} was written and cannot be read back", status=200)


def _wait_for_the_dead(
    read: Callable[[str], Small | None],
    *,
    lease_s: float,
    is_dead: Callable[[Mapping[str, Any]], bool],
    stop: Stop,
    say: Callable[[str], None],
    where: S3Url,
) -> Small | None:
    """The status of an attempt that is over or dead; None if there never was one."""
    first = held = read("status.json")
    since = time.monotonic()
    while held is not None and first is not None:
        status = parsed(held.body)
        if held.etag != first.etag:  # also if it says "over" now: of those that start together exactly one wins
            raise errors.PrefixInUse(
                f"{where} is in use by another live run (on {printable(str(status.get('host', 'another node')))})",
                hint="give this run another output prefix, or wait for that one to end",
            )
        marker = status.get("marker")
        if status.get("phase") == "over" or (isinstance(marker, dict) and is_dead(marker)):
            return held
        age_s = first.age_s + time.monotonic() - since
        if age_s > lease_s:
            return held
        if held is first:
            say(f"an attempt that may still live holds {where}; watching its heartbeat for {lease_s - age_s:.0f} s")
        stop.wait(min(_WATCH_EVERY_S, lease_s / 4))
        stop.check()
        held = read("status.json")
    return held


def _found(
    wire: Wire,
    job: Job,
    left: _Left,
    earlier: Inherited,
    *,
    digest: str,
    before: Mapping[str, Any],
    say: Callable[[str], None],
) -> tuple[bool, set[str]]:
    """Whether an equal run is whole there; else the keys that attempts which died wrote unlisted. *before*: the last heartbeat.

    Raises UsageError for strangers' objects, and what a listing does.
    """
    equal = not job.again and left.manifest.get("status") == "complete" and left.manifest.get("digest") == digest
    if equal and _is_whole(wire, earlier, prefix=job.output, say=say):
        return True, set()
    if job.publish.overwrite and (not before or before.get("phase") == "over"):
        return False, set()
    writers = {*_followed(before), *(str(item.get("run_id")) for item in (left.manifest, *left.told))}
    first = not before and not left.manifest
    strangers, untold = unlisted(wire, job.output, ours=earlier.keys, writers=writers, first=first, say=say)
    refuse_strangers(() if job.publish.overwrite else strangers, job.output)
    return False, untold


def _is_whole(wire: Wire, earlier: Inherited, *, prefix: S3Url, say: Callable[[str], None]) -> bool:
    """Whether the bucket still has what the complete manifest lists; if not, that is said."""
    _, gone = still_there(wire, list(earlier.equal.values()), prefix=prefix)
    if gone:
        say(
            f"an equal run was complete, but {prefix} has {len(gone):,} of its {len(earlier.equal):,} outputs no more as it left "
            f"them (first: {printable(str(gone[0].get('path')))}): it is run again"
        )
    return not gone


def _followed(before: Mapping[str, Any]) -> list[str]:
    """Run ids of the attempts before this one, the newest first, as the last heartbeat tells them."""
    earlier = before.get("follows")
    ids = [before.get("run_id"), *(earlier if isinstance(earlier, list) else ())]
    return [each for each in ids if isinstance(each, str) and each][:_MOST_FOLLOWED]


def _take(wire: Wire, key: str, held: Small | None, status: Mapping[str, Any], *, where: S3Url) -> str:
    """Write the first heartbeat, if nobody was quicker. Returns its ETag."""
    try:
        return objects.put(wire, key, document(status), if_match=held.etag if held else "", if_none_match=held is None)
    except (errors.ConditionFailed, errors.NoSuchObject):
        found = objects.get(wire, key)
        if found and parsed(found.body).get("run_id") == status["run_id"]:  # our own, its answer was lost
            return found.etag
        raise errors.PrefixInUse(f"{where} was claimed by another run at the same moment") from None


def _set_aside(wire: Wire, below: str, manifest: Small) -> None:
    """Manifest and certificate of the earlier attempt move, manifest first: it is what a reader looks for."""
    told = parsed(manifest.body)
    objects.put(wire, f"{below}attempts/{number(told.get('attempt'))}/manifest.json", manifest.body)
    objects.delete(wire, f"{below}manifest.json")
    if _copy_certificate(wire, below, told):
        objects.delete(wire, f"{below}purge.json")


def _copy_certificate(wire: Wire, below: str, manifest: Mapping[str, Any]) -> bool:
    """Copy a certificate to the attempt that wrote it, or of the *manifest* if it does not tell; whether there is one."""
    found = objects.get(wire, f"{below}purge.json")
    if found is not None:
        attempt = number(parsed(found.body).get("attempt")) or number(manifest.get("attempt"))
        objects.put(wire, f"{below}attempts/{attempt}/purge.json", found.body)
    return found is not None
