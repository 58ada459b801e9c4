"""The shipped file, killed in the middle of a fetch and started again: what is there and right is not fetched a second time."""

from __future__ import annotations

import hashlib
import io
import json
import os
import random
import re
import signal
import time
import zipfile
from pathlib import Path
from typing import NamedTuple

import pytest
from tests.faults.proxy import FaultProxy
from tests.faults.rules import Rule, Stall
from tests.kit import runs
from tests.scenarios.test_whole_run import job, outputs

HELD_FROM = 10_000_000
HELD = Rule(Stall(600), method="GET", header=r"^range: bytes=\d{8,}-")
"""Ranges that begin at ten million bytes or later are never answered.

They must be fewer than the connections (8): a worker reads 8 ranges ahead, and with all of them held what is early may
wait behind them.
"""
SMALL_BYTES = 200_000


class Archive(NamedTuple):
    content: bytes
    truth: dict[str, bytes]
    extents: dict[str, tuple[int, int]]
    """Of each member's bytes in the object, header included."""

    def early(self):
        """Members that lie wholly in front of what is held, and whose reads wait behind no held one in a worker's queue.

        The second part of the stored one may: whoever has nothing else left takes it.
        """
        return {path for path, (_, end) in self.extents.items() if end < HELD_FROM} - {"big/stored.dat"}


def archive(seed=1, members=64):
    """Two large members first, one stored and one packed, then small ones in turns; 16 MB."""
    noise = random.Random(seed)
    truth = {"big/stored.dat": noise.randbytes(3_000_000), "big/packed.dat": noise.randbytes(2_500_000)}
    truth |= {f"mesh/{i % 3}/{i}.dat": noise.randbytes(SMALL_BYTES - i) for i in range(members)}
    truth |= {"empty.dat": b"", "inputs.in": b"cells 8\n"}
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as file:
        for number, (path, content) in enumerate(truth.items()):
            file.writestr(path, content, zipfile.ZIP_DEFLATED if number % 2 else zipfile.ZIP_STORED)
        infos = file.infolist()
        starts = [info.header_offset for info in infos] + [file.start_dir]
    return Archive(
        target.getvalue(), truth, {info.filename: (starts[i], starts[i + 1]) for i, info in enumerate(infos)}
    )


def stage_in(directory):
    """The stage in *directory*, if there is one."""
    return next((path for path in directory.glob(".byos-stage-*") if path.is_dir()), None)


def whole_in(directory, truth):
    """Paths of *truth* that are whole below *directory*."""
    found = set()
    for path, content in truth.items():
        try:
            if (directory / path).read_bytes() == content:
                found.add(path)
        except OSError:
            continue
    return found


