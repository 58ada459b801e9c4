"""Outputs leave while the solver runs: what is acknowledged was complete, and what makes room for others is safe."""

from __future__ import annotations

import os
import time

import pytest
from tests.faults.proxy import FaultProxy
from tests.faults.rules import Refuse, Rule
from tests.kit import runs
from tests.scenarios.test_whole_run import job, outputs


@pytest.fixture
def running(bucket, tmp_path, shipped_file, minio_store, run_environ):
    """Starts the shipped file on a job; yields its process once the solver says "ready"."""

    def start(asked, *, path=None):
        directory = tmp_path / "run"
        runs.lay_out(directory, file=shipped_file, store=minio_store, job=asked)
        return directory, runs.started(directory, env=run_environ(path=path))

    return start


def ready(process):
    said = ""
    for line in process.stdout:
        said += line
        if line == "ready\n":
            return
    raise AssertionError(said)


def until(holds, *, within_s=120):
    """Asks ten times a second; the world outside tells nobody when it has changed."""
    deadline = time.monotonic() + within_s
    while not (found := holds()):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    return found


MAKES_ROOM = """
    for n in 1 2 3; do head -c 2000000 /dev/urandom > field$n.h5; head -c 2000000 /dev/urandom > restart$n.rst; done
    head -c 2000000 /dev/urandom > field3.h5.2
    head -c 2000000 /dev/zero > kept.h5; head -c 2000000 /dev/zero > done.flag; cp done.flag state.7
    head -c 2000000 /dev/zero >> mesh/surface.dat
    head -c 2000000 /dev/zero > twin; ln twin twin2; head -c 2000000 /dev/zero > aim; ln -s aim link
    head -c 2000000 /dev/zero > read.h5; exec 4< read.h5; echo table > small.out; head -c 1500000 /dev/zero > grows.out
    echo ready; while [ ! -e ../go ]; do sleep 0.05; done
    echo more > field3.h5; while [ ! -e ../end ]; do sleep 0.05; done
"""
STAYS = {
    "restart1.rst", "restart2.rst", "restart3.rst", "kept.h5", "done.flag", "state.7", "inputs.in", "mesh/surface.dat",
    "twin", "twin2", "aim", "link", "read.h5",
}  # fmt: skip


def test_what_the_bucket_has_makes_room(running, bucket):
    """Acknowledged and quiet files go while the solver runs; restarts, kept files, inputs, what is read, linked or asked for by
    success stays. All of it is in the manifest, what was written again after it had gone beside what it was before."""
    asked = job(
        bucket, MAKES_ROOM, publish={"settle": "0.3s", "delete_behind": True}, purge={"keep": ["case/kept.h5"]},
        solver={"success": {"file": "done.flag"}}, resume={"files": ["state.*"]},
    )  # fmt: skip
    directory, started = running(asked)
    case = directory / "case"

    def there():
        return {str(path.relative_to(case)) for path in case.rglob("*") if not path.is_dir()}

    with started as process:
        ready(process)
        until(lambda: there() == STAYS)
        (directory / "go").touch()
        until(lambda: "field3.h5.3" in outputs(bucket))
        (directory / "end").touch()
        output = process.stdout.read()
        code = process.wait(240)

    assert code == 0, output
    gone = {"field1.h5", "field2.h5", "field3.h5", "field3.h5.2", "grows.out", "small.out"}
    assert set(outputs(bucket)) == STAYS - {"inputs.in"} | gone | {"field3.h5.3"}
    assert bucket.get("out/run/field3.h5.3") == b"more\n"
    manifest = bucket.json("out/run/_byos/manifest.json")
    in_case = [item for item in manifest["outputs"] if "found_in" not in item]
    assert {item["key"] for item in in_case} == {f"out/run/{path}" for path in outputs(bucket)}
    assert {item["path"] for item in in_case} == set(outputs(bucket))
    # What was only open may go too in the moment between the command's end and the last look.
    behind = bucket.json("out/run/_byos/purge.json")["deleted_behind"]
    assert behind in ({"files": 6, "bytes": 9_500_006}, {"files": 7, "bytes": 11_500_006})
    assert runs.left_in(directory) == ["byos-run", "byos.toml", "case/", "case/kept.h5", "config", "end", "go"]


LEAVES_GAPS = """
    head -c 2000000 /dev/zero > gone.h5; head -c 2000000 /dev/zero > twice.h5; echo x > deleted.out; echo x > stuck.out; echo ready
    while [ -e gone.h5 -o -e twice.h5 -o ! -e ../go ]; do sleep 0.05; done
    rm deleted.out; echo again > twice.h5
"""


