"""What happens beside the solver: how much is left when it ends, what it loses to us, what we cost while nothing happens.

tail      eight MPI ranks write 1 GiB and 500 small files evenly over 20 s (`writer.py`, settled after 2 s); seconds from the
          solver's end to the last acknowledgement, against the script's upload of the same files
slowdown  one rank computes a fixed sum, in pairs: with 1 GiB that leaves meanwhile, and with nothing to do; the store, which on a
          real node is elsewhere, is kept on one of the cores, and we are not
idle      half a minute beside a command that sleeps on a tree of 10,000 files: processor seconds and memory (PSS) of our processes

One run of `tail` is drawn as timeline.svg.
"""

from __future__ import annotations

import json
import os
import shutil
import time
import zipfile
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

import psutil
from tests.bench import contenders, data, measure
from tests.bench.contenders import SCRIPT
from tests.bench.scenarios import Scenario, _aside, _delete, _expect, _fresh, _keys
from tests.kit import cache, runs

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from tests.bench.contenders import Bench
    from tests.bench.measure import Cost, Figure

TAIL, ALONE, PUBLISHING, IDLE = "tail", "alone", "publishing", "idle"
SECONDS, LARGE, SMALL = 20.0, 8, 500
OUTPUT_BYTES = LARGE * data.LARGE_BYTES + SMALL * data.SMALL_BYTES
WRITER = runs.TOP / "tests" / "bench" / "writer.py"
COMPUTE = "import time; t = time.perf_counter(); n = 0\nfor i in range({}): n += i * i\nprint('computed', time.perf_counter() - t)"
TURNS = 120_000_000
IDLE_S = 30.0
TREE_FILES = 10_000


class Timeline(NamedTuple):
    """One run of `tail`; seconds since the solver began."""

    solver_s: float
    written: Sequence[tuple[float, int]]
    """When each file was whole, and its bytes."""
    acknowledged: Sequence[tuple[float, int]]


def tail(bench: Bench, name: str, turn: int) -> Cost:
    """Ours: what is left after the solver. The script: all of it."""
    place, prefix = _fresh(bench, f"tail-{turn}"), f"out/tail/{turn}/{name}/"
    log = bench.place / "log"
    if name == SCRIPT:
        for tree, count in (("large", LARGE), ("small", SMALL)):
            for number in range(count):
                os.link(bench.data / tree / f"out{number:04d}.dat", place / f"{tree}{number:04d}.dat")
        shell = ["sh", "-ec", contenders.upload(bench, name, prefix)]
        cost = measure.run(shell, cwd=place, env=contenders.environment(bench), log=log)
    else:
        numbers = [SECONDS, data.LARGE_BYTES, SMALL, data.SMALL_BYTES]
        python = str(cache.get("mpich") / "bin" / "python")
        command = ["mpirun", "-np", "8", python, str(WRITER), *map(str, numbers)]
        cost = _run(bench, place, prefix=prefix, command=command, publish={"settle": "2s"})
        manifest = _json(bench, f"{prefix}_byos/manifest.json")
        began_s, solver_s = manifest["solver"]["started_at"], manifest["solver"]["seconds"]
        publish = next(phase for phase in manifest["phases"] if phase["name"] == "publish")
        cost = cost._replace(seconds=publish["started_at"] + publish["seconds"] - began_s - solver_s)
        drawn = _timeline(bench, prefix, began_s=began_s, solver_s=solver_s)
        (bench.place / "timeline.json").write_text(json.dumps(drawn), encoding="utf-8")
    shutil.rmtree(place)
    _expect(_outputs(bench, prefix), LARGE + SMALL, f"{name}: objects")
    return cost


def slowdown(bench: Bench, name: str, turn: int) -> Cost:
    """Seconds that the same sum took, by the solver's own clock."""
    place, prefix = _fresh(bench, f"slow-{turn}"), f"out/slow/{turn}/{name}/"
    made = bench.place / "made"
    shutil.rmtree(made, ignore_errors=True)
    (made / "tree").mkdir(parents=True)
    if name == PUBLISHING:
        for number in range(LARGE):
            os.link(bench.data / "large" / f"out{number:04d}.dat", made / "tree" / f"out{number:04d}.dat")
    command = ["sh", "-ec", f'mv {made}/tree .; exec python3 -c "$0"', COMPUTE.format(TURNS)]
    with _store_on_one_core(bench):
        cost = _run(bench, place, prefix=prefix, command=command, publish={"settle": "0.5s"})
    said = _body(bench, f"{prefix}_byos/solver.log").split()
    shutil.rmtree(place)
    _expect(_outputs(bench, prefix), LARGE if name == PUBLISHING else 0, f"{name}: objects")
    return cost._replace(seconds=float(said[1]))


