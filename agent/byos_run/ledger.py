"""What must outlive us of what has left: the journal on this node is told at once, the inventory in the bucket soon.

    acknowledged   an output is whole in the bucket
    begun … over   a multipart upload is open: whoever comes after us aborts it, or on this node goes on with its parts

An upload that an earlier attempt here began is handed out once, to whoever sends the same, unchanged file to the same key.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from pathlib import Path

from byos_run.model import Identity, Published
from byos_run.node.journal import Journal
from byos_run.steps.inventory import Inventory
from byos_run.uploads import Begun, PartSent


class Ledger:
    """One for a run; used by all threads that publish."""

    def __init__(
        self,
        journal: Journal,
        inventory: Inventory,
        *,
        own_directory: Path,
        begun: Mapping[str, Begun],
        follows_another: bool,
    ) -> None:
        """*begun*: uploads, by id, that an earlier attempt on this node left open and that may be finished."""
        self.follows_another = follows_another
        self.keys: set[str] = set()
        """Of all that this attempt has had acknowledged; what the manifest does not list in the end is stale."""
        self._journal = journal
        self._inventory = inventory
        self._own_directory = own_directory
        self._begun = dict(begun)
        self._open: dict[str, str] = {}
        """Uploads of this attempt, id → key; one that could be neither completed nor aborted stays here."""
        self._lock = threading.Lock()
        for item in begun.values():
            inventory.upload(item.key, item.upload_id, is_open=True)

    def recall(self, published: Iterable[Published]) -> None:
        """What the journal knows already, the bucket should."""
        for item in published:
            self._note(item)

    def acknowledged(self, published: Published) -> None:
        self._journal.acknowledged(published)
        self._note(published)

    def _note(self, published: Published) -> None:
        if published.output.root != self._own_directory:
            self.keys.add(published.key)
            self._inventory.acknowledged(published)

    def resumed(self, key: str, identity: Identity, part_bytes: int) -> Begun | None:
        """The upload of this very file that can be finished, if there is one."""
        with self._lock:
            same = (key, identity, part_bytes)
            begun = self._begun.values()
            found = next((item for item in begun if (item.key, item.identity, item.part_bytes) == same), None)
            if found is not None:
                del self._begun[found.upload_id]
        return found

    def begins(self, begun: Begun) -> None:
        with self._lock:
            self._open[begun.upload_id] = begun.key
        self._journal.upload_begun(begun)
        self._inventory.upload(begun.key, begun.upload_id, is_open=True)

    def part_sent(self, upload_id: str, part: PartSent) -> None:
        self._journal.part_sent(upload_id, part)

    def over(self, key: str, upload_id: str) -> None:
        """Completed, or aborted."""
        with self._lock:
            self._open.pop(upload_id, None)
        self._journal.upload_over(upload_id)
        self._inventory.upload(key, upload_id, is_open=False)

    def unfinished(self) -> list[tuple[str, str]]:
        """(key, upload id) of uploads that nobody goes on with, when nobody sends; each is told once."""
        with self._lock:
            earlier, self._begun = self._begun, {}
            own, self._open = self._open, {}
        return [*((item.key, item.upload_id) for item in earlier.values()), *((key, each) for each, key in own.items())]
