"""What ends a run from outside, and when it must therefore begin to end: the deadline, the scheduler, the cloud.

    known at the start:  ``deadline``; the end of the Slurm job
    heard of later:      a notice of pre-emption
    the solver is asked to stop when what is left of the time is what is needed:
        the grace + what waits to leave, at the rate at which files have really left + a little

Before enough has left to tell a rate, a tenth of the whole time is kept.

Not promised: that a solver which writes its largest file only when it is asked to stop leaves enough time for it.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Callable

from byos_run.model import Job, Place
from byos_run.node import process
from byos_run.node.pool import Every
from byos_run.node.stop import Stop

_LAST_WORDS_SHARE = 0.05
_LAST_WORDS_S = 5.0
"""At most, kept of any time for the manifest, the purge and the certificate."""
_LAST_WORDS_OF_NOTICE_S = 3.0
_UNMEASURED_SHARE = 0.1
_UNMEASURED_S = (2.0, 900.0)
_ENOUGH_BYTES = 8 << 20
"""Fewer tell how long a request takes, not how fast the way is."""
_SAFETY = 1.25
_FILE_S = 0.005
_USUAL_GRACE_S = 60.0
_LOOKS_S = (0.5, 60.0)
_SQUEUE_S = 5.0
_NOTICE_EVERY_S = 5.0
_SILENT_LOOKS = 3


class Pace:
    """How fast outputs really leave: bytes by the seconds in which at least one was on its way. From any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._bytes = 0
        self._busy_s = 0.0
        self._until_s = 0.0

    def add(self, size_bytes: int, *, seconds: float) -> None:
        """An output of *size_bytes* has just left; it took *seconds*."""
        now = time.monotonic()
        with self._lock:
            self._bytes += size_bytes
            self._busy_s += min(seconds, now - self._until_s)
            self._until_s = now

    @property
    def bytes_per_s(self) -> float | None:
        """None: too little has left to tell."""
        with self._lock:
            return self._bytes / self._busy_s if self._bytes >= _ENOUGH_BYTES and self._busy_s else None


@dataclass(frozen=True)
class Waiting:
    """What would have to leave if the run ended now."""

    files: int
    size_bytes: int


class Reserve:
    """Says when the solver must be asked to stop. Asked by one thread, as often as it likes."""

    def __init__(self, *, stop: Stop, pace: Pace, grace_s: float | None, waiting: Callable[[], Waiting]) -> None:
        """*grace_s*: as the job file says, None: auto. *waiting* may take its time: it is asked seldom."""
        self._stop = stop
        self._pace = pace
        self._grace_s = grace_s
        self._waiting = waiting
        self._whole_s = stop.seconds_left or 0.0
        self._next_look = 0.0

    @property
    def is_due(self) -> bool:
        left_s, now = self._stop.seconds_left, time.monotonic()
        if left_s is None or now < self._next_look:
            return False
        spare_s = left_s - self.needed_s()
        self._next_look = now + min(max(spare_s / 4, _LOOKS_S[0]), _LOOKS_S[1])
        return spare_s <= 0

    def needed_s(self) -> float:
        """Seconds from asking the solver to stop until what it leaves is in the bucket."""
        rate = self._pace.bytes_per_s
        if rate is None:
            return min(max(self._whole_s * _UNMEASURED_SHARE, _UNMEASURED_S[0]), _UNMEASURED_S[1])
        waiting = self._waiting()
        upload_s = waiting.size_bytes / rate * _SAFETY + waiting.files * _FILE_S + _LOOKS_S[0]
        if self._grace_s is not None:
            return self._grace_s + upload_s
        return min(1.5 * upload_s, upload_s + _USUAL_GRACE_S)  # auto: a third of the time left, at most a minute


def know_ends(*, job: Job, place: Place, stop: Stop) -> str:
    """Tell *stop* what is known at the start; what to say of it, or ""."""
    if job.deadline_s is not None:
        _end_in(job.deadline_s, stop=stop, reason="the deadline")
    left_s = _slurm_left_s(place.environ)
    if left_s is None or left_s <= 0:  # a job whose time was prolonged after it began
        return ""
    _end_in(left_s, stop=stop, reason="the end of the Slurm job")
    return f"the Slurm job ends in {left_s / 60:.0f} min; the solver will be stopped early enough to publish"


def _end_in(seconds: float, *, stop: Stop, reason: str) -> None:
    last_words_s = min(_LAST_WORDS_S, _LAST_WORDS_SHARE * seconds)
    stop.end_by(time.monotonic() + seconds - last_words_s, reason=reason)


def _slurm_left_s(environ: Mapping[str, str]) -> float | None:
    """Seconds to the end of the Slurm job that we are; None: there is none, or it has no end."""
    job = environ.get("SLURM_JOB_ID", "")
    if not job.isdigit():
        return None
    end = environ.get("SLURM_JOB_END_TIME", "")
    if end.isdigit():
        return int(end) - time.time()
    told = process.ask(["squeue", "-h", "-j", job, "-o", "%e"], environ=environ, timeout_s=_SQUEUE_S).strip()
    if not re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d", told):  # N/A, or an error's text
        return None
    return datetime.fromisoformat(told).timestamp() - time.time()


@contextmanager
def cloud_watched(*, job: Job, place: Place, stop: Stop, say: Callable[[str], None]) -> Iterator[None]:
    """Around a run: a notice of pre-emption becomes the wish to stop, with the time that it leaves."""
    from byos_run.node.notice import Service, cloud_of

    watch = job.spot.watch
    cloud = "" if watch == "off" else cloud_of(place.environ) if watch == "auto" else watch
    if cloud == "aws" and watch == "auto" and place.environ.get("AWS_EC2_METADATA_DISABLED", "").lower() == "true":
        cloud = ""
    if not cloud:
        yield
        return
    service = Service(cloud, environ=place.environ)
    heard: list[str] = []

    def look() -> None:
        if heard or stop.asked:
            return
        notice = service.look()
        if notice is not None:
            heard.append(notice.text)
            say(f"{notice.text}; {notice.seconds_left:.0f} s are left")
            last_words_s = min(_LAST_WORDS_OF_NOTICE_S, notice.seconds_left / 4)
            stop.end_by(time.monotonic() + notice.seconds_left - last_words_s, reason=notice.text)
            stop.ask_once(notice.text)
        elif service.failures == _SILENT_LOOKS:
            say(f"the metadata service ({cloud}) does not answer: no notice of pre-emption will be heard")

    with Every(_NOTICE_EVERY_S, look, name="notice"):
        yield