def test_the_next_start_knows_what_made_room(running, bucket, run_environ):
    """74, then a start that only publishes: what was removed behind is in its manifest, what the solver deleted is not."""
    denied = Rule(Refuse(403, "AccessDenied"), key=r"/stuck\.out$", method="PUT")
    with FaultProxy(bucket.store, denied) as proxy:
        store = {"endpoint_url": proxy.endpoint_url}
        asked = job(bucket, LEAVES_GAPS, publish={"settle": "0.2s", "delete_behind": True}, store=store)
        directory, started = running(asked)
        with started as process:
            ready(process)
            until(lambda: "deleted.out" in outputs(bucket))
            (directory / "go").touch()
            output = process.stdout.read()
            code = process.wait(240)
        assert code == 74, output
        proxy.tell()
        (directory / "config").write_text(runs.config_text(bucket.store))
        ran = runs.run(directory, env=run_environ())

    assert ran.code == 0, ran.output
    wanted = {"gone.h5": 2_000_000, "twice.h5": 2_000_000, "twice.h5.2": 6, "stuck.out": 2}
    assert outputs(bucket) == wanted
    manifest = bucket.json("out/run/_byos/manifest.json")
    in_case = {item["key"]: item["bytes"] for item in manifest["outputs"] if "found_in" not in item}
    assert in_case == {f"out/run/{path}": size for path, size in wanted.items()}


def test_a_table_that_is_opened_for_each_line_stays(run_byos, bucket):
    """It looks settled in between; changed after it was acknowledged, it is never removed."""
    command = (
        "echo begin > table.out; sleep 0.7; for n in 1 2 3; do head -c 1500000 /dev/zero >> table.out; sleep 0.7; done"
    )
    ran = run_byos(job(bucket, command, publish={"settle": "0.2s", "delete_behind": True}))

    assert ran.code == 0, ran.output
    assert outputs(bucket) == {"table.out": 4_500_006}


FILLS = """
    for n in $(seq 12); do
        until head -c 8000000 /dev/urandom > field$n.h5; do sleep 0.1; done
        while [ $(ls field*.h5 | wc -l) -gt 4 ]; do sleep 0.1; done
    done
"""


def test_more_leaves_than_the_disk_can_hold(bucket, tmp_path, shipped_file, minio_store, run_environ):
    """96 MB through a file system of 48 MB: room is made in time."""
    directory = tmp_path / "run"
    asked = job(
        bucket, FILLS, publish={"settle": "0.2s", "delete_behind": True}, scratch=str(tmp_path / "disk"),
        solver={"time_limit": "200s"},
    )  # fmt: skip
    runs.lay_out(directory, file=shipped_file, store=minio_store, job=asked)
    (tmp_path / "disk").mkdir()
    own_mounts = ["unshare", *([] if os.geteuid() == 0 else ["-Ur"]), "-m"]
    script = f"mount -t tmpfs -o size=48m none {tmp_path}/disk && exec sh byos-run"
    ran = runs.run(directory, command=[*own_mounts, "sh", "-c", script], env=run_environ())

    assert ran.code == 0, ran.output
    assert outputs(bucket) == {f"field{n}.h5": 8_000_000 for n in range(1, 13)}


def test_a_solver_that_finds_no_room_loses_nothing_that_it_wrote(run_byos, bucket):
    """A write that fails ends the solver by its own code; what is there is published, and the certificate is written."""
    command = "echo first > first.out; ulimit -f 100; head -c 1000000 /dev/zero > second.out"
    ran = run_byos(job(bucket, command), platform=True)

    assert ran.code not in (0, 70, 74), ran.output
    assert outputs(bucket) == {"first.out": 6, "second.out": 102_400}
    assert bucket.json("out/run/_byos/manifest.json")["status"] == "solver-failed"
    assert ran.left() == []


def test_the_status_tells_how_a_run_stands(running, bucket):
    """From the bucket alone: the phase, what is acknowledged and what waits, the disk, the last lines; at the end the cause."""
    command = (
        "head -c 100000 /dev/zero > done.out; exec 3> open.out; echo data >&3; echo ready;"
        "while [ ! -e ../go ]; do sleep 0.05; done; exit 3"
    )
    directory, started = running(job(bucket, command, publish={"settle": "0.2s"}, store={"lease": "4s"}))

    def standing():
        told = bucket.json("out/run/_byos/status.json")
        return told if told.get("publishing", {}).get("files_done") == 1 else None

    with started as process:
        ready(process)
        told = until(standing)
        (directory / "go").touch()
        output = process.stdout.read()
        code = process.wait(240)

    assert code == 3, output
    now = told["publishing"]
    assert (told["phase"], told["last_lines"][-1]) == ("solve", "ready")
    assert (now["files_done"], now["bytes_done"], now["files_waiting"], now["bytes_waiting"]) == (1, 100_000, 1, 5)
    assert now["bytes_per_s"] > 0
    assert now["disk_free_bytes"] > 0
    last = bucket.json("out/run/_byos/status.json")
    assert (last["phase"], last["solver"]["exit_code"], last["publishing"]["files_done"]) == ("over", 3, 3)


