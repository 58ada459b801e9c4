"""What is asked: argv, environment and byos.toml → Job, or every problem at once.

0. With ``--table``: find the row, by ``--row`` or the array index; its columns fill ``${column}`` in the job file, which may
   be the template that the platform would render.
1. Read the sources; each gives raw values and what it could not make sense of.
2. Lowest first (job file, variables, row, flags), parse every value that is given and lay it over the one below. "" and 0
   mean "not given"; a switch is the exception, 0 is its "false". Tables are laid over each other name by name.
3. Refuse what asks for a capability that is not in this version, and what contradicts itself.
4. Any problem: UsageError with all of them. None: the Job.

Nothing is moved, made or deleted, and the store is asked for nothing but a table on s3://. Not promised: that an input
exists or the command is found. Values of ``solver.env`` and whatever stands before an "@" are in no problem.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable

from byos_run.bucket import url as s3url
from byos_run.errors import UsageError, printable
from byos_run.model import (
    FetchSettings,
    Job,
    Place,
    PublishSettings,
    PurgeSettings,
    ReportSettings,
    ResumeSettings,
    S3Url,
    SolverSettings,
    SpotSettings,
    StoreSettings,
    Success,
    TemplateSettings,
)
from byos_run.steps import rows
from byos_run.steps.keys import KEYS, help_of_keys
from byos_run.steps.kinds import Kind, shown
from byos_run.steps.sources import (
    JOB_FILE,
    UNRENDERED,
    Raw,
    Source,
    left_over,
    of_flags,
    of_job_file,
    of_variables,
)

__all__ = ["help_of_keys", "settle", "settle_fetch", "settle_report", "settle_store"]


@dataclass(frozen=True)
class Given:
    """A parsed value, and where it came from."""

    value: Any
    where: str


_OF_A_KIT = "the job file here is a template, which a row fills: --table inputs.csv --row 1"

Asked = dict[str, Given]
"""Name of a key → the value that holds."""


ReadObject = Callable[[S3Url, StoreSettings], bytes]
"""The content of an object; raises ByosError."""


def settle(*, arguments: Sequence[str], place: Place, read_object: ReadObject | None = None) -> Job:
    """*arguments* are the words after the sub-command. Raises UsageError with every problem that was found.

    *read_object* reads a table on s3://; what it raises is passed on.
    """
    flags, variables = of_flags(arguments), of_variables(place.environ)
    path = rows.job_file(place) if "--table" in flags.own else place.run_directory / JOB_FILE

    def read(url: S3Url) -> bytes:
        if read_object is None:
            raise UsageError([f"--table: {url} cannot be read here"])
        return read_object(url, _store_of((of_job_file(path), variables, flags)))

    row = rows.row_of(flags, place, read=read)
    job_file = of_job_file(path, cells=row.cells)
    sources = (job_file, variables, row.source, flags)
    asked, mentioned, problems = _laid_over(sources)
    if job_file.whole and row.source.whole:
        problems += _missing(mentioned)
    for check in (_check_urls, _check_store):
        problems += check(asked)
    problems += _check_directories(asked, place, rows.directory(place.run_directory, row.number))
    if not row.source.whole:  # which names are columns is not known then
        problems = [problem for problem in problems if UNRENDERED not in problem]
    if problems:
        raise UsageError(list(dict.fromkeys(problems)), hint=_OF_A_KIT if rows.job_file(place) != path else "")
    return _job({name: given.value for name, given in asked.items()}, row=row.number)


def _store_of(sources: Sequence[Source]) -> StoreSettings:
    """The [store] that holds for every row, so no column may stand in it. Raises UsageError."""
    asked, _, problems = _laid_over(
        [Source([raw for raw in source.raws if raw.key.section == "store"]) for source in sources]
    )
    if problems:
        raise UsageError(problems)
    return StoreSettings(**_parts({name: given.value for name, given in asked.items()}).get("store", {}))


def settle_fetch(*, arguments: Sequence[str], place: Place) -> tuple[FetchSettings, StoreSettings]:
    """The same for a stage-in alone: [fetch] and [store]. Raises UsageError."""
    parts = _settled_part(arguments, place, command="fetch", uses=("fetch.max", "store."))
    return FetchSettings(**parts.get("fetch", {})), StoreSettings(**parts.get("store", {}))


def settle_store(*, arguments: Sequence[str], place: Place, command: str) -> StoreSettings:
    """The same for a command that only speaks with the store. Raises UsageError."""
    return StoreSettings(**_settled_part(arguments, place, command=command, uses=("store.",)).get("store", {}))


def settle_report(*, arguments: Sequence[str], place: Place) -> tuple[ReportSettings, StoreSettings]:
    """The same for the page of a DOE: prices, and [store]. Raises UsageError."""
    parts = _settled_part(arguments, place, command="report", uses=("report.price", "store."))
    prices = {name: value for name, value in parts.get("report", {}).items() if name.startswith("price")}
    return ReportSettings(**prices), StoreSettings(**parts.get("store", {}))


def _settled_part(
    arguments: Sequence[str], place: Place, *, command: str, uses: tuple[str, ...]
) -> dict[str, dict[str, Any]]:
    """Of the job file, or the template of a DOE's kit, only what the command uses counts: the rest may be another's to correct."""
    here = of_job_file(rows.job_file(place))
    kit = Source([raw for raw in here.raws if raw.key.name.startswith(uses) and not left_over(str(raw.value))])
    asked, _, problems = _laid_over((kit, of_variables(place.environ), of_flags(arguments)))
    problems += _check_store(asked)
    flags = {given.where for name, given in asked.items() if not name.startswith(uses)} | set(of_flags(arguments).own)
    problems += [f"{flag}: {command} does not use it" for flag in sorted(flags) if flag.startswith("-")]
    if problems:
        raise UsageError(list(dict.fromkeys(problems)))
    return _parts({name: given.value for name, given in asked.items()})


def _laid_over(sources: Sequence[Source]) -> tuple[Asked, set[str], list[str]]:
    """The values of *sources*, lowest first, laid over each other; the names that were mentioned; the problems."""
    problems = [problem for source in reversed(sources) for problem in source.problems]
    asked: Asked = {}
    mentioned: set[str] = set()
    for raw in (raw for source in sources for raw in source.raws):
        value, reasons = _read(raw)
        problems += reasons
        if value is not None or reasons:
            mentioned.add(raw.key.name)
            _lay_over(asked, raw, None if reasons else value)
    return asked, mentioned, problems


# ---------------------------------------------------------------- one value


AUTO_NONE = object()
"""Stands for a value that was given and parsed to None: "auto", where the model's word for it is None."""


