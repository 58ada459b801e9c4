"""Outputs that leave compressed or bundled: what any tool reads from the bucket is what the solver wrote."""

from __future__ import annotations

import base64
import io
import json
import os
import struct
import tarfile
import zlib

import zstandard
from tests.kit import runs
from tests.scenarios.test_leaving import until
from tests.scenarios.test_whole_run import job, outputs

MANY = (
    "mkdir -p rows; for i in $(seq 300); do echo row $i > rows/$i.csv; done; seq 200000 > field.dat; echo end > end.log"
)


def crc_of(content):
    return base64.b64encode(zlib.crc32(content).to_bytes(4, "big")).decode()


def unpacked(content):
    return zstandard.ZstdDecompressor().stream_reader(io.BytesIO(content), read_across_frames=True).read()


def entries(bucket):
    return {item["path"]: item for item in bucket.json("out/run/_byos/manifest.json")["outputs"]}


def contents(directory):
    """By path below it, in bytes: names may be no text."""
    found = {}
    for top, _, names in os.walk(os.fsencode(directory)):
        for name in names:
            with open(os.path.join(top, name), "rb") as file:
                found[os.path.relpath(os.path.join(top, name), os.fsencode(directory))] = file.read()
    return found


def bundle_keys(bucket):
    return [key for key in bucket.sizes("out/run/") if key.startswith("out/run/_byos/bundles/")]


def test_compressed_outputs_are_plain_zstd(run_byos, bucket):
    """`name.zst`, readable by any zstd; the manifest has size and checksum of the object and of the file."""
    ran = run_byos(job(bucket, MANY, publish={"compress": ["*.dat", "none*"], "exclude": ["rows/**"]}), platform=True)

    assert 0 == ran.code, ran.output
    whole = b"".join(b"%d\n" % number for number in range(1, 200_001))
    assert {"field.dat.zst", "end.log"} == set(outputs(bucket))
    item, packed = entries(bucket)["field.dat"], bucket.get("out/run/field.dat.zst")
    assert whole == unpacked(packed)
    assert ("zstd", len(whole), crc_of(whole)) == (item["stored_as"], item["original_bytes"], item["original_crc32"])
    assert (len(packed), crc_of(packed)) == (item["bytes"], item["crc32"])
    assert [] == ran.left()


def test_a_bundle_is_a_tar_whose_members_can_be_read_alone(run_byos, bucket):
    """One object for hundreds of files; the manifest says which range of it is which file."""
    ran = run_byos(job(bucket, MANY, publish={"bundle": ["rows/*"]}), platform=True)

    assert 0 == ran.code, ran.output
    assert {"field.dat", "end.log"} == set(outputs(bucket))
    (key,) = bundle_keys(bucket)
    content = bucket.get(key)
    with tarfile.open(fileobj=io.BytesIO(unpacked(content))) as made:
        found = {member.name: made.extractfile(member).read() for member in made}
    assert {f"rows/{i}.csv": b"row %d\n" % i for i in range(1, 301)} == found
    item = entries(bucket)["rows/17.csv"]
    alone = zstandard.ZstdDecompressor().decompress(content[item["offset"] : item["offset"] + item["length"]])
    member = alone[item["skip"] : item["skip"] + item["bytes"]]
    assert (b"row 17\n", crc_of(b"row 17\n"), key) == (member, item["crc32"], item["key"])
    assert [] == ran.left()


def test_a_bundle_alone_says_where_its_members_are(run_byos, bucket):
    """With no manifest at hand: the index at its end, which a suffix range brings, leads to any member."""
    assert 0 == run_byos(job(bucket, MANY, publish={"bundle": ["rows/*"]}), platform=True).code
    content = bucket.get(bundle_keys(bucket)[0])

    length, mark = struct.unpack("<Q8s", content[-16:])
    index = json.loads(zstandard.ZstdDecompressor().decompress(content[-16 - length : -16]))

    assert b"byos-idx" == mark
    place = {item["path"]: item for item in index}["rows/17.csv"]
    alone = zstandard.ZstdDecompressor().decompress(content[place["offset"] : place["offset"] + place["packed_bytes"]])
    assert b"row 17\n" == alone[place["skip_bytes"] : place["skip_bytes"] + place["size_bytes"]]
    assert 300 == len(index)


