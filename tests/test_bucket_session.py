"""Credentials that expire, are read again, or are not there."""

from __future__ import annotations

import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from tests.faults.room import through
from tests.faults.rules import Refuse, Rule
from tests.kit import runs

from byos_run import errors
from byos_run.bucket import objects

TOKEN = "aws_session_token = of-yesterday\n"
OLD_TOKEN = r"^x-amz-security-token: of-yesterday"

EXPIRED = [
    pytest.param(Refuse(400, "ExpiredToken"), id="400-expired"),
    pytest.param(Refuse(403, "ExpiredToken"), id="403-expired"),
    pytest.param(Refuse(400, "TokenRefreshRequired"), id="refresh-required"),
    pytest.param(Refuse(400, "InvalidToken"), id="400-invalid"),
    pytest.param(Refuse(403, "InvalidTokenId"), id="403-invalid"),
]


@pytest.fixture
def stale(bucket):
    """A `config` whose session token has expired."""
    return runs.config_text(bucket.store) + TOKEN


@pytest.mark.parametrize("fault", EXPIRED)
def test_a_new_config_is_read_when_the_keys_expire(bucket, tmp_path, stale, fault):
    """The store says expired, `config` was laid down anew: the request goes through, nobody hears of it."""
    with through(bucket, tmp_path, Rule(fault, header=OLD_TOKEN), config=stale) as way:
        (tmp_path / "config").write_text(runs.config_text(bucket.store), encoding="utf-8")
        objects.put(way.wire, "x", b"1")
        assert 2 == way.count("PUT")

    assert b"1" == bucket.get("x")


def test_threads_refused_together_all_go_on_with_the_new_keys(bucket, tmp_path, stale):
    """Eight requests under way when the token expires: one thread reads the new config, none is refused."""
    together = threading.Barrier(8)
    expired = Rule(Refuse(403, "ExpiredToken"), header=OLD_TOKEN)
    with through(bucket, tmp_path, expired, config=stale) as way, ThreadPoolExecutor(8) as pool:
        (tmp_path / "config").write_text(runs.config_text(bucket.store), encoding="utf-8")

        def put(number):
            together.wait()
            objects.put(way.wire, f"e/{number}", b"x")

        list(pool.map(put, range(8)))

    assert 8 == len(bucket.sizes("e/"))


def test_expired_keys_without_newer_ones_are_77(bucket, tmp_path, stale):
    """Nothing newer to read: the action and the reason are named, and it is said at once."""
    with (
        through(bucket, tmp_path, Rule(Refuse(400, "ExpiredToken")), config=stale, patience_s=60.0) as way,
        pytest.raises(errors.AccessRefused, match=r"s3:PutObject on s3://.*/x refused: 400 ExpiredToken") as caught,
    ):
        objects.put(way.wire, "x", b"1")

    assert "expired" in caught.value.hint


def test_a_config_that_is_gone_leaves_the_keys_as_they_are(bucket, tmp_path):
    """On the platform `config` is deleted once it is read: reading again finds nothing, and breaks nothing."""
    with through(bucket, tmp_path, Rule(Refuse(400, "ExpiredToken"), nth=(1,))) as way:
        (tmp_path / "config").unlink()
        with pytest.raises(errors.AccessRefused, match="ExpiredToken"):
            objects.put(way.wire, "x", b"1")
        objects.put(way.wire, "x", b"2")

    assert b"2" == bucket.get("x")


def test_a_token_that_cannot_be_renewed_is_warned_of(bucket, tmp_path, stale):
    """Said before hours of computing, not after."""
    with through(bucket, tmp_path, config=stale) as way:
        assert any("session token that cannot be renewed" in text for text in way.session.warnings)


def test_no_error_holds_a_secret(bucket, tmp_path, stale):
    """Neither key nor token is in a message or a hint."""
    with (
        through(bucket, tmp_path, Rule(Refuse(403, "ExpiredToken")), config=stale) as way,
        pytest.raises(errors.AccessRefused) as caught,
    ):
        objects.get(way.wire, "x")
    said = f"{caught.value.message} {caught.value.hint} {way.session.identity}"

    assert bucket.store.secret_key not in said
    assert "of-yesterday" not in said


PROCESS = """
import json, sys, time
runs = open({log!r}, "a+"); runs.write("x"); runs.seek(0); count = len(runs.read())
if count in {fails!r}:
    sys.exit("the vault is sealed")
soon = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 60))
print(json.dumps(dict(Version=1, AccessKeyId={key!r}, SecretAccessKey={secret!r}, Expiration=soon)))
"""


def test_keys_serve_on_while_they_cannot_be_renewed(bucket, tmp_path):
    """Renewal begins before the old keys expire: as long as the store takes those, a failure of whoever gives them is nothing."""
    log, store = tmp_path / "asked", bucket.store
    program = tmp_path / "keys.py"
    program.write_text(
        PROCESS.format(log=str(log), fails=list(range(3, 100)), key=store.access_key, secret=store.secret_key)
    )
    config = f"[default]\ncredential_process = {sys.executable} {program}\nregion = {store.region}\n"
    with through(bucket, tmp_path, config=config) as way:
        for number in range(5):
            objects.put(way.wire, f"x/{number}", b"1")

    assert 5 == len(bucket.sizes("x/"))
    assert 3 <= len(log.read_text()) <= 4


ROLE = {"role_arn": "arn:aws:iam::123456789012:role/kit", "first_contact_s": 30.0}


def test_an_outage_of_sts_at_the_start_is_waited_out(bucket, tmp_path):
    """503 twice, then the role is assumed: nobody hears of it."""
    with through(bucket, tmp_path, Rule(Refuse(503), method="POST", key="^/?$", nth=(1, 2, 3)), **ROLE) as way:
        objects.put(way.wire, "x", b"1")
        assert "role" in way.session.identity

    assert b"1" == bucket.get("x")


def test_a_role_that_is_refused_is_77_at_once(bucket, tmp_path):
    """A definite answer is not waited out."""
    refused = Rule(Refuse(403, "AccessDenied"), method="POST", key="^/?$")
    with pytest.raises(errors.AccessRefused, match="AssumeRole"), through(bucket, tmp_path, refused, **ROLE):
        pass


def test_sts_that_stays_away_is_69(bucket, tmp_path):
    """After first_contact: unreachable, and who was asked."""
    gone = Rule(Refuse(503), method="POST", key="^/?$")
    settings = {**ROLE, "first_contact_s": 0.5}
    with pytest.raises(errors.StoreUnreachable, match="AssumeRole"), through(bucket, tmp_path, gone, **settings):
        pass
