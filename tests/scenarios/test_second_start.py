"""The shipped file, started where another attempt was before: by whom what is there was written, and what is done to it."""

from __future__ import annotations

import os
import signal

import pytest
from tests.faults.proxy import FaultProxy
from tests.faults.rules import Refuse, Rule
from tests.kit import runs
from tests.scenarios.test_whole_run import WRITES, job, outputs

LEASE = {"lease": "2s"}
OWN = "out/run/_byos/"


@pytest.fixture
def killed_untold(bucket, shipped_file, minio_store, run_environ, tmp_path):
    """A run killed when its outputs were acknowledged and no inventory had been written; its job and its directory."""

    def go(**more):
        with FaultProxy(minio_store, Rule(Refuse(503), method="PUT", key="inventory/")) as proxy:
            store = {**LEASE, "endpoint_url": proxy.endpoint_url}
            asked = job(bucket, "echo 1 > one.out; echo 2 > two.out; sleep 600", publish={"settle": "0.2"}, store=store)
            asked.update(more)
            directory = tmp_path / "killed"
            runs.lay_out(directory, file=shipped_file, store=minio_store, job=asked)
            with runs.started(directory, env=run_environ(**runs.PLATFORM)) as process:
                while {"one.out", "two.out"} - set(outputs(bucket)):
                    assert process.poll() is None, process.stdout.read()
                os.killpg(process.pid, signal.SIGKILL)
        assert not bucket.sizes(f"{OWN}inventory/")
        return {**asked, "store": LEASE}, directory

    return go


@pytest.mark.parametrize(
    ("here", "overwrite"), [(True, False), (False, False), (False, True)], ids=["here", "elsewhere", "overwrite"]
)
def test_what_no_inventory_told_of_goes_when_another_command_is_whole(bucket, run_byos, killed_untold, here, overwrite):
    """The objects name the attempt that wrote them; what the user copied there from another run stays."""
    asked, directory = killed_untold()
    foreign = {"Bucket": bucket.name, "Key": "out/run/copied.out", "Body": b"x", "Metadata": {"byos-run": "0" * 32}}
    bucket.client.put_object(**foreign)
    command = ["bash", "-c", "echo 3 > two.out"]
    ran = run_byos(
        {**asked, "command": command, "publish": {"overwrite": overwrite}}, platform=True,
        directory=directory if here else None,
    )  # fmt: skip

    assert 0 == ran.code, ran.output
    assert {"two.out": 2, "copied.out": 1} == outputs(bucket)
    assert b"3\n" == bucket.get("out/run/two.out")


def test_what_no_inventory_told_of_goes_two_attempts_later(bucket, run_byos, killed_untold):
    """The heartbeat tells whom it follows, also if the attempt between was refused."""
    asked, _ = killed_untold()
    missing = {**asked, "command": ["bash", "-c", "exit 3"], "input": bucket.url("in/case.zip")}
    with_limit = {**missing, "fetch": {"max_bytes": 1}}
    assert 65 == (refused := run_byos(with_limit, platform=True)).code, refused.output
    ran = run_byos({**asked, "command": ["bash", "-c", "echo 3 > three.out"]}, platform=True)

    assert 0 == ran.code, ran.output
    assert {"three.out": 2} == outputs(bucket)


def test_the_real_runs_certificate_outlives_that_of_nothing_to_do(bucket, run_byos):
    """It is copied to attempts/; each later start that has nothing to do has a certificate of its own."""
    asked = job(bucket, WRITES)
    assert 0 == run_byos(asked, platform=True).code
    first = bucket.get(f"{OWN}purge.json")
    for attempt in (2, 3):
        ran = run_byos(asked, platform=True)
        assert 0 == ran.code, ran.output
        assert attempt == bucket.json(f"{OWN}purge.json")["attempt"]
    ran = run_byos({**asked, "command": ["bash", "-c", "echo 1 > one.out"]}, platform=True)

    assert 0 == ran.code, ran.output
    assert first == bucket.get(f"{OWN}attempts/1/purge.json")
    assert 1 == bucket.json(f"{OWN}attempts/1/manifest.json")["attempt"]
    assert [2, 3] == [bucket.json(f"{OWN}attempts/{number}/purge.json")["attempt"] for number in (2, 3)]
    assert 4 == bucket.json(f"{OWN}purge.json")["attempt"]


@pytest.mark.parametrize("harm", ["gone", "other"])
@pytest.mark.parametrize("listing", [True, False], ids=["listed", "unlisted"])
def test_an_equal_run_whose_outputs_are_gone_is_done_again(bucket, run_byos, minio_store, harm, listing):
    """One line says which, and the prefix is whole again."""
    asked = job(bucket, WRITES)
    assert 0 == run_byos(asked, platform=True).code
    if harm == "gone":
        bucket.client.delete_object(Bucket=bucket.name, Key="out/run/sub/big.bin")
    else:
        bucket.put("out/run/sub/big.bin", b"not this")
    rules = () if listing else (Rule(Refuse(403, "AccessDenied"), method="GET", query="list-type"),)
    with FaultProxy(minio_store, *rules) as proxy:
        ran = run_byos({**asked, "store": {"endpoint_url": proxy.endpoint_url}}, platform=True)

    assert 0 == ran.code, ran.output
    assert "1 of its 3 outputs no more as it left them (first: sub/big.bin): it is run again" in ran.output
    assert {"result.dat": 7, "sub/big.bin": 300_000, "inputs.in": 13} == outputs(bucket)
    assert 2 == bucket.json(f"{OWN}manifest.json")["attempt"]
    assert [] == ran.left()


