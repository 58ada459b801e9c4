"""The shipped file in jobs of a real Slurm. Not a part of the suite: it needs root and Debian's packages (`make test-slurm`).

Two slots of four processors. Every job ends with `exec`, as README says: else Slurm would end the shell and not us.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import pytest
from tests.kit import runs
from tests.scenarios.test_whole_run import zip_bytes
from tests.slurm.cluster import slurm

SOLVER = Path(__file__).parent.parent / "solvers" / "mpi_rank.py"
TEMPLATE = """\
input = "${{s3_input}}"
output = "${{s3_output}}"
command = {command}
[template]
files = ["inputs.in"]
[publish]
settle = "1s"
[store]
endpoint_url = "{endpoint}"
"""
DEBIAN_MPI = {"MPI4PY_MPIABI": "openmpi", "MPI4PY_LIBMPI": "/usr/lib/x86_64-linux-gnu/libmpi.so.40"}
EXEC = "exec sh byos-run --table inputs.csv"


@pytest.fixture(scope="module")
def cluster():
    with tempfile.TemporaryDirectory(prefix="kit-slurm-") as top, slurm(Path(top)) as running:
        yield running


@pytest.fixture
def array(bucket, shipped_file, tmp_path):
    """Makes the directory of an array: byos-run, config, inputs.csv, and the platform's template as it is."""

    def make(name, *, command, rows=1):
        here = tmp_path / name
        bucket.put("in/case.zip", zip_bytes({"inputs.in": b"angle ${angle}\n", "solver.py": SOLVER.read_bytes()}))
        job = TEMPLATE.format(command=command, endpoint=bucket.store.endpoint_url)
        runs.lay_out(here, file=shipped_file, store=bucket.store, job=job)
        (here / "byos.toml").rename(here / "byos.toml.template")
        case = bucket.url("in/case.zip")
        lines = [f"{case},{bucket.url(f'out/{name}/{row}')},{20 + row}" for row in range(1, rows + 1)]
        (here / "inputs.csv").write_text("\n".join(["s3_input,s3_output,angle", *lines, ""]))
        return here

    return make


def log_of(here, row=1):
    """What the job of a row printed."""
    return (here / f"{row}.log").read_text()


def said(here):
    """What the job has printed so far."""
    return (here / "1.log").read_bytes() if (here / "1.log").exists() else b""


def laid_down(here):
    return [path for path in runs.left_in(here) if not path.endswith(".log")]


def ranks(word):
    """The command of a real 4-rank job, then a file that shows the rendered input."""
    return f"""["bash", "-c", "mpirun -np {{cores}} python solver.py {word} && cat inputs.in > seen.txt"]"""


def test_an_array_of_twenty_rows(cluster, array, bucket, run_environ, mpich):
    """Two at once in one directory with one config; {cores} is what Slurm gave; nothing is left but Slurm's own logs."""
    here = array("many", command=ranks("ends"), rows=20)
    before = laid_down(here)
    job = cluster.submit(here, EXEC, "--array=1-20", "--ntasks=4", environ=run_environ(path=mpich))
    cluster.wait(job, within_s=600)

    for row in range(1, 21):
        assert "exit 0 " in log_of(here, row).splitlines()[-1], log_of(here, row)
        assert f"angle {20 + row}\n".encode() == bucket.get(f"out/many/{row}/seen.txt")
        assert 4 == bucket.json(f"out/many/{row}/_byos/manifest.json")["solver"]["cores"]
        assert 4 == bucket.get(f"out/many/{row}/_byos/solver.log").count(b" of 4\n")
    assert before == laid_down(here)


@pytest.mark.parametrize("word", ["obeys", "waits"])
def test_scancel_ends_a_run_in_good_order(cluster, array, bucket, run_environ, mpich, word):
    """TERM reaches us and the ranks at once, whether they handle it or die of it: it is published, interrupted, not failed."""
    here = array(word, command=f'"mpirun -np {{cores}} python solver.py {word}"')
    job = cluster.submit(here, EXEC, "--array=1", "--ntasks=4", environ=run_environ(path=mpich))
    cluster.until(lambda: b"ready 3" in said(here), within_s=60, what="ranks")
    cluster.tell("scancel", job)
    cluster.wait(job, within_s=60)

    manifest = bucket.json(f"out/{word}/1/_byos/manifest.json")
    assert ("interrupted", 75) == (manifest["status"], manifest["exit_code"]), log_of(here)
    assert "stopped by SIGTERM" in log_of(here)
    assert 75 == bucket.json(f"out/{word}/1/_byos/purge.json")["exit_code"]


