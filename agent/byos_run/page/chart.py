"""Charts as SVG that stretches with the page, and their numbers as text beside it, which does not.

The SVG's own units are 0 to 1000 across and 0 (top) to 100 (bottom); strokes keep their width. Dots are lines of no length with
round ends, so they stay round.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Callable

from byos_run.log import duration, size
from byos_run.page.html import NOTHING, Child, Markup, tag

Point = tuple[float, float]
MOST_POINTS = 240
_SERIES = 6


@dataclass(frozen=True)
class Unit:
    name: str
    """What the script knows it by: bytes, rate, number, time."""
    show: Callable[[float], str]


BYTES = Unit("bytes", size)
RATE = Unit("rate", lambda value: f"{size(value)}/s")
NUMBER = Unit("number", lambda value: f"{value:.4g}")
SECONDS = Unit("time", duration)


@dataclass(frozen=True)
class Series:
    name: str
    points: Sequence[Point]


@dataclass(frozen=True)
class Bar:
    """A bar of a lane, from *start* for *length*, in the unit of the lanes."""

    kind: str
    """Its colour: a class."""
    start: float
    length: float
    title: str


# ---------------------------------------------------------------- lines and dots


def lines(
    title: str,
    series: Sequence[Series],
    *,
    unit: Unit,
    x_unit: Unit = SECONDS,
    from_zero: bool = True,
    most: int = MOST_POINTS,
) -> Markup:
    """A chart of *series* over a common axis, each with at most *most* points."""
    shown = [Series(item.name, thinned(_finite(item.points), most=most)) for item in series[:_SERIES]]
    points = [point for item in shown for point in item.points]
    if not points:
        return NOTHING
    x0, x1 = _range([x for x, _ in points])
    y0, y1 = _nice([y for _, y in points], from_zero=from_zero)
    drawn: list[Child] = [_grid()]
    for place, item in enumerate(shown):
        path = [(_scale(x, x0, x1, 1000), 100 - _scale(y, y0, y1, 100)) for x, y in item.points]
        drawn.append(tag("polyline", points=" ".join(f"{x:.1f},{y:.2f}" for x, y in path), class_=f"line s{place}"))
    drawn.append(tag("path", d="", class_="at"))
    svg = _svg(
        title, *drawn, data_x0=f"{x0:.6g}", data_x1=f"{x1:.6g}", data_y0=f"{y0:.6g}", data_y1=f"{y1:.6g}", data_unit=unit.name,
        data_xunit=x_unit.name,
    )  # fmt: skip
    key = [tag("span", _mark(place), item.name, " ", tag("output")) for place, item in enumerate(shown)]
    return tag(
        "figure", tag("h3", title), _framed(svg, x=(x0, x1), x_unit=x_unit, y=(y0, y1), unit=unit),
        tag("div", key, tag("span", tag("output")), class_="key"),
    )  # fmt: skip


def dots(title: str, points: Sequence[tuple[float, float, str]]) -> Markup:
    """A scatter; each point with what is said of it."""
    shown = [point for point in points if math.isfinite(point[0]) and math.isfinite(point[1])]
    if not shown:
        return NOTHING
    x0, x1 = _padded([x for x, _, _ in shown])
    y0, y1 = _padded([y for _, y, _ in shown])
    drawn = [
        tag(
            "path", tag("title", said), class_="dot s0",
            d=f"M{_scale(x, x0, x1, 1000):.1f} {100 - _scale(y, y0, y1, 100):.2f}h0",
        )
        for x, y, said in shown
    ]  # fmt: skip
    return tag(
        "figure", tag("h3", title),
        _framed(_svg(title, _grid(), drawn), x=(x0, x1), x_unit=NUMBER, y=(y0, y1), unit=NUMBER),
    )  # fmt: skip


def histogram(title: str, values: Sequence[float], *, unit: Unit, kind: str, note: str) -> Markup:
    """How often which value."""
    if not values:
        return NOTHING
    low, high = min(values), max(values)
    count = max(1, min(24, math.ceil(math.sqrt(len(values))) * 2)) if high > low else 1
    tally = [0] * count
    for value in values:
        tally[min(count - 1, int((value - low) / ((high - low) or 1) * count))] += 1
    top = max(tally)
    wide = 1000 / count
    bars = [
        tag(
            "rect", tag("title", f"{number}: {unit.show(low + (high - low) * place / count)} to "
                                 f"{unit.show(low + (high - low) * (place + 1) / count)}"),
            x=f"{place * wide + wide * 0.06:.1f}", y=f"{100 - 100 * number / top:.1f}", width=f"{wide * 0.88:.1f}",
            height=f"{100 * number / top:.1f}", class_=kind,
        )
        for place, number in enumerate(tally)
        if number
    ]  # fmt: skip
    whole = Unit("number", lambda value: f"{value:.0f}" if value == int(value) else "")
    return tag(
        "figure", tag("h3", title), _framed(_svg(title, _grid(), bars), x=(low, high), x_unit=unit, y=(0, top), unit=whole),
        tag("figcaption", note, class_="note"),
    )  # fmt: skip


# ---------------------------------------------------------------- lanes


def lane(bars: Iterable[Bar], *, until: float, title: str) -> Markup:
    """Bars side by side on one line that is *until* long."""
    scale = 1000 / until if until > 0 else 0.0
    drawn = [
        tag(
            "rect", tag("title", bar.title), class_=bar.kind, x=f"{bar.start * scale:.2f}", y="0", height="100",
            width=f"{max(bar.length * scale, 1.2):.2f}", data_start=f"{bar.start:.3f}", data_seconds=f"{bar.length:.3f}",
        )
        for bar in bars
    ]  # fmt: skip
    return _svg(title, drawn)


def axis(low: float, high: float, unit: Unit, *, steps: int = 4) -> Markup:
    ticks = [low + (high - low) * step / steps for step in range(steps + 1)]
    return tag("div", [tag("span", unit.show(tick)) for tick in ticks], class_="axis x", aria_hidden="true")


def key(entries: Iterable[tuple[str, str]]) -> Markup:
    """What the colours mean: (class, words)."""
    square = [
        tag("span", tag("svg", tag("rect", width="12", height="12", rx="2.5", class_=kind), aria_hidden="true"), words)
        for kind, words in entries
    ]
    return tag("div", square, class_="key")


# ---------------------------------------------------------------- parts


def thinned(points: Sequence[Point], *, most: int) -> list[Point]:
    """At most *most* of *points*: of each stretch the lowest and the highest, so that no peak is lost."""
    if len(points) <= most:
        return list(points)
    stretches = most // 2
    kept: list[Point] = []
    for place in range(stretches):
        part = points[len(points) * place // stretches : len(points) * (place + 1) // stretches]
        ends = {min(part, key=lambda point: point[1]), max(part, key=lambda point: point[1])}
        kept += sorted(ends)
    return kept


def _finite(points: Sequence[Point]) -> list[Point]:
    return [point for point in points if math.isfinite(point[0]) and math.isfinite(point[1])]


def _svg(title: str, *children: Child, **attributes: object) -> Markup:
    return tag(
        "svg", *children, viewBox="0 0 1000 100", preserveAspectRatio="none", role="img", aria_label=title, **attributes
    )


def _framed(svg: Markup, *, x: Point, x_unit: Unit, y: Point, unit: Unit) -> Markup:
    marks = [y[1], (y[0] + y[1]) / 2, y[0]]
    upright = tag("div", [tag("span", unit.show(mark)) for mark in marks], class_="axis y", aria_hidden="true")
    return tag("div", upright, svg, axis(*x, x_unit, steps=3), class_="plot")


def _grid() -> Markup:
    return tag("path", d="M0 0H1000M0 50H1000M0 100H1000", class_="grid")


def _mark(place: int) -> Markup:
    return tag("svg", tag("line", x1="1", y1="6", x2="11", y2="6", class_=f"s{place}"), aria_hidden="true")


def _scale(value: float, low: float, high: float, to: float) -> float:
    return (value - low) / ((high - low) or 1.0) * to


def _range(values: Sequence[float]) -> Point:
    low, high = min(values), max(values)
    return (low, high) if high > low else (low, low + 1.0)


def _padded(values: Sequence[float]) -> Point:
    low, high = _range(values)
    return low - 0.05 * (high - low), high + 0.05 * (high - low)


def _nice(values: Sequence[float], *, from_zero: bool) -> Point:
    """A range whose middle and ends are short numbers."""
    low, high = min(values), max(values)
    low = min(0.0, low) if from_zero else low
    if not high > low:
        return low, low + (abs(low) or 1.0)
    step = 10 ** math.floor(math.log10((high - low) / 2))
    steps = next(step * part for part in (1, 1.5, 2, 2.5, 3, 4, 5, 7.5, 10) if 2 * step * part >= (high - low) * 0.999)
    start = math.floor(low / steps) * steps if low else 0.0
    return start, start + (2 * steps if start + 2 * steps >= high * 0.999 else 4 * steps)
