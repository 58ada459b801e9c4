"""The shipped file, as a user runs it: real store, real processes, what is in the bucket and what is left."""

from __future__ import annotations

import base64
import io
import json
import os
import signal
import socket
import time
import zipfile
import zlib

import pytest
from tests.kit import runs

WRITES = "mkdir -p sub; echo result > result.dat; head -c 300000 /dev/zero > sub/big.bin; echo more >> inputs.in"


def zip_bytes(members):
    """A deflated zip of *members*, name → content."""
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return target.getvalue()


def job(bucket, command, **more):
    """A job over in/case.zip with a bash command."""
    bucket.put("in/case.zip", zip_bytes({"inputs.in": b"cells 8\n", "mesh/surface.dat": b"1 2 3\n" * 100}))
    return {
        "input": bucket.url("in/case.zip"), "output": bucket.url("out/run"), "command": ["bash", "-c", command], **more,
    }  # fmt: skip


def outputs(bucket):
    """Size by path of what lies below the output prefix and is not ours."""
    sizes = bucket.sizes("out/run/")
    return {key[len("out/run/") :]: size for key, size in sizes.items() if not key.startswith("out/run/_byos/")}


def test_a_run_on_the_platform_leaves_nothing(run_byos, bucket):
    """Outputs that the solver created or changed are in the bucket with their checksums; the run directory is empty."""
    ran = run_byos(job(bucket, WRITES), platform=True)

    assert 0 == ran.code, ran.output
    assert {"result.dat": 7, "sub/big.bin": 300_000, "inputs.in": 13} == outputs(bucket)
    manifest = bucket.json("out/run/_byos/manifest.json")
    assert "complete" == manifest["status"]
    for item in manifest["outputs"]:
        crc = base64.b64encode(zlib.crc32(bucket.get(item["key"])).to_bytes(4, "big")).decode()
        assert crc == item["crc32"]
    assert [] == ran.left()
    certificate = bucket.json("out/run/_byos/purge.json")
    assert (True, 0) == (certificate["complete"], certificate["exit_code"])
    assert "over" == bucket.json("out/run/_byos/status.json")["phase"]
    assert ran.output.splitlines()[-1].startswith("byos-run | exit 0 ")
    assert "" == ran.error


def test_a_run_elsewhere_keeps_what_the_user_laid_down(run_byos, bucket):
    """Off the platform only the case and what byos-run made goes."""
    ran = run_byos(job(bucket, WRITES))

    assert 0 == ran.code, ran.output
    assert ["byos-run", "byos.toml", "config"] == ran.left()


def test_the_solvers_own_code_wins_and_its_outputs_are_published(run_byos, bucket):
    """A failing solver: log and outputs in the bucket, status solver-failed, its code passed on as it is."""
    ran = run_byos(job(bucket, "echo diverged at step 12; echo x > last.out; exit 42"), platform=True)

    assert 42 == ran.code, ran.output
    assert {"last.out": 2} == outputs(bucket)
    assert b"diverged at step 12\n" == bucket.get("out/run/_byos/solver.log")
    manifest = bucket.json("out/run/_byos/manifest.json")
    assert ("solver-failed", 42) == (manifest["status"], manifest["solver"]["exit_code"])
    assert [] == ran.left()
    assert "the solver's code" in ran.output.splitlines()[-1]


@pytest.mark.parametrize(
    ("success", "code"),
    [({"file": "done.txt"}, 1), ({"log_pattern": "FINISHED"}, 1), ({"exit": [3]}, 0), ({"exit": [0]}, 3)],
    ids=["file", "log", "other-exit", "exit"],
)
def test_success_is_what_the_job_says(run_byos, bucket, success, code):
    """Exit code, log pattern and file must all hold; exit 0 without them is 1."""
    number = 3 if "exit" in success else 0
    ran = run_byos(job(bucket, f"exit {number}", solver={"success": success}))

    assert code == ran.code, ran.output


def test_an_equal_complete_run_is_not_done_again(run_byos, bucket):
    """The same inputs and command with a complete manifest: nothing to do, and config is still removed."""
    asked = job(bucket, WRITES)
    assert 0 == run_byos(asked, platform=True).code
    before = bucket.sizes("out/run/sub")
    manifest = bucket.json("out/run/_byos/manifest.json")
    ran = run_byos(asked, platform=True)

    assert 0 == ran.code, ran.output
    assert "nothing to do" in ran.output
    assert manifest == bucket.json("out/run/_byos/manifest.json")
    assert before == bucket.sizes("out/run/sub")
    assert [] == ran.left()