def test_the_time_limit_with_and_without_a_signal_before(cluster, array, bucket, run_environ, mpich):
    """`--signal=B:TERM@30` gives half a minute; without it there is KillWait. Both publish, and are interrupted."""
    environ = run_environ(path=mpich)
    early = array("early", command='"mpirun -np {cores} python solver.py obeys"')
    late = array("late", command='"mpirun -np {cores} python solver.py deaf"')
    first = cluster.submit(early, EXEC, "--array=1", "--ntasks=4", "--time=1", "--signal=B:TERM@30", environ=environ)
    second = cluster.submit(late, EXEC, "--array=1", "--ntasks=4", "--time=1", environ=environ)
    began = time.monotonic()
    cluster.wait(first, within_s=120)
    took_s = time.monotonic() - began
    cluster.wait(second, within_s=180)

    assert took_s < time.monotonic() - began
    for name, here in (("early", early), ("late", late)):
        manifest = bucket.json(f"out/{name}/1/_byos/manifest.json")
        assert ("interrupted", 75) == (manifest["status"], manifest["exit_code"]), log_of(here)
        assert b"ready 3 of 4" in bucket.get(f"out/{name}/1/_byos/solver.log")
    assert "finished" in bucket.get("out/early/1/_byos/solver.log").decode()


def test_a_requeued_run_goes_on_after_its_node_was_lost(cluster, array, bucket, run_environ, tmp_path):
    """Everything dies at once, Slurm requeues; the next start finds what the first left, resumes, and completes."""
    second = tmp_path / "second"
    words = f"cat restart.* > found.txt; echo 1 > restart.1; test -e {second} || {{ echo waiting; sleep 600; }}; echo y > late.txt"
    here = array("lost", command=f"""["bash", "-c", "{words}"]""")
    with open(here / "byos.toml.template", "a", encoding="utf-8") as template:
        template.write('[resume]\nfiles = ["restart.*"]\n')
    job = cluster.submit(
        here, EXEC, "--array=1", "--ntasks=4", "--requeue", "--open-mode=append", environ=run_environ()
    )
    cluster.until(lambda: "out/lost/1/restart.1" in bucket.sizes(), within_s=60, what="restart file in the bucket")
    cluster.lose_node()
    second.touch()
    cluster.until(lambda: cluster.states(job) == ["PENDING"], within_s=120, what="requeue")
    cluster.start_slurmd()
    cluster.wait(job, within_s=300)

    manifest = bucket.json("out/lost/1/_byos/manifest.json")
    assert ("complete", 2) == (manifest["status"], manifest["attempt"]), log_of(here)
    assert b"1\n" == bucket.get("out/lost/1/found.txt"), log_of(here)
    assert {"restart.1", "found.txt", "late.txt"} == {item["path"] for item in manifest["outputs"]}
    assert "byos-row-1/" not in laid_down(here)


@pytest.mark.parametrize(("kind", "flavour"), [("pmi2", "mpich"), ("pmix", "openmpi")])
def test_ranks_that_srun_starts(cluster, array, bucket, run_environ, request, kind, flavour):
    """They are children of slurmstepd, and still known as the run's: one job of four ranks, stopped as any other."""
    environ = run_environ(path=request.getfixturevalue(flavour), **(DEBIAN_MPI if kind == "pmix" else {}))
    ends = array(f"{kind}-ends", command=f'"srun --mpi={kind} -n {{cores}} python solver.py ends"')
    waits = array(f"{kind}-waits", command=f'"srun --mpi={kind} -n {{cores}} python solver.py obeys"')
    first = cluster.submit(ends, EXEC, "--array=1", "--ntasks=4", environ=environ)
    second = cluster.submit(waits, EXEC, "--array=1", "--ntasks=4", environ=environ)
    cluster.wait(first, within_s=120)
    cluster.until(lambda: b"ready 3" in said(waits), within_s=60, what="ranks")
    cluster.tell("scancel", "--batch", "--signal=TERM", second)
    cluster.wait(second, within_s=90)

    assert 0 == bucket.json(f"out/{kind}-ends/1/_byos/manifest.json")["exit_code"], log_of(ends)
    assert 4 == bucket.get(f"out/{kind}-ends/1/_byos/solver.log").count(b" of 4\n")
    manifest = bucket.json(f"out/{kind}-waits/1/_byos/manifest.json")
    assert ("interrupted", 75) == (manifest["status"], manifest["exit_code"]), log_of(waits)
    assert 4 == bucket.get(f"out/{kind}-waits/1/_byos/solver.log").count(b"finished"), log_of(waits)
