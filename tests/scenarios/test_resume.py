"""The shipped file after a crash: killed in the middle, started again on another node or on the same one."""

from __future__ import annotations

import json
import os
import signal
import time
import zlib
from base64 import b64encode
from contextlib import ExitStack

import pytest
import zstandard
from tests.kit import runs
from tests.scenarios.test_whole_run import job, outputs

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
        if text in line:
            return
    raise AssertionError(f"it ended without saying {text!r}: {''.join(said)}")


def inventory(bucket):
    """The inventory's objects, in order."""
    keys = sorted(bucket.sizes("out/run/_byos/inventory/"))
    return [json.loads(zstandard.ZstdDecompressor().decompressobj().decompress(bucket.get(key))) for key in keys]


def until(true, *, within_s=40.0):
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

    assert process.wait(60) == 0, output
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
