"""Stalls: no output and no change of a file."""

from __future__ import annotations

import time

from byos_run.node.stall import Stall


def looked_until_told(stall, *, limit_s=5.0):
    started = time.monotonic()
    while not stall.look():
        assert time.monotonic() - started < limit_s
        time.sleep(0.01)
    return time.monotonic() - started


def test_a_stall_is_told_once_and_again_after_life(tmp_path):
    """A change of any file below the case begins another span."""
    (tmp_path / "deep").mkdir()
    stall = Stall(after_s=0.4, case=tmp_path, size_bytes=lambda: 7)

    assert looked_until_told(stall) >= 0.35
    until = time.monotonic() + 0.8
    while time.monotonic() < until:
        assert not stall.look()
        time.sleep(0.02)
    (tmp_path / "deep" / "restart.1").write_text("x")
    assert looked_until_told(stall) >= 0.35


def test_output_or_files_that_change_are_no_stall(tmp_path):
    """Either is enough."""
    printed = [0]
    stall = Stall(after_s=0.4, case=tmp_path, size_bytes=lambda: printed[0])
    for turn in range(50):
        if turn < 25:
            printed[0] += 1
        else:
            (tmp_path / "grows.out").write_text("x" * turn)
        assert not stall.look()
        time.sleep(0.03)
