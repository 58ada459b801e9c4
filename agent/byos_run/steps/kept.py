"""What a killed fetch left in its stage → what of it need not be fetched again.

::

    zip     each member whose file has the size and CRC-32 that the archive's directory tells
    file    … that were noted when it was whole, if its object has the ETag and version of then
    tar     nothing: it has no directory, and a compressed stream cannot be entered in the middle

All else in the stage is deleted before anything is written. The unit is one file: half of one is fetched again.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain

from byos_run.archive.plan import Plan
from byos_run.archive.proof import Wanted, proven, wanted_of
from byos_run.model import Identity, Pool, S3Url, Stop, Tally
from byos_run.node.files import Snapshot, identity_of
from byos_run.node.stage import Stage


@dataclass
class Share:
    """What of one input is there."""

    flags: bytearray = field(default_factory=bytearray)
    """A byte for each member of a zip: 1 if it is there."""
    files: int = 0
    size_bytes: int = 0
    """Of these files."""
    version_id: str = ""
    """Of a plain file's object, when it was read."""


def keep(
    stage: Stage, planned: Sequence[tuple[Plan, str, str]], *, workers: Pool, tally: Tally, stop: Stop
) -> dict[S3Url, Share]:
    """The share of each input of which there is one; *planned*: plan, ETag and version id of each.

    The stage holds just that when this returns. Raises NodeUnfit if it cannot be cleaned, Stopped.
    """
    if stage.is_new:
        return {}
    plans = [plan for plan, _, _ in planned]
    noted = _noted(stage, planned)
    shares: dict[S3Url, Share] = {}

    def wanted_in(owner: int) -> Iterator[Wanted]:
        plan = plans[owner]
        if plan.zipped is not None:
            yield from wanted_of(plan.zipped, owner=owner)
        elif (note := noted.get(plan.url)) is not None:
            yield Wanted(owner, -1, plan.path, plan.total_bytes, note[1])

    def found() -> Iterator[tuple[str, Identity]]:
        wanted = chain.from_iterable(map(wanted_in, range(len(plans))))
        for item, state in proven(wanted, root=stage.fd, workers=workers, stop=stop):
            _count(shares, plans[item.owner], item, tally)
            yield item.path, identity_of(state)

    if not stage.clear(Snapshot.of(found())):
        shares.clear()
    for url in noted.keys() & shares.keys():
        shares[url].version_id = noted[url][0]
    return shares


def note(stage: Stage, *, url: S3Url, etag: str, version_id: str, size_bytes: int, crc: int) -> None:
    """The plain file that *url* became is whole."""
    stage.note([url.bucket, url.key, etag, version_id, size_bytes, crc])


def _noted(stage: Stage, planned: Sequence[tuple[Plan, str, str]]) -> dict[S3Url, tuple[str, int]]:
    """Version id and CRC-32 of the plain files that were whole, if their objects are still the same."""
    asked = {plan.url: (plan, etag, version_id) for plan, etag, version_id in planned if plan.kind == "file" and etag}
    noted = {}
    for item in stage.notes() if asked else ():
        try:
            bucket, key, etag, version_id, size_bytes, crc = item
            plan, its_etag, its_version_id = asked[S3Url(bucket, key)]
        except (KeyError, TypeError, ValueError):
            continue
        is_same = etag == its_etag and its_version_id in ("", version_id)
        if is_same and size_bytes == plan.total_bytes and isinstance(crc, int):
            noted[plan.url] = (str(version_id), crc)
    return noted


def _count(shares: dict[S3Url, Share], plan: Plan, item: Wanted, tally: Tally) -> None:
    share = shares.setdefault(plan.url, Share(bytearray(len(plan.zipped) if plan.zipped is not None else 0)))
    packed_bytes = item.size_bytes
    if plan.zipped is not None:
        share.flags[item.place] = 1
        packed_bytes = plan.zipped.packed[item.place]
    share.files += 1
    share.size_bytes += item.size_bytes
    tally.add(files=1, saved_bytes=packed_bytes)
