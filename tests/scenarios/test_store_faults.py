"""The shipped file against a store that misbehaves, phase by phase: what is in the bucket, what is left, and the exit code."""

from __future__ import annotations

import base64
import random
import re
import threading
import time
import zlib
from contextlib import contextmanager

import pytest
from tests.faults.proxy import FaultProxy
from tests.faults.rules import Call, Corrupt, Cut, IgnoreRange, LoseAnswer, Refuse, Reset, Rule, WrongRange
from tests.scenarios.test_whole_run import job, outputs, zip_bytes

SOLVE = "head -c 9000000 /dev/urandom > big.h5; for n in 1 2 3 4 5 6; do echo $n > small.$n; done"
SIZES = {"big.h5": 9_000_000, **{f"small.{n}": 2 for n in range(1, 7)}}
INPUT = r"/in/case\.zip$"
OUTPUT = r"/out/run/(?!_byos/)"
OWN = r"/out/run/_byos/"


@contextmanager
def faulty(bucket, *told):
    """The bucket's store behind the proxy."""
    with FaultProxy(bucket.store, *told) as proxy:
        yield proxy, bucket.store._replace(endpoint_url=proxy.endpoint_url)


def asked(bucket, command=SOLVE, *, patience="20s", first_contact="5s", **more):
    store = {"patience": patience, "first_contact": first_contact, **more.pop("store", {})}
    return job(bucket, command, store=store, **more)


def assert_true_manifest(bucket):
    """Every entry of the manifest is in the bucket, byte for byte as it says."""
    for item in bucket.json("out/run/_byos/manifest.json")["outputs"]:
        assert item["crc32"] == crc_of(bucket.get(item["key"]))


def crc_of(content):
    return base64.b64encode(zlib.crc32(content).to_bytes(4, "big")).decode()


PASSING = [
    pytest.param(Refuse(503, "SlowDown"), id="503"),
    pytest.param(Refuse(500, "InternalError"), id="500"),
    pytest.param(Reset(), id="reset-before"),
    pytest.param(LoseAnswer(), id="answer-lost"),
]
PHASES = [
    pytest.param({"key": INPUT, "nth": (1, 2)}, id="fetch"),
    pytest.param({"key": OWN, "method": "PUT", "nth": (1, 2)}, id="claim"),
    pytest.param({"key": OUTPUT, "nth": (1, 2, 5, 9)}, id="publish"),
    pytest.param({"key": OWN + "manifest", "method": "PUT", "nth": (1, 2)}, id="manifest"),
    pytest.param({"key": OWN + "purge", "method": "PUT", "nth": (1, 2)}, id="certificate"),
]


@pytest.mark.parametrize("when", PHASES)
@pytest.mark.parametrize("fault", PASSING)
def test_what_passes_is_not_noticed(run_byos, bucket, fault, when):
    """Whatever the phase: outputs whole and true, the run directory empty, exit 0."""
    with faulty(bucket, Rule(fault, **when)) as (proxy, store):
        ran = run_byos(asked(bucket), store=store, platform=True)
        befallen = sum(each.fault is not None for each in proxy.seen)

    assert 0 == ran.code, ran.output
    assert befallen
    assert SIZES == outputs(bucket)
    assert_true_manifest(bucket)
    assert [] == ran.left()


@pytest.mark.parametrize(
    ("fault", "code"),
    [
        pytest.param(Corrupt(at_byte=44), 65, id="bit-flipped"),
        pytest.param(Refuse(403, "AccessDenied"), 77, id="denied"),
        pytest.param(Refuse(404, "NoSuchKey"), 66, id="missing"),
        pytest.param(Refuse(503), 69, id="outage"),
        pytest.param(IgnoreRange(), 0, id="whole-object-instead-of-its-end"),
        pytest.param(Cut(at_byte=100), 69, id="always-cut"),
    ],
)
def test_a_fetch_that_cannot_be_done_says_why(run_byos, bucket, fault, code):
    """The right code, no case, nothing solved, and no output in the bucket."""
    with faulty(bucket, Rule(fault, key=INPUT)) as (_, store):
        ran = run_byos(asked(bucket, patience="1s"), store=store, platform=True)

    assert code == ran.code, ran.output
    if code:
        assert {} == outputs(bucket)
        assert not (ran.directory / "case").exists()


