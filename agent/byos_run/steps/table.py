"""The table of a DOE: a csv whose rows are runs, numbered from 1; and which row this process is to do.

1. Text: UTF-8; what spreadsheets leave (BOM, CR LF, blank rows and empty columns at the end) is taken out.
2. Header: ``s3_input`` and ``s3_output`` must be there; further columns are values for templates.
3. Rows: as many cells as columns, urls that can be one, outputs that neither meet each other nor hold an input.
4. Any problem: UsageError with all of them, each with its row and the line in the file (a cell may span lines).

Which outputs meet is found on the sorted keys, where all that lies below a prefix follows it: n log n for n rows.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from byos_run.bucket import url as s3url
from byos_run.errors import UsageError, printable
from byos_run.model import S3Url
from byos_run.steps.kinds import BLANKS, S3PREFIX, S3URL, shown

INPUT, OUTPUT = "s3_input", "s3_output"
TABLE_BYTES = 64 << 20
_LISTED = 200
_NAME = re.compile(r"\$\{\s*([^{}\n]*?)\s*\}")
_INDEXES = {
    "SLURM_ARRAY_TASK_ID": 0, "AWS_BATCH_JOB_ARRAY_INDEX": 1, "JOB_COMPLETION_INDEX": 1, "PBS_ARRAY_INDEX": 0,
    "PBS_ARRAYID": 0, "SGE_TASK_ID": 0, "LSB_JOBINDEX": 0,
}  # fmt: skip
"""Array index of a scheduler → what makes it a row: AWS Batch and Kubernetes count from 0."""


@dataclass(frozen=True)
class Row:
    """One run of the table."""

    number: int
    """From 1, the header not counted."""
    line: int
    """Of the file, where the row begins."""
    cells: Mapping[str, str]
    """Column → text, stripped of blanks."""
    inputs: tuple[S3Url, ...]
    output: S3Url

    @property
    def values(self) -> dict[str, str]:
        """What the further columns give a template; an empty cell gives nothing."""
        return {name: text for name, text in self.cells.items() if text and name not in (INPUT, OUTPUT)}


@dataclass(frozen=True)
class Table:
    name: str
    """As it was given, for messages."""
    columns: tuple[str, ...]
    rows: tuple[Row, ...]

    def row(self, number: int) -> Row:
        """Raises UsageError if the table has no such row."""
        if not 1 <= number <= len(self.rows):
            raise UsageError([f"{self.name}: there is no row {number}: it has {len(self.rows)}, counted from 1"])
        return self.rows[number - 1]


def parse(data: bytes, *, name: str) -> Table:
    """The table in *data*. Raises UsageError with every problem."""
    name = printable(name)
    text = _text_of(data, name)
    lines = _lines(text, name)
    number, header = next(lines, (1, []))
    columns = [cell.strip(BLANKS) for cell in header]
    while columns and not columns[-1]:
        columns.pop()
    problems = [f"{name} line {number}: {problem}" for problem in _problems_of_header(columns)]
    if problems:
        raise UsageError(problems)
    rows: list[Row] = []
    for index, (line, cells) in enumerate(_without_blank_end(lines), 1):
        where = f"{name} row {index} (line {line})"
        row, wrong = _row(index, line, [cell.strip(BLANKS) for cell in cells], columns)
        problems += [f"{where}: {problem}" for problem in wrong]
        if row is not None:
            rows.append(row)
    if not rows and not problems:
        problems.append(f"{name}: it has no rows below its header")
    problems += [f"{name} {problem}" for problem in _meetings(rows)]
    if problems:
        more = [f"{name}: and {len(problems) - _LISTED:,} more problems"] if len(problems) > _LISTED else []
        raise UsageError(problems[:_LISTED] + more)
    return Table(name, tuple(columns), tuple(rows))


def fill(text: str, cells: Mapping[str, str]) -> str:
    """*text* with each ``${column}`` replaced, as the platform renders a template; other names stay."""
    return _NAME.sub(lambda match: cells.get(match[1], match[0]), text)


def number_of(environ: Mapping[str, str]) -> int:
    """The row that a scheduler's array index names. Raises UsageError if none does."""
    for name, add in _INDEXES.items():
        text = environ.get(name, "").strip()
        if text:
            if not re.fullmatch(r"[0-9]{1,9}", text) or int(text) + add < 1:
                raise UsageError([f'{name}: found "{printable(text)}", which is no row: give --row N, from 1'])
            return int(text) + add
    raise UsageError([f"the row is not given: --row N, or one of {', '.join(_INDEXES)}"])


