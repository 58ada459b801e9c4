"""Globs as a job file writes them, compiled once.

Without "/" a glob matches the base name at any depth; with "/" it is anchored at the top of the tree. ``*`` and ``?``
stop at "/", ``**`` does not, and ``**/`` also stands for no directory at all. ``[abc]``, ``[a-z]`` and ``[!a]`` match
one character, never "/". A glob that ends in "/" means all below that directory. Dot-files match, case counts.

Not promised: braces, backslash escapes and POSIX classes; those characters stand for themselves.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass


class Glob:
    """One glob; paths are ``str`` with "/" between components, undecodable bytes as surrogates."""

    def __init__(self, text: str) -> None:
        self.text = text
        pattern = text.removeprefix("./")
        self._anchored = "/" in text
        if pattern.endswith("/"):
            pattern += "**"
        # DOTALL: a name may hold a line feed, and no "." here is meant to stop at one.
        self._match = re.compile(_regular_expression(pattern.lstrip("/")), re.DOTALL).fullmatch

    def matches(self, path: str) -> bool:
        """Whether *path*, relative to the top of the tree, is meant."""
        return self._match(path if self._anchored else path.rpartition("/")[2]) is not None

    def __repr__(self) -> str:
        return f"Glob({self.text!r})"


def escaped(path: str) -> str:
    """The glob that means *path* and no other."""
    return re.sub(r"[*?\[]", r"[\g<0>]", path)


def has_open_class(text: str) -> bool:
    """Whether a "[" in *text* has no "]", and so stands for itself."""
    place = text.find("[")
    while place >= 0:
        end = _class_end(text, place)
        if not end:
            return True
        place = text.find("[", end + 1)
    return False


@dataclass(frozen=True)
class Globs:
    """Several globs; a path matches if one of them does."""

    globs: tuple[Glob, ...]

    @classmethod
    def of(cls, texts: Iterable[str]) -> Globs:
        return cls(tuple(Glob(text) for text in texts if text))

    def matches(self, path: str) -> bool:
        return any(glob.matches(path) for glob in self.globs)

    def rank(self, path: str) -> int:
        """The place of the first glob that matches *path*, from 0; ``len(globs)`` if none does."""
        return next((place for place, glob in enumerate(self.globs) if glob.matches(path)), len(self.globs))

    def matches_or_lies_below(self, path: str) -> bool:
        """Whether *path* or one of the directories that it lies in is meant."""
        while path:
            if self.matches(path):
                return True
            path = path.rpartition("/")[0]
        return False


@dataclass(frozen=True)
class Selection:
    """What include names and exclude does not: exclude beats include."""

    include: Globs
    exclude: Globs

    @classmethod
    def of(cls, *, include: Iterable[str], exclude: Iterable[str]) -> Selection:
        return cls(Globs.of(include), Globs.of(exclude))

    @property
    def is_all(self) -> bool:
        """Every path is meant; asked once, so that a large tree is not matched path by path."""
        return not self.exclude.globs and any(glob.text == "**" for glob in self.include.globs)

    def matches(self, path: str) -> bool:
        return self.include.matches(path) and not self.exclude.matches(path)


def _regular_expression(pattern: str) -> str:
    parts: list[str] = []
    place = 0
    while place < len(pattern):
        if pattern.startswith("**", place):
            after = place
            while after < len(pattern) and pattern[after] == "*":
                after += 1
            whole_component = place == 0 or pattern[place - 1] == "/"
            if whole_component and pattern.startswith("/", after):
                parts.append("(?:.*/)?")
                after += 1
            else:
                parts.append(".*")
            place = after
        elif pattern[place] == "*":
            parts.append("[^/]*")
            place += 1
        elif pattern[place] == "?":
            parts.append("[^/]")
            place += 1
        elif pattern[place] == "[" and (end := _class_end(pattern, place)):
            parts.append(_character_class(pattern[place + 1 : end]))
            place = end + 1
        else:
            parts.append(re.escape(pattern[place]))
            place += 1
    return "".join(parts)


def _class_end(pattern: str, place: int) -> int:
    """Where the "]" of the class that opens at *place* is; 0 if it never closes, so that "[" stands for itself."""
    first = place + 2 if pattern[place + 1 : place + 2] in ("!", "^") else place + 1
    return max(0, pattern.find("]", first + 1))  # a "]" right after the opening is a member


def _character_class(body: str) -> str:
    negated = body[0] in "!^" and len(body) > 1
    members: list[str] = []
    rest = body[1:] if negated else body
    while rest:
        if len(rest) >= 3 and rest[1] == "-":
            if rest[0] <= rest[2]:  # a range that runs backwards holds nothing
                members.append(f"{re.escape(rest[0])}-{re.escape(rest[2])}")
            rest = rest[3:]
        else:
            members.append(re.escape(rest[0]))
            rest = rest[1:]
    if not members:
        return "[^/]" if negated else "(?!)"
    return f"(?!/)[{'^' if negated else ''}{''.join(members)}]"
