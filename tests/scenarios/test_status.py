"""`byos-run status`: how runs stand, from the bucket alone."""

from __future__ import annotations

import json
import re
import signal
from contextlib import contextmanager

import pytest
from tests.faults.proxy import FaultProxy
from tests.kit import doe, runs
from tests.kit.window import window
from tests.scenarios.test_whole_run import job

from byos_run.bucket import objects
from byos_run.bucket.session import Session
from byos_run.model import Place, StoreSettings
from byos_run.node.pool import Pool
from byos_run.node.stop import Stop

STALE = 1e-9
"""A lease that is over by the time that a heartbeat is read."""


@pytest.fixture
def words(bucket):
    """The words of `byos-run status` on a prefix of the bucket."""

    def of(prefix, *flags, store=None):
        endpoint = (store or bucket.store).endpoint_url
        return ["status", bucket.url(prefix), *flags, "--store-endpoint-url", endpoint]

    return of


@pytest.fixture
def watching(shipped_file, bucket, words, run_environ, tmp_path):
    """Runs `byos-run status` beside the test, with standard output where it is wanted."""

    @contextmanager
    def start(prefix, *flags, store=None, env=None, **streams):
        directory = tmp_path / "watching"
        runs.lay_out(directory, file=shipped_file, store=bucket.store, job=None)
        command = ("sh", "byos-run", *words(prefix, "--every", "0.2", *flags, store=store))
        with runs.started(directory, command=command, env=run_environ(**(env or {})), **streams) as process:
            yield process

    return start


def doe_of_all_kinds(bucket):
    leaving = {"bytes_per_s": 2_000_000, "bytes_waiting": 41_000_000, "tail_s": 20, "disk_full_in_s": 1500}
    doe.write_status(bucket, "doe/slow/", phase="solve", publishing=leaving, phases={"fetch": 60})
    doe.write_status(bucket, "doe/quick/", phase="publish", bytes=75, of_bytes=100, eta_s=400, at=10.0, started_at=0.0)
    doe.write_status(bucket, "doe/gone/", phase="fetch", lease_s=STALE)
    doe.ended(bucket, "doe/good/", {"a": b"1"})
    doe.write_status(bucket, "doe/bad/", phase="over", exit_code=42, cause="rank 3 died of signal 11", attempt=2)
    bucket.put("doe/odd/_byos/status.json", b'{"phase": 7, "bytes": "x", "phases": [], "last_lines": {}}')
    doe.write_status(bucket, "doe/group/deep/", phase="fetch", host="n\x1b[31mode", last_lines=["CFL\x1b[2J 0.9"])
    bucket.put("doe/notes/readme.txt", b"no run")


def test_every_kind_of_run_has_its_row_and_what_needs_attention_comes_first(run_byos, bucket, words):
    """One look at a DOE: stale, failed, odd, running, done; 1, since some need attention; nothing steers the terminal."""
    doe_of_all_kinds(bucket)
    ran = run_byos(None, *words("doe/"))

    assert (1, "") == (ran.code, ran.error)
    title, *rows, totals = ran.output.splitlines()
    assert ["RUN", "STATE", "PROGRESS", "RATE", "ETA", "WAITS", "TRY", "NODE", "LAST", "LINE"] == title.split()
    assert ["gone", "bad", "odd"] == [row.split()[0] for row in rows[:3]]
    assert ["slow", "group/deep", "quick"] == [row.split()[0] for row in rows[3:6]]
    assert "good" == rows[6].split()[0]
    by_name = {row.split()[0]: row for row in rows}
    assert "stale: fetch" in by_name["gone"]
    assert "failed (42)" in by_name["bad"]
    assert "rank 3 died of signal 11" in by_name["bad"]
    assert "75 %" in by_name["quick"]
    assert "6 min" in by_name["quick"]
    assert "4 min 00 s" in by_name["slow"]
    assert re.search(r"2 MB/s +41 MB .*the disk is full in 25 min! step 200", by_name["slow"])
    assert "7 runs: 1 stale, 1 failed, 1 unknown, 3 running, 1 done; 2.5 MB/s" == totals
    assert r"n\x1b[31mode" in ran.output
    assert "\x1b" not in ran.output


