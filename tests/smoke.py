"""The main job on real parts, for a newcomer: `make smoke`.

    tools -> the one file -> a store with two case zips -> the table and the template of a DOE -> two runs at once, each with
    an 8-rank MPI solver, as the platform starts them -> what is in the bucket, the seconds, what is left on the node

Starts on any Python 3.9; once the tools are there it goes on in their Python. Everything is looked at from outside: the
bucket by a client of its own, the run directories and the processes by the operating system. Exit 1 and the reasons if
anything is not as promised. Everything that was started or written is gone at the end, but for the cache.
"""

from __future__ import annotations

import csv
import os
import signal
import string
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

TOP = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(TOP))

# After the path above, as the script may be started from anywhere; tests.kit.stores needs boto3 and waits for its Python.
from tests.kit import cache, cases, runs  # noqa: E402  see above
from tests.kit.verdict import BUCKET, RANKS, Outcome, Seen, alive, check_outputs, listing, read_json  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tests.kit.stores import Store

MARK = "byos-run | "
SHOWN_LINES = 30
TEMPLATE = """\
input   = "${s3_input}"
output  = "${s3_output}"
command = "mpirun -np {cores} lmp -in in.case"

[store]
endpoint_url = "%s"
"""
TABLE = [
    {"s3_input": f"s3://{BUCKET}/input/copper.zip", "s3_output": f"s3://{BUCKET}/output/copper/"},
    {"s3_input": f"s3://{BUCKET}/input/chute.zip", "s3_output": f"s3://{BUCKET}/output/chute/"},
]


class Steps:
    """Numbered lines of the form ` 2  file     dist/byos-run, 10.4 MiB    3.2 s`."""

    def __init__(self, first: int) -> None:
        self._number = first
        self._started = time.monotonic()

    def done(self, name: str, *lines: str) -> None:
        """Ends a step: its lines, with the seconds since the last one."""
        now = time.monotonic()
        print(f" {self._number}  {name:<8} {lines[0]:<92} {now - self._started:6.1f} s", flush=True)
        for line in lines[1:]:
            print(f"{'':13}{line}", flush=True)
        self._number += 1
        self._started = now


