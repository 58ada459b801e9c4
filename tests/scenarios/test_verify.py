"""`byos-run verify`: manifests against the bucket, from outside."""

from __future__ import annotations

import json
import struct
import tarfile

import pytest
import zstandard
from tests.faults.proxy import FaultProxy
from tests.faults.rules import Corrupt, Refuse, Rule
from tests.kit import doe, runs
from tests.scenarios.test_whole_run import WRITES, job

from byos_run.commands.verify import verify_runs
from byos_run.model import Place
from byos_run.node.stop import Stop

OUTPUTS = {"result.dat": b"result\n", "sub/big.bin": bytes(range(256)) * 9000, "empty": b"", "a b%20+#&?.h5": b"odd"}


@pytest.fixture
def verify(run_byos, bucket):
    """verify("out/", "--read") → what came of it, without a job file."""

    def go(prefix="out/run/", *flags, store=None, **more):
        endpoint = (store or bucket.store).endpoint_url
        return run_byos(None, "verify", bucket.url(prefix), *flags, "--store-endpoint-url", endpoint, **more)

    return go


def findings(ran):
    """(kind, path) of the only run's findings."""
    (run,) = json.loads(ran.output)["runs"]
    return [(problem["kind"], problem["path"]) for problem in run["problems"]]


def test_a_run_is_whole_until_something_in_its_bucket_changes(run_byos, verify, bucket):
    """0 after a run; 74 and a line for each object that is gone, was replaced, or does not belong."""
    assert 0 == run_byos(job(bucket, WRITES)).code
    ran = verify()
    assert (0, "") == (ran.code, ran.error)
    assert "whole: 3 outputs, 300 kB, by the checksums that the store keeps" in ran.output

    bucket.client.delete_object(Bucket=bucket.name, Key="out/run/result.dat")
    bucket.put("out/run/sub/big.bin", b"1" * 300_000)
    bucket.put("out/run/inputs.in", b"longer than it was")
    bucket.put("out/run/stray", b"x")
    ran = verify("out/run", "--json")

    assert 74 == ran.code, ran.error
    assert [
        ("checksum", "sub/big.bin"), ("extra", "stray"), ("missing", "result.dat"), ("size", "inputs.in"),
    ] == findings(ran)  # fmt: skip
    ran = verify()
    assert 74 == ran.code
    assert "out/run/: not whole: 4 findings in 3 outputs" in ran.output
    assert "  missing     result.dat" in ran.output


def test_an_object_that_does_not_belong_may_be_allowed(verify, bucket):
    """--allow-extra; what lies in _byos/rundir/ is an output like any other. A certificate that is missing is said."""
    doe.ended(bucket, "out/run/", {"a": b"1"})
    bucket.put("out/run/_byos/rundir/b", b"2")
    bucket.put("out/run/_byos/solver.log", b"3")

    assert [("extra", "_byos/rundir/b")] == findings(verify("out/run/", "--json"))
    bucket.client.delete_object(Bucket=bucket.name, Key="out/run/_byos/purge.json")
    ran = verify("out/run/", "--allow-extra")
    assert (0, True) == (ran.code, "there is no purge certificate" in ran.output)


def test_a_flipped_byte_behind_a_true_checksum_is_seen_by_reading(verify, bucket):
    """The store's word is true, its bytes are not: only --read notices."""
    doe.ended(bucket, "out/run/", OUTPUTS)
    with FaultProxy(bucket.store, Rule(Corrupt(at_byte=1000), method="GET", key="big.bin")) as proxy:
        store = bucket.store._replace(endpoint_url=proxy.endpoint_url)
        assert 0 == verify("out/run/", store=store).code
        ran = verify("out/run/", "--read", "--json", store=store)

    assert 74 == ran.code, ran.error
    assert [("checksum", "sub/big.bin")] == findings(ran)
    assert 0 == verify("out/run/", "--read").code


