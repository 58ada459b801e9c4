"""How honest the forecast is, measured on transfers whose end is known."""

from __future__ import annotations

import math
import random
import statistics

import pytest

from byos_run.log import about
from byos_run.node.pace import Pace

TOTAL = 10_000_000_000
SECONDS = 200


def steady(_):
    return 1.0


def noisy(second):
    return random.Random(second).lognormvariate(0, 0.7)


def waves(second):
    return 1 + 0.8 * math.sin(second / 3)


def bursts(second):
    return 1.0 if second % 5 < 2 else 0.05


def slow_start(second):
    return min(1.0, 0.1 + second / 40)


def halves(second):
    return 1.0 if second < 80 else 0.5


@pytest.mark.parametrize(
    ("speed", "error"),
    [(steady, 0.01), (noisy, 0.25), (waves, 0.3), (bursts, 0.25), (slow_start, 0.15), (halves, 0.35)],
    ids=lambda value: getattr(value, "__name__", str(value)),
)
def test_the_forecast_is_near_the_truth(speed, error):
    """Asked each second after the first tenth, half of all answers miss the true end by less than this share."""
    speeds = [speed(second) for second in range(SECONDS)]
    scale, done, now = TOTAL / sum(speeds), 0.0, [0.0]
    pace, errors = Pace(clock=lambda: now[0]), []
    for second, each in enumerate(speeds):
        now[0], done = second + 1.0, done + each * scale
        eta_s, left_s = pace.eta_s(int(done), TOTAL), SECONDS - second - 1
        if second >= SECONDS / 10 and left_s > 2:
            errors.append(abs(eta_s - left_s) / left_s)

    assert statistics.median(errors) <= error, f"median error {statistics.median(errors):.2f}"


def test_nothing_is_foretold_from_nothing():
    """Not in the first two seconds, not while nothing moves, not when it is over."""
    now = [0.0]
    pace = Pace(clock=lambda: now[0])
    now[0] = 1.0
    assert pace.eta_s(500, 1000) is None
    now[0] = 5.0
    assert pace.eta_s(1000, 1000) is None
    for second in range(6, 60):
        now[0] = float(second)
        left = pace.eta_s(600, 1000)
    assert left is None


def test_marks_stay_few():
    """Eleven hours, asked twice a second: about a hundred are kept."""
    now = [0.0]
    pace = Pace(clock=lambda: now[0])
    for tick in range(2 * 11 * 3600):
        now[0] = tick / 2
        pace.rate_per_s(tick)

    assert len(pace._marks) <= 120
    assert pace.rate_per_s(tick) == pytest.approx(2.0, rel=0.01)


@pytest.mark.parametrize(
    ("seconds", "told"),
    [(None, ""), (0.2, "1 s"), (14.4, "14 s"), (43, "45 s"), (203, "3 min 20 s"), (1571, "26 min"),
     (7777, "2 h 10 min"), (1e9, "")],
)  # fmt: skip
def test_a_forecast_is_told_as_coarse_as_it_is(seconds, told):
    """No digit that the next second would change."""
    assert told == about(seconds)
