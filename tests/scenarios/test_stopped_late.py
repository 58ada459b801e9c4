"""The shipped file, told to stop at moments that are not the solver's: in the fetch, in the sweep, after the manifest."""

from __future__ import annotations

import os
import signal

import pytest
from tests.faults.proxy import FaultProxy
from tests.faults.rules import Call, Rule
from tests.kit import metadata, runs
from tests.scenarios.test_whole_run import job, outputs

OWN = "out/run/_byos/"


@pytest.fixture
def signalled(bucket, shipped_file, minio_store, run_environ, tmp_path):
    """A run that is told to stop, *times* times, when a request comes that the rule is for; its code, words, directory, job."""

    def go(*, times, **when):
        told: list[int] = []

        def tell():
            for number in (signal.SIGTERM, signal.SIGINT)[:times]:  # two of a kind that both wait are one
                os.kill(process.pid, number)
                told.append(number)

        with FaultProxy(minio_store, Rule(Call(tell), **when)) as proxy:
            described = job(bucket, "echo x > x.out; echo y > y.out", store={"endpoint_url": proxy.endpoint_url})
            directory = tmp_path / "node"
            runs.lay_out(directory, file=shipped_file, store=minio_store, job=described)
            with runs.started(directory, env=run_environ(**runs.PLATFORM)) as process:
                output, _ = process.communicate(timeout=100)
        assert times == len(told), output
        return process.returncode, output, directory, described

    return go


def test_a_node_that_is_taken_while_the_input_is_fetched(run_byos, bucket):
    """75; no solver is started, and nothing is left."""
    with metadata.serving() as served:
        served.ends_in_s = 14
        asked = job(bucket, "echo never", spot={"watch": "gcp"}, store={"max_bandwidth": "8Mbit/s"})
        bucket.put("in/large.bin", os.urandom(60 << 20))
        asked["input"] = [asked["input"], bucket.url("in/large.bin")]
        ran = run_byos(asked, platform=True, env=served.environ("gcp"))

    assert 75 == ran.code, ran.output
    assert "never" not in ran.output
    manifest = bucket.json(f"{OWN}manifest.json")
    assert ("interrupted", []) == (manifest["status"], manifest["outputs"])
    assert [] == ran.left()


def test_two_signals_in_the_sweep_keep_the_files(bucket, signalled, run_byos):
    """75; all is sent and nothing recorded; the next start ends it. The first listing is the claim's."""
    code, output, directory, asked = signalled(times=2, method="GET", query="list-type", nth=(2,))

    assert 75 == code, output
    assert {"case/x.out", "case/y.out"} <= set(runs.left_in(directory))
    ran = run_byos({**asked, "store": {}}, platform=True, directory=directory)
    assert 0 == ran.code, ran.output
    assert {"x.out": 2, "y.out": 2} == outputs(bucket)
    assert [] == ran.left()


@pytest.mark.parametrize("times", [1, 2])
def test_a_signal_between_manifest_and_purge(bucket, signalled, run_byos, times):
    """One changes nothing: all is whole, the purge is short. Two keep the files, 75, and the next start purges them."""
    code, output, directory, asked = signalled(times=times, method="PUT", key="_byos/manifest.json", nth=(1,))

    if times == 1:
        assert (0, []) == (code, runs.left_in(directory)), output
        return
    assert 75 == code, output
    assert {"case/x.out", "case/y.out"} <= set(runs.left_in(directory))
    ran = run_byos({**asked, "store": {}}, platform=True, directory=directory)
    assert 0 == ran.code, ran.output
    assert "complete" == bucket.json(f"{OWN}manifest.json")["status"]
    assert [] == ran.left()
