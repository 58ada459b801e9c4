"""Widths, cutting, tables, frames."""

from __future__ import annotations

import os

import pytest

from byos_run.terminal import Column, Screen, Terminal, columns_of, cut, table


@pytest.mark.parametrize(
    ("text", "width", "left", "shown"),
    [
        pytest.param("short", 10, False, "short", id="fits"),
        pytest.param("abcdef", 4, False, "abc…", id="end"),
        pytest.param("abcdef", 4, True, "…def", id="start"),
        pytest.param("流体解析", 6, False, "流体…", id="wide"),
        pytest.param("流体解析", 5, True, "…解析", id="wide-start"),
        pytest.param("e\u0301e\u0301e\u0301", 2, False, "e\u0301…", id="combining"),
        pytest.param("", 0, False, "", id="nothing"),
    ],
)
def test_cut(text, width, left, shown):
    """Never wider than asked for; wide characters are not halved, combining ones stay with theirs."""
    assert shown == cut(text, width, left=left)
    assert columns_of(cut(text, width, left=left)) <= width


@pytest.mark.parametrize("width", [None, 200, 60, 40, 25, 12, 5])
def test_no_line_of_a_table_is_wider_than_asked_for(width):
    """Columns shrink, then go, those of the least worth first; one is always left."""
    rows = ["run-1", "解析" * 9, "x" * 50]
    columns = [
        Column("NAME", rows, 9, least=8),
        Column("N", ["1", "22", "333"], 5, is_number=True),
        Column("LAST", rows, 1),
    ]
    lines = table(columns, width=width)

    assert 4 == len(lines)
    assert all(columns_of(line) <= (width or 999) for line in lines)
    assert lines[0].startswith("NAME"[: width or 99]) or width == 5
    assert ("LAST" in lines[0]) == (width is None or width >= 67)


def test_a_frame_is_one_write_that_draws_over_the_last():
    """Up as many lines as there were, each cleared to its end, the rest below cleared."""
    screen = Screen()
    assert "\ra\x1b[K\nb\x1b[K\n\x1b[J" == screen.frame(["a", "b"])
    assert "\x1b[2A\rc\x1b[K\n\x1b[J" == screen.frame(["c"])


def test_what_is_no_terminal_gets_no_control_code():
    """A pipe, TERM=dumb, a closed descriptor; NO_COLOR on a terminal leaves the drawing."""
    reader, writer = os.pipe()
    master, slave = os.openpty()
    try:
        assert (False, "x", 132) == _facts(Terminal(writer, {"COLUMNS": "132"}))
        assert (False, "x", 80) == _facts(Terminal(slave, {"TERM": "dumb", "COLUMNS": "wide"}))
        assert (True, "x", 80) == _facts(Terminal(slave, {"TERM": "xterm", "NO_COLOR": "1"}))
        assert (True, "\x1b[31mx\x1b[m", 80) == _facts(Terminal(slave, {"NO_COLOR": ""}))
    finally:
        for descriptor in (reader, writer, master, slave):
            os.close(descriptor)
    assert (False, "x", 80) == _facts(Terminal(writer, {}))


def _facts(where):
    return where.is_live, where.paint("x", "red"), where.columns
