"""Where values come from: the words of the command line, the environment, byos.toml. Each gives raw values and problems.

1. Flags: exact names only; the next word is the value unless it begins with "--" (then: ``--flag=value``). Lists and
   tables by repeating the flag. Everything after a bare "--" is the command.
2. Variables: ``BYOS_`` + the key; lists and tables one item per line. ``s3_input`` and ``s3_output`` of the script that
   came before mean BYOS_INPUT and BYOS_OUTPUT.
3. Job file: TOML, with what spreadsheets leave behind (BOM, carriage returns) taken out first. Lines of keys are found
   by a look at the text; inside multi-line strings that look may err, which spoils a line number and nothing else.

No value of a flag, a variable or a key that nobody knows is repeated in a problem: it may be a secret.
"""

from __future__ import annotations

import os
import re
import stat
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from byos_run.errors import UsageError, printable
from byos_run.steps.keys import KEYS, OWN_FLAGS, SECTIONS, Key, nearest
from byos_run.steps.kinds import BLANKS, shown
from byos_run.steps.table import INPUT, OUTPUT, TABLE_BYTES, Row, fill

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

JOB_FILE = "byos.toml"
JOB_FILE_BYTES = 1 << 20
OTHER_VARIABLES = ("BYOS_PYTHON", "BYOS_DEV_CACHE")
"""Variables for others than the job: the start of the shipped file, the make targets."""

UNRENDERED = "the template was not rendered"
_LEFT_OVER = re.compile(r"\$\{\s*([^}?!\n]*[^}?!\s])?")


@dataclass(frozen=True)
class Raw:
    """A value as it was found."""

    key: Key
    value: Any = field(repr=False)
    """Text, a list of texts (a repeated flag, lines of a variable, the words after "--"), or a TOML value."""
    where: str
    """What a problem begins with: ``--solver-cores``, ``BYOS_SOLVER_CORES``, ``byos.toml:3: solver.cores``."""
    is_toml: bool = False


@dataclass
class Source:
    """What one source gave; filled while it is read."""

    raws: list[Raw] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    whole: bool = True
    """It could be read to its end, so a key that is not here was not given here."""
    own: dict[str, str] = field(default_factory=dict)
    """Flags that belong to no key, with their values."""


def left_over(text: str) -> str:
    """`the template was not rendered: ${x}, ${y}`, or nothing."""
    names = dict.fromkeys(f"${{{match[1] or ''}}}" for match in _LEFT_OVER.finditer(text))
    return f"{UNRENDERED}: {printable(', '.join(names))}" if names else ""


# ---------------------------------------------------------------- the command line


def of_flags(arguments: Sequence[str]) -> Source:
    source = Source()
    words = list(arguments)
    end = words.index("--") if "--" in words else len(words)
    known = {key.flag: key for key in KEYS}
    switches = {f"--no-{key.flag[2:]}": key for key in KEYS if key.kind.shape == "switch"}
    given: dict[str, list[str]] = {}
    for flag, value in _pairs(words[:end], {*switches, *(f for f, k in known.items() if k.kind.shape == "switch")}):
        if flag in OWN_FLAGS and value and source.own.setdefault(flag, value) == value:
            continue
        if flag in known and value is not None:
            given.setdefault(flag, []).append(value)
        elif flag in known and known[flag].kind.shape == "switch":
            given.setdefault(flag, []).append("true")
        elif flag in switches and value is None:
            given.setdefault(switches[flag].flag, []).append("false")
        else:
            source.problems.append(_flag_problem(flag, value, {*known, *switches, *OWN_FLAGS}))
    for flag, values in given.items():
        _add_flag(source, known[flag], values)
    command = words[end + 1 :]
    if any(command):
        source.raws.append(Raw(known["--command"], command, 'command after "--"'))
        if "--command" in given:
            source.problems.append('the command is given twice: by --command and after "--"')
    return source


