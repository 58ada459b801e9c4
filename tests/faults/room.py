"""The bucket room behind the fault proxy: a wire with short patience, and what the proxy saw of it."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

from tests.faults.proxy import FaultProxy
from tests.kit import runs

from byos_run.bucket.connections import Connections
from byos_run.bucket.session import Session
from byos_run.bucket.wire import Wire
from byos_run.model import Place, StoreSettings
from byos_run.node.stop import Stop

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.faults.rules import Link, Rule


class Way(NamedTuple):
    """The way to one bucket, by the proxy."""

    proxy: FaultProxy
    wire: Wire
    session: Session

    def count(self, method: str = "", query: str = "") -> int:
        """Requests so far with this method and, if given, a query that holds these words."""
        return sum(method in ("", each.method) and query in each.query for each in self.proxy.seen)

    def ranges(self) -> list[str]:
        """What was asked for, in order; without the request for the end of the object."""
        asked = [each.headers.get("range", "") for each in self.proxy.seen if each.method == "GET"]
        return [each for each in asked if not each.startswith("bytes=-")]


@contextmanager
def through(
    bucket: Any,
    directory: Path,
    *told: Rule,
    link: Link | None = None,
    idle_timeout_s: float = 20.0,
    config: str | None = None,
    **settings: Any,
) -> Iterator[Way]:
    """A wire to `bucket` by a proxy with these rules. `settings`: of the store, as in a job."""
    text = runs.config_text(bucket.store) if config is None else config
    (directory / "config").write_text(text, encoding="utf-8")
    with FaultProxy(bucket.store, *told, link=link) as proxy:
        asked = {"endpoint_url": proxy.endpoint_url, "first_contact_s": 10.0, "patience_s": 20.0, **settings}
        session = Session(settings=StoreSettings(**asked), place=Place(directory, {}))
        wire = session.wire(bucket.name, stop=Stop())
        hasty = Connections(replace(wire.host, idle_timeout_s=idle_timeout_s))
        try:
            yield Way(proxy, Wire(replace(wire.line, connections=hasty), stop=wire.stop, limits=wire.limits), session)
        finally:
            hasty.close()
            session.close()
