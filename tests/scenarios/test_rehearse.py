"""`byos-run rehearse`: a whole DOE on this machine, as the platform would do it."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path

import pytest
from tests.kit import cache, runs
from tests.scenarios.test_whole_run import zip_bytes

TEMPLATE = """\
input = "${s3_input}"
output = "${s3_output}"
command = ["bash", "-c", "cat inputs.in > seen.txt; env > environ.txt; test ${angle} -lt 30 || exit 9"]
[template]
files = ["inputs.in"]
values = { angle = "${angle}" }
[purge]
when = "${purge}"
"""


def kit(directory, bucket, *angles, purge="acknowledged", template=TEMPLATE, put=True):
    """inputs.csv, byos.toml.template and config, as a user has them."""
    directory.mkdir()
    if put:
        bucket.put("in/case.zip", zip_bytes({"inputs.in": b"angle ${angle}\n"}))
    case = bucket.url("in/case.zip")
    rows = [f"{case},{bucket.url(f'out/a{angle}')},{angle},{purge}" for angle in angles]
    (directory / "inputs.csv").write_text("\n".join(["s3_input,s3_output,angle,purge", *rows, ""]))
    endpoint = f'[store]\nendpoint_url = "{bucket.store.endpoint_url}"\n'
    (directory / "byos.toml.template").write_text(template + endpoint)
    (directory / "config").write_text(runs.config_text(bucket.store))
    return directory


@pytest.fixture
def rehearse(shipped_file, run_environ, tmp_path):
    """Runs it in a kit's directory."""

    def go(directory, *arguments, **environ):
        (tmp_path / "temporary").mkdir(exist_ok=True)
        return runs.run(
            directory, command=("sh", str(shipped_file), "rehearse", "inputs.csv", *arguments),
            env=run_environ(**{"TMPDIR": str(tmp_path / "temporary"), **environ}),
        )  # fmt: skip

    return go


def test_every_row_runs_as_on_the_platform(rehearse, bucket, tmp_path):
    """Rendered, with config, byos-run and variables; a run that fails stops no other; nothing would have fallen back."""
    here = kit(tmp_path / "kit", bucket, 22, 31, 24, 26)
    before = runs.left_in(here)
    ran = rehearse(
        here,
        "--slots",
        "2",
        "--cores",
        "3",
        "--report-price-core-hour=0.1",
        "--json",
        BYOS_INPUT="no",
        BYOS_SOLVER_ECHO="none",
    )

    assert 1 == ran.code, ran.error
    assert "warning: BYOS_SOLVER_ECHO: set here, not on the platform" in ran.error
    found = json.loads(ran.output)
    assert [("done", 0), ("failed", 9), ("done", 0), ("done", 0)] == [
        (r["state"], r["exit_code"]) for r in found["runs"]
    ]
    assert [[]] * 4 == [run["would_fall_back"] for run in found["runs"]]
    assert (4, 3, 1, 0, 8) == tuple(
        found["totals"][key] for key in ("runs", "done", "failed", "files_left", "files_out")
    )
    assert found["totals"]["cost"] > 0
    assert b"angle 24\n" == bucket.get("out/a24/seen.txt")
    environ = bucket.get("out/a26/environ.txt").decode()
    assert "RESCALE_CORES_PER_SLOT=3\n" in environ
    assert "RESCALE_SLOTS_PER_NODE=2\n" in environ
    assert before == runs.left_in(here)
    failed = found["runs"][1]["directory"]
    assert ["row-2/", "row-2/process_output.log"] == runs.left_in(tmp_path / "temporary" / os.path.dirname(failed))


def test_what_the_platform_would_save_is_told_run_by_run(rehearse, bucket, tmp_path):
    """Exit 1, the files named; what purge.keep asks for is no finding."""
    left = rehearse(kit(tmp_path / "left", bucket, 22, purge="never"), "--directory", "here", "--keep")
    wished = TEMPLATE.replace("[purge]", '[purge]\nkeep = ["seen.txt"]')
    kept = rehearse(kit(tmp_path / "kept", bucket, 23, template=wished))

    assert 1 == left.code, left.error
    assert "row 1: the platform would have saved " in left.output
    assert "case/inputs.in" in left.output
    assert (tmp_path / "left" / "here" / "row-1" / "case" / "seen.txt").exists()
    assert 0 == kept.code, kept.output + kept.error
    assert "row 1: kept as purge.keep asks: case/seen.txt" in kept.output
    assert "nothing but each run's own log would have fallen back" in kept.output


