"""The solver's own tables and log → columns to draw, and figures.

    a table    lines of numbers, apart by blanks or commas; lines before them that are none name the columns
    plot       two or more of its columns; of a large file a few thousand lines, evenly over it; what a restart went
               back over counts as computed last
    figure     a column's value in the last line, or the last match of an expression in the log

Read once, when the solver has ended; what is not there, or is no table, is said and ends nothing.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

_WHOLE_BYTES = 8 << 20
_SAMPLES = 4000
_WINDOW_BYTES = 16 << 10
_HEAD_BYTES = 64 << 10
_END_BYTES = 256 << 10
_LOG_WINDOW_BYTES = 1 << 20
_LOG_BYTES = 256 << 20
_APART = re.compile(rb"[\s,;]+")
_COMMENT = b"#%!"


@dataclass(frozen=True)
class Columns:
    """The columns of one table, as asked: the first is the axis."""

    names: tuple[str, ...]
    """"" where the table does not say."""
    values: tuple[tuple[float, ...], ...]
    lines: int
    """Lines of numbers that were read."""
    sampled: bool
    """The file is large, and these are some of its lines."""


def read_columns(descriptor: int, columns: Sequence[int]) -> Columns | None:
    """The *columns*, counted from 1, of the table open at *descriptor*; None if it has no line with all of them."""
    size_bytes = os.fstat(descriptor).st_size
    head = os.pread(descriptor, _HEAD_BYTES, 0)
    sampled = size_bytes > _WHOLE_BYTES
    source = _some_lines(descriptor, size_bytes) if sampled else _all_lines(descriptor, size_bytes)
    rows: list[tuple[float, ...]] = []
    for row in (_row(line, columns) for line in source):
        if row is None:
            continue
        while rows and row[0] <= rows[-1][0] and not math.isnan(row[0]):
            rows.pop()  # the axis goes back: the solver was restarted there, and computed it anew
        rows.append(row)
    if not rows:
        return None
    return Columns(_names(head, columns), tuple(zip(*rows)), len(rows), sampled)


def last_value(descriptor: int, column: int) -> float | None:
    """The value of *column* in the last line that has one."""
    size_bytes = os.fstat(descriptor).st_size
    start = max(0, size_bytes - _END_BYTES)
    lines = os.pread(descriptor, _END_BYTES, start).split(b"\n")
    for line in reversed(lines[1:] if start else lines):
        row = _row(line, (column,))
        if row is not None:
            return row[0]
    return None


def last_match(log: Path, pattern: str) -> float | None:
    """The number in the last match of *pattern* in *log*: its first group, or all of it. Searched from the end."""
    wanted = re.compile(pattern, re.MULTILINE)
    for piece in _windows_from_end(log):
        for match in reversed(list(wanted.finditer(piece.decode("utf-8", "replace")))):
            number = _number((match.group(1) if wanted.groups else match.group(0)) or "")
            if number is not None and math.isfinite(number):
                return number
    return None


def _windows_from_end(log: Path) -> Iterator[bytes]:
    """Whole lines, the last first; a line that is longer than a window comes in pieces."""
    try:
        with log.open("rb") as file:
            end = file.seek(0, os.SEEK_END)
            least, rest = max(0, end - _LOG_BYTES), b""
            while end > least:
                start = max(least, end - _LOG_WINDOW_BYTES)
                file.seek(start)
                piece = file.read(end - start) + rest
                head, newline, tail = piece.partition(b"\n")
                rest, whole = (head, tail) if start > 0 and newline else (b"", piece)
                yield whole
                end = start
    except OSError:
        return


def _all_lines(descriptor: int, size_bytes: int) -> Iterator[bytes]:
    return iter(os.pread(descriptor, size_bytes, 0).split(b"\n"))


def _some_lines(descriptor: int, size_bytes: int) -> Iterator[bytes]:
    for place in range(_SAMPLES):
        window = os.pread(descriptor, _WINDOW_BYTES, size_bytes * place // _SAMPLES)
        parts = window.split(b"\n", 2)
        if len(parts) > 2:
            yield parts[1]


def _row(line: bytes, columns: Sequence[int]) -> tuple[float, ...] | None:
    fields = _fields(line)
    if len(fields) < max(columns) or fields[0][0] in _COMMENT:
        return None
    found = [_number(fields[column - 1].decode("ascii", "replace")) for column in columns]
    return tuple(value for value in found if value is not None) if None not in found else None


def _fields(line: bytes) -> list[bytes]:
    return [field for field in _APART.split(line.strip()) if field]


def _number(word: str) -> float | None:
    """Also as Fortran writes it: 1.0D+03."""
    try:
        return float(word.strip().replace("D", "E").replace("d", "e"))
    except ValueError:
        return None


def _names(head: bytes, columns: Sequence[int]) -> tuple[str, ...]:
    """Names from the lines before the first numbers, if they have as many fields; units in brackets from a line after."""
    before: list[list[str]] = []
    width = 0
    for line in head.split(b"\n"):
        if _row(line, columns) is not None:
            width = len(_fields(line))
            break
        before.append([field.decode("utf-8", "replace") for field in _fields(line.strip().lstrip(_COMMENT))])
    fitting = [fields for fields in before if len(fields) == width]
    units = next((fields for fields in fitting if all(_is_unit(field) for field in fields)), None)
    words = [fields for fields in fitting if fields is not units and any(_number(field) is None for field in fields)]
    if not words:
        return tuple("" for _ in columns)
    names = words[-1]
    return tuple(names[column - 1] + (f" {units[column - 1]}" if units else "") for column in columns)


def _is_unit(field: str) -> bool:
    return field[:1] in "([" and field[-1:] in ")]"