def test_both_leave_while_the_solver_runs(bucket, tmp_path, shipped_file, minio_store, run_environ):
    """What changed after its bundle had left goes into a later one; the manifest speaks of the last state alone."""
    go, made = tmp_path / "go", tmp_path / "made"
    command = (  # the rows appear at once: a slow machine must not see half of them as settled
        f"mkdir {made}; for i in $(seq 120); do echo a$i > {made}/$i.csv; done; mv {made} rows; seq 1000 > early.dat;"
        f" until [ -e {go} ]; do sleep 0.05; done; echo later > rows/7.csv; echo x >> early.dat"
    )
    settings = {"settle": "0.2s", "bundle": ["rows/*"], "compress": ["*.dat"]}
    runs.lay_out(tmp_path / "run", file=shipped_file, store=minio_store, job=job(bucket, command, publish=settings))
    with runs.started(tmp_path / "run", env=run_environ(**runs.PLATFORM)) as process:
        until(lambda: bundle_keys(bucket) and "early.dat.zst" in outputs(bucket))
        go.touch()
        said, _ = process.communicate(timeout=240)

    assert 0 == process.returncode, said
    listed = entries(bucket)
    assert (
        len({item["key"] for path, item in listed.items() if path.startswith("rows/")}) == 2 == len(bundle_keys(bucket))
    )
    item = listed["rows/7.csv"]
    alone = bucket.get(item["key"])[item["offset"] : item["offset"] + item["length"]]
    assert b"later\n" == zstandard.ZstdDecompressor().decompress(alone)[item["skip"] : item["skip"] + item["bytes"]]
    assert unpacked(bucket.get("out/run/early.dat.zst")).endswith(b"1000\nx\n")


def test_a_sparse_file_costs_its_data(run_byos, bucket):
    """Five gibibytes with a few bytes of data are an object of kilobytes."""
    ran = run_byos(job(bucket, "truncate -s 5G hollow.h5; echo data >> hollow.h5", publish={"compress": ["*.h5"]}))

    assert 0 == ran.code, ran.output
    item = entries(bucket)["hollow.h5"]
    assert (5 << 30) + 5 == item["original_bytes"]
    assert item["bytes"] < 1 << 20


def test_holes_that_travel_are_said_once(run_byos, bucket):
    """Not compressed, a file of holes is sent whole; one line says what would help, however many there are."""
    hollow = "truncate -s 80M a.h5; truncate -s 80M b.h5; head -c 70000000 /dev/zero > full.h5; truncate -s 80M c.dat"
    ran = run_byos(job(bucket, hollow, publish={"compress": ["*.dat"]}))

    assert 0 == ran.code, ran.output
    assert 1 == ran.output.count("is mostly holes, and they travel as zeros")
    assert "full.h5 is mostly" not in ran.output
    assert {"a.h5": 83_886_080, "b.h5": 83_886_080} == {
        path: size for path, size in outputs(bucket).items() if path in ("a.h5", "b.h5")
    }