def test_another_command_runs_again_and_drops_stale_objects(run_byos, bucket):
    """Objects of the earlier attempt that this run did not write go; its manifest is kept below attempts/."""
    assert 0 == run_byos(job(bucket, "echo 1 > one.out; echo 2 > two.out")).code
    ran = run_byos(job(bucket, "echo 3 > two.out"))

    assert 0 == ran.code, ran.output
    assert {"two.out": 2} == outputs(bucket)
    assert 2 == bucket.json("out/run/_byos/manifest.json")["attempt"]
    assert 1 == bucket.json("out/run/_byos/attempts/1/manifest.json")["attempt"]


def test_strangers_objects_are_not_touched(run_byos, bucket):
    """64 before anything moves, unless publish.overwrite."""
    asked = job(bucket, WRITES)
    bucket.put("out/run/result.dat", b"precious")
    ran = run_byos(asked)

    assert 64 == ran.code, ran.output
    assert "'out/run/result.dat'" in ran.output
    assert {"out/run/result.dat": 8} == bucket.sizes("out/run/")
    assert 0 == run_byos({**asked, "publish": {"overwrite": True}}).code
    assert b"result\n" == bucket.get("out/run/result.dat")


def test_odd_files_are_published_or_told(run_byos, bucket):
    """Names of any characters travel; links carry their content; what is no file is named, and is no failure."""
    command = r"""
        touch empty .dot -- '-dash' 'a b%20+#&?.h5' 'Größe'; mkdir deep; echo x > deep/x
        printf 'no utf-8' > $'bad\xffname'; mkfifo pipe; ln -s deep/x link
        ln -s /etc/passwd out; ln -s nowhere broken; ln -s deep dirlink
    """
    ran = run_byos(job(bucket, command), platform=True)

    assert 0 == ran.code, ran.output
    assert {"empty": 0, ".dot": 0, "-dash": 0, "a b%20+#&?.h5": 0, "Größe": 0, "deep/x": 2, "link": 2,
            "bad%FFname": 8} == outputs(bucket)  # fmt: skip
    manifest = bucket.json("out/run/_byos/manifest.json")
    assert {"pipe", "out", "broken"} == {item["path"] for item in manifest["skipped"]}
    by_key = {item["key"]: item for item in manifest["outputs"]}
    assert "deep/x" == by_key["out/run/link"]["link_to"]
    assert by_key["out/run/bad%FFname"]["name_escaped"]
    assert [] == ran.left()


def test_include_exclude_and_all(run_byos, bucket):
    """Exclude beats include; "all" publishes inputs too."""
    command = "echo 1 > a.out; echo 2 > b.tmp; mkdir d; echo 3 > d/c.out"
    asked = job(bucket, command, publish={"include": ["*.out", "inputs.in"], "exclude": ["d/**"], "what": "all"})
    ran = run_byos(asked)

    assert 0 == ran.code, ran.output
    assert {"a.out": 2, "inputs.in": 8} == outputs(bucket)


def test_a_selection_that_leaves_out_everything_is_told(run_byos, bucket):
    """`results` means a file of that name, `results/` what lies below it: said before anybody looks for the files."""
    ran = run_byos(job(bucket, "mkdir results; echo 1 > results/a; echo 2 > b", publish={"include": ["results"]}))

    assert 0 == ran.code
    assert "leave out everything that the solver made or changed (2)" in ran.output
    assert {} == outputs(bucket)


def test_files_outside_the_case_are_kept_in_the_bucket(run_byos, bucket):
    """What the solver leaves in the run directory goes below _byos/rundir/, and then from the node."""
    ran = run_byos(job(bucket, "echo stray > ../stray.txt"), platform=True)

    assert 0 == ran.code, ran.output
    assert b"stray\n" == bucket.get("out/run/_byos/rundir/stray.txt")
    assert [] == ran.left()


