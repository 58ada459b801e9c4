"""`byos-run fetch`: the stage-in alone."""

from __future__ import annotations

from tests.scenarios.test_whole_run import zip_bytes


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
