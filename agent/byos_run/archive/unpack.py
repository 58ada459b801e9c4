"""The way in: what an object will become, and its becoming so, below one directory only.

    plan = plan_of(source, limits=…)  or  plan_file(source, path=…)
    merge_check([plan, …])
    unpack_into(plan, source, into=stage, …) ▶ Unpacked

Two pools: *readers* run nothing but ``source.read``; *workers* decode. Workers wait for readers, the calling thread
for both, readers for nobody: it cannot lock up, if the caller is a thread of neither pool. Whatever is raised, the
stage holds rubbish and must go.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from byos_run.archive.kinds import HEAD_BYTES, kind_of, wrong_content
from byos_run.archive.plan import Limits, Plan, collision
from byos_run.archive.tar import plan_tar
from byos_run.archive.untar import untar
from byos_run.archive.unzip import Ahead, Unzip
from byos_run.archive.writer import Collision
from byos_run.archive.zip import plan_zip
from byos_run.errors import BadInput
from byos_run.model import ByteSource, Pool, Stop, Tally


@dataclass(frozen=True)
class Unpacked:
    """What an input became."""

    files: int
    """Files and links."""
    bytes_out: int
    """Of the files."""
    warnings: tuple[str, ...] = ()
    crc: int = 0
    """Of a plain file."""


def plan_of(source: ByteSource, *, limits: Limits) -> Plan:
    """The plan of the archive *source*, all checked that its directory tells. Raises BadInput, what ``read`` raises."""
    kind = kind_of(source.url.name)
    if kind is None:
        raise ValueError(f"{source.url} is no archive by its name")
    if not source.size_bytes:
        raise wrong_content(source, b"", kind)
    if kind == "zip":
        return plan_zip(source, limits=limits)
    return plan_tar(source, kind=kind, head=bytes(source.read(0, min(source.size_bytes, HEAD_BYTES))))


def unpack_into(
    plan: Plan,
    source: ByteSource,
    *,
    into: int,
    readers: Pool,
    workers: Pool,
    tally: Tally,
    stop: Stop,
    limits: Limits,
    beside: Iterable[Plan] = (),
    kept: Sequence[int] = b"",
) -> Unpacked:
    """Everything of *plan* into the directory open as *into*, every member proved.

    *into* may hold what other inputs of the run, *beside*, made there: directories are shared, a file that is there
    already is refused, both inputs named. *kept*: 1 for each member of a zip that is there, proved.
    Raises BadInput, NodeUnfit, Stopped, what ``ByteSource.read`` raises.
    """
    ahead = Ahead.of(workers.width)
    try:
        if plan.kind in ("zip", "file"):
            unzip = Unzip(plan, source, into=into, readers=readers, tally=tally, stop=stop, ahead=ahead, kept=kept)
            unzip.run(workers)
            return Unpacked(plan.files, plan.total_bytes, plan.warnings, unzip.crc)
        members = untar(
            plan, source, into=into, readers=readers, workers=workers, tally=tally, stop=stop, limits=limits
        )
        return Unpacked(members.files, members.bytes_out, plan.warnings)
    except Collision as error:
        raise _named(error, plan, beside) from None


def _named(error: Collision, plan: Plan, beside: Iterable[Plan]) -> BadInput:
    """*error* with the name of the other input, as far as it can be known: a tar has no directory to look it up in."""
    others = [other for other in beside if other.url != plan.url]
    owner = next((other for other in others if error.path in other.paths()), None)
    tars = [other for other in others if not other.exact]
    if owner is None and len(tars) == 1:
        owner = tars[0]
    if owner is not None:
        return collision(error.path, owner.url, plan.url)
    return collision(error.path, " or ".join(str(tar.url) for tar in tars), plan.url) if tars else error
