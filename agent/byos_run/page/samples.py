"""What a run used, and the solver's tables, as charts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from byos_run.log import count, duration, size
from byos_run.page import chart
from byos_run.page.chart import Series
from byos_run.page.html import NOTHING, Child, Markup, tag
from byos_run.page.parts import note, section

_MOST_PLOTS = 8
_PLOTTED_POINTS = 5000


@dataclass(frozen=True)
class Drawn:
    """Columns of one of the solver's tables."""

    title: str
    x_name: str
    series: tuple[Series, ...]
    note: str = ""


def used(columns: Mapping[str, Sequence[Any]], node: Mapping[str, int]) -> Markup:
    """*columns* of the meter: a list for each field of a sample; *node*: ``cores`` and ``memory_bytes``."""
    at = [float(value) for value in columns.get("at", ())]
    if len(at) < 2:
        return NOTHING

    def gauge(name: str, title: str) -> Series:
        return Series(title, list(zip(at, (float(value) for value in columns[name]))))

    def per_second(name: str, title: str) -> Series:
        values = [float(value) for value in columns[name]]
        steps = zip(at, at[1:], values, values[1:])
        return Series(title, [(later, max(0.0, (b - a) / max(later - early, 1e-3))) for early, later, a, b in steps])

    cores = f" of {node['cores']} cores" if node.get("cores") else ""
    memory = f" of {size(node['memory_bytes'])}" if node.get("memory_bytes") else ""
    ranks, whole = "solver", f"whole node{cores}"
    pictures = [
        chart.lines(
            "Busy cores", [per_second("ranks_cpu_s", ranks), per_second("node_cpu_s", whole)], unit=chart.NUMBER
        ),
        chart.lines(
            "Memory",
            [gauge("ranks_memory_bytes", ranks), gauge("node_memory_bytes", f"whole node{memory}")],
            unit=chart.BYTES,
        ),
        chart.lines(
            "Bytes moved",
            [gauge("bytes_in", "fetched"), gauge("bytes_out", "acknowledged by the bucket")],
            unit=chart.BYTES,
        ),
        chart.lines("Rate", [per_second("bytes_in", "in"), per_second("bytes_out", "out")], unit=chart.RATE),
        chart.lines("Disk", [gauge("disk_used_bytes", "used"), gauge("disk_free_bytes", "free")], unit=chart.BYTES),
    ]
    told = f"{count(len(at), 'sample')}; byos-run itself took {_agent(columns)} of processor time."
    return section("What it used", tag("div", pictures, class_="charts"), note(told))


def _agent(columns: Mapping[str, Sequence[Any]]) -> str:
    used = columns.get("agent_cpu_s", ())
    return duration(float(used[-1])) if used else "–"


def drawn(plots: Sequence[Drawn]) -> Markup:
    """The solver's tables."""
    if not plots:
        return NOTHING
    pictures: list[Child] = []
    lines = sum(len(plot.series) for plot in plots[:_MOST_PLOTS])
    most = min(chart.MOST_POINTS, _PLOTTED_POINTS // max(1, lines))
    for plot in plots[:_MOST_PLOTS]:
        picture = chart.lines(
            plot.title, plot.series, unit=chart.NUMBER, x_unit=chart.NUMBER, from_zero=False, most=most
        )
        note = ", ".join(part for part in (f"over {plot.x_name}" if plot.x_name else "", plot.note) if part)
        pictures.append(tag("div", picture or tag("h3", plot.title), tag("p", note, class_="note")))
    return section("The solver's tables", tag("div", pictures, class_="charts tall"))