def tree_of(directory):
    return {str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*") if not path.is_dir()}


def until(true, process):
    deadline = time.monotonic() + 120
    while not true():
        assert process.poll() is None, process.stdout.read() + process.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.fixture
def site(bucket, minio_store, shipped_file, run_environ, tmp_path):
    """Starts the shipped file behind a proxy, kills it when *enough* of the truth is on the disk, and starts it again."""

    class Site:
        def __init__(self, proxy):
            self.proxy = proxy
            self.directory = tmp_path / "node"
            self.env = run_environ(**runs.PLATFORM)

        def lay_out(self, asked):
            store = {"endpoint_url": self.proxy.endpoint_url, "lease": "2s"}
            told = None if asked is None else {**asked, "store": store}
            runs.lay_out(self.directory, file=shipped_file, store=minio_store, job=told)

        def kill_in_fetch(self, enough, truth, *, asked=None, command=("sh", "byos-run"), where=None, rules=(HELD,)):
            """Paths that were whole in the stage when it had died."""
            self.proxy.tell(*rules)
            self.lay_out(asked)
            with runs.started(self.directory, command=command, env=self.env) as process:

                def is_there():
                    stage = where() if where else stage_in(self.directory)
                    return stage is not None and enough <= whole_in(stage, truth)

                until(is_there, process)
                os.killpg(process.pid, signal.SIGKILL)
                process.communicate()
            return whole_in(where() if where else stage_in(self.directory), truth)

        def again(self, *, asked=None, command=("sh", "byos-run")):
            """What came of the next start, and the ranges that it asked for."""
            self.proxy.tell()
            seen = len(self.proxy.seen)
            self.lay_out(asked)
            ran = runs.run(self.directory, command=command, env=self.env, timeout_s=180)
            ranges = [
                tuple(map(int, found.groups()))
                for each in self.proxy.seen[seen:]
                if each.method == "GET" and "/in/" in f"/{each.key}"
                and (found := re.fullmatch(r"bytes=(\d+)-(\d+)", each.headers.get("range", "")))
            ]  # fmt: skip
            return ran, ranges

    with FaultProxy(minio_store) as proxy:
        yield Site(proxy)


def refetched(ranges, extents, kept):
    """Bytes of *kept* members that were asked for all the same."""
    return {
        path: touched
        for path in kept
        if (touched := sum(max(0, min(last + 1, extents[path][1]) - max(first, extents[path][0])) for first, last in ranges))
    }  # fmt: skip


def fetch_command(bucket, site, key="in/case.zip"):
    return ("sh", "byos-run", "fetch", bucket.url(key), "here/case", "--store-endpoint-url", site.proxy.endpoint_url)


def here(site):
    return stage_in(site.directory / "here")


LISTS = "find . -type f ! -name tree.txt -exec sha256sum {} + > ../tree.txt; mv ../tree.txt ."


def listed(bucket):
    lines = (line.split("  ", 1) for line in bucket.get("out/run/tree.txt").decode().splitlines())
    return {path.removeprefix("./"): digest for digest, path in lines}


@pytest.mark.parametrize("scratch", ["case", "deep/er/case", "outside"])
def test_a_run_killed_in_its_fetch_goes_on(bucket, site, scratch):
    """Only what was missing is asked for again; the solver finds the whole case, and nothing is left in the end."""
    packed = archive()
    asked = job(bucket, LISTS, scratch=scratch)
    bucket.put("in/case.zip", packed.content)

    def where():
        base, pattern = {
            "case": (site.directory, ".byos-stage-*"),
            "deep/er/case": (site.directory, "deep/er/.byos-stage-*"),
            "outside": (Path(site.env["TMPDIR"]), "byos-*/.byos-stage-*"),
        }[scratch]
        return next((path for path in base.glob(pattern) if path.is_dir()), None)

    kept = site.kill_in_fetch(packed.early(), packed.truth, asked=asked, where=where)
    os.utime(where() / "mesh/0/0.dat", (1, 1))  # a kill may have come before its time was set
    ran, ranges = site.again(asked=asked)

    assert 0 == ran.code, ran.output
    assert {} == refetched(ranges, packed.extents, kept)
    assert {path: hashlib.sha256(content).hexdigest() for path, content in packed.truth.items()} == listed(bucket)
    assert ["tree.txt"] == list(outputs(bucket))
    assert f"{len(kept)} kept from the attempt before" in ran.output
    (told,) = bucket.json("out/run/_byos/manifest.json")["inputs"]
    assert (len(kept), sum(len(packed.truth[path]) for path in kept)) == (told["kept"], told["kept_bytes"])
    assert [] == ran.left()
    assert [] == [path for path in Path(site.env["TMPDIR"]).iterdir() if path.name.startswith("byos-")]


def test_what_was_tampered_with_is_fetched_again(bucket, site):
    """One byte, a link, a hard link, a FIFO, a directory, a cut, a wrong mode, more files: gone or right, nothing followed."""
    packed = archive()
    bucket.put("in/case.zip", packed.content)
    command = fetch_command(bucket, site)
    kept = site.kill_in_fetch(packed.early(), packed.truth, command=command, where=lambda: here(site))
    stage, outside = here(site), site.directory / "outside"
    outside.mkdir()
    harmed = sorted(path for path in kept if path.startswith("mesh/0/"))
    flipped, link, hard, fifo, directory, cut, set_id, *_ = (stage / path for path in harmed)
    content = bytearray(flipped.read_bytes())
    content[len(content) // 2] ^= 1
    flipped.write_bytes(content)
    (outside / "target").write_bytes(link.read_bytes())
    link.unlink()
    link.symlink_to(outside / "target")
    os.link(hard, outside / "second-name")
    fifo.unlink()
    os.mkfifo(fifo)
    directory.unlink()
    (directory / "below").mkdir(parents=True)
    (directory / "below" / "x").write_bytes(b"x")
    os.truncate(cut, 10)
    set_id.chmod(0o4644)
    for path in (stage / "mesh/1").iterdir():
        (outside / path.name).write_bytes(path.read_bytes())
        path.unlink()
    (stage / "mesh/1").rmdir()
    (stage / "mesh/1").symlink_to(outside)
    (stage / "extra").mkdir()
    (stage / "extra/file").write_bytes(b"left over")
    (stage / "linked-extra").symlink_to(outside)
    before = tree_of(outside)
    ran, ranges = site.again(command=command)

    assert 0 == ran.code, ran.output + ran.error
    case = site.directory / "here/case"
    assert packed.truth == tree_of(case)
    assert not any(path.is_symlink() for path in case.rglob("*"))
    assert not (case / "extra").exists()
    assert before == tree_of(outside)
    good = {path for path in kept if not path.startswith(("mesh/0/", "mesh/1/"))}
    assert {} == refetched(ranges, packed.extents, good)
    for path in harmed[:7]:
        assert refetched(ranges, packed.extents, [path]), path
    assert ["case"] == os.listdir(site.directory / "here")


def test_fetch_goes_on_after_each_kill(bucket, site):
    """Killed twice, then left alone: each time it goes on where it was."""
    packed = archive()
    bucket.put("in/case.zip", packed.content)
    command = fetch_command(bucket, site)
    early = Rule(Stall(600), method="GET", header=r"^range: bytes=([89]\d{6}|\d{8,})-")
    first = {path for path in packed.early() if packed.extents[path][1] < 6_000_000}
    kept = site.kill_in_fetch(first, packed.truth, command=command, where=lambda: here(site), rules=(early,))
    seen = len(site.proxy.seen)
    more = site.kill_in_fetch(packed.early(), packed.truth, command=command, where=lambda: here(site))
    asked = [each.headers.get("range", "") for each in site.proxy.seen[seen:] if each.method == "GET"]
    second = [tuple(map(int, found.groups())) for each in asked if (found := re.fullmatch(r"bytes=(\d+)-(\d+)", each))]
    ran, ranges = site.again(command=command)

    assert kept < more
    assert {} == refetched(second, packed.extents, kept)
    assert {} == refetched(ranges, packed.extents, more)
    assert 0 == ran.code, ran.output + ran.error
    assert packed.truth == tree_of(site.directory / "here/case")
    assert f"{len(more)} kept from the attempt before" in ran.output


def test_an_object_replaced_since_is_what_counts(bucket, site):
    """The directory of the new version decides: what differs is fetched, a file that it does not have is gone."""
    packed, other = archive(), archive(seed=1, members=50)
    other.truth["mesh/0/3.dat"] = b"new"
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as file:
        for path, content in other.truth.items():
            file.writestr(path, content)
    bucket.put("in/case.zip", packed.content)
    command = fetch_command(bucket, site)
    site.kill_in_fetch(packed.early(), packed.truth, command=command, where=lambda: here(site))
    bucket.put("in/case.zip", target.getvalue())
    ran, _ = site.again(command=command)

    assert 0 == ran.code, ran.output + ran.error
    assert other.truth == tree_of(site.directory / "here/case")


def test_another_run_begins_anew(bucket, site):
    """Another input in the job file: nothing of the stage is used, nothing of it is left."""
    packed = archive()
    asked = job(bucket, "find . -type f | sort > ../tree.txt; mv ../tree.txt .")
    small = bucket.get("in/case.zip")
    bucket.put("in/case.zip", packed.content)
    bucket.put("in/other.zip", small)
    site.kill_in_fetch(packed.early(), packed.truth, asked=asked)
    ran, _ = site.again(asked={**asked, "input": bucket.url("in/other.zip")})

    assert 0 == ran.code, ran.output
    assert b"./inputs.in\n./mesh/surface.dat\n" == bucket.get("out/run/tree.txt")
    assert "kept from the attempt before" not in ran.output
    assert [] == ran.left()


def test_plain_objects_that_were_whole_stay(bucket, site):
    """By the CRC-32 that was noted; one that was replaced since, or harmed here, is fetched again."""
    noise = random.Random(3)
    truth = {f"mesh/{i}.dat": noise.randbytes(50_000) for i in range(40)}
    for path, content in truth.items():
        bucket.put(f"in/set/{path}", content)
    bucket.put("in/set/last.dat", b"held")
    truth["last.dat"] = b"held"
    command = fetch_command(bucket, site, "in/set/")
    rule = Rule(Stall(600), method="GET", key=r"last\.dat$")
    site.kill_in_fetch(set(truth) - {"last.dat"}, truth, command=command, where=lambda: here(site), rules=(rule,))
    noted = {json.loads(line)[1] for line in notes(site).splitlines() if line}
    with open(notes_path(site), "ab") as torn:
        torn.write(b'\n["kit",')
    truth["mesh/5.dat"] = b"replaced"
    bucket.put("in/set/mesh/5.dat", truth["mesh/5.dat"])
    (here(site) / "mesh/6.dat").write_bytes(bytes(50_000))
    seen = len(site.proxy.seen)
    ran, _ = site.again(command=command)

    assert 0 == ran.code, ran.output + ran.error
    assert truth == tree_of(site.directory / "here/case")
    asked = {each.key.partition("/")[2] for each in site.proxy.seen[seen:] if each.method == "GET"}
    due = ({f"in/set/{path}" for path in truth} - noted) | {f"in/set/mesh/{i}.dat" for i in (5, 6)}
    assert due == {key for key in asked if key.startswith("in/set/") and key in {f"in/set/{path}" for path in truth}}
    assert ["case"] == os.listdir(site.directory / "here")


def notes_path(site):
    (path,) = (site.directory / "here").glob(".byos-stage-*.files")
    return path


def notes(site):
    return notes_path(site).read_text()


def test_inputs_that_the_solver_changed_are_all_that_is_fetched_again(bucket, site, shipped_file, minio_store):
    """A run killed while it solved, with an input file written over: the others are proved and stay."""
    packed = archive()
    asked = job(
        bucket,
        f"if [ -e ../go ]; then {LISTS}; else echo x >> mesh/1/1.dat; echo new > new.out; echo at work; sleep 600; fi",
    )
    bucket.put("in/case.zip", packed.content)
    site.lay_out(asked)
    with runs.started(site.directory, env=site.env) as process:
        for line in process.stdout:
            if line.endswith("at work\n"):
                break
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
    (site.directory / "go").touch()
    ran, ranges = site.again(asked=asked)

    assert 0 == ran.code, ran.output
    assert {} == refetched(ranges, packed.extents, set(packed.truth) - {"mesh/1/1.dat"})
    assert {path: hashlib.sha256(content).hexdigest() for path, content in packed.truth.items()} == listed(bucket)
    assert f"{len(packed.truth) - 1} kept from the attempt before" in ran.output


def test_a_stage_that_is_a_link_is_not_entered(bucket, site):
    """It goes, and what it leads to stays as it was."""
    packed = archive()
    bucket.put("in/case.zip", packed.content)
    command = fetch_command(bucket, site)
    site.kill_in_fetch(packed.early(), packed.truth, command=command, where=lambda: here(site))
    stage, outside = here(site), site.directory / "outside"
    stage.rename(outside)
    stage.symlink_to(outside)
    before = tree_of(outside)
    ran, _ = site.again(command=command)

    assert 0 == ran.code, ran.output + ran.error
    assert packed.truth == tree_of(site.directory / "here/case")
    assert before == tree_of(outside)
    assert ["case"] == os.listdir(site.directory / "here")


def test_two_fetches_into_one_directory(bucket, site, run_byos, minio_store):
    """The second is refused with 64 and touches nothing of the first."""
    packed = archive()
    bucket.put("in/case.zip", packed.content)
    command = fetch_command(bucket, site)
    site.proxy.tell(HELD)
    site.lay_out(None)
    with runs.started(site.directory, command=command, env=site.env) as process:
        until(lambda: here(site) is not None and packed.early() <= whole_in(here(site), packed.truth), process)
        second = run_byos(
            None, *command[2:-2], "--store-endpoint-url", minio_store.endpoint_url, directory=site.directory
        )
        assert 64 == second.code, second.output + second.error
        assert "another byos-run is fetching" in second.error
        assert packed.early() <= whole_in(here(site), packed.truth)
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
    assert 0 == site.again(command=command)[0].code
    assert packed.truth == tree_of(site.directory / "here/case")


def test_outputs_of_a_run_that_were_brought_stay(bucket, site, run_byos):
    """Fetching a run's outputs goes on too, files and the part of one that was cut off proved by their CRC-32."""
    command = "for i in $(seq 0 19); do echo row $i > $i.csv; done; head -c 9000000 /dev/urandom > big.dat; echo end > zend.log"
    assert 0 == run_byos(job(bucket, command, publish={"exclude": ["inputs.in"]})).code
    truth = {path: bucket.get(f"out/run/{path}") for path in outputs(bucket)}
    fetch = fetch_command(bucket, site, "out/run/")
    rule = Rule(Stall(600), method="GET", key=r"zend\.log$")
    kept = site.kill_in_fetch(set(truth) - {"zend.log"}, truth, command=fetch, where=lambda: here(site), rules=(rule,))
    (here(site) / "extra").write_bytes(b"")
    (here(site) / "3.csv").write_bytes(b"row 4\n")
    seen = len(site.proxy.seen)
    ran, _ = site.again(command=fetch)

    assert 0 == ran.code, ran.output + ran.error
    assert truth == tree_of(site.directory / "here/case")
    asked = {each.key.partition("/out/run/")[2] for each in site.proxy.seen[seen:] if each.method == "GET"}
    assert {"3.csv", "zend.log"} == asked & kept | asked & {"zend.log"}