def test_local_files_are_laid_over_the_case(run_byos, bucket, tmp_path):
    """fetch.local: what the DOE rendered replaces what the archive brought, and is an output only if it changes."""
    directory = tmp_path / "run"
    directory.mkdir()
    (directory / "inputs.in").write_text("angle 12\n")
    ran = run_byos(job(bucket, "cat inputs.in > seen", fetch={"local": ["inputs.in"]}), directory=directory)

    assert 0 == ran.code, ran.output
    assert b"angle 12\n" == bucket.get("out/run/seen")
    assert {"seen": 9} == outputs(bucket)


def test_keep_stays_for_the_platform(run_byos, bucket):
    """purge.keep, process_output.log and nothing else."""
    asked = job(bucket, WRITES + "; echo log > ../process_output.log", purge={"keep": ["result.dat"]})
    ran = run_byos(asked, platform=True)

    assert 0 == ran.code, ran.output
    assert ["case/", "case/result.dat", "process_output.log"] == ran.left()


def test_the_solver_sees_no_secret(run_byos, bucket, minio_store):
    """No AWS key, token or platform API key in its environment, its reach, a log or an object."""
    command = "env; ls -A ..; cat ../config; tr '\\0' '\\n' < /proc/$PPID/environ"
    ran = run_byos(
        job(bucket, command), platform=True,
        env={"AWS_SESSION_TOKEN": "", "RESCALE_API_KEY": "platform-secret", "AWS_SECRET_ACCESS_KEY": minio_store.secret_key,
             "AWS_ACCESS_KEY_ID": minio_store.access_key},
    )  # fmt: skip

    assert 0 == ran.code, ran.output
    assert "config: No such file" in ran.output
    everything = ran.output.encode() + b"".join(bucket.get(key) for key in bucket.sizes())
    assert minio_store.secret_key.encode() not in everything
    assert b"platform-secret" not in everything


def test_several_inputs_and_a_prefix(run_byos, bucket):
    """A list is planned together; a plain object of a prefix keeps its path; folder markers are passed over."""
    asked = job(bucket, 'all=$(find . -type f); echo "$all" > list.txt')
    bucket.put("more/", b"")
    bucket.put("more/tables/gas.dat", b"gas")
    bucket.put("more/extra.ZIP", zip_bytes({"extra/e.dat": b"e"}))
    asked["input"] = [asked["input"], bucket.url("more/")]
    ran = run_byos(asked)

    assert 0 == ran.code, ran.output
    listed = set(bucket.get("out/run/list.txt").decode().split())
    assert {"./inputs.in", "./mesh/surface.dat", "./tables/gas.dat", "./extra/e.dat"} == listed


def test_two_inputs_that_write_one_path_are_refused(run_byos, bucket):
    """65, both named, nothing unpacked."""
    asked = job(bucket, "true")
    bucket.put("in/other.zip", zip_bytes({"inputs.in": b"other"}))
    asked["input"] = [asked["input"], bucket.url("in/other.zip")]
    ran = run_byos(asked, platform=True)

    assert 65 == ran.code, ran.output
    assert "case.zip" in ran.output
    assert "other.zip" in ran.output
    assert not [path for path in ran.left() if path.startswith("case")]


@pytest.mark.parametrize(
    ("command", "code", "said"),
    [
        ("no-such-command --now", 71, "no-such-command"),
        ("/etc/passwd", 71, "/etc/passwd"),
        ("echo hello > log.txt", 64, '["bash", "-lc"'),
    ],
    ids=["missing", "not-executable", "shell"],
)
def test_commands_that_cannot_run_are_named(run_byos, bucket, command, code, said):
    """Before anything moves."""
    asked = job(bucket, "true")
    ran = run_byos({**asked, "command": command})

    assert code == ran.code, ran.output
    assert said in ran.output
    assert {} == bucket.sizes("out/")


@pytest.mark.parametrize(
    ("change", "code", "said"),
    [
        ({"input": "s3://{bucket}/in/none.zip"}, 66, "'in/none.zip'"),
        ({"input": "s3://{bucket}/empty/"}, 66, "empty/"),
        ({"input": "s3://no-such-bucket-at-all/x.zip"}, 66, "no-such-bucket-at-all"),
        ({"output": "s3://no-such-bucket-at-all/x/"}, 66, "no-such-bucket-at-all"),
        ({"output": "s3://{bucket}/in/case.zip/"}, 64, "equals or contains"),
        ({"output": "s3://{bucket}/in/"}, 64, "contains"),
        ({"inptu": "x"}, 64, "input"),
        ({"input": "${{s3_input}}"}, 64, "s3_input"),
    ],
    ids=["object", "prefix", "bucket", "output-bucket", "output-is-input", "output-above", "typo", "template"],
)
def test_what_is_wrong_is_named_before_anything_moves(run_byos, bucket, change, code, said):
    """One clear line and the right code; the output prefix stays untouched, and the files of the run directory too."""
    asked = {**job(bucket, "true"), **{name: text.format(bucket=bucket.name) for name, text in change.items()}}
    ran = run_byos(asked)

    assert code == ran.code, ran.output
    assert said in ran.output
    assert {"in/case.zip"} == set(bucket.sizes())
    assert ["byos-run", "byos.toml", "config"] == ran.left()


