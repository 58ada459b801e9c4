"""Values → the case files that name them: ``${name}`` is replaced, bytes for bytes.

1. Every file of the case that a glob names is looked at before one is changed: a glob that names none, a link, and a file
   with a NUL in it (it is binary, or UTF-16) are refused, all at once.
2. A file in which something changes is written anew beside itself and put in its place; all others stay as they are.

A ``${name}`` without a value stays, since solvers have variables of that form themselves, and is listed. Values go in as UTF-8;
what is around them may be of any encoding. Memory: the lines of 8 MiB, or the longest line.
"""

from __future__ import annotations

import os
import re
import stat
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from byos_run import log
from byos_run.errors import BadInput, NodeUnfit, UsageError, printable
from byos_run.model import TemplateSettings
from byos_run.node.globs import Globs
from byos_run.node.tree import open_beneath, scan

_NAME = re.compile(rb"\$\{[ \t]*([^{}\r\n]{1,256}?)[ \t]*\}")
_BLOCK_BYTES = 8 << 20
_LISTED = 10


@dataclass(frozen=True)
class Rendered:
    files: tuple[str, ...]
    """Paths of the files that were changed."""
    replaced: int
    """Places in them."""
    left: tuple[str, ...]
    """Names in the files that have no value."""
    unused: tuple[str, ...]
    """Values that no file names."""


def render(settings: TemplateSettings, *, case: Path) -> Rendered:
    """Raises UsageError (a glob names no file), BadInput (binary, a link), NodeUnfit (the disk)."""
    if not settings.files:
        return Rendered((), 0, (), tuple(settings.values))
    values = {_bytes(name): _bytes(value) for name, value in settings.values.items()}
    try:
        found = {path: _names_in(case, path) for path in _files(settings, case)}
        binary = [f"{printable(path)} is binary" for path, names in found.items() if names is None]
        if binary:
            raise BadInput(
                f"template.files: {', '.join(binary[:_LISTED])}: only text can be filled in",
                hint="name the text files alone",
            )
        changed = [path for path in found if not values.keys().isdisjoint(found[path] or ())]
        replaced = sum(_replace(case, path, values) for path in changed)
    except OSError as error:
        raise NodeUnfit(f"template.files: {printable(str(error.filename or case))}: {error.strerror}") from error
    names = dict.fromkeys(name for of_file in found.values() for name in of_file or ())
    return Rendered(
        files=tuple(changed),
        replaced=replaced,
        left=tuple(_text(name) for name in names if name not in values),
        unused=tuple(_text(name) for name in values if name not in names),
    )


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def _text(name: bytes) -> str:
    return name.decode("utf-8", "surrogateescape")


def rendered_line(rendered: Rendered) -> str:
    """What is said of it: ``filled in 3 values in 2 files: inputs.in, boundary.in; without a value: ${step}``."""
    text = f"filled in {log.count(rendered.replaced, 'value')} in {log.count(len(rendered.files), 'case file')}"
    text += f": {', '.join(rendered.files[:_LISTED])}" if rendered.files else ""
    text += f"; left, without a value: {_listed(rendered.left)}" if rendered.left else ""
    return text + (f"; named in no file: {_listed(rendered.unused)}" if rendered.unused else "")


def _listed(names: tuple[str, ...]) -> str:
    return ", ".join(f"${{{name}}}" for name in names[:_LISTED]) + (", …" if len(names) > _LISTED else "")


def _files(settings: TemplateSettings, case: Path) -> list[str]:
    globs = {text: Globs.of([text]) for text in settings.files}
    missing = dict(globs)
    found: set[str] = set()
    links: list[str] = []
    for path, status in scan(case, problems=[]):
        if not any(each.matches(path) for each in globs.values()):
            continue
        missing = {text: each for text, each in missing.items() if not each.matches(path)}
        if stat.S_ISREG(status.st_mode):
            found.add(path)
        elif stat.S_ISLNK(status.st_mode):
            links.append(path)
    if missing:
        raise UsageError([f'template.files: "{printable(text)}" names no file of the case' for text in missing])
    outside = [
        path for path in links if os.path.relpath(os.path.realpath(case / path), os.path.realpath(case)) not in found
    ]
    if outside:
        raise BadInput(f"template.files: {printable(outside[0])} is a link: name the file that it leads to")
    return sorted(found)


def _names_in(case: Path, path: str) -> dict[bytes, None] | None:
    """The names in a file, in their order; None if it is binary."""
    names: dict[bytes, None] = {}
    for block in _blocks(case, path):
        if b"\0" in block:
            return None
        names.update(dict.fromkeys(match[1] for match in _NAME.finditer(block)))
    return names


def _blocks(case: Path, path: str) -> Iterator[bytes]:
    """Whole lines, so that no name is cut."""
    with os.fdopen(open_beneath(case, path), "rb") as file:
        while lines := file.readlines(_BLOCK_BYTES):
            yield b"".join(lines)


def _replace(case: Path, path: str, values: Mapping[bytes, bytes]) -> int:
    """How many places were filled in. A hard link, or a read-only file, is replaced, never written through."""
    target, count = case / path, 0
    fresh = target.with_name(f".byos-fill-{uuid.uuid4().hex}")
    mode = stat.S_IMODE(os.lstat(target).st_mode)
    with open(fresh, "xb") as file:
        for block in _blocks(case, path):
            count += sum(match[1] in values for match in _NAME.finditer(block))
            file.write(_NAME.sub(lambda match: values.get(match[1], match[0]), block))
        os.fchmod(file.fileno(), mode)
    os.replace(fresh, target)
    return count
