"""What an archive will become, checked before a byte of it is written.

names ─ safe_path ▶ paths inside the case ─ Tree ▶ no path twice, no file where a directory must stand, none below a link
links ─ check_link ▶ the target stays inside the case whatever the other links are
plans of several inputs ─ merge_check ▶ no path is written by two of them

Every name that comes from outside, be it an archive's member, a key of the bucket or a line of a manifest, passes
:func:`safe_path`. Not promised: a tar has no directory, so its members are checked one by one while it streams, which
is why everything is unpacked into a private stage.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import TYPE_CHECKING

from byos_run.errors import BadInput, printable
from byos_run.model import ByteSource, FetchSettings, S3Url

if TYPE_CHECKING:
    from byos_run.archive.members import Members

NAME_BYTES = 255
PATH_BYTES = 4000
LINK_BYTES = 4095
DEPTH = 100
_RATIO_FLOOR_BYTES = 1 << 30
"""What an archive may unpack to whatever its ratio, unless one was asked for: a small file of zeros is no bomb."""
_NAME = r"(?!\.\.?(?:/|\Z))[^/\\\x00\ud800-\udfff]{1,63}"
_PLAIN = re.compile(rf"(?![A-Za-z]:){_NAME}(?:/{_NAME}){{0,14}}/?")
_DRIVE = re.compile(r"[A-Za-z]:")
AGAIN = "make the archive again and upload it again"
"""What to do where nothing better is known."""
_ONCE = "pack it again with each path once"


@dataclass(frozen=True)
class Limits:
    """What an archive may unpack to. The defaults are generous: free bytes and inodes bind first."""

    max_bytes: int = 0
    """Of all members together; 0: no limit."""
    max_members: int = 1_000_000
    max_ratio: float = 2000.0
    """Unpacked bytes per packed byte. Deflate cannot pass 1032."""
    ratio_floor_bytes: int = _RATIO_FLOOR_BYTES
    """The ratio binds once more than this is unpacked."""
    free_bytes: int = 0
    """What the stage's file system has room for; binds a tar while it streams. 0: not known."""

    @classmethod
    def of(cls, settings: FetchSettings, *, free_bytes: int = 0) -> Limits:
        return cls(
            max_bytes=settings.max_bytes,
            max_members=settings.max_members or cls.max_members,
            max_ratio=settings.max_ratio or cls.max_ratio,
            ratio_floor_bytes=0 if settings.max_ratio else cls.ratio_floor_bytes,
            free_bytes=free_bytes,
        )

    def check(self, *, of: S3Url, members: int, unpacked_bytes: int, packed_bytes: int) -> None:
        """Raise BadInput if an archive of that many members and bytes is more than was allowed."""
        if members > self.max_members:
            raise BadInput(
                f"{of}: more than {self.max_members} members",
                hint="if that is meant, raise fetch.max_members",
            )
        if self.max_bytes and unpacked_bytes > self.max_bytes:
            raise BadInput(
                f"{of}: unpacks to more than {self.max_bytes} bytes",
                hint="if that is meant, raise fetch.max_bytes",
            )
        if unpacked_bytes > self.ratio_floor_bytes and unpacked_bytes > self.max_ratio * packed_bytes:
            raise BadInput(
                f"{of}: unpacks to more than {self.max_ratio:g} times its {packed_bytes} bytes, as bombs do",
                hint="if that is meant, raise fetch.max_ratio",
            )


@dataclass(frozen=True)
class Plan:
    """What one input will become in the case. Made by ``archive.plan_of`` or ``archive.plan_file``."""

    url: S3Url
    kind: str
    """"zip", "tar", "tar.gz", "tar.zst", "tar.bz2", "tar.xz", or "file"."""
    files: int
    """Files and links that will be made; of a tar, which has no directory, 0."""
    directories: int
    """Directories that will be made; of a tar 0."""
    total_bytes: int
    """Of all files; of a tar only a guess: the bytes of the object."""
    exact: bool
    """The three figures above are those of the archive's directory: false for a tar."""
    warnings: tuple[str, ...] = ()
    path: str = ""
    """Of a plain file: where it goes in the case."""
    zipped: Members | None = field(default=None, repr=False)
    """Of a zip: its members."""

    def paths(self) -> Iterator[str]:
        """Of files and links, as far as they are known before unpacking: none for a tar."""
        if self.zipped is not None:
            return self.zipped.file_paths()
        return iter((self.path,) if self.path else ())

    def directory_paths(self) -> Iterator[str]:
        """Of the directories that the archive names; those that its files need are not among them."""
        return self.zipped.directory_paths() if self.zipped is not None else iter(())


def plan_file(source: ByteSource, *, path: str) -> Plan:
    """The plan of an object that is no archive and becomes one file at *path*. Raises BadInput."""
    return Plan(
        url=source.url, kind="file", files=1, directories=0, total_bytes=source.size_bytes, exact=True,
        path=safe_path(path, of=source.url),
    )  # fmt: skip


def quoted(name: str) -> str:
    """*name* for a message: no control characters, not endless."""
    text = printable(name)
    return f"'{text}'" if len(text) <= 200 else f"'{text[:120]}…{text[-60:]}'"


def refusal(of: S3Url | str, name: str, why: str, *, hint: str = AGAIN) -> BadInput:
    """The refusal of one member, for a caller to raise."""
    return BadInput(f"{of}: member {quoted(name)}: {why}", hint=hint)


_RENAME = "such an archive was not made by packing a case: look at it with care, then pack it again"