def test_all_problems_are_listed_at_once(run_byos):
    """Four mistakes, four lines; on the platform config is gone all the same."""
    ran = run_byos(
        {"input": "case.zip", "output": "", "command": "a | b", "scratch": "/"}, "--solver-cores", "many", platform=True
    )

    assert 64 == ran.code, ran.output
    assert 5 <= ran.output.count("error: ")
    assert ["byos-run", "byos.toml"] == ran.left()


@pytest.mark.parametrize(
    ("config", "code", "said"),
    [
        ("", 77, "no credentials"),
        ("aws_access_key_id = a\naws_secret_access_key = b\n", 64, "[default]"),
        (
            "[default]\naws_access_key_id = {key}\naws_secret_access_key = wrongwrongwrong\n",
            77,
            "SignatureDoesNotMatch",
        ),
        ("[default]\naws_access_key_id = NOBODY\naws_secret_access_key = wrongwrongwrong\n", 77, "InvalidAccessKeyId"),
    ],
    ids=["none", "no-profile", "wrong-secret", "unknown-key"],
)
def test_credentials_that_do_not_work_are_named(run_byos, bucket, minio_store, config, code, said):
    """The reason and the action, never the secret."""
    ran = run_byos(job(bucket, "true"), config=config.format(key=minio_store.access_key), platform=True)

    assert code == ran.code, ran.output
    assert said in ran.output
    assert "wrongwrongwrong" not in ran.output
    assert "config" not in ran.left()


@pytest.mark.parametrize("syntax", ["[profile mine]", "[mine]"], ids=["config", "credentials"])
def test_a_profile_is_found_in_both_kinds_of_syntax(run_byos, bucket, minio_store, syntax):
    """[profile x] as in config, [x] as in credentials."""
    keys = f"aws_access_key_id = {minio_store.access_key}\naws_secret_access_key = {minio_store.secret_key}\n"
    ran = run_byos(job(bucket, "true", store={"profile": "mine"}), config=f"{syntax}\n{keys}")

    assert 0 == ran.code, ran.output


def test_the_way_to_the_bucket_is_botocores_without_an_endpoint(run_byos, bucket, minio_store):
    """Without store.endpoint_url, botocore's resolution holds: here it finds the store by AWS_ENDPOINT_URL_S3."""
    asked = {**job(bucket, WRITES), "store": {"endpoint_url": "", "addressing": "path"}}
    ran = run_byos(asked, env={"AWS_ENDPOINT_URL_S3": minio_store.endpoint_url, "AWS_REGION": "eu-west-3"})

    assert ran.code == 0, ran.output
    assert outputs(bucket)["result.dat"] == 7


def test_an_endpoint_that_is_down_is_named(run_byos, bucket):
    """69 after the time of first contact, with host and port."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    store = {"endpoint_url": f"http://127.0.0.1:{port}", "first_contact": "2s"}
    ran = run_byos(job(bucket, "true", store=store))

    assert 69 == ran.code, ran.output
    assert f"127.0.0.1:{port}" in ran.output


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "empty"),
        (b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>", "xml"),
        (b"<!DOCTYPE html><html>", "html"),
        (zip_bytes({"a": b"a" * 1000})[:-40], "end"),
        (zip_bytes({"../escape": b"x"}), "../escape"),
        (zip_bytes({"/etc/x": b"x"}), "/etc/x"),
    ],
    ids=["nothing", "xml", "html", "cut", "parent", "absolute"],
)
def test_bad_archives_write_nothing(run_byos, bucket, content, said):
    """65, and the case is not there; the failure is recorded and the platform's run directory emptied."""
    asked = job(bucket, "true")
    bucket.put("in/case.zip", content)
    ran = run_byos(asked, platform=True)

    assert 65 == ran.code, ran.output
    assert said.lower() in ran.output.lower()
    assert {} == outputs(bucket)
    assert not [path for path in ran.left() if path.startswith("case")]


