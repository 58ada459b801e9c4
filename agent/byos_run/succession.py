"""From one attempt to the next: what this one takes over, and what it leaves so that another could take over from it.

::

    take over    half uploads of dead attempts are aborted, their manifest moves aside; a case that was fetched here stays
    while we run the ledger tells journal and inventory what has left
    resume       files of an interrupted attempt come into the case
    hand over    the manifest lists what earlier attempts with our digest have in the bucket, if this one stands on it (it was
                 resumed) or is not whole itself; what nobody lists any more is deleted just before it; the inventory after it

Not promised: anything about the objects of runs with another digest while this one is not whole; they stay, named as stale.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from byos_run import errors, resuming
from byos_run.bucket import objects
from byos_run.bucket.wire import Wire
from byos_run.errors import printable
from byos_run.ledger import Ledger
from byos_run.model import Attempt, Published, Tally, Unpublished
from byos_run.node import scratch
from byos_run.node.scratch import Room
from byos_run.opening import Opened
from byos_run.steps import claim, record
from byos_run.steps.claim import Claim, Hold
from byos_run.steps.inherited import still_there
from byos_run.steps.inventory import Inventory
from byos_run.steps.record import Handed

_NAMED = 10


class Succession:
    """One for a run, made when the prefix is ours."""

    def __init__(self, opened: Opened, claimed: Claim, hold: Hold) -> None:
        self._opened = opened
        self._claimed = claimed
        self.earlier = claimed.earlier
        self.digest = claimed.digest
        """Of this run; another than at the claim if an input was replaced since."""
        self.kept: Room | None = None
        """The case of an earlier attempt here, as it was fetched."""
        self.half: Room | None = None
        """Where an earlier attempt here was killed in its fetch, or its inputs were changed: the stage holds what there is."""
        self.resumed: list[resuming.Resumed] = []
        here = opened.earlier if opened.continues else None
        self._sent_here = _keys_of(opened)
        self.is_resumed = bool(here and here.resumed)
        self.attempts = {
            (item["key"], str(item.get("etag"))): int(item["attempt"]) for item in self.earlier.equal.values()
        }
        self._inventory = Inventory(
            opened.wire.until(stop=opened.stop.unless_cut), output=opened.job.output, written=claimed.inventories,
            head=self._head, describe=self._described, is_lost=lambda: hold.lost,
        )  # fmt: skip
        self.tend = self._inventory.tend
        self.ledger = Ledger(
            opened.journal, self._inventory, own_directory=opened.own_directory,
            begun=here.uploads if here else {}, follows_another=self._attempt.number > 1,
        )  # fmt: skip
        if here is not None:
            self.ledger.recall((*here.acknowledged.values(), *here.behind))

    @property
    def _attempt(self) -> Attempt:
        return self._claimed.attempt

    def _head(self) -> dict[str, Any]:
        attempt, output = self._attempt, str(self._opened.job.output)
        return {"run_id": attempt.run_id, "attempt": attempt.number, "digest": self.digest, "output": output}

    def _described(self, item: Published) -> dict[str, Any]:
        return record.output(item, attempt=self.attempts.get((item.key, item.etag), self._attempt.number))

    def take_over(self) -> None:
        """Raises AccessRefused, StoreUnreachable, Stopped."""
        opened, here = self._opened, self._opened.earlier
        left = here.uploads if here is not None and here.output == str(opened.job.output) else {}
        uploads = {*self.earlier.uploads, *((item.key, item.upload_id) for item in left.values())}
        resumable = left if opened.continues else {}
        claim.abort(opened.wire, [each for each in uploads if each[1] not in resumable], say=opened.book.warn)
        claim.take_over(
            opened.wire, opened.job.output, self._claimed,
            announce=lambda attempt: self._inventory.begin(opened.wire, earlier=attempt),
        )  # fmt: skip

    def clean_here(self, *, keep: bool) -> None:
        """What an attempt that was killed here left goes; with *keep*, but for what was fetched."""
        opened = self._opened
        if keep and opened.earlier is not None and not opened.continues:
            self.kept = resuming.keep_case(
                opened.earlier, opened.journal, digest=self.digest, globs=opened.job.resume.files
            )
            if self.kept is None:
                self.half = resuming.half_of(opened.earlier, digest=self.digest, job=opened.job, place=opened.place)
        opened.clean(but=self.kept, half=self.half)

    @property
    def found(self) -> Room | None:
        """Where an attempt before this one left something here to go on with."""
        return self.kept or self.half

    def place(self) -> Room:
        """Where this attempt fetches to. Raises UsageError, NodeUnfit."""
        opened, earlier = self._opened, self._opened.earlier
        return self.half or scratch.claim_room(
            scratch=opened.job.scratch, run_directory=opened.place.run_directory, environ=opened.place.environ,
            run_id=opened.run_id, earlier=earlier.room if earlier else None,
        )  # fmt: skip

    def resume(self, case: Path, *, tally: Tally) -> bool:
        """Bring what ``resume.files`` names of an interrupted attempt. Raises what ``resuming.resume`` raises."""
        opened, globs = self._opened, self._opened.job.resume.files
        if globs and self.earlier.is_interrupted and self.digest == self._claimed.digest:
            self.resumed = resuming.resume(
                self.earlier, globs=globs, case=case, prefix=opened.job.output, wire=opened.wire, tally=tally,
                warn=opened.book.warn,
            )  # fmt: skip
        self.is_resumed = bool(self.resumed)
        return self.is_resumed

    def end_uploads(self) -> None:
        """Uploads of an attempt here that nobody goes on with: their files have changed, or an outage hid their end from us."""
        wire = self._opened.wire.until(stop=self._opened.stop.unless_cut)
        try:
            claim.abort(wire, self.ledger.unfinished(), say=self._opened.book.warn)
        except errors.ByosError as error:
            self._opened.book.warn(f"unfinished uploads stay: {error.message}")

    def handed(
        self,
        wire: Wire,
        *,
        published: Collection[Published],
        vanished: Collection[str],
        is_whole: bool,
        command: Sequence[str],
    ) -> Handed:
        """What the manifest says of earlier attempts; *command* was started. Raises AccessRefused, StoreUnreachable, Stopped."""
        kept: list[Mapping[str, Any]] = []
        if self.earlier.equal and self.digest == self._claimed.digest:
            own = (record.output(item, attempt=0) for item in published)
            kept = self.earlier.but(own, vanished, prefix=self._opened.job.output)
            if is_whole and not self.is_resumed:
                # What this very solve has sent counts, also where the journal has lost the line that says so: it may be purged.
                here = self._opened.earlier if self._opened.continues else None
                kept = [item for item in kept if here is not None and int(item["attempt"]) >= here.since]
        there, gone = still_there(wire, kept, prefix=self._opened.job.output)
        listed = {*(item.key for item in published), *(str(item["key"]) for item in kept)}
        reason = "the store has it no more, as attempt {} had it acknowledged"
        for item in gone[:_NAMED]:
            self._opened.book.log.error(
                f"could not be published: {printable(str(item.get('path')))}: {reason.format(item.get('attempt'))}"
            )
        return Handed(
            outputs=there,
            lost=[Unpublished(str(item.get("path")), reason.format(item.get("attempt"))) for item in gone],
            stale=sorted({*self.earlier.keys, *self._sent_here, *self.ledger.keys, *vanished} - listed),
            attempts=self.attempts,
            resumed={"command": list(command), "files": [item.document for item in self.resumed]}
            if self.resumed
            else None,
        )

    def delete_stale(self, wire: Wire, keys: Collection[str]) -> None:
        """Objects that an attempt, this or an earlier one, has had acknowledged and that nothing lists now."""
        for key in keys:
            try:
                objects.delete(wire, key)
            except (errors.AccessRefused, errors.StoreRefused) as error:
                self._opened.book.warn(f"an object of an earlier attempt stays: {error.message}")

    def forget(self) -> None:
        """A manifest says now what the inventory said, and more."""
        try:
            self._inventory.remove()
        except errors.ByosError as error:
            self._opened.book.warn(f"the inventory stays: {error.message}")


def _keys_of(opened: Opened) -> set[str]:
    """What the journal of an attempt here knows as acknowledged below this prefix: the inventory may lag behind it."""
    here = opened.earlier
    if here is None or here.output != str(opened.job.output):
        return set()
    sent = (*here.acknowledged.values(), *here.behind)
    own = opened.own_directory
    return {*(item.key for item in sent if item.output.root != own), *here.vanished}
