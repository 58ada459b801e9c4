"""`byos-run check`: every claim of a run tried for real, told with the code that a run would end with, and nothing left."""

from __future__ import annotations

import json
import socket

import pytest
from tests.scenarios.test_policy import printed, user_with  # noqa: F401  fixtures
from tests.scenarios.test_whole_run import job

GRANTED = ("s3:GetObject", "s3:PutObject", "s3:DeleteObject", "s3:AbortMultipartUpload")


@pytest.fixture
def check(run_byos):
    """byos-run check on a job: what came of it, and its document."""

    def go(asked, *words, **more):
        ran = run_byos(asked, "check", "--json", *words, **more)
        return ran, json.loads(ran.output) if ran.output else {}

    return go


def failed(document):
    """Name → code of what would end the run."""
    return {line["name"]: line["code"] for line in document["checks"] if line["state"] == "failed"}


def told(document, name):
    return " ".join(f"{line['told']} {line['hint']}" for line in document["checks"] if line["name"] == name)


def leftovers(bucket):
    """Objects that a check wrote."""
    return [key for key in bucket.sizes() if "probe" in key]


def test_all_is_well_and_nothing_is_left(check, run_byos, bucket):
    """Each line has a figure; config stays, on the platform too; the bucket is as it was; the plan has the input's figures."""
    asked = job(bucket, "true")
    before = bucket.sizes()
    ran, document = check(asked, platform=True)

    assert 0 == ran.code, ran.output
    assert document["ok"]
    assert {} == failed(document)
    names = {line["name"] for line in document["checks"]}
    assert {
        "directory",
        "command",
        "identity",
        "input",
        "archives",
        "read",
        "disk",
        "write",
        "multipart",
        "delete",
    } <= names
    assert (1, 2) == (document["plan"]["objects"], document["plan"]["members"])
    assert document["plan"]["fetch_seconds"] > 0 < document["plan"]["write_bytes_per_s"]
    assert "config" in ran.left()
    assert before == bucket.sizes()
    assert "ready to run" in run_byos(asked, "check").output


@pytest.mark.parametrize("action", [*GRANTED, "s3:ListBucket"])
def test_a_missing_permission_is_named_and_nothing_is_left(check, printed, user_with, bucket, action):  # noqa: F811
    """77 with the action; what does not depend on it is tried all the same; listing alone is a note."""
    asked = job(bucket, "true")
    policy = printed(asked)
    for statement in policy["Statement"]:
        statement["Action"] = [each for each in statement["Action"] if each != action]
    policy["Statement"] = [statement for statement in policy["Statement"] if statement["Action"]]
    ran, document = check(asked, config=user_with(policy))

    assert (0 if action == "s3:ListBucket" else 77) == ran.code, ran.output
    where = {
        "s3:GetObject": "input",
        "s3:PutObject": "write",
        "s3:DeleteObject": "delete",
        "s3:AbortMultipartUpload": "abort",
    }
    assert action in told(document, where.get(action, "listing"))
    assert told(document, "command")
    assert [] == leftovers(bucket)
    uploads = bucket.client.list_multipart_uploads(Bucket=bucket.name, Prefix="out/run/")
    assert not uploads.get("Uploads")


def strangers(bucket, directory):
    bucket.put("out/run/other.dat", b"not ours")
    return {}


def case_in_the_way(bucket, directory):
    (directory / "case").mkdir(parents=True)
    (directory / "case" / "mine.txt").write_text("a user's")
    return {}


def damaged(bucket, directory):
    bucket.put("in/damaged.zip", b"PK this is no zip at all" * 100)
    return {"input": bucket.url("in/damaged.zip")}


def no_input(bucket, directory):
    return {"input": [bucket.url("in/case.zip"), bucket.url("in/none.zip"), bucket.url("in/neither.zip")]}


def no_command(bucket, directory):
    return {"command": ["no-such-solver"]}


def no_bucket(bucket, directory):
    return {"output": "s3://kit-no-such-bucket/out/"}


def no_room(bucket, directory):
    return {"fetch": {"max_bytes": "100 B"}}