def test_directories_made_for_the_case_go_with_it(bucket, run_byos, tmp_path):
    """Inside and outside the run directory, as far as they are empty; what was there before stays."""
    (tmp_path / "there").mkdir()
    ran = run_byos(job(bucket, WRITES, scratch="work/deep/case"))
    away = run_byos({**job(bucket, WRITES, scratch=str(tmp_path / "there" / "new" / "base")), "again": True})

    assert (0, 0) == (ran.code, away.code), ran.output + away.output
    assert ["byos-run", "byos.toml", "config"] == ran.left()
    assert [] == sorted((tmp_path / "there").iterdir())


def test_directories_made_for_the_case_of_a_killed_run_go_too(bucket, run_byos, killed_untold):
    """The journal tells the next start which they are."""
    asked, directory = killed_untold(scratch="work/deep/case")
    ran = run_byos({**asked, "command": ["bash", "-c", "echo 3 > two.out"]}, directory=directory)

    assert 0 == ran.code, ran.output
    assert ["byos-run", "byos.toml", "config"] == ran.left()


def test_a_run_that_purges_nothing_says_so(bucket, run_byos):
    """The last line and the line of the purge are true."""
    ran = run_byos(job(bucket, WRITES, purge={"when": "never"}), platform=True)

    assert 0 == ran.code, ran.output
    assert "purged as asked" not in ran.output
    assert 'nothing was purged, as purge.when is "never"' in ran.output.splitlines()[-1]
    assert "case/result.dat" in ran.left()


@pytest.fixture
def unpublished(bucket, run_byos, minio_store):
    """A run that ended 74; its job, for a store that is well again, and its directory."""
    with FaultProxy(minio_store, Rule(Refuse(403, "AccessDenied"), method="PUT", key="late.out")) as proxy:
        asked = job(bucket, "echo ran >> runs; echo 1 > late.out", store={"endpoint_url": proxy.endpoint_url})
        ran = run_byos(asked, platform=True)
    assert 74 == ran.code, ran.output
    return {**asked, "store": {}}, ran.directory


def test_outputs_of_one_run_never_go_to_anothers_prefix(bucket, run_byos, unpublished):
    """64 that names both; nothing is deleted, and the old output still takes them."""
    asked, directory = unpublished
    other = run_byos({**asked, "output": bucket.url("out/other")}, platform=True, directory=directory)
    assert 64 == other.code, other.output
    assert bucket.url("out/other/") in other.output
    assert bucket.url("out/run/") in other.output
    assert "case/late.out" in other.left()
    assert not bucket.sizes("out/other/")
    ran = run_byos(asked, platform=True, directory=directory)

    assert 0 == ran.code, ran.output
    assert {"late.out": 2, "runs": 4} == outputs(bucket)


@pytest.mark.parametrize("again", [False, True])
def test_a_start_that_only_publishes_says_that_it_is_not_the_new_run(bucket, run_byos, unpublished, again):
    """Another command in the job file: the outputs that are here leave first, under the record of the run that made them."""
    asked, directory = unpublished
    new = {**asked, "command": ["bash", "-c", "echo 2 > new.out"], "again": again}
    ran = run_byos(new, platform=True, directory=directory)

    assert 0 == ran.code, ran.output
    assert "this start publishes what that left; start again for the other" in ran.output
    assert {"late.out": 2, "runs": 4} == outputs(bucket)
    ran = run_byos(new, platform=True)
    assert 0 == ran.code, ran.output
    assert {"new.out": 2} == outputs(bucket)


def test_what_is_purged_stays_in_the_bucket_whatever_the_journal_has_lost(bucket, run_byos):
    """74: three of four outputs are acknowledged and purged. The lines that said so are gone."""
    command = "for n in 1 2 3; do echo $n > $n.out; done; echo late > late.out"
    with FaultProxy(bucket.store, Rule(Refuse(503), method="PUT", key=r"late\.out")) as proxy:
        asked = job(bucket, command, store={"endpoint_url": proxy.endpoint_url, "patience": "1s"})
        ran = run_byos(asked, platform=True)
        assert 74 == ran.code, ran.output
        assert not (ran.directory / "case" / "1.out").exists()
        journal = ran.directory / ".byos" / "journal.jsonl"
        told = journal.read_bytes().splitlines(keepends=True)
        journal.write_bytes(b"".join(line for line in told if b'"t":"ack"' not in line))
        proxy.tell()
        ran = run_byos(asked, platform=True, directory=ran.directory)

    assert (0, []) == (ran.code, ran.left()), ran.output
    assert {"1.out": 2, "2.out": 2, "3.out": 2, "late.out": 5} == outputs(bucket)
    manifest = bucket.json(f"{OWN}manifest.json")
    assert ("complete", {*outputs(bucket)}) == (manifest["status"], {item["path"] for item in manifest["outputs"]})
