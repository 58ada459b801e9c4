"""Commands that are no run, installed by pip, where Linux is not."""

from __future__ import annotations

import subprocess
import sys

import pytest
from tests.kit import doe, runs, without_linux


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["verify", "{out}"], "whole: 2 outputs"),
        (["verify", "{out}", "--fetch", "here"], "whole: 2 outputs"),
        (["status", "{out}"], "1 run: 1 done"),
        (["fetch", "{out}a.dat", "there"], "fetched a.dat"),
    ],
    ids=["verify", "verify-fetch", "status", "fetch"],
)
def test_without_what_only_linux_has(bucket, tmp_path, run_environ, words, told):
    """verify, status and fetch need nothing of it."""
    doe.ended(bucket, "out/run/", {"a.dat": b"1" * 3_000_000, "b/c": b"2"})
    (tmp_path / "config").write_text(runs.config_text(bucket.store))
    named = [word.replace("{out}", bucket.url("out/run/")) for word in words]
    done = subprocess.run(
        [sys.executable, without_linux.__file__, *named, "--store-endpoint-url", bucket.store.endpoint_url],
        cwd=tmp_path, env=run_environ(), capture_output=True, text=True, check=False, timeout=240,
    )  # fmt: skip

    assert 0 == done.returncode, done.stderr
    assert told in done.stdout