def test_an_object_that_the_store_cannot_read_is_a_finding(verify, bucket):
    """500 again and again for one object does not end the whole."""
    doe.ended(bucket, "out/run/", OUTPUTS)
    with FaultProxy(bucket.store, Rule(Refuse(500, "InternalError"), method="GET", key="result.dat")) as proxy:
        store = bucket.store._replace(endpoint_url=proxy.endpoint_url)
        ran = verify("out/run/", "--read", "--json", "--store-patience", "1s", store=store)

    assert 74 == ran.code, ran.error
    assert [("unreadable", "result.dat")] == findings(ran)


def test_what_a_run_could_not_publish_is_a_finding(verify, bucket):
    """Partial, interrupted: not whole. The solver's own failure: whole, and said."""
    lost = [{"path": "big.h5", "reason": "it keeps changing"}]
    doe.ended(bucket, "doe/partial/", {"a": b"1"}, status="partial", exit_code=74, unpublished=lost)
    doe.ended(bucket, "doe/cut/", {"a": b"1"}, status="interrupted", exit_code=75)
    doe.ended(bucket, "doe/failed/", {"a": b"1"}, status="solver-failed", exit_code=42)
    doe.write_status(bucket, "doe/deeper/running/")
    ran = verify("doe/")

    assert 74 == ran.code, ran.error
    assert (
        "1 of 4 runs are whole: 1 output, 1 B, by the checksums that the store keeps; the solver failed in 1"
        in ran.output
    )
    assert "  unpublished big.h5: it keeps changing" in ran.output
    assert "the manifest says 'interrupted'" in ran.output
    assert "doe/deeper/running/: not whole" in ran.output
    assert "its last heartbeat says 'solve'" in ran.output
    assert "doe/failed/:" not in ran.output
    ran = verify("doe/failed/_byos/manifest.json")
    assert (0, "whole: 1 output, 1 B" in ran.output, "the solver failed with 42" in ran.output) == (
        ran.code,
        True,
        True,
    )


def test_names_that_lead_elsewhere_are_refused(verify, bucket):
    """A manifest comes from a bucket: its names pass the check of an archive's members, and are shown escaped."""
    manifest = doe.ended(bucket, "out/run/", {"good": b"1"})
    (good,) = manifest["outputs"]
    bad = ["../../etc/passwd", "/etc/passwd", "a/../b", "a//b", "C:/x", "..\\x", "x" * 300, "_byos/../../y", "good"]
    entries = [{**good, "path": f"{path}\x1b[2J", "key": f"out/run/{path}"} for path in bad]
    entries.append({**good, "path": "elsewhere", "key": "out/other/x"})
    bucket.put("out/run/_byos/manifest.json", json.dumps({**manifest, "outputs": [good, *entries]}))
    ran = verify("out/run/", "--fetch", "here/d")

    assert 74 == ran.code, ran.output
    assert 10 == ran.output.count("  refused ")
    assert "\x1b" not in ran.output + ran.error
    assert ["byos-run", "config", "here/", "here/d/", "here/d/good"] == ran.left()


def test_a_broken_manifest_is_not_whole(verify, bucket):
    """74 and one sentence for each, never a traceback."""
    documents = [b"", b"[]", b"{}", b"\xff", b'{"outputs": 5}', b'{"outputs": [5, {"key": 7}]}', b"[" * 100_000]
    for number, document in enumerate(documents):
        bucket.put(f"out/{number}/_byos/manifest.json", document)
    ran = verify("out/")

    assert (74, "") == (ran.code, ran.error)
    assert len(documents) == ran.output.count("not whole")


