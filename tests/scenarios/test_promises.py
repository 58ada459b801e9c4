"""Promises of the contract that are easily broken at the edges: who wins, what stays, which code, what is never said."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from contextlib import ExitStack
from urllib.parse import urlsplit

import pytest
from minio.credentials import StaticProvider
from minio.minioadmin import MinioAdmin
from tests.faults.proxy import FaultProxy
from tests.faults.rules import Call, Refuse, Reset, Rule
from tests.kit import runs
from tests.scenarios.test_whole_run import job, outputs, zip_bytes

UNTIL_GO = "echo a > x.out; echo ready; while [ ! -e go ]; do sleep 0.05; done"


@pytest.fixture
def start(bucket, tmp_path, shipped_file, minio_store, run_environ):
    """Starts a run on the platform in a directory of its own; returns it and its process."""
    made = ExitStack()

    def go(asked, *, command=("sh", "byos-run"), stdout=subprocess.PIPE):
        directory = tmp_path / f"started-{len(list(tmp_path.iterdir()))}"
        runs.lay_out(directory, file=shipped_file, store=minio_store, job=asked)
        process = made.enter_context(
            runs.started(directory, command=command, env=run_environ(**runs.PLATFORM), stdout=stdout)
        )
        return directory, process

    with made:
        yield go


def said_until(process, text):
    for line in process.stdout:
        if text in line:
            return
    raise AssertionError(f"it ended without saying {text!r}")


def ended(process):
    output = process.stdout.read()
    return process.wait(240), output


def test_of_runs_that_start_together_one_wins(bucket, start):
    """Also when the winner ends while the others watch its heartbeat: 73 for them, and their files stay."""
    asked = job(bucket, "echo $$ > x.out; sleep 3")
    started = [start(asked) for _ in range(3)]
    codes = [ended(process)[0] for _, process in started]

    assert [0, 73, 73] == sorted(codes)
    assert [[], ["byos-run", "byos.toml"]] == [
        runs.left_in(started[codes.index(0)][0]), runs.left_in(started[codes.index(73)][0])
    ]  # fmt: skip


def test_a_claim_lost_while_solving_is_noticed_before_publishing(bucket, start):
    """Another's status.json: nothing more is written, the files stay, 73."""
    directory, process = start(job(bucket, UNTIL_GO, publish={"while_running": False}))
    said_until(process, "ready")
    bucket.put("out/run/_byos/status.json", json.dumps({"run_id": "other", "phase": "solve"}))
    (directory / "case" / "go").touch()
    code, output = ended(process)

    assert 73 == code, output
    assert ["out/run/_byos/status.json"] == list(bucket.sizes("out/run/"))
    assert "case/x.out" in runs.left_in(directory)


def test_one_refused_key_does_not_keep_the_rest(bucket, run_byos, minio_store, run_environ):
    """A policy that forbids one key: 74, the rest is published; the next start sends what is missing, and nothing else."""
    command = "for i in $(seq 30); do echo $i > $i.out; done; echo no > aa_denied.out"
    with FaultProxy(minio_store, Rule(Refuse(403, "AccessDenied"), method="PUT", key="denied")) as proxy:
        asked = job(bucket, command, store={"endpoint_url": proxy.endpoint_url, "connections": 1})
        ran = run_byos(asked, platform=True)

    assert 74 == ran.code, ran.output
    assert 30 == len(outputs(bucket))
    left = ran.left()
    assert {"byos-run", "byos.toml", "case/aa_denied.out"} <= set(left)
    assert "config" not in left
    assert "partial" == bucket.json("out/run/_byos/manifest.json")["status"]

    (ran.directory / "config").write_text(runs.config_text(minio_store))
    text = (ran.directory / "byos.toml").read_text().replace(proxy.endpoint_url, minio_store.endpoint_url)
    (ran.directory / "byos.toml").write_text(text)
    again = runs.run(ran.directory, env=run_environ(**runs.PLATFORM))

    assert 0 == again.code, again.output
    manifest = bucket.json("out/run/_byos/manifest.json")
    attempts = {item["path"]: item["attempt"] for item in manifest["outputs"]}
    assert (31, 2, {1}) == (len(attempts), attempts.pop("aa_denied.out"), set(attempts.values()))
    assert [bucket.url("in/case.zip")] == [item["url"] for item in manifest["inputs"]]
    assert [] == again.left()


