"""Which files are outputs, and reading them without being led astray.

::

    after the fetch:  snapshot(case)                       the start:  snapshot(run directory)
    after the solve:  case_outputs(case, snapshot)         rundir_outputs(run directory, snapshot)
    to read one:      open_output(output)                  from the root's descriptor, component by component

A file is unchanged if size, mtime, ctime and inode are; its name says nothing. A snapshot keeps 8 bytes per file: a
digest of path and identity, enough to answer "is this one unchanged", for half a million files in 4 MB.

Not promised: that what was found still is so when it is opened. :func:`open_output` returns the identity it opened.
"""

from __future__ import annotations

import errno
import os
import stat
import struct
import sys
import time
from array import array
from bisect import bisect_left
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Callable
from urllib.parse import quote_from_bytes

from byos_run.model import Identity, Output, Skipped, Unpublished
from byos_run.node.globs import Globs, Selection
from byos_run.node.holders import files_behind_our_output
from byos_run.node.tree import Familiar, open_beneath, scan

PACKED = ".zst"
RUNDIR = "_byos/rundir/"
_RESERVED = "_byos"
_LONGEST_KEY_BYTES = 1024
_REALTIME_COARSE = 5  # CLOCK_REALTIME_COARSE (time.h), the clock that stamps files; Python has no name for it
_UNREADABLE = Identity(0, 0, 0, 0)
"""Stands in a snapshot for what could not be read then: it is no news if it cannot be read later."""
ANY_STATE = _UNREADABLE
_KINDS = {stat.S_IFIFO: "a FIFO", stat.S_IFSOCK: "a socket", stat.S_IFBLK: "a device", stat.S_IFCHR: "a device"}


class Snapshot:
    """Which files, in which state, were there; answers ``holds(path, identity)``."""

    def __init__(self, digests: array[int]) -> None:
        self._digests = digests

    @classmethod
    def of(cls, files: Iterable[tuple[str, Identity]]) -> Snapshot:
        return cls(array("Q", sorted(_digest(path, identity) for path, identity in files)))

    @classmethod
    def from_bytes(cls, data: bytes) -> Snapshot:
        digests = array("Q")
        digests.frombytes(data)
        if sys.byteorder == "big":
            digests.byteswap()
        return cls(digests)

    def to_bytes(self) -> bytes:
        """Eight bytes per file, little-endian, ascending."""
        digests = self._digests
        if sys.byteorder == "big":
            digests = digests[:]
            digests.byteswap()
        return digests.tobytes()

    def holds(self, path: str, identity: Identity) -> bool:
        digest = _digest(path, identity)
        place = bisect_left(self._digests, digest)
        return place < len(self._digests) and self._digests[place] == digest

    def __len__(self) -> int:
        return len(self._digests)


@dataclass(frozen=True)
class Harvest:
    """What one look at a tree found; every list in the order of the paths."""

    outputs: list[Output]
    skipped: list[Skipped]
    unpublished: list[Unpublished]
    directory_links: dict[str, str]
    """Path of a link → the directory inside the tree that it leads to: recorded, not followed."""


def identity_of(status: os.stat_result) -> Identity:
    return Identity(status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino)


def snapshot(root: Path, *, skip: Collection[str] = ()) -> Snapshot:
    """The state of all files and links below *root*, but for the paths in *skip*.

    Returns only when a change made from now on gets a later time stamp. Raises OSError if *root* is no directory.
    """
    newest_ns = 0
    found: list[int] = []
    problems: list[tuple[str, OSError]] = []
    for path, status in scan(root, skip=skip, problems=problems):
        newest_ns = max(newest_ns, status.st_ctime_ns)
        found.append(_digest(path, identity_of(status)))
    found.extend(_digest(path, _UNREADABLE) for path, _ in problems)
    _wait_for_a_later_stamp(newest_ns)
    found.sort()
    return Snapshot(array("Q", found))


def names_in(root: Path) -> Snapshot:
    """Which paths are there, in whatever state: ``holds(path, ANY_STATE)``. Raises OSError if *root* is no directory."""
    return Snapshot.of((path, ANY_STATE) for path, _ in scan(root, problems=[]))


def _as_it_is(_path: str, _size_bytes: int) -> str:
    return ""


