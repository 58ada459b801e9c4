"""The page of a DOE: many runs at a glance, and each of them one line.

how many ended how ▶ figures ▶ a square a run ▶ failures by class ▶ who ran where and when ▶ how long phases take,
who is slow ▶ parameters against results ▶ all runs, to search and to sort
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from byos_run.log import count, duration, size
from byos_run.page import chart
from byos_run.page.chart import Bar
from byos_run.page.facts import Facts
from byos_run.page.fold import Failure, Lane, Totals, failures, lanes, seconds_of, stragglers, totals, why_of
from byos_run.page.html import NOTHING, Child, Markup, document, tag, text
from byos_run.page.parts import figure_cell, finder, moment, note, section, table, tile
from byos_run.page.style import SCRIPT, STYLE

_MOST_LANES = 1000
_DENSE_LANES = 24
_BIG_SQUARES = 120
_MOST_DOTS = 12
_MOST_COLUMNS = 6
_NAMED = 12
STATES = {
    "complete": ("complete", "good"),
    "running": ("running", "running"),
    "waiting": ("not started", "other"),
    "solver-failed": ("solver failed", "bad"),
    "refused": ("ended before the solver", "bad"),
    "partial": ("not all outputs", "warn"),
    "interrupted": ("interrupted", "warn"),
    "stale": ("no heartbeat", "warn"),
}


@dataclass(frozen=True)
class Doe:
    """What the page is made from."""

    place: str
    """The prefix that was looked at."""
    runs: Sequence[Facts]
    made_at: float
    """Seconds since 1970 UTC."""
    parameters: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """Place of a run → column of the table → cell."""


def doe_page(doe: Doe) -> str:
    told = totals(doe.runs)
    name = doe.place.rstrip("/").rpartition("/")[2]
    return document(
        f"{name} · {count(len(doe.runs), 'run')}",
        tag(
            "main", _head(doe, name), _tiles(told), _squares(doe), _failures(failures(doe.runs)), _lanes(lanes(doe.runs)),
            _phases(doe.runs), _stragglers(doe.runs), _dots(doe), _table(doe, told), _foot(doe),
            class_="wide",
        ),
        style=STYLE, script=SCRIPT,
    )  # fmt: skip


def state_of(run: Facts) -> tuple[str, str]:
    """Words, and the class of the colour."""
    is_early = run.status == "partial" and not run.was_solved
    return STATES.get("refused" if is_early else run.status, (run.status, "other"))


def _head(doe: Doe, name: str) -> Markup:
    return tag(
        "header", tag("div", "byos-run", class_="brand"), tag("h1", name), tag("div", tag("code", doe.place), class_="place soft"),
        tag("div", f"as of {moment(doe.made_at)}", class_="note"),
    )  # fmt: skip


def _tiles(told: Totals) -> Markup:
    share = 100 * told.solver_core_hours / told.core_hours if told.core_hours else 0.0
    early = f", {100 * told.early_bytes / told.output_bytes:.0f} % beside the solver" if told.output_bytes else ""
    tiles = [
        tile("Runs", f"{told.runs:,}", f"{told.by_status.get('complete', 0):,} complete"),
        tile("First start to last end", duration(told.span_s)),
        tile("Core-hours", f"{told.core_hours:,.2f}", f"{share:.0f} % of them the solver's"),
        tile("Idle core-hours", f"{told.idle_core_hours:,.2f}", "fetching, publishing, starting"),
        tile("Saved core-hours", f"{told.saved_core_hours:,.2f}", "against uploading after the solver"),
        tile("Fetched", size(told.input_bytes)),
        tile("Published", size(told.output_bytes), count(told.files, "file") + early),
        tile("Cost", f"{told.cost:,.2f}", f"{told.cost / told.runs:,.2f} a run") if told.cost and told.runs else None,
    ]
    return tag("dl", tiles, class_="tiles")


def _squares(doe: Doe) -> Markup:
    squares = []
    for number, run in enumerate(doe.runs, 1):
        words, kind = state_of(run)
        said = f"{run.name}: {words}" + (f", {duration(run.wall_s)}" if run.wall_s else "")
        square = tag(
            "svg", tag("rect", width="10", height="10", rx="2", class_=f"g-{kind}"), viewBox="0 0 10 10", role="img",
            aria_label=said,
        )  # fmt: skip
        squares.append(tag("li", tag("a", square, href=f"#run-{number}", title=said)))
    seen = [state_of(run) for run in doe.runs]
    key = [(f"g-{kind}", f"{seen.count((words, kind)):,} {words}") for words, kind in dict.fromkeys(sorted(seen))]
    big = " big" if len(squares) <= _BIG_SQUARES else ""
    return section("All runs at a glance", tag("ol", squares, class_=f"squares{big}"), chart.key(key))


def _failures(found: Sequence[Failure]) -> Markup:
    if not found:
        return NOTHING
    shown = []
    for failure in found:
        named = ", ".join(run.name for run in failure.runs[:_NAMED])
        more = f" and {len(failure.runs) - _NAMED:,} more" if len(failure.runs) > _NAMED else ""
        code = f"Exit {failure.exit_code}. " if failure.exit_code is not None else ""
        hint = f"{failure.hint[:1].upper()}{failure.hint[1:]}." if failure.hint else ""
        title = text(failure.title, limit=400)
        how_many = tag("span", count(len(failure.runs), "run"), class_="soft")
        shown.append(
            tag(
                "div",
                tag("p", tag("b", title), " ", how_many),
                tag("p", f"{code}{hint}") if code or hint else None,
                tag("p", "For example ", tag("code", f"{failure.runs[0].place}_byos/report.html")),
                tag("p", text(named + more, limit=1200), class_="note"),
                class_="cause",
            )
        )
    return section("Failures by class", shown)


def _lanes(found: Sequence[Lane]) -> Markup:
    if not found:
        return NOTHING
    start = min(run.started_at for lane in found for run in lane.runs)
    until = max(run.ended_at for lane in found for run in lane.runs) - start
    slots: dict[str, int] = {}
    for lane in found:
        slots[lane.node] = slots.get(lane.node, 0) + 1
    rows: list[Child] = []
    for lane in found[:_MOST_LANES]:
        name = (lane.node or "–") + (f" · {lane.number}" if slots[lane.node] > 1 else "")
        bars = [bar for run in lane.runs for bar in _bars(run, start=start)]
        rows += [
            tag("span", text(name, limit=40)),
            chart.lane(bars, until=until, title=f"runs on {name}"),
            tag("span", count(len(lane.runs), "run"), class_="n"),
        ]
    colours = (
        ("f-fetch", "fetch"),
        ("f-solve", "solve"),
        ("f-publish", "publish"),
        ("g-bad", "failed"),
        ("g-running", "running"),
    )
    is_dense = len(found) > _DENSE_LANES
    axis = chart.axis(0.0, until, chart.SECONDS)
    lacks = f"{len(found) - _MOST_LANES:,} more are not drawn." if len(found) > _MOST_LANES else ""
    return section(
        "Who ran where, and when",
        tag("div", tag("div", rows, axis, class_="lanes"), class_="box", tabindex="0" if is_dense else None),
        chart.key(colours),
        note(lacks),
        class_="dense" if is_dense else None,
    )


def _bars(run: Facts, *, start: float) -> list[Bar]:
    words, kind = state_of(run)
    whole = f"{run.name}: {words}, {duration(run.wall_s)}"
    if not run.spans or run.status == "running":
        return [Bar(f"g-{kind}", run.started_at - start, run.wall_s, whole)]
    bars = []
    for span in run.spans:
        if span.name in ("fetch", "solve", "publish"):
            colour = "g-bad" if span.name == "solve" and kind == "bad" else f"f-{span.name}"
            bars.append(
                Bar(colour, span.started_at - start, span.seconds, f"{whole}; {span.name} {duration(span.seconds)}")
            )
    return bars


def _phases(runs: Sequence[Facts]) -> Markup:
    ended = [run for run in runs if run.spans]
    if len(ended) < 2:
        return NOTHING
    drawn = []
    for name, title in (("fetch", "Fetch"), ("solve", "Solve"), ("publish", "Publish, after the solver's end")):
        values = sorted(seconds_of(run, name) for run in ended if any(span.name == name for span in run.spans))
        if values:
            middle, slow = values[len(values) // 2], values[min(len(values) - 1, len(values) * 95 // 100)]
            said = f"half of the runs within {duration(middle)}, 95 % within {duration(slow)}, all within {duration(values[-1])}"
            drawn.append(chart.histogram(title, values, unit=chart.SECONDS, kind=f"f-{name}", note=said))
    return section("How long phases take", tag("div", drawn, class_="charts"))


def _stragglers(runs: Sequence[Facts]) -> Markup:
    found = stragglers(runs)
    if not found:
        return NOTHING
    rows = [
        [
            tag("td", text(each.run.name, limit=120), class_="path"), text(each.run.host, limit=60), duration(each.run.wall_s),
            f"{each.times:.1f} ×", f"{each.phase}: {duration(each.more_s)} longer",
        ]
        for each in found
    ]  # fmt: skip
    heads = [("Run", "path"), ("Node", ""), ("Time", "n"), ("Of the median", "n"), ("Mostly in", "")]
    return section("Stragglers", table(heads, rows, label="stragglers"))


def _dots(doe: Doe) -> Markup:
    drawn = []
    for result in dict.fromkeys(name for run in doe.runs for name in run.results):
        for column in dict.fromkeys(name for cells in doe.parameters.values() for name in cells):
            points = [
                (x, run.results[result], f"{run.name}: {column} {x:g}, {result} {run.results[result]:g}")
                for run in doe.runs
                if result in run.results
                and (x := _number(doe.parameters.get(run.place, {}).get(column, ""))) is not None
            ]
            if len({x for x, _, _ in points}) > 1:
                drawn.append(chart.dots(f"{result[:80]} over {column[:80]}", points))
    more = f"{len(drawn) - _MOST_DOTS:,} more pairs are not drawn." if len(drawn) > _MOST_DOTS else ""
    return (
        section("Parameters and results", tag("div", drawn[:_MOST_DOTS], class_="charts tall"), note(more))
        if drawn
        else NOTHING
    )


def _number(cell: str) -> float | None:
    try:
        return float(cell)
    except ValueError:
        return None


def _table(doe: Doe, told: Totals) -> Markup:
    columns = list(dict.fromkeys(name for cells in doe.parameters.values() for name in cells))[:_MOST_COLUMNS]
    results = list(dict.fromkeys(name for run in doe.runs for name in run.results))[:_MOST_COLUMNS]
    heads = [("Run", "path"), ("Ended", "k"), ("Exit", "n"), *((title, "n") for title in _NUMBERS), ("Node", "k")]
    heads += [("Cost", "n")] if told.cost else []
    heads += [(name[:60], "") for name in columns] + [(name[:60], "n") for name in results]
    rows = []
    for number, run in enumerate(doe.runs, 1):
        cells = _cells(run, number)
        cells += [figure_cell(f"{run.cost:.2f}", run.cost)] if told.cost else []
        cells += [text(doe.parameters.get(run.place, {}).get(name, ""), limit=60) for name in columns]
        figures = [(name, run.results.get(name)) for name in results]
        cells += ["" if value is None else figure_cell(f"{value:.6g}", value) for _, value in figures]
        rows.append(cells)
    return section("All runs", finder("runs", what="Find a run"), table(heads, rows, name="runs", label="all runs"))


_NUMBERS = ("Started", "Time", "Fetch", "Solver", "Tail", "Files", "Bytes", "Peak memory", "Try")


def _cells(run: Facts, number: int) -> list[Child]:
    words, kind = state_of(run)
    why = text(why_of(run), limit=200) if kind in ("bad", "warn") else None
    return [
        tag("td", text(run.name, limit=120), class_="path", id=f"run-{number}", title=why),
        tag("td", words, class_=f"k {kind}"),
        figure_cell("" if run.exit_code is None else str(run.exit_code), run.exit_code or 0),
        figure_cell(moment(run.started_at)[5:19], run.started_at),
        _time(run.wall_s),
        _time(seconds_of(run, "fetch")),
        _time(run.solver_s),
        _time(run.tail_s),
        figure_cell(f"{run.files:,}", run.files),
        figure_cell(size(run.size_bytes), run.size_bytes),
        figure_cell(size(run.peak_memory_bytes), run.peak_memory_bytes),
        figure_cell(str(run.attempt or ""), run.attempt),
        text(run.host, limit=40),
    ]


def _time(seconds: float) -> Markup:
    return figure_cell(duration(seconds) if seconds else "–", seconds)


def _foot(doe: Doe) -> Markup:
    counted = (
        "Core-hours count from a run's start to its manifest. Saved is for how long the outputs that left while the solver ran "
        "would have held the cores afterwards, at the rate at which the same run's other bytes moved; a run whose rate cannot "
        "be told counts as 0."
    )
    made = (
        "Made from the manifests and heartbeats below ",
        tag("code", doe.place),
        " by ",
        tag("code", "byos-run report"),
        ".",
    )
    return tag("footer", tag("p", counted), tag("p", *made))
