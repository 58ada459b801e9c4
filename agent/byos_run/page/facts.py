"""What a manifest tells, as values that can be drawn: it comes from a bucket, so every type is looked at.

A part that is missing or is not what it should be becomes nothing, 0 or "": a page is drawn from what there is.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

SOLVE = "solve"
PUBLISH = "publish"


@dataclass(frozen=True)
class Span:
    """A phase of a run."""

    name: str
    started_at: float
    """Seconds since 1970 UTC."""
    seconds: float
    size_bytes: int = 0
    files: int = 0

    @property
    def ended_at(self) -> float:
        return self.started_at + self.seconds


@dataclass(frozen=True)
class File:
    path: str
    size_bytes: int
    crc32: str
    mtime_s: float
    seconds: float


@dataclass(frozen=True)
class Facts:
    """One attempt at one run."""

    place: str
    """``s3://BUCKET/PREFIX/``"""
    status: str
    """complete | solver-failed | partial | interrupted; of a run without a manifest, also running | stale | refused | waiting."""
    exit_code: int | None = None
    whose: str = ""
    error: str = ""
    cause: str = ""
    """Of the solver's failure, in one line."""
    stopped_by: str = ""
    started_at: float = 0.0
    ended_at: float = 0.0
    spans: tuple[Span, ...] = ()
    was_solved: bool = True
    """The solver was started."""
    solver_s: float = 0.0
    cores: int = 0
    peak_memory_bytes: int = 0
    host: str = ""
    attempt: int = 0
    command: tuple[str, ...] = ()
    input_bytes: int = 0
    unpacked_bytes: int = 0
    files: int = 0
    size_bytes: int = 0
    """Of all outputs."""
    unpublished: int = 0
    results: Mapping[str, float] = field(default_factory=dict)
    price_core_hour: float = 0.0
    price_gb: float = 0.0

    @property
    def name(self) -> str:
        """The last component of the place."""
        return self.place.rstrip("/").rpartition("/")[2]

    @property
    def wall_s(self) -> float:
        return max(0.0, self.ended_at - self.started_at)

    @property
    def late_bytes(self) -> int:
        """What was acknowledged after the solver's end."""
        return sum(span.size_bytes for span in self.spans if span.name == PUBLISH)

    @property
    def early_bytes(self) -> int:
        """Of the outputs, what had left while the solver ran, and was still right at its end."""
        beside = sum(span.size_bytes for span in self.spans if span.name == SOLVE)
        return max(0, min(beside, self.size_bytes - self.late_bytes))

    @property
    def tail_s(self) -> float:
        """From the solver's end to the last acknowledged output."""
        return sum(span.seconds for span in self.spans if span.name == PUBLISH)

    @property
    def core_hours(self) -> float:
        return self.cores * self.wall_s / 3600

    @property
    def cost(self) -> float:
        """By the prices of the job file; 0 where it has none."""
        return self.core_hours * self.price_core_hour + self.size_bytes / 1e9 * self.price_gb

    @property
    def saved_s(self) -> float:
        """How much longer the cores would have been held, had all that left early left after the solver's end.

        At the rate at which this run moved bytes while nothing else ran: that of its tail, else that of its fetch.
        """
        for name in (PUBLISH, "fetch"):
            for span in self.spans:
                if span.name == name and span.size_bytes >= _TELLING_BYTES and span.seconds > 0:
                    return self.early_bytes * span.seconds / span.size_bytes
        return 0.0


_TELLING_BYTES = 1_000_000


def facts_of(manifest: Mapping[str, Any], *, place: str) -> Facts:
    """The facts of a run whose manifest was found below *place*."""
    solver = mapping_of(manifest.get("solver"))
    price = mapping_of(manifest.get("price"))
    inputs = mappings_of(manifest.get("inputs"))
    sizes = array("d", (number(item.get("bytes")) for item in outputs_of(manifest)))
    code = manifest.get("exit_code")
    return Facts(
        place=place, status=_text(manifest.get("status")) or "unknown", whose=_text(manifest.get("exit_code_is")),
        exit_code=code if isinstance(code, int) else None, error=_text(manifest.get("error")),
        cause=_text(solver.get("cause")), stopped_by=_text(solver.get("stopped_by")),
        started_at=number(manifest.get("started_at")), ended_at=number(manifest.get("ended_at")),
        spans=tuple(_spans(manifest.get("phases"))), was_solved=bool(solver), solver_s=number(solver.get("seconds")),
        cores=int(number(solver.get("cores"))), peak_memory_bytes=int(number(solver.get("peak_memory_bytes"))),
        host=_text(mapping_of(manifest.get("host")).get("name")), attempt=int(number(manifest.get("attempt"))),
        command=tuple(texts_of(manifest.get("command"))),
        input_bytes=sum(int(number(item.get("bytes"))) for item in inputs),
        unpacked_bytes=sum(int(number(item.get("unpacked_bytes"))) for item in inputs),
        files=len(sizes), size_bytes=sum(map(int, sizes)),
        unpublished=len(_list(manifest.get("unpublished"))),
        results={str(name): float(value) for name, value in mapping_of(manifest.get("results")).items() if _is_number(value)},
        price_core_hour=number(price.get("core_hour")), price_gb=number(price.get("gb")),
    )  # fmt: skip


def outputs_of(manifest: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """What a manifest lists; one at a time, as there may be 100,000."""
    listed = manifest.get("outputs")
    if isinstance(listed, Sequence) and not isinstance(listed, (str, bytes)):
        yield from (item for item in listed if isinstance(item, dict))


def file_of(item: Mapping[str, Any]) -> File:
    """One of the outputs that a manifest lists."""
    return File(
        _text(item.get("path")), int(number(item.get("bytes"))), _text(item.get("crc32")), number(item.get("mtime")),
        number(item.get("seconds")),
    )  # fmt: skip


def mappings_of(value: object) -> list[Mapping[str, Any]]:
    """The members of *value* that are JSON objects."""
    return [item for item in _list(value) if isinstance(item, dict)]


def texts_of(value: object) -> list[str]:
    """The members of *value* that are texts."""
    return [item for item in _list(value) if isinstance(item, str)]


def number(value: object) -> float:
    """A finite number that is not negative; anything else is 0."""
    return float(value) if _is_number(value) and value >= 0 else 0.0  # type: ignore[operator, arg-type]  # just seen to be one


def _is_number(value: object) -> bool:
    return (
        isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 1e18 and math.isfinite(value)
    )


def _spans(phases: object) -> Iterator[Span]:
    for item in mappings_of(phases):
        yield Span(
            _text(item.get("name")), number(item.get("started_at")), number(item.get("seconds")),
            int(number(item.get("bytes"))), int(number(item.get("files"))),
        )  # fmt: skip


def mapping_of(value: object) -> Mapping[str, Any]:
    """*value*, if it is a JSON object; else none of it."""
    return value if isinstance(value, dict) else {}


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""