def test_the_log_and_the_newest_restart_leave_first(run_byos, bucket):
    """At the end: log and cause, what publish.priority names, the newest restart files, small results, the rest."""
    command = (
        "echo x > small.dat; head -c 300000 /dev/zero > large.dat; echo x > wanted.dat;"
        "echo x > old.rst; touch -d 2020-01-01 old.rst; head -c 200000 /dev/zero > restart0002.rst; exit 9"
    )
    asked = job(bucket, command, publish={"while_running": False, "priority": ["wanted*"]}, store={"connections": 1})
    with FaultProxy(bucket.store) as proxy:
        ran = run_byos(asked, store=bucket.store._replace(endpoint_url=proxy.endpoint_url))
        sent = [each.key.partition("/out/run/")[2] for each in proxy.seen if each.method == "PUT"]

    assert ran.code == 9, ran.output
    order = ["_byos/solver.log", "_byos/run.log", "wanted.dat", "restart0002.rst", "old.rst", "small.dat", "large.dat"]
    begin = sent.index(order[0])
    assert [path for path in sent[begin:] if path in order][: len(order)] == order


def test_globs_that_name_no_file_are_said_in_one_line(run_byos, bucket):
    """A typing error loses what was to be kept; what was there for a while, in the case or beside it, was named well."""
    command = (
        "mkdir post; echo x > a.out; echo x > post/b.csv; echo x > ../beside.txt; head -c 2000000 /dev/zero > gone.h5;"
        "while [ -e gone.h5 ]; do sleep 0.05; done"
    )
    asked = job(
        bucket, command, resume={"files": ["restart*.rst"]}, purge={"keep": ["beside.txt", "case/post", "resutls.csv"]},
        publish={
            "settle": "0.2s", "delete_behind": True, "exclude": ["*.tmp"], "live": ["*.out"], "compress": ["*.h5", "*.hdf5"],
            "bundle": ["post/*"], "priority": ["first/**"],
        },
    )  # fmt: skip
    ran = run_byos(asked)
    failed = run_byos({**asked, "command": ["bash", "-c", command + "; cat gone.h5"]})

    assert (ran.code, failed.code) == (0, 1), ran.output + failed.output
    line = (
        "no file matches publish.exclude '*.tmp', publish.compress '*.hdf5', publish.priority 'first/**', "
        "purge.keep 'resutls.csv', resume.files 'restart*.rst'"
    )
    assert line in bucket.json("out/run/_byos/attempts/1/manifest.json")["warnings"]
    assert f"warning: {line}\n" in ran.output
    assert "no file matches" not in failed.output
    assert "publish.delete_behind had removed 'gone.h5': if the solver reads such files back" in failed.output


def test_a_disk_that_fills_is_said_in_time_and_publishing_goes_first(
    bucket, tmp_path, shipped_file, minio_store, run_environ
):
    """On a small disk that fills: the minutes and what to do are said while there is room, the status tells them, and what
    publishing may take of the processors is no longer bound."""
    directory = tmp_path / "run"
    command = (
        f"echo ready; for n in $(seq 3000); do [ -e {directory}/go ] && exit; head -c 300000 /dev/urandom > $n.h5 || sleep 1;"
        " sleep 0.05; done"
    )
    asked = job(
        bucket, command, scratch=str(tmp_path / "disk"), publish={"settle": "0.5s", "cores_while_running": 0.01},
        store={"lease": "4s"},
    )  # fmt: skip
    runs.lay_out(directory, file=shipped_file, store=minio_store, job=asked)
    (tmp_path / "disk").mkdir()
    own_mounts = ["unshare", *([] if os.geteuid() == 0 else ["-Ur"]), "-m"]
    script = f"mount -t tmpfs -o size=100m none {tmp_path}/disk && exec sh byos-run"

    with runs.started(directory, command=[*own_mounts, "sh", "-c", script], env=run_environ()) as process:
        ready(process)
        said = next(line for line in process.stdout if "the disk of the case is full in" in line)
        until(lambda: bucket.json("out/run/_byos/status.json")["publishing"]["disk_full_in_s"] is not None)
        until(lambda: sum(outputs(bucket).values()) > 3_000_000, within_s=200)
        (directory / "go").touch()
        output = process.stdout.read()
        code = process.wait(120)

    assert code == 0, output
    assert "publish.delete_behind would remove what the bucket has" in said
