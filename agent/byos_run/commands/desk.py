"""What a command that asks the store works with: a voice, a way to the store, closed in this order whatever happens."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from byos_run import errors, log
from byos_run.book import Book
from byos_run.bucket.session import Session
from byos_run.bucket.wire import Wire
from byos_run.model import Place, S3Url, StoreSettings
from byos_run.node.outlet import Outlet
from byos_run.node.stop import Stop
from byos_run.steps import rows, table
from byos_run.steps.table import Table
from byos_run.terminal import Terminal

_LAST_WORDS_S = 5.0


@contextmanager
def voice(place: Place, *, descriptor: int = 2) -> Iterator[Book]:
    """What is said goes to *descriptor*, and what is left of it is written at the end."""
    outlet = Outlet(descriptor)
    try:
        yield Book(lines=log.Lines(outlet, terminal=Terminal(descriptor, place.environ), volume=place.volume))
    finally:
        outlet.close(within_s=_LAST_WORDS_S)


@dataclass(frozen=True)
class Desk:
    book: Book
    place: Place
    stop: Stop
    session: Session

    def wire(self, bucket: str) -> Wire:
        return self.session.wire(bucket, stop=self.stop)

    def table(self, name: str) -> Table:
        """The table *name*, a path or an object. Raises UsageError, MissingInput, AccessRefused, StoreUnreachable, Stopped."""
        data = rows.content(name, self.place.run_directory, lambda url: rows.object_of(self.wire(url.bucket), url))
        return table.parse(data, name=name)


@contextmanager
def desk(store: StoreSettings, *, place: Place, stop: Stop, descriptor: int = 2) -> Iterator[Desk]:
    with voice(place, descriptor=descriptor) as book:
        session = Session(settings=store, place=place)
        session.tell = book.lines.detail
        try:
            yield Desk(book, place, stop, session)
        finally:
            session.close()


def no_run(top: S3Url) -> errors.MissingInput:
    return errors.MissingInput(f"{top} holds no run", hint="is the prefix spelled as in the bucket?")
