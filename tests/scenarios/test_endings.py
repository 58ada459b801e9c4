"""The shipped file when its time ends from outside: a stall, a notice, the scheduler, a deadline."""

from __future__ import annotations

import time

from tests.faults.proxy import FaultProxy
from tests.faults.rules import Link
from tests.kit import metadata
from tests.scenarios.test_whole_run import job, outputs

HANGS = "echo x > x.out; echo working; sleep 600"


def test_a_stall_is_reported_and_the_run_goes_on(run_byos, bucket):
    """One warning, in the manifest too; the solver decides itself when it ends."""
    asked = job(bucket, "echo working; sleep 2; echo x > x.out", solver={"stall": "0.3s"})
    ran = run_byos(asked, platform=True)

    assert 0 == ran.code, ran.output
    assert 1 == ran.output.count("no output and no change of a file for 0.3s")
    assert any("seems to hang" in text for text in bucket.json("out/run/_byos/manifest.json")["warnings"])


def test_a_stalled_solver_is_stopped_if_asked(run_byos, bucket):
    """What it has written is published; 75, since another start may do better."""
    ran = run_byos(job(bucket, HANGS, solver={"stall": "0.5s", "stall_action": "stop"}), platform=True)

    assert 75 == ran.code, ran.output
    assert {"x.out": 2} == outputs(bucket)
    manifest = bucket.json("out/run/_byos/manifest.json")
    assert ("interrupted", "a stall: no output and no change of a file for 0.5s") == (
        manifest["status"], manifest["solver"]["stopped_by"]
    )  # fmt: skip
    assert [] == ran.left()


def test_a_notice_of_pre_emption_stops_the_run_in_time(run_byos, bucket):
    """The solver is stopped, its outputs leave, the run directory is empty before the machine goes."""
    with metadata.serving() as served:
        served.ends_in_s = 25
        asked = job(bucket, HANGS, solver={"grace": "1s"}, spot={"watch": "gcp"})
        started = time.monotonic()
        ran = run_byos(asked, platform=True, env=served.environ("gcp"))

    assert 75 == ran.code, ran.output
    assert time.monotonic() - started < 22
    assert {"x.out": 2} == outputs(bucket)
    assert "Google Cloud takes this instance back" == bucket.json("out/run/_byos/manifest.json")["solver"]["stopped_by"]
    assert [] == ran.left()


def test_the_clouds_service_is_asked_only_where_the_cloud_is_known(run_byos, bucket):
    """auto on a machine that no cloud's firmware names: not one request."""
    with metadata.serving() as served:
        environ = {**served.environ("aws"), **served.environ("azure"), **served.environ("gcp")}
        ran = run_byos(job(bucket, "echo x > x.out"), platform=True, env=environ)
        asked = list(served.asked)

    assert (0, []) == (ran.code, asked), ran.output


def test_the_end_of_the_slurm_job_is_a_deadline(run_byos, bucket):
    """Said at the start, kept at the end."""
    environ = {"SLURM_JOB_ID": "7", "SLURM_JOB_END_TIME": str(int(time.time()) + 20)}
    ran = run_byos(job(bucket, HANGS, solver={"grace": "1s"}), platform=True, env=environ)

    assert 75 == ran.code, ran.output
    assert time.time() < int(environ["SLURM_JOB_END_TIME"])
    assert "the end of the Slurm job" == bucket.json("out/run/_byos/manifest.json")["solver"]["stopped_by"]
    assert {"x.out": 2} == outputs(bucket)
    assert [] == ran.left()


def test_a_deadline_leaves_the_time_that_a_slow_link_needs(bucket, run_byos, minio_store):
    """10 MB leave early and tell the rate; the 16 MB still open are sent before the time is over: 75, nothing is left."""
    command = "head -c 10000000 /dev/zero > early.out; exec 3> late.out; head -c 16000000 /dev/zero >&3; sleep 600"
    with FaultProxy(minio_store, link=Link(bits_per_s=80e6)) as proxy:
        asked = job(
            bucket, command, deadline="20s", store={"endpoint_url": proxy.endpoint_url}, publish={"settle": "0.5s"},
            solver={"grace": "1s"},
        )  # fmt: skip
        started = time.monotonic()
        ran = run_byos(asked, platform=True)

    assert 75 == ran.code, ran.output
    assert 4 < time.monotonic() - started < 30
    assert {"early.out": 10_000_000, "late.out": 16_000_000} == outputs(bucket)
    assert [] == ran.left()
