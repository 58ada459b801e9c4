"""Rows of a table and values in case files: the shipped file, as an array starts it."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
from tests.kit import runs
from tests.scenarios.test_whole_run import zip_bytes

TEMPLATE = """\
input = "${{s3_input}}"
output = "${{s3_output}}"
command = ["bash", "-c", "cat inputs.in > seen.txt; echo $((RANDOM)) > more.txt"]
[template]
files = ["inputs.in"]
[store]
endpoint_url = "{endpoint}"
"""


def table(bucket, *angles):
    """A csv of one case and an output for each angle."""
    bucket.put(
        "in/case.zip", zip_bytes({"inputs.in": b"angle ${angle}\r\nsteps ${steps}\n", "mesh/surface.dat": b"1 2\n"})
    )
    rows = [f"{bucket.url('in/case.zip')},{bucket.url(f'out/{n}')},{angle}" for n, angle in enumerate(angles, 1)]
    return "\n".join(["s3_input,s3_output,angle", *rows, ""])


def array(directory, bucket, *angles):
    """What a user lays into the directory that the array starts in."""
    directory.mkdir()
    (directory / "inputs.csv").write_text(table(bucket, *angles))
    return TEMPLATE.format(endpoint=bucket.store.endpoint_url)


def test_an_array_runs_each_row_in_a_directory_of_its_own(run_byos, shipped_file, run_environ, bucket, tmp_path):
    """Rows at once, one directory, one config, one template; each renders its case, publishes, and leaves nothing."""
    here = tmp_path / "array"
    job = array(here, bucket, "26", "27", "28")
    runs.lay_out(here, file=shipped_file, store=bucket.store, job=job)
    (here / "byos.toml").rename(here / "byos.toml.template")
    laid_down = runs.left_in(here)

    def row(number):
        environ = run_environ(SLURM_ARRAY_TASK_ID=str(number))
        return runs.run(here, command=("sh", "byos-run", "--table", "inputs.csv"), env=environ)

    with ThreadPoolExecutor(3) as pool:
        ran = list(pool.map(row, (1, 2, 3)))

    assert [0, 0, 0] == [each.code for each in ran], ran[0].output
    assert laid_down == runs.left_in(here)
    for number, angle in ((1, 26), (2, 27), (3, 28)):
        assert f"angle {angle}\r\nsteps ${{steps}}\n".encode() == bucket.get(f"out/{number}/seen.txt")
        manifest = bucket.json(f"out/{number}/_byos/manifest.json")
        assert (number, {"angle": str(angle)}) == (manifest["row"], manifest["values"])
        assert ["more.txt", "seen.txt"] == sorted(item["path"] for item in manifest["outputs"])
    assert "filled in 1 value in 1 case file: inputs.in; left, without a value: ${steps}" in ran[0].output


def test_a_table_in_the_bucket_on_the_platform(run_byos, bucket, tmp_path):
    """Read with the same config, which other rows may need: it stays beside the row's directory, and that is said."""
    here = tmp_path / "array"
    job = array(here, bucket, "26", "27")
    bucket.put("doe/inputs.csv", (here / "inputs.csv").read_bytes())
    ran = run_byos(
        job,
        "--table",
        bucket.url("doe/inputs.csv"),
        env={"AWS_BATCH_JOB_ARRAY_INDEX": "1"},
        directory=here,
        platform=True,
    )

    assert 0 == ran.code, ran.output
    assert b"angle 27" in bucket.get("out/2/seen.txt")
    assert ["byos-run", "byos.toml", "config", "inputs.csv"] == ran.left()
    assert "config too" in ran.output


def test_a_value_that_changed_makes_another_run(run_byos, bucket, tmp_path):
    """The values are a part of what makes two runs equal; the same again is nothing to do."""
    here = tmp_path / "array"
    job = array(here, bucket, "26")
    arguments = ("--table", "inputs.csv", "--row", "1")
    first = run_byos(job, *arguments, directory=here)
    again = run_byos(job, *arguments, directory=here)
    (here / "inputs.csv").write_text(table(bucket, "30"))
    other = run_byos(job, *arguments, directory=here)

    assert [0, 0, 0] == [first.code, again.code, other.code], other.output
    assert "nothing to do" in again.output
    assert b"angle 30" in bucket.get("out/1/seen.txt")


@pytest.mark.parametrize(
    ("members", "code", "reason"),
    [
        ({"other.in": b"x"}, 64, 'template.files: "inputs.in" names no file of the case'),
        ({"inputs.in": b"\0${angle}"}, 65, "template.files: inputs.in is binary"),
    ],
    ids=["missing", "binary"],
)
def test_a_case_that_cannot_be_filled_in_is_not_solved(run_byos, bucket, members, code, reason):
    """One clear error, told in the manifest as well; all that was fetched goes."""
    bucket.put("in/case.zip", zip_bytes({**members, "big.dat": b"0" * 100_000}))
    asked = {"input": bucket.url("in/case.zip"), "output": bucket.url("out"), "command": "touch ran"}
    ran = run_byos({**asked, "template": {"files": ["inputs.in"], "values": {"angle": "1"}}}, platform=True)

    assert code == ran.code, ran.output
    assert reason in ran.output
    assert "partial" == bucket.json("out/_byos/manifest.json")["status"]
    assert [] == ran.left()


def test_every_problem_of_a_table_is_told_and_nothing_starts(run_byos, bucket, tmp_path):
    """64, each with its row; no directory is made and nothing is in the bucket."""
    here = tmp_path / "array"
    job = array(here, bucket, "26")
    (here / "inputs.csv").write_text("s3_input,s3_output\nx,s3://bucket/a\n\ns3://bucket/i,s3://bucket/a/b\n")
    ran = run_byos(job, "--table", "inputs.csv", "--row", "9", "--solver-cores", "many", directory=here)

    assert 64 == ran.code
    for problem in ("row 1 (line 2): s3_input", "row 2 (line 3): it is blank", '--solver-cores: found "many"'):
        assert problem in ran.output
    assert ["byos-run", "byos.toml", "config", "inputs.csv"] == ran.left()


def test_a_row_that_is_none_takes_the_keys_of_no_other(run_byos, bucket, tmp_path):
    """64 on the platform: config is the other rows' too, and stays. A variable that is set and empty is none."""
    here = tmp_path / "array"
    job = array(here, bucket, "26")
    ran = run_byos(job, "--table", "inputs.csv", "--row", "9", directory=here, platform=True, env={"AWS_PROFILE": ""})
    after = run_byos(job, "--table", "inputs.csv", "--row", "1", directory=here, platform=True, env={"AWS_PROFILE": ""})

    assert [64, 0] == [ran.code, after.code], after.output
    assert "config" in ran.left()


def test_a_row_that_fails_leaves_what_the_next_start_needs(run_byos, bucket, tmp_path):
    """The solver's code passes; an attempt that was refused leaves not even its directory."""
    here = tmp_path / "array"
    job = array(here, bucket, "26", "27").replace("echo $((RANDOM)) > more.txt", "exit 7")
    bucket.put("out/2/stranger.txt", b"precious")
    failed = run_byos(job, "--table", "inputs.csv", "--row", "1", directory=here)
    refused = run_byos(job, "--table", "inputs.csv", "--row", "2", directory=here)

    assert [7, 64] == [failed.code, refused.code], refused.output
    assert ["byos-run", "byos.toml", "config", "inputs.csv"] == refused.left()
