"""The shipped file, told to stop at moments that are not the solver's: in the claim, the fetch, the sweep, after the manifest."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from contextlib import contextmanager

import pytest
from tests.faults.proxy import FaultProxy
from tests.faults.rules import Call, Rule
from tests.kit import metadata, runs
from tests.scenarios.test_whole_run import job, outputs, zip_bytes

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
                output, _ = process.communicate(timeout=240)
        assert times == len(told), output
        return process.returncode, output, directory, described

    return go


@contextmanager
def silent(bucket):
    """The bucket's store behind a proxy; a hook for `Call` after which nothing is answered; the event that it was called."""
    called, over = threading.Event(), threading.Event()

    def fall_silent():
        proxy.tell(Rule(Call(over.wait)))
        called.set()
        over.wait()

    with FaultProxy(bucket.store) as proxy:
        try:
            yield proxy, fall_silent, called
        finally:
            over.set()


@pytest.mark.parametrize(
    "when",
    [
        pytest.param({"method": "GET", "key": r"in/case\.zip"}, id="input"),
        pytest.param({"method": "GET", "key": r"_byos/status\.json"}, id="claim"),
        pytest.param({"method": "PUT", "key": r"_byos/status\.json"}, id="claim-written"),
        pytest.param({"method": "GET", "key": r"in/case\.zip", "nth": (2,)}, id="fetch"),
    ],
)
def test_a_stop_is_heard_while_the_store_says_nothing(bucket, shipped_file, minio_store, run_environ, tmp_path, when):
    """75 before a request would be given up, nothing solved. In the fetch the record is tried for a few seconds."""
    with silent(bucket) as (proxy, fall_silent, called):
        described = job(bucket, "echo never", store={"endpoint_url": proxy.endpoint_url})
        bucket.put("in/case.zip", zip_bytes({"a.dat": os.urandom(3 << 20), "inputs.in": b"x"}))
        proxy.tell(Rule(Call(fall_silent), **when))
        runs.lay_out(tmp_path / "node", file=shipped_file, store=minio_store, job=described)
        with runs.started(tmp_path / "node", env=run_environ(**runs.PLATFORM)) as process:
            assert called.wait(60)
            os.kill(process.pid, signal.SIGTERM)
            told = time.monotonic()
            output, _ = process.communicate(timeout=240)

    assert 75 == process.returncode, output
    assert "stopped by SIGTERM" in output
    assert time.monotonic() - told < 25


def test_a_stop_is_heard_while_keys_are_asked_for(bucket, shipped_file, minio_store, run_environ, tmp_path):
    """Whoever assumes roles says nothing: 75 at once, and not 69 when first contact is given up."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        here = f"http://127.0.0.1:{server.getsockname()[1]}"
        described = job(
            bucket, "echo never", store={"endpoint_url": here, "role_arn": "arn:aws:iam::123456789012:role/x"}
        )
        runs.lay_out(tmp_path / "node", file=shipped_file, store=minio_store, job=described)
        with runs.started(tmp_path / "node", env=run_environ(**runs.PLATFORM)) as process:
            server.settimeout(60)
            with server.accept()[0] as asking:
                assert asking.recv(1 << 16)
                os.kill(process.pid, signal.SIGTERM)
                output, _ = process.communicate(timeout=240)
            server.setblocking(False)
            with pytest.raises(BlockingIOError):  # nobody has asked again
                server.accept()

    assert 75 == process.returncode, output
    assert [] == [path for path in runs.left_in(tmp_path / "node") if path not in ("byos-run", "byos.toml")]


def test_a_stop_in_the_claim_is_heard_by_whoever_watches_a_heartbeat(bucket, signalled):
    """Another attempt may still live: its lease is not waited for by a run that was told to stop just before."""
    bucket.put(f"{OWN}status.json", b'{"run_id": "another", "attempt": 1, "phase": "solve"}')
    code, output, directory, _ = signalled(times=1, method="GET", key=r"_byos/status\.json", nth=(1,))

    assert 75 == code, output
    assert ["byos-run", "byos.toml"] == runs.left_in(directory)


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
