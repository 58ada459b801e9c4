"""What is raced: each scenario is a function from a contender and a round's number to a Cost, with its result looked at.

What a contender left on disk or in the bucket is counted after the clock has stopped. Outputs go to a fresh prefix; large
ones are deleted, small ones stay to the end. Unpacked files are emptied and put aside until the end: ext4 without a
journal does not use an inode again for minutes after it was freed, and looks at every such one for each new file
(``recently_deleted`` in the kernel's fs/ext4/ialloc.c), so that 2,000 deleted files would cost whoever comes next, or the
store, up to two seconds of system time.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any, Callable, NamedTuple

from tests.bench import contenders, data, measure
from tests.bench.contenders import ALL, BUNDLED, OURS, SCRIPT, Bench
from tests.faults.proxy import FaultProxy
from tests.faults.rules import Link
from tests.kit import runs

LINK = Link(bits_per_s=200e6, latency_s=0.04)
_MANY = 1000
SECONDS_FILE = "solver.seconds"
WHOLE_JOB = (
    "{bring}; unzip -q case.zip; rm case.zip; from=$(date +%s.%N); {solver} > solver.log; to=$(date +%s.%N);"
    " {send}; echo $from $to > ../{seconds}; cd ..; rm -r case"
)
SOLVER = ["mpirun", "-np", "8", "lmp", "-in", "in.case"]


class Scenario(NamedTuple):
    name: str
    title: str
    who: tuple[str, ...]
    once: Callable[[Bench, str, int], measure.Cost]
    """Measures one contender in one round."""
    inputs: tuple[str, ...] = ()
    """Data files that lie in the bucket."""


def fetching(zip_name: str, *, files: int) -> Callable[[Bench, str, int], measure.Cost]:
    """Stage-in of one zip: the command ends with `files` files in place and no zip."""

    def once(bench: Bench, name: str, turn: int) -> measure.Cost:
        place = _fresh(bench, f"in-{turn}")
        env = contenders.environment(bench)
        cost = measure.run(contenders.stage_in(bench, name, zip_name), cwd=place, env=env, log=bench.place / "log")
        found = _emptied_files(place / "case")
        place.rename(_aside(bench) / f"{name}-{zip_name}-{turn}")
        _expect(found, files, f"{name}: files unpacked")
        return cost

    return once


def over_link(bench: Bench, name: str, turn: int) -> measure.Cost:
    """The deflated zip over a link of 200 Mbit/s with 40 ms before each answer: 4.8 s for its bytes alone."""
    with FaultProxy(bench.store, link=LINK) as proxy:
        far = bench._replace(store=bench.store._replace(endpoint_url=proxy.endpoint_url))
        return fetching("deflated.zip", files=data.SMALL_FILES + 1)(far, name, turn)


def sending(tree: str, *, files: int) -> Callable[[Bench, str, int], measure.Cost]:
    """Outputs after the fact: for the tools the upload alone, for us a whole run whose command moves the files in."""

    def once(bench: Bench, name: str, turn: int) -> measure.Cost:
        place, prefix = _fresh(bench, f"out-{turn}"), f"out/{tree}/{turn}/{name}/"
        made = place.parent / "made" / "tree"
        shutil.rmtree(made.parent, ignore_errors=True)
        made.mkdir(parents=True)
        for entry in os.scandir(bench.data / tree):
            os.link(entry.path, made / entry.name)
        log = bench.place / "log"
        if name in (OURS, BUNDLED):
            command = ["mv", str(made), "."]
            asked = contenders.job(bench, key="tiny.zip", prefix=prefix, command=command)
            asked = {**asked, "publish": {"bundle": ["**"]}} if name == BUNDLED else asked
            runs.lay_out(place, file=bench.file, store=bench.store, job=asked)
            cost = measure.run(["sh", "byos-run"], cwd=place, env=contenders.on_platform(bench), log=log)
            _expect(os.listdir(place), [], f"{name}: left in the run directory")
        else:
            shell = ["sh", "-ec", contenders.upload(bench, name, prefix)]
            cost = measure.run(shell, cwd=made, env=contenders.environment(bench), log=log)
        shutil.rmtree(place)
        keys = _keys(bench, prefix)
        found = (
            len(_manifest(bench, prefix)["outputs"]) if name == BUNDLED else sum("/_byos/" not in key for key in keys)
        )
        _expect(found, files, f"{name}: outputs")
        if files < _MANY:
            _delete(bench, keys)
        return cost

    return once


def whole_job(bench: Bench, name: str, turn: int) -> measure.Cost:
    """The smoke's copper case from the bucket and back: 8 ranks of LAMMPS. Ours sends what the solver wrote, the script all."""
    place, prefix, log = _fresh(bench, f"job-{turn}"), f"out/job/{turn}/{name}/", bench.place / "log"
    if name == OURS:
        asked = contenders.job(bench, key="copper.zip", prefix=prefix, command=SOLVER)
        runs.lay_out(place, file=bench.file, store=bench.store, job=asked)
        cost = measure.run(["sh", "byos-run"], cwd=place, env=contenders.on_platform(bench), log=log)
        solver_s = _manifest(bench, prefix)["solver"]["seconds"]
    else:
        line = WHOLE_JOB.format(
            bring=contenders.download(bench, name, "copper.zip"), solver=" ".join(SOLVER),
            send=contenders.upload(bench, name, prefix), seconds=SECONDS_FILE,
        )  # fmt: skip
        shell = ["sh", "-ec", f"mkdir case; cd case; {line}"]
        cost = measure.run(shell, cwd=place, env=contenders.environment(bench), log=log)
        begun, ended = (place / SECONDS_FILE).read_text(encoding="ascii").split()
        solver_s = float(ended) - float(begun)
    shutil.rmtree(place)
    _delete(bench, _keys(bench, prefix))
    return cost._replace(beside_s=cost.seconds - solver_s)


