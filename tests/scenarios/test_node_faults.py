"""What goes wrong on the node: no room, no inodes, no descriptors, no /dev/shm, hidden processes, mad output, read-only places.

Each in mounts or limits of its own, made for the one run: the machine stays as it was.
"""

from __future__ import annotations

import os

import pytest
from tests.kit import runs
from tests.scenarios.test_whole_run import job, outputs, zip_bytes


@pytest.fixture
def run_in(bucket, tmp_path, shipped_file, minio_store, run_environ):
    """Runs a job in a mount namespace of its own, after `prepare` (shell) has changed what is mounted there."""

    def go(asked, prepare, *, timeout_s=240, **variables):
        directory = tmp_path / "run"
        directory.mkdir()
        inside = f"set -e; {prepare}; cd {directory}; [ -e byos.toml ] || cp {tmp_path}/laid/* .; exec sh byos-run"
        runs.lay_out(tmp_path / "laid", file=shipped_file, store=minio_store, job=asked)
        environ = run_environ(**runs.PLATFORM, **variables)
        command = ("unshare", "--mount", "--propagation", "private", "sh", "-c", inside)
        return runs.run(directory, command=command, env=environ, timeout_s=timeout_s)

    return go


def mounted(directory, options):
    return f"mount -t tmpfs -o {options} none {directory}"


def test_a_disk_that_the_solver_fills_keeps_nothing_from_leaving(run_in, bucket, tmp_path):
    """It fails with its own code; what it had written is published, log and journal notwithstanding: no byte of room is left."""
    command = "echo x > x.out; dd if=/dev/zero of=fill.out bs=64k 2>/dev/null; echo full; exit 28"
    ran = run_in(job(bucket, command, publish={"exclude": ["fill.out"]}), mounted(tmp_path / "run", "size=40m"))

    assert 28 == ran.code, ran.output
    assert {"x.out": 2} == outputs(bucket)
    assert "solver-failed" == bucket.json("out/run/_byos/manifest.json")["status"]


def test_inodes_that_the_solver_uses_up_keep_nothing_from_leaving(run_in, bucket, tmp_path):
    """The same for a file system without a free inode."""
    command = "i=0; while : > f$i.tmp; do i=$((i+1)); done 2>/dev/null; echo x > f0.tmp; mv f0.tmp x.out; exit 28"
    asked = job(bucket, command, publish={"exclude": ["*.tmp"]})
    ran = run_in(asked, mounted(tmp_path / "run", "size=40m,nr_inodes=300"))

    assert 28 == ran.code, ran.output
    assert {"x.out": 2} == outputs(bucket)


@pytest.mark.parametrize("options", ["size=12m", "size=40m,nr_inodes=40"], ids=["room", "inodes"])
def test_too_small_a_disk_is_told_before_the_solver(run_in, bucket, tmp_path, options):
    """71, nothing solved; the archive's directory says how much it needs."""
    asked = job(bucket, "echo never")
    bucket.put("in/case.zip", zip_bytes({f"{index}.dat": b"\0" * 300_000 for index in range(100)}))
    ran = run_in(asked, mounted(tmp_path / "run", options))

    assert 71 == ran.code, ran.output
    assert "never" not in ran.output


def test_few_descriptors_are_enough(run_in, bucket):
    """64 for the whole run: many inputs, many outputs at once."""
    ran = run_in(job(bucket, "for i in $(seq 200); do echo $i > $i.out; done"), "ulimit -n 64")

    assert 0 == ran.code, ran.output
    assert 200 == len(outputs(bucket))


def test_a_node_without_shared_memory(run_in, bucket):
    """/dev/shm is not there, or takes nothing: no part of the run needs it."""
    ran = run_in(job(bucket, "echo x > x.out"), "mount -t tmpfs -o size=4k,nr_inodes=1 none /dev/shm")

    assert 0 == ran.code, ran.output
    assert {"x.out": 2} == outputs(bucket)
    assert [] == ran.left()