def safe_path(name: str, *, of: S3Url | str, backslash_separates: bool = False, written_here: bool = False) -> str:
    """*name* as a path below the case: relative, "/" between components, neither "." nor ".." nor "" among them.

    Raises BadInput naming *of* and *name*: empty, NUL, absolute, a drive letter, ".." anywhere (also between
    backslashes), a component over 255 bytes, a path over 4,000 bytes or 100 levels, characters that no file name can
    hold. *written_here*: it is said to be a file that a run of ours found below a directory, so that it may be called
    "U:max", and lie as deep as a key can say.
    """
    if _PLAIN.fullmatch(name):
        return name[:-1] if name[-1] == "/" else name
    flat = name.replace("\\", "/")
    if not name or "\0" in name:
        raise refusal(of, name, "its name is empty or holds a NUL", hint=_RENAME)
    if flat[0] == "/" or (_DRIVE.match(flat) and (flat[2:3] in ("", "/") or not written_here)):
        raise refusal(of, name, "its name is an absolute path", hint="pack it again with relative names")
    if ".." in flat.split("/"):
        raise refusal(of, name, "its name has '..' in it and could leave the case", hint=_RENAME)
    parts = [part for part in (flat if backslash_separates else name).split("/") if part not in ("", ".")]
    if not parts:
        raise refusal(of, name, "its name is that of the directory itself", hint=_RENAME)
    _check_lengths(parts, name=name, of=of, depth=PATH_BYTES if written_here else DEPTH)
    return "/".join(parts)


def _check_lengths(parts: Sequence[str], *, name: str, of: S3Url | str, depth: int) -> None:
    try:
        sizes = [len(encoded(part)) for part in parts]
    except UnicodeEncodeError:
        raise refusal(of, name, "its name cannot be written as bytes", hint=_RENAME) from None
    if max(sizes) > NAME_BYTES or sum(sizes) + len(sizes) > PATH_BYTES or len(parts) > depth:
        raise refusal(
            of, name, f"its name is longer than {NAME_BYTES} bytes a part, {PATH_BYTES} bytes or {depth} levels",
            hint="pack it again with shorter names",
        )  # fmt: skip


def encoded(path: str) -> bytes:
    """*path* as the kernel takes it, whatever the locale: UTF-8, undecodable bytes as they were."""
    return path.encode("utf-8", "surrogateescape")


def check_link(path: str, target: bytes, *, of: S3Url) -> None:
    """Raise BadInput unless the symbolic link *path* → *target* stays inside.

    ``..`` may only lead a target, and not past the top. The parents of *path* are true directories, so such a link
    climbs within them and then only descends; if all links are of this kind no chain of them leaves, whichever
    archive they came from.
    """
    hint = "links may only lead to places inside the case: pack the file itself"
    if not target or b"\0" in target or len(target) > LINK_BYTES:
        raise refusal(of, path, "is a link with an empty or endless target", hint=hint)
    shown = quoted(target.decode("utf-8", "surrogateescape"))
    if target[:1] == b"/":
        raise refusal(of, path, f"is a link to the absolute path {shown}", hint=hint)
    parts = [part for part in target.split(b"/") if part not in (b"", b".")]
    climbs = 0
    while climbs < len(parts) and parts[climbs] == b"..":
        climbs += 1
    if climbs > path.count("/") or b".." in parts[climbs:]:
        raise refusal(of, path, f"is a link to {shown}, which leaves the case or may do so", hint=hint)


class Tree:
    """The paths of one archive so far: says at once if two entries would be one path.

    A directory may be named twice; all else may not. Memory: a set entry a path, the strings are shared with the caller.
    """

    def __init__(self, of: S3Url) -> None:
        self._of = of
        self.files: set[str] = set()
        """Files and links."""
        self.directories: set[str] = set()
        """Named ones and those that files need."""

    def add_file(self, path: str) -> None:
        """Raises BadInput if *path* was there before, be it as a directory, or stands below a file."""
        if path in self.files:
            raise refusal(self._of, path, "is in the archive twice", hint=_ONCE)
        if path in self.directories:
            raise refusal(self._of, path, "is a file and a directory at once", hint=_ONCE)
        self.files.add(path)
        self._add_parents(path)

    def add_directory(self, path: str) -> None:
        if path not in self.directories:
            if path in self.files:
                raise refusal(self._of, path, "is a file and a directory at once", hint=_ONCE)
            self.directories.add(path)
            self._add_parents(path)

    def _add_parents(self, path: str) -> None:
        parent = path.rpartition("/")[0]
        while parent and parent not in self.directories:
            if parent in self.files:
                raise refusal(self._of, path, f"lies below {quoted(parent)}, which is a file or a link", hint=_ONCE)
            self.directories.add(parent)
            parent = parent.rpartition("/")[0]


def merge_check(plans: Sequence[Plan]) -> None:
    """Raise BadInput if two of *plans* would write one path, or one a file where another has a directory; both are named.

    What tars hold is not known yet: there the second writer is refused while it unpacks.
    """
    if len(plans) == 1:
        return
    owner: dict[str, Plan] = {}
    for plan in plans:
        for path in plan.paths():
            first = owner.setdefault(path, plan)
            if first is not plan:
                raise collision(path, first.url, plan.url)
    for plan in plans:
        seen: set[str] = set()
        above = (path.rpartition("/")[0] for path in plan.paths())
        for directory in chain(above, plan.directory_paths()):
            parent = directory
            while parent and parent not in seen:
                first = owner.get(parent, plan)
                if first is not plan:
                    raise collision(parent, first.url, plan.url)
                seen.add(parent)
                parent = parent.rpartition("/")[0]


def collision(path: str, first: object, second: object) -> BadInput:
    return BadInput(
        f"{first} and {second} both write {quoted(path)}",
        hint="inputs may share directories, not files: pack them into one archive, or leave one out",
    )