def test_a_read_only_run_directory_is_named(run_byos, bucket, tmp_path, shipped_file, minio_store, run_environ):
    """71, with the directory."""
    ran = run_byos(job(bucket, "true"), env={}, directory=tmp_path / "run") if os.geteuid() else None
    if ran is None:  # root writes anywhere: a file system that takes nothing stands in
        here = "/proc/self/fdinfo"
        command = ["sh", str(shipped_file), "--input", bucket.url("in/case.zip"), "--output", bucket.url("out/run"),
                   "--command", "true", "--store-endpoint-url", minio_store.endpoint_url]  # fmt: skip
        job(bucket, "true")
        keys = {"AWS_ACCESS_KEY_ID": minio_store.access_key, "AWS_SECRET_ACCESS_KEY": minio_store.secret_key}
        import subprocess

        done = subprocess.run(
            ["sh", "-c", f'cd {here} && exec "$@"', "sh", *command], env=run_environ(**keys), capture_output=True,
            text=True, check=False, timeout=240,
        )  # fmt: skip
        assert 71 == done.returncode, done.stdout + done.stderr


def test_a_stop_ends_the_ranks_and_publishes(bucket, tmp_path, shipped_file, minio_store, run_environ):
    """TERM: the solver ends, what it wrote is in the bucket, the manifest says interrupted, 75, and nothing is left."""
    command = "echo partial > partial.out; trap 'echo stopped > stopped.out; exit 0' TERM; echo ready; while :; do sleep 0.1; done"
    directory = tmp_path / "run"
    runs.lay_out(directory, file=shipped_file, store=minio_store, job=job(bucket, command, solver={"grace": "10s"}))
    with runs.started(directory, env=run_environ(**runs.PLATFORM)) as process:
        for line in process.stdout:
            if line == "ready\n":
                break
        process.send_signal(signal.SIGTERM)
        output = process.stdout.read()
        code = process.wait(240)

    assert 75 == code, output
    assert {"partial.out": 8, "stopped.out": 8} == outputs(bucket)
    manifest = bucket.json("out/run/_byos/manifest.json")
    assert ("interrupted", "SIGTERM") == (manifest["status"], manifest["solver"]["stopped_by"])
    assert [] == runs.left_in(directory)


def test_a_time_limit_stops_the_solver(run_byos, bucket):
    """solver.time_limit: asked to stop, published, 75."""
    ran = run_byos(job(bucket, "echo x > x.out; sleep 60", solver={"time_limit": "2s", "grace": "1s"}))

    assert 75 == ran.code, ran.output
    assert {"x.out": 2} == outputs(bucket)


def test_a_live_run_keeps_its_prefix(bucket, tmp_path, shipped_file, minio_store, run_environ, run_byos):
    """73 for the second; it writes nothing, and the first ends well."""
    asked = job(bucket, "echo ready; while [ ! -e go ]; do sleep 0.05; done; echo x > x.out", store={"lease": "8s"})
    directory = tmp_path / "first"
    runs.lay_out(directory, file=shipped_file, store=minio_store, job=asked)
    with runs.started(directory, env=run_environ()) as process:
        for line in process.stdout:
            if line == "ready\n":
                break
        second = run_byos({**asked, "command": ["bash", "-c", "echo second > x.out"]})
        (directory / "case" / "go").touch()
        output = process.stdout.read()
        code = process.wait(240)

    assert 73 == second.code, second.output
    assert 0 == code, output
    assert b"x\n" == bucket.get("out/run/x.out")


def test_closed_standard_output_is_no_error(bucket, tmp_path, shipped_file, minio_store, run_environ):
    """A reader that goes away does not end the run."""
    directory = tmp_path / "run"
    runs.lay_out(directory, file=shipped_file, store=minio_store, job=job(bucket, "seq 1 20000; echo x > x.out"))
    with runs.started(directory, env=run_environ()) as process:
        process.stdout.close()
        code = process.wait(240)

    assert 0 == code
    assert {"x.out": 2} == outputs(bucket)
    assert 108_894 == bucket.sizes("out/run/_byos/solver.log")["out/run/_byos/solver.log"]


