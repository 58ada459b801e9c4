"""The shipped file after a crash: killed in the middle, started again on another node or on the same one."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import time
import zlib
from base64 import b64encode
from contextlib import ExitStack

import pytest
import zstandard
from tests.faults.proxy import FaultProxy
from tests.faults.rules import Refuse, Rule, Stall
from tests.kit import runs
from tests.scenarios.test_whole_run import job, outputs

PARTS_AT_ONCE = 4
SOON = {"store": {"lease": "2s"}, "publish": {"settle": "0.3"}}
STEPS = """
    from=$(ls restart.*.rst 2> /dev/null | tail -n 1 | tr -dc 0-9)
    echo "from step $from."
    for step in $(seq $((from + 1)) 4); do
        echo "state $step of $$" > restart.$step.rst.new; mv restart.$step.rst.new restart.$step.rst
        head -c 100000 /dev/urandom > post.$step.h5
        if [ $step = 3 ] && [ ! -e ../resumed ]; then exec 3> half.out; echo half >&3; echo ready; sleep 60; fi
    done
    echo done > done.out
"""


@pytest.fixture
def start(bucket, tmp_path, shipped_file, minio_store, run_environ):
    """Starts a run on the platform in a directory of its own, or in the one given; returns it and its process."""
    made = ExitStack()

    def go(asked, *, directory=None):
        directory = directory or tmp_path / f"node-{len(list(tmp_path.glob('node-*')))}"
        runs.lay_out(directory, file=shipped_file, store=minio_store, job=asked)
        return directory, made.enter_context(runs.started(directory, env=run_environ(**runs.PLATFORM)))

    with made:
        yield go


def said_until(process, text):
    said = []
    for line in process.stdout:
        said.append(line)
        if line == f"{text}\n":
            return
    raise AssertionError(f"it ended without saying {text!r}: {''.join(said)}")


def inventory(bucket):
    """The inventory's objects, in order."""
    keys = sorted(bucket.sizes("out/run/_byos/inventory/"))
    return [json.loads(zstandard.ZstdDecompressor().decompressobj().decompress(bucket.get(key))) for key in keys]


def until(true, *, within_s=120.0):
    deadline = time.monotonic() + within_s
    while not (found := true()):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    return found


def listed(bucket):
    return {item["path"] for told in inventory(bucket) for item in told["outputs"]}


def killed(process):
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def assert_true_union(bucket, attempts):
    """Every output is listed once, with the attempt that wrote it, and is in the bucket as it is listed."""
    manifest = bucket.json("out/run/_byos/manifest.json")
    told = {item["path"]: item for item in manifest["outputs"] if "found_in" not in item}
    assert len(told) == len(manifest["outputs"])
    assert set(told) == set(outputs(bucket)) == set(attempts)
    assert {path: item["attempt"] for path, item in told.items()} == attempts
    for item in told.values():
        content = bucket.get(item["key"])
        assert (len(content), b64encode(zlib.crc32(content).to_bytes(4, "big")).decode()) == (
            item["bytes"],
            item["crc32"],
        )
    return manifest


@pytest.fixture
def dead(bucket, start):
    """A run that was killed when its first three steps were in the bucket; its job and its directory."""

    def go(**more):
        asked = job(bucket, STEPS, **{**SOON, **more})
        directory, process = start(asked)
        said_until(process, "ready")
        until(lambda: {"restart.3.rst", "post.3.h5"} <= listed(bucket))
        killed(process)
        return asked, directory

    return go


def test_the_bucket_knows_what_is_whole_while_the_solver_runs(bucket, dead):
    """Path, size, checksum and time of what was acknowledged; nothing that is open; whose attempt it is."""
    dead()
    told = inventory(bucket)

    entries = {item["path"]: item for each in told for item in each["outputs"]}
    assert "half.out" not in entries
    for item in entries.values():
        content = bucket.get(item["key"])
        assert (len(content), b64encode(zlib.crc32(content).to_bytes(4, "big")).decode()) == (
            item["bytes"],
            item["crc32"],
        )
        assert item["mtime"] > 1.6e9
    assert {(each["attempt"], each["output"]) for each in told} == {(1, bucket.url("out/run/"))}


@pytest.mark.parametrize("here", [False, True], ids=["another-node", "same-node"])
def test_a_killed_run_goes_on_from_its_newest_restart(bucket, dead, start, here):
    """The newest whole file of the pattern is in the case before the solver starts; the manifest is the union."""
    asked, directory = dead()
    asked = {**asked, "resume": {"files": ["restart.*.rst"]}}
    (directory / "resumed").touch()
    fresh, process = start({**asked, "solver": {"env": {}}, "fetch": {}}, directory=directory if here else None)
    (fresh / "resumed").touch()
    output = process.stdout.read()

    assert process.wait(240) == 0, output
    assert "from step 3." in output
    assert "resuming from restart.3.rst" in output
    assert ("unchanged" in output) == here
    attempts = {f"{name}": 1 for step in (1, 2, 3) for name in (f"restart.{step}.rst", f"post.{step}.h5")}
    attempts |= {"restart.4.rst": 2, "post.4.h5": 2, "done.out": 2}
    manifest = assert_true_union(bucket, attempts)
    assert (manifest["status"], manifest["attempt"]) == ("complete", 2)
    assert [item["path"] for item in manifest["resumed"]["files"]] == ["restart.3.rst"]
    assert not bucket.sizes("out/run/_byos/inventory/")
    assert set(runs.left_in(fresh)) <= {"resumed"}


