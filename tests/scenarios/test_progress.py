"""Progress as a person sees it: the shipped file in a window, behind a slow link."""

from __future__ import annotations

import re

from tests.faults.proxy import FaultProxy
from tests.faults.rules import Link, Refuse, Rule
from tests.kit import doe, runs
from tests.kit.window import window
from tests.scenarios.test_whole_run import job


def test_a_fetch_in_a_window(shipped_file, bucket, run_environ, tmp_path):
    """One line that moves, gone at the end; nothing wraps or scrolls when the window is drawn narrower meanwhile."""
    bucket.put("in/mesh.dat", bytes(6_000_000))
    runs.lay_out(tmp_path, file=shipped_file, store=bucket.store, job=None)
    with FaultProxy(bucket.store, link=Link(bits_per_s=6e6)) as proxy, window(columns=80) as seen:
        words = ("fetch", bucket.url("in/mesh.dat"), "case", "--store-endpoint-url", proxy.endpoint_url)
        command = (
            "sh",
            "byos-run",
            *words,
            "--store-connections",
            "1",
        )  # one part after another: it moves all the time
        with runs.started(tmp_path, command=command, env=run_environ(TERM="xterm"), stdout=seen.slave) as process:
            (line,) = seen.until(lambda lines: re.search(r"fetch: [1-9]", lines[0]) is not None)
            assert re.fullmatch(r"byos-run \| fetch: \d+ %, [\d.]+ MB of 6 MB, .* [kM]B/s(, \d+ s left)?", line)
            seen.resize(40, 24)
            (line,) = seen.until(lambda lines: "MB of" not in lines[0] and "fetch:" in lines[0])
            assert len(line) < 40
            seen.resize(200, 24)
            assert 0 == process.wait(240)
        lines = seen.drain()

    assert 1 == len(lines), lines
    assert lines[0].startswith("byos-run | fetched mesh.dat: 6 MB in ")


def test_nothing_but_text_where_there_is_no_terminal(run_byos, bucket):
    """-q says nothing of what went well; -v tells each request that is tried again, and why; neither holds a control code."""
    doe.ended(bucket, "out/run/", {"a": b"1"})
    with FaultProxy(bucket.store, Rule(Refuse(503), method="HEAD", nth=(1,))) as proxy:
        words = ("verify", bucket.url("out/run/"), "--store-endpoint-url", proxy.endpoint_url)
        told = run_byos(None, *words, "-v", env={"TERM": "xterm"})
        quiet = run_byos(None, "-q", *words)

    assert (0, 0) == (told.code, quiet.code)
    assert re.search(r"HEAD s3://\S+/out/run/a: .*503.*; trying again in 0\.\d s", told.error), told.error
    assert "whole: 1 output" in told.output
    assert ("", "") == (quiet.output, quiet.error)
    assert "\x1b" not in told.output + told.error


def test_a_silent_solver_in_a_window(shipped_file, bucket, run_environ, tmp_path):
    """echo = "none" on a terminal: how long it runs, and what leaves meanwhile; the line is gone when it has ended."""
    asked = job(bucket, "until test -e go; do sleep 0.1; done", solver={"echo": "none"})
    runs.lay_out(tmp_path, file=shipped_file, store=bucket.store, job=asked)
    with (
        window(columns=80) as seen,
        runs.started(tmp_path, env=run_environ(TERM="xterm"), stdout=seen.slave) as process,
    ):
        lines = seen.until(lambda lines: "solve: " in lines[-1])
        assert not any("solve:" in line for line in lines[:-1])
        (tmp_path / "case/go").touch()
        assert 0 == process.wait(240)
        lines = seen.drain()

    assert not any("solve:" in line for line in lines)
    assert any(line.startswith("byos-run | exit 0") for line in lines)
