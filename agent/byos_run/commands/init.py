"""``byos-run init s3://…/input/ s3://…/output/``: a ready DOE kit from what lies in the bucket.

    listing ▶ inputs × points ▶ inputs.csv     byos.toml.template, config, policy.json, README.txt, a submit file, byos-run

Reads the listing alone, and writes into a directory of its own that is not there yet: nothing is overwritten.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from byos_run import errors, log
from byos_run.archive.kinds import kind_of
from byos_run.bucket import objects, ranges
from byos_run.bucket import url as s3url
from byos_run.bucket.session import Session
from byos_run.bucket.wire import Wire
from byos_run.errors import printable
from byos_run.model import Place, S3Url, StoreSettings
from byos_run.node.stop import Stop
from byos_run.steps import design, kit_texts
from byos_run.steps.design import Points
from byos_run.steps.kinds import S3PREFIX, S3URL
from byos_run.steps.policy import permissions
from byos_run.steps.settle import settle_store
from byos_run.steps.sources import read_table
from byos_run.steps.words import sort_words

USAGE = """\
usage: byos-run init s3://BUCKET/INPUT/ s3://BUCKET/OUTPUT/ [-o DIRECTORY]
                [--columns NAME=VALUE,VALUE ... | --columns FILE.csv]
                [--for rescale|slurm|pbs|aws-batch|kubernetes] [--command TEXT]
                [--cores N] [--keys-from-profile NAME] [--store-KEY VALUE ...]

Writes the kit of a DOE into a new directory: inputs.csv with a row for each
archive below INPUT (or each object, if there is none), byos.toml.template,
config, policy.json, README.txt with the platform's steps, byos-run itself.

  -o DIRECTORY       where to (byos-doe)
  --columns NAME=V,V parameters: all combinations of the values (repeatable), or
                     the points of a csv; they reach the case by [template]
  --for NAME         also write the file that this scheduler is given
  --command TEXT     the solver, {cores} being the slot's
                     ("mpirun -np {cores} converge super")
  --cores N          of one slot (8)
  --keys-from-profile NAME
                     write the keys of this profile into config; else it is a
                     form to fill in
"""
CODES = """
exit codes:
  0   the kit is written
  64  command line wrong, or the directory is there already
  66  nothing lies below INPUT
  69  store not reachable
  71  this machine cannot write the directory
  75  stopped by a signal
  77  store refused the credentials or the permission