def idle(bench: Bench, name: str, turn: int) -> Cost:
    """Our processes in half a minute: seconds watched, processor seconds, memory as PSS."""
    place, prefix = _fresh(bench, f"idle-{turn}"), f"out/idle/{turn}/"
    client = bench.store.client()
    client.upload_file(str(_tree(bench)), bench.bucket, "tree.zip")
    client.close()
    command = ["sh", "-c", f"echo begins; exec sleep {IDLE_S + 10}"]
    asked = {**contenders.job(bench, key="tree.zip", prefix=prefix, command=command), "purge": {"when": "never"}}
    runs.lay_out(place, file=bench.file, store=bench.store, job=asked)
    with runs.started(place, env=contenders.on_platform(bench)) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line == "begins\n":
                break
        time.sleep(5)  # the first looks are more than the later ones
        ours = [each for each in _family(process.pid) if each.name() != "sleep"]
        before, began_s = _cpu_s(ours), time.monotonic()
        time.sleep(IDLE_S)
        watched_s, used_s = time.monotonic() - began_s, _cpu_s(ours) - before
        memory = sum(each.memory_full_info().pss for each in ours)
        output, error = process.communicate(timeout=measure.LONGEST_S)
        _expect(process.returncode, 0, f"{name}: exit, having said {output[-300:]}{error}")
    place.rename(_aside(bench) / f"{name}-{turn}")
    return measure.Cost(watched_s, used_s, memory)


@contextmanager
def _store_on_one_core(bench: Bench) -> Iterator[None]:
    cores = os.sched_getaffinity(0)
    _keep(bench.store.pid, on={max(cores)})
    try:
        yield
    finally:
        _keep(bench.store.pid, on=cores)


def _keep(pid: int, *, on: set[int]) -> None:
    """All threads of a process, and those that they start."""
    for thread in psutil.Process(pid).threads():
        os.sched_setaffinity(thread.id, on)


SCENARIOS = (
    Scenario(TAIL, "1 GiB and 500 small outputs written over 20 s by 8 ranks: after the solver's end", (SCRIPT, TAIL), tail,
             ("tiny.zip",)),
    Scenario("slowdown", "a fixed sum by one rank, alone and while 1 GiB leaves", (ALONE, PUBLISHING), slowdown, ("tiny.zip",)),
    Scenario(IDLE, "30 s of a run in which nothing happens, tree of 10,000 files", (IDLE,), idle),
)  # fmt: skip


def told(results: Sequence[tuple[Scenario, Sequence[Figure]]]) -> str:
    """The figures as shares, for the page; "" if none of these scenarios was run."""
    by_name = {scenario.name: {item.name: item for item in figures} for scenario, figures in results}
    rows = []
    if TAIL in by_name:
        left, script = by_name[TAIL][TAIL], by_name[TAIL][SCRIPT]
        share = left.seconds / script.seconds
        rows.append(f"| tail after the solver | {left.seconds:.2f} s, {share:.1%} of the script's upload | ≤ 10 % |")
    if "slowdown" in by_name:
        with_us, alone = by_name["slowdown"][PUBLISHING], by_name["slowdown"][ALONE]
        rows.append(f"| solver slower while publishing | {with_us.seconds / alone.seconds - 1:+.2%} | ≤ 2 % |")
    if IDLE in by_name:
        still = by_name[IDLE][IDLE]
        rows.append(f"| idle: share of one core | {still.cpu_s / still.seconds:.2%} | ≤ 0.5 % |")
        rows.append(f"| idle: memory (PSS) | {still.peak_bytes / data.MEBI:.0f} MiB | ≤ 80 MiB |")
    head = ["## Beside the solver\n", "| | | must |", "|---|---|---|"]
    return "\n".join([*head, *rows, ""]) if rows else ""


