"""What a run uses and moves, sampled: what is counted grows, what is kept is bounded, text for a node exporter."""

from __future__ import annotations

import os
import re
import time
from pathlib import Path

from byos_run.node import openmetrics
from byos_run.node.meter import Meter, Sample


class Burning:
    """A command whose only process is this one."""

    over = False
    seen = frozenset({os.getpid()})


def spend(seconds: float) -> None:
    until = time.process_time() + seconds
    while time.process_time() < until:
        pass


def test_processor_time_and_bytes_are_counted_from_the_start() -> None:
    """What the ranks used, and what moved, is in the last row; nothing that is counted ever falls."""
    moved = [("fetch", 100, 0), ("solve", 100, 5), ("solve", 90, 7)]
    with Meter(moved=lambda: moved[0], place=lambda: Path("/nowhere/at/all")) as meter:
        meter.follow(Burning())
        for step in moved[1:]:
            spend(0.15)
            moved[0] = step
            meter.rows()
    rows = meter.rows()

    assert rows[-1].ranks_cpu_s >= 0.25
    assert (100, 7) == (rows[-1].bytes_in, rows[-1].bytes_out)
    assert rows[0].disk_free_bytes > 0
    for name in ("at", "ranks_cpu_s", "node_cpu_s", "agent_cpu_s", "bytes_in", "bytes_out"):
        column = [getattr(row, name) for row in rows]
        assert column == sorted(column), name


def test_a_long_run_keeps_a_bounded_number_of_samples() -> None:
    """Every other one goes when there are too many; the first and the newest stay."""
    meter = Meter(moved=lambda: ("solve", 0, 0), place=lambda: Path("/"))
    for _ in range(2000):
        meter.rows()
    rows = meter.rows()

    assert len(rows) < 1500
    assert rows[0].at < 0.5 < 1 + rows[-1].at
    assert [row.at for row in rows] == sorted(row.at for row in rows)


def test_text_for_a_node_exporter(tmp_path: Path) -> None:
    """Families with type and help, counters end in _total, no time stamp, an end; written whole, nothing beside it."""
    sample = Sample(1.5, 'so"lve', 8, 2.25, 1 << 30, 3.5, 1 << 31, 0.1, 10, 20, 30, 40)
    text = openmetrics.text_of(sample, run_id="ab", output="s3://b/x/\n")
    openmetrics.write(tmp_path / "byos.prom", text)
    openmetrics.write(tmp_path / "byos.prom", text)

    assert ["byos.prom"] == os.listdir(tmp_path)
    lines = (tmp_path / "byos.prom").read_text().splitlines()
    assert "# EOF" == lines[-1]
    assert 'byos_run_acknowledged_bytes_total{run_id="ab",output="s3://b/x/\\n"} 40' in lines
    for line in lines[:-1]:
        assert re.fullmatch(r'# (TYPE|UNIT|HELP) byos_run_\w+ .+|byos_run_\w+\{run_id="ab",.*\} [0-9.e+]+', line), line


def test_slots_of_a_node_may_share_the_exporters_directory(tmp_path: Path) -> None:
    """A directory gets a file for each run; a path is relative to the run directory."""
    place = openmetrics.place_of(str(tmp_path), run_directory=Path("/run"), run_id="7")
    assert tmp_path / "byos-run-7.prom" == place
    assert Path("/run/x.prom") == openmetrics.place_of("x.prom", run_directory=Path("/run"), run_id="7")