def test_fetch_brings_the_outputs_of_a_run_as_they_were(run_byos, bucket):
    """From bundles, from zstd, with their holes and times; a damaged one is told, and then there is no directory."""
    hollow = f"truncate -s 64M hollow.h5; echo data >> hollow.h5; {MANY}"
    settings = {"compress": ["*.h5", "*.dat"], "bundle": ["rows/*"]}
    ran = run_byos(job(bucket, hollow, publish=settings, purge={"when": "never"}))
    assert 0 == ran.code, ran.output
    prefix, endpoint = bucket.url("out/run/"), ("--store-endpoint-url", bucket.store.endpoint_url)
    fetched = run_byos(None, "fetch", prefix, "back", *endpoint)

    assert 0 == fetched.code, fetched.output
    case, back = ran.directory / "case", fetched.directory / "back"
    paths = sorted(path.relative_to(back) for path in back.rglob("*") if path.is_file())
    assert 303 == len(paths)
    for path in paths:
        assert (case / path).read_bytes() == (back / path).read_bytes(), path
        assert abs((case / path).stat().st_mtime - (back / path).stat().st_mtime) < 1e-3
    assert (back / "hollow.h5").stat().st_blocks * 512 < 1 << 20
    (key,) = bundle_keys(bucket)
    damaged = bytearray(bucket.get(key))
    damaged[len(damaged) // 3] ^= 1
    bucket.put(key, bytes(damaged))
    refused = run_byos(None, "fetch", prefix, "again", *endpoint)
    assert 65 == refused.code, refused.output
    assert "rows/" in refused.error
    assert not (refused.directory / "again").exists()


ODD_NAMES = r"""
    n=$(printf 'n%.0s' $(seq 251)); echo 1 > $n.dat; mkdir -p rows U:max; echo 2 > rows/"$n".csv
    echo 3 > U:max/0; echo 4 > p:mean.dat; echo 5 > 'x\y.dat'; echo A > A.dat; echo a > a.dat; : > empty.dat; : > rows/empty.csv
    printf 6 > $'bad\xff.dat'; printf 7 > $'rows/bad\xfe.csv'; printf 8 > $'new\nline.dat'
    head -c 9000000 /dev/urandom > twin1; ln twin1 twin2
    d=$(printf 'd/%.0s' $(seq 150)); mkdir -p $d; echo 9 > $d/deep.dat; echo 10 > $d/deep
"""


def test_odd_names_come_back_as_they_were(run_byos, bucket):
    """Names of 255 bytes and of any bytes, that differ in case alone, with a colon, hard links, no content, 150 levels: as they
    are, compressed and in bundles; verify finds all of it, fetch brings all of it."""
    ran = run_byos(
        job(bucket, ODD_NAMES, publish={"compress": ["*.dat"], "bundle": ["*.csv"]}, purge={"when": "never"})
    )
    assert 0 == ran.code, ran.output
    prefix, endpoint = bucket.url("out/run/"), ("--store-endpoint-url", bucket.store.endpoint_url)
    verified = run_byos(None, "verify", prefix, "--read", *endpoint)
    fetched = run_byos(None, "fetch", prefix, "back", *endpoint)

    assert (0, 0) == (verified.code, fetched.code), verified.output + fetched.error
    case, back = contents(ran.directory / "case"), contents(fetched.directory / "back")
    assert {name: case[name] for name in case if name not in (b"inputs.in", b"mesh/surface.dat")} == back


def test_a_file_that_would_take_the_key_of_a_compressed_one_is_refused(run_byos, bucket):
    """Two files, one key: neither is published, both are named, and they stay."""
    ran = run_byos(job(bucket, "echo 1 > a.dat; echo 2 > a.dat.zst", publish={"compress": ["a.dat"]}))

    assert 74 == ran.code
    unpublished = bucket.json("out/run/_byos/manifest.json")["unpublished"]
    assert ["a.dat", "a.dat.zst"] == sorted(item["path"] for item in unpublished)


def test_what_left_alone_and_is_bundled_later_stands_once(bucket, tmp_path, shipped_file, minio_store, run_environ):
    """Too large for a bundle it left alone; cut short it goes with others, and the first object goes."""
    go = tmp_path / "go"
    command = f"head -c 3000000 /dev/zero > a.csv; until [ -e {go} ]; do sleep 0.05; done; echo short > a.csv"
    settings = {"settle": "0.2s", "bundle": ["*.csv"]}
    runs.lay_out(tmp_path / "run", file=shipped_file, store=minio_store, job=job(bucket, command, publish=settings))
    with runs.started(tmp_path / "run", env=run_environ(**runs.PLATFORM)) as process:
        until(lambda: "a.csv" in outputs(bucket))
        go.touch()
        said, _ = process.communicate(timeout=60)

    assert 0 == process.returncode, said
    assert "bundle" == entries(bucket)["a.csv"]["stored_as"]
    assert "a.csv" not in outputs(bucket)


def test_what_a_later_attempt_resumes_from_is_never_bundled(run_byos, bucket):
    """A bundle waits until it is full; the newest restart must not."""
    settings = {"bundle": ["*.rst", "*.csv"]}
    asked = job(bucket, "echo 1 > a.rst; echo 2 > b.csv; echo 3 > c.csv", publish=settings, resume={"files": ["*.rst"]})
    ran = run_byos(asked, platform=True)

    assert 0 == ran.code, ran.output
    assert {"a.rst": 2} == outputs(bucket)
    assert 1 == len(bundle_keys(bucket))


def test_the_bundles_of_an_earlier_attempt_go_with_it(run_byos, bucket):
    """A run again under another digest: objects of the earlier manifest that it did not write are gone."""
    asked = job(bucket, MANY, publish={"bundle": ["rows/*"]})
    assert 0 == run_byos(asked).code
    before = bundle_keys(bucket)
    assert 0 == run_byos({**asked, "again": True}).code
    assert 1 == len(bundle_keys(bucket))
    assert before != bundle_keys(bucket)
    assert os.path.basename(before[0]).endswith("-0001.tar.zst")
