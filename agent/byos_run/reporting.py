"""What a run shows of itself besides the manifest: samples, figures of the solver's tables, the page.

    Gauge     around the run: the meter, and its newest sample for a node exporter
    figures   the solver has ended: what ``report.plot`` and ``report.result`` ask for is read from the case
    publish   before the manifest: ``metrics.json.zst`` and ``report.html``

Nothing here ends a run: what cannot be read, drawn or sent is a warning. The page's room is imported when it is needed: a
start does not wait for it.
"""

from __future__ import annotations

import json
import os
import threading
import traceback
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable

from byos_run import errors
from byos_run.book import Book
from byos_run.bucket import objects
from byos_run.bucket.wire import Wire
from byos_run.model import Attempt, Figure, Job, Output, Plot, S3Url
from byos_run.node import files, openmetrics, workspace
from byos_run.node.files import Harvest
from byos_run.node.globs import Glob
from byos_run.node.meter import Meter, Sample
from byos_run.node.process import Running
from byos_run.opening import Opened
from byos_run.steps.keys import KEYS

if TYPE_CHECKING:
    from byos_run.page.samples import Drawn

_SCHEMA = 1
_LOG_TAIL_BYTES = 256 << 10
_LEVEL = 9


@dataclass(frozen=True)
class Figures:
    """What the solver's tables and log say."""

    results: Mapping[str, float]
    plots: tuple[Drawn, ...]


class Gauge:
    """The meter of one run, and where its samples go."""

    def __init__(self, opened: Opened, *, place: Callable[[], Path]) -> None:
        self._book = opened.book
        self._output = str(opened.job.output)
        self._run_id = opened.run_id
        self._file = openmetrics.place_of(
            opened.job.report.openmetrics, run_directory=opened.place.run_directory, run_id=opened.run_id
        )
        self._lock = threading.Lock()
        self.meter = Meter(moved=opened.book.moved, place=place, show=self._export if self._file else None)

    @contextmanager
    def running(self) -> Iterator[None]:
        try:
            with self.meter:
                yield
        finally:
            self.withdraw()

    def withdraw(self) -> None:
        """Nothing more for the node exporter: what it has would be collected for ever, as if the run still lived."""
        with self._lock:
            file, self._file = self._file, None
            if file is not None:
                workspace.remove_file_now(file)

    def following(self, also: Callable[[Running], None]) -> Callable[[Running], None]:
        """To be told of the running command, as *also* is."""

        def begun(running: Running) -> None:
            also(running)
            self.meter.follow(running)

        return begun

    def _export(self, sample: Sample) -> None:
        with self._lock:
            if self._file is None:
                return
            try:
                openmetrics.write(self._file, openmetrics.text_of(sample, run_id=self._run_id, output=self._output))
            except OSError as error:
                self._book.warn(f"report.openmetrics: '{self._file}' cannot be written: {error.strerror}")
                self._file = None

    def document(self, attempt: Attempt) -> dict[str, Any]:
        """``metrics.json.zst``: a list for each field of a sample."""
        rows = self.meter.rows()
        columns = {
            name: [round(value, 3) if isinstance(value, float) else value for value in column]
            for name, column in zip(Sample._fields, zip(*rows))
        }
        return {
            "schema": _SCHEMA, "run_id": attempt.run_id, "attempt": attempt.number, "started_at": attempt.started_at,
            "node": {"cores": self.meter.node_cores, "memory_bytes": self.meter.node_memory_bytes}, "columns": columns,
        }  # fmt: skip


def figures(job: Job, *, harvests: Iterable[Harvest], log: Path, warn: Callable[[str], None]) -> Figures:
    """Read while the case is still there, which the *harvests* list. Does not raise."""
    outputs = [output for harvest in harvests for output in harvest.outputs]
    results, plots = {}, []
    for wanted in job.report.result:
        value = _figure(wanted, outputs, log)
        if value is None:
            warn(f"report.result: {wanted.text!r} is nowhere to be found")
        else:
            results[wanted.text] = value
    for asked in job.report.plot:
        drawn = _drawn(asked, outputs)
        if drawn is None:
            warn(f"report.plot: no table of the case fits '{asked}'")
        else:
            plots.append(drawn)
    return Figures(results, tuple(plots))


def _figure(wanted: Figure, outputs: Sequence[Output], log: Path) -> float | None:
    from byos_run.steps.figures import last_match, last_value

    if not wanted.file:
        return last_match(log, wanted.text)
    return next(_read(wanted.file, outputs, lambda fd: last_value(fd, wanted.column)), None)


