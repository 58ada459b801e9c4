"""What settles leaves: real files, a real store, a writer that never waits for us."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from contextlib import contextmanager, suppress

import pytest
from tests.kit.runs import config_text
from tests.scenarios.test_packing import unpacked

from byos_run.bucket.session import Session
from byos_run.model import Identity, Output, Place, Published, S3Url, StoreSettings
from byos_run.node import files
from byos_run.node.globs import Selection
from byos_run.node.holders import Held, held_by
from byos_run.node.pool import Budget, Count, Pool, step_back
from byos_run.node.stop import Stop
from byos_run.steps import gather
from byos_run.steps.ahead import Ahead
from byos_run.steps.gather import WhileRunning
from byos_run.steps.publish import Publisher

OVERWRITES = 500
LARGE_OVERWRITES = 30
# Versions that tell which they are: a number, repeated; truncated and written in place in two steps, or renamed into place.
OVERWRITER = """
import os, random, sys, time
numbers = random.Random(3)
for version in range(int(sys.argv[1])):
    body = b"%06d," % version * numbers.randrange(1, int(sys.argv[2]))
    half = numbers.randrange(len(body))
    name = "rotates" if version % 3 else "new"
    with open(name, "r+b" if version % 3 == 1 and os.path.exists(name) else "wb") as file:
        file.truncate()
        file.write(body[:half])
        file.flush()
        time.sleep(numbers.choice([0, 0, 0.001, 0.003]))
        file.write(body[half:])
    if name == "new":
        os.rename("new", "rotates")
    time.sleep(numbers.choice([0, 0.002, 0.01, 0.03]))