def test_a_real_run_is_done_or_failed(run_byos, bucket, words):
    """One prefix, one run: 0 when it ended well; 1, its code and its cause when it did not."""
    assert 0 == run_byos(job(bucket, "echo fine > x")).code
    ran = run_byos(None, *words("out/run/"))
    assert (0, "1 run: 1 done") == (ran.code, ran.output.splitlines()[-1])

    assert 42 == run_byos(job(bucket, "echo diverged; exit 42")).code
    ran = run_byos(None, *words("out/run/", "--json"))
    (run,) = json.loads(ran.output)["runs"]
    assert (1, "failed", 42, 2) == (ran.code, run["state"], run["exit_code"], run["attempt"])


def test_failed_and_json(run_byos, bucket, words):
    """--failed leaves what needs attention; --json is one document with all that is known."""
    doe_of_all_kinds(bucket)
    document = json.loads(run_byos(None, *words("doe/", "--failed", "--json")).output)

    assert ["stale", "failed", "unknown"] == [run["state"] for run in document["runs"]]
    assert {"runs": 7, "stale": 1, "failed": 1, "unknown": 1, "running": 3, "waiting": 0, "done": 1} == document[
        "totals"
    ]
    assert 66 == run_byos(None, *words("nothing/")).code
    assert 64 == run_byos(None, *words("doe/", "--every", "often")).code
    assert 64 == run_byos(None, "status").code


def test_rows_that_never_started_are_waiting(run_byos, bucket, words, tmp_path):
    """--table: its outputs that have no heartbeat, from a file or from the bucket; a broken table is 64 with its rows."""
    doe.ended(bucket, "doe/one/", {})
    table = "s3_input,s3_output,angle\n" + "".join(
        f"{bucket.url('in/case.zip')},{bucket.url(place)},{row}\n"
        for row, place in enumerate(("doe/one/", "doe/two", "x/"))
    )
    (tmp_path / "doe.csv").write_text(table, encoding="utf-8-sig")
    ran = run_byos(None, *words("doe/", "--table", str(tmp_path / "doe.csv")))
    assert (0, ["one", "two"]) == (ran.code, sorted(row.split()[0] for row in ran.output.splitlines()[1:3]))
    assert "2 runs: 1 waiting, 1 done" in ran.output
    assert "1 row of the table" in ran.error
    bucket.put("doe.csv", table)
    assert "1 waiting" in run_byos(None, *words("doe/", "--table", bucket.url("doe.csv"))).output
    bucket.put("doe.csv", "s3_input,s3_output\ns3://in-put/x.zip,")
    ran = run_byos(None, *words("doe/", "--table", bucket.url("doe.csv")))
    assert (64, True) == (ran.code, "row 1 (line 2): s3_output: it is empty" in ran.error), ran.error


def test_more_runs_than_a_page_of_the_listing(run_byos, bucket, words, minio_store, tmp_path):
    """1,100 runs: each has its row, in seconds."""
    (tmp_path / "config").write_text(runs.config_text(minio_store))
    session = Session(settings=StoreSettings(endpoint_url=minio_store.endpoint_url), place=Place(tmp_path, {}))
    wire = session.wire(bucket.name, stop=Stop())
    with Pool(name="put", width=16) as pool:
        over = json.dumps({"phase": "over", "exit_code": 0}).encode()
        for _ in pool.each(lambda n: objects.put(wire, f"doe/{n:04}/_byos/status.json", over), range(1100)):
            pass
    session.close()
    ran = run_byos(None, *words("doe/"))

    assert (0, 1102) == (ran.code, len(ran.output.splitlines()))
    assert "1,100 runs: 1,100 done" == ran.output.splitlines()[-1]