def test_hidden_processes_of_others(run_in, bucket):
    """/proc with hidepid=2, as clusters have it: our own processes are seen, and that is enough."""
    ran = run_in(
        job(bucket, "sleep 30 & echo x > x.out"),
        "mount -o remount,hidepid=2 /proc || mount -t proc -o hidepid=2 proc /proc",
    )

    assert 0 == ran.code, ran.output
    assert "outlived the command" in ran.output
    assert {"x.out": 2} == outputs(bucket)


def test_a_directory_that_turns_read_only(run_in, bucket, tmp_path):
    """What can be read is published, what cannot be deleted is listed in the certificate; the solver's code wins."""
    case = tmp_path / "run" / "case"
    command = f"echo x > x.out; mount --bind {case} {case}; mount -o remount,bind,ro {case}; exit 5"
    ran = run_in(job(bucket, command), mounted(tmp_path / "run", "size=40m"))

    assert 5 == ran.code, ran.output
    assert {"x.out": 2} == outputs(bucket)
    left = bucket.json("out/run/_byos/purge.json")["left"]["paths"]
    assert ["case"] == [item["path"].rstrip("/") for item in left]


def test_a_read_only_run_directory_is_refused(run_in, bucket, tmp_path):
    """71 before anything moves."""
    run = tmp_path / "run"
    lay = f"{mounted(run, 'size=40m')}; cp {tmp_path}/laid/* {run}; mount -o remount,ro {run}"
    ran = run_in(job(bucket, "echo never"), lay)

    assert 71 == ran.code, ran.output + ran.error
    assert {} == bucket.sizes("out/")


LONG = "import os\nfor _ in range(400): os.write(1, b'x' * (1 << 20))\nprint()"
AGENT_PEAK = "grep VmHWM /proc/$(ps -o ppid= -p $PPID | tr -d ' ')/status"


def test_a_line_without_end_takes_no_memory(bucket, run_byos):
    """400 MiB without a newline: all of it in solver.log, and the agent's peak stays where it was."""
    ran = run_byos(job(bucket, f'python3 -c "{LONG}"; {AGENT_PEAK}', solver={"echo": "tail"}), platform=True)

    assert 0 == ran.code, ran.output[-500:]
    assert 400 << 20 < bucket.sizes("out/run/_byos/")["out/run/_byos/solver.log"]
    (peak,) = [line for line in ran.output.splitlines() if line.startswith("VmHWM")]
    assert int(peak.split()[1]) < 160_000


def test_ten_million_lines(bucket, run_byos):
    """All of them are in solver.log; standard output gets what it can take."""
    ran = run_byos(job(bucket, "seq 10000000", solver={"echo": "tail"}), platform=True)

    assert 0 == ran.code, ran.output[-500:]
    log = bucket.get("out/run/_byos/solver.log")
    assert (10_000_000, b"10000000\n") == (log.count(b"\n"), log[-9:])


def test_binary_output_goes_through_as_it_is(bucket, run_byos):
    """Every byte value, in log and on standard output; nothing of ours is confused by it."""
    ran = run_byos(job(bucket, "head -c 100000 /dev/urandom | tee x.bin"), platform=True)

    assert 0 == ran.code
    assert bucket.get("out/run/x.bin") == bucket.get("out/run/_byos/solver.log")


def test_a_reader_that_goes_away_is_no_error(bucket, tmp_path, shipped_file, minio_store, run_environ):
    """`sh byos-run | head -1`: SIGPIPE kills neither us nor the solver."""
    runs.lay_out(tmp_path / "run", file=shipped_file, store=minio_store, job=job(bucket, "seq 200000; echo x > x.out"))
    command = ("bash", "-c", "sh byos-run | head -1 > /dev/null; exit ${PIPESTATUS[0]}")
    ran = runs.run(tmp_path / "run", command=command, env=run_environ(**runs.PLATFORM))

    assert 0 == ran.code, ran.error
    assert {"x.out": 2} == outputs(bucket)
    assert os.listdir(tmp_path / "run") == []
