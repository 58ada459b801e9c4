"""What a run will move, how long that takes at the rates just measured, and what its requests cost. Pure; an estimate.

Not in it: the outputs, which only the solver knows: their rate is told, and one PUT for each.
"""

from __future__ import annotations

from dataclasses import dataclass

from byos_run import log

_PART_BYTES = 4 << 20
_OWN_READS, _OWN_WRITES = 10, 15
"""Requests for the run's own records in an ordinary run of some minutes."""
_READ_USD, _WRITE_USD = 0.0004 / 1000, 0.005 / 1000
"""S3 Standard, us-east-1: GET, HEAD; PUT, POST, LIST. https://aws.amazon.com/s3/pricing/"""


@dataclass(frozen=True)
class Plan:
    """Figures that could not be had are None."""

    objects: int
    bytes_in: int
    members: int | None
    """Files and links that the archives name; None if one is a tar, which has no directory."""
    peak_disk_bytes: int | None
    fetch_seconds: float | None
    read_bytes_per_s: float | None
    write_bytes_per_s: float | None
    reads: int
    writes: int

    @property
    def cost_usd(self) -> float:
        return self.reads * _READ_USD + self.writes * _WRITE_USD


def plan_for(
    *,
    sizes_bytes: list[int],
    members: int | None,
    unpacked_bytes: int | None,
    read_bytes_per_s: float | None,
    write_bytes_per_s: float | None,
) -> Plan:
    """*sizes_bytes*: of each input object."""
    bytes_in = sum(sizes_bytes)
    return Plan(
        objects=len(sizes_bytes), bytes_in=bytes_in, members=members, peak_disk_bytes=unpacked_bytes,
        fetch_seconds=bytes_in / read_bytes_per_s if read_bytes_per_s else None,
        read_bytes_per_s=read_bytes_per_s, write_bytes_per_s=write_bytes_per_s,
        reads=_OWN_READS + sum(2 + size // _PART_BYTES for size in sizes_bytes), writes=_OWN_WRITES,
    )  # fmt: skip


def lines_of(plan: Plan) -> list[str]:
    """For people; what is not known is left out."""
    files = (
        log.count(plan.members, "member") if plan.members is not None else "members not known: a tar has no directory"
    )
    found = [f"{log.count(plan.objects, 'object')}, {log.size(plan.bytes_in)}; {files}"]
    if plan.peak_disk_bytes is not None:
        found.append(f"peak disk {log.size(plan.peak_disk_bytes)}, and what the solver writes")
    if plan.fetch_seconds is not None and plan.read_bytes_per_s:
        found.append(f"fetch about {log.duration(plan.fetch_seconds)} at {log.size(plan.read_bytes_per_s)}/s")
    if plan.write_bytes_per_s:
        per_gb = log.duration(1e9 / plan.write_bytes_per_s)
        found.append(f"publish about {per_gb} for each GB at {log.size(plan.write_bytes_per_s)}/s")
    found.append(
        f"estimated requests: {plan.reads:,} reads, {plan.writes:,} writes, one more for each output and 16 MiB; "
        f"about ${plan.cost_usd:.4f} at S3's list prices"
    )
    return found
