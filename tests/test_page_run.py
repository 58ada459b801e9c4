"""The page of a run, made from values: well-formed, inert, self-contained, small, and true to the manifest."""

from __future__ import annotations

import re
import time
from typing import Any

import pytest
from tests.kit.pages import Page

from byos_run.page.chart import Series
from byos_run.page.run import MOST_BYTES, Told, run_page
from byos_run.page.samples import Drawn

PLACE = "s3://data/out/hsdi/"
EVIL = "<script>alert(1)</script>\x1b[2J\u202e\"'>.h5"


def phase(name: str, started_at: float, seconds: float, size: int = 0) -> dict[str, Any]:
    return {"name": name, "started_at": started_at, "seconds": seconds, "bytes": size, "files": 1}


def manifest(**parts: Any) -> dict[str, Any]:
    outputs = [
        {"path": f"out/{n}.h5", "key": f"out/hsdi/out/{n}.h5", "bytes": 1000 * n, "crc32": "AAAAAA==", "mtime": 1.7e9 + n,
         "seconds": 0.25}
        for n in range(5)
    ]  # fmt: skip
    return {
        "schema": 1, "run_id": "0" * 32, "attempt": 1, "status": "complete", "exit_code": 0, "exit_code_is": "byos-run's",
        "error": None, "started_at": 1.7e9, "ended_at": 1.7e9 + 100, "outputs": outputs, "command": ["solver"],
        "inputs": [{"url": "s3://data/in/a.zip", "bytes": 5000, "members": 3, "unpacked_bytes": 9000, "etag": '"e"'}],
        "solver": {"seconds": 80.0, "cores": 8, "peak_memory_bytes": 10**9, "cause": None, "stopped_by": None},
        "phases": [phase("claim", 1.7e9, 0.5), phase("fetch", 1.7e9 + 1, 9.0, 5000), phase("solve", 1.7e9 + 10, 80.0, 7000),
                   phase("publish", 1.7e9 + 90, 10.0, 3000)],
        "unpublished": [], "skipped": [], "warnings": [], "versions": {"byos-run": "1"}, "host": {"name": "node-1"}, **parts,
    }  # fmt: skip


def told(**parts: Any) -> Told:
    count = parts.pop("samples", 5)
    columns: dict[str, list[Any]] = {"at": [float(n) for n in range(count)], "phase": ["solve"] * count}
    names = ("ranks", "ranks_cpu_s", "ranks_memory_bytes", "node_cpu_s", "node_memory_bytes", "agent_cpu_s", "disk_used_bytes",
             "disk_free_bytes", "bytes_in", "bytes_out")  # fmt: skip
    columns.update({name: list(range(count)) for name in names})
    return Told(columns, {"cores": 8, "memory_bytes": 1 << 34}, **parts)


def test_bars_are_the_phases_of_the_manifest() -> None:
    """Each phase is a bar that begins and lasts as the manifest says, in seconds and in its share of the width."""
    page = Page(run_page(manifest(), told(), place=PLACE))
    bars = {
        bar.attributes["class"]: (float(bar.attributes["data-start"]), float(bar.attributes["data-seconds"]))
        for bar in page.all("rect")
    }
    wide = {bar.attributes["class"]: float(bar.attributes["width"]) for bar in page.all("rect")}

    assert bars == {
        "f-claim": (0.0, 0.5),
        "f-fetch": (1.0, 9.0),
        "f-solve": (10.0, 80.0),
        "f-early": (10.0, 80.0),
        "f-publish": (90.0, 10.0),
    }
    assert wide["f-solve"] == pytest.approx(800)


def test_a_page_needs_nothing_and_lets_nothing_in() -> None:
    """No address to load, no inline handler or style, one style and one script that the policy names by their hash."""
    source = run_page(manifest(), told(plots=[Drawn("t", "x", (Series("y", [(0, 1), (1, 2)]),))]), place=PLACE)
    page = Page(source)

    assert page.from_elsewhere() == []
    assert len(list(page.all("script"))) == len(list(page.all("style"))) == 1
    assert not [e for e in page.elements for name in e.attributes if name.startswith("on") or name == "style"]
    (policy,) = [e.attributes["content"] for e in page.all("meta") if "http-equiv" in e.attributes]
    assert re.fullmatch(r"default-src 'none'; style-src 'sha256-\S+'; script-src 'sha256-\S+'; img-src data:; "
                        r"base-uri 'none'; form-action 'none'", policy)  # fmt: skip


