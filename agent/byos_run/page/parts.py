"""What the pages are put together from: sections, tiles, tables that can be searched and sorted."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime, timezone

from byos_run.page.html import Child, Markup, joined, tag, text


def note(words: str) -> Markup | None:
    """A small line; nothing where there is nothing to say."""
    return tag("p", words, class_="note") if words else None


def moment(seconds: float) -> str:
    """2026-03-01 12:00:05 UTC."""
    if not 0 < seconds < 1e11:
        return "–"
    return datetime.fromtimestamp(seconds, timezone.utc).strftime("%Y-%m-%d %H:%M:%S UTC")


def section(title: str, *children: Child, class_: str | None = None) -> Markup:
    return tag("section", tag("h2", title), *children, class_=class_)


def tile(name: str, value: str, more: str = "") -> Markup:
    return tag("div", tag("dt", name), tag("dd", value), tag("dd", more) if more else None)


def table(heads: Sequence[tuple[str, str]], rows: Sequence[Sequence[Child]], *, name: str = "", label: str) -> Markup:
    """*heads*: (title, class of the column). A cell is a child, or a ``td``. With a *name* it can be sorted."""
    head = [
        tag("th", tag("button", title, type="button") if name else title, class_=kind or None, scope="col")
        for title, kind in heads
    ]
    body = [
        tag(
            "tr",
            [
                cell if isinstance(cell, Markup) and cell.startswith("<td") else tag("td", cell, class_=kind or None)
                for cell, (_, kind) in zip(row, heads)
            ],
        )
        for row in rows
    ]
    top = tag("thead", tag("tr", head)) if any(title for title, _ in heads) else None
    return tag(
        "div", tag("table", top, tag("tbody", body), id=name or None), class_="scroll", tabindex="0",
        role="region", aria_label=label,
    )  # fmt: skip


def finder(name: str, *, what: str) -> Markup:
    """A search field over the table *name*."""
    field = tag("input", type="search", placeholder=what, aria_label=what, data_finds=name)
    return tag("div", field, tag("output", class_="note", aria_live="polite"), class_="find")


def figure_cell(shown: str, value: float) -> Markup:
    return tag("td", shown, class_="n", data_v=f"{value:.6g}")


def fitting(rows: Iterable[Sequence[Child]], *, room_bytes: int) -> list[Sequence[Child]]:
    """The first of *rows* that have room in so many bytes of HTML."""
    kept: list[Sequence[Child]] = []
    for row in rows:
        room_bytes -= 20 + len(joined(row).encode())
        if room_bytes < 0:
            break
        kept.append(row)
    return kept


def pairs(rows: Sequence[tuple[str, str]], *, label: str) -> Markup:
    """Names and values."""
    cells = [[tag("td", tag("code", name)), tag("td", text(value, limit=1500), class_="wrap")] for name, value in rows]
    return table([("", ""), ("", "")], fitting(cells, room_bytes=20_000), label=label)
