"""What a terminal can show: how wide it is, whether lines may be drawn over, colours, and tables that fit.

A terminal is live if the descriptor is one and TERM is not "dumb"; only then is a control code written. NO_COLOR, set and not
empty, leaves out the colours and nothing else. Widths are columns: East Asian wide characters have two, combining ones none.
"""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

USUAL_COLUMNS = 80
_COLOURS = {"red": "31", "green": "32", "yellow": "33", "cyan": "36", "dim": "2", "bold": "1"}
_WIDE = frozenset("WF")


class Terminal:
    """What *descriptor* leads to; *environ* is the environment we were started with."""

    def __init__(self, descriptor: int, environ: Mapping[str, str]) -> None:
        self._descriptor = descriptor
        self._environ = environ
        try:
            is_terminal = os.isatty(descriptor)
        except OSError:
            is_terminal = False
        self.is_live = is_terminal and environ.get("TERM") != "dumb"
        self._has_colour = self.is_live and not environ.get("NO_COLOR")

    @property
    def columns(self) -> int:
        """As they are now: a window may be drawn larger while we run."""
        return self._size()[0]

    @property
    def rows(self) -> int:
        return self._size()[1]

    def _size(self) -> tuple[int, int]:
        try:
            columns, rows = os.get_terminal_size(self._descriptor)
        except OSError:
            columns = rows = 0
        given = self._environ.get("COLUMNS", "")
        return columns or (int(given) if given.isdecimal() and given != "0" else USUAL_COLUMNS), rows or 24

    def paint(self, text: str, colour: str) -> str:
        """*text* in *colour*, a name of this module; as it is where there are no colours."""
        return f"\x1b[{_COLOURS[colour]}m{text}\x1b[m" if colour and self._has_colour else text


class Screen:
    """Lines that are drawn over in place, at the end of what a terminal shows.

    Each frame is one write: the cursor goes up to the first line, every line is written over and cleared to its end, and what
    the frame before had more is cleared. Nothing blinks, and nothing scrolls as long as a frame is lower than the terminal.
    """

    def __init__(self) -> None:
        self._height = 0

    def frame(self, lines: Sequence[str]) -> str:
        """What to write so that *lines*, each of which fits into the width, are shown instead of the last frame."""
        up = f"\x1b[{self._height}A" if self._height else ""
        self._height = len(lines)
        return up + "\r" + "".join(f"{line}\x1b[K\n" for line in lines) + "\x1b[J"


@dataclass(frozen=True)
class Column:
    """One column of a table."""

    title: str
    cells: Sequence[str]
    """One for each row; printable."""
    worth: int
    """When it is too narrow for all, columns of the least worth go first."""
    is_number: bool = False
    """Set to the right."""
    least: int = 0
    """Columns that it can shrink to; 0: it does not shrink."""
    cut_left: bool = False
    """What is too long loses its start, not its end."""


def table(columns: Sequence[Column], *, width: int | None) -> list[str]:
    """Title and rows, two blanks between columns, no line wider than *width*; None: as wide as it is."""
    widths = {id(column): max(map(columns_of, (column.title, *column.cells))) for column in columns}
    shown = list(columns)
    if width is not None:
        while (
            len(shown) > 1
            and sum(column.least or widths[id(column)] for column in shown) + 2 * (len(shown) - 1) > width
        ):
            shown.remove(min(shown, key=lambda column: column.worth))
        for column in sorted((column for column in shown if column.least), key=lambda column: column.worth):
            over = sum(widths[id(column)] for column in shown) + 2 * (len(shown) - 1) - width
            widths[id(column)] = max(column.least, widths[id(column)] - max(0, over))
    lines = []
    for row in range(-1, len(shown[0].cells)):
        cells = [_cell(column, row, widths[id(column)]) for column in shown]
        line = "  ".join(cells).rstrip()
        lines.append(line if width is None else cut(line, width))
    return lines


def _cell(column: Column, row: int, width: int) -> str:
    text = cut(column.title if row < 0 else column.cells[row], width, left=column.cut_left)
    blanks = " " * (width - columns_of(text))
    return blanks + text if column.is_number else text + blanks


def columns_of(text: str) -> int:
    """How many columns of a terminal *text*, which is printable, takes."""
    if text.isascii():
        return len(text)
    return sum(_columns_of_one(character) for character in text)


def _columns_of_one(character: str) -> int:
    if unicodedata.combining(character) or unicodedata.category(character) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(character) in _WIDE else 1


def cut(text: str, width: int, *, left: bool = False) -> str:
    """*text* in at most *width* columns, with "…" where something is left out: at its end, or at its start."""
    if columns_of(text) <= width:
        return text
    kept, used = [], 1
    for character in reversed(text) if left else text:
        used += _columns_of_one(character)
        if used > width:
            break
        kept.append(character)
    return "…" + "".join(reversed(kept)) if left else "".join(kept) + "…"