def large_case(bucket, mark):
    """A zip whose members lie before the end of the object, which the first request brings."""
    content = bytes([mark]) * 200_000 + random.Random(mark).randbytes(3 << 20)
    bucket.put("in/case.zip", zip_bytes({"a.dat": content, "inputs.in": b"x"}))
    return content


@pytest.mark.parametrize(("changes", "code"), [(1, 0), (2, 65)], ids=["once", "twice"])
def test_an_input_that_is_replaced_while_it_is_read(run_byos, bucket, changes, code):
    """Once: begun again on the new version. Twice: 65. Never a mixture of both."""
    with faulty(bucket) as (proxy, store):
        described = asked(bucket, "cp a.dat copy.dat")
        large_case(bucket, 1)
        newest = [b""]

        def replace():
            newest[0] = large_case(bucket, 10 + len(proxy.seen))

        proxy.tell(*[Rule(Call(replace), key=INPUT, header=r"^range: bytes=\d", nth=(1,) if changes == 1 else ())])
        ran = run_byos(described, store=store)

    assert code == ran.code, ran.output
    if code:
        assert {} == outputs(bucket)
    else:
        assert newest[0] == bucket.get("out/run/copy.dat")


@pytest.mark.parametrize("fault", [WrongRange(shift=1), IgnoreRange()], ids=["wrong-range", "200"])
def test_ranges_that_go_wrong_at_times_come_right(run_byos, bucket, fault):
    """Every third range is answered wrongly: the case is right."""
    with faulty(bucket) as (proxy, store):
        described = asked(bucket, "cp a.dat copy.dat")
        content = large_case(bucket, 7)
        proxy.tell(Rule(fault, key=INPUT, header=r"^range: bytes=\d", nth=(1, 2, 5)))
        ran = run_byos(described, store=store)

    assert 0 == ran.code, ran.output
    assert content == bucket.get("out/run/copy.dat")


def test_no_outage_ends_a_run_while_the_solver_runs(run_byos, bucket, tmp_path):
    """The store is gone for longer than patience, heartbeats and early outputs fail; at the end all leaves."""
    healed = tmp_path / "healed"
    command = f"echo early > early.out; until [ -e {healed} ]; do sleep 0.05; done; echo late > late.out"
    with faulty(bucket) as (proxy, store):

        def away():
            try:
                proxy.wait_for(lambda seen: any(re.search(OWN + "live|early", each.key) for each in seen))
                proxy.tell(Rule(Refuse(503)))
                proxy.wait_for(lambda seen: any(each.fault for each in seen))
                time.sleep(3)  # longer than patience
                proxy.tell()
            finally:
                healed.touch()

        thread = threading.Thread(target=away)
        thread.start()
        ran = run_byos(asked(bucket, command, patience="1s", publish={"settle": "0.2s"}), store=store, platform=True)
        thread.join()

    assert 0 == ran.code, ran.output
    assert {"early.out": 6, "late.out": 5} == outputs(bucket)


def test_an_outage_after_the_solve_keeps_the_files_and_the_next_start_sends_them(run_byos, bucket):
    """74 past patience: outputs, journal and job file stay; the next start only publishes, records and purges."""
    with faulty(bucket) as (proxy, store):
        described = asked(bucket, "echo ran >> runs; echo x > x.out", patience="1s", publish={"while_running": False})
        proxy.tell(Rule(Refuse(503), key=OUTPUT, method="PUT"), Rule(Refuse(503), key=OWN + "manifest", method="PUT"))
        ran = run_byos(described, store=store, platform=True)
        assert 74 == ran.code, ran.output
        assert {"case/x.out", "case/runs", "byos.toml", ".byos/"} <= set(ran.left())
        assert "config" not in ran.left()
        proxy.tell()
        again = run_byos(described, store=store, platform=True, directory=ran.directory)

    assert 0 == again.code, again.output
    assert b"ran\n" == bucket.get("out/run/runs")
    assert [] == again.left()


