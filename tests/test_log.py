"""Lines for people, and the live one below them, on screens of three widths."""

from __future__ import annotations

import pyte
import pytest

from byos_run.log import Lines, Parts, Progress, logger
from byos_run.terminal import Terminal


class Sheet:
    """An outlet and a terminal in one: what is written is shown by an emulator."""

    def __init__(self, columns=80, rows=24, *, is_live=True):
        self.columns, self.rows, self.is_live, self.raw = columns, rows, is_live, b""
        self._screen = pyte.Screen(columns, rows)
        self._stream = pyte.ByteStream(self._screen)

    def write(self, lines):
        self.raw += lines
        self._stream.feed(lines.replace(b"\n", b"\r\n"))  # as a terminal's driver does

    def paint(self, text, colour):
        return text

    @property
    def shown(self):
        return "\n".join(line.rstrip() for line in self._screen.display).rstrip("\n").split("\n")


def parts(share):
    return Parts(
        "publish: ",
        [(1, [f"{share} %"]), (4, ["78.2 MB of 174 MB"]), (5, ["2,018 files"]), (3, ["320 MB/s"]), (2, ["45 s left"])],
    )


@pytest.mark.parametrize(
    ("columns", "line"),
    [
        (200, "byos-run | publish: 45 %, 78.2 MB of 174 MB, 2,018 files, 320 MB/s, 45 s left"),
        (80, "byos-run | publish: 45 %, 78.2 MB of 174 MB, 2,018 files, 320 MB/s, 45 s left"),
        (70, "byos-run | publish: 45 %, 78.2 MB of 174 MB, 320 MB/s, 45 s left"),
        (60, "byos-run | publish: 45 %, 320 MB/s, 45 s left"),
        (40, "byos-run | publish: 45 %, 45 s left"),
        (30, "byos-run | publish: 45 %"),
        (16, "byos-run | pub…"),
        (5, "byo…"),
    ],
    ids=str,
)
def test_the_live_line_is_one_line_at_any_width(columns, line):
    """What is worth least is left out; the line never wraps, and the next one is drawn where it stood."""
    sheet = Sheet(columns)
    lines = Lines(sheet, terminal=sheet)
    for share in (9, 100, 45):
        lines.live(parts(share))
    assert [line] == sheet.shown
    lines.live("")
    assert [""] == sheet.shown


def test_lines_go_above_the_live_one_and_nothing_is_cleared_before_it_is_drawn_over():
    """No flicker: a frame starts at the line's beginning and clears what is left of the one before."""
    sheet = Sheet(60)
    lines = Lines(sheet, terminal=sheet)
    lines.live(parts(44))
    lines.say("a sentence")
    lines.live(parts(45))
    lines.live(parts(46))
    lines.pass_through(b"step 100\n")
    lines.live(parts(47))

    assert ["byos-run | a sentence", "step 100", "byos-run | publish: 47 %, 320 MB/s, 45 s left"] == sheet.shown
    assert b"45 s left\x1b[K\rbyos-run | publish: 46 %" in sheet.raw
    lines.live("")
    assert ["byos-run | a sentence", "step 100"] == sheet.shown


@pytest.mark.parametrize(
    ("volume", "told"),
    [(-1, ["warning: w", "error: e", "hint: h", "exit"]), (0, ["i", "warning: w", "error: e", "hint: h", "exit"]),
     (1, ["d", "i", "warning: w", "error: e", "hint: h", "detail", "exit"])],
    ids=["quiet", "usual", "verbose"],
)  # fmt: skip
def test_quiet_and_verbose(volume, told):
    """Quiet keeps warnings, errors and the last line; the log of the run has everything, always."""
    sheet, kept = Sheet(is_live=False), []
    lines = Lines(sheet, terminal=sheet, volume=volume)
    log = logger(lines=lines, write_json=kept.append)
    log.debug("d")
    log.info("i")
    log.warning("w")
    log.error("e", hint="h")
    lines.detail("detail")
    Progress(lines, describe=lambda: parts(1))()
    lines.say("exit")

    assert [f"byos-run | {text}" for text in told] == sheet.shown
    assert 4 == len(kept)
    assert b"\x1b" not in sheet.raw


def test_colours_are_of_the_terminal_alone():
    """A warning is yellow, an error red; a name from outside cannot paint."""
    import os

    master, slave = os.openpty()
    sheet = Sheet()
    lines = Lines(sheet, terminal=Terminal(slave, {"TERM": "xterm"}))
    log = logger(lines=lines, write_json=lambda _: None)
    log.warning("a \x1b[31m name")
    os.close(slave)
    os.close(master)

    assert b"byos-run | \x1b[33mwarning: a \\x1b[31m name\x1b[m\n" == sheet.raw
