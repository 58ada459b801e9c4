"""Columns and figures of the solver's tables and log, as solvers write them."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from byos_run.steps.figures import Columns, last_match, last_value, read_columns

CONVERGE = """\
# CONVERGE release 3.0
#         Time      Pressure     Mean_Temp
#          (s)         (MPa)           (K)
  0.000000e+00  1.000000e-01  3.000000e+02
  1.000000e-05  1.100000e-01  3.010000D+02
  2.000000e-05  NaN           3.020000e+02
"""
LAMMPS = "units lj\nStep Temp Press\n0 1.0 2\n10 1.5 3\nLoop time of 3.2 on 8 procs\n"


@pytest.fixture
def table(tmp_path: Path) -> Callable[..., int]:
    """Descriptor of a file with the content given; closed at the end."""
    opened: list[int] = []

    def make(content: str | bytes) -> int:
        path = tmp_path / f"table-{len(opened)}"
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        opened.append(os.open(path, os.O_RDONLY))
        return opened[-1]

    yield make  # type: ignore[misc]
    for descriptor in opened:
        os.close(descriptor)


def test_names_and_units_come_from_the_lines_before(table: Callable[..., int]) -> None:
    """CONVERGE's comments with names and units, Fortran's D, a NaN as it is; LAMMPS' heading amid other lines."""
    found = read_columns(table(CONVERGE), (1, 2, 3))
    assert isinstance(found, Columns)
    assert found.names == ("Time (s)", "Pressure (MPa)", "Mean_Temp (K)")
    assert found.values[2] == (300.0, 301.0, 302.0)
    assert math.isnan(found.values[1][2])

    found = read_columns(table(LAMMPS), (1, 3))
    assert found == Columns(("Step", "Press"), ((0.0, 10.0), (2.0, 3.0)), 2, sampled=False)


@pytest.mark.parametrize(
    "content",
    ["t;p\n1;2\n3;4\n", "t,p\n1,2\n3, 4", "t\tp\r\n1\t2\r\n3\t4\r\n", "% t p\n 1 2 \n\n! note\n 3 4"],
    ids=["semicolons", "commas", "tabs and CR LF", "blanks and comments"],
)
def test_fields_are_apart_as_tables_have_them(table: Callable[..., int], content: str) -> None:
    """Whatever separates them."""
    found = read_columns(table(content), (1, 2))

    assert found is not None
    assert (found.names, found.values) == (("t", "p"), ((1.0, 3.0), (2.0, 4.0)))


def test_what_a_restart_went_back_over_counts_as_computed_last(table: Callable[..., int]) -> None:
    """The axis only goes forward."""
    found = read_columns(table("1 1\n2 2\n3 3\n2 20\n3 30\n4 40\n"), (1, 2))

    assert found is not None
    assert found.values == ((1.0, 2.0, 3.0, 4.0), (1.0, 20.0, 30.0, 40.0))


@pytest.mark.parametrize(
    "content", ["", "no numbers\n", "1\n2\n", b"\xff\xfe\x00" * 99], ids=["empty", "words", "short", "bytes"]
)
def test_what_is_no_table_gives_nothing(table: Callable[..., int], content: str | bytes) -> None:
    """None, not an error."""
    assert read_columns(table(content), (1, 2)) is None
    assert last_value(table(content), 2) is None


def test_a_large_table_is_looked_at_evenly(table: Callable[..., int]) -> None:
    """Some thousand lines of a file of any size, in a moment; the last value is still the last."""
    descriptor = table("# t p\n" + "".join(f"{n} {n * 2}\n" for n in range(1_000_000)))
    before = time.process_time()
    found = read_columns(descriptor, (1, 2))

    assert found is not None
    assert found.sampled
    assert 3000 < found.lines < 4001
    assert all(y == 2 * x for x, y in zip(*found.values))
    assert found.values[0][0] < 1000
    assert found.values[0][-1] > 990_000
    assert last_value(descriptor, 2) == 1_999_998
    assert time.process_time() - before < 5


def test_the_last_match_in_a_log_is_the_figure(tmp_path: Path) -> None:
    """Searched from the end, over the borders of what is read at once; a match that is no number is passed over."""
    log = tmp_path / "solver.log"
    body = "residual = 1.0\n" + "x" * 80 + "\n"
    log.write_text(body + "residual = 2.5D-3\n" + ("y" * 99 + "\n") * 30_000 + "residual = none\n")

    assert last_match(log, r"residual = (\S+)") == 2.5e-3
    assert last_match(log, r"never (\d+)") is None
    assert last_match(tmp_path / "absent", "1") is None
    log.write_text("total 41\n12")
    assert last_match(log, r"\d+") == 12
