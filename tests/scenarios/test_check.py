"""`byos-run check`: every claim of a run tried for real, and nothing left."""

from __future__ import annotations

import json
import socket

import pytest
from tests.scenarios.test_policy import printed, user_with  # noqa: F401  fixtures
from tests.scenarios.test_whole_run import job


@pytest.fixture
def check(run_byos):
    """byos-run check on a job: what came of it, and its document."""

    def go(asked, **more):
        ran = run_byos(asked, "check", "--json", **more)
        return ran, json.loads(ran.output) if ran.output else {}

    return go


def by_name(document):
    return {line["name"]: line for line in document["checks"]}


def test_all_is_well_and_nothing_is_left(check, run_byos, bucket):
    """Each line has a figure; config stays, on the platform too; the bucket is as it was; the plan has the input's figures."""
    asked = job(bucket, "true")
    before = bucket.sizes()
    ran, document = check(asked, platform=True)

    assert 0 == ran.code, ran.output
    assert all(line["ok"] for line in document["checks"]), ran.output
    assert {"node", "command", "keys", "input", "archive", "disk", "write", "parts", "delete"} < set(by_name(document))
    assert (1, 2) == (document["plan"]["objects"], document["plan"]["files"])
    assert "config" in ran.left()
    assert before == bucket.sizes()
    assert "the run can start" in run_byos(asked, "check").output


@pytest.mark.parametrize(("action", "name"), [
    ("s3:GetObject", "input"), ("s3:PutObject", "write"), ("s3:DeleteObject", "delete"), ("s3:AbortMultipartUpload", "parts"),
])  # fmt: skip
def test_a_missing_permission_is_named(check, printed, user_with, bucket, action, name):  # noqa: F811
    """77 with the action; what does not depend on it is tried all the same."""
    asked = job(bucket, "true")
    policy = printed(asked)
    for statement in policy["Statement"]:
        statement["Action"] = [each for each in statement["Action"] if each != action] or ["s3:ListBucket"]
    ran, document = check(asked, config=user_with(policy))

    assert 77 == ran.code, ran.output
    assert action in by_name(document)[name]["said"]
    assert by_name(document)["command"]["ok"]
    assert by_name(document)["listing"]["ok"] is not None


def test_each_mistake_is_told_beside_the_others(check, bucket):
    """No such input, no such command, strangers in the output: the first in a run's order gives the code."""
    bucket.put("out/run/other.dat", "not ours")
    asked = job(bucket, "true")
    ran, document = check({**asked, "input": bucket.url("in/none.zip"), "command": ["no-such-solver"]})

    found = {name: line["code"] for name, line in by_name(document).items() if line["ok"] is False}
    assert {"command": 71, "input": 66, "output free": 64} == found
    assert 71 == ran.code
    assert by_name(document)["archive"]["ok"] is None


def test_a_store_that_is_not_there_is_told_once(check, bucket):
    """69 within seconds, not a wait for each trial."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    ran, document = check(job(bucket, "true", store={"endpoint_url": f"http://127.0.0.1:{port}"}))

    assert 69 == ran.code
    assert [69] == [line["code"] for line in document["checks"] if line["code"]]


def test_the_licence_server_is_asked(check, bucket):
    """Whoever the solver's environment names; one that does not answer is a failure of this node."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        ran, document = check(job(bucket, "true"), env={"RLM_LICENSE": f"{port}@127.0.0.1"})
        assert (0, True) == (ran.code, by_name(document)["licence"]["ok"])
    ran, document = check(job(bucket, "true"), env={"RLM_LICENSE": f"{port}@127.0.0.1"})
    assert (71, False) == (ran.code, by_name(document)["licence"]["ok"])