def test_scratch_outside(run_byos, bucket, tmp_path):
    """The case is below $BYOS_SCRATCH's directory while it lives, and gone afterwards."""
    base = tmp_path / "scratch"
    base.mkdir()
    ran = run_byos(job(bucket, "pwd; echo x > x.out", scratch=str(base)), platform=True)

    assert 0 == ran.code, ran.output
    assert str(base) in ran.output
    assert {"x.out": 2} == outputs(bucket)
    assert [] == list(base.iterdir())
    assert [] == ran.left()


def test_run_log_is_json_lines(run_byos, bucket):
    """Every line of run.log is an object with its time and level; the sentences are those that were shown."""
    ran = run_byos(job(bucket, "true"))

    lines = [json.loads(line) for line in bucket.get("out/run/_byos/run.log").splitlines()]
    assert all({"at", "level", "event"} <= set(line) for line in lines)
    assert any(line["event"].startswith("fetched case.zip: 2 files") for line in lines)
    assert "fetched case.zip: 2 files" in ran.output


WRITER = """
    echo one > settled.out; echo old > rotates.rst; echo gone > deleted.out; exec 3> open.log; echo first >&3
    echo ready; while [ ! -e ../go ]; do sleep 0.05; done
    echo newer > rotates.rst; rm deleted.out; echo last >&3
"""


def test_settled_files_leave_while_the_solver_runs(bucket, tmp_path, shipped_file, minio_store, run_environ):
    """What is closed and quiet is in the bucket before the end; an open file is not; what changed is sent again, and what
    the solver deleted goes from the bucket too."""
    asked = job(bucket, WRITER, publish={"settle": "1s"})
    directory = tmp_path / "run"
    runs.lay_out(directory, file=shipped_file, store=minio_store, job=asked)
    with runs.started(directory, env=run_environ()) as process:
        for line in process.stdout:
            if line == "ready\n":
                break
        deadline = time.monotonic() + 120
        while set(outputs(bucket)) != {"settled.out", "rotates.rst", "deleted.out"}:
            assert time.monotonic() < deadline, outputs(bucket)
            time.sleep(0.1)
        (directory / "go").touch()
        output = process.stdout.read()
        code = process.wait(240)

    assert code == 0, output
    assert outputs(bucket) == {"settled.out": 4, "rotates.rst": 6, "open.log": 11}
    assert bucket.get("out/run/rotates.rst") == b"newer\n"
    manifest = bucket.json("out/run/_byos/manifest.json")
    in_case = {item["path"] for item in manifest["outputs"] if "found_in" not in item}
    assert in_case == {"settled.out", "rotates.rst", "open.log"}
    assert "1 file of them before the solver's end" in output


def test_publishing_beside_the_solver_can_be_left_out(bucket, tmp_path, shipped_file, minio_store, run_environ):
    """publish.while_running = false: nothing leaves before the end."""
    asked = job(
        bucket, "echo x > x.out; sleep 3; echo ready; sleep 0.2", publish={"while_running": False, "settle": "1s"}
    )
    directory = tmp_path / "run"
    runs.lay_out(directory, file=shipped_file, store=minio_store, job=asked)
    with runs.started(directory, env=run_environ()) as process:
        for line in process.stdout:
            if line == "ready\n":
                break
        assert outputs(bucket) == {}
        process.stdout.read()
        assert process.wait(240) == 0

    assert outputs(bucket) == {"x.out": 2}


def test_a_directory_that_holds_a_live_run_is_refused(
    bucket, tmp_path, shipped_file, minio_store, run_environ, run_byos
):
    """64 for a run started above another: its purge would empty that one's directory."""
    asked = job(bucket, "echo ready; while [ ! -e go ]; do sleep 0.05; done")
    directory = tmp_path / "above" / "below"
    runs.lay_out(directory, file=shipped_file, store=minio_store, job=asked)
    with runs.started(directory, env=run_environ()) as process:
        for line in process.stdout:
            if line == "ready\n":
                break
        above = run_byos({**asked, "output": bucket.url("out/other")}, directory=tmp_path / "above", platform=True)
        (directory / "case" / "go").touch()
        output = process.stdout.read()
        code = process.wait(240)

    assert above.code == 64, above.output
    assert "'below'" in above.output
    assert code == 0, output
