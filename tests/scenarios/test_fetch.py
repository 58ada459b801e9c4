"""`byos-run fetch`: the stage-in alone."""

from __future__ import annotations

import json

import pytest
import zstandard
from tests.kit import runs
from tests.scenarios.test_leaving import until
from tests.scenarios.test_whole_run import job, zip_bytes


def test_fetch_unpacks_into_a_directory_that_appears_whole(run_byos, bucket, minio_store):
    """A drop-in for download-and-unzip: the tree, one line about it, and config stays."""
    bucket.put("x/case.zip", zip_bytes({"a/one.txt": b"1" * 5000, "two.txt": b"2"}))
    ran = run_byos(
        None, "fetch", bucket.url("x/case.zip"), "here/case", "--store-endpoint-url", minio_store.endpoint_url
    )

    assert ran.code == 0, ran.output + ran.error
    assert ran.left() == [
        "byos-run",
        "config",
        "here/",
        "here/case/",
        "here/case/a/",
        "here/case/a/one.txt",
        "here/case/two.txt",
    ]
    assert "fetched case.zip: 2 files, 5 kB" in ran.output


def test_fetch_leaves_nothing_of_a_bad_archive(run_byos, bucket, minio_store):
    """65, and no directory that looks complete."""
    bucket.put("x/case.zip", zip_bytes({"ok.txt": b"x", "../bad": b"x"}))
    ran = run_byos(None, "fetch", bucket.url("x/case.zip"), "case", "--store-endpoint-url", minio_store.endpoint_url)

    assert ran.code == 65, ran.output + ran.error
    assert "'../bad'" in ran.error
    assert ran.left() == ["byos-run", "config"]


def test_fetch_names_what_is_wrong_with_its_command_line(run_byos):
    """64: a directory that is not empty, a flag that it does not use, a word that is no URL."""
    assert run_byos(None, "fetch", "case.zip", "case").code == 64
    assert run_byos(None, "fetch", "s3://bucket/x.zip", ".").code == 64
    ran = run_byos(None, "fetch", "s3://bucket/x.zip", "case", "--solver-cores", "8")

    assert ran.code == 64
    assert "--solver-cores" in ran.error


@pytest.fixture
def fetch(run_byos, bucket, minio_store):
    """fetch("out/run/") → (what came of it, path → content of the directory that it made)."""

    def go(place, *flags):
        ran = run_byos(
            None, "fetch", bucket.url(place), "here", *flags, "--store-endpoint-url", minio_store.endpoint_url
        )
        here = ran.directory / "here"
        files = (path for path in here.rglob("*") if path.is_file())
        return ran, {str(path.relative_to(here)): path.read_bytes() for path in files}

    return go


LEFT = {f"rows/{number}.csv": b"row %d\n" % number for number in range(60)}
LEFT |= {"field.dat": b"0123456789" * 600_000, "sub/deep.dat": b"x" * 5, "sub/zero.dat": b"", "end.log": b"end\n"}
WRITES_LEFT = (
    "mkdir -p rows sub; for i in $(seq 0 59); do echo row $i > rows/$i.csv; done;"
    " yes 0123456789 | tr -d '\\n' | head -c 6000000 > field.dat; printf xxxxx > sub/deep.dat; : > sub/zero.dat;"
    " echo end > end.log"
)
PACKS = {"compress": ["*.dat"], "bundle": ["rows/*"], "exclude": ["inputs.in"]}


def test_fetch_brings_back_what_a_run_compressed_and_bundled(run_byos, bucket, fetch):
    """The tree that the solver left, names and times included; so too below it, and of one compressed object."""
    assert 0 == run_byos(job(bucket, WRITES_LEFT, publish=PACKS)).code
    ran, found = fetch("out/run/")

    assert (0, LEFT) == (ran.code, found), ran.output + ran.error
    assert "fetched the outputs of a run (complete): 64 files" in ran.output
    listed = {item["path"]: item["mtime"] for item in bucket.json("out/run/_byos/manifest.json")["outputs"]}
    assert abs(listed["rows/7.csv"] - (ran.directory / "here/rows/7.csv").stat().st_mtime) < 1e-3
    assert {"deep.dat": b"x" * 5, "zero.dat": b""} == fetch("out/run/sub/")[1]
    assert {"7.csv": b"row 7\n"} == {"7.csv": fetch("out/run/rows/")[1]["7.csv"]}
    assert {"field.dat": LEFT["field.dat"]} == fetch("out/run/field.dat.zst")[1]


def test_fetch_leaves_nothing_of_outputs_that_are_not_as_recorded(run_byos, bucket, fetch):
    """A compressed object replaced, a bundle cut off, an object gone: 65 or 66, named, and no directory."""
    assert 0 == run_byos(job(bucket, WRITES_LEFT, publish=PACKS)).code
    whole = bucket.get("out/run/field.dat.zst")
    bucket.put("out/run/field.dat.zst", zstandard.compress(b"another" * 1000))
    ran, found = fetch("out/run/")
    assert (65, {}, False) == (ran.code, found, (ran.directory / "here").exists())
    assert "'field.dat' is not what the run recorded" in ran.error

    bucket.put("out/run/field.dat.zst", whole)
    (key,) = (key for key in bucket.sizes("out/run/") if "_byos/bundles/" in key)
    bundle = bucket.get(key)
    bucket.put(key, bundle[:-1])
    assert 65 == fetch("out/run/")[0].code
    bucket.client.delete_object(Bucket=bucket.name, Key=key)
    assert 66 == fetch("out/run/")[0].code
    bucket.put(key, bundle)
    assert LEFT == fetch("out/run/")[1]