"""


@contextmanager
def wire_to(bucket, directory):
    (directory / "config").write_text(config_text(bucket.store))
    session = Session(settings=StoreSettings(endpoint_url=bucket.store.endpoint_url), place=Place(directory, {}))
    try:
        yield session.wire(bucket.name, stop=Stop())
    finally:
        session.close()


def found_in(case, stored=""):
    """The outputs of *case*, all its files."""
    selection = Selection.of(include=["**"], exclude=[])
    return files.case_outputs(
        case=case,
        fetched=files.Snapshot.of(()),
        what="all",
        selection=selection,
        key_prefix="out/",
        stored=lambda *_: stored,
    ).outputs


@pytest.fixture
def case(tmp_path):
    directory = tmp_path / "case"
    directory.mkdir()
    return directory


def watcher(case, **more):
    """Looks at *case* as often as it is told, and sends to nobody unless told otherwise; notes what would have left."""
    sent = []

    def send(outputs):
        sent.extend(outputs)
        return ()

    settings = {
        "send": send, "find": lambda _: found_in(case), "held": Held, "stop": Stop(), "settle_s": 0.0, **more
    }  # fmt: skip
    return WhileRunning(**settings), sent


@pytest.fixture
def eager(monkeypatch):
    """No rest between looks, and none but those that are asked for, however long one takes."""
    for share in ("_SHARE_OF_CORE", "_SHARE_WHEN_BUSY", "_SHARE_OF_TIME", "_LOOKS_PER_LOT"):
        monkeypatch.setattr(WhileRunning, share, 1e9)


@pytest.mark.parametrize(
    ("times", "most", "stored"),
    [
        pytest.param(OVERWRITES, 20_000, "", id="small"),
        pytest.param(LARGE_OVERWRITES, 2_000_000, "", id="in-parts"),
        pytest.param(LARGE_OVERWRITES, 2_000_000, "zstd", id="compressed"),
    ],
)
def test_a_file_overwritten_all_the_time_is_never_acknowledged_half(
    bucket, case, tmp_path, eager, monkeypatch, times, most, stored
):
    """Overwritten at random moments, in place and by rename, longer and shorter, also while its parts leave: every version of the
    object is a version of the file, and the bucket ends with the last one."""
    monkeypatch.setattr(gather, "_SET_OUT_S", 0.0)
    bucket.client.put_bucket_versioning(Bucket=bucket.name, VersioningConfiguration={"Status": "Enabled"})
    with wire_to(bucket, tmp_path) as wire, Publisher(
        wire, prefix=S3Url(bucket.name, "out/"), opened=files.open_output, writer=("byos-run", "x"), tally=Count(),
        beside_solver=True, budget=Budget(8),
    ) as publisher:  # fmt: skip
        command = [sys.executable, "-I", "-S", "-c", OVERWRITER, str(times), str(most)]
        with subprocess.Popen(command, cwd=case) as writer:
            gathering, _ = watcher(
                case, send=lambda outputs: publisher.publish(outputs).published, held=lambda: held_by([writer.pid]),
                find=lambda _: found_in(case, stored), ahead=Ahead(publisher.begin), is_restart=lambda _: True,
            )  # fmt: skip
            while writer.poll() is None:
                gathering.look()
            assert writer.returncode == 0
        for _ in range(2):
            gathering.look()
            time.sleep(0.03)
        gathering.over()

    bodies = []
    for page in bucket.client.get_paginator("list_object_versions").paginate(Bucket=bucket.name):
        for each in page.get("Versions", []):
            got = bucket.client.get_object(Bucket=bucket.name, Key=each["Key"], VersionId=each["VersionId"])
            body = got["Body"].read()
            bodies.append(unpacked(body) if stored else body)
    versions = [(int(body[:6]), len(body) // 7) for body in bodies]
    assert all(body == b"%06d," % number * times for body, (number, times) in zip(bodies, versions))
    assert max(number for number, _ in versions) == times - 1
    last = bucket.get("out/rotates.zst" if stored else "out/rotates")
    assert (unpacked(last) if stored else last) == (case / "rotates").read_bytes()
    assert uploads(bucket, "rotates") == []


@pytest.fixture
def ahead(bucket, case, tmp_path, eager, monkeypatch):
    """Looks at *case* for the bucket; a file settles after an hour, and sets out when it was the same for a moment."""
    monkeypatch.setattr(gather, "_SET_OUT_S", 0.02)
    with wire_to(bucket, tmp_path) as wire, Publisher(
        wire, prefix=S3Url(bucket.name, "out/"), opened=files.open_output, writer=("byos-run", "x"), tally=Count(),
        beside_solver=True,
    ) as publisher:  # fmt: skip
        gathering, _ = watcher(case, ahead=Ahead(publisher.begin), settle_s=3600.0)
        yield gathering
        gathering.over()


def uploads(bucket, path):
    """Parts of the unfinished uploads of *path*; MinIO lists them by its exact key."""
    parts = []
    for each in bucket.client.list_multipart_uploads(Bucket=bucket.name, Prefix=f"out/{path}").get("Uploads", []):
        with suppress(bucket.client.exceptions.NoSuchUpload):  # it was aborted in between
            told = bucket.client.list_parts(Bucket=bucket.name, Key=each["Key"], UploadId=each["UploadId"])
            parts.append(len(told.get("Parts", [])))
    return parts


def until(holds):
    deadline = time.monotonic() + 120
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_large_file_travels_before_it_has_settled(bucket, case, ahead):
    """Its parts leave; it is an object when the solver has ended, unless it changed; a small one waits until it has settled."""
    for name in ("field.h5", "rotates.h5"):
        (case / name).write_bytes(os.urandom(1000) * 20_000)
    (case / "small").write_text("x")
    for _ in range(2):
        ahead.look()
        time.sleep(0.05)
    until(lambda: uploads(bucket, "field.h5") == uploads(bucket, "rotates.h5") == [2])
    while_it_runs = bucket.sizes()
    with open(case / "rotates.h5", "r+b") as file:
        file.write(b"new")
    ahead.look()
    until(lambda: uploads(bucket, "rotates.h5") == [])
    ahead.over()

    assert while_it_runs == {}
    assert bucket.sizes() == {"out/field.h5": 20_000_000}
    assert bucket.get("out/field.h5") == (case / "field.h5").read_bytes()
    assert list(ahead.acknowledged) == ["field.h5"]
    assert uploads(bucket, "field.h5") == []


def test_what_was_removed_or_replaced_after_it_had_set_out_is_no_object(bucket, case, ahead):
    """Noticed without a look in between, by what was opened itself."""
    for name in ("deleted.h5", "replaced.h5"):
        (case / name).write_bytes(bytes(9_000_000))
    for _ in range(2):
        ahead.look()
        time.sleep(0.05)
    (case / "deleted.h5").unlink()
    (case / "new").write_text("x")
    (case / "new").rename(case / "replaced.h5")
    ahead.over()

    assert bucket.sizes() == {}
    assert ahead.acknowledged == {}


def test_settled_is_what_was_the_same_at_two_looks_and_nobody_writes(case, eager):
    """A new file waits for a second look, one that is open for as long as it is, one that changed anew."""
    (case / "open").write_text("x")
    (case / "quiet").write_text("x")
    held = Held(written=frozenset({(case / "open").stat().st_ino}))
    gathering, sent = watcher(case, held=lambda: held)

    def left():
        gathering.look()
        time.sleep(0.03)  # two looks within a tick of the file clock are one
        return {output.path for output in sent}

    assert left() == set()
    (case / "changes").write_text("x")
    assert left() == {"quiet"}
    (case / "changes").write_text("other")
    assert left() == {"quiet"}
    assert left() == {"quiet", "changes"}


def test_an_empty_file_waits_longer(case, eager, monkeypatch):
    """It may be one that somebody is about to write anew."""
    monkeypatch.setattr(gather, "_EMPTY_S", 3600.0)
    (case / "empty").touch()
    (case / "full").write_text("x")
    gathering, sent = watcher(case)
    gathering.look()
    time.sleep(0.03)
    gathering.look()
    at_first = {output.path for output in sent}
    gathering._empty_quiet_s = 0.02  # the hour is over
    gathering.look()

    assert at_first == {"full"}
    assert {output.path for output in sent} == {"full", "empty"}


def test_what_others_may_write_waits_longer_and_that_is_said(case, eager):
    """On a network file system, or where /proc does not tell of a rank: two looks are not enough."""
    (case / "a").write_text("x")
    said: list[str] = []
    on_nfs, sent = watcher(case, long_quiet="the case lies on a network file system (nfs4)", say=said.append)
    blind, sent_blind = watcher(case, held=lambda: Held(unreadable=77), say=said.append)
    for gathering in (on_nfs, blind):
        for _ in range(3):
            gathering.look()
            time.sleep(0.03)

    assert sent == sent_blind == []
    assert said == [
        "the case lies on a network file system (nfs4): a file counts as settled after 60 s without a change",
        "/proc does not tell what process 77 of the run has open: a file counts as settled after 60 s without a change",
    ]


def test_directories_that_come_and_go_between_two_looks(case, eager):
    """A tree that is built and removed all the time: looks go on, what stays is found."""
    script = (
        "import os, shutil, time\nfor n in range(400):\n os.makedirs(f'd{n}/a/b'); open(f'd{n}/a/b/f', 'w').close();"
        " os.rename(f'd{n}/a', f'e{n}') if n % 2 else None; shutil.rmtree(f'd{n}'); shutil.rmtree(f'e{n}', ignore_errors=True)"
    )
    (case / "stays").write_text("x")
    gathering, sent = watcher(case)
    with subprocess.Popen([sys.executable, "-I", "-S", "-c", script], cwd=case) as writer:
        while writer.poll() is None:
            gathering.look()
            time.sleep(0.001)

    assert writer.returncode == 0
    assert "stays" in [output.path for output in sent]


def test_looking_takes_a_small_share_of_a_core(case):
    """A tree that costs much to look at is looked at seldom; at first there is a little credit."""
    looks = []

    def find(_):
        looks.append(time.thread_time())
        while time.thread_time() - looks[-1] < 0.04:
            pass
        return []

    gathering, _ = watcher(case, find=find)
    for _ in range(200):
        gathering.look()

    assert 1 <= len(looks) <= 5


def test_a_large_file_that_is_extended_again_and_again_does_not_travel_whole_each_time(case, eager):
    """One that took 5 s waits ten times as long when it has changed; a restart file, and one that took no time, do not."""
    took_s = {"series.h5": 5.0, "restart.a": 5.0, "table.out": 0.001}
    sent = []

    def send(outputs):
        sent.extend(output.path for output in outputs)
        return [
            Published(
                output=output, key=output.path, size_bytes=1, crc32="", etag="", identity=output.identity,
                seconds=took_s[output.path],
            )
            for output in outputs
        ]  # fmt: skip

    gathering, _ = watcher(case, send=send, is_restart=lambda path: path == "restart.a")

    def extended_and_left():
        for path in took_s:
            with open(case / path, "a") as file:
                file.write("x")
        for _ in range(3):
            gathering.look()
            time.sleep(0.03)
        left = sorted(sent)
        sent.clear()
        return left

    assert extended_and_left() == ["restart.a", "series.h5", "table.out"]
    assert extended_and_left() == ["restart.a", "table.out"]


def test_what_appears_in_a_large_tree_is_not_kept_waiting_by_its_size(case):
    """A walk that costs much is not taken again for minutes; glances find what is new, settle it and send it meanwhile."""
    (case / "inputs/of/the/run").mkdir(parents=True)
    walks, familiar = [], files.Familiar(case)
    selection = Selection.of(include=["**"], exclude=[])

    def find(paths):
        if paths is None:
            walks.append(time.thread_time())
            while time.thread_time() - walks[-1] < 0.1:
                pass
        return files.case_outputs(
            case=case, fetched=files.Snapshot.of(()), what="all", selection=selection, key_prefix="out/",
            familiar=familiar, only=paths,
        ).outputs  # fmt: skip

    gathering, sent = watcher(case, find=find)
    gathering.look()
    (case / "inputs/of/new").mkdir()
    (case / "inputs/of/new/field").write_text("x")
    (case / "log").write_text("x")

    def left():
        gathering.look()
        return {"inputs/of/new/field", "log"} <= {output.path for output in sent}

    until(left)
    assert len(walks) == 1


def test_many_files_leave_in_lots(case, eager):
    """All at one look if it does not take long; when the solver ends, no further lot begins."""
    outputs = [Output(str(n), str(n), Identity(1, 1, 1, n), case) for n in range(300)]
    for lots_at_all in (5, 2):
        lots: list[int] = []
        over = Stop()

        def send(lot, *, lots=lots, over=over, most=lots_at_all):
            lots.append(len(lot))
            if len(lots) == most:
                over.ask("the solver's end")
            return ()

        gathering, _ = watcher(case, find=lambda _: outputs, send=send, stop=over, settle_s=0.5)
        gathering.look()
        time.sleep(0.5)
        gathering.look()

        assert lots == [64, 64, 64, 64, 44][:lots_at_all]


def test_a_budget_bounds_what_is_taken_of_the_processors():
    """Work begins only while the share holds: a tenth of a core is a tenth; lifted, nobody waits."""
    budget = Budget(0.1)

    def burn():
        begun = time.thread_time()
        while time.thread_time() - begun < 0.02:
            pass

    started, used = time.monotonic(), time.process_time()
    while time.monotonic() - started < 1.0:
        budget.begin(burn)
    share = (time.process_time() - used) / (time.monotonic() - started)
    budget.lift()
    begun = time.process_time()
    for _ in range(5):
        budget.begin(burn)

    assert share < 0.2
    assert time.process_time() - begun >= 0.1
    assert os.getpriority(os.PRIO_PROCESS, 0) >= 0


def test_a_process_of_low_priority_may_step_back_too():
    """Started by nice -n 19, a run publishes beside its solver as any other; nobody but root may raise a priority."""
    with Pool(name="low", width=1) as pool:
        thread = pool.submit(threading.get_native_id).result()
        os.setpriority(os.PRIO_PROCESS, thread, 15)
        pool.submit(step_back).result()
        assert os.getpriority(os.PRIO_PROCESS, thread) == 15


def test_what_is_packed_counts_as_done_by_what_it_was(bucket, case, tmp_path):
    """Progress is of the files: three megabytes that leave as a few bytes, compressed or in a bundle, are all of it."""
    for number in range(3):
        (case / f"{number}.dat").write_bytes(bytes(1_000_000))
    for stored in ("zstd", "bundle"):
        count = Count()
        with wire_to(bucket, tmp_path) as wire, Publisher(
            wire, prefix=S3Url(bucket.name, "out/"), opened=files.open_output, writer=("byos-run", "x"), tally=count,
            bundle_name=lambda: "_byos/bundles/1.tar.zst",
        ) as publisher:  # fmt: skip
            publisher.publish(found_in(case, stored))
        assert (count.done_bytes, count.files) == (3_000_000, 3)
        assert count.bytes_in < 100_000