def _drawn(asked: Plot, outputs: Sequence[Output]) -> Drawn | None:
    from byos_run.page.chart import Series
    from byos_run.page.samples import Drawn
    from byos_run.steps.figures import read_columns

    columns = (asked.x, *asked.ys)
    found = next(_read(asked.file, outputs, lambda fd: read_columns(fd, columns)), None)
    if found is None:
        return None
    axis, *values = found.values
    names = [name or f"column {column}" for name, column in zip(found.names, columns)]
    note = f"{found.lines:,} lines, evenly over a large file" if found.sampled else ""
    series = tuple(Series(name, list(zip(axis, column))) for name, column in zip(names[1:], values))
    return Drawn(asked.file, names[0], series, note)


def _read(glob: str, outputs: Sequence[Output], read: Callable[[int], Any]) -> Iterator[Any]:
    """What *read* makes of each output that fits *glob*, less those it makes nothing of."""
    wanted = Glob(glob)
    for output in sorted((each for each in outputs if wanted.matches(each.path)), key=lambda each: each.path):
        with suppress(OSError):  # gone, or not to be read: as if it were not there
            descriptor, _ = files.open_output(output)
            try:
                found = read(descriptor)
            finally:
                os.close(descriptor)
            if found is not None:
                yield found


def publish(
    *,
    wire: Wire,
    job: Job,
    manifest: Mapping[str, Any],
    metrics: Mapping[str, Any],
    found: Figures,
    log: Path,
    book: Book,
) -> None:
    """Put the samples and the page below ``_byos/``. Raises PrefixInUse, StoreUnreachable: the manifest would not do better."""
    below = f"{job.output.key}_byos/"
    try:
        import zstandard

        from byos_run.page.run import Told, run_page

        packed = zstandard.ZstdCompressor(level=_LEVEL).compress(json.dumps(metrics, separators=(",", ":")).encode())
        told = Told(
            columns=metrics["columns"], node=metrics["node"], log_tail=log_tail(log), plots=found.plots,
            settings=list(settings_of(job)),
        )  # fmt: skip
        page = run_page(manifest, told, place=str(job.output)).encode("utf-8", "backslashreplace")
        objects.put(wire, f"{below}metrics.json.zst", packed, content_type="application/zstd")
        objects.put(wire, f"{below}report.html", page, content_type="text/html; charset=utf-8")
    except (errors.PrefixInUse, errors.StoreUnreachable):
        raise
    except errors.ByosError as error:
        book.warn(f"report.html is not in the bucket: {error.message}")
    except (
        Exception
    ) as error:  # a defect of the page must not cost the run its manifest; it is told, with its traceback
        book.log.critical(
            f"a defect of byos-run: report.html: {errors.line_of(error)}", traceback=traceback.format_exc()
        )


def log_tail(log: Path) -> list[str]:
    """The last lines of *log*."""
    try:
        with log.open("rb") as file:
            start = max(0, file.seek(0, os.SEEK_END) - _LOG_TAIL_BYTES)
            file.seek(start)
            lines = file.read().decode("utf-8", "replace").splitlines()
    except OSError:
        return []
    return lines[1:] if start and len(lines) > 1 else lines


def settings_of(job: Job) -> Iterator[tuple[str, str]]:
    """Key → value of all that is no default, as a job file has them; of ``solver.env`` the names, of secrets nothing."""
    plain = Job(job.input, job.output, job.command)
    for key in KEYS:
        value, usual = (_value_of(each, key.section, key.field or key.leaf) for each in (job, plain))
        if value == usual and key.name not in ("input", "output", "command"):
            continue
        if key.name == "solver.env":
            yield key.name, ", ".join(sorted(value))
        elif key.name == "store.external_id":
            yield key.name, "given"
        else:
            yield key.name, f"{value:g} s" if key.field.endswith("_s") else _shown(value)


def _value_of(job: Job, section: str, field: str) -> Any:
    holder: Any = job
    for part in section.split(".") if section else ():
        holder = getattr(holder, part)
    return getattr(holder, field)


def _shown(value: object) -> str:
    if isinstance(value, S3Url):
        return str(value)
    if isinstance(value, Mapping):
        return ", ".join(f"{name}={each}" for name, each in value.items())
    if isinstance(value, Iterable) and not isinstance(value, str):
        return " ".join(str(item) for item in value)
    if isinstance(value, bool):
        return "true" if value else "false"
    return "auto" if value is None else str(value)
