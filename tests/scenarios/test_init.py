"""`byos-run init`: from a listing to a kit that runs."""

from __future__ import annotations

import csv
import json
import os

import pytest
from tests.scenarios.test_whole_run import zip_bytes


@pytest.fixture
def init(run_byos, bucket):
    """byos-run init over the bucket's in/ and out/; what it said, and the kit's directory."""
    for name in ("b.zip", "a.zip", "deep/c.tar.gz", "notes.txt"):
        bucket.put(f"in/{name}", zip_bytes({"inputs.in": b"angle ${angle}\n"}))

    def go(*words, source="in/", platform=False):
        place = (bucket.url(source), bucket.url("out/"), "--store-endpoint-url", bucket.store.endpoint_url)
        ran = run_byos(None, "init", *place, *words, platform=platform)
        return ran, ran.directory / "byos-doe"

    return go


def rows(kit):
    with open(kit / "inputs.csv", newline="") as file:
        return list(csv.DictReader(file))


def test_a_row_for_each_archive_in_a_stable_order(init, bucket):
    """Outputs named after their inputs; what is no archive is left out and said."""
    ran, kit = init()

    assert 0 == ran.code, ran.error
    assert [
        {"s3_input": bucket.url(f"in/{name}"), "s3_output": bucket.url(f"out/{stem}/")}
        for name, stem in (("a.zip", "a"), ("b.zip", "b"), ("deep/c.tar.gz", "deep/c"))
    ] == rows(kit)
    assert {"README.txt", "byos-run", "byos.toml.template", "config", "inputs.csv", "policy.json"} == set(
        os.listdir(kit)
    )
    assert "notes.txt" in ran.output
    assert 0o600 == (kit / "config").stat().st_mode & 0o777
    assert "secret" not in (kit / "config").read_text().replace("aws_secret_access_key =", "")
    statements = json.loads((kit / "policy.json").read_text())["Statement"]
    assert any("s3:GetObject" in item["Action"] for item in statements)


def test_parameters_are_combined_and_reach_the_template(init):
    """All combinations, the last parameter fastest; each output has a place of its own."""
    ran, kit = init("--columns", "angle=1,2", "--columns=tilt=0,x y", source="in/a.zip")

    assert 0 == ran.code, ran.error
    found = rows(kit)
    assert [("1", "0"), ("1", "x y"), ("2", "0"), ("2", "x y")] == [(row["angle"], row["tilt"]) for row in found]
    assert found[1]["s3_output"].endswith("/out/a/angle-1_tilt-x_y/")
    assert "angle = '${angle}'\ntilt  = '${tilt}'\n" in (kit / "byos.toml.template").read_text()


def test_a_kit_runs_as_it_is(init, run_byos, bucket):
    """With the keys of a profile in it, and the solver named, its first row runs under --table."""
    profile = (
        f"[doe]\naws_access_key_id = {bucket.store.access_key}\naws_secret_access_key = {bucket.store.secret_key}\n"
    )
    command = ("--command", "sh -c 'cat inputs.in > seen.dat'", "--cores", "1")
    bucket.put("in/a.zip", zip_bytes({"inputs.in": b"angle ${angle}\n"}))
    words = ("--columns", "angle=7", "--keys-from-profile", "doe", *command)
    place = (bucket.url("in/a.zip"), bucket.url("out/"), "--store-endpoint-url", bucket.store.endpoint_url)
    ran = run_byos(None, "init", *place, *words, config=profile)
    assert 0 == ran.code, ran.error

    kit = ran.directory / "byos-doe"
    row = run_byos(None, "--table", "inputs.csv", "--row", "1", directory=kit, config=(kit / "config").read_text())
    assert 0 == row.code, row.output
    assert b"angle 7\n" == bucket.get("out/a/angle-7/seen.dat")
    assert_what_the_kit_says_works(kit, run_byos)


def assert_what_the_kit_says_works(kit, run_byos):
    """In the kit's directory the commands of README.txt need no more flags: they know the store. One that lacks the row says so."""
    told = (kit / "README.txt").read_text()
    config = (kit / "config").read_text()
    commands = [line.partition("sh byos-run ")[2].split() for line in told.splitlines() if ":  sh byos-run " in line]

    assert ["check", "rehearse", "status", "verify", "report"] == [words[0] for words in commands]
    for words in commands:
        if words[0] in ("status", "verify", "report"):
            ran = run_byos(None, *(word for word in words if word != "--watch"), directory=kit, config=config)
            assert 0 == ran.code, ran.error
    check = run_byos(None, *commands[0], "--again", directory=kit, config=config)
    assert "input  " in check.output
    without = run_byos(None, "check", directory=kit, config=config)
    assert 64 == without.code
    assert "hint: the job file here is a template, which a row fills: --table inputs.csv --row 1" in without.error


def test_the_store_of_a_profile_stands_in_the_kit(run_byos, bucket):
    """The nodes do not have this machine's AWS profiles: the endpoint and region that they name are written down."""
    bucket.put("in/a.zip", zip_bytes({"inputs.in": b"angle"}))
    store = bucket.store
    profile = f"[default]\naws_access_key_id = {store.access_key}\naws_secret_access_key = {store.secret_key}\n"
    profile += f"endpoint_url = {store.endpoint_url}\nregion = {store.region}\n"
    ran = run_byos(None, "init", bucket.url("in/"), bucket.url("out/"), config=profile)

    assert 0 == ran.code, ran.error
    template = (ran.directory / "byos-doe" / "byos.toml.template").read_text()
    assert f'[store]\nendpoint_url = "{store.endpoint_url}"\nregion = "{store.region}"\n' in template


@pytest.mark.parametrize(("scheduler", "name"), [
    ("slurm", "submit.sbatch"), ("pbs", "submit.pbs"), ("aws-batch", "submit.json"), ("kubernetes", "job.yaml"),
])  # fmt: skip
def test_a_scheduler_is_given_its_file(init, scheduler, name):
    """As many tasks as rows, each taking the row of its index."""
    ran, kit = init("--for", scheduler)

    assert 0 == ran.code, ran.error
    text = (kit / name).read_text()
    assert "3" in text
    assert "inputs.csv" in text


def test_every_mistake_is_told_and_nothing_is_written(init, tmp_path):
    """Columns, scheduler, cores, all at once; a directory that is there is never touched."""
    ran, kit = init("--columns", "angle", "--for", "lsf", "--cores", "none", "-o", "taken", "--columns", "s3_input=1")

    assert 64 == ran.code
    for named in ("--columns", "--for", "--cores", "s3_input"):
        assert named in ran.error
    assert not kit.exists()
    assert 64 == init("-o", ".")[0].code