def _pairs(words: Sequence[str], switches: set[str]) -> Iterator[tuple[str, str | None]]:
    """(flag, value), the value None if there is none; a word that belongs to no flag as ("", word)."""
    waiting = list(reversed(words))
    before = ""
    while waiting:
        word = waiting.pop()
        flag, equals, value = word.partition("=")
        if not flag.startswith("-"):
            # After --solver-env it may be a part of a value that lost its quotes, and that is never shown.
            yield "", None if before == "--solver-env" else word
            continue
        before = flag
        if equals:
            yield flag, value
        elif flag not in switches and waiting and not waiting[-1].startswith("--"):
            yield flag, waiting.pop()
        else:
            yield flag, None


def _flag_problem(flag: str, value: str | None, known: set[str]) -> str:
    if not flag:
        what = "a word after --solver-env" if value is None else shown(value)
        return f'{what} belongs to no flag: the command goes after "--"'
    if flag in OWN_FLAGS and value:
        return f"{flag}: given twice, and differently"
    if flag in known:
        return f"{flag}: its value is missing" if value is None or flag in OWN_FLAGS else f"{flag}: it takes no value"
    return f"unknown flag {shown(flag)}{nearest(flag, sorted(known))}"


def _add_flag(source: Source, key: Key, values: list[str]) -> None:
    several = key.kind.shape in {"list", "table"}
    if not several and len(set(values)) > 1:
        source.problems.append(f"{key.flag}: given {len(values)} times, and differently")
    source.raws.append(Raw(key, values if several else values[-1], key.flag))


# ---------------------------------------------------------------- the environment


def of_variables(environ: Mapping[str, str]) -> Source:
    source = Source()
    known = {key.variable: key for key in KEYS}
    for name in sorted(environ):
        if name in known:
            _add_variable(source, known[name], name, environ[name])
        elif name.startswith("BYOS_") and name not in OTHER_VARIABLES:
            source.problems.append(f'unknown variable "{printable(name)}"{nearest(name, known)}')
    for old, new in (("s3_input", "BYOS_INPUT"), ("s3_output", "BYOS_OUTPUT")):
        said, ours = environ.get(old, "").strip(BLANKS), environ.get(new, "").strip(BLANKS)
        if said and ours and said != ours:
            source.problems.append(f"{old} and {new} are both set, and differ: they mean the same")
        elif said and not ours:
            _add_variable(source, known[new], old, said)
    return source


def _add_variable(source: Source, key: Key, name: str, text: str) -> None:
    several = key.kind.shape in {"list", "table"}
    source.raws.append(Raw(key, text.split("\n") if several else text, name))


# ---------------------------------------------------------------- the job file


def of_row(row: Row, *, table: str) -> Source:
    """A row's urls, and its further columns as values for the template."""
    known = {key.name: key for key in KEYS}
    where = f"{printable(table)} row {row.number}"
    raws = [
        Raw(known["input"], row.cells[INPUT].split("\n"), f"{where}: {INPUT}"),
        Raw(known["output"], row.cells[OUTPUT], f"{where}: {OUTPUT}"),
        Raw(known["template.values"], row.values, where),
    ]
    return Source(raws)


def of_job_file(path: Path, *, cells: Mapping[str, str] | None = None) -> Source:
    """The file may be absent. *cells* of a row are filled in for its ``${column}``."""
    source = Source()
    if not os.path.lexists(path):
        return source
    try:
        text = fill(_text_of(path), cells) if cells else _text_of(path)
    except OSError as error:
        return Source(problems=[f"{path.name}: it cannot be read: {error.strerror}"], whole=False)
    except ValueError as error:
        return Source(problems=[f"{path.name}: {error}"], whole=False)
    try:
        document = tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        return Source(problems=_syntax_problems(path.name, text, error), whole=False)
    _walk(source, document, prefix="", lines=_Lines(path.name, text))
    return source


def read_table(path: Path) -> bytes:
    """Raises UsageError."""
    try:
        return _bytes_of(path, at_most=TABLE_BYTES)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise UsageError([f"--table: {printable(str(path))}: it cannot be read: {reason}"]) from None


