"""One row of a table: which one ``--table`` and ``--row`` mean, its directory, its job file.

An array of a scheduler starts every row in one directory, with one table, one ``config`` and one job file, which may be the
template that the platform would render: the row's columns fill it. Each row works in ``byos-row-N/`` below.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import takewhile
from pathlib import Path
from typing import Callable

from byos_run.bucket import objects
from byos_run.bucket import url as s3url
from byos_run.bucket.wire import Wire
from byos_run.errors import MissingInput, UsageError
from byos_run.model import Place, S3Url
from byos_run.steps import table
from byos_run.steps.kinds import shown
from byos_run.steps.sources import JOB_FILE, Source, of_row, read_table


@dataclass(frozen=True)
class Chosen:
    """What ``--table`` and ``--row`` come to."""

    source: Source
    number: int = 0
    """0: the run is no row."""
    cells: Mapping[str, str] = field(default_factory=dict)
    """Column → text."""


def row_of(flags: Source, place: Place, *, read: Callable[[S3Url], bytes]) -> Chosen:
    """*read* reads a table on s3://; what it raises besides UsageError is passed on."""
    reference = flags.own.get("--table", "")
    if not reference:
        return Chosen(Source(problems=["--row: it needs --table"] if "--row" in flags.own else []))
    number = 0
    problems: list[str] = []
    try:
        number = _number(flags.own.get("--row", ""), place.environ)
    except UsageError as error:
        problems += error.problems
    try:
        found = table.parse(content(reference, place.run_directory, read), name=reference)
        row = found.row(number) if number else None
    except UsageError as error:
        problems += error.problems
    if problems or row is None:
        return Chosen(Source(problems=problems, whole=False))
    return Chosen(of_row(row, table=reference), number, row.cells)


def is_asked(arguments: Sequence[str]) -> bool:
    """Whether the run is to be a row of a table, before anything else of *arguments* is understood."""
    return any(word.partition("=")[0] == "--table" for word in takewhile(lambda word: word != "--", arguments))


def _number(text: str, environ: Mapping[str, str]) -> int:
    if not text:
        return table.number_of(environ)
    if not (text.isdecimal() and text.isascii() and len(text) < 10 and int(text)):
        raise UsageError([f"--row: found {shown(text)}, allowed: a whole number from 1"])
    return int(text)


def content(reference: str, start: Path, read: Callable[[S3Url], bytes]) -> bytes:
    """The table that *reference* names: a path from *start*, or an object. Raises UsageError, what *read* raises."""
    if not reference.startswith("s3://"):
        return read_table(start / reference)
    try:
        url = s3url.parse(reference)
        if url.is_prefix:
            raise ValueError("it names no object")
    except ValueError as error:
        raise UsageError([f"--table: found {shown(reference)}, {error}"]) from None
    return read(url)


def object_of(wire: Wire, url: S3Url) -> bytes:
    """A table on s3://. Raises MissingInput, UsageError (too large), AccessRefused, StoreUnreachable, Stopped."""
    facts = objects.head(wire, url.key)
    if facts and facts.size_bytes > table.TABLE_BYTES:
        raise UsageError([f"--table: {url} is larger than {table.TABLE_BYTES} bytes"])
    found = objects.get(wire, url.key) if facts else None
    if found is None:
        raise MissingInput(f"{url} does not exist", hint="is the key spelled as in the bucket?")
    return found.body


def job_file(place: Place) -> Path:
    path = place.run_directory / JOB_FILE
    template = path.with_name(f"{JOB_FILE}.template")
    return template if template.exists() and not os.path.lexists(path) else path


def directory(start: Path, number: int) -> Path:
    """The run directory of row *number*; *start* itself if the run is no row."""
    return start / f"byos-row-{number}" if number else start