def main(arguments: Sequence[str]) -> int:
    """`--inside SECONDS`: the tools are there since so many seconds, and this is their Python."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # unwinds: the store and the runs stop with us
    if "--inside" not in arguments:
        bring_tools()
    started = time.monotonic() - float(arguments[1])
    try:
        return job(started)
    except RuntimeError as error:  # the file cannot be built, or no store comes up: its text says what to look at
        print(error, file=sys.stderr)
        return 1


def bring_tools() -> None:
    """Brings the tools, then becomes their Python."""
    print(
        "byos-run: two runs of a design of experiments on this machine, each with a real 8-rank MPI solver\n",
        flush=True,
    )
    started = time.monotonic()
    steps = Steps(1)
    try:
        cache.bring(("minio", "dev", "mpich"))
        python = cache.get("dev") / "bin" / "python"
    except cache.CacheError as error:
        print(error, file=sys.stderr)
        raise SystemExit(1) from None
    steps.done("tools", f"{cache.store().name}, MPICH and LAMMPS in {cache.root()}")
    took = str(time.monotonic() - started)
    os.execv(python, [str(python), str(Path(__file__).resolve()), "--inside", took])


def job(started: float) -> int:
    """Everything from the file on. Returns the exit code."""
    from tests.kit import stores

    steps = Steps(2)
    file = runs.shipped_file()
    steps.done("file", f"dist/byos-run, {file.stat().st_size / 2**20:.1f} MiB")
    with ExitStack() as stack:
        place = stack.enter_context(stores.scratch())
        (place / "store").mkdir()
        store = stack.enter_context(stores.any_store(place / "store"))
        client = store.client()
        stack.callback(client.close)
        client.create_bucket(Bucket=BUCKET)
        steps.done("store", f"{store.name} {store.version} at {store.endpoint_url}, bucket {BUCKET}")
        steps.done("input", *put_cases(client, place / "input"))
        steps.done("doe", *write_doe(place / "doe", store))
        outcomes = run_all(place, file=file, store=store)
        steps.done("runs", *(f"{item.name:<7} exit {item.ran.code} after {item.seconds:.1f} s" for item in outcomes))
        problems = show(client, outcomes, store=store, place=place)
    for problem in problems:
        print(f"NOT AS PROMISED: {problem}")
    print(f"\n{'Not all is' if problems else 'All'} as promised. {time.monotonic() - started:.0f} s in all.")
    return 1 if problems else 0


def put_cases(client: Any, directory: Path) -> list[str]:
    """Makes both case zips and puts them into the bucket."""
    lines = []
    for make, what in (
        (cases.copper, "bulk copper, 604 files"),
        (cases.chute, "granular flow, 4 files in one directory"),
    ):
        path = make(directory / f"{make.__name__}.zip")
        client.put_object(Bucket=BUCKET, Key=f"input/{path.name}", Body=path.read_bytes())
        lines.append(f"s3://{BUCKET}/input/{path.name}  {path.stat().st_size / 1e6:.1f} MB: {what}")
    return lines


def write_doe(directory: Path, store: Store) -> list[str]:
    """Writes what a user uploads besides `byos-run`: inputs.csv, byos.toml.template, config. Returns lines that show it."""
    directory.mkdir()
    template = TEMPLATE % store.endpoint_url
    (directory / "byos.toml.template").write_text(template, encoding="utf-8")
    (directory / "config").write_text(runs.config_text(store), encoding="utf-8")
    with open(directory / "inputs.csv", "w", encoding="utf-8", newline="") as table:
        writer = csv.DictWriter(table, fieldnames=list(TABLE[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(TABLE)
    lines = ["inputs.csv, byos.toml.template and config, as the user uploads them with byos-run"]
    for name in ("inputs.csv", "byos.toml.template"):
        text = (directory / name).read_text(encoding="utf-8")
        lines += [f"{name}:", *(f"  | {line}" for line in text.splitlines() if line)]
    return lines


def run_all(place: Path, *, file: Path, store: Store) -> list[Outcome]:
    """Does what the platform does: one directory per row, template rendered, both started at once, `sh byos-run`."""
    (place / "home").mkdir()
    env = {
        "PATH": f"{cache.get('mpich') / 'bin'}:{os.environ['PATH']}",
        "HOME": str(place / "home"),
        "LANG": "C.UTF-8",
        "RESCALE_JOB_ID": "smoke",
        "RESCALE_CLUSTER_ID": "smoke",
        "RESCALE_CORES_PER_SLOT": str(RANKS),
        **cases.RANKS_SHARE_CORES,
    }
    with open(place / "doe" / "inputs.csv", encoding="utf-8", newline="") as table:
        rows = list(csv.DictReader(table))
    template = (place / "doe" / "byos.toml.template").read_text(encoding="utf-8")
    with ExitStack() as stack:
        going = []
        for number, row in enumerate(rows, start=1):
            directory = place / f"run{number}"
            rendered = string.Template(template).substitute(row)
            runs.lay_out(directory, file=file, store=store, job=rendered)
            log = stack.enter_context(open(place / f"run{number}.log", "w+b"))
            at_start = sorted(os.listdir(directory))
            process = stack.enter_context(runs.started(directory, env=env, stdout=log, stderr=log))
            going.append((directory, at_start, process, time.monotonic()))
        return watch(going)


def watch(going: Sequence[tuple[Path, list[str], Any, float]]) -> list[Outcome]:
    """Looks at the run directories every 50 ms until all runs have ended."""
    met: dict[Path, set[str]] = {directory: set() for directory, *_ in going}
    gone: dict[Path, float] = {}
    ended: dict[Path, float] = {}
    while len(ended) < len(going):
        for directory, _, process, started in going:
            if directory in ended:
                continue
            if process.poll() is not None:
                ended[directory] = time.monotonic() - started
            names = os.listdir(directory)
            if "config" not in names:
                gone.setdefault(directory, time.monotonic() - started)
            met[directory].update(names)
        time.sleep(0.05)  # outsiders have nothing to wait on: they look
    outcomes: list[Outcome] = []
    for directory, at_start, process, _ in going:
        output = (directory.parent / f"{directory.name}.log").read_text(encoding="utf-8", errors="replace")
        ran = runs.Ran(process.returncode, output, "", directory)
        name = TABLE[len(outcomes)]["s3_output"].rstrip("/").rpartition("/")[2]
        outcomes.append(
            Outcome(
                name, ran, ended[directory], Seen(at_start, sorted(met[directory] - {*at_start}), gone.get(directory))
            )
        )
    return outcomes


def show(client: Any, outcomes: Sequence[Outcome], *, store: Store, place: Path) -> list[str]:
    """Prints what a user wants to see; returns what is not as promised."""
    problems = []
    phases: dict[str, Mapping[str, float]] = {}
    for item in outcomes:
        objects = listing(client, f"output/{item.name}/")
        print(f"\nIn the bucket: s3://{BUCKET}/output/{item.name}/")
        for name, size in objects.items():
            print(f"  {size:>12,}  {name}")
        problems += check_outputs(client, item, objects, secret=store.secret_key)
        manifest = read_json(client, f"output/{item.name}/_byos/manifest.json")
        phases[item.name] = {phase["name"]: phase["seconds"] for phase in manifest.get("phases", [])}
    print("\nWhat byos-run said in run1, apart from the solver's lines")
    said = [line for line in outcomes[0].ran.output.splitlines() if line.startswith(MARK)]
    for line in said[:SHOWN_LINES]:
        print(f"  {line}")
    names = list(dict.fromkeys(name for row in phases.values() for name in row))
    print(f"\nSeconds   {''.join(f'{name:>10}' for name in names)}{'whole run':>12}")
    for item in outcomes:
        cells = "".join(f"{phases[item.name].get(name, 0):10.2f}" for name in names)
        print(f"  {item.name:<8}{cells}{item.seconds:12.2f}")
    print("\nLeft on the node")
    for item in outcomes:
        left = sorted(os.listdir(item.ran.directory))
        print(f"  {item.ran.directory.name}  {', '.join(left) if left else 'nothing'}")
        problems += [f"{item.name}: still in the run directory: {', '.join(left)}"] if left else []
    seen = outcomes[0].seen
    gone = "never" if seen.config_gone_s is None else f"{seen.config_gone_s:.1f} s after the start"
    print("  As the platform saw run1 (RESCALE_JOB_ID is set for both):")
    print(f"    at the start {', '.join(seen.at_start)}; config gone {gone};")
    print(f"    for a while {', '.join(seen.while_running) or 'nothing else'};")
    left = sorted(os.listdir(outcomes[0].ran.directory))
    print(f"    at the end {', '.join(left) or 'nothing'}, so it saves {len(left) or 'nothing'} into its own storage")
    if seen.config_gone_s is None:
        problems.append("config was never removed")
    return problems + [f"still running: {line}" for line in alive(place)]


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