def test_watching_tells_each_change_and_reads_only_what_changed(bucket, watching):
    """No terminal: the table, then a line a change. What is known is asked for with If-None-Match, what has ended not at all."""
    doe.write_status(bucket, "doe/one/", phase="fetch")
    doe.ended(bucket, "doe/two/", {})
    with FaultProxy(bucket.store) as proxy:
        store = bucket.store._replace(endpoint_url=proxy.endpoint_url)
        with watching("doe/", "--watch", store=store) as process:
            assert process.stdout.readline().startswith("RUN")
            told = [process.stdout.readline() for _ in range(3)]
            assert "2 runs: 1 running, 1 done" in told[-1]
            first = len(proxy.seen)
            doe.write_status(bucket, "doe/one/", phase="solve")
            assert "one: solve\n" == process.stdout.readline()
            assert "2 runs" in process.stdout.readline()
            doe.write_status(bucket, "doe/three/", phase="claim")
            assert "three: claim\n" == process.stdout.readline()
            process.send_signal(signal.SIGINT)
            assert 0 == process.wait(240)
        asked = [each for each in proxy.seen[first:] if each.key.endswith("status.json")]
        assert {"one", "three"} == {each.key.split("/")[-3] for each in asked if "doe/" in each.key} - {
            bucket.name,
            "doe",
        }
        assert all("if-none-match" in each.headers for each in asked if "/one/" in each.key)


def test_waiting_ends_when_all_have(bucket, watching):
    """--wait: 0 when all are done, 1 when one failed; a run whose heartbeat is long dead does not hold it up."""
    doe.write_status(bucket, "doe/one/")
    with watching("doe/", "--wait") as process:
        assert process.stdout.readline().startswith("RUN")
        doe.write_status(bucket, "doe/one/", phase="over", exit_code=0)
        assert 0 == process.wait(240)
        assert "one: done\n1 run: 1 done\n" in process.stdout.read()
    doe.write_status(bucket, "doe/two/", lease_s=STALE)
    with watching("doe/", "--wait", "--json") as process:
        assert 1 == process.wait(240)
        assert [("two", "stale"), ("one", "done")] == [
            (run["prefix"].split("/")[-2], run["state"]) for run in json.load(process.stdout)["runs"]
        ]


@pytest.mark.parametrize(
    ("columns", "titles"),
    [
        (60, "RUN STATE PROGRESS ETA"),
        (80, "RUN STATE PROGRESS RATE ETA LAST LINE"),
        (200, "RUN STATE PROGRESS RATE ETA WAITS TRY NODE LAST LINE"),
    ],
    ids=str,
)
def test_the_table_fits_its_window_and_is_drawn_over_in_place(bucket, watching, columns, titles):
    """60, 80 and 200 columns: what is worth least goes first; a change is drawn where the row stands, nothing scrolls."""
    doe_of_all_kinds(bucket)
    doe.write_status(bucket, "doe/流体解析-ピストン-0001/", last_lines=["e\u0301" * 300])
    with (
        window(columns=columns, rows=14) as seen,
        watching("doe/", "--watch", env={"TERM": "xterm-256color"}, stdout=seen.slave) as process,
    ):
        lines = seen.until(lambda lines: any(line.startswith("8 runs") for line in lines))
        assert titles.split() == lines[0].split()
        assert 10 == len(lines)
        assert ("brown", "red", "green") == tuple(
            map(seen.colour_of, ("gone ", "bad ", "good "))
        )  # brown: xterm's yellow
        doe.write_status(bucket, "doe/slow/", phase="over", exit_code=0)
        lines = seen.until(lambda lines: any(line.startswith("8 runs") and "2 done" in line for line in lines))
        assert titles.split() == lines[0].split()
        assert 10 == len(lines)
        assert 0 == seen.scrolled
        process.send_signal(signal.SIGINT)
        assert 1 == process.wait(240)


def test_more_runs_than_rows(bucket, watching):
    """A low window shows what needs attention, says how many more there are, and is drawn anew when it grows."""
    for number in range(12):
        doe.write_status(bucket, f"doe/{number:02}/")
    with (
        window(columns=80, rows=8) as seen,
        watching("doe/", "--watch", env={"TERM": "xterm", "NO_COLOR": "1"}, stdout=seen.slave) as process,
    ):
        seen.until(lambda lines: any("… and 8 more" in line for line in lines))
        assert b"\x1b[3" not in seen.raw
        seen.resize(100, 20)
        lines = seen.until(lambda lines: any(line.startswith("11 ") for line in lines))
        assert not any("more" in line for line in lines)
        process.send_signal(signal.SIGINT)
        assert 0 == process.wait(240)
