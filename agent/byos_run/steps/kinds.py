"""What a value of a job file, a flag or a variable may be, and how its text becomes the value that a Job carries.

A kind says what is allowed (for messages and help), which TOML types may stand for it, and parses either the text of a
flag or variable or the TOML value itself. Parsers raise ValueError with a reason, or without one where "allowed" says
all. No reason ever repeats the value: that is left to whoever knows whether it may be shown.

Times: ``2d``, ``11h30m``, ``1h 5m``, ``90s``; a bare number counts seconds. Sizes: ``16MiB`` (1024), ``50GB`` (1000), a
bare number counts bytes. Bandwidths: ``2Gbit/s``, ``100MB/s``; a bare number is refused, it says neither bits nor bytes.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Callable
from urllib.parse import urlsplit

from byos_run.bucket import url as s3url
from byos_run.errors import printable
from byos_run.model import Figure, Plot, S3Url
from byos_run.node.globs import has_open_class

BLANKS = " \t\r\n\f\v\xa0\u200b\ufeff"
"""What spreadsheets and editors leave around a value: stripped."""
LINE_ENDS = "\r\n\ufeff"
"""Stripped where blanks may be meant."""
YEAR_S = 366 * 86400.0


@dataclass(frozen=True)
class Kind:
    word: str
    """What help shows after the flag: TIME; "" for a switch."""
    allowed: str
    """Completes "allowed: …"."""
    parse: Callable[[Any], Any]
    """Text, or a value of one of *types*, → the Job's value. Raises ValueError."""
    types: tuple[type, ...] = (str,)
    """TOML types; of one item where *shape* is "list"."""
    shape: str = "one"
    """one | switch | list | table (name → value) | command."""
    lone_item: bool = False
    """A job file may write a list of one item without brackets."""
    strip: str = BLANKS


