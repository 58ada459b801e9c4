"""A DOE's rows from what lies in the bucket and the parameters: names, order, outputs.

    inputs (sorted by key) × points of the parameters (the last one fastest) ▶ rows: s3_input, s3_output, a column a parameter

An output is named after its input, without the archive's suffix, and after its point: ``output/hsdi_fb_2mm/angle-10_tilt-2/``.
Two that would be one get their whole name, then a number.
"""

from __future__ import annotations

import csv
import io
import itertools
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from byos_run.archive.kinds import kind_of
from byos_run.errors import UsageError, printable
from byos_run.model import S3Url
from byos_run.steps.table import INPUT, OUTPUT

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*")
_MOST_ROWS = 100_000


@dataclass(frozen=True)
class Points:
    """The parameters of a DOE."""

    columns: tuple[str, ...]
    points: tuple[tuple[str, ...], ...]
    """Each with a value for each column; one empty point if there are no columns."""


NO_POINTS = Points((), ((),))


def factorial(asked: Sequence[str]) -> Points:
    """``["angle=1,2,3", "tilt=0,5"]`` → six points. Raises UsageError with every problem."""
    values: dict[str, list[str]] = {}
    problems = []
    for text in asked:
        name, equals, rest = text.partition("=")
        cells = [cell.strip() for cell in rest.split(",")]
        if not equals or not all(cells):
            problems.append(f'--columns: found "{printable(text)}", allowed: name=value,value,…')
        elif name.strip() in values:
            problems.append(f'--columns: "{printable(name.strip())}" is given twice')
        else:
            values[name.strip()] = cells
    problems += _problems_of_names(values)
    if problems:
        raise UsageError(problems)
    return Points(tuple(values), tuple(itertools.product(*values.values())))


def points_of(data: bytes, *, name: str) -> Points:
    """The points of an existing csv: a header of names, a point a line. Raises UsageError with every problem."""
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise UsageError([f'{name}: it is not UTF-8: save it as "CSV UTF-8"']) from None
    lines = [[cell.strip() for cell in cells] for cells in csv.reader(io.StringIO(text, newline=""))]
    header, *rows = [cells for cells in lines if any(cells)] or [[]]
    problems = [f"{name}: {problem}" for problem in _problems_of_names(header)]
    problems += [f"{name}: it has no points below its header"] if not rows else []
    problems += [
        f"{name} point {number}: it has {len(cells)} cells, the header has {len(header)} columns"
        for number, cells in enumerate(rows, 1)
        if len(cells) != len(header)
    ]
    if problems:
        raise UsageError(problems)
    return Points(tuple(header), tuple(tuple(cells) for cells in rows))


def _problems_of_names(names: Iterable[str]) -> list[str]:
    problems, seen = [], set[str]()
    for name in names:
        if not _NAME.fullmatch(name):
            problems.append(f'column "{printable(name)}": a name is a letter, then letters, digits, "_", "." and "-"')
        elif name in (INPUT, OUTPUT) or name in seen:
            problems.append(f'column "{name}": there is one already')
        seen.add(name)
    return problems


def rows_of(inputs: Sequence[S3Url], *, below: S3Url, output: S3Url, points: Points) -> list[dict[str, str]]:
    """A row for each input and point, in a stable order. *below*: what the inputs' names are relative to. Raises UsageError."""
    if len(inputs) * len(points.points) > _MOST_ROWS:
        raise UsageError([f"{len(inputs) * len(points.points):,} rows are more than {_MOST_ROWS:,}"])
    taken: set[str] = set()
    rows = []
    for url, stem in _stems(sorted(inputs), below=below):
        for point in points.points:
            named = "_".join(f"{column}-{_plain(value)}" for column, value in zip(points.columns, point))
            place = _free(f"{stem}/{named}" if named else stem, taken)
            rows.append({INPUT: str(url), OUTPUT: f"{output}{place}/", **dict(zip(points.columns, point))})
    return rows


def _stems(inputs: Sequence[S3Url], *, below: S3Url) -> list[tuple[S3Url, str]]:
    """Each input with the path of its outputs: without the archive's suffix where that tells it from the others."""
    whole = [
        url.key[len(below.key) :] if url.key.startswith(below.key) and url != below else url.name for url in inputs
    ]
    short = [_without_suffix(path) for path in whole]
    return [
        (url, cut if short.count(cut) == 1 and not any(other.startswith(f"{cut}/") for other in short) else path)
        for url, path, cut in zip(inputs, whole, short)
    ]


def _without_suffix(path: str) -> str:
    kind = kind_of(path)
    lowered = path.lower()
    suffixes = [f".{kind}", ".tgz"] if kind else []
    return next((path[: -len(suffix)] for suffix in suffixes if lowered.endswith(suffix)), path)


def _plain(value: str) -> str:
    """A value as a part of a key."""
    return re.sub(r"[^A-Za-z0-9.+-]+", "_", value) or "_"


def _free(place: str, taken: set[str]) -> str:
    found = next(
        name for number in itertools.count(1) if (name := place if number == 1 else f"{place}-{number}") not in taken
    )
    taken.add(found)
    return found


def csv_text(rows: Sequence[Mapping[str, str]]) -> str:
    """The table, as spreadsheets and platforms read it."""
    out = io.StringIO(newline="")
    writer = csv.DictWriter(out, fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()