def case_outputs(
    *,
    case: Path,
    fetched: Snapshot,
    what: str,
    selection: Selection,
    key_prefix: str,
    stored: Callable[[str, int], str] = _as_it_is,
    familiar: Familiar | None = None,
    only: Collection[str] | None = None,
) -> Harvest:
    """The outputs of *case*: created or changed since *fetched* (*what* "changed"), or all files ("all").

    *key_prefix*: key of the output prefix, to know which keys are too long; *stored*: path and size → ``Output.stored``. Does
    not raise OSError: a directory that cannot be read, the case itself included, is unpublished. *familiar* gets to know the case;
    with *only*, what it takes for new and the paths in *only* are all that is looked at.
    """
    is_all = selection.is_all
    before = fetched if what == "changed" else None
    look = _Look(root=case, before=before, key_prefix=key_prefix, below="", stored=stored)
    for path, status in look.walk(familiar) if familiar is None or only is None else familiar.news(only):
        if is_all or selection.matches(path):
            look.judge(path, status)
    return look.harvest()


def rundir_outputs(
    *, run_directory: Path, laid_down: Snapshot, ours: Collection[str], exclude: Globs, key_prefix: str
) -> Harvest:
    """Files that appeared in the run directory since *laid_down*, kept below ``_byos/rundir/``.

    *ours*: paths relative to the run directory that are never outputs: the case, the journal, ``config``, the job file,
    the shipped file, the platform's log. Links to them are skipped, so that no secret leaves under another name; so is
    the file behind our standard output. ``include`` does not bind: nobody knows in advance what lands in this place.
    """
    look = _Look(root=run_directory, before=laid_down, key_prefix=key_prefix, below=RUNDIR, hidden=ours)
    behind_our_output = files_behind_our_output()
    for path, status in look.walk():
        if (status.st_dev, status.st_ino) not in behind_our_output and not exclude.matches(path):
            look.judge(path, status)
    return look.harvest()


def open_output(output: Output) -> tuple[int, Identity]:
    """Descriptor to read *output* from, and the identity of what was opened; the caller closes it.

    Returns only when a change made from now on gets a later time stamp, so that an identity that is the same after
    reading proves what was read.

    Raises OSError: gone, not readable, or no longer a plain file reached without a link (ELOOP, ENOTDIR, EINVAL).
    """
    fd = open_beneath(output.root, output.link_to or output.path)
    identity = identity_of(os.fstat(fd))
    _wait_for_a_later_stamp(identity.ctime_ns)
    return fd, identity


def is_hollow(descriptor: int, identity: Identity, *, least_bytes: int) -> bool:
    """Whether a file of *least_bytes* or more has holes and takes less than half of its size."""
    if identity.size_bytes < least_bytes or 2 * 512 * os.fstat(descriptor).st_blocks > identity.size_bytes:
        return False
    try:
        return (
            os.lseek(descriptor, 0, os.SEEK_HOLE) < identity.size_bytes
        )  # one that the file system compresses has none
    except OSError:  # a file system that cannot tell
        return False


def key_path_of(path: str) -> tuple[str, bool]:
    """How *path* is written in a key, and whether it was escaped.

    A path that is not UTF-8 has its undecodable bytes percent-encoded, and each "%" too: decoding gives it back whole.
    """
    try:
        path.encode()
    except UnicodeEncodeError:
        parts = (
            quote_from_bytes(c.encode(errors="surrogateescape")) if c == "%" or "\udc80" <= c <= "\udcff" else c
            for c in path
        )
        return "".join(parts), True
    return path, False


