"""Results as a page (RESULTS.md) and a chart (results.svg): figures as measured, nothing left out.

The chart has one group per scenario, each to its own scale: the longest bar is the slowest contender. Its colours are readable
on light and on dark.
"""

from __future__ import annotations

import datetime
import os
import platform
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING
from xml.sax.saxutils import escape

from tests.bench import beside, many
from tests.bench.contenders import BUNDLED, OURS, PEERS, RCLONE, S5CMD, SCRIPT
from tests.bench.measure import Figure, ratio
from tests.kit import cache

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tests.bench.contenders import Bench
    from tests.bench.scenarios import Scenario

    Results = Sequence[tuple[Scenario, Sequence[Figure]]]

COLOURS = {SCRIPT: "#9a8f80", S5CMD: "#7f98b0", RCLONE: "#8aa58c", OURS: "#d9682b", BUNDLED: "#d9682b"}
BUSY_PER_CORE = 2.0
"""The race alone keeps the load of 15 minutes below this."""
INTRO = """\
# The race

Written by `make bench`; do not edit. All contenders ran against one MinIO on one machine and shared its cores with it, turn
by turn, each round beginning with another one; the first round is thrown away. Every result was counted: files on disk,
objects in the bucket.

- **script**: the original shell lines, `aws s3 cp` and `unzip`. **s5cmd**, **rclone**: the same with these tools and the settings
  their manuals give for large parts (`tests/bench/contenders.py`).
- **byos-run**: the shipped file, its start included. Outputs are measured as a whole run (start, claim, fetch of a case of one
  file, a command that moves the outputs in, publish, compare with the bucket, manifest, purge); of the tools, the upload alone.
- CPU: user and system seconds of the client and its children, the store's not. Memory: the largest process's resident set, its peak
  over all rounds.
"""


def write(path: Path, results: Results, *, bench: Bench, took_s: float) -> None:
    """Writes the page and, beside it, the chart."""
    parts = [INTRO, _machine(bench, took_s), f"![seconds per scenario]({chart_beside(path).name})\n", _ratios(results)]
    if beside.draw(bench, path.with_name("timeline.svg")):
        parts.append("![bytes written and acknowledged over one run](timeline.svg)\n")
    parts += [beside.told(results), many.told(results)]
    parts += [_table(scenario, figures) for scenario, figures in results]
    path.write_text("\n".join(parts), encoding="utf-8")
    chart_beside(path).write_text(chart(results), encoding="utf-8")


def chart_beside(page: Path) -> Path:
    """RESULTS.md → results.svg."""
    return page.with_name(f"{page.stem.lower()}.svg")


def chart(results: Results) -> str:
    """Horizontal bars of median seconds."""
    lines: list[str] = []
    top = 34
    for scenario, figures in results:
        if OURS not in scenario.who or len(figures) < 2:
            continue
        lines.append(f'<text x="8" y="{top}" class="head">{escape(scenario.title)}</text>')
        longest = max(item.seconds for item in figures)
        for item in figures:
            top += 18
            width = max(2.0, 420 * item.seconds / longest)
            weight = ' class="head"' if item.name in (OURS, BUNDLED) else ""
            lines += [
                f'<text x="82" y="{top + 4}" text-anchor="end"{weight}>{escape(item.name)}</text>',
                f'<rect x="90" y="{top - 8}" width="{width:.1f}" height="13" rx="2" fill="{COLOURS[item.name]}"/>',
                f'<text x="{96 + width:.1f}" y="{top + 4}"{weight}>{item.seconds:.2f} s</text>',
            ]
        top += 34
    body = "\n".join(lines)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="600" height="{top}" viewBox="0 0 600 {top}" role="img">\n'
        "<title>Median seconds, less is better; each group to its own scale</title>\n"
        "<style>text{font:12px system-ui,sans-serif;fill:#808080}.head{font-weight:600}</style>\n"
        '<text x="8" y="14">median seconds, less is better; each group to its own scale</text>\n'
        f"{body}\n</svg>\n"
    )


def _ratios(results: Results) -> str:
    rows = ["## How many times as fast\n", "| | script | best peer | CPU of the script's |", "|---|---|---|---|"]
    for scenario, figures in results:
        by_name = {item.name: item for item in figures}
        if OURS not in by_name or SCRIPT not in by_name:
            continue
        ours, script = by_name[OURS], by_name[SCRIPT]
        peers = [by_name[name] for name in PEERS if name in by_name]
        best = min(peers, key=lambda item: item.seconds, default=None)
        against = f"{ratio(best, ours):.1f} × ({best.name})" if best else "–"
        rows.append(f"| {scenario.title} | {ratio(script, ours):.1f} × | {against} | {ours.cpu_s / script.cpu_s:.0%} |")
        if bundled := by_name.get(BUNDLED):
            cpu = f"{bundled.cpu_s / script.cpu_s:.0%}"
            rows.append(f"| … the same {BUNDLED} | {ratio(script, bundled):.1f} × | – | {cpu} |")
        if ours.beside_s:
            share = ours.beside_s / script.beside_s
            rows.append(f"| … the same without the solver's seconds | {1 / share:.1f} × ({share:.0%}) | – | – |")
    return "\n".join([*rows, ""]) if len(rows) > 3 else ""


def _table(scenario: Scenario, figures: Sequence[Figure]) -> str:
    beside = any(item.beside_s for item in figures)
    rows = [
        f"## {scenario.title}\n",
        f"| | median | fastest – slowest |{' without the solver |' if beside else ''} CPU | peak memory | rounds |",
        f"|---|---:|---:|{'---:|' if beside else ''}---:|---:|---:|",
    ]
    for item in figures:
        without = f" {item.beside_s:.2f} s |" if beside else ""
        rows.append(
            f"| {item.name} | {item.seconds:.2f} s | {item.least_s:.2f} – {item.most_s:.2f} s |{without}"
            f" {item.cpu_s:.2f} s | {item.peak_bytes / 2**20:.0f} MiB | {item.rounds} |"
        )
    return "\n".join([*rows, ""])


def _machine(bench: Bench, took_s: float) -> str:
    model = next(
        (line.partition(":")[2].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line),
        platform.machine(),
    )  # fmt: skip
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    busy = os.getloadavg()[2] > BUSY_PER_CORE * (os.cpu_count() or 1)
    warning = "\n**The machine was busy with other work meanwhile: run it again on a quiet one.**\n" if busy else ""
    today = datetime.datetime.now(datetime.timezone.utc).date()
    versions = ", ".join(f"{name} {said}" for name, said in _versions(bench).items())
    return (
        f"{today}, {took_s / 60:.0f} minutes; {os.cpu_count()} cores ({model}), {memory:.0f} GiB, Linux {platform.release()};"
        f" load at the end {load}.\n{versions}.\n{warning}"
    )


def _versions(bench: Bench) -> Mapping[str, str]:
    peers = cache.get("peers") / "bin"
    python = ["python3", "--version"]
    asked = {
        "Python": python,
        "AWS CLI": [str(peers / "aws"), "--version"],
        "s5cmd": [str(peers / "s5cmd"), "version"],
        "rclone": [str(peers / "rclone"), "version"],
        "byos-run": ["sh", str(bench.file), "--version"],
    }
    found = {"MinIO": bench.store.version}
    for name, command in asked.items():
        done = subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
        first_line = (done.stdout or done.stderr).partition("\n")[0]
        found[name] = next((word.rpartition("/")[2] for word in first_line.split() if "." in word), "?")
    return found
