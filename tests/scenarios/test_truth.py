"""The truth of a run: what is in the bucket afterwards is the case, and nothing that ever was there is less than a whole file."""

from __future__ import annotations

import io
import json
import os
import zipfile
import zlib
from pathlib import Path

import pytest
from tests.faults.proxy import FaultProxy
from tests.faults.rules import LoseAnswer, Refuse, Reset, Rule
from tests.kit import cases, runs
from tests.scenarios.test_whole_run import job, outputs

SOLVERS = Path(__file__).parent.parent / "solvers"


@pytest.fixture
def versioned(bucket):
    """The bucket keeps every version of every object."""
    bucket.client.put_bucket_versioning(Bucket=bucket.name, VersioningConfiguration={"Status": "Enabled"})
    return bucket


def sums_in(case, *, but=()):
    """CRC-32 of each file below a directory, by its path there."""
    paths = {str(path.relative_to(case)): path for path in case.rglob("*") if path.is_file()}
    return {name: zlib.crc32(path.read_bytes()) for name, path in paths.items() if name not in but}


def assert_truth(bucket, wanted, complete):
    """The bucket is *wanted*, CRC-32 by path; and each version of an object is among the *complete* ones of its path."""
    assert {path: zlib.crc32(bucket.get(f"out/run/{path}")) for path in outputs(bucket)} == wanted
    manifest = bucket.json("out/run/_byos/manifest.json")
    assert {item["path"] for item in manifest["outputs"]} == set(wanted)
    seen = 0
    pages = bucket.client.get_paginator("list_object_versions").paginate(Bucket=bucket.name, Prefix="out/run/")
    for each in (each for page in pages for each in page.get("Versions", [])):
        path = each["Key"][len("out/run/") :]
        if path.startswith("_byos/"):
            continue
        body = bucket.client.get_object(Bucket=bucket.name, Key=each["Key"], VersionId=each["VersionId"])["Body"].read()
        assert zlib.crc32(body) in complete[path], f"{path}: {len(body)} bytes that never were a complete version"
        seen += 1
    assert seen >= len(wanted)


def test_what_eight_ranks_write_is_in_the_bucket_and_was_never_acknowledged_half(run_byos, versioned, tmp_path, mpich):
    """Open logs, files that are appended to, pauses, rotation in place, renames, new directories, deletions, links, holes: at the
    end the bucket is the case, file by file; and every version of every object that ever was is a complete version of its file."""
    truth = tmp_path / "truth"
    truth.mkdir()
    asked = job(
        versioned, f"exec mpirun -np 8 python {SOLVERS / 'cfd_writer.py'} 6 {truth}", publish={"settle": "0.3s"},
        purge={"when": "never"}, solver={"cores": 8},
    )  # fmt: skip
    ran = run_byos(asked, path=mpich, timeout_s=240)

    assert ran.code == 0, ran.output
    complete: dict[str, set[int]] = {}
    for file in truth.iterdir():
        complete.update({path: set(sums) for path, sums in json.loads(file.read_text()).items()})
    assert_truth(versioned, sums_in(ran.directory / "case", but=("inputs.in", "mesh/surface.dat")), complete)
    assert "of them before the solver's end" in ran.output


RESTARTS = 'restart         20 step.*.rst\nrestart         20 restart.a restart.b\nrun             60 every 20 "shell sleep 0.3"'


def test_what_lammps_writes_is_in_the_bucket_and_was_never_acknowledged_half(run_byos, versioned, tmp_path, mpich):
    """Two restart files in rotation, frames, tables and a log that stay open. The same restarts under numbered names tell what a
    complete version of the rotating ones is; of all other files only the last version is one."""
    made = cases.copper(tmp_path / "copper.zip").read_bytes()
    with zipfile.ZipFile(io.BytesIO(made)) as archive:
        inputs = {name: archive.read(name) for name in ("in.case", "Cu_u3.eam")}
    said = inputs["in.case"].decode().replace("restart         25 restart.a restart.b\nrun             100", RESTARTS)
    assert RESTARTS in said
    asked = job(
        versioned,
        "exec mpirun -np 8 lmp -in in.case",
        publish={"settle": "0.2s"},
        purge={"when": "never"},
        solver={"cores": 8},
    )
    cases.sample_zip(tmp_path / "case.zip", {**inputs, "in.case": said})
    versioned.put("in/case.zip", (tmp_path / "case.zip").read_bytes())
    ran = run_byos(asked, path=mpich, timeout_s=240)

    assert ran.code == 0, ran.output
    wanted = sums_in(ran.directory / "case", but=tuple(inputs))
    restarts = {wanted[f"step.{number}.rst"] for number in range(20, 61, 20)}
    assert {wanted["restart.a"], wanted["restart.b"]} <= restarts
    assert {"log.lammps", "rdf.dat", "dump.60.txt"} <= set(wanted)
    complete = {path: restarts if path.startswith("restart.") else {last} for path, last in wanted.items()}
    assert_truth(versioned, wanted, complete)


FAULTS = {
    "nothing": [],
    "503": [Rule(Refuse(503), method="PUT", chance=0.2), Rule(Refuse(503), method="POST", chance=0.2)],
    "412": [Rule(Refuse(412, "PreconditionFailed"), key=r"status\.json$", nth=(3,))],
    "cut": [Rule(Reset(forwarded=True), method="PUT", chance=0.2), Rule(Reset(), chance=0.05)],
    "lost-complete": [Rule(LoseAnswer(), method="POST", query="^uploadId=")],
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_disk_that_fills_while_outputs_leave_loses_nothing(
    versioned, tmp_path, shipped_file, minio_store, run_environ, fault
):
    """The solver's write fails with ENOSPC, its own code is passed on; all that it wrote is in the bucket, the torn file as it is,
    and no version of an object is less than a file was. The store misbehaves meanwhile."""
    directory, truth = tmp_path / "run", tmp_path / "truth.json"
    with FaultProxy(versioned.store, *FAULTS[fault], seed=1) as proxy:
        asked = job(
            versioned, f"exec python3 {SOLVERS / 'fills_disk.py'} {truth}", publish={"settle": "0.1s"},
            scratch=str(tmp_path / "disk"), store={"endpoint_url": proxy.endpoint_url, "patience": "60s"},
        )  # fmt: skip
        runs.lay_out(directory, file=shipped_file, store=minio_store, job=asked)
        (tmp_path / "disk").mkdir()
        own_mounts = ["unshare", *([] if os.geteuid() == 0 else ["-Ur"]), "-m"]
        script = f"mount -t tmpfs -o size=40m none {tmp_path}/disk && exec sh byos-run"
        ran = runs.run(directory, command=[*own_mounts, "sh", "-c", script], env=run_environ(), timeout_s=240)

    assert ran.code == 28, ran.output
    complete = {path: set(sums) for path, sums in json.loads(truth.read_text()).items()}
    last = {path: sums[-1] for path, sums in json.loads(truth.read_text()).items()}
    assert_truth(versioned, last, complete)
    assert versioned.json("out/run/_byos/manifest.json")["status"] == "solver-failed"