def test_a_private_store_needs_no_cloud(rehearse, bucket, tmp_path):
    """Inputs are copied from the user's store, or made; the user's own bucket gets nothing; the solver is replaced."""
    minio = str(cache.get("minio"))
    here = kit(tmp_path / "kit", bucket, 22, 31)
    (here / "minio").symlink_to(minio)
    copied = rehearse(here, "--store", "./minio", "--rows", "1", "--", "grep", "-q", "angle 22", "inputs.in")
    (here / "config").unlink()
    (here / "byos.toml.template").write_text(TEMPLATE)
    made = rehearse(here, "--store", minio, "--sample", "--slots=2", "--command", "grep -q 'angle = [23]' inputs.in")

    assert 0 == copied.code, copied.output + copied.error
    assert "copied 1 input" in copied.error
    assert 0 == made.code, made.output + made.error
    assert "2 runs: 2 done" in made.output
    assert ["in/case.zip"] == list(bucket.sizes())
    assert [] == os.listdir(tmp_path / "temporary")


def test_all_problems_are_told_and_nothing_starts(rehearse, bucket, tmp_path):
    """Of every row, of every input, of the command line; without MinIO one clear error."""
    here = kit(tmp_path / "kit", bucket, 22, 24, put=False)
    absent = rehearse(here)
    (here / "byos.toml.template").write_text('scratch = "${unknown}"\n' + TEMPLATE)
    unknown = rehearse(here, "--solver-cores", "many")
    no_store = rehearse(here, "--store", "minio", PATH="/usr/bin:/bin")
    two_stores = rehearse(
        here, "--sample", "--slots=0", "--store=minio", "--store-endpoint-url", "http://x", "--rows=1"
    )
    no_command = rehearse(kit(tmp_path / "other", bucket, 22), "--", "converge", "super")

    assert [66, 64, 64, 71] == [absent.code, unknown.code, no_store.code, no_command.code], (
        absent.error + no_store.error
    )
    assert (64, 2) == (two_stores.code, two_stores.error.count("error: "))
    assert "row 1: " in absent.error
    assert "in/case.zip" in absent.error
    assert "rows 1, 2: byos.toml" in unknown.error
    assert "${unknown}" in unknown.error
    assert 'rows 1, 2: --solver-cores: found "many"' in unknown.error
    assert "there is no program 'minio'" in no_store.error
    assert '"converge" is not on PATH' in no_command.error
    assert {"in/case.zip": 0} == dict.fromkeys(bucket.sizes(), 0)
    assert [] == os.listdir(tmp_path / "temporary")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL], ids=["interrupted", "killed"])
def test_nothing_outlives_a_rehearsal_that_is_stopped(shipped_file, run_environ, bucket, tmp_path, number):
    """Ctrl-C ends all runs in good order; when it is killed outright they are ended as well."""
    sleeps = TEMPLATE.replace("test ${angle} -lt 30 || exit 9", "sleep 98765")
    here = kit(tmp_path / "kit", bucket, 22, 24, 26, template=sleeps)
    command = ("sh", str(shipped_file), "rehearse", "inputs.csv", "--slots", "2", "--directory", "runs")
    with runs.started(here, command=command, env=run_environ()) as process:
        until = time.monotonic() + 240
        while len(sleeping(here)) < 2 and time.monotonic() < until:
            time.sleep(0.05)
        assert 2 == len(sleeping(here))
        process.send_signal(number)
        output, error = process.communicate(timeout=240)
        while sleeping(here) and time.monotonic() < until:
            time.sleep(0.05)

    assert [] == sleeping(here)
    if number == signal.SIGINT:
        assert 75 == process.returncode, output + error
        assert "3 runs: 2 failed, 1 not started" in output
        assert "interrupted" == bucket.json("out/a22/_byos/manifest.json")["status"]
        assert "nothing but each run's own log would have fallen back" in output


def sleeping(here):
    """Processes of the runs below *here* that are the solver."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            words = Path(f"/proc/{pid}/cmdline").read_bytes()
            if words.startswith(b"sleep\x0098765") and os.readlink(f"/proc/{pid}/cwd").startswith(str(here)):
                found.append(pid)
        except OSError:
            continue
    return found