def _text_of(path: Path) -> str:
    """Raises OSError, and ValueError with the reason."""
    raw = _bytes_of(path, at_most=JOB_FILE_BYTES)
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise ValueError(f"it is not UTF-8 (byte {error.start + 1}, line {line})") from None
    text = text.replace("\r\n", "\n")
    # A template that is rendered from a table with CR LF carries the CR of the last column into the middle of a line.
    return text.replace("\r", "" if "\n" in text else "\n")


def _bytes_of(path: Path, *, at_most: int) -> bytes:
    # A FIFO of that name would hold us up for ever, so the type is asked for before it is opened.
    if not stat.S_ISREG(path.stat().st_mode):
        raise ValueError("it is not a file")
    with path.open("rb") as file:
        raw = file.read(at_most + 1)
    if len(raw) > at_most:
        raise ValueError(f"it is larger than {at_most} bytes")
    return raw


def _syntax_problems(name: str, text: str, error: Exception) -> list[str]:
    rendered = {
        number: left_over(line.partition("#")[0]) for number, line in enumerate(text.split("\n"), 1) if "${" in line
    }
    problems = [f"{name}:{number}: {reason}" for number, reason in rendered.items() if reason]
    match = re.fullmatch(r"(.*) \(at line ([0-9]+), column ([0-9]+)\)", str(error), re.DOTALL)
    if not match:
        reason = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
        problems.append(f"{name}: {printable(reason[:1].lower() + reason[1:])}")
    elif not rendered.get(int(match[2])):
        reason = printable(match[1][:1].lower() + match[1][1:])
        problems.append(f"{name}:{match[2]}: not TOML: {reason} (column {match[3]})")
    return problems


_PART = r"""(?:"[^"\n]*"|'[^'\n]*'|[^\s"'.=\[\]#]+)"""
_ASSIGNMENT = re.compile(rf"\s*({_PART}(?:\s*\.\s*{_PART})*)\s*=")
_HEADER = re.compile(rf"\s*\[\[?\s*({_PART}(?:\s*\.\s*{_PART})*)\s*\]")


class _Lines:
    """Where keys stand in the text."""

    def __init__(self, name: str, text: str) -> None:
        self._name = name
        self._numbers: dict[str, int] = {}
        section = ""
        for number, line in enumerate(text.split("\n"), 1):
            header, assignment = _HEADER.match(line), _ASSIGNMENT.match(line)
            if header:
                section = self._key(header[1])
                self._numbers.setdefault(section, number)
            elif assignment:
                key = self._key(assignment[1])
                self._numbers.setdefault(f"{section}.{key}" if section else key, number)

    @staticmethod
    def _key(text: str) -> str:
        return ".".join(part.strip("\"'") for part in re.findall(_PART, text))

    def of(self, key: str) -> str:
        """``byos.toml:3``; of the table that holds it if the key itself is not found, as in an inline table."""
        while key and key not in self._numbers:
            key = key.rpartition(".")[0]
        return f"{self._name}:{self._numbers[key]}" if key else self._name


def _walk(source: Source, table: Mapping[str, Any], *, prefix: str, lines: _Lines) -> None:
    known = {key.name: key for key in KEYS}
    for leaf, value in table.items():
        name = prefix + leaf
        where = lines.of(name)
        if "." not in leaf and name in known:
            source.raws.append(Raw(known[name], value, f"{where}: {name}", is_toml=True))
        elif "." not in leaf and name in SECTIONS:
            if isinstance(value, dict):
                _walk(source, value, prefix=f"{name}.", lines=lines)
            else:
                source.problems.append(f"{where}: {name}: it is a section, so a table is allowed")
        elif "${" in leaf:
            source.problems.append(f"{where}: {left_over(leaf)}")
        else:
            is_table = isinstance(value, dict)
            near = nearest(name, SECTIONS if is_table else known)
            source.problems.append(f'{where}: unknown {"section" if is_table else "key"} "{printable(name)}"{near}')