STARTS = ("python3", "--version", "to job settled", "8 at once")


def starting(bench: Bench, name: str, turn: int) -> measure.Cost:
    """The interpreter alone; `--version`; up to "job settled" (a job file with an unknown key: 64); eight of these at once."""
    place = _fresh(bench, f"start-{turn}")
    runs.lay_out(place, file=bench.file, store=bench.store, job={"no_such_key": 1})
    eight = "for each in 1 2 3 4 5 6 7 8; do sh byos-run & done; wait"
    argv, code = {
        "python3": (["python3", "-E", "-S", "-s", "-c", "pass"], 0),
        "--version": (["sh", "byos-run", "--version"], 0),
        "to job settled": (["sh", "byos-run"], 64),
        "8 at once": (["sh", "-c", eight], 0),
    }[name]
    env = {**contenders.environment(bench), **({} if name == "python3" else {"RESCALE_JOB_ID": ""})}
    cost = measure.run(argv, cwd=place, env=env, log=bench.place / "log", code=code)
    shutil.rmtree(place)
    return cost


SCENARIOS = (
    Scenario("deflated", "stage-in, deflated zip, 320 MB, 2,001 files", ALL,
             fetching("deflated.zip", files=data.SMALL_FILES + 1), ("deflated.zip",)),
    Scenario("stored", "stage-in, stored zip, 1 GiB, 8 files", ALL,
             fetching("stored.zip", files=data.STORED_MEMBERS), ("stored.zip",)),
    Scenario("link", "stage-in, deflated zip over 200 Mbit/s and 40 ms", ALL, over_link, ("deflated.zip",)),
    Scenario("small", "2,000 outputs of 100 KiB", (*ALL, BUNDLED), sending("small", files=data.SMALL_FILES), ("tiny.zip",)),
    Scenario("large", "16 outputs of 128 MiB, 2 GiB", ALL, sending("large", files=data.LARGE_FILES), ("tiny.zip",)),
    Scenario("job", "whole job: copper, 8 ranks of LAMMPS", (SCRIPT, OURS), whole_job, ("copper.zip",)),
    Scenario("starts", "starts of the shipped file", STARTS, starting),
)  # fmt: skip
DEFAULT = ("deflated", "stored", "small", "large", "job", "starts")


def bring_inputs(bench: Bench, client: Any, names: set[str]) -> None:
    """Puts the zips that the scenarios read into the bucket."""
    for name in sorted(names):
        client.upload_file(str(bench.data / name), bench.bucket, name)


def _fresh(bench: Bench, name: str) -> Path:
    place = bench.place / name
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir()
    return place


def _aside(bench: Bench) -> Path:
    place = bench.place / "done"
    place.mkdir(exist_ok=True)
    return place


def _emptied_files(tree: Path) -> int:
    """Frees the room of all files below a tree, which stay; returns how many there are."""
    paths = [Path(top, name) for top, _, names in os.walk(tree) for name in names]
    for path in paths:
        os.truncate(path, 0)
    return len(paths)


def _manifest(bench: Bench, prefix: str) -> Any:
    client = bench.store.client()
    body = client.get_object(Bucket=bench.bucket, Key=f"{prefix}_byos/manifest.json")["Body"].read()
    client.close()
    return json.loads(body)


def _keys(bench: Bench, prefix: str) -> list[str]:
    client = bench.store.client()
    pages = client.get_paginator("list_objects_v2").paginate(Bucket=bench.bucket, Prefix=prefix)
    keys = [item["Key"] for page in pages for item in page.get("Contents", [])]
    client.close()
    return keys


def _delete(bench: Bench, keys: list[str]) -> None:
    client = bench.store.client()
    for start in range(0, len(keys), 1000):
        doomed = [{"Key": key} for key in keys[start : start + 1000]]
        client.delete_objects(Bucket=bench.bucket, Delete={"Objects": doomed, "Quiet": True})
    client.close()


def _expect(found: object, wanted: object, what: str) -> None:
    if found != wanted:
        raise RuntimeError(f"{what}: {found}, not {wanted}")
