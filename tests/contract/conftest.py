"""Every store of the kit, one after another, behind the same fixtures."""

from __future__ import annotations

import uuid

import boto3
import pytest
from botocore.config import Config

from byos_run.bucket.session import Session
from byos_run.model import Place, StoreSettings
from byos_run.node.stop import Stop


@pytest.fixture
def store(any_kind_of_store):
    return any_kind_of_store


@pytest.fixture
def open_session(store, tmp_path):
    """Makes a session as a run would: from ``config`` in a run directory."""
    sessions = []

    def make(*, access_key=None, secret_key=None) -> Session:
        directory = tmp_path / f"run-{len(sessions)}"
        directory.mkdir()
        (directory / "config").write_text(
            f"[default]\naws_access_key_id = {access_key or store.access_key}\n"
            f"aws_secret_access_key = {secret_key or store.secret_key}\n"
        )
        settings = StoreSettings(endpoint_url=store.endpoint_url, first_contact_s=20, patience_s=20)
        sessions.append(Session(settings=settings, place=Place(directory, {})))
        return sessions[-1]

    yield make
    for session in sessions:
        session.close()


@pytest.fixture
def session(open_session):
    return open_session()


@pytest.fixture
def wire(store, session):
    """A wire to a fresh bucket."""
    bucket = f"contract-{uuid.uuid4().hex[:12]}"
    client = boto3.client(
        "s3", endpoint_url=store.endpoint_url, aws_access_key_id=store.access_key,
        aws_secret_access_key=store.secret_key, region_name="us-east-1", config=Config(s3={"addressing_style": "path"}),
    )  # fmt: skip
    client.create_bucket(Bucket=bucket)
    client.close()
    return session.wire(bucket, stop=Stop())
