"""The arithmetic of the race: what a table says is what was measured."""

from __future__ import annotations

import os
import sys

import pytest
from tests.bench import contenders, measure, report, scenarios

MEBI = 1 << 20


def test_a_figure_is_the_median_with_its_extremes():
    """Medians of time and CPU, so that one bad round says nothing; the highest peak, since memory must suffice each time."""
    costs = [measure.Cost(3.0, 1.0, 10 * MEBI), measure.Cost(1.0, 9.0, 30 * MEBI), measure.Cost(2.0, 2.0, 20 * MEBI)]

    figure = measure.figure("script", costs)

    assert (2.0, 1.0, 3.0) == (figure.seconds, figure.least_s, figure.most_s)
    assert (2.0, 30 * MEBI, 3) == (figure.cpu_s, figure.peak_bytes, figure.rounds)


def test_a_ratio_says_how_many_times_as_long_the_other_takes():
    """Twice the seconds is 2 ×."""
    slow, fast = (measure.figure(name, [measure.Cost(s, s, 0)]) for name, s in (("script", 4.0), ("byos-run", 2.0)))

    assert 2.0 == measure.ratio(slow, fast)


def test_the_command_is_charged_its_own_memory_and_its_childrens_time(tmp_path):
    """A small program is not charged the memory of the process that measures it; what it waited for counts."""
    ballast = bytearray(os.urandom(MEBI)) * 64
    child = f"{sys.executable} -I -S -c 'sum(range(10_000_000))'"

    cost = measure.run(["sh", "-c", f"{child}; true"], cwd=tmp_path, env=dict(os.environ), log=tmp_path / "log")

    assert cost.cpu_s > 0.05
    assert cost.peak_bytes < 32 * MEBI < len(ballast)


def test_a_contender_that_fails_ends_the_race(tmp_path):
    """With what it said."""
    with pytest.raises(RuntimeError, match="no such bucket"):
        measure.run(
            ["sh", "-c", "echo no such bucket; exit 1"], cwd=tmp_path, env=dict(os.environ), log=tmp_path / "log"
        )


def test_the_chart_shows_every_contender_of_a_race():
    """One bar each; the slowest fills the width."""
    scenario = next(each for each in scenarios.SCENARIOS if each.name == "small")
    shown = [measure.figure(name, [measure.Cost(n + 1.0, 1.0, 0)]) for n, name in enumerate(contenders.ALL)]

    chart = report.chart([(scenario, shown)])

    assert len(contenders.ALL) == chart.count("<rect")
    assert 'width="420.0"' in chart