@pytest.mark.parametrize("evil", ["../out.csv", "/etc/out.csv", "a/../../out.csv"])
def test_fetch_believes_no_name_that_leads_elsewhere(run_byos, bucket, fetch, evil):
    """A manifest is what somebody wrote into a bucket: 65, as for a member of an archive."""
    assert 0 == run_byos(job(bucket, WRITES_LEFT, publish=PACKS)).code
    manifest = bucket.json("out/run/_byos/manifest.json")
    next(item for item in manifest["outputs"] if item["path"] == "rows/7.csv")["member"] = evil
    bucket.put("out/run/_byos/manifest.json", json.dumps(manifest).encode())
    ran, found = fetch("out/run/")

    assert (65, {}) == (ran.code, found), ran.output
    assert "rows/7.csv" in ran.error


def test_fetch_writes_no_more_than_was_recorded(run_byos, bucket, fetch):
    """A small object that unpacks to more than the manifest says is stopped there; a limit that is asked for holds."""
    assert 0 == run_byos(job(bucket, WRITES_LEFT, publish=PACKS)).code
    ran, _ = fetch("out/run/", "--fetch-max-bytes", "1MB")
    assert 65 == ran.code
    assert "fetch.max_bytes" in ran.error
    manifest, bomb = bucket.json("out/run/_byos/manifest.json"), zstandard.compress(bytes(1 << 30))
    next(item for item in manifest["outputs"] if item["path"] == "field.dat")["bytes"] = len(bomb)
    bucket.put("out/run/_byos/manifest.json", json.dumps(manifest).encode())
    bucket.put("out/run/field.dat.zst", bomb)
    ran, found = fetch("out/run/")

    assert (65, {}) == (ran.code, found)
    assert "field.dat" in ran.error


def test_holes_travel_both_ways(run_byos, bucket, fetch):
    """Five gibibytes with a few bytes of data: kilobytes in the bucket, and kilobytes on the disk they are fetched to."""
    writes = "truncate -s 5G hollow.h5; printf data | dd of=hollow.h5 bs=1 seek=3000000000 conv=notrunc status=none"
    assert 0 == run_byos(job(bucket, writes, publish={"compress": ["*.h5"], "exclude": ["inputs.in"]})).code
    place = bucket.url("out/run/")
    ran = run_byos(None, "fetch", place, "here", "--store-endpoint-url", bucket.store.endpoint_url)

    assert 0 == ran.code, ran.output + ran.error
    status = (ran.directory / "here/hollow.h5").stat()
    assert 5 << 30 == status.st_size
    assert status.st_blocks * 512 < 8 << 20
    with open(ran.directory / "here/hollow.h5", "rb") as file:
        file.seek(3_000_000_000)
        assert b"data\0" == file.read(5)


def test_fetch_of_a_run_that_died_brings_what_it_had_acknowledged(
    bucket, tmp_path, shipped_file, minio_store, run_environ, fetch
):
    """No manifest: the inventory says what is whole, and the fetch says so."""
    command = f"{WRITES_LEFT}; exec sleep 600"
    wanted = {**PACKS, "settle": "0.2s"}
    runs.lay_out(tmp_path / "run", file=shipped_file, store=minio_store, job=job(bucket, command, publish=wanted))
    with runs.started(tmp_path / "run", env=run_environ(**runs.PLATFORM)) as process:
        until(lambda: len(told_in(bucket)) == len(LEFT))
        process.kill()
        process.communicate(timeout=240)
    ran, found = fetch("out/run/")

    assert (0, LEFT) == (ran.code, found), ran.output + ran.error
    assert "has left no manifest" in ran.output + ran.error


def told_in(bucket):
    """Paths that the inventory tells."""
    keys = [key for key in bucket.sizes("out/run/") if "_byos/inventory/" in key]
    told = (json.loads(zstandard.ZstdDecompressor().stream_reader(bucket.get(key)).read()) for key in keys)
    return {item["path"] for document in told for item in document["outputs"]}


def test_above_several_runs_objects_come_as_they_are_and_that_is_said(run_byos, bucket, fetch):
    """One line says how many runs there are, and whose prefix to fetch instead."""
    for name in ("a", "b"):
        asked = job(bucket, "echo 1 > x.out", publish={"compress": ["*.out"]})
        assert 0 == run_byos({**asked, "output": bucket.url(f"doe/{name}")}, platform=True).code
    ran, found = fetch("doe/")

    assert 0 == ran.code, ran.output
    assert "holds outputs of 2 runs: each object comes as it is" in ran.output
    assert f"fetch its own prefix, {bucket.url('doe/a/')}" in ran.output
    assert {"a/x.out.zst", "b/x.out.zst"} <= set(found)