def test_a_permission_lost_for_one_output_lists_that_one(run_byos, bucket):
    """The others leave; 74, the reason names action and key, and the file stays."""
    denied = Rule(Refuse(403, "AccessDenied"), key=r"small\.3$", method="PUT")
    with faulty(bucket, denied) as (_, store):
        ran = run_byos(asked(bucket), store=store, platform=True)

    assert 74 == ran.code, ran.output
    assert {key: size for key, size in SIZES.items() if key != "small.3"} == outputs(bucket)
    manifest = bucket.json("out/run/_byos/manifest.json")
    assert "partial" == manifest["status"]
    assert re.search(r"small\.3: s3:PutObject on s3://.* refused: 403 AccessDenied", ran.output)
    assert "case/small.3" in ran.left()
    assert "case/small.2" not in ran.left()


def test_keys_revoked_while_publishing_end_it_and_the_files_stay(run_byos, bucket):
    """77; the rest is not tried one by one, but listed; nothing is deleted, and the next start, with keys, only publishes."""
    revoked = Rule(Refuse(403, "InvalidAccessKeyId"), key=r"/out/run/")
    with faulty(bucket) as (proxy, store):
        command = "echo ran >> runs; for i in {1..200}; do echo $i > small.$i; done"
        described = asked(bucket, command, publish={"while_running": False, "priority": ["small.1"]})
        proxy.tell(Rule(Call(lambda: proxy.tell(revoked)), key=r"small\.1$", method="PUT"))
        ran = run_byos(described, store=store, platform=True)

        assert 77 == ran.code, ran.output
        assert "could not be published: small." in ran.output
        assert "the next start only publishes" in ran.output.splitlines()[-1]
        assert {"byos.toml", ".byos/", "case/runs", *(f"case/small.{number}" for number in range(1, 201))} <= set(
            ran.left()
        )
        assert "config" not in ran.left()
        proxy.tell()
        again = run_byos(described, store=store, platform=True, directory=ran.directory)

    assert 0 == again.code, again.output
    assert b"ran\n" == bucket.get("out/run/runs")
    assert [] == again.left()


@pytest.mark.parametrize("behind", ["deleted", "replaced"])
def test_an_object_that_goes_behind_our_back_is_sent_again(run_byos, bucket, behind):
    """Acknowledged, then deleted or replaced before the manifest: the sweep finds it."""
    key = "out/run/small.1"

    def spoil():
        if behind == "deleted":
            bucket.client.delete_object(Bucket=bucket.name, Key=key)
        else:
            bucket.put(key, b"??")

    with faulty(bucket, Rule(Call(spoil), method="GET", query="list-type=2", nth=(2,))) as (proxy, store):
        ran = run_byos(asked(bucket), store=store, platform=True)
        sent = sum(each.key.endswith(key) and each.method == "PUT" for each in proxy.seen)

    assert 0 == ran.code, ran.output
    assert 2 == sent
    assert SIZES == outputs(bucket)
    assert_true_manifest(bucket)


def test_a_store_that_forgets_for_ever_is_told_on(run_byos, bucket):
    """Accepted, acknowledged and gone, each time: 74, and the file stays."""

    def forget():
        bucket.client.delete_object(Bucket=bucket.name, Key="out/run/small.1")

    told = [Rule(Call(forget), method="GET", query="list-type=2"), Rule(Call(forget), method="HEAD", key=r"small\.1$")]
    with faulty(bucket, *told) as (_, store):
        ran = run_byos(asked(bucket), store=store, platform=True)

    assert 74 == ran.code, ran.output
    assert "small.1: the store acknowledged it and does not have it" in ran.output
    assert "case/small.1" in ran.left()


LAST = [("manifest", {"case/small.1", ".byos/", "byos.toml"}, 74), ("purge", set(), 69)]


@pytest.mark.parametrize(("name", "stays", "code"), LAST, ids=["manifest", "certificate"])
@pytest.mark.parametrize("forgets", ["once", "for-ever"])
def test_a_manifest_or_certificate_that_the_store_loses(run_byos, bucket, name, stays, code, forgets):
    """Acknowledged and cut short: it is written again. Acknowledged and gone each time: as if the store had refused it."""
    key = f"out/run/_byos/{name}.json"

    def lose():
        if forgets == "once":
            bucket.put(key, bucket.get(key)[:100])
        else:
            bucket.client.delete_object(Bucket=bucket.name, Key=key)

    nth = (1,) if forgets == "once" else ()
    with faulty(bucket, Rule(Call(lose, when="answered"), method="PUT", key=f"/{key}$", nth=nth)) as (_, store):
        ran = run_byos(asked(bucket), store=store, platform=True)

    if forgets == "once":
        assert (0, []) == (ran.code, ran.left()), ran.output
        assert 0 == bucket.json(key)["exit_code"]
    else:
        assert code == ran.code, ran.output
        assert f"{name}.json and does not have it" in ran.output
        assert stays <= set(ran.left())
        assert stays or '"deleted"' in ran.output