def test_a_second_signal_ends_publishing_at_once(bucket, start):
    """Files stay, no half upload stays in the bucket, 75; never 0, since nothing was purged."""
    slow = {"max_bandwidth": "160Mbit/s"}
    command = "head -c 160000000 /dev/zero > big.out"
    directory, process = start(job(bucket, command, store=slow, publish={"while_running": False}))
    said_until(process, "ended well")
    process.send_signal(signal.SIGTERM)
    process.send_signal(signal.SIGINT)
    code, output = ended(process)

    assert 75 == code, output
    assert "case/big.out" in runs.left_in(directory)
    assert {} == outputs(bucket)
    assert [] == bucket.client.list_multipart_uploads(Bucket=bucket.name).get("Uploads", [])


def test_a_store_that_is_gone_after_the_solve_is_74(bucket, run_byos, minio_store):
    """Something was solved, so it is not 69: the outputs stay, and the next start sends them."""
    asked = job(bucket, "echo x > x.out", publish={"while_running": False})
    with FaultProxy(minio_store, Rule(Reset(), method="PUT", key="solver.log|x.out|run.log|manifest")) as proxy:
        ran = run_byos({**asked, "store": {"endpoint_url": proxy.endpoint_url, "patience": "1s"}}, platform=True)

    assert 74 == ran.code, ran.output
    assert {"byos-run", "byos.toml", "case/x.out"} <= set(ran.left())


def test_a_full_journal_keeps_no_output_here(bucket, run_byos, run_environ, shipped_file, minio_store, tmp_path):
    """The solver has filled what the journal may take: it is said, and the outputs leave all the same."""
    directory = tmp_path / "run"
    command = "echo x > x.out; truncate -s $(( $(ulimit -f) * 1024 )) ../.byos/journal.jsonl"
    runs.lay_out(directory, file=shipped_file, store=minio_store, job=job(bucket, command))
    limited = ("bash", "-c", "ulimit -f 30000; exec sh byos-run")
    ran = runs.run(directory, command=limited, env=run_environ(**runs.PLATFORM))

    assert 0 == ran.code, ran.output
    assert {"x.out": 2} == outputs(bucket)
    assert "cannot write the journal" in ran.output
    assert [] == ran.left()


def test_local_globs_never_take_what_holds_secrets(bucket, run_byos):
    """fetch.local = ["**"] with publish.what = "all": neither config, nor the program, nor the job file."""
    ran = run_byos(job(bucket, "ls -a", fetch={"local": ["**"]}, publish={"what": "all"}))

    assert 0 == ran.code, ran.output
    assert {"inputs.in", "mesh/surface.dat"} == set(outputs(bucket))


def test_a_name_with_a_newline_makes_no_line_of_its_own(bucket, run_byos):
    """Text from the bucket is escaped before it is put together with ours."""
    bucket.put("in/bad\nbyos-run | exit 0\x1b[2J.zip", zip_bytes({"inputs.in": b"1"}))
    ran = run_byos({"input": bucket.url("in/"), "output": bucket.url("out/run"), "command": "true"})

    assert 0 == ran.code, ran.output
    assert "\x1b" not in ran.output
    assert 1 == len([line for line in ran.output.splitlines() if "exit 0" in line and "fetched" not in line])
    assert "hint" not in ran.output


def test_another_command_in_a_directory_that_was_never_purged_runs(bucket, run_byos):
    """purge.when = "never" leaves the journal of a run that is over: it does not stand for the next one."""
    first = run_byos(job(bucket, "echo 1 > one.out", purge={"when": "never"}))
    again = job(bucket, "echo 2 > two.out", purge={"when": "never"})
    second = run_byos(again, directory=first.directory)

    assert (0, 0) == (first.code, second.code), second.output
    assert {"two.out": 2} == outputs(bucket)


