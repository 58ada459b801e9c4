"""The page of one run: ``report.html``.

    what it was and how it ended ▶ why it failed, what to do ▶ figures ▶ phases over time ▶ cores, memory, disk, bytes
    ▶ the solver's own tables ▶ inputs, outputs ▶ log ▶ settings, versions, where the rest is

At most :data:`MOST_BYTES`: the table of outputs takes what the rest leaves, the largest first, and says how many it lacks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from heapq import nlargest
from typing import Any

from byos_run.log import count, duration, rate, size
from byos_run.page import chart
from byos_run.page.chart import Bar
from byos_run.page.facts import (
    Facts,
    File,
    Span,
    facts_of,
    file_of,
    mapping_of,
    mappings_of,
    number,
    outputs_of,
    texts_of,
)
from byos_run.page.hints import hint_of
from byos_run.page.html import NOTHING, Child, Markup, document, tag, text
from byos_run.page.parts import figure_cell, finder, fitting, moment, note, pairs, section, table, tile
from byos_run.page.samples import Drawn, drawn, used
from byos_run.page.style import SCRIPT, STYLE

MOST_BYTES = 300_000
_MOST_FILES = 3000
"""No more rows fit in that."""
_FRAME_BYTES = 2_000 + len(STYLE) + len(SCRIPT)
_LIST_BYTES = 15_000
_LOG_LINES = 60
_LOG_BYTES = 24_000
_NAMED = 40
STATUS_WORDS = {
    "complete": ("complete", "good"),
    "solver-failed": ("solver failed", "bad"),
    "partial": ("not all outputs are in the bucket", "bad"),
    "interrupted": ("interrupted", "warn"),
}


@dataclass(frozen=True)
class Told:
    """What a page is made from besides the manifest."""

    columns: Mapping[str, Sequence[Any]]
    """Of the meter: a list for each field of a sample."""
    node: Mapping[str, int]
    """``cores`` and ``memory_bytes`` of the node."""
    log_tail: Sequence[str] = ()
    plots: Sequence[Drawn] = ()
    settings: Sequence[tuple[str, str]] = ()
    """What was asked and is no default, without secrets."""


def run_page(manifest: Mapping[str, Any], told: Told, *, place: str) -> str:
    """*manifest* as it will be written; *place* is the output prefix."""
    facts = facts_of(manifest, place=place)
    above = [
        _head(facts), _trouble(facts, told), _tiles(facts), _timeline(facts), used(told.columns, told.node), drawn(told.plots),
        _results(facts), _inputs(manifest),
    ]  # fmt: skip
    below = [_missing(manifest), _log(told), _rest(manifest, told), _foot(facts, manifest)]
    room_bytes = MOST_BYTES - _FRAME_BYTES - sum(len(part.encode()) for part in (*above, *below))
    return document(
        f"{facts.name} · {_status(facts)[0]}",
        tag("main", above, _outputs(manifest, files=facts.files, room_bytes=room_bytes), below),
        style=STYLE,
        script=SCRIPT,
    )


# ---------------------------------------------------------------- from top to bottom


def _status(facts: Facts) -> tuple[str, str]:
    if not facts.was_solved and facts.status != "interrupted":
        return "ended before the solver", "bad"
    return STATUS_WORDS.get(facts.status, (facts.status, "warn"))


def _head(facts: Facts) -> Markup:
    words, kind = _status(facts)
    on = f" on {facts.host}" if facts.host else ""
    again = f", attempt {facts.attempt}" if facts.attempt > 1 else ""
    return tag(
        "header", tag("div", "byos-run", class_="brand"), tag("h1", facts.name),
        tag("div", tag("code", facts.place), class_="place soft"),
        tag("div", words, class_=f"pill {kind}"),
        tag("div", f"{moment(facts.started_at)} to {moment(facts.ended_at)}{on}{again}", class_="note"),
    )  # fmt: skip


def _trouble(facts: Facts, told: Told) -> Markup:
    if facts.status == "complete":
        return NOTHING
    why = facts.cause or facts.error or (f"stopped by {facts.stopped_by}" if facts.stopped_by else "")
    unpublished = f"{count(facts.unpublished, 'output')} could not be published" if facts.unpublished else ""
    hint = hint_of(facts.exit_code, whose=facts.whose)
    own_words = _tail(told.log_tail, lines_most=12) if facts.whose == "the solver's" else []
    return tag(
        "div",
        tag("p", tag("b", why or unpublished or _status(facts)[0])),
        tag("p", unpublished) if why and unpublished else None,
        tag("p", f"Exit {facts.exit_code}, {facts.whose} code. {hint[:1].upper()}{hint[1:]}.", class_="soft"),
        tag("pre", _block(own_words)) if own_words else None,
        class_="cause",
        role="alert",
    )


def _tiles(facts: Facts) -> Markup:
    fetch = next((span for span in facts.spans if span.name == "fetch"), None)
    early = (
        f", {100 * facts.early_bytes / facts.size_bytes:.0f} % before its end"
        if facts.early_bytes and facts.size_bytes
        else ""
    )
    wall = facts.wall_s or 1.0
    tiles = [
        tile(
            "From start to end",
            duration(facts.wall_s),
            f"{100 * min(1.0, facts.solver_s / wall):.0f} % of it the solver's",
        ),
        tile("Solver", duration(facts.solver_s), f"on {count(facts.cores, 'core')}"),
        tile("After the solver's end", duration(facts.tail_s), "until all outputs were acknowledged"),
        tile(
            "Fetched",
            size(facts.input_bytes),
            f"{rate(facts.input_bytes, fetch.seconds)}, {size(facts.unpacked_bytes)} unpacked",
        )
        if fetch
        else None,
        tile("Published", size(facts.size_bytes), count(facts.files, "file") + early),
        tile("Peak memory", size(facts.peak_memory_bytes), "of the solver's processes")
        if facts.peak_memory_bytes
        else None,
        _cost(facts),
    ]
    return tag("dl", tiles, class_="tiles")


def _cost(facts: Facts) -> Markup | None:
    if not facts.price_core_hour and not facts.price_gb:
        return None
    return tile("Cost", f"{facts.cost:.2f}", f"{facts.core_hours:.2f} core-hours, {facts.size_bytes / 1e9:.3g} GB")


def _timeline(facts: Facts) -> Markup:
    if not facts.spans:
        return NOTHING
    start = min(span.started_at for span in facts.spans)
    until = max(max(span.ended_at for span in facts.spans) - start, 0.001)
    rows: list[Child] = []

    def row(name: str, bar: Bar, said: str) -> None:
        rows.extend([tag("span", name), chart.lane([bar], until=until, title=bar.title), tag("span", said, class_="n")])

    for span in facts.spans:
        said = duration(span.seconds)
        if span.name == "solve":
            row(span.name, _bar(span, said, start=start), said)
            if not span.size_bytes:
                continue
            beside = f"published beside the solver: {size(span.size_bytes)} in {count(span.files, 'file')}"
            row("publish beside", Bar("f-early", span.started_at - start, span.seconds, beside), size(span.size_bytes))
        else:
            moved = f"{size(span.size_bytes)} in {said}" if span.size_bytes else said
            row(span.name, _bar(span, moved, start=start), moved)
    return section("Phases", tag("div", rows, chart.axis(0.0, until, chart.SECONDS), class_="lanes"))


def _bar(span: Span, said: str, *, start: float) -> Bar:
    kind = span.name if span.name in ("claim", "fetch", "solve", "publish", "purge") else "other"
    return Bar(f"f-{kind}", span.started_at - start, span.seconds, f"{span.name}: {said}")


def _results(facts: Facts) -> Markup:
    if not facts.results:
        return NOTHING
    return section(
        "Results", tag("dl", [tile(name, f"{value:.6g}") for name, value in facts.results.items()], class_="tiles")
    )


def _inputs(manifest: Mapping[str, Any]) -> Markup:
    items = mappings_of(manifest.get("inputs"))
    if not items:
        return NOTHING
    rows = [
        [
            tag("td", text(item.get("url"), limit=300), class_="path"),
            f"{number(item.get('members')):,.0f}",
            size(number(item.get("bytes"))),
            size(number(item.get("unpacked_bytes"))),
            duration(number(item.get("seconds"))),
            tag("td", tag("code", str(item.get("etag", "")).strip('"')[:80])),
        ]
        for item in items[:_NAMED]
    ]
    heads = [("Object", "path"), ("Files", "n"), ("Bytes", "n"), ("Unpacked", "n"), ("Time", "n"), ("ETag", "")]
    more = f"and {len(items) - _NAMED:,} more" if len(items) > _NAMED else ""
    shown = fitting(rows, room_bytes=_LIST_BYTES)
    return section("Inputs", table(heads, shown, label="inputs"), note(more))


def _outputs(manifest: Mapping[str, Any], *, files: int, room_bytes: int) -> Markup:
    if not files:
        return NOTHING
    largest = nlargest(_MOST_FILES, map(file_of, outputs_of(manifest)), key=lambda file: file.size_bytes)
    rows = fitting(map(_file_row, largest), room_bytes=room_bytes)
    lacks = f"The {len(rows):,} largest of {files:,}; _byos/manifest.json lists all."
    if len(rows) == files:
        by_path = sorted(range(files), key=lambda number: largest[number].path)
        rows, lacks = [rows[number] for number in by_path], ""
    heads = [("Path", "path"), ("Bytes", "n"), ("CRC-32", ""), ("Written", "n"), ("Sent in", "n")]
    shown = table(heads, rows, name="outputs", label="outputs")
    return section(f"Outputs: {count(files, 'file')}", finder("outputs", what="Find a file"), shown, note(lacks))


def _file_row(file: File) -> list[Markup]:
    return [
        tag("td", text(file.path, limit=300), class_="path"), figure_cell(f"{file.size_bytes:,}", file.size_bytes),
        tag("td", tag("code", file.crc32)), figure_cell(moment(file.mtime_s)[11:19], file.mtime_s),
        figure_cell(f"{file.seconds:.2f} s", file.seconds),
    ]  # fmt: skip


def _missing(manifest: Mapping[str, Any]) -> Markup:
    parts: list[Child] = []
    for name, title in (("unpublished", "Not in the bucket"), ("skipped", "Left out: links, pipes, sockets")):
        items = mappings_of(manifest.get(name))
        all_rows = [[text(item.get(key), limit=300) for key in ("path", "reason")] for item in items[:_NAMED]]
        rows = fitting(all_rows, room_bytes=_LIST_BYTES)
        more = f"and {len(items) - len(rows):,} more, in _byos/manifest.json" if len(items) > len(rows) else ""
        if items:
            parts.append(section(title, table([("Path", "path"), ("Why", "wrap")], rows, label=title), note(more)))
    warnings = fitting(
        ([tag("li", text(line, limit=500))] for line in texts_of(manifest.get("warnings"))), room_bytes=_LIST_BYTES
    )
    if warnings:
        parts.append(section("Warnings", tag("ul", warnings)))
    return tag("div", parts) if parts else NOTHING


def _tail(lines: Sequence[str], *, lines_most: int) -> list[Markup]:
    """The last lines, in characters and in number bounded: a line may have megabytes."""
    kept: list[Markup] = []
    room = _LOG_BYTES
    for line in reversed(lines[-lines_most:]):
        shown = text(line, limit=600)
        room -= len(shown.encode())
        if room < 0:
            break
        kept.append(shown)
    return kept[::-1]


def _block(lines: Sequence[Markup]) -> Markup:
    return Markup("\n".join(lines))


def _log(told: Told) -> Markup:
    kept = _tail(told.log_tail, lines_most=_LOG_LINES)
    if not kept:
        return NOTHING
    return section(
        "The solver's last lines", tag("pre", _block(kept), tabindex="0"), note("All of it is in _byos/solver.log.")
    )


def _rest(manifest: Mapping[str, Any], told: Told) -> Markup:
    versions = [(str(name), str(value)) for name, value in mapping_of(manifest.get("versions")).items()]
    host = mapping_of(manifest.get("host"))
    versions.append(("system", f"{host.get('system', '')} {host.get('machine', '')}"))
    left_out = "Keys that have their default are left out; values of solver.env are never shown."
    return tag(
        "div",
        section("What was asked", pairs(told.settings, label="settings"), note(left_out)),
        section("Versions", pairs(versions, label="versions")),
        class_="two",
    )


def _foot(facts: Facts, manifest: Mapping[str, Any]) -> Markup:
    own = f"{facts.place}_byos/"
    return tag(
        "footer",
        tag(
            "p", "This page was written before the run directory was purged. What was deleted, what was left and why, and the "
            "exit code stand in the purge certificate: ", tag("code", f"{own}purge.json"), ".",
        ),
        tag(
            "p", "Every output with size, CRC-32, ETag and time: ", tag("code", f"{own}manifest.json"), ". Beside it: ",
            tag("code", "metrics.json.zst"), ", ", tag("code", "solver.log"), ", ", tag("code", "run.log"), ".",
        ),
        tag("p", f"run {manifest.get('run_id', '')}, attempt {facts.attempt}"),
    )  # fmt: skip
