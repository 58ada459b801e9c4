"""The only writing there is: new files, directories and links below one private directory.

Directories are opened from the stage's descriptor one component at a time, never through a link; files are made by
``O_EXCL``, so nothing is ever written over or through. A writer belongs to one thread; several may write below one
stage at once.

Modes: a file gets what the archive says of ``0o755``, at least ``0o600``; a directory ``0o755``; the process's umask
holds; no set-id or sticky bit is made. Not promised: fsync; inputs can be fetched again.
"""

from __future__ import annotations

import errno
import os
from contextlib import suppress

from byos_run.archive.plan import collision, encoded, quoted
from byos_run.errors import BadInput, ByosError, NodeUnfit
from byos_run.model import S3Url

_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_ENTER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_OPEN_DIRECTORIES = 64
_COPY_BYTES = 1 << 20
_NO_LINKS = (errno.EPERM, errno.EMLINK, errno.EOPNOTSUPP, errno.ENOSYS)


class Writer:
    """Writes what the input *of* holds below the directory open as *root*, which stays the caller's."""

    def __init__(self, root: int, *, of: S3Url) -> None:
        self._root = root
        self._of = of
        self._open: dict[str, int] = {}

    def __enter__(self) -> Writer:
        return self

    def __exit__(self, *_: object) -> None:
        self._forget()

    def _forget(self) -> None:
        for descriptor in self._open.values():
            os.close(descriptor)
        self._open.clear()

    def create(self, path: str, *, mode: int = 0o644) -> int:
        """A new, empty file, open for writing; the descriptor is the caller's. Raises BadInput, NodeUnfit."""
        parent, _, name = path.rpartition("/")
        try:
            return os.open(encoded(name), _CREATE, mode & 0o755 | 0o600, dir_fd=self._directory(parent))
        except OSError as error:
            raise self._failure(error, path) from None

    def write_file(self, path: str, content: bytes | memoryview, *, mode: int, mtime_s: int | None = None) -> None:
        """A new file with *content*; without *mtime_s* it is as old as it is. Raises BadInput, NodeUnfit."""
        descriptor = self.create(path, mode=mode)
        try:
            self.write(descriptor, content, path=path)
            if mtime_s is not None:
                os.utime(descriptor, (mtime_s, mtime_s))
        finally:
            os.close(descriptor)

    def write(self, descriptor: int, content: bytes | memoryview, *, path: str) -> None:
        """All of *content* at the descriptor's place. Raises NodeUnfit."""
        try:
            done = os.write(descriptor, content) if content else 0
            while done < len(content):
                done += os.write(descriptor, memoryview(content)[done:])
        except OSError as error:
            raise self._failure(error, path) from None

    def write_at(self, descriptor: int, content: memoryview, offset: int, *, path: str) -> None:
        """All of *content* at *offset*; from any thread. Raises NodeUnfit."""
        try:
            done = 0
            while done < len(content):
                done += os.pwrite(descriptor, content[done:], offset + done)
        except OSError as error:
            raise self._failure(error, path) from None

    def make_directory(self, path: str) -> None:
        """*path* and its parents; those that are there stay. Raises BadInput, NodeUnfit."""
        try:
            self._directory(path)
        except OSError as error:
            raise self._failure(error, path) from None

    def link(self, path: str, target: bytes) -> None:
        """A symbolic link; *target* must have passed ``plan.check_link``. Raises BadInput, NodeUnfit."""
        parent, _, name = path.rpartition("/")
        try:
            os.symlink(target, encoded(name), dir_fd=self._directory(parent))
        except OSError as error:
            raise self._failure(error, path) from None

    def hard_link(self, path: str, to: str) -> None:
        """A second name for the file *to* of this stage; a copy where the file system has no hard links."""
        parent, _, name = path.rpartition("/")
        from_parent, _, from_name = to.rpartition("/")
        try:
            here, there = os.dup(self._directory(parent)), -1
            try:
                there = os.dup(self._directory(from_parent))
                os.link(encoded(from_name), encoded(name), src_dir_fd=there, dst_dir_fd=here, follow_symlinks=False)
            finally:
                os.close(here)
                if there >= 0:
                    os.close(there)
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise self._failure(error, path) from None
            self._copy(path, to)

    def _copy(self, path: str, to: str) -> None:
        parent, _, name = to.rpartition("/")
        source = os.open(encoded(name), os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=self._directory(parent))
        try:
            state = os.fstat(source)
            target = self.create(path, mode=state.st_mode)
            try:
                while piece := os.read(source, _COPY_BYTES):
                    self.write(target, piece, path=path)
                os.utime(target, ns=(state.st_mtime_ns, state.st_mtime_ns))
            finally:
                os.close(target)
        finally:
            os.close(source)

    def _directory(self, path: str) -> int:
        """A descriptor of the directory *path*, made if need be; valid until the next call."""
        if not path:
            return self._root
        held = self._open.get(path)
        if held is None:
            if len(self._open) >= _OPEN_DIRECTORIES:
                self._forget()
            held = self._enter(path)
        return held

    def _enter(self, path: str) -> int:
        at = self._root
        for end in [i for i, c in enumerate(path) if c == "/"] + [len(path)]:
            part = path[:end]
            held = self._open.get(part)
            if held is None:
                name = encoded(part.rpartition("/")[2])
                try:
                    held = os.open(name, _ENTER, dir_fd=at)
                except FileNotFoundError:
                    with suppress(FileExistsError):  # another thread was faster
                        os.mkdir(name, 0o755, dir_fd=at)
                    held = os.open(name, _ENTER, dir_fd=at)
                self._open[part] = held
            at = held
        return at

    def _failure(self, error: OSError, path: str) -> ByosError:
        if error.errno in (errno.EEXIST, errno.ENOTDIR, errno.ELOOP, errno.EISDIR):
            return Collision(path, self._of)
        if error.errno in (errno.ENAMETOOLONG, errno.EILSEQ, errno.EINVAL):
            return BadInput(f"{self._of}: {quoted(path)} is no name for this file system: {error.strerror}")
        return NodeUnfit(
            f"writing {quoted(path)} of {self._of}: {error.strerror}",
            hint="a node or scratch with more room is needed" if error.errno in (errno.ENOSPC, errno.EDQUOT) else "",
        )


class Collision(BadInput):
    """Something stands where *path* should be made: another input of the run wrote it, or the file system folds case."""

    def __init__(
        self, path: str, of: S3Url, *, other: object = "another input, or a name that differs in case only,"
    ) -> None:
        told = collision(path, of, other)
        super().__init__(told.message, hint=told.hint)
        self.path = path