def test_a_stopped_run_goes_on_by_another_command_from_what_is_whole(bucket, start):
    """Ended 75 in good order, restarts stored as zstd: the newest is damaged since, so the one before it is taken."""
    asked = job(bucket, STEPS, **{**SOON, "publish": {"settle": "0.3", "compress": ["*.rst"]}})
    _, process = start(asked)
    said_until(process, "ready")
    process.terminate()
    output, _ = process.communicate(timeout=240)
    assert process.returncode == 75, output
    manifest = bucket.json("out/run/_byos/manifest.json")
    assert manifest["status"] == "interrupted"
    assert "out/run/restart.3.rst.zst" in {item["key"] for item in manifest["outputs"]}
    bucket.put("out/run/restart.3.rst.zst", b"damaged since")
    resume = {
        "files": ["restart.*.rst", "nothing.*"],
        "command": ["bash", "-c", "ls restart.*; cp restart.2.rst last.out"],
    }
    _, process = start({**asked, "resume": resume})
    output = process.stdout.read()

    assert process.wait(240) == 74, output  # a file that the first attempt had acknowledged is not what it was
    assert "not resumed from restart.3.rst" in output
    assert "has nothing whole that 'nothing.*' names" in output
    assert "could not be published: restart.3.rst: the store has it no more" in output
    manifest = bucket.json("out/run/_byos/manifest.json")
    assert manifest["resumed"]["files"][0]["path"] == "restart.2.rst"
    assert manifest["resumed"]["command"] == resume["command"]
    assert {item["path"]: item["attempt"] for item in manifest["outputs"]} == {
        "last.out": 2, "restart.1.rst": 1, "restart.2.rst": 1, "half.out": 1,
        **{f"post.{step}.h5": 1 for step in (1, 2, 3)},
    }  # fmt: skip
    assert bucket.get("out/run/last.out").startswith(b"state 2 of")


def test_another_run_over_a_dead_one_leaves_nothing_of_it(bucket, dead, run_byos):
    """Another command: what the dead attempt had acknowledged and this one did not write goes, just before the manifest."""
    asked, _ = dead()
    ran = run_byos({**asked, "command": ["bash", "-c", "echo new > new.out; echo mine > post.1.h5"]}, platform=True)

    assert ran.code == 0, ran.output
    assert_true_union(bucket, {"new.out": 2, "post.1.h5": 2})
    assert not bucket.sizes("out/run/_byos/inventory/")


def half_uploads(bucket, key):
    """MinIO lists them by their exact key only."""
    return bucket.client.list_multipart_uploads(Bucket=bucket.name, Prefix=key).get("Uploads", [])


def test_half_uploads_of_a_dead_node_are_aborted(bucket, start, run_byos):
    """Key and upload id are in the inventory as soon as an upload is begun."""
    slow = {**SOON["store"], "max_bandwidth": "40Mbit/s"}
    asked = job(bucket, "head -c 60000000 /dev/zero > big.out; echo ready; sleep 60", **{**SOON, "store": slow})
    _, process = start(asked)
    said_until(process, "ready")
    until(lambda: any(told["uploads"] for told in inventory(bucket)))
    killed(process)
    assert len(half_uploads(bucket, "out/run/big.out")) == 1
    ran = run_byos({**asked, "command": ["bash", "-c", "echo small > small.out"]}, platform=True)

    assert ran.code == 0, ran.output
    assert half_uploads(bucket, "out/run/big.out") == []
    assert_true_union(bucket, {"small.out": 2})


def test_an_upload_that_was_cut_off_is_finished_on_the_same_node(bucket, start, minio_store):
    """The next start sends the parts that the store does not have, and no others; no half upload stays."""
    size = 96 << 20
    last = Rule(Stall(600), method="PUT", query="partNumber=6")  # so that it is not over before it is killed
    with FaultProxy(minio_store, last) as proxy:
        store = {"endpoint_url": proxy.endpoint_url, "max_bandwidth": "200Mbit/s", "lease": "2s"}
        asked = job(bucket, f"head -c {size} /dev/urandom > big.out; sha256sum big.out", store=store)
        asked["publish"] = {"while_running": False}
        directory, process = start(asked)
        parts = lambda: [each for each in proxy.seen if "partNumber" in each.query]  # noqa: E731
        until(lambda: len(parts()) > PARTS_AT_ONCE)
        killed(process)
        proxy.tell()
        sent_before = len(parts())
        log = (directory / ".byos" / "solver.log").read_text()
        _, process = start({**asked, "store": {**store, "max_bandwidth": ""}}, directory=directory)
        output = process.stdout.read()
        sent_after = len(parts()) - sent_before

    assert process.wait(240) == 0, output
    assert sent_before + sent_after <= 6 + PARTS_AT_ONCE, (sent_before, sent_after)
    assert sent_after < 6
    assert hashlib.sha256(bucket.get("out/run/big.out")).hexdigest() == log.split()[0]
    assert half_uploads(bucket, "out/run/big.out") == []


def test_a_claim_that_leads_to_nothing_is_released(bucket, run_byos, minio_store):
    """A second attempt that may not delete ends 77; the next one need not wait for its lease."""
    assert run_byos(job(bucket, "echo 1 > x.out"), platform=True).code == 0
    asked = job(bucket, "echo 2 > x.out")
    with FaultProxy(minio_store, Rule(Refuse(403, "AccessDenied"), method="DELETE")) as proxy:
        refused = run_byos({**asked, "store": {"endpoint_url": proxy.endpoint_url}}, platform=True)
    status = bucket.json("out/run/_byos/status.json")
    ran = run_byos(asked, platform=True)

    assert refused.code == 77, refused.output
    assert "s3:DeleteObject" in refused.output
    assert (status["phase"], status["exit_code"]) == ("over", 77)
    assert ran.code == 0, ran.output
    assert "watching" not in ran.output
    assert bucket.get("out/run/x.out") == b"2\n"