def test_fetch_brings_outputs_and_goes_on_where_it_was(verify, bucket, tmp_path):
    """Every file as it was, with its time; a part that was cut off is finished, a wrong one replaced, a true one left."""
    doe.ended(bucket, "out/run/", OUTPUTS)
    directory = tmp_path / "laptop"
    here = directory / "d"
    ran = verify("out/run/", "--fetch", "d", directory=directory)
    assert 0 == ran.code, ran.output + ran.error
    assert OUTPUTS == {str(path.relative_to(here)): path.read_bytes() for path in here.rglob("*") if path.is_file()}
    assert doe.STARTED_AT == (here / "sub/big.bin").stat().st_mtime

    (here / "sub/big.bin").unlink()
    (here / "sub/big.bin.byos-part").write_bytes(OUTPUTS["sub/big.bin"][:1_500_000])
    (here / "result.dat").unlink()
    (here / "result.dat.byos-part").write_bytes(b"wro")
    kept = (here / "empty").stat().st_ino
    ran = verify("out/run/", "--fetch", "d", directory=directory)

    assert 0 == ran.code, ran.output + ran.error
    assert OUTPUTS == {str(path.relative_to(here)): path.read_bytes() for path in here.rglob("*") if path.is_file()}
    assert kept == (here / "empty").stat().st_ino


def test_fetch_does_not_replace_what_differs(verify, bucket, tmp_path):
    """A file that somebody changed stays, is named, and goes only with --overwrite; what cannot stand beside it is named."""
    doe.ended(bucket, "out/run/", {"a": b"1", "b": b"2"})
    directory = tmp_path / "laptop"
    (directory / "d").mkdir(parents=True)
    (directory / "d/a").write_bytes(b"mine")
    ran = verify("out/run/", "--fetch", "d", directory=directory)

    assert 74 == ran.code, ran.output
    assert "--overwrite replaces it" in ran.output
    assert (b"mine", b"2") == ((directory / "d/a").read_bytes(), (directory / "d/b").read_bytes())
    assert 0 == verify("out/run/", "--fetch", "d", "--overwrite", directory=directory).code
    assert b"1" == (directory / "d/a").read_bytes()


def test_fetch_goes_on_when_one_file_cannot_be_made(verify, bucket):
    """A directory and a file of one name: 74, one of them is named, and all others are there, the longest name too."""
    doe.ended(bucket, "out/run/", {"a": b"1", "a/b": b"2", "x" * 255: b"3", "z": b"4"})
    ran = verify("out/run/", "--fetch", "d")

    assert 74 == ran.code, ran.output
    assert 1 == ran.output.count("  in the way ")
    assert {"d/" + "x" * 255, "d/z"} < set(ran.left())


def test_fetch_leaves_no_file_that_is_not_proved(verify, bucket, tmp_path):
    """A flipped byte: the file has not its name, and the finding says why."""
    doe.ended(bucket, "doe/1/", {"a": b"1" * 5000})
    doe.ended(bucket, "doe/2/", {"a": b"2"})
    directory = tmp_path / "laptop"
    with FaultProxy(bucket.store, Rule(Corrupt(at_byte=1000), method="GET", key="doe/1/a")) as proxy:
        store = bucket.store._replace(endpoint_url=proxy.endpoint_url)
        ran = verify("doe/", "--fetch", "d", store=store, directory=directory)

    assert 74 == ran.code, ran.output
    assert "  checksum    a: CRC-32" in ran.output
    assert not (directory / "d/1/a").exists()
    assert b"2" == (directory / "d/2/a").read_bytes()
    assert 0 == verify("doe/", "--fetch", "d", directory=directory).code


def test_a_run_that_was_copied_is_verified_where_it_is(verify, bucket):
    """The keys of its manifest are read relative to the prefix that it names; another ETag is no finding."""
    doe.ended(bucket, "out/run/", OUTPUTS)
    for key in bucket.sizes("out/run/"):
        bucket.put(f"archive/2026{key[len('out/run') :]}", bucket.get(key))

    assert 0 == verify("archive/2026/", "--read").code