def _text_of(data: bytes, name: str) -> str:
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise UsageError([f'{name}: it is UTF-16: save it as "CSV UTF-8"'])
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        where = f"byte {error.start + 1}, line {line}"
        raise UsageError([f'{name}: it is not UTF-8 ({where}): save it as "CSV UTF-8"']) from None
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise UsageError([f"{name}: it holds a NUL (line {line}): it is no csv"])
    return text


def _lines(text: str, name: str) -> Iterator[tuple[int, list[str]]]:
    """(number of its first line, cells) of each record. Raises UsageError where a quote is never closed."""
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    first = 1
    try:
        for cells in reader:
            yield first, cells
            first = reader.line_num + 1
    except csv.Error as error:
        raise UsageError([f"{name} line {first}: not a csv: {error}"]) from None


def _without_blank_end(lines: Iterator[tuple[int, list[str]]]) -> list[tuple[int, list[str]]]:
    found = list(lines)
    while found and _is_blank(found[-1][1]):
        found.pop()
    return found


def _is_blank(cells: Sequence[str]) -> bool:
    return not any(cell.strip(BLANKS) for cell in cells)


def _problems_of_header(columns: Sequence[str]) -> list[str]:
    if not columns:
        return ["the header is missing: s3_input,s3_output and columns for template.values"]
    problems = [f'column "{name}" is missing' for name in (INPUT, OUTPUT) if name not in columns]
    problems += [
        f'column "{printable(c)}" is there twice' for c in dict.fromkeys(columns) if c and columns.count(c) > 1
    ]
    problems += [f"column {index} has no name" for index, name in enumerate(columns, 1) if not name]
    problems += [
        f'column "{printable(c)}": a name holds none of "{{", "}}", "="' for c in columns if set(c) & set("{}=")
    ]
    if len(columns) == 1 and re.search("[;\t]", columns[0]):
        problems.append("its cells are not separated by commas")
    return problems


def _row(number: int, line: int, cells: list[str], columns: Sequence[str]) -> tuple[Row | None, list[str]]:
    if _is_blank(cells):
        return None, ["it is blank, which would shift the numbers of all that follow"]
    while len(cells) > len(columns) and not cells[-1]:
        cells.pop()
    if len(cells) != len(columns):
        return None, [f"it has {len(cells)} cells, the header has {len(columns)} columns"]
    by_name = dict(zip(columns, cells))
    problems = [f"{column}: it is empty" for column in (INPUT, OUTPUT) if not by_name[column]]
    if problems:
        return None, problems
    inputs: list[S3Url] = []
    output = S3Url("", "")
    for column, text in [(INPUT, text.strip(BLANKS)) for text in by_name[INPUT].split("\n")] + [
        (OUTPUT, by_name[OUTPUT])
    ]:
        try:
            if column == OUTPUT:
                output = S3PREFIX.parse(text)
            elif text:
                inputs.append(S3URL.parse(text))
        except ValueError as error:
            problems.append(f"{column}: found {shown(text)}, {printable(str(error))}")
    return (None if problems else Row(number, line, by_name, tuple(inputs), output)), problems


def _meetings(rows: Sequence[Row]) -> Iterator[str]:
    """Outputs that are equal, or lie in each other, or hold an input, or lie below one."""
    first_use = {url: row.number for row in reversed(rows) for url in row.inputs}
    places = [(s3url.as_prefix(url), 1, url.is_prefix, number) for url, number in first_use.items()]
    places += [(row.output, 0, True, row.number) for row in rows]
    above: list[tuple[S3Url, int, int]] = []
    for place, is_input, holds_more, number in sorted(places):
        while above and not s3url.holds(above[-1][0], place):
            above.pop()
        told = f'"{printable(str(place))}"'
        twice = False
        for other, other_is_input, before in above:
            twice = twice or (place == other and not is_input and not other_is_input)
            if is_input and not other_is_input:
                yield f'row {before}: {OUTPUT} "{printable(str(other))}" equals or holds the input of row {number}'
            elif other_is_input and not is_input:
                yield f"row {number}: {OUTPUT} {told} lies below the input of row {before}"
            elif not is_input:
                what = "is the same" if place == other else "of the second lies in that of the first"
                yield f"rows {before} and {number}: {OUTPUT} {what}: {told}"
        if holds_more and not twice:
            above.append((place, is_input, number))
