"""What byos-run says: one event, two renderings.

For people, on standard output: the event's sentence behind a mark, so that it stands apart from the solver's lines. For
machines, in ``run.log``: one JSON object a line with every fact. Both from the same structlog call:

    log.info("fetched hsdi.zip: 2,018 files", step="fetch", members=2018)

Text from outside is escaped of control characters before it is shown. Progress is a live line on a terminal, cut to its width
and written over in one write; elsewhere a line every ten seconds. Quiet, only warnings, errors and the last line are
said; verbose, details too. Nothing here blocks: the outlet drops what a slow reader does not take.
"""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Mapping, MutableMapping, Sequence
from typing import Any, Callable, Protocol

import structlog

from byos_run.errors import printable
from byos_run.terminal import Terminal, columns_of, cut

MARK = "byos-run | "
TICK_S = 0.5
"""How often a live line is drawn."""
_SAY_EVERY_S = 10.0
_LONGEST_ETA_S = 48 * 3600


class Outlet(Protocol):
    """Standard output that never blocks; ``node.outlet`` has the one there is."""

    def write(self, lines: bytes) -> None: ...


class Lines:
    """Writes lines for people to *outlet*, and a live line below them where *terminal* can show one."""

    def __init__(self, outlet: Outlet, *, terminal: Terminal, volume: int = 0) -> None:
        """*volume*: -1 quiet, 0, 1 verbose."""
        self._outlet = outlet
        self._terminal = terminal
        self._live = ""
        self._lock = threading.Lock()
        self.is_live = terminal.is_live and volume >= 0
        self.is_quiet = volume < 0
        self.is_verbose = volume > 0

    def say(self, text: str, *, colour: str = "") -> None:
        line = f"{MARK}{self._terminal.paint(printable(text), colour)}"
        with self._lock:
            self._outlet.write(f"{self._clear()}{line}\n".encode("utf-8", "backslashreplace"))

    def detail(self, text: str) -> None:
        """Said only if it is asked for."""
        if self.is_verbose:
            self.say(text, colour="dim")

    def pass_through(self, data: bytes) -> None:
        """The solver's own output, as it is."""
        with self._lock:
            self._outlet.write((self._clear().encode() + data) if self._live else data)

    def live(self, text: str | Parts) -> None:
        """Write *text* over the live line; "" removes it. Nothing where there is no terminal."""
        if not self.is_live:
            return
        width = max(1, self._terminal.columns - 1)  # the last column would move the cursor on to the next line
        shown = text.within(width - len(MARK)) if isinstance(text, Parts) else text
        with self._lock:
            if shown:
                # What is there already is written over before the rest is cleared: cleared first, it would blink.
                before = "\r" if self._live else ""
                self._live = cut(f"{MARK}{shown}", width)
                self._outlet.write(f"{before}{self._live}\x1b[K".encode())
            elif self._live:
                self._outlet.write(self._clear().encode())

    def _clear(self) -> str:
        text, self._live = ("\r\x1b[K" if self._live else ""), ""
        return text


class Parts:
    """A line of progress that loses what is worth least where it does not fit."""

    def __init__(self, head: str, parts: Sequence[tuple[int, Sequence[str]]]) -> None:
        """*parts* in the order of the line, each with its rank (1 stays longest) and its words, or none."""
        self._head = head
        self._parts = [(rank, text) for rank, words in parts for text in words]

    def __str__(self) -> str:
        return self._head + ", ".join(text for _, text in self._parts)

    def within(self, width: int) -> str:
        """The line in at most *width* columns."""
        for worst in range(max((rank for rank, _ in self._parts), default=0) + 1, 0, -1):
            line = self._line(worst)
            if columns_of(line) <= width:
                return line
        return cut(self._line(1), max(1, width))

    def _line(self, below: int) -> str:
        return self._head + ", ".join(text for rank, text in self._parts if rank < below)


def logger(*, lines: Lines, write_json: Callable[[str], None], clock: Callable[[], float] = time.time) -> Any:
    """A structlog logger over both renderings. *write_json* takes one line with its newline; it must not raise."""

    def stamp(_logger: Any, level: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        event["at"] = round(clock(), 3)
        event["level"] = level
        return event

    def render(_logger: Any, level: str, event: MutableMapping[str, Any]) -> str:
        write_json(json.dumps(event, default=str, sort_keys=True) + "\n")
        if (level == "debug" and not lines.is_verbose) or (level in ("debug", "info") and lines.is_quiet):
            raise structlog.DropEvent
        prefix = {"warning": "warning: ", "error": "error: ", "critical": "error: "}.get(level, "")
        text = printable(prefix + str(event["event"]))  # a name with a newline in it must not pass for a hint
        hint = event.get("hint")
        return f"{text}\n{hint}" if hint else text

    class Sink:
        """What structlog calls with the rendered text."""

        def info(self, text: str) -> None:
            self._say(text, "")

        def warning(self, text: str) -> None:
            self._say(text, "yellow")

        def error(self, text: str) -> None:
            self._say(text, "red")

        def _say(self, text: str, colour: str) -> None:
            head, _, hint = text.partition("\n")
            lines.say(head, colour=colour)
            if hint:
                lines.say(f"hint: {hint}")

        debug, critical = info, error

    return structlog.wrap_logger(
        Sink(), processors=[stamp, structlog.processors.format_exc_info, render], wrapper_class=structlog.BoundLogger
    )


class Progress:
    """Shows how far a phase is; called by a timer, says something every ten seconds where there is no terminal."""

    def __init__(self, lines: Lines, *, describe: Callable[[], Parts]) -> None:
        self._lines = lines
        self._describe = describe
        self._said_at = time.monotonic()

    def __call__(self) -> None:
        if self._lines.is_live:
            self._lines.live(self._describe())
        elif not self._lines.is_quiet and time.monotonic() - self._said_at >= _SAY_EVERY_S:
            self._said_at = time.monotonic()
            self._lines.say(str(self._describe()))


def size(count: float) -> str:
    """Bytes for people, decimal: 0 B, 812 B, 4.5 kB, 320 MB, 1.07 GB."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 999.5:
            return f"{count:.0f} B" if unit == "B" else f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} TB"


def natural(text: str) -> tuple[tuple[bool, int, str], ...]:
    """A key to sort by: run-2 before run-10."""
    return tuple((part.isdecimal(), int(part) if part.isdecimal() else 0, part) for part in re.split(r"(\d+)", text))


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


def eta(seconds: float | None) -> list[str]:
    """How long the rest takes, for a line of progress; nothing if it is not known."""
    text = about(seconds)
    return [f"{text} left"] if text else []


def about(seconds: float | None) -> str:
    """Seconds as coarse as a forecast is: 14 s, 45 s, 3 min 20 s, 26 min, 2 h 10 min; "" if it is not known."""
    if seconds is None or seconds > _LONGEST_ETA_S:
        return ""
    step = next((step for limit, step in ((20, 1), (100, 5), (600, 10)) if seconds < limit), 60)
    rounded = max(step, round(seconds / step) * step)
    if rounded < 100:
        return f"{rounded} s"
    return f"{rounded // 60} min" if 600 <= rounded < 6000 else duration(rounded)


def facts(values: Mapping[str, Any]) -> dict[str, Any]:
    """*values* without those that say nothing."""
    return {name: value for name, value in values.items() if value not in (None, "", 0, (), {}, [])}
