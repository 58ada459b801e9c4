"""When a run must begin to end: what is known of its time, and what is needed to publish."""

from __future__ import annotations

import os
import time
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from byos_run.endings import Pace, Reserve, Waiting, know_ends
from byos_run.model import Job, Place, S3Url
from byos_run.node.stop import Stop

MIB = 1 << 20


def job(**more):
    return Job(input=(S3Url("b", "in.zip"),), output=S3Url("b", "out/"), command=("true",), **more)


def told(environ, **more):
    """Seconds that are left, and why it ends."""
    stop = Stop()
    know_ends(job=job(**more), place=Place(Path("/tmp"), environ), stop=stop)
    return stop.seconds_left, stop.end


def measured(*, mib, seconds):
    pace = Pace()
    pace.add(mib * MIB, seconds=seconds)
    return pace


def reserve(*, left_s, pace, waiting_mib=0, grace_s=None):
    stop = Stop()
    stop.end_by(time.monotonic() + left_s)
    return Reserve(stop=stop, pace=pace, grace_s=grace_s, waiting=lambda: Waiting(1, waiting_mib * MIB))


def test_the_reserve_is_what_waits_at_the_measured_rate():
    """Ten times as much waiting, ten times as long; with a margin, and a grace of a third of the time."""
    pace = measured(mib=100, seconds=10)
    small, large = (reserve(left_s=3600, pace=pace, waiting_mib=mib).needed_s() for mib in (100, 1000))

    assert 10 * 1.25 * 1.5 < small < 10 * 1.25 * 1.5 + 2
    assert 100 * 1.25 + 60 < large < 100 * 1.25 + 62
    assert reserve(left_s=3600, pace=pace, waiting_mib=100, grace_s=200).needed_s() > 212


@pytest.mark.parametrize(("left_s", "due"), [(300, True), (1000, False)])
def test_the_solver_is_to_be_stopped_when_the_time_is_just_enough(left_s, due):
    """2,000 MiB at 10 MiB/s need 310 s."""
    assert due == reserve(left_s=left_s, pace=measured(mib=50, seconds=5), waiting_mib=2000).is_due


def test_without_a_rate_a_tenth_of_the_time_is_kept():
    """A few small files tell nothing of the rate."""
    pace = measured(mib=1, seconds=60)

    assert pace.bytes_per_s is None
    assert 10 == pytest.approx(reserve(left_s=100, pace=pace, waiting_mib=10**6).needed_s(), rel=0.01)


def test_files_that_leave_side_by_side_count_their_seconds_once():
    """Eight uploads of one second at once are one second."""
    pace = Pace()
    for _ in range(8):
        pace.add(8 * MIB, seconds=1.0)

    assert 64 * MIB == pytest.approx(pace.bytes_per_s, rel=0.05)


def test_the_schedulers_end_counts_as_a_deadline(tmp_path):
    """SLURM_JOB_END_TIME, else what squeue says; of deadline and scheduler the earlier one holds."""
    squeue = tmp_path / "squeue"
    end = datetime.now().astimezone() + timedelta(seconds=500)
    squeue.write_text(f'#!/bin/sh\n[ "$*" = "-h -j 7 -o %e" ] && echo {end:%Y-%m-%dT%H:%M:%S}\n')
    squeue.chmod(0o755)
    path = f"{tmp_path}:{os.environ['PATH']}"
    by_name = told({"SLURM_JOB_ID": "7", "SLURM_JOB_END_TIME": str(int(time.time()) + 1000), "PATH": path})
    by_squeue = told({"SLURM_JOB_ID": "7", "PATH": path})

    assert (pytest.approx(995, abs=60), "the end of the Slurm job") == by_name
    assert (pytest.approx(495, abs=60), "the end of the Slurm job") == by_squeue
    assert (pytest.approx(95, abs=60), "the deadline") == told({"SLURM_JOB_ID": "7", "PATH": path}, deadline_s=100)


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"SLURM_JOB_END_TIME": "1"},
        {"SLURM_JOB_ID": "7", "SLURM_JOB_END_TIME": "1"},
        {"SLURM_JOB_ID": "7", "PATH": "/nowhere"},
        {"SLURM_JOB_ID": "x; reboot"},
    ],
)
def test_no_end_that_is_known_is_none(environ):
    """Outside Slurm, without squeue, or with an end that has passed: the job was prolonged."""
    assert (None, "") == told(environ)
