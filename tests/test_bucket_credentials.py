"""Plain keys are found without botocore, and are those that botocore would have found."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from byos_run.bucket.credentials import botocore_session, chained_source, plain_source, secret_files
from byos_run.errors import AccessRefused
from byos_run.model import Place, StoreSettings

KEYS = "aws_access_key_id = AKIDCONFIG12345\naws_secret_access_key = from-config\n"
ENVIRON = {"AWS_ACCESS_KEY_ID": "AKIDENVIRON1234", "AWS_SECRET_ACCESS_KEY": "from-environ"}
PLAIN = {
    "config": (f"[default]\n{KEYS}", {}),
    "config with a region": (f"[default]\n{KEYS}region = eu-central-1\noutput=json\n", {}),
    "config with a token": (f"; mine\n[default]\n{KEYS}aws_session_token = tok#en\n", {}),
    "config, region of the environment": (f"[default]\n{KEYS}region = eu-west-1", {"AWS_DEFAULT_REGION": "us-west-2"}),
    "environment": ("", ENVIRON),
    "environment beats config": (f"[default]\n{KEYS}", {**ENVIRON, "AWS_SESSION_TOKEN": "token"}),
    "AWS_REGION is not read": ("", {**ENVIRON, "AWS_REGION": "eu-north-1"}),
    "a CA file for TLS": ("", {**ENVIRON, "AWS_CA_BUNDLE": "/ca.pem"}),
}
LEFT_TO_BOTOCORE = {
    "a role": ("[default]\nrole_arn = arn:aws:iam::123456789012:role/x\nsource_profile = y\n", {}),
    "several sections": (f"[default]\n{KEYS}[other]\n{KEYS}", {}),
    "a profile": (f"[profile x]\n{KEYS}", {"AWS_PROFILE": "x"}),
    "no secret": ("[default]\naws_access_key_id = AKIDCONFIG12345\n", {}),
    "a nested value": (f"[default]\n{KEYS}region =\n  eu-west-1\n", {}),
    "web identity": (f"[default]\n{KEYS}", {"AWS_WEB_IDENTITY_TOKEN_FILE": "/t", "AWS_ROLE_ARN": "r"}),
    "keys that expire": ("", {**ENVIRON, "AWS_CREDENTIAL_EXPIRATION": "2030-01-01T00:00:00Z"}),
    "a file of another place": (f"[default]\n{KEYS}", {"AWS_CONFIG_FILE": "/elsewhere"}),
    "another CA": (f"[default]\n{KEYS}ca_bundle = /ca.pem\n", {}),
    "nothing": ("", {}),
}


@pytest.fixture
def place_of(tmp_path, monkeypatch):
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))

    def made(config: str, environ: dict[str, str]) -> Place:
        if config:
            (tmp_path / "config").write_text(config)
        for name, value in environ.items():
            monkeypatch.setenv(name, value)
        return Place(run_directory=tmp_path, environ=dict(os.environ))

    return made


@pytest.mark.parametrize("case", PLAIN)
def test_plain_keys_are_those_of_botocores_chain(place_of, case):
    """Key, secret, token, region and where they come from are the same."""
    place, settings = place_of(*PLAIN[case]), StoreSettings(endpoint_url="http://127.0.0.1:9")
    plain = plain_source(settings=settings, place=place)
    chained = chained_source(botocore_session(settings=settings, place=place), settings, place)
    assert plain is not None
    assert (plain.keys(), plain.method, plain.region) == (chained.keys(), chained.method, chained.region)


@pytest.mark.parametrize("case", LEFT_TO_BOTOCORE)
def test_whatever_else_the_chain_looks_at_is_left_to_it(place_of, case):
    """Roles, profiles, expiry, files of other places: no answer of our own."""
    assert plain_source(settings=StoreSettings(), place=place_of(*LEFT_TO_BOTOCORE[case])) is None


REFUSED = {
    "no such token file": ("", {"AWS_WEB_IDENTITY_TOKEN_FILE": "/none", "AWS_ROLE_ARN": "arn:aws:iam::123456789012:role/x"}),
    "no such program": ("[default]\ncredential_process = /none\n", {}),
    "a program that tells no JSON": ("[default]\ncredential_process = echo hello\n", {}),
    "a service that is not on this node": ("", {"AWS_CONTAINER_CREDENTIALS_FULL_URI": "http://example.org/keys"}),
    "no such file for a service": (
        "", {"AWS_CONTAINER_CREDENTIALS_FULL_URI": "http://127.0.0.1:9/", "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE": "/none"},
    ),
    "a key that is not ASCII": ("", {**ENVIRON, "AWS_ACCESS_KEY_ID": "AKID\xe9NVIRON12345"}),
    "a token with a line break": ("", {**ENVIRON, "AWS_SESSION_TOKEN": "to\nken"}),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_gives_no_keys_is_a_refusal_and_no_defect(place_of, case):
    """Whatever of the chain is missing or talks nonsense: AccessRefused, which is 77."""
    place, settings = place_of(*REFUSED[case]), StoreSettings(endpoint_url="http://127.0.0.1:9")
    with pytest.raises(AccessRefused):
        plain_source(settings=settings, place=place) or chained_source(
            botocore_session(settings=settings, place=place), settings, place
        )


@pytest.mark.parametrize("text", [f"\ufeff[default]\r\n{KEYS}", f"[default]\n{KEYS.upper()}"])
def test_a_config_of_another_system_is_understood(place_of, text):
    """A byte order mark, line ends of Windows, names in capitals."""
    found = plain_source(settings=StoreSettings(endpoint_url="http://127.0.0.1:9"), place=place_of(text, {}))
    assert found is not None
    assert "akidconfig12345" == found.keys().access_key.lower()


def test_secrets_are_found_behind_links_and_by_every_variable_of_the_chain(place_of, tmp_path):
    """The link and what it leads to, a token's file; none that lies elsewhere."""
    (tmp_path / "keys").write_text(f"[default]\n{KEYS}")
    (tmp_path / "token").write_text("secret")
    (tmp_path / "config").symlink_to("keys")
    (tmp_path.parent / "around").symlink_to(tmp_path)
    named = {"AWS_WEB_IDENTITY_TOKEN_FILE": str(tmp_path.parent / "around" / "token"), "AWS_CONFIG_FILE": "/etc/passwd"}
    assert {tmp_path / "config", tmp_path / "keys", tmp_path / "token"} == {*secret_files(place_of("", named))}


def test_a_start_with_plain_keys_and_an_endpoint_does_not_import_botocore(tmp_path):
    """It is half of what a start imports."""
    code = (
        "import os, sys; from pathlib import Path; from byos_run.bucket.session import Session;"
        "from byos_run.model import *; from byos_run.node.stop import Stop;"
        "place = Place(Path(sys.argv[1]), dict(os.environ));"
        "Session(settings=StoreSettings(endpoint_url='http://127.0.0.1:9'), place=place).wire('b', stop=Stop());"
        "print([name for name in sys.modules if name.partition('.')[0] in ('botocore', 'boto3', 'urllib3')])"
    )
    env = {"PATH": os.environ["PATH"], "PYTHONPATH": os.pathsep.join(sys.path), **ENVIRON}
    found = subprocess.run([sys.executable, "-c", code, tmp_path], env=env, capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
