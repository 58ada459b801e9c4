"""The whole job on every kind of store; `make test-stores` adds those that take minutes to build."""

from __future__ import annotations

import json
import uuid

import pytest
from tests.conftest import Bucket
from tests.scenarios.test_whole_run import job, outputs

SOLVE = r"""
    head -c 20000000 /dev/zero > big.bin; for n in $(seq 30); do echo $n > small.$n; done; touch empty; mkdir 'a b%20+#&'
    echo odd > 'a b%20+#&/Größe?.h5'; echo stray > ../stray
"""


@pytest.fixture
def bucket(any_kind_of_store):
    client = any_kind_of_store.client()
    name = f"kit-{uuid.uuid4().hex[:16]}"
    client.create_bucket(Bucket=name)
    yield Bucket(name, client, any_kind_of_store)
    client.close()


def test_a_doe_of_one_row_from_end_to_end(run_byos, bucket):
    """Run, nothing to do, run anew and drop what is stale, fail, verify by reading, look at how it stands."""
    store = bucket.store
    words = ("--store-endpoint-url", store.endpoint_url)
    asked = job(bucket, SOLVE)
    ran = run_byos(asked, platform=True, store=store)
    assert 0 == ran.code, ran.output
    assert [] == ran.left()
    assert 33 == len(outputs(bucket))
    assert 20_000_000 == outputs(bucket)["big.bin"]
    assert b"stray\n" == bucket.get("out/run/_byos/rundir/stray")
    verified = run_byos(None, "verify", bucket.url("out/"), "--read", *words, store=store)
    assert (0, True) == (verified.code, "whole: 34 outputs" in verified.output), verified.output + verified.error

    ran = run_byos(asked, platform=True, store=store)
    assert (0, True) == (ran.code, "nothing to do" in ran.output), ran.output

    ran = run_byos({**asked, "command": ["bash", "-c", "echo once more > small.7; exit 3"]}, platform=True, store=store)
    assert 3 == ran.code, ran.output
    assert {"small.7": 10} == outputs(bucket)
    assert 3 == bucket.json("out/run/_byos/manifest.json")["attempt"]

    stands = run_byos(None, "status", bucket.url("out/"), "--json", *words, store=store)
    (run,) = json.loads(stands.output)["runs"]
    assert (1, "failed", 3, 3) == (stands.code, run["state"], run["exit_code"], run["attempt"])
    bucket.client.delete_object(Bucket=bucket.name, Key="out/run/small.7")
    verified = run_byos(None, "verify", bucket.url("out/run/"), *words, store=store)
    assert (74, True) == (verified.code, "  missing     small.7" in verified.output)


def test_a_mistyped_bucket_is_not_made(run_byos, bucket):
    """66, also where a PUT would make it."""
    asked = job(bucket, "true")
    ran = run_byos({**asked, "output": "s3://kit-no-such-bucket/out/"}, store=bucket.store)

    assert 66 == ran.code, ran.output
    assert "kit-no-such-bucket" not in {item["Name"] for item in bucket.client.list_buckets()["Buckets"]}


def test_a_name_that_the_store_cannot_hold_is_told(run_byos, bucket):
    """A file and, in an object's name, a directory below it, or a name that no store takes: published, or 74 and kept."""
    ran = run_byos(job(bucket, r"echo 1 > fine; mkdir d; echo 2 > 'd/back\slash'"), store=bucket.store)

    told = bucket.json("out/run/_byos/manifest.json")
    published = {item["path"] for item in told["outputs"]}
    unpublished = {item["path"] for item in told["unpublished"]}
    assert {"fine", r"d/back\slash"} == published | unpublished
    assert (74 if unpublished else 0) == ran.code, ran.output
