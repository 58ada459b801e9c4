"""Claim, publish, record and purge, with a crash between any two effects, attempt after attempt, here or on another node.

A crash is an exception that nothing may catch, raised before the n-th request or deletion; from then on every one raises it. The
store is a real one. What must hold after each: no output is gone from the node that the bucket has not acknowledged; a manifest
claims nothing that is not there; what is acknowledged is never missing from a whole run's manifest.
"""

from __future__ import annotations

import json
import os
import tempfile
import uuid
import zlib
from base64 import b64encode
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from tests.kit import runs

from byos_run import log
from byos_run.book import Book
from byos_run.bucket.wire import Wire
from byos_run.chapters import Run
from byos_run.model import Job, Place, PublishSettings, ResumeSettings, S3Url, Solved, StoreSettings
from byos_run.node.outlet import Outlet
from byos_run.node.stop import Stop
from byos_run.opening import open_run
from byos_run.terminal import Terminal


class Crash(BaseException):
    """The process is no more."""


class Fuse:
    """Burns through at the n-th effect, and stays so."""

    def __init__(self, left: int) -> None:
        self.left = left

    def burn(self) -> None:
        self.left -= 1
        if self.left < 0:
            raise Crash


def attempt(directory: Path, job: Job, *, fuse: Fuse, files: dict[str, bytes]) -> tuple[int | None, bool]:
    """One attempt whose solver writes *files*; its exit code, None if it crashed, and whether its solver ran."""
    outlet = Outlet(os.open(os.devnull, os.O_WRONLY))
    book = Book(lines=log.Lines(outlet, terminal=Terminal(2, {}), volume=-1))
    opened = open_run(job=job, place=Place(directory, {"PATH": os.defpath}), stop=Stop(), book=book)
    line, unlink = opened.wire.line, os.unlink

    def keys():
        fuse.burn()
        return line.keys()

    def burning(*arguments, **more):
        fuse.burn()
        unlink(*arguments, **more)

    burnt = replace(line, keys=keys)
    opened.session._lines[job.output.bucket] = burnt
    run, solved = Run(replace(opened, wire=Wire(burnt, stop=opened.stop, limits=opened.wire.limits))), False
    os.unlink = burning
    try:
        run.claim()
        if not run.is_whole_already:
            run.fetch()
            if run.solved is None:
                solved = True
                for name, content in files.items():
                    (run.room.case / name).write_bytes(content)
                run.case.log.write_text("solved\n")
                run.solved = Solved(0, None, "", "", True, 1.0, 1, 1, 1.0)
                run.journal.solved(run.solved)
            run.publish()
            run.record()
        run.purge()
        return run.close()[0], solved
    except Crash:
        with suppress(OSError):  # closed before the crash, by the run itself
            opened.journal.close()
        opened.session.close()
        return None, solved
    finally:
        os.unlink = unlink
        book.close()


def assert_nothing_is_lost(bucket, node: Path, solved: dict[str, bytes]) -> None:
    """*solved*: what the last solver wrote on *node*, if that was not to be computed again."""
    keys = set(bucket.sizes("out/"))
    for name, content in solved.items():
        in_bucket = f"out/{name}" in keys and bucket.get(f"out/{name}") == content
        assert in_bucket or (node / "case" / name).read_bytes() == content, f"{name} is nowhere"
    if "out/_byos/manifest.json" not in keys:
        return
    manifest = bucket.json("out/_byos/manifest.json")
    told = {item["key"]: item for item in manifest["outputs"]}
    for key, item in told.items():
        assert b64encode(zlib.crc32(bucket.get(key)).to_bytes(4, "big")).decode() == item["crc32"]
    strangers = {key for key in keys if not key.startswith("out/_byos/")} - set(told) - set(manifest["stale"])
    assert manifest["status"] != "complete" or not strangers, strangers


STEP = st.tuples(st.integers(0, 70), st.booleans(), st.sampled_from(["one", "two"]))
"""After how many effects it crashes, whether it runs on a fresh node, which of two commands it has."""


@settings(
    max_examples=4, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True, database=None,
    phases=[Phase.generate],
)  # fmt: skip
@given(steps=st.lists(STEP, min_size=2, max_size=4))
def test_no_crash_loses_anything(minio_store, minio_client, bucket, steps):
    """Whatever crashed before, the next attempt that is let alone ends well, and its manifest is the truth."""
    fresh = bucket._replace(name=f"kit-{uuid.uuid4().hex[:16]}")
    minio_client.create_bucket(Bucket=fresh.name)
    fresh.put("in/inputs.in", b"cells 8\n")
    with tempfile.TemporaryDirectory() as top:
        node, solved, code = Path(top), {}, None
        for number, (effects, elsewhere, command) in enumerate([*steps, (10**6, False, "one")]):
            if elsewhere or not number:
                node = Path(top) / f"node-{number}"
                node.mkdir()
            (node / "config").write_text(runs.config_text(minio_store))
            job = Job(
                (S3Url(fresh.name, "in/inputs.in"),), S3Url(fresh.name, "out/"), ("true", command),
                store=StoreSettings(endpoint_url=minio_store.endpoint_url), resume=ResumeSettings(("*.rst",)),
                publish=PublishSettings(while_running=False),
            )  # fmt: skip
            files = {f"{command}.out": command.encode() * 99, "a.rst": command.encode(), "both.out": b"same"}
            code, ran = attempt(node, job, fuse=Fuse(effects), files=files)
            solved = files if ran else {} if elsewhere else solved
            assert_nothing_is_lost(fresh, node, solved)
    assert code == 0, json.dumps(steps)
    assert fresh.json("out/_byos/manifest.json")["status"] == "complete"
    assert not fresh.sizes("out/_byos/inventory/")
