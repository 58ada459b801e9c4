"""`byos-run policy`: enough for a whole run, and nothing in it that a run could do without."""

from __future__ import annotations

import json
import uuid
from urllib.parse import urlsplit

import pytest
from minio.credentials.providers import StaticProvider
from minio.minioadmin import MinioAdmin
from tests.scenarios.test_whole_run import WRITES, job, outputs

SECRET = "a-secret-of-the-user"


@pytest.fixture
def printed(run_byos):
    """What `byos-run policy` prints for a job, or for the flags of a command line."""

    def go(asked=None, *words):
        ran = run_byos(asked, "policy", *words)
        assert 0 == ran.code, ran.error
        return json.loads(ran.output)

    return go


@pytest.fixture
def user_with(minio_store, tmp_path):
    """Config of a fresh user of MinIO who has this policy and no other."""
    admin = MinioAdmin(
        endpoint=urlsplit(minio_store.endpoint_url).netloc,
        credentials=StaticProvider(minio_store.access_key, minio_store.secret_key), secure=False,
    )  # fmt: skip

    def go(policy):
        name = f"user{uuid.uuid4().hex[:12]}"
        file = tmp_path / f"{name}.json"
        file.write_text(json.dumps(policy))
        admin.user_add(name, SECRET)
        admin.policy_add(name, str(file))
        admin.policy_set(name, user=name)
        return f"[default]\naws_access_key_id = {name}\naws_secret_access_key = {SECRET}\n"

    return go


@pytest.mark.parametrize("more", [(), ("--no-list",)], ids=["listing", "no listing"])
def test_a_user_with_this_policy_runs_the_whole_job(printed, user_with, run_byos, bucket, more):
    """Twice, so that an earlier attempt is found, set aside, and what it wrote alone is deleted."""
    asked = job(bucket, WRITES)
    config = user_with(printed(asked, *more))
    first = run_byos(asked, config=config, platform=True)
    assert 0 == first.code, first.output
    second = run_byos({**asked, "command": ["bash", "-c", "echo other > other.dat"]}, config=config, platform=True)

    assert 0 == second.code, second.output
    assert {"other.dat": 6} == outputs(bucket)


@pytest.mark.parametrize("action", ["s3:GetObject", "s3:PutObject", "s3:DeleteObject"])
def test_without_any_of_its_actions_the_run_names_it(printed, user_with, run_byos, bucket, action):
    """Exit 77 with the action; on a second attempt, when all of them are needed."""
    asked = job(bucket, WRITES)
    policy = printed(asked)
    assert 0 == run_byos(asked, config=user_with(policy), platform=True).code
    for statement in policy["Statement"]:
        statement["Action"] = [each for each in statement["Action"] if each != action] or ["s3:ListBucket"]
    ran = run_byos({**asked, "again": True}, config=user_with(policy), platform=True)

    assert 77 == ran.code, ran.output
    assert action in ran.output


def test_a_table_is_covered_by_one_policy(printed, run_byos, tmp_path):
    """Every input and output of its rows; too many are named by what they share."""
    run = tmp_path / "run"
    run.mkdir()
    lines = [f"s3://data/in/{number}.zip,s3://results/doe/{number}/" for number in range(40)]
    (run / "inputs.csv").write_text("\n".join(["s3_input,s3_output", *lines]))
    ran = run_byos(None, "policy", "--table", "inputs.csv", directory=run)

    assert 0 == ran.code, ran.error
    by_name = {item["Sid"]: item for item in json.loads(ran.output)["Statement"]}
    assert ["arn:aws:s3:::data/in/*"] == by_name["ReadInputs"]["Resource"]
    assert ["arn:aws:s3:::results/doe/*"] == by_name["PublishOutputs"]["Resource"]
    assert {"StringLike": {"s3:prefix": ["doe/*"]}} == by_name["List2"]["Condition"]


def test_a_role_has_its_trust_policy_and_a_key_its_actions(printed):
    """The external id is a condition; KMS only where it is asked for; a star in a key is no wildcard."""
    flags = ("--input", "s3://data/in/a*.zip", "--output", "s3://data/out/")
    role = ("--store-role-arn", "arn:aws:iam::444455556666:role/runs", "--store-external-id", "x-17")
    trusted = printed(None, *flags, "--trust", "arn:aws:iam::111122223333:root", *role)
    (statement,) = trusted["Statement"]
    assert {"StringEquals": {"sts:ExternalId": "x-17"}} == statement["Condition"]
    key = "arn:aws:kms:eu-west-1:111122223333:key/k"
    asked = printed(None, *flags, "--store-sse", "aws:kms", "--store-kms-key-id", key)
    by_name = {item["Sid"]: item for item in asked["Statement"]}
    assert [key] == by_name["UseKey"]["Resource"]
    assert ["arn:aws:s3:::data/in/a${*}.zip"] == by_name["ReadInputs"]["Resource"]
