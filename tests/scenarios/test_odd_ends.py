"""Odd things that a solver or a store does at the end, and what is said of them."""

from __future__ import annotations

import json
import signal
import time

import pytest
from tests.faults.proxy import FaultProxy
from tests.faults.rules import Refuse, Reset, Rule, Stall
from tests.kit import runs
from tests.scenarios.test_whole_run import job, outputs

CONFIG = "[default]\naws_access_key_id = AKIAEARLY\naws_secret_access_key = early\n"


def test_a_log_that_the_solver_deletes_is_missed_aloud(run_byos, bucket):
    """The outputs are published as ever; a warning tells what is not there."""
    ran = run_byos(job(bucket, "echo x > x.out; rm -rf ../.byos"), platform=True)

    assert 0 == ran.code, ran.output
    assert {"x.out": 2} == outputs(bucket)
    assert any("solver.log is gone" in text for text in bucket.json("out/run/_byos/manifest.json")["warnings"])
    assert [] == ran.left()


def test_a_refused_certificate_is_not_called_nothing_solved(run_byos, bucket, minio_store):
    """69 here means that the certificate is not in the bucket; it is printed whole."""
    with FaultProxy(minio_store, Rule(Refuse(403, "AccessDenied"), method="PUT", key="purge.json")) as proxy:
        ran = run_byos(job(bucket, "echo x > x.out", store={"endpoint_url": proxy.endpoint_url}), platform=True)

    assert 69 == ran.code, ran.output
    last = ran.output.splitlines()[-1]
    assert "nothing solved" not in last
    assert "the outputs are whole in the bucket" in last
    assert '"deleted"' in ran.output


def test_an_outage_at_the_end_is_not_prolonged_by_heartbeats(bucket, shipped_file, minio_store, tmp_path, run_environ):
    """Patience is waited out once by each who needs an answer; of the heartbeats only the first waits."""
    with FaultProxy(minio_store) as proxy:
        store = {"endpoint_url": proxy.endpoint_url, "patience": "1s"}
        asked = job(bucket, "echo x > x.out; echo working; sleep 1", store=store, publish={"while_running": False})
        runs.lay_out(tmp_path / "run", file=shipped_file, store=minio_store, job=asked)
        with runs.started(tmp_path / "run", env=run_environ(**runs.PLATFORM)) as process:
            said = ""
            while "working" not in said:
                said = process.stdout.readline()
            proxy.tell(Rule(Reset()))
            started = time.monotonic()
            output, _ = process.communicate(timeout=240)

    assert 74 == process.returncode, output
    assert time.monotonic() - started < 18
    assert "could not be published: x.out" in output


def test_a_file_called_config_that_holds_no_keys_is_an_output(run_byos, bucket):
    """The solver wrote it into the run directory; one that does hold keys is never published."""
    ran = run_byos(job(bucket, "echo mesh=fine > ../config; echo x > x.out"), platform=True)

    assert 0 == ran.code, ran.output
    assert b"mesh=fine\n" == bucket.get("out/run/_byos/rundir/config")
    assert [] == ran.left()
    ran = run_byos(
        job(bucket, "echo aws_secret_access_key = new > ../config; echo y > x.out", again=True), platform=True
    )
    assert 0 == ran.code, ran.output
    paths = [item["path"] for item in json.loads(bucket.get("out/run/_byos/manifest.json"))["outputs"]]
    assert ["x.out"] == paths
    assert [] == ran.left()


@pytest.mark.parametrize("seconds", [0.15, 0.3, 0.45])
def test_a_signal_at_any_early_moment_is_told(tmp_path, shipped_file, run_environ, seconds):
    """Once Python runs the last line says 75; before that the signal ends the process as it would any other."""
    asked = {
        "input": "s3://bucket/a.zip",
        "output": "s3://bucket/out/",
        "command": "true",
        "store": {"endpoint_url": "http://127.0.0.1:9"},
    }
    runs.lay_out(tmp_path / "run", file=shipped_file, store=None, job=asked, config=CONFIG)
    with runs.started(tmp_path / "run", env=run_environ()) as process:
        time.sleep(seconds)
        process.send_signal(signal.SIGTERM)
        output, error = process.communicate(timeout=240)

    assert process.returncode in (75, -signal.SIGTERM), output
    assert "" == error
    assert (process.returncode == 75) == any("exit 75 " in line for line in output.splitlines()[-1:])


def test_a_solver_that_ends_with_a_code_of_ours_is_not_mistaken_for_us(run_byos, bucket):
    """75 is passed on as the solver's, and the last line does not say that the run was stopped and can be resumed."""
    ran = run_byos(job(bucket, "exit 75"), platform=True)

    assert 75 == ran.code, ran.output
    assert "byos-run | exit 75 (the solver's code): the solver failed" == ran.output.splitlines()[-1]


def test_no_inventory_outlives_the_manifest(run_byos, bucket, minio_store):
    """One that is still on its way when the manifest is acknowledged is waited for, and deleted like the others."""
    with FaultProxy(minio_store, Rule(Stall(2.0), method="PUT", key="_byos/inventory/")) as proxy:
        asked = job(bucket, "echo x > x.out; sleep 1.5", store={"endpoint_url": proxy.endpoint_url})
        ran = run_byos({**asked, "publish": {"settle": "0.2s"}}, platform=True)

    assert 0 == ran.code, ran.output
    assert {"x.out": 2} == outputs(bucket)
    assert {} == bucket.sizes("out/run/_byos/inventory/")


def test_every_reader_of_json_takes_the_manifest_whatever_the_names(run_byos, bucket):
    r"""Bytes that are not UTF-8 are shown as ``\xff`` also where a file is skipped, unpublished or a link to a directory."""
    command = r"mkdir sub; ln -s sub $'d\xff'; mkfifo $'f\xff'; echo 1 > $'a\xff'; echo 2 > a%FF"
    ran = run_byos(job(bucket, command), platform=True)

    assert 74 == ran.code, ran.output
    manifest = bucket.json("out/run/_byos/manifest.json")
    json.dumps(manifest, ensure_ascii=False).encode("utf-8")
    assert {"a%FF", r"a\xff"} == {item["path"] for item in manifest["unpublished"]}
    assert [r"f\xff"] == [item["path"] for item in manifest["skipped"]]
    assert {r"d\xff": "sub"} == manifest["directory_links"]


def test_names_of_one_file_inside_and_outside_the_case_are_purged(run_byos, bucket):
    """Unlinking the one stamps the other: it is what was acknowledged all the same."""
    ran = run_byos(
        job(bucket, "ln inputs.in hard.out; ln inputs.in ../beside.out; echo more >> inputs.in"), platform=True
    )

    assert (0, []) == (ran.code, ran.left()), ran.output
    assert {"inputs.in", "hard.out"} == set(outputs(bucket))
    assert bucket.get("out/run/_byos/rundir/beside.out") == bucket.get("out/run/inputs.in")


def test_a_solver_that_takes_all_permissions_away(run_byos, bucket):
    """From its case and from our own directory: they are given back, and all that was written leaves."""
    ran = run_byos(job(bucket, "echo x > x.out; chmod 0 . ../.byos"), platform=True)

    assert (0, []) == (ran.code, ran.left()), ran.output
    assert {"x.out": 2} == outputs(bucket)