def test_an_upload_that_could_not_be_aborted_is_aborted_in_the_end(run_byos, bucket):
    """Neither completed nor aborted at first; nothing of it stays in the bucket."""
    told = [
        Rule(Refuse(403, "AccessDenied"), method="POST", key=r"big\.h5$", query="uploadId"),
        Rule(Refuse(403, "AccessDenied"), method="DELETE", key=r"big\.h5$", nth=(1,)),
    ]
    with faulty(bucket, *told) as (proxy, store):
        ran = run_byos(asked(bucket, publish={"while_running": False}), store=store, platform=True)
        aborted = [each.fault is None for each in proxy.seen if each.method == "DELETE" and each.key.endswith("big.h5")]

    assert 74 == ran.code, ran.output
    assert [False, True] == aborted
    assert not bucket.client.list_multipart_uploads(Bucket=bucket.name, Prefix="out/run/big.h5").get("Uploads")


def test_a_lost_answer_to_the_claim_is_known_as_ours(run_byos, bucket):
    """status.json was written with If-None-Match, and nobody heard: the next try finds our own name in it."""
    lost = Rule(LoseAnswer(), method="PUT", key=OWN + "status", header="^if-none-match", nth=(1,))
    with faulty(bucket, lost) as (proxy, store):
        ran = run_byos(asked(bucket), store=store, platform=True)
        tries = [each for each in proxy.seen if "if-none-match" in each.headers]

    assert 0 == ran.code, ran.output
    assert 2 <= len(tries)  # a slow machine may give up waiting for an answer once more


@pytest.mark.parametrize("at_byte", [0, 60, 200])
def test_a_list_of_parts_that_is_damaged_on_its_way_is_sent_again(run_byos, bucket, at_byte):
    """A bit that flips in what completes a large file, over plain http: the store refuses it, and the file is whole."""
    flipped = Rule(Corrupt(at_byte=at_byte, request=True), method="POST", key=OUTPUT, query="uploadId", nth=(1,))
    with faulty(bucket, flipped) as (_, store):
        ran = run_byos(asked(bucket), store=store, platform=True)

    assert 0 == ran.code, ran.output
    assert SIZES == outputs(bucket)
    assert_true_manifest(bucket)


def test_without_listing_a_missing_key_answers_403(run_byos, bucket):
    """What AWS says without s3:ListBucket: once a probe was written and read, 403 below _byos/ means absent."""
    told = [
        Rule(Refuse(403, "AccessDenied"), method="GET", key=OWN + r"(status|manifest|purge)\.json$", nth=(1, 2)),
        Rule(Refuse(403, "AccessDenied"), method="GET", query="list-type=2"),
    ]
    with faulty(bucket, *told) as (_, store):
        ran = run_byos(asked(bucket), store=store, platform=True)

    assert 0 == ran.code, ran.output
    assert SIZES == outputs(bucket)
    assert not [key for key in bucket.sizes("out/run/_byos/") if "probe" in key]


@pytest.mark.parametrize("seed", [1, 2])
def test_a_storm_from_beginning_to_end(run_byos, bucket, seed):
    """One request in five goes wrong, each in its own way, in every phase: outputs whole and true, nothing left."""
    told = [
        Rule(Refuse(503), chance=0.05), Rule(Reset(), chance=0.05), Rule(LoseAnswer(), chance=0.05),
        Rule(Cut(at_byte=30), method="GET", chance=0.1), Rule(Corrupt(at_byte=0, request=True), key=OUTPUT, chance=0.1),
    ]  # fmt: skip
    with FaultProxy(bucket.store, *told, seed=seed) as proxy:
        store = bucket.store._replace(endpoint_url=proxy.endpoint_url)
        ran = run_byos(asked(bucket, patience="60s", first_contact="30s"), store=store, platform=True)

    assert 0 == ran.code, ran.output
    assert SIZES == outputs(bucket)
    assert_true_manifest(bucket)
    assert [] == ran.left()
