"""Who runs in a directory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from byos_run.node.neighbour import Marker, hold_marker, live_neighbours, this_process

HOLD = "import sys,pathlib;from byos_run.node.neighbour import *;hold_marker(pathlib.Path(sys.argv[1]),run_id='theirs')"


@contextmanager
def another_run(directory: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process that holds *directory* until it is told to end."""
    script = f"{HOLD};print(flush=True);sys.stdin.read()"
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(
        [sys.executable, "-c", script, str(directory)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environ
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        yield process
        process.kill()


def test_a_free_directory(tmp_path: Path) -> None:
    """It is ours, and the marker tells who we are."""
    fd = hold_marker(tmp_path, run_id="mine")

    assert isinstance(fd, int)
    assert json.loads((tmp_path / "marker.json").read_text()) == asdict(this_process(run_id="mine", locked=True))
    os.close(fd)


def test_a_live_run_is_seen(tmp_path: Path) -> None:
    """Whoever comes second is told who was first; when that one is killed, the directory is free."""
    with another_run(tmp_path) as process:
        first = hold_marker(tmp_path, run_id="mine")
        process.kill()
        process.wait()
        second = hold_marker(tmp_path, run_id="mine")

    assert isinstance(first, Marker)
    assert (first.run_id, first.pid) == ("theirs", process.pid)
    assert isinstance(second, int)
    os.close(second)


def test_a_live_run_below_is_seen(tmp_path: Path) -> None:
    """Runs in directories below ours are found while they live."""
    for name in ("live", "dead", "skipped"):
        (tmp_path / name / ".byos").mkdir(parents=True)
    os.close(int(hold_marker(tmp_path / "dead/.byos", run_id="dead")))  # type: ignore[arg-type]  # nobody is there
    with another_run(tmp_path / "live/.byos"), another_run(tmp_path / "skipped/.byos"):
        found = live_neighbours(tmp_path, skip={"skipped"})

    assert {path: marker.run_id for path, marker in found.items()} == {"live": "theirs"}
    assert live_neighbours(tmp_path, skip=set()) == {}


def without_lock(tmp_path: Path, marker: Marker) -> bool:
    """Whether a run that got no lock, for want of locks, counts as alive."""
    (tmp_path / "marker.json").write_text(json.dumps(asdict(replace(marker, locked=False))))
    fd = hold_marker(tmp_path, run_id="mine")
    if isinstance(fd, Marker):
        return True
    os.close(fd)
    return False


def test_without_locks_the_process_is_looked_for(tmp_path: Path) -> None:
    """Same boot, same namespace, same id and start: alive. Another boot or start: dead. Another namespace: alive."""
    here = this_process(run_id="theirs", locked=False)
    with another_run(tmp_path) as process:
        marker = Marker(**json.loads((tmp_path / "marker.json").read_text()))
        process.kill()
        process.wait()
    with subprocess.Popen(["sleep", "60"]) as other:
        alive = replace(here, pid=other.pid, start_ticks=ticks_of(other.pid))
        verdicts = [
            without_lock(tmp_path, candidate)
            for candidate in (
                alive,
                replace(alive, start_ticks=alive.start_ticks - 1),
                replace(alive, boot_id="another"),
                replace(alive, pid_namespace=1),
                replace(marker, locked=False),
                here,
            )
        ]
        other.kill()

    assert verdicts == [True, False, False, True, False, False]


def ticks_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])


@pytest.mark.parametrize("content", ["", "{", "[]", '{"run_id": "x"}', "\udcff"])
def test_a_marker_that_says_nothing(tmp_path: Path, content: str) -> None:
    """A torn or foreign marker that nobody holds is written anew."""
    (tmp_path / "marker.json").write_bytes(os.fsencode(content))

    fd = hold_marker(tmp_path, run_id="mine")

    assert isinstance(fd, int)
    os.close(fd)


def test_a_marker_that_is_a_link(tmp_path: Path) -> None:
    """Nothing is written through it."""
    (tmp_path / "victim").write_text("x")
    (tmp_path / "marker.json").symlink_to("victim")

    with pytest.raises(OSError, match="symbolic"):
        hold_marker(tmp_path, run_id="mine")

    assert (tmp_path / "victim").read_text() == "x"
