"""What MPI leaves when it is killed: only what is proven ours goes."""

from __future__ import annotations

import mmap
import os
import subprocess
import sys
import time
import uuid
from pathlib import Path

import pytest

from byos_run.node import traces
from byos_run.node.mpi import mapped

MEMORY = Path("/dev/shm")


@pytest.fixture
def segment():
    path = MEMORY / f"kit-{uuid.uuid4().hex}"
    path.write_bytes(b"x" * 4096)
    yield path
    path.unlink(missing_ok=True)


def test_what_was_seen_goes_with_the_run(tmp_path, segment):
    """Shared memory, a session directory with all in it, and our list."""
    session = tmp_path / "ompi.4711"
    (session / "1").mkdir(parents=True)
    seen = traces.Traces(directory=tmp_path)
    seen.saw([str(segment), str(session)])
    seen.saw([str(segment)])
    (listed,) = tmp_path.glob(".byos-traces-*")
    assert sorted([str(segment), str(session)]) == listed.read_text().splitlines()
    seen.clean()

    assert [] == [path for path in (segment, session, listed) if path.exists()]


def test_the_next_start_removes_what_a_dead_run_saw(tmp_path, segment):
    """A list of a living process, of another boot, or a torn last line in it, removes nothing."""
    script = (
        "from pathlib import Path; from byos_run.node.traces import Traces; "
        f"Traces(directory=Path({str(tmp_path)!r})).saw([{str(segment)!r}])"
    )
    subprocess.run([sys.executable, "-c", script], check=True, env={"PYTHONPATH": os.pathsep.join(sys.path)})
    (listed,) = tmp_path.glob(".byos-traces-*")
    whole, name = listed.read_text(), listed.name.split("-")
    traces.Traces(directory=tmp_path).saw([str(segment)])  # ours, and we live
    listed.unlink()
    for kept in ("-".join([*name[:5], "0" * 32, name[6]]), "-".join([*name[:3], "99", *name[4:]])):
        (tmp_path / kept).write_text(whole if "0" * 32 in kept else whole.rstrip())
    traces.clean_dead(directory=tmp_path)
    assert segment.exists()
    (tmp_path / listed.name).write_text(whole)
    traces.clean_dead(directory=tmp_path)

    assert not segment.exists()
    assert not (tmp_path / listed.name).exists()


def test_what_somebody_still_has_mapped_stays(tmp_path, segment):
    """And so does what is no shared memory, or a file with a session directory's name."""
    other = tmp_path / "precious"
    other.write_text("x")
    named = tmp_path / "ompi.12"
    named.write_text("x")
    with open(segment, "r+b") as file, mmap.mmap(file.fileno(), 0):
        assert str(segment) in mapped(os.getpid()).shared_memory
        seen = traces.Traces(directory=tmp_path)
        seen.saw([str(segment), str(other), str(named), str(tmp_path), "/dev/shm/../etc/passwd"])
        seen.clean()

    assert [] == [path for path in (segment, other, named) if not path.exists()]


def test_a_killed_agents_shared_memory_goes_with_its_shim(
    tmp_path, shipped_file, minio_store, bucket, run_environ, mpich
):
    """The shim, which ends the ranks, is the last that knows of it."""
    from tests.kit import alive, runs
    from tests.scenarios.test_whole_run import job

    program = str(Path(__file__).parent / "solvers" / "mpi_rank.py")
    asked = job(bucket, f"exec mpirun -np 3 python {program} waits")
    runs.lay_out(tmp_path / "run", file=shipped_file, store=minio_store, job=asked)
    with runs.started(tmp_path / "run", env=run_environ(path=mpich)) as process:
        until = time.monotonic() + 120
        made: set[str] = set()
        while not made:  # of this run alone: other tests have theirs at the same time
            assert time.monotonic() < until, process.poll()
            for pid, _ in alive.processes(tmp_path / "run", temporary=tmp_path):
                made |= {path for path in mapped(pid).shared_memory if "/mpich_shm_" in path}
            time.sleep(0.02)
        time.sleep(0.2)
        process.kill()
        process.wait()
        while any(map(os.path.exists, made)):
            assert time.monotonic() < until
            time.sleep(0.02)
