"""What the archive room is handed in a run: a source of bytes, two pools, a stage; here over bytes or a file."""

from __future__ import annotations

import hashlib
import os
import stat
import threading
import time
from pathlib import Path

from byos_run.archive.plan import Limits
from byos_run.archive.unpack import plan_of, unpack_into
from byos_run.errors import BadInput
from byos_run.model import S3Url
from byos_run.node.pool import Count, Pool
from byos_run.node.stop import Stop


class FileSource:
    """A ``model.ByteSource`` over a file or bytes; *latency_s* and *bytes_per_s* make each read as slow as a store's."""

    def __init__(self, content, *, name="case.zip", latency_s=0.0, bytes_per_s=0.0):
        self.url = S3Url("bucket", f"in/{name}")
        self.etag = '"e"'
        self.version_id = ""
        self._file = None
        if isinstance(content, (str, os.PathLike)):
            self._file = os.open(content, os.O_RDONLY | os.O_CLOEXEC)
            self.size_bytes = os.fstat(self._file).st_size
        else:
            self._content = content
            self.size_bytes = len(content)
        self._latency_s = latency_s
        self._bytes_per_s = bytes_per_s
        self._idle = []
        self._lock = threading.Lock()
        self.reads = 0
        self.bytes_read = 0

    def read(self, start, length):
        if length < 0 or start < 0 or start + length > self.size_bytes:
            raise AssertionError(f"{start}+{length} of {self.size_bytes} was asked for")
        with self._lock:
            self.reads += 1
            self.bytes_read += length
        if self._latency_s or self._bytes_per_s:
            time.sleep(self._latency_s + (length / self._bytes_per_s if self._bytes_per_s else 0.0))
        if self._file is None:
            return memoryview(self._content)[start : start + length]
        try:
            buffer = self._idle.pop()
        except IndexError:
            buffer = bytearray(length)
        if len(buffer) < length:
            buffer = bytearray(length)
        view, done = memoryview(buffer)[:length], 0
        while done < length:
            done += os.preadv(self._file, [view[done:]], start + done)
        return view

    def release(self, buffer):
        if isinstance(buffer.obj, bytearray):
            self._idle.append(buffer.obj)

    def close(self):
        if self._file is not None:
            os.close(self._file)
            self._file = None


def unpack(
    source, stage, *, limits=None, width=2, connections=8, beside=(), stop=None, tally=None, plan=None
):  # fmt: skip
    """Plan *source* and unpack it into the directory *stage*, which is made."""
    limits = limits or Limits()
    plan = plan or plan_of(source, limits=limits)
    Path(stage).mkdir(mode=0o700, exist_ok=True)
    into = os.open(stage, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with Pool(name="readers", width=connections) as readers, Pool(name="workers", width=width) as workers:
            return unpack_into(
                plan, source, into=into, readers=readers, workers=workers, tally=tally or Count(),
                stop=stop or Stop(), limits=limits, beside=beside,
            )  # fmt: skip
    finally:
        os.close(into)


def verdict(content, stage, *, name="case.zip", limits=None, stop=None):
    """("ok", Unpacked) or ("refused", message with its hint)."""
    source = FileSource(content, name=name)
    try:
        return "ok", unpack(source, stage, limits=limits, stop=stop)
    except BadInput as error:
        return "refused", f"{error.message} ({error.hint})"
    finally:
        source.close()


def tree(stage):
    """{path: b"content" | "-> target" | "/"}, of everything below *stage*; bytes of names as they are."""
    found = {}
    root = os.fsencode(stage)
    for directory, directories, files in os.walk(root):
        for name in directories + files:
            path = os.path.join(directory, name)
            state = os.lstat(path)
            key = os.path.relpath(path, root)
            if stat.S_ISLNK(state.st_mode):
                found[key] = "-> " + os.fsdecode(os.readlink(path))
            elif stat.S_ISDIR(state.st_mode):
                found[key] = "/"
            elif state.st_size > 1 << 20:
                with open(path, "rb") as file:
                    found[key] = hashlib.sha256(file.read()).hexdigest()
            else:
                found[key] = Path(os.fsdecode(path)).read_bytes()
    return found
