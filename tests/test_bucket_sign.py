"""Our signatures are botocore's, byte for byte."""

from __future__ import annotations

import datetime

import botocore.auth
import pytest
from botocore.awsrequest import AWSRequest
from botocore.config import Config
from botocore.credentials import Credentials

from byos_run.bucket.sign import EMPTY_SHA256, UNSIGNED, Keys, Signer, masked, path_of, query_of

NOW = 1_795_000_000.0


@pytest.mark.parametrize("token", ["", "a/session+token=="], ids=["keys", "token"])
@pytest.mark.parametrize(
    ("method", "key", "query", "headers"),
    [
        pytest.param("GET", "in/case.zip", [], {"range": "bytes=-1048576"}, id="range"),
        pytest.param(
            "PUT", "out/ü # %41+&?*'~ .h5", [], {"x-amz-meta-mtime": "1.5", "content-type": "a/b"}, id="odd-key"
        ),
        pytest.param("GET", "", [("list-type", "2"), ("prefix", "a b/ü"), ("start-after", "~+")], {}, id="list"),
        pytest.param("POST", "big", [("uploads", "")], {"x-amz-checksum-type": "FULL_OBJECT"}, id="empty-value"),
        pytest.param("PUT", "big", [("partNumber", "2"), ("uploadId", "a=b/c+d")], {}, id="part"),
    ],
)
def test_signature_equals_botocores(method, key, query, headers, token, monkeypatch):
    """Every header that we send is signed as botocore would sign it at the same moment."""
    moment = datetime.datetime.fromtimestamp(NOW, datetime.timezone.utc)
    monkeypatch.setattr(botocore.auth, "get_current_datetime", lambda *_: moment.replace(tzinfo=None))
    path, text = f"/bucket/{path_of(key)}" if key else "/bucket", query_of(query)
    request = AWSRequest(
        method=method, url=f"http://127.0.0.1:9000{path}" + (f"?{text}" if text else ""), headers=headers
    )
    request.context["client_config"] = Config(s3={"payload_signing_enabled": False})
    botocore.auth.S3SigV4Auth(Credentials("AKIAEXAMPLE", "secret", token or None), "s3", "eu-west-1").add_auth(request)

    signed = Signer(region="eu-west-1").headers(
        keys=Keys("AKIAEXAMPLE", "secret", token), method=method, host="127.0.0.1:9000", path=path, query=text,
        headers=headers, payload_sha256=UNSIGNED, now=NOW,
    )  # fmt: skip

    assert request.headers["Authorization"] == signed["authorization"]


def test_a_new_secret_gives_a_new_key():
    """The kept key of the day is not used for renewed credentials."""
    signer = Signer(region="us-east-1")

    def sign(secret: str) -> str:
        return signer.headers(
            keys=Keys("A", secret, ""), method="GET", host="h", path="/", query="", headers={}, payload_sha256=EMPTY_SHA256,
            now=NOW,
        )["authorization"]  # fmt: skip

    assert sign("one") != sign("two")
    assert sign("one") == sign("one")


def test_keys_do_not_print():
    """Neither repr nor the masked form holds the secret or the whole key id."""
    keys = Keys("AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI", "token-text")

    assert repr(keys) == "Keys(AKIA…MPLE)"
    assert masked("minioadmin") == "mi…"