class _Look:
    """Sorts what one walk finds into outputs, skipped and unpublished."""

    def __init__(
        self,
        *,
        root: Path,
        before: Snapshot | None,
        key_prefix: str,
        below: str,
        hidden: Collection[str] = (),
        stored: Callable[[str, int], str] = _as_it_is,
    ) -> None:
        self._root = root
        self._real_root = os.path.realpath(root)
        self._before = before
        self._key_prefix_bytes = len(key_prefix.encode(errors="surrogateescape"))
        self._below = below
        self._hidden = hidden
        self._stored = stored
        self._found = Harvest([], [], [], {})
        self.problems: list[tuple[str, OSError]] = []

    def walk(self, familiar: Familiar | None = None) -> Iterator[tuple[str, os.stat_result]]:
        """All that is there; a root that is gone, or is no directory, is a problem like any other."""
        try:
            yield from (
                familiar.walk(problems=self.problems)
                if familiar is not None
                else scan(self._root, skip=self._hidden, problems=self.problems)
            )
        except OSError as error:
            self.problems.append((".", error))

    def judge(self, path: str, status: os.stat_result) -> None:
        identity = identity_of(status)
        unchanged = self._before is not None and self._before.holds(path, identity)
        if stat.S_ISLNK(status.st_mode):
            self._judge_link(path, link_unchanged=unchanged)
        elif unchanged:
            return
        elif stat.S_ISREG(status.st_mode):
            self._add(path, identity)
        else:
            self._skip(path, _KINDS.get(stat.S_IFMT(status.st_mode), "not a plain file"))

    def _judge_link(self, path: str, *, link_unchanged: bool) -> None:
        """A link stands for the content it leads to: it is an output if either changed."""
        full = f"{self._real_root}/{path}"
        try:
            status = os.stat(full)
            target = os.path.realpath(full)
        except OSError as error:
            if not link_unchanged:
                self._skip(path, _link_trouble(full, error))
            return
        inside = target[len(self._real_root) + 1 :] if target.startswith(self._real_root + "/") else ""
        identity = identity_of(status)
        if stat.S_ISDIR(status.st_mode) and (inside or target == self._real_root):
            self._found.directory_links[path] = inside or "."
        elif link_unchanged and self._before is not None and (not inside or self._before.holds(inside, identity)):
            return
        elif not inside or self._is_hidden(inside):
            self._skip(path, f"a link that leads out: {target!r}")
        elif not stat.S_ISREG(status.st_mode):
            self._skip(path, f"a link to {_KINDS.get(stat.S_IFMT(status.st_mode), 'something that is no plain file')}")
        else:
            self._add(path, identity, link_to=inside)

    def _is_hidden(self, path: str) -> bool:
        return any(path == hidden or path.startswith(f"{hidden}/") for hidden in self._hidden)

    def _add(self, path: str, identity: Identity, *, link_to: str = "") -> None:
        written, escaped = key_path_of(path)
        stored = self._stored(path, identity.size_bytes)
        key_path = self._below + written + (PACKED if stored == "zstd" else "")
        size = self._key_prefix_bytes + len(key_path.encode())
        if not self._below and path.split("/", 1)[0] == _RESERVED:
            self._refuse(path, f"{_RESERVED!r} is where byos-run keeps its own objects")
        elif size > _LONGEST_KEY_BYTES:
            self._refuse(path, f"its key has {size} bytes, the store takes {_LONGEST_KEY_BYTES}")
        else:
            self._found.outputs.append(Output(path, key_path, identity, self._root, link_to, escaped, stored))

    def _skip(self, path: str, reason: str) -> None:
        self._found.skipped.append(Skipped(path, reason))

    def _refuse(self, path: str, reason: str) -> None:
        self._found.unpublished.append(Unpublished(path, reason))

    def harvest(self) -> Harvest:
        """What was found, sorted; outputs that would share a key refused, all of them."""
        found = self._found
        for path, error in self.problems:
            if self._before is None or not self._before.holds(path, _UNREADABLE):
                self._refuse(path, f"cannot be read: {error.strerror}")
        twice = _same_key(found.outputs)
        for path, other in twice.items():
            self._refuse(path, f"{other!r} would have the same key")
        outputs = sorted((o for o in found.outputs if o.path not in twice), key=lambda output: output.path)
        found.skipped.sort(key=lambda item: item.path)
        found.unpublished.sort(key=lambda item: item.path)
        return Harvest(outputs, found.skipped, found.unpublished, dict(sorted(found.directory_links.items())))


def _same_key(outputs: list[Output]) -> dict[str, str]:
    """Path → another path with the same key, both ways. Only a name that was changed can meet one that is written so."""
    changed = {output.key_path: output.path for output in outputs if output.escaped or output.stored == "zstd"}
    plain = {o.key_path: o.path for o in outputs if o.key_path in changed and o.path != changed[o.key_path]}
    return {**{plain[key]: changed[key] for key in plain}, **{changed[key]: plain[key] for key in plain}}


_PACK = struct.Struct("<qQqQ").pack
_WORD = (1 << 64) - 1


def _digest(path: str, identity: Identity) -> int:
    # Python's own hash differs from process to process, and a snapshot is read by the next one.
    # Whoever writes a file may date it to any year; from 2262 on that is more than 63 bits of nanoseconds.
    text = os.fsencode(path) + _PACK(identity.size_bytes, identity.mtime_ns & _WORD, identity.ctime_ns, identity.inode)
    return int.from_bytes(blake2b(text, digest_size=8).digest(), "little")


def _wait_for_a_later_stamp(newest_ns: int) -> None:
    """File times move in ticks of up to 10 ms; a change within the tick of the last write would not be seen."""
    for _ in range(50):
        if not 0 <= newest_ns - time.clock_gettime_ns(_REALTIME_COARSE) < 1_000_000_000:
            return
        time.sleep(0.001)


def _link_trouble(link: str, error: OSError) -> str:
    try:
        target = os.readlink(link)
    except OSError:
        target = "?"
    if error.errno == errno.ELOOP:
        return f"a link that leads to itself: {target!r}"
    if error.errno in (errno.ENOENT, errno.ENOTDIR):
        return f"a broken link: {target!r} is not there"
    return f"a link that cannot be followed: {target!r}: {error.strerror}"
