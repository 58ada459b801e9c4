"""The page of a DOE, made from values: who ended how, where and when, what it cost and saved; fast, inert, of bounded size."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest
from tests.kit.doe import imagined
from tests.kit.pages import Page
from tests.test_page_run import EVIL

from byos_run.page.doe import Doe, doe_page
from byos_run.page.facts import Facts, Span, facts_of
from byos_run.page.fold import failures, lanes, stragglers, totals

TOP = "s3://data/output/doe/"


def runs(count: int) -> list[Facts]:
    return [facts_of(manifest, place=manifest["output"]) for manifest in (imagined(n, top=TOP) for n in range(count))]


def run(name: str, start: float, end: float, **more: object) -> Facts:
    facts = Facts(place=f"{TOP}{name}/", status="complete", started_at=start, ended_at=end, host="n1", cores=8)
    return replace(facts, **more)  # type: ignore[arg-type]


def test_runs_that_overlap_have_lanes_of_their_own() -> None:
    """On one node, one after the other in one lane; at the same time in two; nodes in natural order."""
    found = lanes(
        [run("a", 1, 5), run("b", 2, 6), run("c", 5, 9), run("d", 1, 2, host="n10"), run("e", 1, 2, host="n2")]
    )

    assert [(lane.node, lane.number, [each.name for each in lane.runs]) for lane in found] == [
        ("n1", 1, ["a", "c"]),
        ("n1", 2, ["b"]),
        ("n2", 1, ["e"]),
        ("n10", 1, ["d"]),
    ]


def test_failures_that_differ_in_numbers_only_are_one_class() -> None:
    """The most frequent class first, with one example and what to do; what runs or waits has not failed."""
    bad = {"status": "solver-failed", "exit_code": 137, "whose": "the solver's"}
    found = failures(
        [
            run("a", 1, 2, **bad, cause="rank 3 was killed"),
            run("b", 1, 2, **bad, cause="rank 17 was killed"),
            run("c", 1, 2, status="partial", exit_code=74, whose="byos-run's", error="no answer"),
            run("d", 1, 2, status="running"),
            run("e", 1, 2),
        ]
    )

    assert [(each.title, len(each.runs)) for each in found] == [("rank 3 was killed", 2), ("no answer", 1)]
    assert "memory" in found[0].hint
    assert "start again" in found[1].hint


def test_what_was_saved_is_the_upload_that_the_cores_did_not_wait_for() -> None:
    """Early bytes at the tail's own rate, times cores; nothing where no rate can be told."""
    spans = (Span("solve", 0, 100, 50_000_000), Span("publish", 100, 2, 10_000_000))
    told = totals(
        [run("a", 1, 103, spans=spans, solver_s=100.0, size_bytes=60_000_000), run("b", 1, 103, solver_s=100.0)]
    )

    assert told.saved_core_hours == pytest.approx(10 * 8 / 3600)
    assert told.idle_core_hours == pytest.approx(2 * (102 - 100) * 8 / 3600)
    assert told.span_s == 102


def test_stragglers_are_told_with_the_phase_that_took_longer() -> None:
    """Half as long again as the median run."""
    usual = [run(f"u{n}", 0.5, 100.5, spans=(Span("solve", 1, 90),)) for n in range(5)]
    (slow,) = stragglers([*usual, run("slow", 0.5, 300.5, spans=(Span("solve", 1, 95), Span("fetch", 0, 190)))])

    assert (slow.run.name, slow.phase, slow.times) == ("slow", "fetch", 3.0)


def test_a_page_of_a_thousand_runs() -> None:
    """Made in two seconds of processor time, with a square, a line and a bar for each, and nothing from elsewhere."""
    found = runs(1000)
    before = time.process_time()
    source = doe_page(Doe(TOP, found, 1.79e9, {each.place: {"angle": str(n % 40)} for n, each in enumerate(found)}))

    assert time.process_time() - before < 5
    page = Page(source)
    assert page.from_elsewhere() == []
    assert 1000 == len(list(page.all("li")))
    assert 1000 == len([cell for cell in page.all("td", "path") if cell.attributes.get("id")])
    assert len(source.encode()) < 3_000_000
    dots = list(page.all("path", "dot"))
    assert 1000 == len(dots)


def test_bars_are_the_phases_of_the_manifests() -> None:
    """Where a bar begins and how long it is are a manifest's own numbers, from the first start on."""
    found = runs(3)
    start = min(each.started_at for each in found)
    expected = sorted(
        f"{span.started_at - start:.3f} {span.seconds:.3f}"
        for each in found
        for span in each.spans
        if span.name in ("fetch", "solve", "publish")
    )
    drawn = [bar.attributes for bar in Page(doe_page(Doe(TOP, found, 1.79e9))).all("rect")]

    assert expected == sorted(f"{bar['data-start']} {bar['data-seconds']}" for bar in drawn if "data-start" in bar)


def test_text_from_a_bucket_stays_text() -> None:
    """Names of runs, nodes, results, columns and causes cannot become markup or steer a terminal."""
    bad = run(
        EVIL, 1.0, 2.0, host=EVIL, status="solver-failed", cause=EVIL, exit_code=3, whose=EVIL, results={EVIL: 1.0}
    )
    more = [run(f"x{n}", 1.0, 2.0 + n, results={EVIL: float(n)}) for n in range(4)]
    parameters = {each.place: {EVIL: str(n)} for n, each in enumerate([bad, *more])}
    source = doe_page(Doe(TOP, [bad, *more, Facts(place=f"{TOP}{EVIL}/", status=EVIL)], 1.79e9, parameters))

    assert 1 == len(list(Page(source).all("script")))
    assert not set("\x1b\u202e") & set(source)


@pytest.mark.parametrize("found", [[], [Facts(place=TOP, status="running")], [Facts(place="", status="")]], ids=len)
def test_there_is_a_page_of_little(found: list[Facts]) -> None:
    """No run that has ended, no time, no name: still a page."""
    Page(doe_page(Doe(TOP, found, 0.0)))