def _read(raw: Raw) -> tuple[Any, list[str]]:
    """The parsed value, None if it was not given; and what is wrong with it."""
    kind = raw.key.kind
    value = _stripped(raw.value, kind)
    if not _is_given(value, kind):
        return None, []
    unrendered = left_over("\n".join(_texts(value)))
    if unrendered:
        return None, [f"{raw.where}: {unrendered}"]
    if raw.is_toml and not _fits(value, kind):
        allowed = kind.allowed if kind.shape != "list" or kind.lone_item else f"a list, each item {kind.allowed}"
        return None, [_wrong(raw, value, f"allowed: {allowed}")]
    if kind.shape != "list":
        return _parsed(raw, value)
    items, problems = [], []
    for item in value if isinstance(value, list) else [value]:
        parsed, reasons = _parsed(raw, item)
        items.append(parsed)
        problems += reasons
    return tuple(items), problems


def _stripped(value: Any, kind: Kind) -> Any:
    if isinstance(value, str):
        return value.strip(kind.strip)
    if isinstance(value, list) and kind.shape != "command":
        items = [item.strip(kind.strip) if isinstance(item, str) else item for item in value]
        return [item for item in items if item != ""]
    return value


def _is_given(value: Any, kind: Kind) -> bool:
    if isinstance(value, bool):
        return True
    if isinstance(value, str):
        return value != "" and (kind.shape == "switch" or value not in {"0", "0.0"})
    if isinstance(value, list) and kind.shape == "command":
        return any(word != "" for word in value)
    if isinstance(value, (list, dict)) and kind.shape not in {"list", "table"}:
        return True
    return bool(value)


def _texts(value: Any) -> list[str]:
    if isinstance(value, dict):
        value = [part for pair in value.items() for part in pair]
    if isinstance(value, list):
        return [text for item in value for text in _texts(item)]
    return [value] if isinstance(value, str) else []


def _fits(value: Any, kind: Kind) -> bool:
    """The TOML type is one that the kind allows. A boolean is no number here, though Python thinks so."""
    if kind.shape != "list":
        return type(value) in kind.types
    if type(value) is not list:
        return kind.lone_item and type(value) in kind.types
    return all(type(item) in kind.types for item in value)


def _parsed(raw: Raw, value: Any) -> tuple[Any, list[str]]:
    try:
        parsed = raw.key.kind.parse(value)
    except ValueError as error:
        return None, [_wrong(raw, value, str(error) or f"allowed: {raw.key.kind.allowed}")]
    return AUTO_NONE if parsed is None else parsed, []


def _wrong(raw: Raw, value: Any, reason: str) -> str:
    found = "" if raw.key.kind.shape == "table" else f"found {shown(value)}, "
    return f"{raw.where}: {found}{printable(reason)}"


def _lay_over(asked: Asked, raw: Raw, value: Any) -> None:
    name = raw.key.name
    below = asked.pop(name, None)
    if value is None:
        return
    if value is AUTO_NONE:
        value = None
    if isinstance(value, dict) and below:
        value = {**below.value, **value}
    # $BYOS_SCRATCH is also the place that "outside" looks at first; it must not turn "outside" into that place itself.
    is_place = raw.where == raw.key.variable and str(value).startswith("/")
    if name == "scratch" and below and below.value == "outside" and is_place:
        asked[name] = below
    else:
        asked[name] = Given(value, raw.where)


