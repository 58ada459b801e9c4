"""What is known of the runs below a prefix; each look brings what changed.

Every further look asks for a heartbeat only if it is another than the one that is known (If-None-Match): what has not changed
sends no body. Runs that have ended are asked again once a minute or two, since they may be started anew.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import Any

from byos_run import errors
from byos_run.bucket import objects
from byos_run.bucket.objects import Small
from byos_run.bucket.wire import Wire
from byos_run.model import S3Url
from byos_run.node.pool import Count, Pool
from byos_run.steps import survey
from byos_run.steps.documents import parsed
from byos_run.steps.standing import STATES, Standing, standing_of

_ENDED_AGAIN_S = 60.0


@dataclass(frozen=True)
class _Seen:
    """A heartbeat as it was read."""

    prefix: S3Url
    values: dict[str, Any]
    etag: str
    written_s: float
    """When it was written: its age when it was read, off the node's monotonic clock."""
    looked_s: float

    def standing(self) -> Standing:
        return standing_of(self.prefix, self.values, age_s=max(0.0, time.monotonic() - self.written_s))


class Board:
    """What is known of the runs below *top*; each look brings what changed."""

    def __init__(self, wire: Wire, top: S3Url, *, expected: frozenset[S3Url], pool: Pool) -> None:
        self._wire = wire
        self._top = top
        self._expected = expected
        self._pool = pool
        self._known: dict[str, _Seen] = {}

    def look(self, count: Count) -> list[Standing]:
        """All runs, first what needs attention. Raises AccessRefused, StoreUnreachable, MissingInput, Stopped."""

        def look_at(prefix: S3Url) -> _Seen | None:
            seen = self._look_at(prefix)
            count.add(files=seen is not None)
            return seen

        found = list(survey.runs_below(self._wire, self._top, look=look_at, pool=self._pool))
        self._known = {seen.prefix.key: seen for seen in found}
        ranks = {state: rank for rank, state in enumerate(STATES)}
        waiting = self._expected - {seen.prefix for seen in found}
        return sorted(
            [*(seen.standing() for seen in found), *(Standing(prefix, "waiting") for prefix in waiting)],
            key=lambda item: (
                ranks[item.state],
                item.disk_full_in_s is None,
                -item.run_s if item.state == "running" else 0,
                item.prefix,
            ),
        )

    def _look_at(self, prefix: S3Url) -> _Seen | None:
        self._wire.stop.check()
        now, seen = time.monotonic(), self._known.get(prefix.key)
        if seen is None:
            return self._first(prefix)
        again_s = _ENDED_AGAIN_S * (1 + hash(prefix.key) % 64 / 64)  # not all of them in one look
        if seen.values.get("phase") == "over" and now - seen.looked_s < again_s:
            return seen
        try:
            found = objects.get_changed(self._wire, f"{prefix.key}_byos/status.json", etag=seen.etag)
        except errors.NoSuchObject:
            return self._first(prefix)
        return _seen(prefix, found) if found else replace(seen, looked_s=now)

    def _first(self, prefix: S3Url) -> _Seen | None:
        found = objects.get(self._wire, f"{prefix.key}_byos/status.json")
        if found is not None:
            return _seen(prefix, found)
        manifest = objects.get(self._wire, f"{prefix.key}_byos/manifest.json")
        if manifest is None:
            return None
        seen = _seen(prefix, manifest)  # its heartbeat was not copied along, or is gone: it has ended
        return replace(seen, values={"phase": "over", "exit_code": seen.values.get("exit_code")}, etag="")


def _seen(prefix: S3Url, found: Small) -> _Seen:
    now = time.monotonic()
    return _Seen(prefix, parsed(found.body), found.etag, now - found.age_s, now)
