"""How a run stands, from its heartbeat: what is said, how old it is, and whether somebody has to look.

::

    over, exit 0                              done
    over, any other exit                      failed
    not over, the heartbeat older than lease  stale: its node is gone, or has lost the store
    not over                                  running
    no heartbeat, but in the table            waiting

Ages are by the store's clock: when it says that the object was written, against its own ``Date``. A heartbeat comes from a bucket
and from any version of this program: a part that is missing or of another type says nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from byos_run.errors import printable
from byos_run.model import S3Url

STATES = ("stale", "failed", "unknown", "running", "waiting", "done")
"""First what needs attention."""
_LEASE_S = 180.0
_LONGEST = 500


@dataclass(frozen=True)
class Standing:
    """One run, as the bucket tells."""

    prefix: S3Url
    state: str
    phase: str = ""
    exit_code: int | None = None
    attempt: int = 0
    host: str = ""
    bytes_done: int = 0
    bytes_total: int | None = None
    bytes_per_s: float = 0.0
    eta_s: float | None = None
    """Seconds until the phase is over, by the run's own word, less the age of that word."""
    age_s: float = 0.0
    """Of the heartbeat."""
    lease_s: float = _LEASE_S
    phase_s: float = 0.0
    """How long the phase lasts so far."""
    run_s: float = 0.0
    """From the run's start to its last heartbeat."""
    waiting_bytes: int = 0
    """Of files that have settled and have not left yet."""
    tail_s: float | None = None
    """How long they would take, if the solver ended now."""
    disk_full_in_s: float | None = None
    """None: it is not filling."""
    last_line: str = ""
    """Of the solver's output; of a run that failed its cause, if it told one."""

    @property
    def has_ended(self) -> bool:
        return self.state in ("done", "failed")

    @property
    def is_lost(self) -> bool:
        """Stale for so long that nobody will come back to it: an outage of the store would be over."""
        return self.state == "stale" and self.age_s > 3 * self.lease_s

    def document(self) -> dict[str, Any]:
        values = asdict(self)
        return {**values, "prefix": str(self.prefix), "age_s": round(self.age_s, 1), "run_s": round(self.run_s, 1)}


def standing_of(prefix: S3Url, status: Mapping[str, Any], *, age_s: float) -> Standing:
    """*status* is a ``status.json`` that was written *age_s* seconds ago."""
    phase, exit_code = _text(status, "phase"), _whole(status, "exit_code")
    lease_s = _number(status, "lease_s") or _LEASE_S
    lines = status.get("last_lines")
    lasts = [line for line in lines if isinstance(line, str) and line.strip()] if isinstance(lines, list) else []
    phases = status.get("phases")
    spent_s = sum(_finite(each) or 0.0 for each in phases.values()) if isinstance(phases, dict) else 0.0
    run_s = max(0.0, _number(status, "at") - _number(status, "started_at"))
    eta_s = _finite(status.get("eta_s"))
    leaving = status.get("publishing")
    leaving = leaving if isinstance(leaving, dict) else {}
    is_over = phase == "over"
    return Standing(
        prefix=prefix,
        state=_state(phase, exit_code, is_stale=age_s > lease_s),
        phase=phase,
        exit_code=exit_code,
        attempt=_whole(status, "attempt") or 0,
        host=_text(status, "host"),
        bytes_done=_whole(status, "bytes") or 0,
        bytes_total=_whole(status, "of_bytes"),
        bytes_per_s=_number(leaving, "bytes_per_s") if phase == "solve" else _number(status, "bytes_per_s"),
        eta_s=None if eta_s is None or is_over else max(0.0, eta_s - age_s),
        age_s=age_s,
        lease_s=lease_s,
        phase_s=0.0 if is_over else max(0.0, run_s - spent_s),
        run_s=run_s,
        waiting_bytes=0 if is_over else _whole(leaving, "bytes_waiting") or 0,
        tail_s=None if is_over else _finite(leaving.get("tail_s")),
        disk_full_in_s=None if is_over else _finite(leaving.get("disk_full_in_s")),
        last_line=_text(status, "cause") or (printable(lasts[-1])[:_LONGEST] if lasts else ""),
    )


def _state(phase: str, exit_code: int | None, *, is_stale: bool) -> str:
    if not phase:
        return "unknown"
    if phase == "over":
        return "unknown" if exit_code is None else "failed" if exit_code else "done"
    return "stale" if is_stale else "running"


def _text(status: Mapping[str, Any], name: str) -> str:
    value = status.get(name)
    return printable(value)[:_LONGEST] if isinstance(value, str) else ""


def _whole(status: Mapping[str, Any], name: str) -> int | None:
    value = status.get(name)
    return value if isinstance(value, int) and not isinstance(value, bool) and abs(value) < 1 << 63 else None


def _number(status: Mapping[str, Any], name: str) -> float:
    return _finite(status.get(name)) or 0.0


def _finite(value: Any) -> float | None:
    """*value* as a number; None if it is none, or one that no clock or counter gives."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return float(value) if abs(value) < 1e18 else None