def test_text_from_elsewhere_stays_text() -> None:
    """Names, log lines, causes, keys, warnings: markup is inert, control characters are shown."""
    outputs = [{"path": EVIL, "key": EVIL, "bytes": 1, "crc32": EVIL, "mtime": 0, "seconds": 0}]
    inputs = [{"url": EVIL, "etag": EVIL, "members": 1, "bytes": 1}]
    bad = [{"path": EVIL, "reason": EVIL}]
    source = run_page(
        manifest(
            outputs=outputs, inputs=inputs, unpublished=bad, skipped=bad, warnings=[EVIL], error=EVIL, status="partial",
            exit_code=74, results={EVIL: 1.0}, host={"name": EVIL}, versions={EVIL: EVIL}, run_id=EVIL,
        ),
        told(log_tail=[EVIL], settings=[(EVIL, EVIL)], plots=[Drawn(EVIL, EVIL, (Series(EVIL, [(0, 1), (1, 2)]),), EVIL)]),
        place=f"s3://data/{EVIL}/",
    )  # fmt: skip
    page = Page(source)

    assert len(list(page.all("script"))) == 1
    assert not set("\x1b\u202e") & set(source)
    (cell, *_) = [element for element in page.all("td", "path") if ".h5" in element.text]
    assert cell.text == "<script>alert(1)</script>\\x1b[2J\\u202e\"'>.h5" or "s3:" in cell.text


def test_a_hundred_thousand_outputs_and_endless_lines_fit() -> None:
    """At most 300 KB and a second or two: the largest files, the last lines, and how many there are."""
    outputs = [
        {"path": f"post/{'x' * (n % 90)}/{n}.h5", "bytes": n, "crc32": "AAAAAA==", "mtime": 1.7e9, "seconds": 0.1}
        for n in range(100_000)
    ]
    lines = ["<" * 10_000_000, *("&" * 5000 for _ in range(500))]
    plots = [
        Drawn(f"t{k}", "x", tuple(Series("y", [(n, n * n % 97) for n in range(4000)]) for _ in range(6)))
        for k in range(12)
    ]
    bad = [{"path": "<" * 4000, "reason": "&" * 4000}] * 5000
    before = time.process_time()
    source = run_page(
        manifest(outputs=outputs, status="partial", exit_code=74, unpublished=bad, skipped=bad, warnings=["'" * 9000] * 900),
        told(samples=1500, log_tail=lines, plots=plots, settings=[("command", "<" * 100_000)] * 90), place=PLACE,
    )  # fmt: skip

    assert len(source.encode()) <= MOST_BYTES
    assert time.process_time() - before < 10
    assert "of 100,000; _byos/manifest.json lists all" in source
    assert "post/" + "x" * (99_999 % 90) + "/99999.h5" in source
    Page(source)


def test_a_failed_run_says_why_and_what_to_do() -> None:
    """The cause, the code and whose it is, a hint, the solver's last lines: before everything else."""
    solver = {"seconds": 3.0, "cores": 8, "cause": "rank 3 was killed by signal 9"}
    source = run_page(
        manifest(status="solver-failed", exit_code=137, exit_code_is="the solver's", solver=solver),
        told(log_tail=["step 1", "step 2"]), place=PLACE,
    )  # fmt: skip
    head = source[: source.index("From start to end")]

    assert "rank 3 was killed by signal 9" in head
    assert "Exit 137, the solver&#x27;s code. Killed: usually by the kernel, for want of memory" in head
    assert "step 2" in head


@pytest.mark.parametrize(
    "parts",
    [
        {"outputs": None, "inputs": 5, "phases": {"a": 1}, "solver": [], "host": None},
        {
            "outputs": [3, {}, {"path": 7, "bytes": "x", "mtime": float("nan")}],
            "phases": [5, {"name": 3, "seconds": "x"}],
        },
        {"started_at": -1e300, "ended_at": 1e300, "phases": [{"name": "solve", "started_at": 1e17, "seconds": 1e17}]},
        {"status": None, "exit_code": "x", "results": {"a": "b", "c": float("inf")}, "inputs": [], "phases": []},
    ],
    ids=["wrong kinds", "wrong members", "wild numbers", "nothing"],
)
def test_a_strange_manifest_gives_a_page(parts: dict[str, Any]) -> None:
    """What cannot be believed is left out."""
    Page(run_page(manifest(**parts), told(), place=PLACE))