# ---------------------------------------------------------------- all values together


def _missing(mentioned: set[str]) -> list[str]:
    return [
        f"{name} is not given: set {name} in {JOB_FILE}, --{name} or BYOS_{name.upper()}"
        + (', or write the command after "--"' if name == "command" else "")
        for name in ("input", "output", "command")
        if name not in mentioned
    ]


def _check_urls(asked: Asked) -> list[str]:
    problems = []
    inputs: tuple[S3Url, ...] = asked["input"].value if "input" in asked else ()
    for index, one in enumerate(inputs):
        for other in inputs[:index]:
            if one == other:
                problems.append(f'{asked["input"].where}: "{one}" is given twice')
            elif _is_below(one, other) or _is_below(other, one):
                problems.append(f'{asked["input"].where}: of "{other}" and "{one}" one holds the other')
    if "output" not in asked:
        return problems
    output, where = asked["output"].value, asked["output"].where
    if "_byos" in output.key.split("/"):
        problems.append(f'{where}: "{output}" holds "_byos", which is for our own objects')
    for one in inputs:
        if s3url.holds(output, one):
            problems.append(f'{where}: "{output}" equals or contains the input "{one}"')
        elif _is_below(output, one):
            problems.append(f'{where}: "{output}" lies below the input "{one}"')
    return [printable(problem) for problem in problems]


def _is_below(url: S3Url, prefix: S3Url) -> bool:
    return prefix.is_prefix and s3url.holds(prefix, url)


def _check_store(asked: Asked) -> list[str]:
    problems = []
    sse = asked.get("store.sse")
    if "store.kms_key_id" in asked and (sse is None or sse.value != "aws:kms"):
        problems.append(f'{asked["store.kms_key_id"].where}: it needs store.sse = "aws:kms"')
    of_role = [asked[name] for name in ("store.external_id", "store.session_name") if name in asked]
    if "store.role_arn" not in asked:
        problems += [f"{given.where}: it needs store.role_arn" for given in of_role]
    return problems


# ---------------------------------------------------------------- directories


def _check_directories(asked: Asked, place: Place, run_directory: Path) -> list[str]:
    """Purge empties them, so none may be, or hold, what is not ours."""
    home = place.environ.get("HOME", "")
    run = os.path.realpath(run_directory)
    problems = []
    if run == "/" or (os.path.isabs(home) and _holds(run, os.path.realpath(home))):
        problems.append(f'the run directory "{printable(run)}" is or holds {"/" if run == "/" else "$HOME"}')
    scratch = asked.get("scratch")
    if scratch and scratch.value != "outside":
        reason = _why_not_scratch(scratch.value, run=run, home=home)
        if reason:
            problems.append(f"{scratch.where}: found {shown(scratch.value)}, {reason}")
    return problems


def _why_not_scratch(scratch: str, *, run: str, home: str) -> str:
    parts = os.path.normpath(scratch).split("/")
    if scratch.startswith("~") or "$" in scratch:
        return 'neither "~" nor variables are expanded'
    if not os.path.isabs(scratch) and parts[0] in {".", ".."}:
        return "it does not lie below the run directory"
    if parts[0] == ".byos":
        return "that directory is our own"
    whole = os.path.realpath(os.path.join(run, scratch))
    if _holds(whole, run):
        return "it is or holds the run directory"
    if os.path.isabs(home) and _holds(whole, os.path.realpath(home)):
        return "it is or holds $HOME"
    return ""


def _holds(directory: str, path: str) -> bool:
    return os.path.commonpath([directory, path]) == directory


# ---------------------------------------------------------------- the job


def _job(values: Mapping[str, Any], *, row: int) -> Job:
    parts = _parts(values)
    return Job(
        **parts.get("", {}),
        row=row,
        template=TemplateSettings(**parts.get("template", {})),
        fetch=FetchSettings(**parts.get("fetch", {})),
        solver=SolverSettings(**parts.get("solver", {}), success=Success(**parts.get("solver.success", {}))),
        publish=PublishSettings(**parts.get("publish", {})),
        purge=PurgeSettings(**parts.get("purge", {})),
        resume=ResumeSettings(**parts.get("resume", {})),
        spot=SpotSettings(**parts.get("spot", {})),
        report=ReportSettings(**parts.get("report", {})),
        store=StoreSettings(**parts.get("store", {})),
    )


def _parts(values: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Section → field → value. Only what was asked is handed over: the defaults are the model's."""
    parts: dict[str, dict[str, Any]] = {}
    for key in KEYS:
        if key.name in values:
            parts.setdefault(key.section, {})[key.field or key.leaf] = values[key.name]
    return parts
