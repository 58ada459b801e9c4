"""What byos-run says: one event, two renderings.

For people, on standard output: the event's sentence behind a mark, so that it stands apart from the solver's lines. For
machines, in ``run.log``: one JSON object a line with every fact. Both from the same structlog call:

    log.info("fetched hsdi.zip: 2,018 files", step="fetch", members=2018)

Text from outside is escaped of control characters before it is shown. Progress is a live line on a terminal, a line
every ten seconds elsewhere. Nothing here blocks: the outlet drops what a slow reader does not take.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, MutableMapping
from typing import Any, Callable, Protocol

import structlog

from byos_run.errors import printable

MARK = "byos-run | "
_LONGEST_ETA_S = 48 * 3600


class Outlet(Protocol):
    """Standard output that never blocks; ``node.outlet`` has the one there is."""

    def write(self, lines: bytes) -> None: ...


class Lines:
    """Writes lines for people to *outlet*, and a live line below them on a terminal."""

    def __init__(self, outlet: Outlet, *, width: int = 79) -> None:
        self._outlet = outlet
        self._width = width
        self._live = ""

    def say(self, text: str) -> None:
        self._outlet.write(f"{self._clear()}{MARK}{printable(text)}\n".encode("utf-8", "backslashreplace"))

    def pass_through(self, data: bytes) -> None:
        """The solver's own output, as it is."""
        self._outlet.write((self._clear().encode() + data) if self._live else data)

    def live(self, text: str) -> None:
        """Replace the live line; "" removes it. Only called on a terminal."""
        before = self._clear()
        self._live = f"{MARK}{text}"[: self._width]
        self._outlet.write(f"{before}{self._live}".encode() if text else before.encode())
        if not text:
            self._live = ""

    def _clear(self) -> str:
        text, self._live = ("\r\x1b[K" if self._live else ""), ""
        return text


def logger(*, lines: Lines, write_json: Callable[[str], None], clock: Callable[[], float] = time.time) -> Any:
    """A structlog logger over both renderings. *write_json* takes one line with its newline; it must not raise."""

    def stamp(_logger: Any, level: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        event["at"] = round(clock(), 3)
        event["level"] = level
        return event

    def render(_logger: Any, level: str, event: MutableMapping[str, Any]) -> str:
        write_json(json.dumps(event, default=str, sort_keys=True) + "\n")
        if level == "debug":
            raise structlog.DropEvent
        prefix = {"warning": "warning: ", "error": "error: ", "critical": "error: "}.get(level, "")
        text = printable(prefix + str(event["event"]))  # a name with a newline in it must not pass for a hint
        hint = event.get("hint")
        return f"{text}\n{hint}" if hint else text

    class Sink:
        """What structlog calls with the rendered text."""

        def msg(self, text: str) -> None:
            head, _, hint = text.partition("\n")
            lines.say(head)
            if hint:
                lines.say(f"hint: {hint}")

        debug = info = warning = error = critical = msg

    return structlog.wrap_logger(
        Sink(), processors=[stamp, structlog.processors.format_exc_info, render], wrapper_class=structlog.BoundLogger
    )


class Progress:
    """Shows how far a phase is; called every second by a timer, says something every ten where there is no terminal."""

    _SAY_EVERY_S = 10.0

    def __init__(self, lines: Lines, *, is_terminal: bool, describe: Callable[[], str]) -> None:
        self._lines = lines
        self._is_terminal = is_terminal
        self._describe = describe
        self._said_at = time.monotonic()

    def __call__(self) -> None:
        if self._is_terminal:
            self._lines.live(self._describe())
        elif time.monotonic() - self._said_at >= self._SAY_EVERY_S:
            self._said_at = time.monotonic()
            self._lines.say(self._describe())


def size(count: float) -> str:
    """Bytes for people, decimal: 0 B, 812 B, 4.5 kB, 320 MB, 1.07 GB."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 999.5:
            return f"{count:.0f} B" if unit == "B" else f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} TB"


def rate(count: float, seconds: float) -> str:
    return f"{size(count / max(seconds, 1e-3))}/s"


def duration(seconds: float) -> str:
    """Seconds for people: 0.9 s, 48 s, 3 min 05 s, 2 h 10 min."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 100:
        return f"{whole} s"
    if whole < 6000:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def count(number: int, noun: str, plural: str | None = None) -> str:
    """``1 file``, ``2,018 files``."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def eta(done: int, total: int, bytes_per_s: float) -> str:
    """How long the rest takes at this rate; "" when it cannot be told."""
    if total <= done or bytes_per_s < 1 or (total - done) / bytes_per_s > _LONGEST_ETA_S:
        return ""
    return f", {duration((total - done) / bytes_per_s)} left"


def facts(values: Mapping[str, Any]) -> dict[str, Any]:
    """*values* without those that say nothing."""
    return {name: value for name, value in values.items() if value not in (None, "", 0, (), {}, [])}