def drawing(line: Timeline) -> str:
    """The timeline as SVG: the solver, bytes written and acknowledged as steps, the tail shaded."""
    left, top, width, height = 60, 40, 640, 220
    end_s = max([line.solver_s, *(at for at, _ in line.acknowledged)]) * 1.03
    whole = sum(size for _, size in line.written)

    def x(at_s: float) -> float:
        return left + width * at_s / end_s

    def y(size: float) -> float:
        return top + height * (1 - size / whole)

    def steps(marks: Sequence[tuple[float, int]]) -> str:
        path, total = f"M{x(0):.1f},{y(0):.1f}", 0
        for at, size in sorted(marks):
            total += size
            path += f"H{x(at):.1f}V{y(total):.1f}"
        return f"{path}H{x(end_s):.1f}"

    last_s, base = max(at for at, _ in line.acknowledged), top + height
    tail_s = last_s - line.solver_s
    ticks = "".join(
        f'<text x="{x(at):.1f}" y="{base + 32}" text-anchor="middle">{at} s</text>'
        for at in range(0, int(end_s) + 1, 5)
    )
    title = f"Bytes written by the solver and acknowledged by the store over one run; the tail took {tail_s:.2f} s"
    shade = (
        f'x="{x(line.solver_s):.1f}" y="{top}" width="{max(1.0, x(last_s) - x(line.solver_s)):.1f}" height="{height}"'
    )
    frame = f'width="720" height="{base + 44}" viewBox="0 0 720 {base + 44}"'
    return "\n".join([
        f'<svg xmlns="http://www.w3.org/2000/svg" {frame} role="img">',
        f"<title>{title}</title>",
        "<style>text{font:12px system-ui,sans-serif;fill:#808080}path{fill:none;stroke-width:2}</style>",
        f'<rect {shade} fill="#d9682b" opacity="0.25"/>',
        f'<path d="{steps(line.written)}" stroke="#7f98b0"/>',
        f'<path d="{steps(line.acknowledged)}" stroke="#d9682b"/>',
        f'<rect x="{left}" y="{base + 6}" width="{x(line.solver_s) - left:.1f}" height="8" fill="#8aa58c"/>',
        f'<text x="{left}" y="16" style="fill:#7f98b0">written: {whole / 2**30:.2f} GiB</text>',
        f'<text x="{left + 160}" y="16" style="fill:#d9682b">acknowledged; tail {tail_s:.2f} s</text>',
        f'<text x="{left + 380}" y="16" style="fill:#8aa58c">solver: {line.solver_s:.1f} s</text>',
        f'<text x="{left - 8}" y="{top + 8}" text-anchor="end">all</text>',
        f'<text x="{left - 8}" y="{base}" text-anchor="end">0</text>',
        f"{ticks}\n</svg>\n",
    ])  # fmt: skip


def draw(bench: Bench, path: Path) -> bool:
    """Writes the picture of the newest run of `tail`, if there was one."""
    drawn = bench.place / "timeline.json"
    if drawn.exists():
        path.write_text(drawing(Timeline(*json.loads(drawn.read_text(encoding="utf-8")))), encoding="utf-8")
    return drawn.exists()


def _run(bench: Bench, place: Path, *, prefix: str, command: list[str], **more: Mapping[str, Any]) -> Cost:
    asked = {**contenders.job(bench, key="tiny.zip", prefix=prefix, command=command), **more}
    runs.lay_out(place, file=bench.file, store=bench.store, job=asked)
    return measure.run(["sh", "byos-run"], cwd=place, env=contenders.on_platform(bench), log=bench.place / "log")


def _timeline(bench: Bench, prefix: str, *, began_s: float, solver_s: float) -> Timeline:
    lines = [line.split() for line in _body(bench, f"{prefix}_byos/solver.log").splitlines()]
    client = bench.store.client()
    pages = client.get_paginator("list_objects_v2").paginate(Bucket=bench.bucket, Prefix=prefix)
    acknowledged = [
        (item["LastModified"].timestamp() - began_s, item["Size"])
        for page in pages
        for item in page.get("Contents", [])
        if "/_byos/" not in item["Key"]
    ]
    client.close()
    return Timeline(solver_s, [(float(at) - began_s, int(size)) for at, size in lines], acknowledged)


def _outputs(bench: Bench, prefix: str) -> int:
    """How many there are; the large ones make room for the next round."""
    keys = [key for key in _keys(bench, prefix) if "/_byos/" not in key]
    _delete(bench, [key for key in keys if "small" not in key])
    return len(keys)


def _body(bench: Bench, key: str) -> str:
    client = bench.store.client()
    content: bytes = client.get_object(Bucket=bench.bucket, Key=key)["Body"].read()
    client.close()
    return content.decode()


def _json(bench: Bench, key: str) -> Any:
    return json.loads(_body(bench, key))


def _tree(bench: Bench) -> Path:
    path = bench.place / "tree.zip"
    if not path.exists():
        with zipfile.ZipFile(path, "w") as archive:
            for number in range(TREE_FILES):
                archive.writestr(f"d{number // 25:03d}/f{number:05d}.dat", b"x" * 100)
    return path


def _family(pid: int) -> list[psutil.Process]:
    top = psutil.Process(pid)
    return [top, *top.children(recursive=True)]


def _cpu_s(processes: Sequence[psutil.Process]) -> float:
    return sum(each.cpu_times().user + each.cpu_times().system for each in processes)
