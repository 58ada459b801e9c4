"""That the disk fills is said in time, and publishing is told."""

from __future__ import annotations

import os

import pytest

from byos_run.disk import Disk


@pytest.fixture
def take(tmp_path):
    """Takes half a GiB of the disk; all of it is given back."""
    taken = tmp_path / "taken"
    descriptor = os.open(taken, os.O_CREAT | os.O_WRONLY)
    yield lambda n: os.posix_fallocate(descriptor, n << 29, 1 << 29)
    os.close(descriptor)
    taken.unlink()


def looked_at(directory, take, *, left_s):
    """What is said and pressed while the disk would be full in seconds."""
    said, pressed = [], []
    disk = Disk(directory, left_s=lambda: left_s, warn=said.append, press=pressed.append, advice="; less is better")
    for n in range(4):
        take(n)
        disk.look()
    return said, pressed, disk.standing()


def test_a_disk_that_fills_before_the_end_is_said_once(tmp_path, take):
    """With what is free and what to do; on the brink publishing goes first."""
    said, pressed, standing = looked_at(tmp_path, take, left_s=None)

    assert len(said) == 1
    assert said[0].startswith("at this rate the disk of the case is full in 0.")
    assert said[0].endswith("free; less is better")
    assert pressed == [True]
    assert standing["disk_full_in_s"] < 120
    assert standing["disk_free_bytes"] > 0


def test_a_run_that_ends_before_is_not_bothered(tmp_path, take):
    """What would be full after the end is not said; publishing goes first all the same."""
    said, pressed, _ = looked_at(tmp_path, take, left_s=0.0)

    assert (said, pressed) == ([], [True])


def test_a_directory_that_went_away_is_no_error(tmp_path):
    """The run ends as it would."""
    disk = Disk(tmp_path / "gone", left_s=lambda: None, warn=pytest.fail)
    disk.look()

    assert disk.standing() == {"disk_free_bytes": None, "disk_full_in_s": None}