def test_without_the_right_to_list(verify, bucket):
    """One run is verified, and what was not looked for is said; AWS's 403 for what is not there is told as what it may be."""
    doe.ended(bucket, "out/run/", {"a": b"1"})
    bucket.put("out/run/stray", b"x")
    denied = Refuse(403, "AccessDenied")
    missing = Rule(denied, method="GET", key="nothing/_byos/")
    with FaultProxy(bucket.store, Rule(denied, query="list-type=2"), missing) as proxy:
        store = bucket.store._replace(endpoint_url=proxy.endpoint_url)
        ran = verify("out/run/", store=store)
        assert (0, True) == (ran.code, "cannot be listed" in ran.output), ran.output
        ran = verify("out/", store=store)
        assert (77, True) == (ran.code, "s3:ListBucket" in ran.error)
        ran = verify("nothing/", store=store)
        assert (77, True) == (ran.code, "does not exist: without s3:ListBucket the store does not say" in ran.error)


def packed_run(bucket):
    """A run with a compressed output and a bundle of three; returns what its files are, and its manifest."""
    files = {"log.txt": b"line\n" * 700_000, "frames/1": b"one", "frames/2": b"", "frames/3": b"3" * 5000}
    zstd = zstandard.ZstdCompressor(write_checksum=True)
    skippable = struct.pack("<II", 0x184D2A5E, 4) + b"tail"
    text = files["log.txt"]
    whole = b"".join(zstd.compress(text[at : at + (1 << 20)]) for at in range(0, len(text), 1 << 20)) + skippable
    log = {
        **doe.entry(bucket, "out/run/log.txt.zst", "log.txt", whole),
        "stored_as": "zstd", "original_bytes": len(text), "original_crc32": doe.crc_of(text),
    }  # fmt: skip
    frames, places = b"", {}
    for path in list(files)[1:]:
        info = tarfile.TarInfo(path)
        info.size = len(files[path])
        header = info.tobuf(tarfile.PAX_FORMAT)
        frame = zstd.compress(header + files[path] + bytes(-info.size % 512))
        places[path] = {"offset": len(frames), "length": len(frame), "skip": len(header)}
        frames += frame
    frames += zstd.compress(bytes(1024)) + skippable
    bundle = doe.entry(bucket, "out/run/_byos/bundles/1.tar.zst", "", frames)
    members = [
        {
            **bundle, "path": path, "bytes": len(files[path]), "crc32": doe.crc_of(files[path]), "stored_as": "bundle",
            "member": path, "bundle_bytes": len(frames), "bundle_crc32": bundle["crc32"], **place,
        }
        for path, place in places.items()
    ]  # fmt: skip
    return files, doe.ended(bucket, "out/run/", {}, outputs=[log, *members])


def test_what_was_packed_is_verified_by_object_and_fetched_by_file(verify, bucket, tmp_path):
    """A bundle is looked at once; fetched files are as they were, unbundled and decompressed, and a fetch goes on."""
    files, _ = packed_run(bucket)
    for flags in ([], ["--read"]):
        ran = verify("out/run/", *flags)
        assert (0, True) == (ran.code, "whole: 4 outputs, 3.51 MB" in ran.output), ran.output + ran.error
    directory = tmp_path / "laptop"
    here = directory / "d"
    (here / "log.txt.byos-part").parent.mkdir(parents=True)
    (here / "log.txt.byos-part").write_bytes(files["log.txt"][:1_500_000])
    for _ in range(2):
        ran = verify("out/run/", "--fetch", "d", directory=directory)
        assert 0 == ran.code, ran.output + ran.error
        assert files == {str(path.relative_to(here)): path.read_bytes() for path in here.rglob("*") if path.is_file()}

    bucket.client.delete_object(Bucket=bucket.name, Key="out/run/_byos/bundles/1.tar.zst")
    assert [("missing", "frames/1"), ("missing", "frames/2"), ("missing", "frames/3")] == findings(
        verify("out/run/", "--json")
    )


