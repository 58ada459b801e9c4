"""The shipped file with a real MPI solver: LAMMPS on eight ranks."""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress
from pathlib import Path

import pytest
from tests.kit import cases, runs
from tests.scenarios.test_whole_run import job

COMMAND = "mpirun -np {cores} lmp -in in.case"


@pytest.fixture
def copper(bucket, tmp_path):
    """A job over the copper case; its number of steps decides how long it takes."""

    def make(*, steps, **more):
        cases.copper(tmp_path / "copper.zip", steps=steps)
        bucket.put("in/copper.zip", (tmp_path / "copper.zip").read_bytes())
        solver = {"cores": 8, **more.pop("solver", {})}
        return {
            "input": bucket.url("in/copper.zip"), "output": bucket.url("out/copper"), "command": COMMAND, "solver": solver, **more,
        }  # fmt: skip

    return make


def living_in(directory: Path) -> list[int]:
    """Processes whose working directory lies below *directory*."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                inside = os.readlink(entry / "cwd").startswith(str(directory))
            except OSError:  # ended meanwhile
                continue
            if inside:
                found.append(int(entry.name))
    return found


def wait_until_it_solves(process, directory: Path) -> str:
    """Reads on until LAMMPS tells of a step; returns what was said."""
    said = ""
    for line in process.stdout:
        said += line
        if line.split()[:1] == ["20"]:
            return said
    raise AssertionError(f"it ended before it solved:\n{said}")


def test_eight_ranks_solve_and_their_results_are_in_the_bucket(run_byos, copper, bucket, mpich):
    """Dumps, rotated restarts and the log, each as the solver left it; the inputs are not published again."""
    ran = run_byos(copper(steps=40), path=mpich, platform=True)

    assert ran.code == 0, ran.output
    names = {key[len("out/copper/") :] for key in bucket.sizes("out/copper/") if "/_byos/" not in key}
    assert {"log.lammps", "dump.0.txt", "dump.40.txt", "restart.a"} <= names
    assert not any(name.startswith("reference/") for name in names)
    manifest = bucket.json("out/copper/_byos/manifest.json")
    assert (manifest["status"], manifest["solver"]["cores"]) == ("complete", 8)
    assert ran.left() == []


def test_a_stop_ends_all_ranks(copper, bucket, tmp_path, shipped_file, minio_store, run_environ, mpich):
    """TERM in the middle of a solve: no rank survives, what was written is published, 75."""
    directory = tmp_path / "run"
    asked = copper(steps=100_000, solver={"cores": 8, "grace": "5s"})
    runs.lay_out(directory, file=shipped_file, store=minio_store, job=asked)
    with runs.started(directory, env=run_environ(path=mpich, **runs.PLATFORM)) as process:
        wait_until_it_solves(process, directory)
        process.send_signal(signal.SIGTERM)
        output = process.stdout.read()
        code = process.wait(240)

    assert code == 75, output
    assert living_in(directory) == []
    manifest = bucket.json("out/copper/_byos/manifest.json")
    assert (manifest["status"], manifest["solver"]["stopped_by"]) == ("interrupted", "SIGTERM")
    assert "out/copper/log.lammps" in bucket.sizes("out/copper/")
    assert runs.left_in(directory) == []


def test_nothing_survives_a_kill_and_the_next_start_runs_again(
    copper, bucket, tmp_path, shipped_file, minio_store, run_environ, mpich
):
    """SIGKILL of byos-run ends every rank; the same directory then runs to its end."""
    directory = tmp_path / "run"
    asked = copper(steps=100_000)
    runs.lay_out(directory, file=shipped_file, store=minio_store, job=asked)
    with runs.started(directory, env=run_environ(path=mpich)) as process:
        wait_until_it_solves(process, directory)
        os.kill(process.pid, signal.SIGKILL)
        process.wait(120)
        deadline = time.monotonic() + 120
        while living_in(directory):
            assert time.monotonic() < deadline, living_in(directory)
            time.sleep(0.05)

    runs.lay_out(directory, file=shipped_file, store=minio_store, job=copper(steps=40))
    ran = runs.run(directory, env=run_environ(path=mpich))

    assert ran.code == 0, ran.output
    assert bucket.json("out/copper/_byos/manifest.json")["attempt"] == 2
    assert ran.left() == ["byos-run", "byos.toml", "config"]


def memory_group():
    """A fresh control group of at most 400 MiB, of version 1 or 2; None where we may not make one."""
    for top, limit, swap in (
        ("/sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.memsw.limit_in_bytes"),
        ("/sys/fs/cgroup", "memory.max", "memory.swap.max"),
    ):
        group = Path(top) / f"kit-{os.getpid()}"
        with suppress(OSError):
            group.mkdir()
            if (group / limit).exists():
                (group / limit).write_text(str(400 << 20))
                with suppress(OSError):
                    (group / swap).write_text(str(400 << 20) if "memsw" in swap else "0")
                return group
            group.rmdir()
    return None


def test_a_rank_that_the_kernel_kills_for_memory_is_named(
    bucket, tmp_path, shipped_file, minio_store, run_environ, mpich
):
    """A real OOM kill in a control group: which rank, in the manifest; the launcher's number is passed on."""
    group = memory_group()
    if group is None:
        return
    directory = tmp_path / "run"
    solver = Path(__file__).parent.parent / "solvers" / "mpi_rank.py"
    asked = job(bucket, f"exec mpirun -np 3 python {solver} hogs=1:0")
    runs.lay_out(directory, file=shipped_file, store=minio_store, job=asked)
    inside = ("sh", "-c", f"echo $$ > {group}/cgroup.procs && exec sh byos-run")
    try:
        ran = runs.run(directory, command=inside, env=run_environ(path=mpich, **runs.PLATFORM))
    finally:
        group.rmdir()

    assert ran.code in (9, 137), ran.output
    cause = bucket.json("out/run/_byos/manifest.json")["solver"]["cause"]
    assert cause.startswith("out of memory: the kernel killed ")
    if os.access("/dev/kmsg", os.R_OK):
        assert cause.startswith("out of memory: the kernel killed rank 1 (python")
    assert [] == ran.left()
