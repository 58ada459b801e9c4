"""A private MinIO in the place of the user's store, with the inputs of a rehearsal in it: copied, or made.

start it in the rehearsal's directory, below us, so that it ends with us ▶ buckets by the names of the table
each input once: read from the user's store by ranges, or a small sample ▶ written with its checksum
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Callable

from byos_run import errors
from byos_run.archive.kinds import kind_of
from byos_run.archive.sample import sample_members, write_zip
from byos_run.bucket import objects, private, ranges
from byos_run.bucket.private import Private
from byos_run.bucket.session import Session
from byos_run.bucket.upload import LocalFile, Uploader
from byos_run.bucket.wire import Wire
from byos_run.model import Job, Place, S3Url, Stop, StoreSettings, Tally
from byos_run.node import workspace
from byos_run.node.child import Child
from byos_run.node.files import identity_of
from byos_run.node.pool import Pool
from byos_run.node.process import Program

_START_S = 30.0
_BLOCK_BYTES = 8 << 20


def find_program(asked: str, search_path: str) -> str:
    """*asked* is "minio", looked up on PATH, or a path. Raises UsageError."""
    found = shutil.which(asked, path=search_path)
    if found is None:
        raise errors.UsageError(
            [f"--store: there is no program {asked!r}"],
            hint="install MinIO (https://min.io/docs/minio/linux), or give the path of its binary: --store /path/to/minio",
        )
    return os.path.abspath(found)  # it is started in another directory


@contextmanager
def private_store(program: str, directory: Path, *, place: Place, stop: Stop) -> Iterator[Private]:
    """A running MinIO; all of it lies in *directory*, which is made and removed. Raises NodeUnfit, Stopped."""
    known = private.new_private()
    data, log = directory / "data", directory / "log"
    data.mkdir(parents=True)
    environ = {**known.environ, "PATH": os.defpath, "HOME": str(directory), "TMPDIR": str(directory)}
    command = Program(program, (program, *known.arguments, str(data)), environ, directory)
    try:
        with Child(program=command, output=log, library_path=place.library_path) as child:
            until = time.monotonic() + _START_S
            while not private.listens(known):
                stop.wait(0.05)
                stop.check()
                if not child.lives or time.monotonic() > until:
                    said = log.read_text("utf-8", "replace").strip().splitlines()[-1:]
                    raise errors.NodeUnfit(f"the private store did not start: {errors.printable(''.join(said))[:200]}")
            yield known
    finally:
        workspace.remove_tree(directory)


def session_with(known: Private, directory: Path) -> Session:
    """Ours with the private store, in whose *directory* its keys are laid."""
    (directory / "config").write_text(known.config(), encoding="utf-8")
    settings = StoreSettings(endpoint_url=known.endpoint_url, region="us-east-1", profile=private.PROFILE)
    return Session(settings=settings, place=Place(run_directory=directory, environ={}))


def fill_store(
    jobs: Sequence[Job],
    *,
    to: Callable[[str], Wire],
    source_of: Callable[[Job, str], Wire] | None,
    directory: Path,
    tally: Tally,
) -> int:
    """Make the buckets and bring the inputs of *jobs*; *source_of* None: samples. How many objects were written.

    Raises UsageError (no sample of that kind), MissingInput, AccessRefused, StoreUnreachable, NodeUnfit.
    """
    for bucket in sorted({url.bucket for job in jobs for url in (*job.input, job.output)}):
        private.make_bucket(to(bucket))
    wanted = {url: job for job in reversed(jobs) for url in job.input}
    written = 0
    with Pool(name="copy", width=4) as parts:
        for url, job in wanted.items():
            wire = to(url.bucket)
            uploader = Uploader(wire, parts=parts, tally=tally)
            made = (
                _samples(url, job, directory)
                if source_of is None
                else _copies(url, source_of(job, url.bucket), directory)
            )
            for key, path in made:
                _send(uploader, path, key)
                workspace.remove_file_now(path)
                written += 1
    return written


def _copies(url: S3Url, wire: Wire, directory: Path) -> Iterator[tuple[str, Path]]:
    keys = (
        [item.key for item in objects.listed(wire, url.key) if not item.key.endswith("/")]
        if url.is_prefix
        else [url.key]
    )
    for key in keys:
        source = ranges.open_object(wire, S3Url(url.bucket, key))
        path = directory / "copy"
        with path.open("wb") as file:
            for start in range(0, source.size_bytes, _BLOCK_BYTES):
                piece = source.read(start, min(_BLOCK_BYTES, source.size_bytes - start))
                file.write(piece)
                source.release(piece)
        yield key, path


def _samples(url: S3Url, job: Job, directory: Path) -> Iterator[tuple[str, Path]]:
    members = sample_members(job.template.files, job.template.values)
    path = directory / "sample"
    if url.is_prefix:
        for name, text in members.items():
            path.write_text(text, encoding="utf-8")
            yield f"{url.key}{name}", path
    elif kind_of(url.name) is None:
        path.write_text(members["inputs.in"], encoding="utf-8")
        yield url.key, path
    elif kind_of(url.name) == "zip":
        write_zip(path, members)
        yield url.key, path
    else:
        raise errors.UsageError([f"--sample: it makes zips and plain files, no {url.name!r}"])


def _send(uploader: Uploader, path: Path, key: str) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        uploader.send(LocalFile(descriptor, identity_of(os.fstat(descriptor))), key, headers={})
    finally:
        os.close(descriptor)