def test_a_run_that_packs_is_whole_and_comes_back_as_it_was(run_byos, verify, bucket, tmp_path):
    """publish.compress and publish.bundle, then verify and --fetch: every file byte for byte."""
    command = (
        "mkdir frames; for n in $(seq 300); do echo $n > frames/$n.dat; done; seq 400000 > log.txt; : > empty.txt;"
        "head -c 9000000 /dev/zero > holes.txt; echo x > 'frames/a b%20+#&Größe.dat';"
        "printf x > $'frames/bad\\xff.dat'; echo 1 > plain"
    )
    asked = job(bucket, command, publish={"compress": ["*.txt"], "bundle": ["frames/**"]})
    ran = run_byos(asked)
    assert 0 == ran.code, ran.output
    assert 6 > len([key for key in bucket.sizes("out/run/") if "/_byos/" not in key])
    for flags in ([], ["--read"]):
        ran = verify("out/run/", *flags)
        assert (0, True) == (ran.code, "whole: 306 outputs" in ran.output), ran.output + ran.error
    directory = tmp_path / "laptop"
    ran = verify("out/run/", "--fetch", "d", directory=directory)
    assert 0 == ran.code, ran.output + ran.error
    here = directory / "d"
    assert 306 == sum(path.is_file() for path in here.rglob("*"))
    assert b"".join(b"%d\n" % n for n in range(1, 400_001)) == (here / "log.txt").read_bytes()
    assert bytes(9_000_000) == (here / "holes.txt").read_bytes()
    assert (b"", b"x\n") == ((here / "empty.txt").read_bytes(), (here / "frames/a b%20+#&Größe.dat").read_bytes())
    assert all(b"%d\n" % n == (here / f"frames/{n}.dat").read_bytes() for n in range(1, 301))


@pytest.mark.parametrize(
    ("number", "change", "kinds"),
    [
        (0, {"original_bytes": 1000}, ["size"]),
        (0, {"original_crc32": "AAAAAA=="}, ["checksum"]),
        (1, {"skip": 0}, ["checksum"]),
        (1, {"offset": 1}, ["checksum"]),
        (3, {"length": 10_000_000}, ["refused"]),
        (2, {"member": "../up"}, ["refused"]),
        (0, {"stored_as": "magic"}, ["extra", "refused"]),
    ],
    ids=["bomb", "crc", "skip", "offset", "length", "path", "unknown"],
)
def test_a_manifest_that_lies_about_what_is_packed(bucket, tmp_path, number, change, kinds):
    """No more is written than was recorded, nothing that is not proved, nothing elsewhere."""
    _, manifest = packed_run(bucket)
    outputs = [{**item, **change} if index == number else item for index, item in enumerate(manifest["outputs"])]
    bucket.put("out/run/_byos/manifest.json", json.dumps({**manifest, "outputs": outputs}))
    (tmp_path / "config").write_text(runs.config_text(bucket.store))
    place, told = Place(tmp_path, {}), []
    words = [bucket.url("out/run/"), "--fetch", "d", "--json", "--store-endpoint-url", bucket.store.endpoint_url]

    assert 74 == verify_runs(words, place=place, stop=Stop(), show=told.append)
    (run,) = json.loads("".join(told))["runs"]
    assert kinds == [problem["kind"] for problem in run["problems"]], run
    assert 3 == sum(path.is_file() and not path.name.endswith(".byos-part") for path in (tmp_path / "d").rglob("*"))
    assert all(path.stat().st_size == 0 for path in (tmp_path / "d").rglob("*.byos-part"))


def test_verify_names_what_is_wrong_with_its_command_line(run_byos, verify, bucket, minio_store):
    """64: no prefix, a flag of a run, --overwrite alone; 66: no run, no bucket."""
    for words in (
        [],
        ["out/"],
        ["s3://b/x/", "--solver-cores", "8"],
        ["s3://b/x/", "--overwrite"],
        ["s3://b/x/", "-z"],
    ):
        assert 64 == run_byos(None, "verify", *words).code, words
    assert 66 == verify("nothing/").code
    flags = ("--store-endpoint-url", minio_store.endpoint_url)
    ran = run_byos(None, "verify", "s3://no-such-bucket-here/x/", *flags)
    assert (66, True) == (ran.code, "does not exist" in ran.error)
    help_text = run_byos(None, "verify", "--help").output
    assert help_text.rstrip().splitlines()[-1].startswith("  77")
    assert max(map(len, help_text.splitlines())) <= 80