def shown(value: Any) -> str:
    """*value* for a problem: short, printable, without a password of a URL."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        # What stands before an "@" in something like a URL is a name and a password.
        text = printable(re.sub(r"\S*@", "***@", value))
        return f'"{text[:79]}…"' if len(text) > 80 else f'"{text}"'
    kinds = {list: "a list", dict: "a table", int: str(value)[:40], float: str(value)}
    return kinds.get(type(value), "a date or time")


# ---------------------------------------------------------------- numbers


_PARTS = re.compile(r"\s*".join(rf"(?:([0-9]{{1,12}}(?:\.[0-9]{{1,9}})?)\s*{unit})?" for unit in "dhms"), re.IGNORECASE)
_NUMBER = re.compile(r"[0-9]{1,12}(?:\.[0-9]{1,9})?")
_DECIMAL = re.compile(r"[+-]?[0-9]{1,15}(?:\.[0-9]{1,20})?(?:e[+-]?[0-9]{1,2})?", re.IGNORECASE)
_SIZE = re.compile(r"([0-9]{1,15}(?:\.[0-9]{1,9})?)\s*(?:([kmgt])(i?)b|b)?", re.IGNORECASE)
_BANDWIDTH = re.compile(r"([0-9]{1,15}(?:\.[0-9]{1,9})?)\s*([kKmMgGtT]?)(i?)(bit|B)/s")


def duration_s(raw: object) -> float:
    """Seconds; more than 0, at most a year."""
    text = str(raw)
    if _NUMBER.fullmatch(text):
        seconds = float(text)
    else:
        match = _PARTS.fullmatch(text)
        if not match or not text:
            raise ValueError
        seconds = sum(float(part or 0) * unit_s for part, unit_s in zip(match.groups(), (86400, 3600, 60, 1)))
    if not 0 < seconds <= YEAR_S:
        raise ValueError("it is not more than 0 and at most 366d")
    return seconds


def size_bytes(raw: object) -> int:
    match = _SIZE.fullmatch(str(raw))
    if not match:
        raise ValueError
    number, prefix, binary = match.groups()
    power = " kmgt".index((prefix or " ").lower())
    unit = int((1024 if binary else 1000) ** power)
    return round(float(number) * unit) if "." in number else int(number) * unit


def bandwidth_bytes_per_s(raw: object) -> float:
    match = _BANDWIDTH.fullmatch(str(raw))
    if not match:
        raise ValueError
    number, prefix, binary, unit = match.groups()
    power = " kmgt".index((prefix or " ").lower())
    rate = float(number) * float((1024 if binary else 1000) ** power) / (8 if unit == "bit" else 1)
    if rate < 1:
        raise ValueError("it is less than a byte per second")
    return rate


def integer(low: int, high: int) -> Kind:
    def parse(raw: object) -> int:
        if not re.fullmatch(r"[+-]?[0-9]{1,18}", str(raw)) or not low <= int(str(raw)) <= high:
            raise ValueError
        return int(str(raw))

    return Kind("N", f"a whole number from {low} to {high}", parse, (int,))


def number(low: float) -> Kind:
    def parse(raw: object) -> float:
        value = float(str(raw)) if _DECIMAL.fullmatch(str(raw)) else math.nan
        if not value >= low:
            raise ValueError
        return value

    return Kind("X", f"a number from {low:g}", parse, (int, float))


def size(low: int, high: int, allowed: str) -> Kind:
    def parse(raw: object) -> int:
        value = size_bytes(raw)
        if not low <= value <= high:
            raise ValueError
        return value

    return Kind("SIZE", allowed, parse, (str, int))


def switch(raw: object) -> bool:
    words = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
    value = words.get(str(raw).lower())
    if value is None:
        raise ValueError
    return value


# ---------------------------------------------------------------- texts


def text_like(pattern: str, allowed: str, *, word: str = "TEXT") -> Kind:
    """A text that *pattern* matches whole."""
    compiled = re.compile(pattern)

    def parse(raw: str) -> str:
        if not compiled.fullmatch(raw):
            raise ValueError
        return raw

    return Kind(word, allowed, parse)


def one_of(*words: str) -> Kind:
    def parse(raw: str) -> str:
        if raw not in words:
            raise ValueError
        return raw

    return Kind("|".join(words), " | ".join(words), parse)


def expression(raw: str) -> str:
    try:
        re.compile(raw)
    except (re.error, RecursionError, OverflowError) as error:
        raise ValueError(str(error)) from None
    return raw


def plot(raw: str) -> Plot:
    """FILE:X:Y or FILE:X:Y,Y: a glob of the case, columns from 1."""
    match = re.fullmatch(r"([^\x00]+):([1-9][0-9]{0,3}):([1-9][0-9]{0,3}(?:,[1-9][0-9]{0,3}){0,7})", raw)
    if not match:
        raise ValueError
    return Plot(glob(path_inside(match[1])), int(match[2]), tuple(int(column) for column in match[3].split(",")))


def figure(raw: str) -> Figure:
    """FILE:COLUMN, or a regular expression whose first group, or all of it, is a number."""
    match = re.fullmatch(r"([^\x00:\s\\()|^$+]+):([1-9][0-9]{0,3})", raw)
    if match:
        return Figure(raw, glob(path_inside(match[1])), int(match[2]))
    return Figure(expression(raw))


def glob(raw: str) -> str:
    """One that could never match what is relative to the top of a tree is a mistake."""
    if "\0" in raw:
        raise ValueError
    if raw.startswith(("/", "~/")):
        raise ValueError("it is absolute: globs are relative to the case, as in sub/*.dat")
    if ".." in raw.split("/"):
        raise ValueError('".." leads out: globs stay below the case')
    if has_open_class(raw):
        raise ValueError('"[" is never closed: [a-z] is one of these characters, [[] the bracket itself')
    return raw


def path_inside(raw: str) -> str:
    if raw.startswith(("/", "~")) or ".." in raw.split("/") or "\0" in raw:
        raise ValueError
    return raw


def endpoint(raw: str) -> str:
    """Scheme, host, perhaps a port and a path: nothing that may be a secret."""
    try:
        parts = urlsplit(raw)
        usable = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError as error:
        raise ValueError("its host or port is not one") from error
    if "@" in raw:
        raise ValueError("user and password do not belong into it: they go into config")
    if not usable or re.search(r"[\s?#]", raw):
        raise ValueError
    return raw.rstrip("/")


def input_url(raw: str) -> S3Url:
    url = s3url.parse(raw)
    if not url.key and not raw.endswith("/"):
        raise ValueError("it names no object; the whole bucket would be s3://BUCKET/")
    return url


def assignments(raw: Any) -> dict[str, str]:
    """Lines ``NAME=VALUE`` or a TOML table → name → value, both as they are."""
    pairs = list(raw.items()) if isinstance(raw, dict) else [line.partition("=")[::2] for line in raw]
    if not isinstance(raw, dict) and any("=" not in line for line in raw):
        raise ValueError("a line has no '='")
    for name, value in pairs:
        if not name or "=" in name or "\0" in name:
            raise ValueError("a name is empty, or holds '=' or a NUL")
        if isinstance(value, bool) or not isinstance(value, (str, int)) or "\0" in str(value):
            raise ValueError(f"the value of '{name}' is not a text")
    return {name: str(value).strip(LINE_ENDS) for name, value in pairs}


# ---------------------------------------------------------------- the command


_WORD = re.compile(
    r"(?P<blank>[ \t\r]+)|(?P<plain>[^ \t\r\n'\"\\|&;<>$`]+)|'(?P<single>[^']*)'|\"(?P<double>(?:[^\"\\]|\\.)*)\""
    r"|\\\n|\\(?P<escaped>.)|(?P<shell>[|&;<>$`\n])",
    re.DOTALL,
)


def command_words(raw: str | Sequence[Any]) -> tuple[str, ...]:
    """A text is split as a POSIX shell would, less all that would need a shell; a list is taken as it is."""
    words = _split(raw) if isinstance(raw, str) else list(raw)
    if not all(isinstance(word, str) for word in words):
        raise ValueError("a word of it is not a text")
    if not words or not words[0]:
        raise ValueError("its first word is empty")
    if any("\0" in word for word in words):
        raise ValueError("it holds a NUL")
    return tuple(words)


def _split(text: str) -> list[str]:
    text = text.replace("\r\n", "\n")
    words: list[str] = []
    word: str | None = None
    position = 0
    while position < len(text):
        match = _WORD.match(text, position)
        if not match:
            what = _OPENERS.get(text[position], "backslash")
            raise ValueError(f"the {what} at character {position + 1} is never closed")
        position = match.end()
        if match["shell"]:
            raise ValueError(_needs_shell(match["shell"], text))
        if match["blank"]:
            if word is not None:
                words.append(word)
            word = None
        elif match["double"] is not None:
            word = (word or "") + re.sub(r'\\(["\\$`])', r"\1", re.sub(r"\\\n", "", match["double"]))
        elif match.lastgroup:
            word = (word or "") + match[match.lastgroup]
    if word is not None:
        words.append(word)
    if words and re.match(r"[A-Za-z_][A-Za-z0-9_]*=", words[0]):
        raise ValueError("it begins with an assignment: variables of the solver go into solver.env")
    return words


_OPENERS = {"'": "single quote", '"': "double quote"}


def _needs_shell(sign: str, text: str) -> str:
    shown = "line break" if sign.strip() == "" else sign
    form = json.dumps(["bash", "-lc", text], ensure_ascii=False)
    return f"unquoted '{shown}', and no shell reads it: write {form}"


# ---------------------------------------------------------------- the kinds


def listed(kind: Kind, *, lone_item: bool = False) -> Kind:
    return replace(kind, shape="list", lone_item=lone_item)


def or_auto(kind: Kind, auto: object) -> Kind:
    """*kind*, or the word "auto", which becomes *auto*."""

    def parse(raw: object) -> object:
        return auto if raw == "auto" else kind.parse(raw)

    types = kind.types if str in kind.types else (*kind.types, str)
    return replace(kind, word=f"{kind.word}|auto", allowed=f'{kind.allowed}, or "auto"', parse=parse, types=types)


TEXT = text_like(r"[^\x00-\x1f\x7f]+", "a text without control characters")
SWITCH = Kind("", "true or false", switch, (bool,), "switch")
DURATION = Kind("TIME", 'a time like "11h30m", "2d", "90s", or a number of seconds', duration_s, (str, int, float))
BANDWIDTH = Kind("RATE", 'a rate like "2Gbit/s" or "100MB/s"', bandwidth_bytes_per_s)
EXPRESSION = Kind("REGEX", "a regular expression of Python", expression, strip=LINE_ENDS)
PATH_INSIDE = Kind("PATH", 'a relative path without ".."', path_inside)
GLOB = Kind("GLOB", "a glob", glob)
VARIABLE = text_like(r"[A-Za-z_][A-Za-z0-9_]*", "the name of a variable", word="NAME")
ENDPOINT = Kind("URL", "http:// or https://, a host, perhaps a port", endpoint)
S3URL = Kind("S3URL", "s3://BUCKET/KEY", input_url)
S3PREFIX = Kind("S3URL", "s3://BUCKET/PREFIX/", lambda raw: s3url.as_prefix(s3url.parse(raw)))
COMMAND = Kind("TEXT", "a text, or a list of texts", command_words, (str, list), "command")
TABLE = Kind("NAME=VALUE", "names with texts as values", assignments, (dict,), "table", strip=LINE_ENDS)
PLOT = Kind("FILE:X:Y", 'columns of a table like "thermo.out:1:2,3"', plot)
FIGURE = Kind("FILE:COL|REGEX", 'a column like "thermo.out:2", or a regular expression', figure, strip=LINE_ENDS)
