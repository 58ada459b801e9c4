"""Multipart uploads that are not complete, as those who send, remember and end them speak of them. Standard library only."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from byos_run.model import Identity


class PartSent(NamedTuple):
    """A part of a multipart upload that the store has."""

    number: int
    etag: str
    crc32: int
    length: int


@dataclass(frozen=True)
class Begun:
    """A multipart upload that is not complete."""

    key: str
    upload_id: str
    identity: Identity
    """Of the file that is sent."""
    part_bytes: int
    parts: dict[int, PartSent] = field(default_factory=dict)
    """By their number, those that the store has."""


class Uploads(Protocol):
    """Who remembers multipart uploads, for those who come after a crash; ``ledger.Ledger`` is the one there is."""

    @property
    def follows_another(self) -> bool:
        """There were earlier attempts, which may have left uploads of the same keys that nobody could write down."""

    def resumed(self, key: str, identity: Identity, part_bytes: int) -> Begun | None:
        """One that an earlier attempt began for the same, unchanged file."""

    def begins(self, begun: Begun) -> None: ...

    def part_sent(self, upload_id: str, part: PartSent) -> None: ...

    def over(self, key: str, upload_id: str) -> None:
        """Completed, or aborted."""