@pytest.mark.parametrize(("prepare", "code", "name"), [
    (strangers, 64, "prefix"), (case_in_the_way, 64, "directory"), (damaged, 65, "archives"), (no_input, 66, "input"),
    (no_command, 71, "command"), (no_bucket, 66, "output"), (no_room, 65, "archives"),
], ids=lambda value: getattr(value, "__name__", None))  # fmt: skip
def test_it_ends_as_the_run_would(check, run_byos, bucket, tmp_path, prepare, code, name):
    """The same settings, first checked and then run: one code."""
    directory = tmp_path / "own"
    asked = {**job(bucket, "true"), **prepare(bucket, directory)}
    ran, document = check(asked, directory=directory)
    really = run_byos(asked, directory=directory)

    assert (really.code, ran.code) == (code, code), f"{ran.output}\n{really.output}"
    assert code == failed(document)[name]


def test_wrong_keys(check, run_byos, bucket):
    """77 at the first thing that is asked of the store."""
    asked, config = job(bucket, "true"), "[default]\naws_access_key_id = NOBODYNOBODY\naws_secret_access_key = x\n"
    ran, document = check(asked, config=config)

    assert (77, 77) == (ran.code, run_byos(asked, config=config).code)
    assert 77 == failed(document)["input"]


def test_each_mistake_is_told_beside_the_others(check, bucket):
    """No such input, no such command, strangers in the output: the first in a run's order gives the code."""
    bucket.put("out/run/other.dat", "not ours")
    asked = job(bucket, "true")
    inputs = [bucket.url("in/none.zip"), bucket.url("in/neither.zip")]
    ran, document = check({**asked, "input": inputs, "command": ["no-such-solver"]})

    assert {"command": 71, "input": 66, "prefix": 64} == failed(document)
    assert 71 == ran.code
    for missing in ("in/none.zip", "in/neither.zip"):
        assert missing in told(document, "input")


def test_strangers_beside_a_run_that_ended(check, run_byos, bucket):
    """What a user put there since is not ours to overwrite: the next run would be refused, and check says so."""
    first = run_byos(job(bucket, "echo 1 > result.dat"))
    bucket.put("out/run/other.dat", "not ours")
    asked = job(bucket, "echo 2 > other.dat")
    ran, _ = check(asked)

    assert (0, 64, 64) == (first.code, ran.code, run_byos(asked).code)


def test_an_equal_run_that_is_whole_is_told(check, run_byos, bucket):
    """Nothing would be done; `again` is named."""
    asked = job(bucket, "echo 1 > result.dat")
    assert 0 == run_byos(asked).code
    ran, document = check(asked)

    assert 0 == ran.code
    assert "again = true" in told(document, "prefix")


def test_a_row_of_a_table_in_the_bucket(check, bucket):
    """--table s3://…: the row's input is what is looked at."""
    asked = job(bucket, "true")
    lines = [
        "s3_input,s3_output",
        f"{asked['input']},{bucket.url('out/a/')}",
        f"{bucket.url('in/none.zip')},{bucket.url('out/b/')}",
    ]
    bucket.put("in/doe.csv", "\n".join(lines))
    del asked["input"], asked["output"]
    table = bucket.url("in/doe.csv")
    with_row = {row: check(asked, "--table", table, "--row", row)[0].code for row in ("1", "2")}

    assert {"1": 0, "2": 66} == with_row


def test_a_store_that_is_not_there_is_told_once(check, bucket):
    """69 within seconds, not a wait for each trial."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    ran, document = check(job(bucket, "true", store={"endpoint_url": f"http://127.0.0.1:{port}"}))

    assert 69 == ran.code
    assert [69] == [line["code"] for line in document["checks"] if line["code"]]


def test_one_licence_server_of_several_is_enough(check, bucket):
    """Whoever the solver's environment names is asked; that none answers is a failure of this node."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        ran, document = check(job(bucket, "true"), env={"RLM_LICENSE": f"1@127.0.0.1:{port}@127.0.0.1"})
        assert (0, {}) == (ran.code, failed(document))
        assert f"{port}@127.0.0.1" in told(document, "licence")
    ran, document = check(job(bucket, "true"), env={"RLM_LICENSE": f"{port}@127.0.0.1"})
    assert (71, {"licence": 71}) == (ran.code, failed(document))