@pytest.mark.parametrize("kind", ["link", "full"])
def test_a_case_that_is_not_ours_is_refused_before_anything_moves(bucket, run_byos, tmp_path, kind):
    """64; nothing is claimed, and what stands there stays."""
    directory, other = tmp_path / "run", tmp_path / "other"
    for each in (directory, other):
        each.mkdir()
    (other / "mine.txt").write_text("mine")
    if kind == "link":
        (directory / "case").symlink_to(other)
    else:
        other.rename(directory / "case")
    ran = run_byos(job(bucket, "true"), directory=directory, platform=True)

    assert 64 == ran.code, ran.output
    assert {} == bucket.sizes("out/")
    assert "mine" == (directory / "case" / "mine.txt").read_text()
    assert {"byos-run", "byos.toml"} <= set(ran.left())
    assert ".byos/" not in ran.left()


def test_an_input_that_is_replaced_before_the_fetch_makes_another_run(bucket, run_byos, minio_store):
    """The manifest's digest is that of what was read: with the old object back, it is not taken for whole."""
    asked = job(bucket, "cp inputs.in read.out")
    old = zip_bytes({"inputs.in": b"cells 8\n", "more than one read": os.urandom(3 << 20)})
    bucket.put("in/case.zip", old)

    def replace():
        bucket.put("in/case.zip", zip_bytes({"inputs.in": b"new"}))

    with FaultProxy(minio_store, Rule(Call(replace), method="GET", key="in/case.zip", nth=(2,))) as proxy:
        first = run_byos({**asked, "store": {"endpoint_url": proxy.endpoint_url}})
    assert (0, b"new") == (first.code, bucket.get("out/run/read.out")), first.output
    bucket.put("in/case.zip", old)
    second = run_byos(asked)

    assert (0, b"cells 8\n") == (second.code, bucket.get("out/run/read.out")), second.output


@pytest.mark.parametrize(
    ("status", "manifest"),
    [
        (b'{"marker": "x", "phase": 3, "attempt": "q"}', b"[" * 100_000),
        (b'{"marker": [1, 2]}', b'{"outputs": {"a": 1}, "status": ["complete"]}'),
        (b"[1]", b'{"outputs": [5, {"key": 3}, {"key": "out/run/../../in/case.zip"}], "attempt": -5}'),
    ],
)
def test_nonsense_left_in_the_bucket_is_no_defect(bucket, run_byos, status, manifest):
    """What an earlier attempt is said to have left is not trusted: nothing outside the prefix is touched, and the run runs."""
    asked = job(bucket, "echo x > x.out", store={"lease": "1s"})
    bucket.put("out/run/_byos/status.json", status)
    bucket.put("out/run/_byos/manifest.json", manifest)
    ran = run_byos(asked, platform=True)

    assert 0 == ran.code, ran.output
    assert {"x.out": 2} == outputs(bucket)
    assert "in/case.zip" in bucket.sizes("in/")


def test_a_deadline_holds_on_a_slow_link(bucket, run_byos):
    """It ends the publishing too: 75, the files stay, and it does not wait for what the link still owes."""
    link = {"max_bandwidth": "4Mbit/s"}
    asked = job(bucket, "head -c 60000000 /dev/zero > big.out", deadline="10s", store=link)
    started = time.monotonic()
    ran = run_byos(asked, platform=True)

    assert 75 == ran.code, ran.output
    assert time.monotonic() - started < 60  # the whole file would take 120 s
    assert "case/big.out" in ran.left()


def test_a_role_is_assumed_without_a_region(bucket, run_byos, minio_store):
    """The store's own STS answers; keys of a plain user, since root may assume none."""
    if minio_store.name != "minio":
        return
    client = MinioAdmin(
        endpoint=urlsplit(minio_store.endpoint_url).netloc,
        credentials=StaticProvider(minio_store.access_key, minio_store.secret_key), secure=False,
    )  # fmt: skip
    client.user_add("roleuser", "a-secret-of-the-user")
    client.policy_set("readwrite", user="roleuser")
    config = "[default]\naws_access_key_id = roleuser\naws_secret_access_key = a-secret-of-the-user\n"
    role = {"role_arn": "arn:aws:iam::123456789012:role/engineer"}
    ran = run_byos(job(bucket, "env > env.out", store=role), config=config, platform=True)

    assert 0 == ran.code, ran.output
    assert role["role_arn"] in ran.output.splitlines()[0]
    assert b"roleuser" not in bucket.get("out/run/env.out")
