"""The test kit keeps its own promises: the cache is never half-made, a store never outlives its user, zips are what they say."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import threading
import zipfile
from pathlib import Path

import pytest
import tomli
from tests.kit import cache, cases, runs, stores

TOP = Path(__file__).resolve().parent.parent


@pytest.fixture
def own_cache(monkeypatch, tmp_path):
    monkeypatch.setattr(cache, "surroundings", lambda: {"BYOS_DEV_CACHE": str(tmp_path / "cache"), "PATH": os.defpath})
    return tmp_path / "cache"


def test_an_entry_is_made_once(own_cache):
    """Many at once get one and the same directory, made by one of them."""
    made = []
    got = []

    def make(directory, lock):
        made.append(directory)
        (directory / "thing").write_text("whole")

    threads = [threading.Thread(target=lambda: got.append(cache._entry("x", "key", make))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [got[0]] * 4 == got
    assert got[:1] == made


def test_a_half_made_entry_is_made_again(own_cache):
    """What a failed maker left is not taken for good, and is removed first."""

    def fail(directory, lock):
        (directory / "half").write_text("")
        raise cache.CacheError("no network")

    with pytest.raises(cache.CacheError, match="no network"):
        cache._entry("x", "key", fail)
    directory = cache._entry("x", "key", lambda directory, lock: (directory / "whole").write_text(""))
    assert [name for name in sorted(os.listdir(directory)) if not name.startswith(".")] == ["whole"]


@pytest.mark.parametrize(
    ("environ", "where"),
    [
        pytest.param({"BYOS_DEV_CACHE": "/a", "XDG_CACHE_HOME": "/b", "HOME": "/c"}, "/a", id="own"),
        pytest.param({"XDG_CACHE_HOME": "/b", "HOME": "/c"}, "/b/byos-run-dev", id="xdg"),
        pytest.param({"HOME": "/c"}, "/c/.cache/byos-run-dev", id="home"),
    ],
)
def test_the_cache_is_where_the_contract_says(monkeypatch, environ, where):
    """The first of the three that is set decides."""
    monkeypatch.setattr(cache, "surroundings", lambda: environ)
    assert Path(where) == cache.root()


def test_a_named_minio_that_is_none_is_refused(monkeypatch):
    """$MINIO is a decision of the user's: nothing stands in for it."""
    monkeypatch.setattr(cache, "surroundings", lambda: {"MINIO": "/nowhere/minio", "HOME": "/nowhere"})
    with pytest.raises(cache.CacheError, match="/nowhere/minio"):
        cache.store()


def test_a_store_dies_with_its_user(minio_store):
    """A test run that is killed outright leaves no server behind."""
    code = (
        "from tests.kit import stores\n"
        "with stores.scratch() as place, stores.any_store(place) as store:\n"
        "    print(store.pid, flush=True)\n"
        "    input()\n"
    )
    env = {**cache.surroundings(), "PYTHONPATH": str(TOP)}
    user = subprocess.Popen([sys.executable, "-c", code], env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    with user:
        server = os.pidfd_open(int(user.stdout.readline()))
        user.send_signal(signal.SIGKILL)
    try:
        assert select.select([server], [], [], 10)[0]
    finally:
        os.close(server)
    with stores.scratch():
        left = [path.name for path in cache.root().glob("store-*") if f"-{user.pid}-" in path.name]
    assert left == []


def test_case_zips_hold_what_the_smoke_run_says(tmp_path):
    """Both are the same at every call; one has all at its top, the other in one directory with an inputs.in."""
    for make, files in ((cases.copper, 604), (cases.chute, 4)):
        first, second = make(tmp_path / "1.zip"), make(tmp_path / "2.zip")
        assert first.read_bytes() == second.read_bytes()
        with zipfile.ZipFile(first) as archive:
            names = [info.filename for info in archive.infolist() if not info.is_dir()]
        assert files == len(names)
    assert {"chute"} == {name.split("/")[0] for name in names}
    assert "chute/inputs.in" in names


def test_a_job_file_says_what_was_meant(tmp_path, minio_store):
    """Strings with quotes and control characters, lists, switches and tables come back from the text as they went in."""
    job = {"command": ["a", 'b"c\\d\n'], "again": True, "solver": {"cores": 8, "success": {"exit": [0, 1]}}}
    (tmp_path / "file").write_bytes(b"")
    runs.lay_out(tmp_path / "run", file=tmp_path / "file", store=minio_store, job=job)
    read = tomli.loads((tmp_path / "run" / "byos.toml").read_text())
    assert {**job, "store": {"endpoint_url": minio_store.endpoint_url}} == read
    assert runs.left_in(tmp_path / "run") == ["byos-run", "byos.toml", "config"]