"""
_VALUES = ("-o", "--for", "--command", "--cores", "--keys-from-profile")


@dataclass(frozen=True)
class _Asked:
    source: S3Url
    output: S3Url
    directory: Path
    points: Points
    scheduler: str
    command: str
    cores: int
    profile: str
    keys: list[str]


def init(words: Sequence[str], *, place: Place, stop: Stop, show: Callable[[str], object]) -> int:
    """*show* writes to standard output. Returns the exit code. Raises ByosError."""
    asked = _asked(words, place)
    store = settle_store(arguments=asked.keys, place=place, command="init")
    session = Session(settings=replace(store, profile=asked.profile or store.profile), place=place)
    try:
        inputs, others = _inputs(session.wire(asked.source.bucket, stop=stop), asked.source)
        store = replace(session.reached(asked.source.bucket), profile=store.profile)
        keys = _keys(session) if asked.profile else {}
    finally:
        session.close()
    rows = design.rows_of(inputs, below=asked.source, output=asked.output, points=asked.points)
    program = "sh byos-run" if place.shipped_file else "byos-run"
    files = _files(asked, store, rows=rows, keys=keys, program=program)
    _write(asked.directory, files, place.shipped_file)
    show(_told(asked, files, rows=len(rows), inputs=len(inputs), others=others, program=program))
    return 0


def _asked(words: Sequence[str], place: Place) -> _Asked:
    columns, rest = _columns_of(words)
    given = sort_words(["--out" if word == "-o" else word for word in rest], command="init", values=("--out", *_VALUES))
    problems: list[str] = []
    urls = [S3Url("", ""), S3Url("", "")]
    if len(given.places) != 2:
        problems.append("init needs s3://BUCKET/INPUT/ and s3://BUCKET/OUTPUT/, in this order")
    for index, (text, kind) in enumerate(zip(given.places, (S3URL, S3PREFIX))):
        try:
            urls[index] = kind.parse(text)
        except ValueError as error:
            problems.append(f'"{printable(text)}": {printable(str(error))}')
    cores, scheduler = given.values.get("--cores", "8"), given.values.get("--for", "rescale")
    if not cores.isdecimal() or not int(cores):
        problems.append(f'--cores: found "{printable(cores)}", allowed: a whole number from 1')
    if scheduler not in kit_texts.FOR:
        problems.append(f'--for: found "{printable(scheduler)}", allowed: {", ".join(kit_texts.FOR)}')
    if not problems and urls[0].is_prefix and s3url.holds(urls[0], urls[1]):
        problems.append(f"the output {urls[1]} lies below the input: its objects would become inputs")
    try:
        points = _points(columns, place)
    except errors.UsageError as error:
        problems += error.problems
        points = design.NO_POINTS
    directory = place.run_directory / given.values.get("--out", "byos-doe")
    if os.path.lexists(directory):
        problems.append(f"{str(directory)!r} is there already, and nothing is overwritten: -o names another")
    if problems:
        raise errors.UsageError(problems, hint="byos-run init --help")
    return _Asked(
        urls[0], urls[1], directory, points, scheduler, given.values.get("--command", kit_texts.COMMAND), int(cores),
        given.values.get("--keys-from-profile", ""), given.keys,
    )  # fmt: skip


def _columns_of(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """The values of each ``--columns``, which is repeatable, and the other words."""
    columns, rest, waiting = [], list[str](), list(reversed(words))
    while waiting:
        word = waiting.pop()
        if word == "--columns" and waiting:
            columns.append(waiting.pop())
        elif word.startswith("--columns="):
            columns.append(word.partition("=")[2])
        else:
            rest.append(word)
    return columns, rest


def _points(columns: Sequence[str], place: Place) -> Points:
    if len(columns) == 1 and columns[0].lower().endswith(".csv"):
        return design.points_of(read_table(place.run_directory / columns[0]), name=printable(columns[0]))
    return design.factorial(columns) if columns else design.NO_POINTS


def _inputs(wire: Wire, source: S3Url) -> tuple[list[S3Url], list[str]]:
    """The archives below *source*, or all objects if there is none; and what else lies there. Raises MissingInput."""
    if not source.is_prefix:
        ranges.open_object(wire, source)
        return [source], []
    try:
        keys = [item.key for item in objects.listed(wire, source.key) if not item.key.endswith("/")]
    except errors.NoSuchObject as error:
        raise ranges.missing(error, source) from None
    if not keys:
        raise errors.MissingInput(f"{source} holds no objects", hint="is the prefix spelled as in the bucket?")
    archives = [key for key in keys if kind_of(key)]
    others = [key for key in keys if not kind_of(key)] if archives else []
    return [S3Url(source.bucket, key) for key in archives or keys], others


def _keys(session: Session) -> dict[str, str]:
    keys = session.keys()
    return {
        "aws_access_key_id": keys.access_key, "aws_secret_access_key": keys.secret_key, "aws_session_token": keys.token,
    }  # fmt: skip


def _files(
    asked: _Asked, store: StoreSettings, *, rows: list[dict[str, str]], keys: dict[str, str], program: str
) -> dict[str, str]:
    texts = kit_texts.Texts(
        len(rows), asked.points.columns, asked.command, asked.cores, store.endpoint_url, store.region,
        output=str(asked.output), program=program,
    )  # fmt: skip
    submit = kit_texts.SUBMIT.get(asked.scheduler)
    policy = permissions(inputs=[asked.source], outputs=[asked.output], settings=store, listing=True)
    return {
        "inputs.csv": design.csv_text(rows),
        "byos.toml.template": kit_texts.job_file(texts),
        "config": kit_texts.config(keys, region=store.region),
        "policy.json": json.dumps(policy, indent=1) + "\n",
        "README.txt": kit_texts.read_me(texts, submit=submit[0] if submit else ""),
        **({submit[0]: submit[1](texts)} if submit else {}),
    }


def _write(directory: Path, files: dict[str, str], program: Path | None) -> None:
    """The kit appears whole or not at all. Raises NodeUnfit."""
    fresh = directory.with_name(f".{directory.name}.byos-new")
    try:
        fresh.mkdir(parents=True)
        for name, text in files.items():
            mode = 0o600 if name == "config" else 0o644
            with open(os.open(fresh / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "w", encoding="utf-8") as file:
                file.write(text)
        if program is not None:
            shutil.copy(program, fresh / "byos-run")
        fresh.rename(directory)
    except OSError as error:
        raise errors.NodeUnfit(f"cannot write {str(directory)!r}: {error.strerror or error}") from error


def _told(asked: _Asked, files: dict[str, str], *, rows: int, inputs: int, others: Sequence[str], program: str) -> str:
    made = ", ".join([*files, *(["byos-run"] if program.startswith("sh ") else [])])
    lines = [
        f"{asked.directory.name}/: {log.count(rows, 'run')} over {log.count(inputs, 'input')}: {made}",
        f"next: cd {asked.directory.name}; {program} check --table inputs.csv --row 1   (README.txt has all steps)",
    ]
    if not asked.profile:
        lines.insert(1, "config is a form: fill in the keys, or make the kit with --keys-from-profile")
    if others:
        lines.insert(1, f"left out, as they are no archives: {', '.join(others[:5])}{' …' if len(others) > 5 else ''}")
    return "".join(f"{printable(line)}\n" for line in lines)
